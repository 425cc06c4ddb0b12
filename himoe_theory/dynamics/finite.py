r"""What hard counts do that soft loads do not: a batch's own counts (D2), and the swing of the sign update (D5)."""

from .. import _checks
from ._real import Real


def hard_sharpening(p: Real, lambda_intra: Real, alpha: Real, num_experts: int, tokens: int) -> Real:
    r"""$p(1 - p + q)\,\big[2\lambda_{intra}(p - q) - \alpha N/T\big]$: how fast a token's leading logit gains on the
    others.

    The token has probability p for one expert and q = (1-p)/(N-1) for each other one, selects the first (K = 1), and
    the other T-1 tokens select independently of it, evenly in the mean. The batch's load then contains the token's own
    choice, and pushes it back. Mean velocity under $\dot s = -T\,\partial L/\partial s$ with `intra_group_global` and
    `load`. **Arguments:** `p`: in [1/N, 1]. **Returns:** of either sign. **Source:** [himoe-theory] D2.
    """
    _checks.count("num_experts", num_experts, minimum=2)
    _checks.count("tokens", tokens)
    _checks.coefficient("p", p, minimum=1 / num_experts, maximum=1.0)
    _checks.coefficient("lambda_intra", lambda_intra)
    _checks.coefficient("alpha", alpha)
    q = (1 - p) / (num_experts - 1)
    return p * (1 - p + q) * (2 * lambda_intra * (p - q) - alpha * num_experts / tokens)


def hard_nucleus(lambda_intra: Real, alpha: Real, num_experts: int, tokens: int) -> Real:
    r"""$\alpha N/(2 \lambda_{intra} T)$: the lead p - q above which a token sharpens; 1 and more means never.

    Under soft loads a batch stops sharpening or does not, at a critical size and whatever the lead. Under hard counts
    there is a lead to overcome at every size. **Source:** [himoe-theory] D2.
    """
    _checks.count("tokens", tokens)
    return critical_batch_hard(lambda_intra, alpha, num_experts) / tokens


def critical_batch_hard(lambda_intra: Real, alpha: Real, num_experts: int) -> Real:
    r"""$\alpha N/(2\lambda_{intra})$: with fewer tokens no lead is enough. That of the frozen load, half of the full
    one's. **Arguments:** `lambda_intra`: above 0. **Source:** [himoe-theory] D2.
    """
    _checks.positive("lambda_intra", lambda_intra)
    _checks.coefficient("alpha", alpha)
    _checks.count("num_experts", num_experts, minimum=2)
    return alpha * num_experts / (2 * lambda_intra)


def sign_bias_floor(rate: Real, density: Real) -> Real:
    r"""$2\phi u$: mean MaxVio that the sign update leaves with two experts, one selected, and many tokens.

    $b_1 - b_2$ ends in a cycle of two values 2u apart, with the balanced one between them. Each is off by part of 2u,
    the share of the first expert by $\phi$ times that, MaxVio by twice as much: over the cycle the mean does not
    depend on where the cycle lies. **Arguments:** `rate`: u. `density`: $\phi$, of the difference of the two scores
    at the boundary, constant over 2u. **Returns:** at least 0; sampling adds `max_violation_floor`.
    **Source:** [himoe-theory] D5.
    """
    _checks.coefficient("rate", rate)
    _checks.coefficient("density", density)
    return 2 * density * rate
