"""`make(name, **options)` and the table behind it, open to packages outside this one."""

import difflib
import inspect
from collections.abc import Callable

from planil_jax.base import Environment, UsageError

_MAKERS: dict[str, Callable[..., Environment]] = {}


def register(name: str, make_fn: Callable[..., Environment]) -> None:
    """Adds an environment under a name of your choice.

    Args:
      name: what `--config.environment` will say.
      make_fn: builds the environment from keyword options, all of them with defaults.

    Raises:
      ValueError: the name is taken by another function.
    """
    if _MAKERS.get(name, make_fn) is not make_fn:
        raise ValueError(f"an environment named {name!r} is registered already")
    _MAKERS[name] = make_fn


def names() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted(_MAKERS))


def make(name: str, **options) -> Environment:
    """Builds a registered environment.

    Raises:
      UsageError: the name or an option is unknown; the message lists what there is.
    """
    if name not in _MAKERS:
        near = difflib.get_close_matches(name, _MAKERS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"no environment {name!r}.{hint} There are: {', '.join(names())}.")
    known = inspect.signature(_MAKERS[name]).parameters
    open_ended = any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()
    )
    for option in options:
        if option not in known and not open_ended:
            raise UsageError(
                f"environment {name!r} has no option {option!r}. It has: "
                f"{', '.join(known) or 'none'}."
            )
    return _MAKERS[name](**options)
