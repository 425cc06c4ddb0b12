"""Deliberate faults in the load and importance losses and their closed-form gradients, at least five a module.

(file, text that occurs once in it, what replaces the text, what is then wrong, the tests that are enough).
"""

from .objectives import TESTS as TESTS

_HARD = "himoe_theory/objectives/load_hard.py"
_SOFT = "himoe_theory/objectives/load_soft.py"
_IMPORTANCE = "himoe_theory/objectives/importance.py"

FAULTS = [
    (
        _HARD,
        "safe_divide(counts, counts.sum(), otherwise=0.0)",
        "counts / selected.shape[0]",
        "h sums to K, not to 1",
        "hand_values or load_conventions",
    ),
    (
        _HARD,
        "return logits.shape[1] * (share * token_mean(jax.nn.softmax(logits), mask)).sum()",
        "return (share * token_mean(jax.nn.softmax(logits), mask)).sum()",
        "factor N lost",
        "hand_values",
    ),
    (
        _HARD,
        "share = jax.lax.stop_gradient(_share_like(share, logits))",
        "share = _share_like(share, logits)",
        "gradient flows through the frozen share",
        "test_gradient_in_reverse and load_frozen",
    ),
    (
        _HARD,
        "return logits.shape[1] * per_token(pull_back(jax.nn.softmax(logits), _share_like(share, logits)), mask)",
        "return logits.shape[1] * pull_back(jax.nn.softmax(logits), _share_like(share, logits))",
        "gradient lacks the mean over tokens",
        "test_gradient_in_reverse and load",
    ),
    (
        _SOFT,
        "return 2 * load_frozen_grad(logits, mask=mask)",
        "return load_frozen_grad(logits, mask=mask)",
        "full gradient without factor 2",
        "test_gradient_in_reverse and p_squared",
    ),
    (
        _HARD,
        "jax.nn.one_hot(experts[:, 0],",
        "jax.nn.one_hot(experts[:, -1],",
        "last choices instead of first",
        "hand_values",
    ),
    (
        _HARD,
        "return logits.shape[1] * per_token(pull_back(masked_softmax(logits, selected), share), mask)",
        "return logits.shape[1] * per_token(pull_back(jax.nn.softmax(logits), share), mask)",
        "gradient through the full softmax instead of the selected weights",
        "test_gradient_in_reverse and load_selected_weights",
    ),
    (
        _SOFT,
        "return xlogx(token_mean(jax.nn.softmax",
        "return -xlogx(token_mean(jax.nn.softmax",
        "sign of the entropy form",
        "hand_values",
    ),
    (
        _IMPORTANCE,
        "return amounts.shape[0] * safe_divide(variation, jnp.square(amounts.sum()), otherwise=0.0)",
        "return safe_divide(variation, jnp.square(amounts.sum()), otherwise=0.0)",
        "factor N lost",
        "hand_values",
    ),
    (
        _IMPORTANCE,
        "return 2 * amounts.shape[0] * safe_divide(centred - excess,",
        "return 2 * amounts.shape[0] * safe_divide(centred,",
        "gradient of the squared total lost",  # a constant, which the pull-back through a softmax takes off
        "test_gradient_in_reverse and load_cv_squared",
    ),
    (
        _IMPORTANCE,
        "_cv_squared_slope(weights.sum(axis=0))",
        "_cv_squared_slope(weights.mean(axis=0))",
        "mean for sum in the gradient",
        "test_gradient_in_reverse and importance",
    ),
    (
        _IMPORTANCE,
        "order[:, k : k + 1], order[:, k - 1 : k]",
        "order[:, k - 1 : k], order[:, k - 1 : k]",
        "an expert is its own threshold",
        "smooth_load",
    ),
    (
        _IMPORTANCE,
        "return push.at[rows, source].add(-push)",
        "return push",
        "gradient of the threshold lost",
        "smooth_load",
    ),
    (
        _IMPORTANCE,
        "jax.scipy.stats.norm.pdf(z) / noise_std * slope",
        "jax.scipy.stats.norm.pdf(z) * slope",
        "noise scale lost in the gradient",
        "smooth_load",
    ),
    (
        _HARD,
        '_checks.chosen("experts", experts, *logits.shape)',
        "jnp.asarray(experts)",
        "choices outside the experts accepted",
        "first_choices_outside",
    ),
    (
        _IMPORTANCE,
        "from_first = amounts - jax.lax.stop_gradient(amounts[0])",
        "from_first = amounts",
        "rounding of the mean taken for imbalance",
        "exact_balance",
    ),
    (
        _SOFT,
        "return logits.shape[1] * jnp.square(token_mean(jax.nn.softmax(logits), mask)).sum()",
        "return jnp.square(token_mean(jax.nn.softmax(logits), mask)).sum()",
        "factor N of the full form lost",
        "hand_values",
    ),
    (
        _SOFT,
        "return per_token(pull_back(probs, slope), mask)",
        "return pull_back(probs, slope)",
        "gradient of the entropy form lacks the mean over tokens",
        "test_gradient_in_reverse and load_entropy",
    ),
    (
        _SOFT,
        "slope = jnp.where(unused, 0, jnp.log(jnp.where(unused, 1, mean)))",
        "slope = jnp.log(mean)",
        "an expert that nobody uses makes the gradient infinite",
        "test_range_and_finite_gradient and load_entropy",
    ),
]
