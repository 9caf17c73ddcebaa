"""The files in results/, and the pages that are made of them."""

from pathlib import Path

import pytest

from planil_jax.evaluation import results
from planil_jax.reporting import results_pages

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parent.parent


def test_every_file_in_results_is_a_result():
    assert results.read_all(ROOT / "results")


def test_the_pages_are_those_of_the_files():
    """`make results-docs` writes them."""
    made = results_pages.pages(results.read_all(ROOT / "results"))
    kept = {path.name: path.read_text() for path in (ROOT / "docs/results").glob("*.md")}
    assert made == kept
