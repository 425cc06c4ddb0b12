"""Plants deliberate faults in a copy of the sources, one at a time, and shows that the tests catch each.

    python tests/plant_faults.py                    all of them
    python tests/plant_faults.py --only objectives  one family (a module of tests/faults)
    python tests/plant_faults.py --jobs 1           one at a time

Each module of tests/faults has FAULTS, a list of (file, text that occurs once in it, what replaces the text, what is
then wrong), and TESTS, the test paths that must notice, those that notice soonest first. A fault may name, as a fifth
entry, the tests among them that are enough (an expression of pytest's -k). Exit code 1 if a fault survives, or if the
sources without a fault fail.
"""

import argparse
import dataclasses
import importlib
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("himoe_theory", "simulations", "proofs_checks", "paper_figures", "tests", "pyproject.toml")


@dataclasses.dataclass(frozen=True)
class Fault:
    """One deliberate mistake."""

    family: str
    file: str
    old: str
    new: str
    reason: str
    tests: tuple[str, ...]
    enough: str = ""
    """Which of the tests are run, in the terms of pytest's -k; all of them if empty."""


def families() -> list[str]:
    """Names of the modules in tests/faults."""
    return sorted(path.stem for path in (ROOT / "tests" / "faults").glob("*.py") if path.stem != "__init__")


def faults(family: str) -> list[Fault]:
    """The faults of one module, checked: each old text occurs exactly once, and the fault changes it."""
    sys.path.insert(0, str(ROOT))
    module = importlib.import_module(f"tests.faults.{family}")
    found = [Fault(family, *fault[:4], tuple(module.TESTS), *fault[4:]) for fault in module.FAULTS]
    for fault in found:
        occurrences = (ROOT / fault.file).read_text(encoding="utf-8").count(fault.old)
        if occurrences != 1 or fault.old == fault.new:
            raise ValueError(f"{fault.file}: {fault.old!r} must occur exactly once; it occurs {occurrences} times.")
    return found


def copy_tree(folder: Path) -> Path:
    """The sources and tests in `folder`; compiled programs are shared with the original, they are keyed by content."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    shared = ROOT / ".pytest_cache"
    shared.mkdir(exist_ok=True)
    (folder / ".pytest_cache").symlink_to(shared, target_is_directory=True)
    return folder


def fails(folder: Path, tests: tuple[str, ...], enough: str = "") -> bool:
    """Whether the tests fail there. A run that collects nothing or cannot start is an error, not a catch."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no", "-n", "0", "-k", enough, *tests]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with {done.returncode} in {' '.join(tests)}:\n{done.stdout}{done.stderr}")
    return done.returncode == 1


def caught(fault: Fault, folder: Path) -> bool:
    """Plants the fault in a copy, runs its tests, takes it back."""
    path = folder / fault.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    try:
        return fails(folder, fault.tests, fault.enough)
    finally:
        path.write_text(text, encoding="utf-8")


def run(planted: list[Fault], jobs: int) -> list[Fault]:
    """Prints a line a fault and returns the survivors."""
    survivors: list[Fault] = []
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(jobs) as pool:
        free: SimpleQueue[Path] = SimpleQueue()
        for job in range(jobs):
            free.put(copy_tree(Path(temporary) / str(job)))

        def one(fault: Fault) -> tuple[bool, float]:
            folder, began = free.get(), time.monotonic()
            try:
                return caught(fault, folder), time.monotonic() - began
            finally:
                free.put(folder)

        futures = {pool.submit(one, fault): fault for fault in planted}
        began = time.monotonic()
        for number, future in enumerate(as_completed(futures), start=1):
            fault, (seen, seconds) = futures[future], future.result()
            verdict = "caught  " if seen else "SURVIVED"
            left = (time.monotonic() - began) / number * (len(planted) - number)
            progress = f"[{number:3}/{len(planted)}, {left:4.0f} s left]"
            print(f"{progress} {verdict} {seconds:4.0f} s  {fault.file}: {fault.reason}", flush=True)
            if not seen:
                survivors.append(fault)
    return survivors


def table(planted: list[Fault], survivors: list[Fault]) -> str:
    """Faults and survivors of every file, and what survived."""
    width = max(len(fault.file) for fault in planted)
    lines = [f"{'file':{width}}  caught  survived"]
    for file in dict.fromkeys(fault.file for fault in planted):
        total, alive = (sum(fault.file == file for fault in some) for some in (planted, survivors))
        lines.append(f"{file:{width}}  {total - alive:6}  {alive:8}")
    lines += [f"survived: {fault.file}: {fault.reason}" for fault in survivors]
    return "\n".join([*lines, f"{len(planted) - len(survivors)} of {len(planted)} faults caught"])


def main() -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=families(), help="one family of faults")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once (2)")
    args = parser.parse_args()
    planted = [fault for family in ([args.only] if args.only else families()) for fault in faults(family)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = copy_tree(Path(temporary) / "clean")
        for tests in dict.fromkeys(fault.tests for fault in planted):
            print(f"Without a fault: {' '.join(tests)}", flush=True)
            if fails(folder, tests):
                print(f"The sources without a fault fail {' '.join(tests)}.", file=sys.stderr)
                return 1
    survivors = run(planted, args.jobs)
    print(table(planted, survivors))
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
