"""Deliberate faults in the metrics: each must make the tests of `tests/himoe_theory/metrics` fail.

(file, text that occurs once in it, what replaces the text, what is then wrong).
"""

TESTS = ["tests/himoe_theory/metrics"]

FAULTS = [
    (
        "himoe_theory/metrics/balance.py",
        "return root(jnp.square(_excess(load)).mean(axis=-1))",
        "return root(jnp.square(_excess(load)).sum(axis=-1) / max(load.shape[-1] - 1, 1))",
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
        "return jnp.abs(_excess(_loads(load))).max(axis=-1)",
        "return (_excess(_loads(load))).max(axis=-1)",
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
        "safe_divide(load, largest, otherwise=1.0).mean(axis",
        "safe_divide(load, largest, otherwise=0.0).mean(axis",
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
        "return token_mean(_perplexity(partition.sum(probs)), mask)",
        "return _perplexity(token_mean(partition.sum(probs), mask)[None]).mean()",
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
        "return _gini_parts(wide, mask)[0] / wide.shape[1]",
        "return _gini_parts(wide, mask)[0] / wide.shape[0]",
        "variance over tokens divided by the tokens twice",
    ),
    (
        "himoe_theory/metrics/concentration.py",
        "shifted = weights - (weights[:1] if mask is None else weights[jnp.argmax(mask)])",
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
        "shifted = outputs - (outputs[0] if mask is None else outputs[jnp.argmax(mask)])",
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
    (
        "himoe_theory/metrics/_common.py",
        "tokens = jnp.maximum(jnp.asarray(mask).sum(), 1)",
        "tokens = values.shape[0]",
        "padded tokens are counted",
    ),
    (
        "himoe_theory/metrics/_common.py",
        "x if mask is None else jnp.where(_along(checked_mask(mask, x.shape[0]), x), x, jnp.zeros((), x.dtype))",
        "x",
        "what padded tokens hold is used",
    ),
    (
        "himoe_theory/metrics/_common.py",
        "values.sum(axis=0), values.shape[0]",
        "values.astype(jnp.float32).sum(axis=0), values.shape[0]",
        "counts summed in float32",
    ),
    (
        "himoe_theory/metrics/_common.py",
        "np.where(np.asarray(mask), np.abs(sums - 1), 0)",
        "np.abs(sums - 1)",
        "padded rows must sum to 1",
    ),
    (
        "himoe_theory/metrics/_common.py",
        "max(1e-3, 4 * float(",
        "max(1e-3, 1 * float(",
        "rows of bfloat16 refused",
    ),
    (
        "himoe_theory/metrics/_common.py",
        "max(1e-3, 4 * float(jnp",
        "max(1e-3, 8 * float(jnp",
        "logits of bfloat16 accepted",
    ),
    (
        "himoe_theory/metrics/_common.py",
        "for first in range(0, left.shape[0], EXACT)",
        "for first in range(0, left.shape[0] - left.shape[0] % EXACT, EXACT)",
        "the last part left out",
    ),
    (
        "himoe_theory/metrics/_common.py",
        "x = x.astype(np.float64)  # before",
        "x = x.astype(np.int32)  # before",
        "counts cut to 32 bits",
    ),
    (
        "himoe_theory/metrics/balance.py",
        "return within_range(amounts(",
        "return (amounts(",
        "loads at the end of the range",
    ),
    (
        "himoe_theory/metrics/information.py",
        "table = within_range(table, (0, 1))",
        "table = 1 * table",
        "tables at the end of the range",
    ),
    (
        "himoe_theory/metrics/change.py",
        "valid = valid if mask is None else valid & mask",
        "valid = valid if mask is None else valid",
        "choices of padded tokens count",
    ),
    (
        "himoe_theory/metrics/similarity.py",
        "centred = centred if mask is None else jnp.where(jnp.asarray(mask)[:, None, None], centred, 0)",
        "centred = 1 * centred",
        "padded tokens are centred outputs",
    ),
    (
        "himoe_theory/metrics/floor.py",
        "np.sqrt((num_experts / given - 1) / tokens)",
        "np.sqrt(num_experts / given / tokens)",
        "the floor of a multinomial",
    ),
    (
        "himoe_theory/metrics/floor.py",
        "(1 - level) / num_experts, tokens",
        "(1 - level), tokens",
        "the quantile of one expert",
    ),
    (
        "himoe_theory/metrics/floor.py",
        "chance=float(chi2.sf(ratio, experts - 1))",
        "chance=float(chi2.sf(ratio, experts))",
        "a degree of freedom too many",
    ),
]
