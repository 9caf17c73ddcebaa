"""`make(name, **options)` and the table behind it, open to packages outside this one.

A name may carry options, so that one string says which task it is:
"navigation:steering_gain=0.45,start=field". A name that ends in "/*" stands for a family:
"brax/*" makes "brax/hopper" by calling its function with "hopper" first.
"""

import ast
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from planil_jax.base import Environment, UsageError, did_you_mean

Maker = Callable[..., Environment]
_MAKERS: dict[str, Maker | str] = {}


def register(name: str, make_fn: Maker | str) -> None:
    """Adds an environment, or a family of them, under a name of your choice.

    Args:
      name: what `--config.environment` will say; without ":", "," and "=".
      make_fn: builds the environment from keyword options, all of them with defaults; of a
        family, from the rest of the name and options. As a string "package.module:function"
        it is imported when it is first used.

    Raises:
      ValueError: the name is taken by another function, or cannot be a name.
    """
    if any(mark in name for mark in ":,="):
        raise ValueError(
            f"{name!r} cannot name an environment: ':', ',' and '=' mark options"
        )
    if _MAKERS.get(name, make_fn) != make_fn:
        raise ValueError(f"an environment named {name!r} is registered already")
    _MAKERS[name] = make_fn


def names() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted(_MAKERS))


def make(name: str, **options: Any) -> Environment:
    """Builds a registered environment.

    Args:
      name: a registered name, with options of its own or without.
      options: go before those in the name.

    Raises:
      UsageError: the name or an option is unknown; the message lists what there is.
    """
    name, _, text = name.partition(":")
    registered = _find(name)
    make_fn = _load(_MAKERS[registered])
    parameters = dict(inspect.signature(make_fn).parameters)
    task: tuple[str, ...] = ()
    if registered.endswith("/*"):
        task = (name.removeprefix(registered[:-1]),)
        parameters.pop(next(iter(parameters)))
    written = dict(_split(name, item) for item in text.split(",") if item)
    open_ended = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    for option in written | options:
        if option not in parameters and not open_ended:
            raise UsageError(
                f"environment {name!r} has no option {option!r}."
                f"{did_you_mean(option, parameters)} It has: "
                f"{', '.join(parameters) or 'none'}."
            )
    given = {
        option: _value(name, option, value, _default(parameters, option))
        for option, value in written.items()
    }
    return make_fn(*task, **(given | options))


def _find(name: str) -> str:
    """The registered name, or the family, that makes `name`."""
    if name in _MAKERS and not name.endswith("/*"):
        return name
    parts = name.split("/")
    for count in range(len(parts) - 1, 0, -1):
        family = "/".join(parts[:count]) + "/*"
        if family in _MAKERS and len(name) > len(family) - 1:
            return family
    hint = did_you_mean(name, _MAKERS)
    raise UsageError(f"no environment {name!r}.{hint} There are: {', '.join(names())}.")


def _load(make_fn: Maker | str) -> Maker:
    if not isinstance(make_fn, str):
        return make_fn
    module, _, function = make_fn.partition(":")
    return getattr(importlib.import_module(module), function)


def _split(name: str, item: str) -> tuple[str, str]:
    option, equals, value = item.partition("=")
    if not equals:
        raise UsageError(
            f"environment {name!r}: write its options as option=value, not {item!r}."
        )
    return option, value


def _default(parameters: dict[str, inspect.Parameter], option: str) -> Any:
    return parameters[option].default if option in parameters else None


def _value(name: str, option: str, text: str, default: Any) -> Any:
    """The text as the type of the option's default."""
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval(text.capitalize() if isinstance(default, bool) else text)
    except (ValueError, SyntaxError):
        value = None
    wanted = float if isinstance(default, float) else type(default)
    if wanted is float and type(value) is int:
        value = float(value)
    if wanted is not type(None) and type(value) is not wanted:
        raise UsageError(
            f"environment {name!r}: option {option} must be {wanted.__name__}, "
            f"not {text!r}."
        )
    return value
