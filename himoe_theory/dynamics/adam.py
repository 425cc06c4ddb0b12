r"""Adam near a state of rest, with its memory (extends D6).

$m \leftarrow \beta_1 m + (1-\beta_1) F$, $v \leftarrow \beta_2 v + (1-\beta_2) F^2$ and
$z \leftarrow z + \eta\, \hat m/(\sqrt{\hat v} + \epsilon)$ entry by entry, hats for the division by $1 - \beta^t$, F
minus the gradient. Where specialisation starts from, the size of gradients against $\epsilon$ decides between two
regimes.

*Gradients far below* $\epsilon$: $\sqrt{\hat v}$ drops out, the step is linear, and Adam is descent with momentum: the
modes of F, each growing by the factor of `adam_rate`. *Far above*: $\hat m/\sqrt{\hat v}$ knows only the shape of a
gradient's past. A mode whose gradient is proportional to its own amplitude then grows along one curve, `adam_growth`,
whatever its rate: linearly, not exponentially, so that neither its eigenvalue nor the number of experts delays it.
"""

import numpy as np
from jaxtyping import Complex, Float

from .. import _checks


def adam_rate(
    rates: Float[np.ndarray, "*modes"], step: float, epsilon: float, beta1: float = 0.9
) -> Float[np.ndarray, "*modes"]:
    r"""$\ln|\zeta|$ a step, $\zeta$ the larger root of
    $(\zeta - 1)(\zeta - \beta_1) = \frac{\eta}{\epsilon}(1 - \beta_1)\, \rho\, \zeta$.

    To first order $\eta\rho/\epsilon$, the rate without memory. **Arguments:** `rates`: $\rho$, eigenvalues of F's
    Jacobian, real. `step`, `epsilon`: above 0. **Source:** [himoe-theory] D6, extended to Adam.
    """
    _checks.finite("rates", rates)
    _checks.positive("step", step)
    _checks.positive("epsilon", epsilon)
    _share("beta1", beta1)
    half: Complex[np.ndarray, "*modes"] = (1 + beta1 + step / epsilon * (1 - beta1) * np.asarray(rates)) / 2 + 0j
    root = np.sqrt(half**2 - beta1)
    return np.asarray(np.log(np.maximum(np.abs(half + root), np.abs(half - root))))


def adam_growth(
    steps: int, beta1: float = 0.9, beta2: float = 0.999, start: float = 0.0
) -> Float[np.ndarray, " times"]:
    r"""Amplitude after 0, 1, ..., `steps` steps, in units of $\eta$, of a mode whose gradient is proportional to it.

    Gradients far above $\epsilon$. The first step has length 1; then the speed rises to $\sqrt{3}$ (memory of a
    gradient that grows with t: $\hat m \to t$, $\hat v \to t^2/3$) while t is far below $1/(1-\beta_2)$, and falls
    to 1 beyond.

    **Arguments:** `start`: first amplitude in units of $\eta$, at least 0. **Source:** [himoe-theory] D6, extended.
    """
    _checks.count("steps", steps, minimum=0)
    _checks.coefficient("start", start)
    _share("beta1", beta1)
    _share("beta2", beta2)
    amplitudes, mean, square = np.empty(steps + 1), 0.0, 0.0
    amplitudes[0] = now = float(start)
    for t in range(1, steps + 1):
        mean = beta1 * mean + (1 - beta1) * now
        square = beta2 * square + (1 - beta2) * now**2
        corrected = mean / (1 - beta1**t), np.sqrt(square / (1 - beta2**t))
        now += corrected[0] / corrected[1] if square > 0 else 1.0  # the first step has length 1 for any gradient
        amplitudes[t] = now
    return amplitudes


def _share(name: str, value: float) -> None:
    _checks.coefficient(name, value)
    if value >= 1:
        raise ValueError(f"`{name}` must be below 1; got {value:g}.")
