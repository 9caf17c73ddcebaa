"""The blocks of pages, and the examples as they lie there; test_pages.py runs both."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest

from tests.docs import blocks, sizes
from tests.docs.pages import EXAMPLES, PAGES, ROOT

pytestmark = pytest.mark.fast

PAGE = (
    """\
# A page

Text with `code`, and ``` in a line.

```python
a = 1

b = """
    + '"""```"""'
    + """
```

1. A list:

    ~~~bash
    echo "a
      b"
    ~~~

```xml title="arm.xml"
<mujoco/>
```

````text
```python
not a block of its own
```
````

<!-- not tested: takes an hour -->
```bash notest
make everything
```

```python notest="needs a GPU"
fast()
```

```python notest
why()
```
"""
)


def test_blocks_come_with_their_lines_and_without_their_indent():
    python, bash, *_ = blocks.of_markdown(PAGE)
    assert python == blocks.Block(
        6,
        "python",
        'a = 1\n\nb = """```"""\n',
        above="Text with `code`, and ``` in a line.",
    )
    assert (bash.line, bash.language) == (14, "bash")
    assert bash.code == 'echo "a\n  b"\n'


def test_a_block_with_a_title_is_a_file():
    files = {block.file: block.code for block in blocks.of_markdown(PAGE) if block.file}
    assert files == {"arm.xml": "<mujoco/>\n"}


def test_a_longer_fence_holds_shorter_ones():
    languages = [block.language for block in blocks.of_markdown(PAGE)]
    assert languages == ["python", "bash", "xml", "text", "bash", "python", "python"]


def test_what_runs_and_why_the_rest_does_not():
    found = blocks.of_markdown(PAGE)
    assert [block.runs for block in found] == [True, True, True, False, False, False, False]
    skipped = [block for block in found if block.skipped]
    assert [block.reason for block in skipped] == ["takes an hour", "needs a GPU", ""]


def test_a_block_without_an_end_is_named_with_its_line():
    with pytest.raises(ValueError, match="mine.md:3: this block has no end"):
        blocks.of_markdown("text\n\n```python\na = 1\n", "mine.md")


def test_the_cells_of_a_notebook_are_blocks_numbered_among_all_cells():
    cells = [
        {"cell_type": "markdown", "source": ["# text"]},
        {"cell_type": "code", "source": ["a = 1\n", "a"]},
    ]
    found = blocks.of_notebook(json.dumps({"cells": cells}))
    assert found == [blocks.Block(2, "python", "a = 1\na")]


# --------------------------------------------------------------------------------- playing


def play(page, text: str) -> subprocess.CompletedProcess:
    """Plays a page of this text, beside which its files are written."""
    page.write_text(text)
    program = f"from pathlib import Path; from tests.docs import page; page.play({page!r})"
    program = program.replace("PosixPath", "Path")
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=page.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_blocks_share_a_namespace_and_a_directory(tmp_path):
    text = """
```python title="part.py"
VALUE = 3
```

```python
from part import VALUE
```

```bash
echo "from bash" > written.txt
```

```python notest="it fails"
fail
```

```python
print(VALUE, open("written.txt").read(), __name__)
```
"""
    done = play(tmp_path / "page.md", text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 from bash\n __main__" in done.stdout


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("python\nprint(0)\nmissing()", "NameError: name 'missing' is not defined"),
        ("python\nprint(0", "SyntaxError: '(' was never closed"),
        ("bash\nfalse | true\n(exit 3)\ntrue", "bash ended with 3"),
    ],
)
def test_a_block_that_fails_shows_page_line_and_error(tmp_path, code, reason):
    page = tmp_path / "page.md"
    done = play(page, f"text\n\n```{code}\n```\n\n```python\nprint('not reached')\n```\n")
    assert done.returncode == 1 and "not reached" not in done.stdout
    assert f"failed: {page}:4: {reason}" in done.stdout
    if "NameError" in reason:
        assert f'File "{page}", line 5, in <module>' in done.stdout


# ------------------------------------------------------------------------ what lies there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_block_that_is_skipped_says_why(page):
    unexplained = [
        f"{page.relative_to(ROOT)}:{block.line}"
        for block in blocks.read(page)
        if block.skipped and len(block.reason) < 4
    ]
    assert not unexplained, 'write ```python notest="why"'


def test_the_readme_runs_something():
    found = blocks.read(ROOT / "README.md")
    assert {block.language for block in found if block.runs} >= {"python"}


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.name)
def test_an_example_is_short_and_says_how_it_is_run(script):
    source = script.read_text()
    assert len(source.splitlines()) <= 60
    docstring = ast.get_docstring(ast.parse(source)) or ""
    assert f"\n    python examples/{script.name}" in docstring
    assert script.name in (ROOT / "examples/README.md").read_text()


def test_the_notebook_is_valid_and_holds_no_outputs():
    notebook = json.loads((ROOT / "examples/tour.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    identifiers = [cell["id"] for cell in notebook["cells"]]
    assert len(set(identifiers)) == len(identifiers)
    for cell in notebook["cells"]:
        assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", cell["id"])
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            ast.parse("".join(cell["source"]))


# ---------------------------------------------------------------------------------- sizes


def test_sizes_above_the_limits_are_lowered_and_others_stay():
    from planil_jax import experiment

    asked = experiment.for_method("mpail", seeds=5)
    small = sizes.shrink(asked)
    assert small.seeds == 5  # names of the members are made before sizes are lowered
    assert small.loop.num_envs == sizes.MOST["num_envs"]
    assert small.agent.planner.samples == sizes.MOST["samples"]
    assert small.agent.value.hidden == (sizes.MOST["hidden"],) * len(
        asked.agent.value.hidden
    )
    assert small.run.total_steps == 2 * small.loop.steps_per_epoch
    assert small.agent.planner.noise == asked.agent.planner.noise
    assert sizes.shrink(small) == small
