"""The pages and examples that `make test-docs` runs."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples/tour.ipynb"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# Generated pages, and those that only show what others run, are not among them.
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/how-to").glob("*.md")),
    *sorted((ROOT / "docs/algorithms").glob("*.md")),
]
