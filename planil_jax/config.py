"""Frozen dataclasses inside, ConfigDict on the command line, JSON in the run directory.

A config is a frozen dataclass whose fields are bool, int, float, str, tuples of these,
`Literal` choices, any of them `| None`, or further configs. Where a field may hold one of
several configs (`agent: mpail.Config | bc.Config`), the *template*, an instance, says
which: its types at run time are walked.

A range belongs to the type of a field (`batch: Count`), a rule over several fields to a
method `check(self)` of the dataclass, which raises UsageError. The comment at a field is
its meaning, which `describe` reads for `--help` and the documentation.
"""

import ast
import dataclasses
import functools
import inspect
import json
import math
import reprlib
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar

import jax
import ml_collections
from ml_collections import config_dict as ml_config_dict

from planil_jax import comments
from planil_jax.base import UsageError, did_you_mean, printable

VERSION = 2  # of the configurations that runs are saved with
Config = TypeVar("Config")
_NESTED = (Mapping, ml_collections.ConfigDict)


class Range(NamedTuple):
    """The values that a number may take."""

    low: float
    high: float = math.inf
    above: bool = False  # whether `low` itself is excluded
    below: bool = False  # whether `high` itself is excluded

    def __contains__(self, value: Any) -> bool:
        low_enough = self.low < value if self.above else self.low <= value
        return low_enough and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low, high = _number(self.low), _number(self.high)
        if not (self.above or self.below or math.isinf(self.high)):
            return f"from {low} to {high}"
        bottom = f"{'above' if self.above else 'at least'} {low}"
        top = f" and {'below' if self.below else 'at most'} {high}"
        return bottom + top * math.isfinite(self.high)


Count: TypeAlias = Annotated[int, Range(1)]  # at least 1
Natural: TypeAlias = Annotated[int, Range(0)]  # 0 or more
Positive: TypeAlias = Annotated[float, Range(0.0, above=True)]
NonNegative: TypeAlias = Annotated[float, Range(0.0)]
Share: TypeAlias = Annotated[float, Range(0.0, 1.0)]  # of 0 to 1: shares, γ, λ, τ
# A share that leaves something: dropout, momentum.
ShareBelow1: TypeAlias = Annotated[float, Range(0.0, 1.0, below=True)]
Seed: TypeAlias = Annotated[int, Range(0, 2**31 - 1)]  # each gives another key


class Field(NamedTuple):
    """A field of a config, described."""

    path: str  # "agent.planner.horizon"
    meaning: str  # the comment at the field, with its unit; "" without one
    kind: str  # its type with its range or choices, "whole number, at least 1"
    default: Any


def to_config_dict(config: Any) -> ml_collections.ConfigDict:
    """The config as a locked ConfigDict, for `config_flags` to override field by field.

    A field that may be None takes a value of any type from the command line, "None" too;
    `from_config_dict` checks it.
    """
    return ml_collections.ConfigDict(_plain(config, open_ended=True)).lock()


def from_config_dict(config_dict: Mapping[str, Any], template: Config) -> Config:
    """Rebuilds the template's dataclasses with the values of a nested mapping.

    A field that the mapping lacks keeps the template's value.

    Raises:
      UsageError: a field is unknown, or as for `check`.
    """
    rebuilt = _rebuild(config_dict, template, "")
    check(rebuilt)
    return rebuilt


def check(config: Any, prefix: str = "") -> None:
    """Refuses a value that its field does not take.

    Traced and other jax arrays, which a sweep puts into fields, are not looked at.

    Args:
      prefix: of the fields' names in messages, such as "agent.".

    Raises:
      UsageError: a value is of another type than its field, outside its range, not finite
        or none of its choices, or the dataclass's `check` refuses it.
    """
    for name, hint, value in _fields(config):
        if not isinstance(value, jax.Array):
            _leaf(value, hint, prefix + name)
        for path, item in _configs(value, prefix + name):
            check(item, path + ".")
    if hasattr(config, "check") and not _has_arrays(config):
        try:
            config.check()
        except UsageError as error:
            named = not prefix or str(error).startswith((prefix, "agent."))
            raise UsageError(str(error) if named else f"{prefix[:-1]}: {error}") from None


