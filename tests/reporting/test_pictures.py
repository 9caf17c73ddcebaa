"""Figures of an evaluation, and the message where matplotlib is missing."""

import subprocess
import sys
from pathlib import Path

from planil_jax.reporting import figures, pictures

ROOT = Path(__file__).parents[2]


def result(threshold, **parts):
    nothing = [[None, None], [None, None]]
    measures = {
        "distance": [[1.0, 2.0], [2.0, 3.0]],
        "distance, 95th percentile": [[1.0, 2.0], [2.0, 3.0]],
        "out_of_support": nothing,
    }
    return {
        "method": "cmil",
        "steps": [5, 10],
        "threshold": threshold,
        "parts": measures | parts,
    }


def test_runs_are_drawn_side_by_side_with_or_without_a_threshold(tmp_path):
    more = {
        "out_of_support": [[0.0, 1.0]] * 2,
        "constraint_violations: a": [[0.0, 0.5]] * 2,
    }
    found = {"one": result(None), "two": result(1.5, **more)}
    drawn = figures.coverage(found)
    assert [len(axes.lines) for axes in drawn.axes] == [7, 3, 3]
    pictures.coverage(tmp_path / "coverage.png", found)
    assert (tmp_path / "coverage.png").stat().st_size > 1000


def test_without_matplotlib_a_figure_names_the_pip_line():
    program = """
import sys
sys.modules["matplotlib"] = None
from planil_jax.base import UserError
for module in ("figures", "report", "pictures"):
    try:
        __import__(f"planil_jax.reporting.{module}")
    except UserError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    sentence = (
        "drawing figures needs matplotlib, which is not installed: "
        'pip install "planil_jax[report]".'
    )
    assert done.stdout.splitlines() == [sentence] * 3, done.stderr
