"""Pages and examples run as they stand: `make test-docs`. Not a part of `make test`.

A page's blocks run in a directory of its own, which has the checkout's `examples` and
`experiments` where the page speaks of a checkout, and at small sizes; see blocks.py and
sizes.py. Examples and the notebook run at their own sizes. Programs compile as in all
tests: quickly, and once, through one cache.
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs import blocks
from tests.docs.pages import EXAMPLES, NOTEBOOK, PAGES, ROOT

BUDGET = 360  # processor seconds in all, on an idle machine with an empty cache
SECONDS = 1800  # for one page; a machine may be busy
SAMPLE_OUTPUT = 6000  # characters shown where something fails

RUN_PAGES = [page for page in PAGES if any(block.runs for block in blocks.read(page))]


@pytest.fixture(scope="session")
def environment(compile_cache) -> Iterator[dict[str, str]]:
    """Environment variables with `python` and `planil` on the PATH."""
    with tempfile.TemporaryDirectory(prefix="planil-docs-") as folder:
        programs, library = Path(folder) / "bin", Path(folder) / "lib"
        programs.mkdir()
        library.mkdir()
        (library / "planil_jax").symlink_to(ROOT / "planil_jax")
        env = os.environ | compile_cache | {"PYTHONPATH": str(library)}
        env["MPLBACKEND"] = "agg"
        command = [sys.executable, "-m", "tests.docs.forks", f"{folder}/server", programs]
        server = subprocess.Popen(command, env=env, cwd=ROOT)
        while not (programs / "page").exists():
            assert server.poll() is None, "the server of forks ended"
            time.sleep(0.05)
        path = f"{programs}:{Path(sys.executable).parent}:{env['PATH']}"
        yield env | {"PATH": path}
        server.terminate()
        server.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime
    print(f"\npages and examples: {seconds:.0f} processor seconds of {BUDGET}")


@pytest.fixture
def run(environment, tmp_path, capfd) -> Callable[..., str]:
    """Runs a program in the test's directory and returns what it printed."""

    def call(*command: str | Path, **variables: str) -> str:
        program = subprocess.run(
            [environment["PATH"].partition(":")[0] + f"/{command[0]}", *command[1:]],
            cwd=tmp_path,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        if program.returncode:
            pytest.fail(program.stdout[-SAMPLE_OUTPUT:], pytrace=False)
        return program.stdout

    return call


@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_runs_as_it_stands(page, run, tmp_path):
    if page.name == "README.md" or "checkout" in page.read_text():
        for folder in ("examples", "experiments"):
            (tmp_path / folder).symlink_to(ROOT / folder)
    run("page", page)


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.name)
def test_an_example_runs_and_says_where_its_run_lies(script, run, tmp_path):
    printed = run("python", script, PAGES_AS_THEY_ARE="1")
    place = re.search(r"^the runs? lies? in (\S+)$", printed, re.MULTILINE)
    assert place and any((tmp_path / place[1]).rglob("config.json")), printed


def test_the_notebook_runs_and_shows_its_report(run):
    printed = run("page", NOTEBOOK, PAGES_AS_THEY_ARE="1")
    length = re.search(r"shown: (\d+) characters of a Page", printed)
    assert length and int(length[1]) > 10_000, printed
