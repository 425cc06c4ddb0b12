"""Training sweeps against eager PyTorch: `python -m benchmarks.sweeps`.

Two single-thread processes on two cores for each contender, never two contenders at once; contenders take turns, so
that what else the machine does meets all of them. Steps a second are added over the two. Also the whole command
`himoe-simulate sweep`, with importing, starting processes, compiling, measuring and storing: the reference sweep, and
time and peak memory from 10 to 10,000 runs. Results are written as JSON with facts about the machine, and that curve as
a picture beside it.
"""

import dataclasses
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import tyro

from .workers import Pair

NAMES = ("rival", "general", "fast")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure, and where to write it."""

    rounds: int = 7
    """Turns of each contender."""
    seconds: float = 3.0
    """Length of a turn."""
    sweeps: tuple[tuple[int, int], ...] = ((72, 1500), (12, 200), (120, 200), (1000, 200), (10_000, 200), (1000, 1000))
    """Runs and steps of the whole sweeps to time; none to skip."""
    out: Path = Path("results/benchmarks/sweeps.json")


def _contender(name: str):
    from .contenders import CONTENDERS  # after the process has set its threads

    work = CONTENDERS[name]()
    work()  # compiles

    def for_seconds(seconds: float) -> int:
        end, done = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            done += work()
        return done

    return for_seconds


def _disagreement():
    from .contenders import disagreement

    return disagreement


def compare(cores: list[int], options: Options) -> dict[str, Any]:
    """Steps a second (by the clock, and per second of core time) of every turn, and ratios to the rival's."""
    pairs = {name: Pair(cores, _contender, name) for name in NAMES}
    rates: dict[str, list[float]] = {name: [] for name in NAMES}
    core_rates: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(options.rounds):
        for name, pair in pairs.items():
            timed = pair.run((options.seconds,))
            rates[name].append(sum(t.value / t.seconds for t in timed))
            core_rates[name].append(sum(t.value / t.core_seconds for t in timed))
    for pair in pairs.values():
        pair.close()
    ratios = {name: spread([a / b for a, b in zip(rates[name], rates["rival"], strict=True)]) for name in NAMES[1:]}
    core_ratios = {
        name: spread([a / b for a, b in zip(core_rates[name], core_rates["rival"], strict=True)]) for name in NAMES[1:]
    }
    return {
        "steps_per_second": {name: spread(values) for name, values in rates.items()},
        "steps_per_core_second": {name: spread(values) for name, values in core_rates.items()},
        "ratio_to_rival": ratios,
        "ratio_to_rival_by_core_time": core_ratios,
        "rates": rates,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and largest."""
    return {"median": statistics.median(values), "least": min(values), "largest": max(values)}


DESIGN = """seeds = {seeds}
partners = false
[fixed]
training.steps = {steps}
[grid]
terms.inter_group_dense = [0.0, 0.05, 0.1]
terms.intra_group_global = [0.0, 0.05, 0.1, 0.2]
"""
"""The reference work: 12 settings, and what a file that says nothing else gets, but without partners, of which the
rival trains none."""


def whole(runs: int, steps: int) -> dict[str, Any]:
    """`himoe-simulate sweep` of 12 settings by as many seeds as `runs` needs, from an empty cache of compiled code."""
    seeds = -(-runs // 12)
    with tempfile.TemporaryDirectory() as folder:
        file, store = Path(folder) / "design.toml", Path(folder) / "store"
        file.write_text(DESIGN.format(seeds=seeds, steps=steps), encoding="utf-8")
        command = [sys.executable, "-m", "simulations", "sweep", str(file), "--out", str(store)]
        environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        before, began = os.times(), time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        seconds, after = time.perf_counter() - began, os.times()
        made_by = json.loads((store / "manifest.json").read_text(encoding="utf-8"))["made_by"]
        log = [json.loads(line) for line in (store / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    done = 12 * seeds
    first, *others = (line["seconds"] for line in log)
    return {
        "runs": done,
        "steps": steps,
        "seconds": seconds,
        "core_seconds": sum(after[2:4]) - sum(before[2:4]),
        "steps_per_second": done * steps / seconds,
        "device": made_by["device"],
        "chunks": len(log),
        "first_chunk_seconds": first,
        "median_of_other_chunks": statistics.median(others) if others else None,
        "peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


def curve(options: Options) -> list[dict[str, Any]]:
    """Whole sweeps, each from a process of its own, since a peak of memory never falls."""
    found = []
    for runs, steps in options.sweeps:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found.append(pool.submit(whole, runs, steps).result())
        print(json.dumps(found[-1]))
    return found


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Seconds and peak memory against the number of runs, with the straight line from the smallest to the largest."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    for steps, marker in zip(sorted({one["steps"] for one in found}), "os^v", strict=False):
        own = sorted((one["runs"], one["seconds"], one["peak_mib"]) for one in found if one["steps"] == steps)
        runs, seconds, peaks = zip(*own, strict=True)
        time_axes.loglog(runs, seconds, marker, label=f"{steps:,} steps a run")
        memory_axes.semilogx(runs, peaks, marker)
        if len(runs) > 1:
            between = np.geomspace(runs[0], runs[-1])
            time_axes.loglog(between, np.interp(between, (runs[0], runs[-1]), (seconds[0], seconds[-1])), color="0.6")
    time_axes.set(xlabel="runs", ylabel="seconds, all included")
    time_axes.legend(frameon=False)
    memory_axes.set(xlabel="runs", ylabel="peak memory of a process (MiB)")
    memory_axes.set_ylim(0, 1.15 * max(one["peak_mib"] for one in found))
    figure.savefig(path, dpi=150)


def machine() -> dict[str, Any]:
    """Cores, processor, load and versions."""
    from simulations.provenance import processor  # loads jax, whose threads a contender's process sets first

    packages = ("jax", "jaxlib", "numpy", "optax", "equinox", "torch")
    try:
        versions = {name: metadata.version(name) for name in packages}
    except metadata.PackageNotFoundError as error:
        raise SystemExit(f"The rival needs {error.name}, which is not installed: pip install -e '.[bench]'.") from None
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": processor(),
        "load_before": os.getloadavg(),
        "python": platform.python_version(),
    } | versions


def main(options: Options) -> None:
    """Measures, prints the summary and writes the file."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("`cores` must be at least 2 for two processes; got 1.")
    result: dict[str, Any] = {"machine": machine(), "options": dataclasses.asdict(options) | {"out": str(options.out)}}
    check = Pair(cores[:1], _disagreement)
    result["largest_difference_from_rival_after_30_steps"] = check.run(())[0].value
    check.close()
    result |= compare(cores, options)
    print(json.dumps({name: value for name, value in result.items() if name != "rates"}, indent=1))
    result["sweeps"] = curve(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if result["sweeps"]:
        draw(result["sweeps"], options.out.with_suffix(".png"))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
