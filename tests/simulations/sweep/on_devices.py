"""Run as a script with two host devices: prints how far a sweep's runs are from those of `simulate`, by program."""

import json

import jax
import numpy as np

from simulations import closed_form, simulate
from simulations.sweep import grid
from simulations.sweep.compute import compute
from simulations.sweep.plan import plan

FIXED = {"arm": "hi-moe", "training.steps": 30, "training.batch": 64, "training.test_tokens": 64}
AXES = {"data.mean": [0.0, 3.0], "training.learning_rate": [0.001, 0.01]}
COMPARED = ("test_loss", "soft_load", "cv", "collision_information")


def furthest(fixed: dict) -> dict:
    """Two data sets, two learning rates and two seeds, chunk by chunk."""
    design = grid(AXES, fixed=fixed, seeds=2, partners=False)
    worst, settings, compared = 0.0, design.settings(), 0
    for chunk in plan(design):
        computed = compute(chunk, lambda share: None)
        one, program = chunk.rows[0].settings[0], chunk.program
        pairs = zip(computed.arrays["design_point"], computed.arrays["design_seed"], strict=True)
        for run, (point, seed) in enumerate(pairs):
            if seed == 0:  # every data set and learning rate is a program of its own when it runs alone
                continue
            setting, compared = settings[point], compared + 1
            alone = simulate(setting.arm, setting.data, setting.layer, setting.training, [int(seed)], partners=False)
            for name in COMPARED:
                found, expected = computed.arrays[name][run], alone[name].values[0, 0]
                worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
    assert compared == len(settings)
    task = program.source.data.task
    return {
        "furthest": worst,
        "closed": closed_form.applies(program.layer, one.arm.router, program.gate, program.terms, task),
        "device": computed.made_by["device"].rpartition(" x ")[2],
    }


if __name__ == "__main__":
    found = {"closed form": furthest(FIXED), "autodiff": furthest(FIXED | {"terms.z": 0.01})}
    print(json.dumps(found | {"devices": len(jax.local_devices())}))
