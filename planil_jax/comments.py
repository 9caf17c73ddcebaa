"""What the comments at the fields of a class say: the meaning of a setting or an array.

`--help`, `help()` and the documentation show it. Nothing but the standard library is
imported here, since the documentation is built without JAX.
"""

import ast
import itertools
import tokenize
from typing import NamedTuple


def of_fields(source: str) -> dict[str, str]:
    """The comments at the fields of a class, given its source.

    A comment stands behind a field, within the lines of its value, in deeper lines below
    it, or in the lines directly above it. Lines between two fields that both have a comment
    behind them continue the first, where they begin in lower case.
    """
    comments = _comment_lines(source)
    (class_,) = ast.parse(source).body
    assert isinstance(class_, ast.ClassDef)
    found: dict[str, list[str]] = {}
    before: list[str] = []  # of the field before
    end = class_.lineno  # of the field before
    for node in class_.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        above = _block(comments, range(node.lineno - 1, end, -1))[::-1]
        touching = len(above) == node.lineno - 1 - end
        end = node.end_lineno or node.lineno
        meaning = [comments[n].text for n in range(node.lineno, end + 1) if n in comments]
        level = [line.text for line in above if line.column <= node.col_offset]
        if touching:
            before += [line.text for line in above if line.column > node.col_offset]
        if touching and before and meaning and level and level[0][:1].islower():
            before += level
        else:
            meaning = level + meaning
        found[node.target.id] = before = meaning
    below = _block(comments, range(end + 1, source.count("\n") + 2))
    before += [line.text for line in below if line.column > class_.body[0].col_offset]
    return {name: " ".join(lines) for name, lines in found.items()}


class _Comment(NamedTuple):
    text: str
    column: int
    alone: bool  # on its line


def _comment_lines(source: str) -> dict[int, _Comment]:
    lines = source.splitlines()
    reader = iter(source.splitlines(keepends=True))
    return {
        token.start[0]: _Comment(
            token.string.lstrip("#").strip(),
            token.start[1],
            not lines[token.start[0] - 1][: token.start[1]].strip(),
        )
        for token in tokenize.generate_tokens(lambda: next(reader, ""))
        if token.type == tokenize.COMMENT and not token.string.startswith("# type:")
    }


def _block(comments: dict[int, _Comment], lines: range) -> list[_Comment]:
    """The comments that fill the first of these lines, up to the first other line."""
    alone = itertools.takewhile(lambda n: n in comments and comments[n].alone, lines)
    return [comments[n] for n in alone]
