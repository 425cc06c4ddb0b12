"""Deliberate faults in the scopes of load losses, in what masked tokens and a router's score do to objectives, and in
the warning about probabilities.

(file, text that occurs once in it, what replaces the text, what is then wrong, the tests that are enough).
"""

TESTS = ["tests/himoe_theory/test_scopes.py", "tests/himoe_theory/test_objectives_masks.py"]

_SCOPES = "himoe_theory/objectives/scopes.py"
_HARD = "himoe_theory/objectives/load_hard.py"
_SOFTMAX = "himoe_theory/objectives/_softmax.py"

FAULTS = [
    (
        _SCOPES,
        "whole = _lengths(sequences, mask, dtype) if per_token else n.sum(axis=1)",
        "whole = _lengths(sequences, mask, dtype)",
        "the counts of a sequence are divided by its tokens",
        "test_sequences_are_the_mean and load",
    ),
    (
        _SCOPES,
        "jnp.broadcast_to(whole.mean(), whole.shape) if sequences.mean_length else whole",
        "whole",
        "the mean length of sequences is not taken",
        "by_hand",
    ),
    (
        _SCOPES,
        "if sequences is None or sequences.mean_length:",
        "if sequences is not None:",
        "long sequences weigh more than short ones",
        "test_sequences_are_the_mean and load",
    ),
    (
        _SCOPES,
        "(lengths > 0).sum(dtype=jnp.int32).astype(dtype)",
        "jnp.asarray(lengths.size).astype(dtype)",
        "sequences without a token count in the mean",
        "test_sequences_are_the_mean and load",
    ),
    (
        _SCOPES,
        'n = rows.sum(axis=0) if totals is None else _checks.array("totals", totals)',
        "n = rows.sum(axis=0)",
        "totals of a larger batch are not used",
        "test_totals_make_parts",
    ),
    (
        _SCOPES,
        "gradient = form.gradient * per_token(",
        "gradient = per_token(",
        "full forms have the frozen gradient",
        "p_squared",
    ),
    (
        _SCOPES,
        "return value + (form.gradient - 1) * (value - jax.lax.stop_gradient(value))",
        "return value",
        "the derivative of full forms is the frozen one",
        "derivatives and p_squared",
    ),
    (
        _SCOPES,
        "return routing.score.pull_back(accumulate(blanked",
        "return (lambda s, g: g)(accumulate(blanked",
        "a sigmoid's gradient is that in its logarithm",
        "test_the_micro_batch",
    ),
    (
        _SCOPES,
        "log_probs=log_probs, score=self.score)",
        "log_probs=routing.log_probs, score=self.score)",
        "a code base's own score is not read",
        "transformers_read",
    ),
    (
        _SCOPES,
        'log_probs=accumulate(blanked("log_probs", routing.log_probs, mask)),',
        "log_probs=accumulate(routing.log_probs),",
        "what stands in masked rows reaches the loss",
        "masked_rows",
    ),
    (
        _HARD,
        "return plain_top_k(blanked(",
        "return routing.selected | plain_top_k(blanked(",
        "plain top-k sees groups and bias",
        "plain_top_k",
    ),
    (
        _HARD,
        "return rank((jax.lax.stop_gradient(logits),)) < routes",
        "return rank((jax.lax.stop_gradient(logits),)) <= routes",
        "one expert too many",
        "plain_top_k",
    ),
    (
        _SOFTMAX,
        "return probs * (slope - (probs * slope).sum(axis=-1, keepdims=True))",
        "return probs * slope",
        "the pull-back through a softmax lacks the mean slope",
        "test_autodiff and load",
    ),
    (
        _SOFTMAX,
        "return selected if mask is None else selected & jnp.asarray(mask)[:, None]",
        "return selected",
        "masked tokens select",
        "padding_by_hand",
    ),
    (
        _SOFTMAX,
        "return values.mean(axis=0) if mask is None else token_sum(values, mask) / tokens_of(values, mask)",
        "return values.mean(axis=0) if mask is None else token_sum(values, mask) / values.shape[0]",
        "masked tokens are counted in means",
        "padding_by_hand",
    ),
    (
        _SOFTMAX,
        'return blanked("gradient", gradient, mask) / tokens_of(gradient, mask)',
        "return gradient / tokens_of(gradient, mask)",
        "masked tokens have a gradient",
        "masked_tokens_change_nothing and load_frozen",
    ),
    (
        _SOFTMAX,
        "return jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros((), x.dtype))",
        "return x * mask.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)",
        "NaN in a masked row stays NaN",
        "masked_tokens_change_nothing and load",
    ),
    (
        "himoe_theory/scores.py",
        "return gradient * jax.nn.sigmoid(-logits)",
        "return gradient",
        "a sigmoid's gradient is that in its logarithm",
        "derivatives",
    ),
    (
        "himoe_theory/routers.py",
        '_checks.not_probabilities("logits", logits, mask)',
        "pass",
        "routers take probabilities without a word",
        "routers_notice",
    ),
]