def describe(config: Any, prefix: str = "") -> list[Field]:
    """Every field of a config and of its groups: meaning, unit, range or choices, default.

    Args:
      prefix: of the fields' names, such as "agent.".
    """
    described: list[Field] = []
    for name, hint, value in _fields(config):
        if dataclasses.is_dataclass(value):
            described += describe(value, f"{prefix}{name}.")
        else:
            meaning = _meanings(type(config)).get(name, "")  # type: ignore[arg-type]
            described.append(Field(prefix + name, meaning, _kind(hint), value))
    return described


def document(kind: type) -> None:
    """Writes what `describe` says of a config into its docstring, once, for `help`."""
    written = kind.__doc__ or ""
    if "\nFields:\n" in written or not dataclasses.is_dataclass(kind):
        return
    missing = dataclasses.MISSING
    if any(f.default is f.default_factory is missing for f in dataclasses.fields(kind)):
        return
    if written.startswith(f"{kind.__name__}("):  # the signature, where a class has none
        written = "Settings."
    lines = [
        f"  {field.path} = {field.default!r}: {field.meaning} ({field.kind})"
        for field in describe(kind())  # type: ignore[operator]
    ]
    kind.__doc__ = "\n".join([inspect.cleandoc(written), "", "Fields:", *lines])


def to_json(config: Any) -> str:
    """The config as indented JSON; `from_json` reads it back."""
    return json.dumps(_plain(config), indent=2) + "\n"


def from_json(text: str, template: Config) -> Config:
    """Reads what `to_json` wrote, into the dataclasses of the template.

    Raises:
      UsageError: the text is not JSON, or as for `from_config_dict`.
    """
    return from_config_dict(parse_json(text), template)


def parse_json(text: str) -> dict[str, Any]:
    """What `to_json` wrote, as nested dicts.

    Raises:
      UsageError: the text is no JSON object, or gives a field twice.
    """
    try:
        plain = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise UsageError("the saved configuration is nested too deeply.") from None
    except ValueError as error:  # a number of thousands of digits is one, too
        reason = printable(str(error))
        raise UsageError(f"the saved configuration is not JSON: {reason}.") from None
    if not isinstance(plain, dict):
        raise UsageError(
            f"the saved configuration must be a JSON object, not {_written(plain)}."
        )
    return plain


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if (twice := repeated(pairs)) is not None:
        raise UsageError(f"the saved configuration gives {twice} twice.")
    return dict(pairs)


def repeated(pairs: list[tuple[str, Any]]) -> str | None:
    """The first name that an object of JSON gives twice, as messages show it.

    JSON keeps the last one in silence.
    """
    if len(dict(pairs)) == len(pairs):
        return None
    names = [name for name, _ in pairs]
    return next(printable(name) for name in names if names.count(name) > 1)


def require_version(plain: Mapping[str, Any], where: str) -> None:
    """Refuses a saved configuration of another version.

    Args:
      plain: the configuration as nested dicts, with its "version"; version 1 had none.
      where: what it was read from, for the sentence.

    Raises:
      UsageError: it is of another version.
    """
    version = plain.get("version", 1)
    if version != VERSION:
        age, mend = (
            ("an older", "train it again")
            if version == 1
            else ("another", "use the version that wrote it")
        )
        raise UsageError(
            f"{where} was written by {age} version of planil_jax and cannot be read "
            f"(configuration {_written(version)}, not {VERSION}); {mend}."
        )


def checked(value: Any, hint: Any, name: str) -> Any:
    """The value of an argument, as a field of this type takes it.

    Args:
      hint: such as `Count`.
      name: of the argument, for the sentence.

    Raises:
      UsageError: it is of another type or outside its range.
    """
    return _leaf(value, hint, name)


def set_path(config: Config, path: str, value: Any) -> Config:
    """The config with another value in the field that a dotted path names.

    Raises:
      UsageError: as for `from_config_dict`.
    """
    nested: Any = value
    for name in reversed(path.split(".")):
        nested = {name: nested}
    return from_config_dict(nested, config)


def override(config: Config, text: str) -> Config:
    """The config with what a text "agent.planner.horizon=12" says.

    Raises:
      UsageError: as for `assignment` and `from_config_dict`.
    """
    return set_path(config, *assignment(text))


