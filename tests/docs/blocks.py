"""The blocks of code of a page: fenced ones of Markdown, and the cells of a notebook.

```python                      runs, in one namespace a page
```bash                        runs, by bash -e, in one directory a page
```python title="tug.py"       is written to that file, whatever its language
```python notest="a GPU"       does not run, for the reason that is given here,
<!-- not tested: a GPU -->     or by the line above it
```text                        is nothing to run, as any other language
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

RUNNABLE = ("python", "bash")
_FENCE = re.compile(r"( *)(`{3,}|~{3,}) *([\w+-]*)[ ]*(.*)")
_TITLE = re.compile(r'title="([^"]*)"')
_NOTEST = re.compile(r'\bnotest\b[=:]? ?"?([^"]*)')
_NOT_TESTED = re.compile(r"not tested\W*(.*?)\W*$", re.IGNORECASE)


class Block(NamedTuple):
    """A block of code."""

    line: int  # of its first line of code, from 1; of a notebook, the number of the cell
    language: str
    code: str
    info: str = ""  # what follows the language
    above: str = ""  # the nearest line above that is not empty

    @property
    def file(self) -> str:
        """The file that it is written to; "" for none."""
        title = _TITLE.search(self.info)
        return title[1] if title else ""

    @property
    def skipped(self) -> bool:
        """Whether it is marked so that it does not run."""
        return bool(_NOTEST.search(self.info))

    @property
    def reason(self) -> str:
        """Why it is skipped; "" where nothing says so."""
        marked = _NOTEST.search(self.info)
        above = _NOT_TESTED.search(self.above)
        return (marked[1].strip() if marked else "") or (above[1] if above else "")

    @property
    def runs(self) -> bool:
        """Whether a test does something with it."""
        return not self.skipped and (self.language in RUNNABLE or bool(self.file))


def read(page: Path) -> list[Block]:
    """The blocks of a page, in its order.

    Raises:
      ValueError: a block has no end.
    """
    text = page.read_text(encoding="utf-8")
    return of_notebook(text) if page.suffix == ".ipynb" else of_markdown(text, page.name)


def of_notebook(text: str) -> list[Block]:
    """The cells of code, numbered from 1 among all cells."""
    cells = enumerate(json.loads(text)["cells"], 1)
    return [
        Block(number, "python", "".join(cell["source"]))
        for number, cell in cells
        if cell["cell_type"] == "code"
    ]


def of_markdown(text: str, name: str = "the page") -> list[Block]:
    """The fenced blocks, also those that are indented below a list or a tab."""
    found: list[Block] = []
    lines = text.splitlines()
    above, at = "", 0
    while at < len(lines):
        opened = _FENCE.fullmatch(lines[at])
        at += 1
        if not opened:
            above = lines[at - 1].strip() or above
            continue
        indent, fence, language, info = opened.groups()
        start = at
        while at < len(lines) and not _closes(lines[at], fence):
            at += 1
        if at == len(lines):
            raise ValueError(f"{name}:{start}: this block has no end")
        code = "".join(line.removeprefix(indent) + "\n" for line in lines[start:at])
        found.append(Block(start + 1, language, code, info.strip(), above))
        above, at = "", at + 1
    return found


def _closes(line: str, fence: str) -> bool:
    """Whether a line is at least as many of the fence's characters, and nothing else."""
    text = line.strip()
    return len(text) >= len(fence) and set(text) == {fence[0]}
