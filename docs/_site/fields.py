"""Griffe extension: this package's style of comments and docstrings.

The comments at the fields of a class become the list of its attributes, with defaults; an
argument "low, high: …" is two.
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

    def on_class_members(self, *, cls: griffe.Class, agent, **kwargs) -> None:
        """Called when a class and its members were read from the source."""
        try:
            found = self._of_fields(textwrap.dedent(cls.source))
        except SyntaxError:  # no whole class, as of one that was made by a call
            return
        fields = [
            name for name in found if not name.startswith("_") and name in cls.members
        ]
        if not any(found[name] for name in fields):
            return
        lines = [f"    {name}: {_described(found[name], cls[name])}" for name in fields]
        text = f"{cls.docstring.value}\n\n" if cls.docstring else "Settings.\n\n"
        text += "\n".join(["Attributes:", *lines])
        cls.docstring = griffe.Docstring(
            text,
            parent=cls,
            parser=agent.docstring_parser,
            parser_options=agent.docstring_options,
        )

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


def _described(meaning: str, field: griffe.Attribute) -> str:
    """The meaning of a field and its default, if it has one."""
    if field.value is None:
        return meaning
    value = " ".join(str(field.value).split())
    factory = re.fullmatch(r"(?:dataclasses\.)?field\(default_factory=(.*)\)", value)
    if factory:
        meaning = meaning or "a group of settings"
        value = factory[1].removeprefix("lambda: ")
        value += "()" * (value == factory[1])
    return f"{meaning.rstrip('.')}; default `{value}`".removeprefix("; ")
