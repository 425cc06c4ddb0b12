r"""When Hi-MoE's two regularisers balance groups, and when they make them collapse (D11).

Per token, $\lambda_{inter} \sum_g m_g^2 - \lambda_{intra} \|\pi\|^2 =
\sum_g m_g^2 (\lambda_{inter} - \lambda_{intra} \|q_g\|^2)$ for `inter_group_dense` and `intra_group_global`: once a
group's choice inside is sharp, more mass on it is rewarded.
"""

from .. import _checks
from ._real import Real


def group_coefficient(purity: Real, lambda_intra: Real, lambda_inter: Real) -> Real:
    r"""$\lambda_{inter} - \lambda_{intra} \|q_g\|^2$, the coefficient of $m_g^2$: positive balances, negative
    collapses.

    **Arguments:** `purity`: $\|q_g\|^2$, in [1/S, 1]. **Returns:** in
    $[\lambda_{inter} - \lambda_{intra}, \lambda_{inter}]$. **Source:** [himoe-theory] D11.
    """
    _checks.coefficient("purity", purity, maximum=1.0)
    _checks.coefficient("lambda_intra", lambda_intra)
    _checks.coefficient("lambda_inter", lambda_inter)
    return lambda_inter - lambda_intra * purity


def flip_purity(lambda_intra: Real, lambda_inter: Real) -> Real:
    r"""$\lambda_{inter}/\lambda_{intra}$: the purity $\|q_g\|^2$ above which the pair of terms collapses groups.

    At least 1: never. At most 1/S: always, since $\|q_g\|^2 \ge 1/S$. **Arguments:** `lambda_intra`: above 0.
    **Source:** [himoe-theory] D11.
    """
    _checks.positive("lambda_intra", lambda_intra)
    _checks.coefficient("lambda_inter", lambda_inter)
    return lambda_inter / lambda_intra
