r"""How specialisation starts beyond D6: any experts, with regularisers and a load, under a selection.

N experts $f(\theta_i, x)$ that agree ($\theta_i = \theta$), a linear router at W = 0, half the squared error, residual
$r = y - f(\theta, x)$. Among displacements that sum to zero over experts, $w_i = c_i \sqrt{\eta_w}\, a$ and
$\delta_i = c_i \sqrt{\eta_v}\, b$, the flow of (a, b) is the symmetric matrix
$$\begin{pmatrix} \eta_w R & \sqrt{\eta_w\eta_v}\, A/N \\ \sqrt{\eta_w\eta_v}\, A^\top/N & \eta_v H/N \end{pmatrix},
\quad A = E[x\, (r \cdot \partial_\theta f)], \quad H = E[r \cdot \partial_\theta^2 f].$$
R is what the router's terms do: their rates of D1 for one kind of expert mode (within groups, or between), the rate of
contrasts on the covariance of the tokens and that of common modes on their mean. For linear experts H = 0 and A is
`residual_moment`. The experts' own curvature $E[\partial f\, \partial f^\top]$ drops out; that of the residual, H, does
not. Where the shared experts are no fit yet, rates are those of displacements from the moving state.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .. import _checks
from .._numerics import safe_divide
from ._real import Real
from .fields import State, leaves

Expert = Callable[[State, Float[Array, " dim"]], Float[Array, " outputs"]]


def symmetric_moments(
    expert: Expert, parameters: State, inputs: Float[Array, "tokens dim"], targets: Float[Array, "tokens outputs"]
) -> tuple[Float[Array, "dim parameters"], Float[Array, "parameters parameters"]]:
    r"""$A = E[x\,(r \cdot \partial_\theta f)]$ and $H = E[r \cdot \partial_\theta^2 f]$, by autodiff.

    **Arguments:** `expert`: parameters and one token -> outputs. `parameters`: those of the shared expert, taken leaf
    by leaf in the order of the pytree. **Returns:** A, and H (symmetric); both 0 if every residual is.
    **Source:** [himoe-theory] D6, extended.
    """
    inputs = _checks.matrix("inputs", inputs, ("tokens", "dim"))
    targets = _checks.matrix("targets", targets, ("tokens", "outputs"))
    _checks.function("expert", expert)
    flat, unravel = ravel_pytree(leaves("parameters", parameters))
    _checks.matrix("parameters", flat, ("parameters",))

    def outputs(theta: Float[Array, " parameters"]) -> Float[Array, "tokens outputs"]:
        return jax.vmap(expert, in_axes=(None, 0))(unravel(theta), inputs)

    residuals = _checks.same_shape("targets", targets, "expert(inputs)", outputs(flat)) - outputs(flat)

    def against(theta: Float[Array, " parameters"]) -> Float[Array, " tokens"]:
        return (residuals * outputs(theta)).sum(axis=1)

    moment = inputs.T @ jax.jacfwd(against)(flat) / inputs.shape[0]

    def mean(theta: Float[Array, " parameters"]) -> Float[Array, ""]:
        return against(theta).mean()

    return moment, jax.hessian(mean)(flat)


class Onset(NamedTuple):
    r"""The leading mode of the symmetric state.

    **Fields:** `rate`: $\mu$. `router`, `experts`: a and b of the unit mode; $|b|^2$ is the experts' share. `common`,
    `contrast`, `coupling`, `curvature`: what the router's terms (on the tokens' mean, and about it), A and H add to
    the rate; they sum to it.
    """

    rate: float
    router: Float[np.ndarray, " dim"]
    experts: Float[np.ndarray, " parameters"]
    common: float
    contrast: float
    coupling: float
    curvature: float

    @property
    def name(self) -> str:
        """`frozen` if nothing grows (to rounding, 1e-12); else what adds most: `collapse` (common), `sharpen`
        (contrast: the router alone) or `specialise` (coupling, curvature)."""
        if self.rate <= 1e-12:
            return "frozen"
        added = {"collapse": self.common, "sharpen": self.contrast, "specialise": self.coupling + self.curvature}
        return max(added, key=added.__getitem__)


def onset(
    inputs: Float[Array, "tokens dim"],
    moment: Float[Array, "dim parameters"],
    curvature: Float[Array, "parameters parameters"],
    num_experts: int,
    *,
    contrast_rate: float,
    common_rate: float,
    router_rate: float = 1.0,
    expert_rate: float = 1.0,
) -> Onset:
    r"""The leading mode of the matrix above. Host only.

    **Arguments:** `moment`, `curvature`: A and H. `contrast_rate`, `common_rate`: of the router's terms at uniform
    routing (D1), such as `contrast_within` and `common_within_full`. `router_rate`, `expert_rate`: $\eta_w, \eta_v$.
    **Source:** [himoe-theory] D6 with D1.
    """
    _checks.count("num_experts", num_experts, minimum=2)
    _checks.positive("router_rate", router_rate)
    _checks.positive("expert_rate", expert_rate)
    _checks.finite("contrast_rate", contrast_rate)
    _checks.finite("common_rate", common_rate)
    given = (
        _checks.matrix("inputs", inputs, ("tokens", "dim")),
        _checks.matrix("moment", moment, ("dim", "parameters")),
        _checks.matrix("curvature", curvature, ("parameters", "parameters")),
    )
    x, a, h = (np.asarray(part, dtype=np.float64) for part in given)
    if a.shape != (x.shape[1], h.shape[0]) or h.shape[0] != h.shape[1]:
        raise ValueError(f"`moment` must be [dim, parameters]; got {a.shape}, inputs {x.shape}, curvature {h.shape}.")
    mean = x.mean(axis=0)
    about = x.T @ x / x.shape[0] - np.outer(mean, mean)
    parts = {
        "common": _blocks(router_rate * common_rate * np.outer(mean, mean), 0 * a, 0 * h),
        "contrast": _blocks(router_rate * contrast_rate * about, 0 * a, 0 * h),
        "coupling": _blocks(0 * about, np.sqrt(router_rate * expert_rate) / num_experts * a, 0 * h),
        "curvature": _blocks(0 * about, 0 * a, expert_rate / num_experts * h),
    }
    rates, modes = np.linalg.eigh(sum(parts.values()))
    top = modes[:, -1]
    adds = {name: float(top @ part @ top) for name, part in parts.items()}
    return Onset(float(rates[-1]), top[: x.shape[1]], top[x.shape[1] :], **adds)


def slowed_rate(coupling: Real, router_term: Real) -> Real:
    r"""$\frac12\big(\rho + \sqrt{\rho^2 + 4 c^2}\big)$: the rate of specialisation under a router term, never negative.

    With $c = \sqrt{\eta_w\eta_v}\, \sigma/N$ for singular vectors a, b of A and $\rho = \eta_w\, a^\top R\, a$ it is a
    lower bound of the leading rate for linear experts, and equal to a rate where a is an eigenvector of R. It is
    positive wherever $c \ne 0$: no load stops specialisation at this order, it slows it to $c^2/|\rho|$.

    **Arguments:** `coupling`: c. `router_term`: $\rho$, of either sign. **Source:** [himoe-theory] D6 with D1.
    """
    _checks.coefficient("coupling", coupling)
    _checks.finite("router_term", router_term)
    rho, twice = jnp.asarray(router_term, jnp.result_type(float)), 2 * jnp.asarray(coupling, jnp.result_type(float))
    root = jnp.hypot(rho, twice)
    # For a strong load the printed form is a small difference of large numbers.
    return jnp.where(rho > 0, (root + rho) / 2, twice / 2 * safe_divide(twice, root - rho, otherwise=0.0))


def selection_drive(
    inputs: Float[Array, "tokens dim"], residuals: Float[Array, " tokens"], combine: Float[Array, "tokens experts"]
) -> Float[Array, "experts dim"]:
    r"""$E[w_i\, r\, x]$: the velocity per rate of linear experts that agree, under combine weights w.

    All experts used: w = 1/N at W = 0, and the drive is that of the shared fit, 0 at least squares. Under top-K, free
    or grouped, w is 1/K on the tokens that select the expert, however small the router's logits are: experts then
    separate at once, at a speed that does not depend on the size of the router's rows, instead of exponentially.

    **Arguments:** `combine`: `Routing.combine`. **Source:** [himoe-theory] D6, extended to selections.
    """
    inputs = _checks.matrix("inputs", inputs, ("tokens", "dim"))
    residuals = _checks.matrix("residuals", residuals, ("tokens",))
    combine = _checks.matrix("combine", combine)
    if not inputs.shape[0] == residuals.shape[0] == combine.shape[0]:
        sizes = f"{inputs.shape[0]}, {residuals.shape[0]} and {combine.shape[0]}"
        raise ValueError(f"`inputs`, `residuals` and `combine` must have the same tokens; got {sizes}.")
    return (combine * residuals[:, None]).T @ inputs / inputs.shape[0]


def _blocks(router: np.ndarray, coupling: np.ndarray, experts: np.ndarray) -> np.ndarray:
    return np.block([[router, coupling], [coupling.T, experts]])
