"""What each file of tests costs: processor seconds, and memory at its peak.

    python -m tests.cost                          # every file of `make test`
    python -m tests.cost tests/agents             # some

Each file runs in a process of its own; what it starts is counted too. The files share a
cache of compiled programs that is empty at first, as the workers of `make test` do. Each
process imports JAX and the package anew, which a worker does once: the first line says
what that costs, and the last line is the sum without it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
NOTHING = "import jax; import planil_jax.experiment; jax.numpy.zeros(1)"


class Cost(NamedTuple):
    """Of a process and of those that it started."""

    processor: float  # seconds
    wall: float  # seconds
    memory: float  # gigabytes, of the largest process
    passed: bool


def measure(command: list[str], cache: str) -> Cost:
    """What a command costs."""
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PLANIL_TEST_CACHE": cache},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    processor = usage.ru_utime + usage.ru_stime
    return Cost(processor, wall, usage.ru_maxrss / 1e6, status == 0)


def row(name: str, cost: Cost) -> str:
    """A line of the table."""
    state = "" if cost.passed else "  FAILED"
    return (
        f"{cost.processor:8.1f} s {cost.wall:8.1f} s {cost.memory:6.2f} GB  {name}{state}"
    )


def files(paths: list[str]) -> list[str]:
    """The test files below some paths, without those of `make test-slow`."""
    found = []
    for path in map(Path, paths):
        found += sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
    return [str(path) for path in found if "slow" not in path.parts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", default=["tests"])
    os.chdir(ROOT)
    costs = {}
    with tempfile.TemporaryDirectory() as cache:
        start = measure([sys.executable, "-c", NOTHING], cache)
        print("processor      wall     memory")
        print(row("imports alone", start), flush=True)
        for path in files(parser.parse_args().paths):
            costs[path] = measure([sys.executable, "-m", "pytest", path], cache)
            print(row(path, costs[path]), flush=True)
    print("\nsorted:")
    for path, cost in sorted(costs.items(), key=lambda item: -item[1].processor):
        print(row(path, cost))
    total = sum(cost.processor for cost in costs.values())
    without = total - start.processor * len(costs)
    print(
        f"together {total / 60:.1f} processor minutes; {without / 60:.1f} without imports"
    )
    print(f"memory at its peak {max(cost.memory for cost in costs.values()):.2f} GB")


if __name__ == "__main__":
    main()
