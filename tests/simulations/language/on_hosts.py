"""What each process of `test_hosts.py` does: part of a run on four devices, which one process or two may have."""

import sys
from pathlib import Path

import jax
import numpy as np

from himoe_theory import Partition
from simulations import save
from simulations.arms import arms
from simulations.language import checkpoints, hosts
from simulations.language.training import Diverged, Interrupted, Run

from .small import model, recipe, run


def on_four_devices(folder: Path, **fields) -> Run:
    """Two copies of the model, each with a group of two experts a device."""
    arm = arms(Partition.equal(4, 2), 1)["hi-moe"]
    spread = model(arm=arm, dispatch="sorted", bias=False, devices=(2, 2))
    return run(folder, model=spread, recipe=recipe(micro_batches=2, batch=8, held_out=8), **fields)


def train(of: Run, result: Path, *, stop_after: int | None = None) -> None:
    """To the end, or until one process alone is asked to stop."""
    done: list[int] = []
    stopped = (lambda: not hosts.leads() and done[-1] == stop_after) if stop_after else (lambda: False)
    start = max(checkpoints.steps_of(of.folder), default=None)
    try:
        found = of.train(of.start(start), report=lambda p: done.append(p.done), stopped=stopped)
    except Interrupted:
        return
    if hosts.leads():
        save(found, result)


def main(folder: Path, act: str, *joined: str) -> None:
    if joined:
        hosts.join(joined[0], 2, int(joined[1]))
    if act == "whole":
        train(on_four_devices(folder / "whole"), folder / "whole.nc")
    elif act == "stop and fail":
        train(on_four_devices(folder / "broken"), folder / "broken.nc", stop_after=3)
        fail(on_four_devices(folder / "failing"))
        start_different(on_four_devices(folder / "other", seed=jax.process_index()))
    elif act == "go on":
        train(on_four_devices(folder / "broken"), folder / "broken.nc")


def fail(of: Run) -> None:
    """A parameter is NaN after the first step, so that nothing is measured before it fails."""
    begun = of.start()
    layer = begun.state.parameters["layers"]["00"]["moe"]
    layer["in"]["weight"] = layer["in"]["weight"] * np.float32(np.nan)
    try:
        of.train(begun._replace(state=begun.state._replace(step=begun.state.step + 1)))
    except Diverged as error:
        print(f"failed: {error}")


def start_different(of: Run) -> None:
    """With other numbers in each process."""
    try:
        of.start()
    except ValueError as error:
        print(f"refused: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
