"""Run as a script, compiled as users compile: prints how far bfloat16 gradients are from those of float32, by form."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from himoe_theory import Partition
from simulations.arms import arms
from simulations.language.model import Model

SHAPE = {"layers": 1, "heads": 2, "dim": 32, "context": 16, "vocabulary": 48, "width": 64, "stride": 1}
FORMS = {"one device": {}, "two devices": {"devices": (1, 2)}}


def gradient(model: Model, compute: str):
    tokens = np.random.default_rng(0).integers(0, 48, (4, 17)).astype(np.int32)

    @jax.jit
    def at(parameters):
        given = tokens[:, :-1], tokens[:, 1:]
        return jax.grad(lambda p: model.loss(p, model.init_state(), *given, compute=jnp.dtype(compute))[0])(parameters)

    return jax.device_get(at(model.init(0)))


def furthest(rough, exact) -> float:
    """Largest difference over the norm of each array."""
    norms = jax.tree.map(lambda a, b: float(np.linalg.norm(a - b) / np.linalg.norm(b)), rough, exact)
    return max(jax.tree.leaves(norms))


if __name__ == "__main__":
    arm = arms(Partition.equal(4, 2), 1)["moge"]
    models = {name: Model(arm=arm, **SHAPE, **fields) for name, fields in FORMS.items()}
    exact = gradient(models["one device"], "float32")
    print(json.dumps({name: furthest(gradient(model, "bfloat16"), exact) for name, model in models.items()}))
