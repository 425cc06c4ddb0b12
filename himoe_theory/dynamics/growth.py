r"""Growth rates of small logits near uniform routing (D1), in closed form.

The loss per token is $\lambda_{intra} R_{intra} + \lambda_{inter} R_{inter} + \alpha N \sum_e h_e P_e$ with
`intra_group_global`, `inter_group_dense` and a soft load, $\sum_e h_e = 1$; groups are equal, of size S = N/M. Logits
$s_{te} = a_t b_e$ grow as $e^{rate \cdot time}$ under the flow $\dot s = -T\, \partial L/\partial s$. A linear router
multiplies each rate by the eigenvalue of the token Gram matrix $x_t \cdot x_{t'}/T$ that belongs to a.

*Contrast*: a sums to zero over tokens, so the load does not see it. *Common*: a is the same for all tokens. *Within*: b
sums to zero in every group. *Between*: b is equal within each group and sums to zero. The load is `full` (`p_squared`)
or `frozen` (`load_frozen`), and the two are never mixed. Rates have the unit of the coefficients; positive is growth.
A mode needs something to differ: fewer than two experts, or than two groups for one between groups, are refused; one
within groups exists only where groups have two experts or more.
"""

from .. import _checks
from ._real import Real


def contrast_within(lambda_intra: Real, num_experts: int) -> Real:
    r"""$2\lambda_{intra}/N^2$, at least 0. **Source:** [himoe-theory] D1."""
    _checks.coefficient("lambda_intra", lambda_intra)
    _checks.count("num_experts", num_experts, minimum=2)
    return 2 * lambda_intra / num_experts**2


def contrast_between(lambda_intra: Real, lambda_inter: Real, num_experts: int, group_size: int) -> Real:
    r"""$2(\lambda_{intra} - S \lambda_{inter})/N^2$; of either sign, 0 at `critical_group_ratio`.

    **Source:** [himoe-theory] D1.
    """
    _checks.coefficient("lambda_inter", lambda_inter)
    _equal_groups(num_experts, group_size)
    return contrast_within(lambda_intra, num_experts) - 2 * group_size * lambda_inter / num_experts**2


def load_pull_full(alpha: Real, num_experts: int) -> Real:
    r"""$2\alpha/N$: what the full load takes from the rate of a common mode, within groups and between them alike."""
    return 2 * load_pull_frozen(alpha, num_experts)


def load_pull_frozen(alpha: Real, num_experts: int) -> Real:
    r"""$\alpha/N$: what the frozen load takes from the rate of a common mode; half of the full one."""
    _checks.coefficient("alpha", alpha)
    _checks.count("num_experts", num_experts, minimum=2)
    return alpha / num_experts


def common_within_full(lambda_intra: Real, alpha: Real, num_experts: int) -> Real:
    r"""$2\lambda_{intra}/N^2 - 2\alpha/N$. **Source:** [himoe-theory] D1."""
    return contrast_within(lambda_intra, num_experts) - load_pull_full(alpha, num_experts)


def common_within_frozen(lambda_intra: Real, alpha: Real, num_experts: int) -> Real:
    r"""$2\lambda_{intra}/N^2 - \alpha/N$. **Source:** [himoe-theory] D1."""
    return contrast_within(lambda_intra, num_experts) - load_pull_frozen(alpha, num_experts)


def common_between_full(lambda_intra: Real, lambda_inter: Real, alpha: Real, num_experts: int, group_size: int) -> Real:
    r"""$2(\lambda_{intra} - S\lambda_{inter})/N^2 - 2\alpha/N$. **Source:** [himoe-theory] D1."""
    contrast = contrast_between(lambda_intra, lambda_inter, num_experts, group_size)
    return contrast - load_pull_full(alpha, num_experts)


def common_between_frozen(
    lambda_intra: Real, lambda_inter: Real, alpha: Real, num_experts: int, group_size: int
) -> Real:
    r"""$2(\lambda_{intra} - S\lambda_{inter})/N^2 - \alpha/N$. **Source:** [himoe-theory] D1."""
    contrast = contrast_between(lambda_intra, lambda_inter, num_experts, group_size)
    return contrast - load_pull_frozen(alpha, num_experts)


def critical_load_full(lambda_intra: Real, num_experts: int) -> Real:
    r"""$\lambda_{intra}/N$, the $\alpha$ above which the full load stops the common mode within groups.

    Between groups it needs less: put $\lambda_{intra} - S\lambda_{inter}$, if positive, in place of
    $\lambda_{intra}$. It counters the regulariser alone. What the task, experts that learn or another term add to the
    rate of the mode is not in it: 0, at $\lambda_{intra} = 0$, says that there is nothing of the regulariser to
    counter, and not that a load of 0 prevents collapse. With a known rate $\mu$ of the rest, $N\mu/2$ is to be added.
    """
    return critical_load_frozen(lambda_intra, num_experts) / 2


def critical_load_frozen(lambda_intra: Real, num_experts: int) -> Real:
    r"""$2\lambda_{intra}/N$, the $\alpha$ above which the frozen load stops the common mode within groups.

    Of the regulariser alone, as `critical_load_full`; here $N\mu$ is to be added for the rest.
    """
    return num_experts * contrast_within(lambda_intra, num_experts)


def critical_group_ratio(group_size: int) -> float:
    r"""S: near uniform routing contrasts between groups grow if $\lambda_{intra}/\lambda_{inter}$ exceeds it.

    **Returns:** a number of at least 1. **Source:** [himoe-theory] D1.
    """
    _checks.count("group_size", group_size)
    return float(group_size)


def corrected_contrast(temperature: Real) -> Real:
    r"""$1/\mathrm{Temp}^2$, the factor on a contrast's rate for terms of the bias-corrected probabilities.

    One factor 1/Temp is from the logits that the term sees, the other from its gradient in the raw logits.
    """
    _checks.positive("temperature", temperature)
    return 1 / temperature**2


def corrected_common(tau: Real, temperature: Real) -> Real:
    r"""$(1-\tau)/\mathrm{Temp}^2$, the factor on a common mode's rate for terms of the bias-corrected probabilities.

    Quasi-static: the running mean has caught up with the logits, and no gradient flows through it. Negative for
    $\tau > 1$. **Source:** [himoe] section 3.3; [himoe-theory] D1.
    """
    _checks.coefficient("tau", tau)
    return (1 - tau) * corrected_contrast(temperature)


def _equal_groups(num_experts: int, group_size: int) -> None:
    _checks.count("num_experts", num_experts, minimum=2)
    _checks.count("group_size", group_size, maximum=num_experts // 2, of="half of `num_experts`, two groups")
    if num_experts % group_size:
        raise ValueError(f"`group_size` must divide `num_experts`; got {group_size} and {num_experts}.")
