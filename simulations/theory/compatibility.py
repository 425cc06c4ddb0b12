"""Angles between the gradients of objectives: over the concentration of routing, and along a training run (D4)."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from himoe_theory import Partition, geometry, routers
from himoe_theory.objectives import OBJECTIVES, View

from ..arms import arms
from ..data import Batch, Clusters
from ..layer import Layer, Parameters
from ..training import Carry, Program, Source, Training, group, task_loss

DUPLICATES = {
    "load_per_token": "load",
    "load_top_k_per_token": "load_top_k",
    "load_frozen": "p_squared",
    "inter_group_sparse": "inter_group_selected",
    "intra_group_global_selection": "intra_group_global",
    "intra_group_conditional_selection": "intra_group_conditional",
}
"""Objectives left out of the map: under a router without bias correction that selects one expert a group, their
gradient is a positive multiple of the other's, whatever the logits."""
MAPPED = tuple(name for name, each in OBJECTIVES.items() if each.of != "outputs" and name not in DUPLICATES)
METRICS = ("Euclidean", "Fisher")
EXACT = (
    ("Fisher", "inter_group_dense", "intra_group_conditional", 0.0),
    ("Fisher", "group_neg_entropy", "intra_group_conditional", 0.0),
    ("Fisher", "intra_group_global", "variance_across_experts", 1.0),
    ("Euclidean", "intra_group_global", "variance_across_experts", 1.0),
)
"""Cosines that theory gives: functions of the group masses and of the conditionals are orthogonal in the Fisher metric
(D4); the released L_v is R_intra but for a factor (D3)."""
TRACKED = ("load_per_token", "intra_group_global", "inter_group_dense", "variance_across_tokens")
OUTPUTS = "orthogonality_span"


def cosines(
    concentrations: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0), tokens: int = 512, seed: int = 0
) -> xr.Dataset:
    r"""Cosines of the batch gradients of every pair of objectives, for normal logits of several standard deviations.

    Eight experts in four groups, one selected in each. **Returns:** `cosine` over (metric, concentration, a, b); NaN in
    the Fisher metric for the z-loss, which is no function of the probabilities; `exact` beside `exact_measured` over
    (relation, concentration). **Source:** [himoe-theory] D4.
    """
    noise = np.random.default_rng(seed).standard_normal((tokens, 8))
    tables = [_cosines_at(jnp.asarray(c * noise)) for c in concentrations]
    cosine = xr.DataArray(
        np.stack(tables, axis=1),
        {"metric": list(METRICS), "concentration": list(concentrations), "a": list(MAPPED), "b": list(MAPPED)},
    )
    exact = [cosine.sel(metric=metric, a=a, b=b).values for metric, a, b, _ in EXACT]
    relations = [f"{metric}: {a}, {b}" for metric, a, b, _ in EXACT]
    return xr.Dataset(
        {
            "cosine": cosine,
            "exact": ("relation", [value for *_, value in EXACT]),
            "exact_measured": (("relation", "concentration"), np.stack(exact)),
        },
        {"relation": relations},
    )


@jax.jit
def _cosines_at(logits: Float[Array, "tokens experts"]) -> Float[Array, "2 objectives objectives"]:
    router = routers.moge(Partition.equal(8, 4), 1)
    routing, _ = router.step(None, router.init(logits.dtype), logits)
    gradients = jnp.stack([OBJECTIVES[name].gradient(View(routing)) for name in MAPPED])
    fisher = jax.vmap(lambda a: jax.vmap(lambda b: geometry.fisher_inner(a, b, logits).sum())(gradients))(gradients)
    undefined = ~jnp.array([OBJECTIVES[name].gauge_invariant for name in MAPPED])
    fisher = jnp.where(undefined[:, None] | undefined, jnp.nan, fisher)
    return jnp.stack([_normalised(jnp.einsum("ate,bte->ab", gradients, gradients)), _normalised(fisher)])


def _normalised(inner: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Cosines from inner products."""
    length = jnp.sqrt(jnp.diagonal(inner))
    return inner / length / length[:, None]


def along_training(
    arm: str = "hi-moe", steps: int = 600, records: int = 600, mean: float = 4.0, seeds: tuple[int, ...] = (0, 1, 2)
) -> xr.Dataset:
    r"""Cosines between the gradients of the task and of objectives while one arm trains on clusters.

    Recorded `records` times at equal distances. In the gate's weights for all that reach them; L_o reaches the "
    "experts alone, and is compared with the task there.
    Its angle with whatever moves the gate alone is a right one.

    **Returns:** `cosine` over (seed, step, a, b) of `task` and `TRACKED`; `experts_cosine`, of task and L_o in the
    experts' weights. **Source:** [guo] section 3; [himoe-theory] D4.
    """
    training = Training(steps=steps, records=records, batch=256, test_tokens=512)
    members = group([arms()[arm]])[0]
    program = Program(Source(Clusters(mean=mean, outputs=4), training), Layer(), members.gate, members.terms)
    settings = members.settings(training, len(seeds))
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    truths, carry = program.source.truths(seeds), program.begin(seeds, settings)
    test = program.source.test(truths, keys)
    measure = jax.jit(jax.vmap(lambda carry, batch, key: _gradient_cosines(program, arm, carry, batch, key)))
    found = [measure(_first_arm(carry), test, keys)]
    for record in range(records):
        first = jnp.asarray(record * training.stride, jnp.int32)
        carry = program.advance(carry, settings, program.source.block(truths, keys, first), keys, first)
        found.append(measure(_first_arm(carry), test, keys))
    gate, experts = (np.stack([np.asarray(one[i]) for one in found], axis=1) for i in range(2))
    names = ["task", *TRACKED]
    return xr.Dataset(
        {"cosine": (("seed", "step", "a", "b"), gate), "experts_cosine": (("seed", "step"), experts)},
        {"seed": list(seeds), "step": training.stride * np.arange(records + 1), "a": names, "b": names},
    )


def _first_arm(carry: Carry) -> Carry:
    """Without the axis of arms behind that of seeds."""
    return jax.tree.map(lambda x: x[:, 0], carry)


def _gradient_cosines(
    program: Program, arm: str, carry: Carry, batch: Batch, key: PRNGKeyArray
) -> tuple[Float[Array, "n n"], Float[Array, ""]]:
    """In the gate, of all; in the experts, of task and L_o."""
    router = arms()[arm].router

    def losses(parameters: Parameters) -> Array:
        output, _ = program.layer.apply(
            parameters, router, program.gate, carry.router, batch.x, batch.labels, key=key, training=False
        )
        chosen = jnp.take_along_axis(output.experts, output.routing.experts[:, :, None], axis=1)
        values = [task_loss(program.source.data, output.prediction, batch.y)]
        view = View(output.routing, chosen)
        return jnp.stack([*values, *(OBJECTIVES[name].value(view) for name in (*TRACKED, OUTPUTS))])

    rows = jax.jacrev(losses)(carry.parameters)
    gate = rows["gate"][:-1].reshape(1 + len(TRACKED), -1)
    task, outputs = (row.ravel() for row in (rows["experts"]["weight"][0], rows["experts"]["weight"][-1]))
    return _normalised(gate @ gate.T), task @ outputs / jnp.linalg.norm(task) / jnp.linalg.norm(outputs)
