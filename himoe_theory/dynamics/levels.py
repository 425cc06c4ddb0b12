r"""Reinforcement at two levels, experts and groups: two transitions (D7 extended).

`GroupedReinforcement` at rest has logits $u_e = \kappa \pi_e + \chi m_{g(e)}$ with $\kappa = \beta\eta/\lambda$ for
experts and $\chi = \gamma\eta/\lambda$ for groups. *Groups*: where experts of a group are equal, groups are a Potts
model of M states with control $\kappa/S + \chi$, so that `spinodal(M)`, `coexistence(M)` and `uniform_limit(M)` are
theirs. *Inside* a group of mass m that is uniform, experts separate where $\kappa m > S$. With $\chi > 0$ groups
collapse first, at $\kappa/S + \chi = M$, and experts only at $\kappa m = S$; with $\chi = 0$ both lose stability at
$\kappa = N$.
"""

from .. import _checks
from ._real import Real


def potts_control(expert_control: Real, group_control: Real, group_size: int) -> Real:
    r"""$\kappa/S + \chi$, the control of the groups as a Potts model. **Source:** [himoe-theory] D7, extended."""
    _checks.coefficient("expert_control", expert_control)
    _checks.coefficient("group_control", group_control)
    _checks.count("group_size", group_size)
    return expert_control / group_size + group_control


def inside_rate(expert_control: Real, mass: Real, group_size: int) -> Real:
    r"""$\kappa m/S - 1$, in units of the decay: the rate at which experts of a uniform group of mass m separate.

    **Arguments:** `mass`: m in [0, 1]; 1/M where groups are uniform too. `group_size`: at least 2.
    **Source:** [himoe-theory] D7, extended.
    """
    _checks.coefficient("expert_control", expert_control)
    _checks.coefficient("mass", mass, maximum=1.0)
    _checks.count("group_size", group_size, minimum=2)
    return expert_control * mass / group_size - 1


def between_rate(expert_control: Real, group_control: Real, num_groups: int, group_size: int) -> Real:
    r"""$(\kappa/S + \chi)/M - 1$, in units of the decay: the rate at which uniform groups separate.

    **Source:** [himoe-theory] D7, extended.
    """
    _checks.count("num_groups", num_groups, minimum=2)
    return potts_control(expert_control, group_control, group_size) / num_groups - 1
