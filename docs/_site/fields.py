"""Griffe extension: this package's style of comments and docstrings.

The comment at a field is its documentation; an argument "low, high: …" is two.
"""

import importlib.util
import re
import textwrap
from pathlib import Path
from types import ModuleType

import griffe

ROOT = Path(__file__).parents[2]
_SHARED = re.compile(r"^( +)(\w+)((?:, \w+)+): ((?:.*\n)(?:\1 .*\n?)*)", re.MULTILINE)


def _comments() -> ModuleType:
    """The module `planil_jax.comments` of this checkout, without its package."""
    path = ROOT / "planil_jax" / "comments.py"
    spec = importlib.util.spec_from_file_location("_planil_comments", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Fields(griffe.Extension):
    """Reads comments at fields, and arguments that share their text."""

    def __init__(self) -> None:
        self._of_fields = _comments().of_fields

    def on_class_members(self, *, cls: griffe.Class, **kwargs) -> None:
        """Called when a class and its members were read from the source."""
        try:
            found = self._of_fields(textwrap.dedent(cls.source))
        except SyntaxError:  # no whole class, as of one that was made by a call
            return
        for name, meaning in found.items():
            member = cls.members.get(name)
            if meaning and member and member.docstring is None:
                member.docstring = griffe.Docstring(meaning, parent=member)

    def on_function_instance(self, *, func: griffe.Function, **kwargs) -> None:
        """Called when a function was read from the source."""
        if func.docstring:
            func.docstring.value = _SHARED.sub(_one_by_one, func.docstring.value + "\n")


def _one_by_one(shared: re.Match) -> str:
    """The first argument with the text, and the others beside it."""
    indent, first, others, text = shared.groups()
    names = others.removeprefix(", ").split(", ")
    return f"{indent}{first}: {text}" + "".join(
        f"{indent}{name}: together with `{first}`.\n" for name in names
    )
