"""Frozen dataclasses inside, ConfigDict on the command line, JSON in the run directory.

A config is a frozen dataclass whose fields are bool, int, float, str, tuples of these, or
further configs. Where a field may hold one of several configs (`agent: mpail.Config |
bc.Config`), the *template*, an instance, says which: its types at run time are walked.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar

import ml_collections

from planil_jax.base import UsageError, did_you_mean

Config = TypeVar("Config")
_NESTED = (Mapping, ml_collections.ConfigDict)


class Range(NamedTuple):
    """The values that a number may take."""

    low: float
    high: float = float("inf")
    above: bool = False  # whether `low` itself is excluded


Count: TypeAlias = Annotated[int, Range(1)]  # at least 1
Natural: TypeAlias = Annotated[int, Range(0)]  # 0 or more
Positive: TypeAlias = Annotated[float, Range(0.0, above=True)]
NonNegative: TypeAlias = Annotated[float, Range(0.0)]
Share: TypeAlias = Annotated[float, Range(0.0, 1.0)]  # of 0 to 1: shares, γ, λ, τ


def to_config_dict(config: Any) -> ml_collections.ConfigDict:
    """The config as a locked ConfigDict, for `config_flags` to override field by field."""
    return ml_collections.ConfigDict(_plain(config)).lock()


def from_config_dict(config_dict: Mapping[str, Any], template: Config) -> Config:
    """Rebuilds the template's dataclasses with the values of a nested mapping.

    A field that the mapping lacks keeps the template's value.

    Raises:
      UsageError: a field is unknown or holds a value of the wrong type.
    """
    return _rebuild(config_dict, template, "")


def to_json(config: Any) -> str:
    """The config as indented JSON; `from_json` reads it back."""
    return json.dumps(_plain(config), indent=2) + "\n"


def from_json(text: str, template: Config) -> Config:
    """Reads what `to_json` wrote, into the dataclasses of the template.

    Raises:
      UsageError: the text is not JSON, or as for `freeze`.
    """
    return from_config_dict(parse_json(text), template)


def parse_json(text: str) -> dict[str, Any]:
    """What `to_json` wrote, as nested dicts.

    Raises:
      UsageError: the text is no JSON object.
    """
    try:
        plain = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"the saved configuration is not JSON: {error}.") from None
    if not isinstance(plain, dict):
        raise UsageError(f"the saved configuration must be a JSON object, not {plain!r}.")
    return plain


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


def _plain(config: Any) -> dict[str, Any]:
    """The config as nested dicts; numbers take the type that their field declares."""
    plain = {}
    for name, hint, value in _fields(config):
        nested = dataclasses.is_dataclass(value)
        plain[name] = _plain(value) if nested else _leaf(value, hint, name)
    return plain


def _rebuild(mapping: Mapping[str, Any], template: Config, prefix: str) -> Config:
    fields = {name: (hint, default) for name, hint, default in _fields(template)}
    rebuilt = {}
    for name, value in mapping.items():
        path = prefix + name
        if name not in fields:
            raise UsageError(
                f"the configuration has no field {path}.{did_you_mean(name, fields)} "
                f"{prefix.rstrip('.') or 'It'} has: {', '.join(fields)}."
            )
        hint, default = fields[name]
        if not dataclasses.is_dataclass(default):
            rebuilt[name] = _leaf(value, hint, path)
        elif isinstance(value, _NESTED):
            rebuilt[name] = _rebuild(value, default, path + ".")
        else:
            raise UsageError(f"{path} must be a group of fields, not {value!r}.")
    return dataclasses.replace(template, **rebuilt)  # type: ignore[type-var]


def _fields(config: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields (name, type hint, value) of each field."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        yield field.name, hints[field.name], getattr(config, field.name)


def _leaf(value: Any, hint: Any, path: str) -> Any:
    """The value as the type `hint`: whole numbers become floats, lists become tuples."""
    if typing.get_origin(hint) is Annotated:
        return _leaf(value, typing.get_args(hint)[0], path)
    if typing.get_origin(hint) is Literal:
        if value in typing.get_args(hint):
            return value
        choices = ", ".join(map(repr, typing.get_args(hint)))
        raise UsageError(f"{path} is one of {choices}, not {value!r}.")
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        if value is None and type(None) in typing.get_args(hint):
            return None
        (hint,) = (each for each in typing.get_args(hint) if each is not type(None))
        return _leaf(value, hint, path)
    if typing.get_origin(hint) is tuple and isinstance(value, (tuple, list)):
        wanted = _element_hints(hint, len(value))
        if len(wanted) == len(value):
            pairs = enumerate(zip(value, wanted, strict=True))
            return tuple(_leaf(item, want, f"{path}[{i}]") for i, (item, want) in pairs)
    elif hint is float and type(value) is int:
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint):
        if hint is bool or not isinstance(value, bool):
            return value
    wanted_name = hint.__name__ if isinstance(hint, type) else hint
    raise UsageError(f"{path} must be {wanted_name}, not {value!r}.")


def _element_hints(hint: Any, length: int) -> tuple[Any, ...]:
    """The type of each element: of `tuple[float, ...]` as many as are asked for."""
    elements = typing.get_args(hint)
    return (elements[0],) * length if elements[-1:] == (...,) else elements
