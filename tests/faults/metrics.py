"""Deliberate faults in the metrics: each must make the tests of `tests/himoe_theory/metrics` fail.

(file, text that occurs once in it, what replaces the text, what is then wrong).
"""

TESTS = ["tests/himoe_theory/metrics"]

FAULTS = [
    (
        "himoe_theory/metrics/balance.py",
        "return root(jnp.square(_excess(load)).mean())",
        "return root(jnp.square(_excess(load)).sum() / max(load.shape[0] - 1, 1))",
        "CV with the sample's deviation instead of the population's",
    ),
    (
        "himoe_theory/metrics/balance.py",
        "return _cv(totals / jnp.asarray(partition.sizes, totals.dtype))",
        "return _cv(totals)",
        "group CV per expert forgets the sizes",
    ),
    (
        "himoe_theory/metrics/balance.py",
        'return jnp.abs(_excess(nonnegative("load", load, ("experts",)))).max()',
        'return _excess(nonnegative("load", load, ("experts",))).max()',
        "absolute violation without the absolute value",
    ),
    (
        "himoe_theory/metrics/balance.py",
        "lost = to_float((active & ~kept).sum())",
        "lost = to_float((~kept).sum())",
        "routes that a policy discarded count as dropped",
    ),
    (
        "himoe_theory/metrics/balance.py",
        "safe_divide(load, largest, otherwise=1.0).mean()",
        "safe_divide(load, largest, otherwise=0.0).mean()",
        "zero load becomes 0/0",
    ),
    (
        "himoe_theory/metrics/concentration.py",
        "return jnp.exp(-xlogx(probs).sum(axis=-1))",
        "return jnp.exp2(-xlogx(probs).sum(axis=-1))",
        "entropy in nats raised to base 2",
    ),
    (
        "himoe_theory/metrics/concentration.py",
        "return _perplexity(partition.sum(probs)).mean()",
        "return _perplexity(partition.sum(probs).mean(axis=0, keepdims=True)).mean()",
        "effective groups of the batch instead of a token",
    ),
    (
        "himoe_theory/metrics/concentration.py",
        "return jnp.log1p(safe_divide(gain, square_of_mean, otherwise=0.0))",
        "return safe_divide(gain, square_of_mean, otherwise=0.0)",
        "collision information without its logarithm",
    ),
    (
        "himoe_theory/metrics/concentration.py",
        "return _gini_parts(wide)[0] / wide.shape[1]",
        "return _gini_parts(wide)[0] / wide.shape[0]",
        "variance over tokens divided by the tokens twice",
    ),
    (
        "himoe_theory/metrics/concentration.py",
        "shifted = weights - weights[:1]",
        "shifted = weights",
        "the rounding of a mean is taken for dependence on the token",
    ),
    (
        "himoe_theory/metrics/information.py",
        "independent = labels[:, None] * experts",
        "independent = jnp.full_like(joint, 1 / joint.size)",
        "distance from uniform instead of from independence",
    ),
    (
        "himoe_theory/metrics/information.py",
        "jnp.log(table.shape[1] / jnp.asarray(routes, table.dtype))",
        "jnp.log(jnp.asarray(table.shape[1], table.dtype))",
        "the bound of normalised information forgets the routes",
    ),
    (
        "himoe_theory/metrics/information.py",
        "if 1 in table.shape or n in table.shape:",
        "if n in table.shape:",
        "constant labels and a single expert get 0/0 instead of 0",
    ),
    (
        "himoe_theory/metrics/information.py",
        "((of_rows + of_columns) / 2 - expected)",
        "((of_rows + of_columns) / 2)",
        "adjusted information corrects the numerator for chance alone",
    ),
    (
        "himoe_theory/metrics/information.py",
        "& (n - row - columns + count >= 0)",
        "",
        "the expectation counts tables that cannot be",
    ),
    (
        "himoe_theory/metrics/information.py",
        "linear_sum_assignment(table, maximize=True)",
        "linear_sum_assignment(table)",
        "the worst matching instead of the best",
    ),
    (
        "himoe_theory/metrics/similarity.py",
        "shifted = outputs - outputs[:1]",
        "shifted = outputs",
        "the rounding of a mean is taken for a direction",
    ),
    (
        "himoe_theory/metrics/similarity.py",
        'return jnp.square(jnp.einsum("td,tjc->jdc", one, x, precision=_HIGHEST)).sum(axis=(1, 2))',
        'return jnp.square(jnp.einsum("td,tjd->jd", one, x, precision=_HIGHEST)).sum(axis=1)',
        "CKA sees only equal coordinates",
    ),
    (
        "himoe_theory/metrics/similarity.py",
        'squared = jnp.square(jnp.einsum("tid,tjd->tij", unit, unit, precision=_HIGHEST))',
        'squared = jnp.abs(jnp.einsum("tid,tjd->tij", unit, unit, precision=_HIGHEST))',
        "overlap without its square",
    ),
    (
        "himoe_theory/metrics/similarity.py",
        "if not 2 <= clusters < assignments.size:",
        "if clusters < 2:",
        "silhouette of singletons is asked for although undefined",
    ),
    (
        "himoe_theory/metrics/change.py",
        "larger = to_float(jnp.maximum(before.sum(axis=-1), after.sum(axis=-1)))",
        "larger = to_float(before.sum(axis=-1))",
        "churn compares with the selection before only",
    ),
    (
        "himoe_theory/metrics/change.py",
        "return pairs - safe_divide(pairs.sum(), independent.sum(), otherwise=0.0) * independent",
        "return pairs - independent",
        "the null ignores that a token selects a fixed number",
    ),
    (
        "himoe_theory/metrics/change.py",
        "math.prod(sizes[g + 1 :])",
        "math.prod(sizes[g + 2 :])",
        "a mixed radix in which different joint choices share a number",
    ),
    (
        "himoe_theory/metrics/change.py",
        "total - single.max(), otherwise=0.0)",
        "total - single.min(), otherwise=0.0)",
        "redundancy relative to the wrong room",
    ),
    (
        "himoe_theory/metrics/_common.py",
        "return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)",
        "return jnp.sqrt(x)",
        "infinite gradient of the root at 0",
    ),
]
