"""Deliberate faults in selection, capacity, weights and controllers.

(file, text that occurs once in it, what replaces the text, what is then wrong).
"""

TESTS = [
    "tests/himoe_theory/test_partition.py",
    "tests/himoe_theory/test_selection.py",
    "tests/himoe_theory/test_routing.py",
]

_PARTITION = "himoe_theory/partition.py"
_NUMERICS = "himoe_theory/_numerics.py"
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
    (_TOP_K, "return jnp.where(keys == 0, 0, keys)", "return keys", "-0 ranks below 0"),
    (_TOP_K, "(place < place[:, None])", "(place > place[:, None])", "ties to the higher number"),
    (
        _TOP_K,
        "ranks = np.arange(max(counts))[None, :] < np.asarray(counts)[:, None]",
        "ranks = np.ones((len(counts), max(counts)), bool)",
        "every group gets the largest K_g",
    ),
    (_POLICIES, "(gates > self.threshold)", "(gates >= self.threshold)", "threshold kept on equality"),
    (_POLICIES, "drawn < gates / self.threshold", "drawn < gates", "threshold of the random policy lost"),
    (_CAPACITY, "places += places % 2", "places += 0", "even rule lost"),
    (_CAPACITY, "return max(places, self.minimum)", "return places", "minimum lost"),
    (
        _CAPACITY,
        "math.floor(routes * self.factor * tokens / experts)",
        "math.ceil(routes * self.factor * tokens / experts)",
        "ceiling for floor",
    ),
    (_CAPACITY, "before = jnp.cumsum(queue, axis=0) - queue", "before = jnp.cumsum(queue, axis=0)", "slots start at 1"),
    (_CONTROLLERS, "self.beta * state + (1 - self.beta) *", "self.beta * state +", "moving average not normalised"),
    (
        _CONTROLLERS,
        "jax.lax.stop_gradient(logits).mean(axis=0)",
        "logits.mean(axis=0)",
        "gradient through the moving average",
    ),
    (
        _CONTROLLERS,
        "jnp.sign(counts.sum() - counts.size * counts)",
        "jnp.sign(counts.size * counts - counts.sum())",
        "bias pushes the wrong way",
    ),
    (
        _CONTROLLERS,
        "return state, logits, score.value(logits) + state",
        "return state, logits + state, score.value(logits) + state",
        "bias enters the weights",
    ),
    (_WEIGHTS, "return jnp.exp(log_scores)", "return jax.nn.softmax(log_scores)", "softmax-then-mask renormalised"),
    (_WEIGHTS, "self.epsilon == 0", "self.epsilon >= 0", "epsilon of the released code ignored"),
    (
        _WEIGHTS,
        "return jnp.exp(log_scores - jnp.logaddexp(total, math.log(self.epsilon)))",
        "return jnp.exp(log_scores) / (jnp.exp(log_scores).sum(axis=-1, keepdims=True) + self.epsilon)",
        "NaN gradient in float32 where all scores underflow",
    ),
    (_ROUTERS, "active & (slots < places)", "active & (slots <= places)", "one token too many"),
    (
        _ROUTERS,
        "jnp.where(kept, gates, 0)",
        "jnp.where(kept, gates / jnp.where(kept, gates, 0).sum(axis=-1, keepdims=True), 0)",
        "what is dropped is redistributed",
    ),
    (
        _ROUTERS,
        "routing.selected.astype(state.dtype)",
        "routing.kept.astype(state.dtype)",
        "the bias counts what was dispatched, not what was selected",
    ),
    (
        _CONTROLLERS,
        "            state = self.beta * state + (1 - self.beta) * mean\n"
        "        corrected = (logits - self.tau * state.astype",
        "            old, state = state, self.beta * state + (1 - self.beta) * mean\n"
        "        else:\n            old = state\n        corrected = (logits - self.tau * old.astype",
        "the average is used before it is updated",
    ),
    (
        _CONTROLLERS,
        "        if training:\n            mean",
        "        if True:\n            mean",
        "the average moves in evaluation",
    ),
    (
        _ROUTERS,
        "        if training:\n            state = self",
        "        if True:\n            state = self",
        "the bias moves in evaluation",
    ),
    (
        _CAPACITY,
        "queue = chosen.reshape(",
        "queue = jnp.swapaxes(chosen, 0, 1).reshape(",
        "queues counted in token-major order",
    ),
    (_CAPACITY, "& active.T[:, :, None]", "& True", "discarded routes take places"),
    (_POLICIES, "return KeepFirst().keep(gates, key) | (drawn", "return (drawn", "a random policy may drop the first"),
    (_ROUTERS, "slots=jnp.where(kept, slots, -1)", "slots=slots", "slots of dropped routes kept"),
    (
        _ROUTING,
        "return self.partition.sum(self.probs)",
        "return self.partition.sum(self.selection_probs)",
        "group mass of corrected probabilities",
    ),
    (_ROUTING, "return to_dense(self.active,", "return to_dense(self.kept,", "losses see the selection after drops"),
]
