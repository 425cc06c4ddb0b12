"""Keeping freed memory: in a process of its own, since it cannot be undone."""

import subprocess
import sys
from pathlib import Path

CODE = """
import importlib.util, resource, sys
spec = importlib.util.spec_from_file_location("memory", sys.argv[1])
memory = importlib.util.module_from_spec(spec)
spec.loader.exec_module(memory)
kept = memory.keep_freed_memory()

def faults(size=2**26):
    block = bytearray(size)
    del block
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    again = bytearray(size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(kept, faults())
"""


def test_a_block_that_was_freed_is_used_again():
    path = Path(__file__).parents[3] / "simulations" / "language" / "memory.py"
    done = subprocess.run([sys.executable, "-c", CODE, str(path)], capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    if kept == "True":  # elsewhere than under glibc there is nothing to keep, and nothing is claimed
        assert int(faults) < 2**26 // 4096 // 10  # fresh pages would be 16,384 faults
