"""Deliberate faults in the objectives and their closed-form gradients, at least five a module.

(file, text that occurs once in it, what replaces the text, what is then wrong).
"""

TESTS = [
    "tests/himoe_theory/test_objectives_values.py",
    "tests/himoe_theory/test_objectives_outputs.py",
    "tests/himoe_theory/test_objectives_contract.py",
]

_LOAD = "himoe_theory/objectives/load.py"
_INTER = "himoe_theory/objectives/inter_group.py"
_INTRA = "himoe_theory/objectives/intra_group.py"
_ENTROPY = "himoe_theory/objectives/entropy.py"
_Z = "himoe_theory/objectives/z.py"
_VARIANCE = "himoe_theory/objectives/variance.py"
_OUTPUTS = "himoe_theory/objectives/outputs.py"
_IMPORTANCE = "himoe_theory/objectives/importance.py"
_SOFTMAX = "himoe_theory/objectives/_softmax.py"

FAULTS = [
    (_LOAD, "safe_divide(counts, counts.sum(), otherwise=0.0)", "counts / selected.shape[0]", "h sums to K, not to 1"),
    (
        _LOAD,
        "return logits.shape[1] * (share * jax.nn.softmax(logits).mean(axis=0)).sum()",
        "return (share * jax.nn.softmax(logits).mean(axis=0)).sum()",
        "factor N lost",
    ),
    (
        _LOAD,
        "share = jax.lax.stop_gradient(_share_like(share, logits))",
        "share = _share_like(share, logits)",
        "gradient flows through the frozen share",
    ),
    (
        _LOAD,
        "return experts / tokens * pull_back(jax.nn.softmax(logits), _share_like(share, logits))",
        "return experts * pull_back(jax.nn.softmax(logits), _share_like(share, logits))",
        "gradient lacks the mean over tokens",
    ),
    (_LOAD, "return 2 * load_frozen_grad(logits)", "return load_frozen_grad(logits)", "full gradient without factor 2"),
    (_LOAD, "jax.nn.one_hot(experts[:, 0],", "jax.nn.one_hot(experts[:, -1],", "last choices instead of first"),
    (
        _LOAD,
        "return experts / tokens * pull_back(masked_softmax(logits, selected), dispatch_share(selected, logits))",
        "return experts / tokens * pull_back(jax.nn.softmax(logits), dispatch_share(selected, logits))",
        "gradient through the full softmax instead of the selected weights",
    ),
    (_LOAD, "return xlogx(jax.nn.softmax", "return -xlogx(jax.nn.softmax", "sign of the entropy form"),
    (
        _INTER,
        "return jnp.square(kept).sum(axis=-1).mean()",
        "return jnp.square(kept).mean(axis=-1).mean()",
        "mean over experts instead of sum",
    ),
    (
        _INTER,
        "return 2 / logits.shape[0] * pull_back(probs, kept)",
        "return 2 / logits.shape[0] * kept * (kept - jnp.square(kept).sum(axis=-1, keepdims=True))",
        "unselected experts get no gradient",
    ),
    (
        _INTER,
        "return jnp.square(partition.sum(kept)).sum",
        "return partition.sum(jnp.square(kept)).sum",
        "sum of squares for square of sum",
    ),
    (
        _INTER,
        "pull_back(probs, jnp.where(selected, mass, 0))",
        "pull_back(probs, mass)",
        "mask lost in the sparse gradient",
    ),
    (
        _INTER,
        "pull_back(probs, partition.spread(partition.sum(probs)))",
        "pull_back(probs, probs)",
        "dense gradient forgets the groups",
    ),
    (
        _INTER,
        "return jnp.square(partition.sum(jax.nn.softmax(logits))).sum(axis=-1).mean()",
        "return jnp.square(partition.sum(jax.nn.softmax(logits)).mean(axis=0)).sum()",
        "mean over tokens taken before the square",
    ),
    (
        _INTRA,
        "return -jnp.square(jax.nn.softmax(checked",
        "return jnp.square(jax.nn.softmax(checked",
        "sign of the global term",
    ),
    (
        _INTRA,
        "return -2 / logits.shape[0] * pull_back(probs, probs)",
        "return -1 / logits.shape[0] * pull_back(probs, probs)",
        "factor 2 lost",
    ),
    (
        _INTRA,
        "return -jnp.square(q).sum(axis=-1).mean() / partition.num_groups",
        "return -jnp.square(q).sum(axis=-1).mean()",
        "mean over groups lost",
    ),
    (_INTRA, "q - partition.spread(purity)", "q - jax.nn.softmax(logits)", "wrong centre of the conditional gradient"),
    (_INTRA, "* (inside - across)", "* inside", "what epsilon adds across groups is lost"),
    (
        _INTRA,
        "return q, jnp.zeros_like(mass)",
        "return jax.nn.softmax(logits), jnp.zeros_like(mass)",
        "joint for conditional",
    ),
    (_ENTROPY, "return -(probs * _log(", "return (probs * _log(", "sign of the token entropy"),
    (
        _ENTROPY,
        "return -pull_back(probs, slope) / logits.shape[0]",
        "return -pull_back(probs, slope)",
        "mean over tokens lost",
    ),
    (
        _ENTROPY,
        "return log if epsilon == 0 else log + probs / (probs + epsilon)",
        "return log",
        "second term of the derivative lost",
    ),
    (
        _ENTROPY,
        "return (mass * _log(mass, group_log_mass(logits, partition), epsilon)).sum(axis=-1).mean()",
        "return (mass * _log(mass, group_log_mass(logits, partition), epsilon)).mean()",
        "mean over groups instead of sum",
    ),
    (
        _ENTROPY,
        "return pull_back(probs, partition.spread(slope)) / logits.shape[0]",
        "return -pull_back(probs, partition.spread(slope)) / logits.shape[0]",
        "sign of the group gradient",
    ),
    (_ENTROPY, "exact if epsilon == 0 else jnp.log(probs + epsilon)", "jnp.log(probs + 1e-10)", "epsilon always added"),
    (
        _Z,
        "return jnp.square(jax.nn.logsumexp(checked_logits(logits), axis=-1)).mean()",
        "return jax.nn.logsumexp(checked_logits(logits), axis=-1).mean()",
        "square lost",
    ),
    (_Z, "axis=-1)).mean()", "axis=-1)).sum()", "sum for mean"),
    (_Z, "axis=-1)).mean()", "axis=0)).mean()", "normaliser over tokens instead of experts"),
    (_Z, "return 2 / logits.shape[0] * total", "return 1 / logits.shape[0] * total", "factor 2 lost in the gradient"),
    (
        _Z,
        "* total * jax.nn.softmax(logits)",
        "* total * jax.nn.softmax(logits, axis=0)",
        "softmax over tokens in the gradient",
    ),
    (
        _Z,
        "return 2 / logits.shape[0] * total",
        "return 2 / logits.shape[0] * jnp.abs(total)",
        "sign of negative normalisers lost",
    ),
    (
        _VARIANCE,
        "return -jnp.square(weights - weights.mean(axis=0)).sum() / logits.shape[1]",
        "return -jnp.square(weights - weights.mean(axis=0)).mean()",
        "mean over tokens instead of sum",
    ),
    (
        _VARIANCE,
        "return -jnp.square(weights - weights.mean(axis=0)).sum()",
        "return -jnp.square(weights - weights.mean(axis=1, keepdims=True)).sum()",
        "centred across experts",
    ),
    (
        _VARIANCE,
        "return -2 / logits.shape[1] * pull_back(weights,",
        "return -2 * (1 - 1 / logits.shape[0]) / logits.shape[1] * pull_back(weights,",
        "the printed factor (T-1)/T",
    ),
    (_VARIANCE, "sum(axis=-1).mean() / (experts - 1)", "sum(axis=-1).mean() / experts", "biased variance"),
    (
        _VARIANCE,
        "(_several_experts(logits) - 1)) * pull_back",
        "_several_experts(logits)) * pull_back",
        "gradient of the biased variance",
    ),
    (_VARIANCE, "if experts < 2:", "if experts < 1:", "one expert accepted"),
    (
        _OUTPUTS,
        "(jnp.square(safe_divide(inner, squares + epsilon, otherwise=0.0)) * squares).sum()",
        "jnp.square(safe_divide(inner, squares + epsilon, otherwise=0.0)).sum()",
        "squared length of the projected vector lost",
    ),
    (
        _OUTPUTS,
        "towards + jnp.swapaxes(towards, 1, 2)",
        "towards",
        "terms of x_j as the target of a projection lost (as in the printed Eq. 8)",
    ),
    (
        _OUTPUTS,
        "return pulled - 2 * jnp.swapaxes(target, 1, 2) * outputs",
        "return pulled",
        "derivative of the denominator lost",
    ),
    (
        _OUTPUTS,
        "(b * rest).sum(axis=-1, keepdims=True) * b",
        "(b * rest).sum(axis=-1, keepdims=True) * b * 0",
        "no orthogonalisation: overlap counted twice",
    ),
    (
        _OUTPUTS,
        "return total / (outputs.shape[0] * routes)",
        "return total / outputs.shape[0]",
        "mean over experts lost",
    ),
    (
        _OUTPUTS,
        "gradient = gradient.at[:, j].add(projection)",
        "gradient = gradient.at[:, j].add(residual)",
        "residual for projection",
    ),
    (
        _OUTPUTS,
        ".at[order].set(regrouped",
        ".at[jnp.argsort(order)].set(regrouped",
        "rows not carried back to their places",
    ),
    (
        _OUTPUTS,
        "jnp.argsort(jnp.asarray(experts).reshape(-1), stable=True)",
        "jnp.arange(experts.size)",
        "the released regrouping repaired",
    ),
    (
        _IMPORTANCE,
        "return amounts.shape[0] * safe_divide(variation, jnp.square(amounts.sum()), otherwise=0.0)",
        "return safe_divide(variation, jnp.square(amounts.sum()), otherwise=0.0)",
        "factor N lost",
    ),
    (
        _IMPORTANCE,
        "return 2 * amounts.shape[0] * safe_divide(centred - excess,",
        "return 2 * amounts.shape[0] * safe_divide(centred,",
        "gradient of the squared total lost",
    ),
    (
        _IMPORTANCE,
        "_cv_squared_slope(weights.sum(axis=0))",
        "_cv_squared_slope(weights.mean(axis=0))",
        "mean for sum in the gradient",
    ),
    (
        _IMPORTANCE,
        "order[:, k : k + 1], order[:, k - 1 : k]",
        "order[:, k - 1 : k], order[:, k - 1 : k]",
        "an expert is its own threshold",
    ),
    (_IMPORTANCE, "return push.at[rows, source].add(-push)", "return push", "gradient of the threshold lost"),
    (
        _IMPORTANCE,
        "jax.scipy.stats.norm.pdf(z) / noise_std * slope",
        "jax.scipy.stats.norm.pdf(z) * slope",
        "noise scale lost in the gradient",
    ),
    (
        _SOFTMAX,
        "return probs * (slope - (probs * slope).sum(axis=-1, keepdims=True))",
        "return probs * slope",
        "pull-back without its centre",
    ),
    (
        _SOFTMAX,
        "return inside - jax.nn.logsumexp(logits, axis=-1, keepdims=True)",
        "return inside",
        "group mass not normalised",
    ),
]
