"""Deliberate faults in selection, capacity, weights and controllers.

(file, text that occurs once in it, what replaces the text, what is then wrong).
"""

TESTS = ["tests/himoe_theory/test_routing.py", "tests/himoe_theory/test_golden.py"]

_TOP_K = "himoe_theory/selection/top_k.py"
_POLICIES = "himoe_theory/selection/policies.py"
_CAPACITY = "himoe_theory/selection/capacity.py"
_CONTROLLERS = "himoe_theory/controllers.py"
_WEIGHTS = "himoe_theory/weights.py"
_ROUTERS = "himoe_theory/routers.py"
_ROUTING = "himoe_theory/routing.py"

FAULTS = [
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
    (_CONTROLLERS, "jnp.sign(counts.mean() - counts)", "jnp.sign(counts - counts.mean())", "bias pushes the wrong way"),
    (
        _CONTROLLERS,
        "return state, logits, score.value(logits) + state",
        "return state, logits + state, score.value(logits) + state",
        "bias enters the weights",
    ),
    (_WEIGHTS, "return jnp.exp(log_scores)", "return jax.nn.softmax(log_scores)", "softmax-then-mask renormalised"),
    (_WEIGHTS, "self.epsilon == 0", "self.epsilon >= 0", "epsilon of the released code ignored"),
    (_ROUTERS, "active & (slots < places)", "active & (slots <= places)", "one token too many"),
    (_ROUTERS, "slots=jnp.where(kept, slots, -1)", "slots=slots", "slots of dropped routes kept"),
    (
        _ROUTING,
        "return self.partition.sum(self.probs)",
        "return self.partition.sum(self.selection_probs)",
        "group mass of corrected probabilities",
    ),
    (_ROUTING, "return to_dense(self.active,", "return to_dense(self.kept,", "losses see the selection after drops"),
]
