"""Deliberate faults in what keeps large, small and saturated numbers right, and in the attacks on it.

(file, text that occurs once in it, what replaces the text, what is then wrong).
"""

TESTS = ["tests/himoe_theory/test_large_numbers.py", "tests/proofs_checks/test_floats.py"]

_FLOATS = "proofs_checks/floats.py"

FAULTS = [
    (
        "himoe_theory/objectives/_softmax.py",
        "logits = logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))",
        "logits = 1 * logits",
        "two large numbers subtracted for a group's mass",
    ),
    (
        "himoe_theory/scores.py",
        "x = within_range(x)  # squares",
        "x = 1 * x  # squares",
        "cosines of long vectors overflow",
    ),
    (
        "himoe_theory/bounds.py",
        "jnp.where(jnp.eye(probs.size, dtype=bool), 0, jnp.outer(probs, probs)).sum()",
        "(1 - jnp.square(probs).sum())",
        "1 minus a purity near 1",
    ),
    (_FLOATS, "bool((noticed[inside] > 1).any())", "True", "an attack that need not notice anything"),
    (_FLOATS, "bool((there > 1).any())", "True", "ranges that are too small accepted"),
    (
        _FLOATS,
        "if (excess[inside] <= 1).all():",
        "if (excess[inside] <= 1).any():",
        "ranges that are too large accepted",
    ),
    (
        _FLOATS,
        "np.where((a == b).all(axis=1), 0.0, np.inf)",
        "np.abs(a - b).max(axis=1) / 8",
        "another expert is near enough",
    ),
]
