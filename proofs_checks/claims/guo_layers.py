"""Claims of Guo et al. about which parameters their objectives reach (§3.2), in one layer and in a stack of two."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array
from sympy import Expr, IndexedBase

from himoe_theory import metrics
from himoe_theory.objectives import load, orthogonality_paper, variance_across_experts, variance_across_tokens

from ..ledger import Claim, Correction, Effort, Finding, Verdict
from ..notation import N, e, index, j
from ..search import measured
from ..sums import total
from ..symbolic import for_sizes, identity
from ..witnesses import witness
from .guo import dot, l_o

D = sp.Symbol("D", integer=True, positive=True)
EPSILON = sp.Symbol("epsilon", positive=True)


# One layer: two tokens of one coordinate, two experts that map it to the plane


ROUTER = sp.symbols("w1 w2", real=True)
EXPERTS = [list(sp.symbols(f"v{a}_1 v{a}_2", real=True)) for a in (1, 2)]
PARAMETERS = [value for expert in EXPERTS for value in expert]
TOKENS = sp.symbols("x1 x2", real=True)


def _softmax(logits: list[Expr]) -> list[Expr]:
    raised = [sp.exp(value) for value in logits]
    return [value / sp.Add(*raised) for value in raised]


def _layer() -> tuple[dict[str, Expr], Expr, Expr]:
    """Routing objectives, L_o and a coordinate of the layer's output, for one layer with a fixed selection of both."""
    probs = [_softmax([slope * x for slope in ROUTER]) for x in TOKENS]
    share = sp.symbols("h1 h2", real=True)
    mean = [sum(row[k] for row in probs) / 2 for k in range(2)]
    deviations = ((row[k] - mean[k]) ** 2 for row in probs for k in range(2))
    routing = {
        "load": 2 * sum(h * m for h, m in zip(share, mean, strict=True)),
        "L_v": -sp.Add(*deviations) / 2,
        "L_v, code": -sum((row[k] - sp.Rational(1, 2)) ** 2 for row in probs for k in range(2)) / 2,
    }
    outputs = [[[value * x for value in expert] for expert in EXPERTS] for x in TOKENS]
    orthogonality = sp.Add(*(l_o(token, EPSILON) for token in outputs))
    combined = sum(weight * vector[0] for weight, vector in zip(probs[0], outputs[0], strict=True))
    return routing, orthogonality, combined


SCOPE = "2 tokens, 2 experts, both selected; any parameters"


def _routing_in_one_layer(effort: Effort) -> Iterator[Finding]:
    routing, _, output = _layer()
    cases = [(sp.diff(value, parameter), sp.S.Zero) for value in routing.values() for parameter in PARAMETERS]
    other = {"the derivative of the layer's output": sp.diff(output, PARAMETERS[0])}
    yield for_sizes(SCOPE, cases, variants=lambda _: other)


def _orthogonality_in_one_layer(effort: Effort) -> Iterator[Finding]:
    _, orthogonality, output = _layer()
    other = {"the derivative of the layer's output": sp.diff(output, ROUTER[0])}
    yield for_sizes(SCOPE, [(sp.diff(orthogonality, slope), sp.S.Zero) for slope in ROUTER], variants=lambda _: other)


# A stack of two layers with residual stream, one token x = 1. First layer: router logits (w1 x, w2 x) at w = 0, experts
# v1 x, v2 x at v = (1, -1), so that y = x + (v1 + v2)/2 = 1. Second layer: router logits (ln 2 + y - 1, 0), so
# probabilities (2/3, 1/3), the first expert selected; expert outputs (y, 0) and (y, 1).


STACK = (
    "one token x = 1; first layer: router weights (0, 0), experts (1, -1) x, output y = x + their mean = 1; second "
    "layer: router logits (ln 2 + y - 1, 0), the first expert selected for the load; expert outputs (y, 0), (y, 1)"
)
AT = {"w1": 0, "w2": 0, "v1": 1, "v2": -1}


def _exact(objective: str, parameter: str) -> Expr:
    """Derivative of a second-layer objective in a first-layer parameter, at the witness."""
    names = {name: sp.Symbol(name, real=True) for name in AT}
    first = _softmax([names["w1"], names["w2"]])
    y = 1 + first[0] * names["v1"] + first[1] * names["v2"]
    second = _softmax([sp.log(2) + y - 1, sp.S.Zero])
    value = {
        "load": 2 * second[0],
        "L_v": -2 * (second[0] - sp.Rational(1, 2)) ** 2,
        "L_o": l_o([[y, sp.S.Zero], [y, sp.S.One]], sp.S.Zero),
    }[objective]
    return sp.nsimplify(sp.simplify(sp.diff(value, names[parameter]).subs({names[k]: a for k, a in AT.items()})))


