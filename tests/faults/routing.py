"""Deliberate faults in selection, capacity, weights and controllers.

(file, text that occurs once in it, what replaces the text, what is then wrong).
"""

TESTS = [
    "tests/himoe_theory/test_partition.py",
    "tests/himoe_theory/test_selection.py",
    "tests/himoe_theory/test_routing.py",
    "tests/himoe_theory/test_record.py",
    "tests/himoe_theory/test_controllers.py",
]

_PARTITION = "himoe_theory/partition.py"
_NUMERICS = "himoe_theory/_numerics.py"
_RANKING = "himoe_theory/selection/ranking.py"
_POOL = "himoe_theory/selection/pool.py"
_SCORES = "himoe_theory/scores.py"
_THRESHOLD = "himoe_theory/selection/threshold.py"
_TOP_K = "himoe_theory/selection/top_k.py"
_POLICIES = "himoe_theory/selection/policies.py"
_CAPACITY = "himoe_theory/selection/capacity.py"
_CONTROLLERS = "himoe_theory/controllers.py"
_WEIGHTS = "himoe_theory/weights.py"
_ROUTERS = "himoe_theory/routers.py"
_ROUTING = "himoe_theory/routing.py"

FAULTS = [
    (_PARTITION, "np.full(width - len(row), row[0])", "np.full(width - len(row), 0)", "padding with a stranger"),
    (_PARTITION, "set(entries) != set(range(max(entries) + 1))", "min(entries) < 0", "gaps accepted"),
    (_PARTITION, "np.arange(width) < len(row)", "np.arange(width) <= len(row)", "padding is real"),
    (_NUMERICS, "jnp.where(mask, logits - jax.lax.stop_gradient(top), 0)", "logits", "exponential without its shift"),
    (_NUMERICS, "if jnp.finfo(x.dtype).bits < 32 else x", "if jnp.finfo(x.dtype).bits < 16 else x", "sums in bfloat16"),
    (_NUMERICS, "jnp.where(held, x, 0).sum(axis=0)", "x.sum(axis=0)", "means over padding too"),
    (_RANKING, "return jnp.where(keys == 0, 0, keys)", "return keys", "-0 ranks below 0"),
    (_RANKING, "ahead = place < place[:, None]", "ahead = place > place[:, None]", "ties to the higher number"),
    (_RANKING, "for key in reversed(keys)", "for key in keys", "ties first, values last"),
    (
        _TOP_K,
        "ranks = np.arange(max(counts))[None, :] < np.asarray(counts)[:, None]",
        "ranks = np.ones((len(counts), max(counts)), bool)",
        "every group gets the largest K_g",
    ),
    (_TOP_K, "chosen.any(axis=1) & keys.available", "chosen.any(axis=1)", "keys of -inf are chosen"),
    (
        _TOP_K,
        "inner = keys.limited(kept[:, partition.ids()])",
        "inner = keys._replace(ranks=tuple(jnp.where(kept[:, partition.ids()], k, 0) for k in keys.ranks))",
        "groups left out are filled with 0",
    ),
    (_THRESHOLD, "(before <= self.p)", "(before + falling <= self.p)", "the expert that crosses the mass is left out"),
    (_POOL, "jnp.asarray(np.asarray(table, np.int32))[mask.sum(dtype=jnp.int32)]", "table[-1]", "pads give places"),
    (_POOL, "keys if mask is None else keys.limited(mask[:, None])", "keys", "pads take places of a pool"),
    (_SCORES, "return Keys(self.value(logits), logits, (logits,))", "return Score.keys(self, logits)", "sigmoids tie"),
    (_SCORES, "jnp.where(real[:, None], -total", "jnp.where(True, -total", "pads take part in transport"),
    (_POLICIES, "(gates > jnp.asarray", "(gates >= jnp.asarray", "threshold kept on equality"),
    (
        _POLICIES,
        "drawn < gates / jnp.asarray(self.threshold).astype(gates.dtype)",
        "drawn < gates",
        "threshold of the random policy lost",
    ),
    (_CAPACITY, "places += places % 2", "places += 0", "even rule lost"),
    (_CAPACITY, "return max(places, self.minimum)", "return places", "minimum lost"),
    (
        _CAPACITY,
        "math.floor(routes * self.factor * tokens / experts)",
        "math.ceil(routes * self.factor * tokens / experts)",
        "ceiling for floor",
    ),
    (
        _CAPACITY,
        "waiting + jnp.cumsum(queue, axis=0, dtype=jnp.int32) - queue",
        "waiting + jnp.cumsum(queue, axis=0, dtype=jnp.int32)",
        "slots start at 1",
    ),
    (_CAPACITY, "serve, nothing, routes.T)", "serve, nothing, routes.T[::-1])", "last routes are served first"),
    (
        _CAPACITY,
        "chosen = (route[:, None] == experts) & selected",
        "chosen = route[:, None] == experts",
        "discarded routes take places",
    ),
    (
        _CAPACITY,
        "turn = jnp.argsort(-gates.max(axis=-1)",
        "turn = jnp.argsort(gates.max(axis=-1)",
        "last priority first",
    ),
    (
        _CONTROLLERS,
        "self.beta * state + (1 - self.beta) * mean\n",
        "self.beta * state + mean\n",
        "moving average not normalised",
    ),
    (
        _CONTROLLERS,
        "masked_mean(jax.lax.stop_gradient(logits), mask)",
        "masked_mean(logits, mask)",
        "gradient through the moving average",
    ),
    (
        _CONTROLLERS,
        "(below.astype(state.dtype) - above.astype(state.dtype))",
        "(above.astype(state.dtype) - below.astype(state.dtype))",
        "bias pushes the wrong way",
    ),
    (_CONTROLLERS, "(tally == whole) & (rest > 0)", "(tally == whole) & (rest < 0)", "a mean that is no whole number"),
    (
        _CONTROLLERS,
        "return Prepared(state, logits, keys)\n\n    def tally",
        "return Prepared(state, logits + state, keys)\n\n    def tally",
        "bias enters the weights",
    ),
    (
        _CONTROLLERS,
        "return accumulate(jnp.zeros(num_experts, dtype))",
        "return jnp.zeros(num_experts, dtype)",
        "bias in bfloat16",
    ),
    (
        _CONTROLLERS,
        'before drops."""\n        return routing.counts',
        'before drops."""\n        return routing.kept.sum(axis=0, dtype=jnp.int32)',
        "the bias counts what was dispatched, not what was selected",
    ),
    (
        _CONTROLLERS,
        "corrected = (logits - self.tau * state.astype",
        "corrected = (logits - self.tau * jax.lax.stop_gradient(0 * state).astype",
        "the average is not used",
    ),
    (
        _CONTROLLERS,
        "        if training:\n            mean",
        "        if True:\n            mean",
        "the average moves in evaluation",
    ),
    (
        _WEIGHTS,
        "jnp.where(selected, jnp.exp(log_scores), 0)",
        "masked_softmax(log_scores, selected)",
        "softmax-then-mask renormalised",
    ),
    (_WEIGHTS, "self.epsilon == 0", "self.epsilon >= 0", "epsilon of the released code ignored"),
    (
        _WEIGHTS,
        "jnp.exp(shown - total)",
        "jnp.exp(shown) / (jnp.exp(shown).sum(axis=-1, keepdims=True) + self.epsilon)",
        "NaN gradient in float32 where all scores underflow",
    ),
    (_ROUTERS, "kept = selected & (slots < limit)", "kept = selected & (slots <= limit)", "one token too many"),
    (
        _ROUTERS,
        "combine=jnp.where(kept, gates, 0)",
        "combine=jnp.where(kept, gates / jnp.where(kept, gates, 0).sum(axis=-1, keepdims=True), 0)",
        "what is dropped is redistributed",
    ),
    (
        _ROUTERS,
        "(self.update(state, self.controller.tally(routing)) if training else state)",
        "self.update(state, self.controller.tally(routing))",
        "the bias moves in evaluation",
    ),
    (
        _ROUTERS,
        "choice.selected if mask is None else choice.selected & mask[:, None]",
        "choice.selected",
        "pads are routed",
    ),
    (_ROUTERS, "kept & real, rule", "kept, rule", "null experts compute under a capacity"),
    (_ROUTERS, "selected & real, None", "selected, None", "null experts compute"),
    (_ROUTERS, "gates = self.weighting.weigh(log_scores, kept)", "pass", "re-routed tokens have no weight"),
    (_POLICIES, "return KeepFirst().keep(gates, key) | (drawn", "return (drawn", "a random policy may drop the first"),
    (
        _ROUTING,
        "return self.partition.sum(self.probs)",
        "return self.partition.sum(self.selection_probs)",
        "group mass of corrected probabilities",
    ),
    (_ROUTING, "jnp.where(mask[:, None, None], logits, -jnp.inf)", "logits", "pads are sent to slots"),
]
