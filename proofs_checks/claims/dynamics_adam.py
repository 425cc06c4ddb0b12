"""Claims that extend D6 to Adam: without memory, with it, and when specialisation sets in under it."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sympy as sp
from jaxtyping import Array

from himoe_theory import Partition, dynamics, routers

from ..ledger import Claim, Effort, Finding, Verdict, about
from ..search import QUICK, measured
from ..symbolic import equation
from .dynamics_extensions import INTRA, X, Y

AMPLITUDE = 0.05


def _router(terms: dict[str, float]) -> dynamics.LinearRouter:
    gradient = dynamics.LogitGradient(routers.dense(Partition((0, 0, 0))), terms)
    return dynamics.LinearRouter(gradient, jnp.asarray(X))


def _without_memory(effort: Effort) -> Iterator[Finding]:
    field = _router({"intra_group_global": INTRA, "p_squared": 0.05})
    normalised = dynamics.Normalised(field, 1e-3, 1e-5)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def jacobians(at: Array) -> tuple[Array, Array]:
        return jax.jacfwd(field)(at), jax.jacfwd(normalised)(at)

    matrices = [np.asarray(each).reshape(6, 6) for each in jacobians(jnp.zeros((3, 2)))]
    plain, adam = (np.linalg.eigvalsh(matrix)[::-1] for matrix in matrices)
    pairs = [(f"rate {k + 1}", 100 * float(plain[k]), float(adam[k])) for k in (0, 1, 2, 3)]
    yield measured("three experts, 8 tokens", pairs, within=1e-9, wrong={"same rates": [a / 100 for _, a, _ in pairs]})


WITHOUT_MEMORY = Claim(
    id="growth/adam",
    statement=r"\dot z = \eta F/(|F| + \epsilon), \ F(z_0) = 0 \implies "
    r"\mathrm{spec}\,\partial \dot z = \frac{\eta}{\epsilon}\,\mathrm{spec}\,\partial F",
    words="Adam without memory has the modes of plain gradient flow near a state of rest, with rates in units of "
    "epsilon; it is the sign of the gradient only where gradients exceed epsilon.",
    source="[himoe-theory] D6",
    recorded=Verdict.SUPPORTED,
    check=_without_memory,
    assumptions=("averages of the gradient and of its square follow at once",),
    functions=(dynamics.Normalised,),
    remark="The derivative of f/(|f| + epsilon) at f = 0 is 1/epsilon.",
)


@functools.partial(jax.jit, static_argnums=(0, 2), compiler_options=QUICK)
def _trained(optimiser: optax.GradientTransformation, start: Array, steps: int, rates: Array) -> Array:
    """Amplitudes after every step of modes whose velocities are `rates` times themselves."""

    def step(carry: tuple[Array, optax.OptState], _: None) -> tuple[tuple[Array, optax.OptState], Array]:
        z, state = carry
        change, state = optimiser.update(-rates * z, state)
        return (z + change, state), z + change

    with jax.numpy_dtype_promotion("standard"):  # optax mixes its counter with the numbers
        return jax.lax.scan(step, (start, optimiser.init(start)), length=steps)[1]


def _linear(effort: Effort) -> Iterator[Finding]:
    zeta, beta, kappa, rho = sp.symbols("zeta beta kappa rho", positive=True)
    # z_t = zeta^t; z_{t+1} = z_t + kappa m_{t+1} makes m_t = (1 - 1/zeta) zeta^t / kappa.
    mean = (1 - 1 / zeta) / kappa
    left_over = zeta * mean - beta * mean - (1 - beta) * rho
    yield equation(
        left_over * kappa * zeta,
        (zeta - 1) * (zeta - beta) - kappa * (1 - beta) * rho * zeta,
        variants={"without memory": (zeta - 1 - kappa * rho) * zeta},
        why="m' = beta m + (1 - beta) rho z and z' = z + kappa m', kappa = eta/epsilon, for m and z that grow by zeta.",
    )
    root = ((1 + beta + kappa * (1 - beta) * rho) + sp.sqrt((1 + beta + kappa * (1 - beta) * rho) ** 2 - 4 * beta)) / 2
    yield about(
        "first order",
        equation(
            sp.limit(sp.diff(root.subs(beta, sp.Rational(9, 10)), rho), rho, 0),
            kappa,
            variants={"(1 - beta) kappa": kappa / 10},
        ),
    )
    rates, epsilon = np.array([2.0, 0.5, -0.1]), 1e-2
    found = np.log(
        np.abs(np.asarray(_trained(optax.adam(1e-3, eps=epsilon), jnp.full(3, 1e-9), 90, jnp.asarray(rates))))
    )
    slopes = (found[-1] - found[-31]) / 30
    predicted = dynamics.adam_rate(rates, 1e-3, epsilon)
    pairs = [(f"rho = {r:g}", float(a), float(b)) for r, a, b in zip(rates, predicted, slopes, strict=True)]
    wrong = {"without memory": [0.1 * r for r in rates]}
    yield measured("optax's Adam, growth a step over steps 60 to 90", pairs, within=0.01, wrong=wrong)


LINEAR = Claim(
    id="growth/adam-memory",
    statement=r"(\zeta - 1)(\zeta - \beta_1) = \frac{\eta}{\epsilon}(1-\beta_1)\,\rho\,\zeta",
    words="Where gradients are far below epsilon, Adam is descent with momentum: each mode of rate rho grows by the "
    "factor zeta a step, which to first order is the rate without memory.",
    source="[himoe-theory] D6",
    recorded=Verdict.PROVED,
    check=_linear,
    assumptions=("gradients far below epsilon", "many steps, so that m is no longer corrected for its start"),
    functions=(dynamics.adam_rate,),
    remark="First order is shown for the usual beta_1 = 0.9.",
)


def _ramp(effort: Effort) -> Iterator[Finding]:
    t, beta = sp.symbols("t beta", positive=True)
    mean = t - beta / (1 - beta) + beta ** (t + 1) / (1 - beta)
    yield about(
        "mean",
        equation(
            sp.expand_power_base(sp.expand(mean - beta * mean.subs(t, t - 1))),
            (1 - beta) * t,
            variants={"no lag": (1 - beta) * t + beta},
            why="m = t - beta (1 - beta^t)/(1 - beta) is what m' = beta m + (1 - beta) t makes of 1, 2, 3, ...",
        ),
    )
    nine = sp.Rational(9, 10)
    corrected = mean.subs(beta, nine) / (1 - nine**t)
    square = (t + 1) * (2 * t + 1) / 6  # the plain mean of 1, 4, ..., t^2: beta_2 near 1, corrected for its start
    yield about(
        "young",
        equation(
            sp.limit(corrected / t, t, sp.oo) / sp.sqrt(sp.limit(square / t**2, t, sp.oo)),
            sp.sqrt(3),
            variants={"the sign of the gradient": sp.S.One},
        ),
    )
    curve = dynamics.adam_growth(20_000)
    found = np.asarray(_trained(optax.adam(1e-3, eps=1e-30), jnp.full(2, 1e-12), 300, jnp.array([1e-6, 3.0])))
    pairs = [
        (f"amplitude, step {k}, rate {r}", float(curve[k]), 1e3 * float(found[k - 1, i]))
        for k in (20, 300)
        for i, r in enumerate(("1e-6", "3"))
    ]
    wrong = {"speed 1": [20.0, 20.0, 300.0, 300.0]}
    yield about("mean", measured("optax's Adam, two modes", pairs, within=1e-5, wrong=wrong))
    speeds = [("step 150", 3**0.5, float(np.diff(curve)[150])), ("step 20,000", 1.0, float(np.diff(curve)[-1]))]
    yield about("old", measured("speed along the curve", speeds, within=0.1, wrong={"exchanged": [1.0, 3**0.5]}))


RAMP = Claim(
    id="growth/adam-ramp",
    statement=r"F \propto t: \quad \hat m/\sqrt{\hat v} \to \sqrt 3 \ "
    r"\left(\tfrac{1}{1-\beta_1} \ll t \ll \tfrac{1}{1-\beta_2}\right), "
    r"\quad \to 1 \ \left(t \gg \tfrac{1}{1-\beta_2}\right)",
    words="Where gradients are far above epsilon, a mode under Adam grows linearly and on one curve whatever its rate: "
    "at speed sqrt(3) times the learning rate first, and at the learning rate later.",
    source="[himoe-theory] D6",
    recorded=Verdict.SUPPORTED,
    check=_ramp,
    assumptions=("gradient of an entry proportional to the mode's amplitude", "epsilon far below the gradients"),
    functions=(dynamics.adam_growth,),
    remark="The limit sqrt(3) is proved, the late speed is computed.",
)


def _delay(effort: Effort) -> Iterator[Finding]:
    curve = dynamics.adam_growth(120, start=1.0)
    predicted = float(np.interp(AMPLITUDE / 1e-3, curve, np.arange(len(curve))))
    pairs, plain = [], []
    for experts in (2, 8):
        steps = _onset(experts, optax.adam(1e-3, eps=1e-15), 120)
        pairs.append((f"N = {experts}", predicted, steps))
        plain.append(predicted * experts / 2)
    wrong = {"in proportion to N, as plain steps": plain}
    yield measured("steps until the router's entries are .05, rate .001", pairs, within=0.2, wrong=wrong)


def _onset(experts: int, optimiser: optax.GradientTransformation, steps: int) -> float:
    """The step, by straight lines, at which the root mean square of the router's entries reaches `AMPLITUDE`."""
    fit, *_ = np.linalg.lstsq(X, Y, rcond=None)
    rng = np.random.default_rng(experts)
    router = routers.dense(Partition((0,) * experts))
    field = dynamics.RouterAndExperts(router, None, dynamics.linear_expert, jnp.asarray(X), jnp.asarray(Y))
    noise = [1e-3 * rng.standard_normal(shape) for shape in ((experts, X.shape[1]), (experts, *fit.shape))]
    start = dynamics.Mixture(jnp.asarray(noise[0]), jnp.asarray(fit + noise[1]))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(state: dynamics.Mixture) -> Array:
        def step(carry: tuple[dynamics.Mixture, optax.OptState], _: None):
            state, moments = carry
            change, moments = optimiser.update(jax.tree.map(jnp.negative, field(state)), moments)
            state = optax.apply_updates(state, change)
            deviation = state.router - state.router.mean(axis=0)
            return (state, moments), jnp.sqrt(jnp.square(deviation).mean())

        with jax.numpy_dtype_promotion("standard"):
            return jax.lax.scan(step, (state, optimiser.init(state)), length=steps)[1]

    sizes = np.asarray(run(start))
    return float(np.interp(AMPLITUDE, sizes[: int(sizes.argmax()) + 1], 1 + np.arange(int(sizes.argmax()) + 1)))


DELAY = Claim(
    id="specialisation/adam-delay",
    statement=r"t_{onset} \approx t: \ a(t) = a_*/\eta \quad \text{for every } N, A",
    words="Under Adam more experts do not specialise later: the router's entries reach a given size after the number "
    "of steps that the universal curve gives, where plain steps need a time in proportion to N.",
    source="[himoe-theory] D6",
    recorded=Verdict.SUPPORTED,
    check=_delay,
    assumptions=(
        "linear experts, all used",
        "start far above epsilon over the rate",
        "signs of gradients settle early",
    ),
    functions=(dynamics.adam_growth, dynamics.RouterAndExperts),
    remark="Entries whose gradient changes its sign at first lag behind; figure 9 shows up to 16 experts.",
)

CLAIMS = (WITHOUT_MEMORY, LINEAR, RAMP, DELAY)