def assignment(text: str) -> tuple[str, Any]:
    """The path and the value of a text "agent.planner.horizon=12".

    The value is a Python literal, or else text: None, 1e-3, (64, 64), relu.

    Raises:
      UsageError: the text is of another form.
    """
    path, equals, written = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} is not of the form PATH=VALUE.")
    try:
        return path.strip(), ast.literal_eval(written)
    except (SyntaxError, ValueError):
        return path.strip(), written


def differences(there: Any, here: Any) -> list[str]:
    """One line for each field in which two configs differ.

    Each reads "agent.planner.horizon: 10 there, 12 here"; a field that one side lacks,
    because another class holds that node, is "absent".
    """
    theirs, ours = dict(leaves(_plain(there))), dict(leaves(_plain(here)))
    lines = []
    for field in theirs | ours:
        pair = [repr(side[field]) if field in side else "absent" for side in (theirs, ours)]
        if pair[0] != pair[1]:
            lines.append(f"{field}: {pair[0]} there, {pair[1]} here")
    return lines


def leaves(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields ("agent.planner.horizon", value) for each value of a nested mapping."""
    for name, value in nested.items():
        if isinstance(value, _NESTED):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


# ------------------------------------------------------------------------- configs walked


def _fields(config: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields (name, type hint, value) of each field."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        yield field.name, hints[field.name], getattr(config, field.name)


def _has_arrays(config: Any) -> bool:
    """Whether a sweep has put a jax array into a field, of the config or of its groups."""
    values = [value for _, _, value in _fields(config)]
    return any(isinstance(value, jax.Array) for value in values) or any(
        _has_arrays(item) for value in values for _, item in _configs(value, "")
    )


def _configs(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The configs in a field: its value, or elements of a tuple."""
    if dataclasses.is_dataclass(value):
        yield path, value
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _configs(item, f"{path}[{i}]")


def _plain(config: Any, open_ended: bool = False) -> dict[str, Any]:
    """The config as nested dicts; numbers take the type that their field declares.

    Args:
      open_ended: whether a field that may be None is a reference that takes any type.
    """
    plain: dict[str, Any] = {}
    for name, hint, value in _fields(config):
        if dataclasses.is_dataclass(value):
            plain[name] = _plain(value, open_ended)
            continue
        plain[name] = _leaf(value, hint, name)
        if open_ended and _optional(hint):
            plain[name] = ml_config_dict.FieldReference(plain[name], field_type=object)
    return plain


def _rebuild(mapping: Mapping[str, Any], template: Config, prefix: str) -> Config:
    fields = {name: (hint, default) for name, hint, default in _fields(template)}
    rebuilt = {}
    for name, value in mapping.items():
        path = prefix + name
        if name not in fields:
            raise UsageError(
                f"the configuration has no field {printable(path)}."
                f"{did_you_mean(printable(name), fields)} "
                f"{prefix.rstrip('.') or 'It'} has: {', '.join(fields)}."
            )
        hint, default = fields[name]
        if isinstance(value, _NESTED) and default is None:
            default = _default_group(hint)
        if not dataclasses.is_dataclass(default) or (value is None and _optional(hint)):
            rebuilt[name] = _leaf(value, hint, path)
        elif isinstance(value, _NESTED):
            rebuilt[name] = _rebuild(value, default, path + ".")
        else:
            raise UsageError(f"{path} must be a group of fields, not {_written(value)}.")
    return dataclasses.replace(template, **rebuilt)  # type: ignore[type-var]


def _default_group(hint: Any) -> Any:
    """The config that a group has which was None, where its type leaves no choice."""
    groups = [kind for kind in typing.get_args(hint) if dataclasses.is_dataclass(kind)]
    return groups[0]() if len(groups) == 1 else None  # type: ignore[operator]


def _leaf(value: Any, hint: Any, path: str) -> Any:
    """The value as the type `hint`: whole numbers become floats, lists become tuples."""
    if typing.get_origin(hint) is Annotated:
        hint, *notes = typing.get_args(hint)
        return _within(_leaf(value, hint, path), notes, path)
    if hint is Any:
        return value
    if typing.get_origin(hint) is Literal:
        if any(
            value == choice and type(value) is type(choice) for choice in _choices(hint)
        ):
            return value
        raise UsageError(f"{path} is one of {_listed(hint)}, not {_written(value)}.")
    if _is_union(hint):
        return _one_of(value, hint, path)
    if typing.get_origin(hint) is tuple and isinstance(value, (tuple, list)):
        wanted = _element_hints(hint, len(value))
        if len(wanted) == len(value):
            pairs = enumerate(zip(value, wanted, strict=True))
            return tuple(_leaf(item, want, f"{path}[{i}]") for i, (item, want) in pairs)
    elif hint is float and _is_number(value):
        return _finite(value, path)
    elif isinstance(hint, type) and isinstance(value, hint):
        if hint is bool or not isinstance(value, bool):
            return value
    raise UsageError(f"{path} must be {_type_name(hint)}, not {_written(value)}.")


def _one_of(value: Any, hint: Any, path: str) -> Any:
    """The value as one of the types of a union."""
    if value is None and _optional(hint):
        return None
    wanted = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    refusals = []
    for kind in wanted:
        try:
            return _leaf(value, kind, path)
        except UsageError as error:
            refusals.append(str(error))
    if len(refusals) == 1:
        raise UsageError(refusals[0].replace(", not ", ", or None, not ", 1))
    groups = dict.fromkeys(map(_type_name, filter(dataclasses.is_dataclass, wanted)))
    kind = " or ".join(groups) if len(groups) == len(wanted) else _kind(hint)
    raise UsageError(f"{path} must be {kind}, not {_written(value)}.")


def _within(value: Any, notes: list[Any], path: str) -> Any:
    for range_ in notes:
        if isinstance(range_, Range) and value not in range_:
            raise UsageError(f"{path} must be {range_}, not {_number(value)}.")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _finite(value: float, path: str) -> float:
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise UsageError(f"{path} must be a finite number, not {number}.")
    return number


def _is_union(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union


def _optional(hint: Any) -> bool:
    return _is_union(hint) and type(None) in typing.get_args(hint)


def _element_hints(hint: Any, length: int) -> tuple[Any, ...]:
    """The type of each element: of `tuple[float, ...]` as many as are asked for."""
    elements = typing.get_args(hint)
    return (elements[0],) * length if elements[-1:] == (...,) else elements


# --------------------------------------------------------------------- what a field means


def _choices(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint)


def _listed(hint: Any) -> str:
    return ", ".join(map(repr, _choices(hint)))


def _type_name(hint: Any) -> str:
    if dataclasses.is_dataclass(hint):  # most are called Config: "mppi.Config"
        return f"{hint.__module__.rpartition('.')[2]}.{hint.__qualname__}"  # type: ignore
    return hint.__name__ if isinstance(hint, type) else str(hint)


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 80
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxdict = 12


def _written(value: Any) -> str:
    """A value in a message, shortened; a config by its class."""
    is_config = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return _type_name(type(value)) if is_config else _BRIEF.repr(value)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


_KINDS = {int: "whole number", float: "number", bool: "true or false", str: "text"}


def _kind(hint: Any) -> str:
    """The type of a field with its range or choices, in words."""
    if typing.get_origin(hint) is Annotated:
        hint, *notes = typing.get_args(hint)
        ranges = [str(note) for note in notes if isinstance(note, Range)]
        return ", ".join([_kind(hint), *ranges])
    if typing.get_origin(hint) is Literal:
        return f"one of {_listed(hint)}"
    if _is_union(hint):
        kinds = [_kind(item) for item in typing.get_args(hint) if item is not type(None)]
        return ", or ".join(kinds + ["None"] * _optional(hint))
    if typing.get_origin(hint) is tuple:
        elements = typing.get_args(hint)
        if elements[-1:] == (...,):
            return f"several, each: {_kind(elements[0])}"
        return f"{len(elements)}: " + "; ".join(map(_kind, elements))
    return _KINDS.get(hint, "group of fields" if dataclasses.is_dataclass(hint) else "any")


@functools.cache
def _meanings(kind: type) -> dict[str, str]:
    """The comment at each field of a dataclass, as one line; empty without a source."""
    meanings: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            try:
                source = textwrap.dedent(inspect.getsource(base))
            except (OSError, TypeError):
                continue
            meanings |= comments.of_fields(source)
    return meanings
