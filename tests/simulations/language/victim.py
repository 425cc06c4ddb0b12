"""What the processes of `test_kill.py` do: train without a break, die after a step, die while saving, finish."""

import hashlib
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from simulations.language import checkpoints

from .small import recipe, run


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def killed_after(step):
    return lambda progress: die() if progress.done == step else None


def digest(of):
    """Of the last checkpoint: state and trajectory, types and bits."""
    found = hashlib.sha256()
    tree = checkpoints.restore(of.folder, of.recipe.steps, of.start().tree())
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        leaf = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode() + leaf.tobytes())
    return found.hexdigest()


def main(folder: Path, act: str) -> None:
    whole, broken = (run(folder / name, recipe=recipe(micro_batches=2)) for name in ("whole", "broken"))
    newest = max(checkpoints.steps_of(broken.folder), default=None)
    if act == "after-a-step":
        whole.train(whole.start())
        (folder / "expected").write_text(digest(whole))
        broken.train(broken.start(), report=killed_after(3))
    elif act == "while-saving":
        checkpoints.files.write = die  # the arrays are there, the manifest is not
        broken.train(broken.start(newest))
    else:
        broken.train(broken.start(newest))
        (folder / "found").write_text(digest(broken))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
