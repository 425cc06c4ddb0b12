"""Parts of experiments in processes of their own."""

from collections.abc import Iterator, Sequence

import jax
import xarray as xr

from proofs_checks.precision import compile_plainly
from simulations import workers

from .plan import Experiment


def run_all(parts: Sequence[Experiment], processes: int, report: workers.Shares) -> Iterator[tuple[int, xr.Dataset]]:
    """Runs parts side by side and yields (index, result) as they are done.

    **Raises:** what a part raises; `workers.WorkerLost` if a process was killed from outside.
    """
    return workers.run_all(_run, parts, processes, report)


def _run(part: Experiment, report: workers.Share) -> xr.Dataset:
    compile_plainly()  # always: which part comes first in a process must not decide how the others compile
    jax.config.update("jax_disable_most_optimizations", not part.optimise)
    return part.run(report)
