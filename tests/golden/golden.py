"""The golden run: what every method's first epochs come to, written before code is moved.

    python -m tests.golden.golden                 # the numbers of this checkout
    python -m tests.golden.golden --of=HEAD~1     # of another commit; `make golden`

Each method of `tests/tiny.py` trains for three epochs with seed 0 on the point mass. Its
metrics, and the sums of |params| and |observations| after each epoch, are written to
golden.json together with the machine. test_golden.py runs the same again: on that machine
every number must be equal within 1e-5. Elsewhere rounding differs, so that names, shapes
and finiteness alone are held.

To compare numbers on another machine: commit the change, run `make golden`, which writes
the numbers of the commit before it, then run the tests of this folder. A difference is
explained in the commit that makes it, which also writes the file anew, or it is a bug.
"""

import argparse
import collections
import itertools
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from tests import conftest, tiny

FILE = Path(__file__).with_name("golden.json")
EPOCHS = 3
TOLERANCE = 1e-5  # relative and absolute


def machine() -> dict[str, str | bool]:
    """All that rounding depends on, code apart."""
    cpu_info = Path("/proc/cpuinfo")
    text = cpu_info.read_text() if cpu_info.exists() else ""
    processors = re.findall(
        r"^(?:model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE
    )
    return {
        "cpu": ", ".join(dict.fromkeys(processors)) or platform.processor(),
        "backend": jax.default_backend(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "jax_disable_most_optimizations": jax.config.values[
            "jax_disable_most_optimizations"
        ],
    }


def holds_numbers(written: dict) -> bool:
    """Whether numbers are held here: the machine that a file names is this one."""
    return written["machine"] == machine()


def run(name: str) -> dict:
    """The shapes of a method's params, and its metrics after each epoch."""
    after = list(itertools.islice(tiny.epochs(name), 1, EPOCHS + 1))
    leaves = [f"{leaf.dtype}{list(leaf.shape)}" for leaf in _floats(after[-1][0])]
    shapes = dict(sorted(collections.Counter(leaves).items()))
    return {"shapes": shapes, "epochs": [_numbers(*result) for result in after]}


def differences(golden: dict, now: dict, numbers: bool) -> list[str]:
    """Where two runs of a method differ, a line each; numbers themselves only if asked."""
    found = []
    if now["shapes"] != golden["shapes"]:
        found.append(f"shapes: {golden['shapes']} became {now['shapes']}")
    for i, (before, after) in enumerate(
        itertools.zip_longest(golden["epochs"], now["epochs"], fillvalue={})
    ):
        for metric in sorted(before.keys() | after.keys()):
            old, new = before.get(metric), after.get(metric)
            if old is None or new is None:
                same = False
            elif not math.isfinite(new):
                same = False
            else:
                same = not numbers or bool(np.isclose(new, old, TOLERANCE, TOLERANCE))
            if not same:
                found.append(f"epoch {i + 1}: {metric} was {old}, is {new}")
    return found


def _floats(state) -> list[jax.Array]:
    leaves = jax.tree.leaves(state.agent.params)
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]


def _numbers(state, metrics) -> dict[str, float]:
    def l1(leaves) -> float:
        return float(sum(np.abs(np.asarray(leaf, np.float64)).sum() for leaf in leaves))

    found = {metric: float(value) for metric, value in metrics.items()}
    found |= {"params/l1": l1(_floats(state)), "env/l1": l1([state.env.obs])}
    return dict(sorted(found.items()))


def write() -> None:
    """The file, of the code that is imported."""
    conftest.compile_quickly()
    runs = {name: run(name) for name in tiny.AGENTS}
    text = json.dumps({"machine": machine(), "methods": runs}, indent=1, allow_nan=False)
    FILE.write_text(text + "\n")


def write_of(commit: str) -> None:
    """The file, of the code of a commit, by its own program in a worktree of its own."""
    root = FILE.parents[2]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(root), "worktree"]
        try:
            subprocess.run([*git, "add", "--quiet", "--detach", tree, commit], check=True)
            program = [sys.executable, "-m", "tests.golden.golden"]
            subprocess.run(program, cwd=tree, check=True)
            shutil.copy(tree / FILE.relative_to(root), FILE)
        except subprocess.CalledProcessError as error:
            sys.exit(f"The numbers of {commit} were not written: {error}")
        finally:
            if tree.exists():
                subprocess.run([*git, "remove", "--force", tree], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--of", metavar="COMMIT", help="whose numbers; this checkout's")
    arguments = parser.parse_args()
    write_of(arguments.of) if arguments.of else write()