def _computed(objective: str) -> dict[str, Array]:
    """The same for each parameter, by autodiff of himoe_theory's objectives."""

    def value(at: dict[str, Array]) -> Array:
        y = 1 + jax.nn.softmax(jnp.stack([at["w1"], at["w2"]])) @ jnp.stack([at["v1"], at["v2"]])
        logits = jnp.stack([jnp.log(2.0) + y - 1, 0 * y])[None]
        outputs = jnp.stack([jnp.stack([y, 0 * y]), jnp.stack([y, 1 + 0 * y])])[None]
        return {
            "load": lambda: load(logits, jnp.array([[True, False]])),
            "L_v": lambda: variance_across_experts(logits),
            "L_o": lambda: orthogonality_paper(outputs, epsilon=0.0),
        }[objective]()

    return jax.jit(jax.grad(value))({name: jnp.asarray(float(a)) for name, a in AT.items()})


def _reaches(objective: str, parameter: str, what: str) -> Finding:
    exact = _exact(objective, parameter)
    one_layer = {"one layer: derivative of the first layer's own objective": (0, 0)}
    code = [(_computed(objective)[parameter], exact)]
    return witness(f"{STACK}; derivative of {what}", exact, "=", 0, holds_at=one_layer, code=code)


def _routing_in_a_stack(effort: Effort) -> Iterator[Finding]:
    yield _reaches("load", "v1", "the second layer's load loss in the first layer's first expert")
    yield _reaches("L_v", "v1", "the second layer's L_v (released form) in the first layer's first expert")


def _orthogonality_in_a_stack(effort: Effort) -> Iterator[Finding]:
    yield _reaches("L_o", "w1", "the second layer's L_o in the first layer's router")


DIM, EXPERTS_EACH, STACKS = 4, 3, 1000


def _cosine(tokens: Array, routers: Array, experts: Array) -> Array:
    """Cosine of the gradients of the second layer's L_o and L_v on the first layer, in one stack."""

    def objectives(first: tuple[Array, Array]) -> tuple[Array, Array]:
        gates, outputs = jax.nn.softmax(tokens @ first[0]), jnp.einsum("td,edc->tec", tokens, first[1])
        x = tokens + jnp.einsum("te,ted->td", gates, outputs)
        everything = jnp.ones((8, EXPERTS_EACH), bool)
        overlap = orthogonality_paper(jnp.einsum("td,edc->tec", x, experts[1]))
        return overlap, variance_across_tokens(x @ routers[1], everything)

    _, pull_back = jax.vjp(objectives, (routers[0], experts[0]))
    one, none = jnp.ones(()), jnp.zeros(())
    a, b = (
        jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(pull_back(which))])
        for which in ((one, none), (none, one))
    )
    return a @ b / jnp.sqrt((a @ a) * (b @ b))


def _angles(effort: Effort) -> Finding:
    rng = np.random.default_rng(effort.seed)
    tokens = rng.normal(size=(STACKS, 8, DIM))
    routers = rng.normal(size=(STACKS, 2, DIM, EXPERTS_EACH)) / DIM**0.5
    experts = rng.normal(size=(STACKS, 2, EXPERTS_EACH, DIM, DIM)) / DIM**0.5
    # A large program for few numbers: compiling without optimisation is what saves time.
    cosine = jax.jit(jax.vmap(_cosine), compiler_options={"xla_backend_optimization_level": 0})
    cosines = np.asarray(cosine(*map(jnp.asarray, (tokens, routers, experts))))
    found = measured(
        f"{STACKS} random stacks of two layers, 3 experts of 4 dimensions in each, all selected, 8 tokens",
        [("share of stacks in which the gradients conflict", 0.0, float((cosines < 0).mean()))],
        within=0.01,
        wrong={"always": [1.0], "half of them": [0.5]},
    )
    low, middle, high = np.quantile(cosines, [0, 0.5, 1])
    extent = f"The cosines lie between {low:.2f} and {high:.2f}; their median is {middle:.2f}."
    return dataclasses.replace(found, steps=(*found.steps, extent))


def _conflict(effort: Effort) -> Iterator[Finding]:
    pairs = [(_exact("L_o", name), _exact("L_v", name)) for name in AT]
    code = [(value, _exact(o, name)) for o in ("L_o", "L_v") for name, value in _computed(o).items()]
    yield witness(
        f"{STACK}; inner product of the gradients of the second layer's L_o and L_v in the first layer's parameters",
        sp.Add(*(x * y for x, y in pairs)),
        ">=",
        0,
        holds_at={"one layer, where no parameter is shared": (0, 0)},
        code=code,
    )
    yield _angles(effort)


def _layer_claim(name: str, statement: str, words: str, recorded: Verdict, check, functions, remark: str = "") -> Claim:
    return Claim(
        id=f"guo/s3.2-{name}",
        statement=statement,
        words=words,
        source="[guo] section 3.2",
        recorded=recorded,
        check=check,
        assumptions=("which experts a token selects is a constant",),
        functions=functions,
        remark=remark,
    )


NO_EXPERTS = r"\partial L_{\mathrm{aux}} / \partial \theta_E = \partial L_v / \partial \theta_E = 0"
NO_ROUTER = r"\partial L_o / \partial \theta_R = 0"
ONE_LAYER = (
    _layer_claim(
        "a-one-layer",
        NO_EXPERTS,
        "In one layer the load loss and the variance objective put no gradient on the experts.",
        Verdict.PROVED_FOR_SIZES,
        _routing_in_one_layer,
        (variance_across_tokens, variance_across_experts),
        "By structure: expert parameters do not occur in the routing of their own layer.",
    ),
    _layer_claim(
        "a-stack",
        NO_EXPERTS,
        "The same for a whole model.",
        Verdict.REFUTED,
        _routing_in_a_stack,
        (load, variance_across_experts),
        "Routing losses of later layers reach earlier experts through the residual stream.",
    ),
    _layer_claim(
        "b-one-layer",
        NO_ROUTER,
        "In one layer the orthogonality objective puts no gradient on the router.",
        Verdict.PROVED_FOR_SIZES,
        _orthogonality_in_one_layer,
        (orthogonality_paper,),
        "The indicator of the selection has derivative 0 almost everywhere. The paper contradicts it further on, where "
        "a derivative of L_o in the routing weights enters the router's gradient.",
    ),
    _layer_claim(
        "b-stack",
        NO_ROUTER,
        "The same for a whole model.",
        Verdict.REFUTED,
        _orthogonality_in_a_stack,
        (orthogonality_paper,),
    ),
    _layer_claim(
        "c-non-conflicting",
        r"\langle \nabla L_o, \nabla L_v \rangle \ge 0",
        "The two objectives do not conflict.",
        Verdict.REFUTED,
        _conflict,
        (orthogonality_paper, variance_across_experts),
        "In one layer no parameter receives both gradients, so there the inner product is 0 and nothing can conflict. "
        "In the stack of the witness the gradients are exactly antiparallel on the first layer's parameters; in random "
        "stacks, before any training, they conflict far more often than not.",
    ),
)


# Whether orthogonal outputs vary the router's signal


X = IndexedBase("x", real=True)
i = index("i", D)


def _signals(effort: Effort) -> Iterator[Finding]:
    """Unit outputs (1, 0), (-1, 0) against (1, 0), (0, 1)."""

    def exact(x: list[list[int]]) -> Expr:
        middle = [sp.Rational(sum(column), len(x)) for column in zip(*x, strict=True)]
        deviations = [[a - b for a, b in zip(row, middle, strict=True)] for row in x]
        return sum(dot(row, row) for row in deviations) / (len(x) * len(middle))

    opposed, orthogonal, parallel = [[1, 0], [-1, 0]], [[1, 0], [0, 1]], [[1, 0], [1, 0]]
    variance = jax.jit(metrics.routing_variance)
    yield witness(
        "unit outputs made orthogonal, from (1, 0), (-1, 0) to (1, 0), (0, 1); variance over experts of the signal "
        "g·x, mean over g along the two axes, after against before",
        exact(orthogonal),
        ">=",
        exact(opposed),
        holds_at={"from (1, 0), (1, 0)": (exact(orthogonal), exact(parallel))},
        code=[(variance(jnp.asarray(x, float)), exact(x)) for x in (opposed, orthogonal, parallel)],
    )


def _signals_exactly(effort: Effort) -> Iterator[Finding]:
    squares = total(X[e, i] ** 2, e, i)
    inner = total((1 - sp.KroneckerDelta(e, j)) * total(X[e, i] * X[j, i], i), e, j)
    yield identity(
        total((X[e, i] - total(X[j, i], j) / N) ** 2, e, i) / (N * D),
        ((1 - 1 / N) * squares - inner / N) / (N * D),
        variants={"inner products squared": ((1 - 1 / N) * squares - inner**2 / N) / (N * D)},
        sample=lambda rng: {"x": rng.normal(size=(5, 2))},
        sizes={N: 5, D: 2},
        code=lambda d: jax.jit(metrics.routing_variance)(jnp.asarray(d["x"])),
    )


SIGNALS = Claim(
    id="guo/s3.2-c-signals",
    statement=r"\langle \tilde x_j, \tilde x_k \rangle \to 0 \text{ at fixed norms} \;\Rightarrow\; "
    r"\mathrm{Var}_j(g \cdot \tilde x_j) \text{ rises}",
    words="Orthogonal outputs give the router a more varied signal g·x.",
    source="[guo] section 3.2",
    recorded=Verdict.CORRECTED,
    check=_signals,
    functions=(metrics.routing_variance,),
    correction=Correction(
        r"\overline{\mathrm{Var}_j(g \cdot x_j)} \propto \Big(1 - \frac1n\Big) \sum_j \|x_j\|^2 - \frac1n "
        r"\sum_{j \ne k} \langle x_j, x_k \rangle",
        "At fixed norms the mean over directions g falls with the sum of the inner products: making outputs orthogonal "
        "raises it where they pointed the same way on balance, and lowers it where they pointed apart.",
        _signals_exactly,
    ),
    remark="L_o squares the inner products, so it does both.",
)


CLAIMS = (*ONE_LAYER, SIGNALS)
