"""`make(name, **options)` and the table behind it, open to packages outside this one.

A name may carry options, so that one string says which task it is:
"navigation:steering_gain=0.45,start=field". A name that ends in "/*" stands for a family:
"brax/*" makes "brax/hopper" by calling its function with "hopper" first.

Every environment also takes the options of WRAPPERS, in its name or as keywords:
"navigation:action_repeat=2,observation_noise=0.05,observe=0+1+4+5". Whatever their order
there, the wrapper named first in WRAPPERS lies innermost: actions are repeated, entries
chosen, actions delayed, the hand trembles, a few choices take the place of a continuous
action, the chosen entries become noisy, and last a picture takes the place of all entries.
An environment that has an option of such a name itself keeps it for itself.

A wrapper may have details, keyword arguments of its own, which are options as well but say
something only beside it: "pendulum:pixels=64,frames=2".
"""

import ast
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import jax

from planil_jax.base import Environment, UsageError, did_you_mean
from planil_jax.envs import pixels, wrappers

Maker = Callable[..., Environment]
# Option of every environment -> its wrapper and the value that stands for "no wrapper".
# A model of an environment can be told what its wrappers are as long as those are the
# first here, so what a model would rather not know comes last.
WRAPPERS: dict[str, tuple[Callable[..., Environment], Any]] = {
    "action_repeat": (wrappers.action_repeat, 1),
    "observe": (lambda env, observed: wrappers.mask(env, _entries(env, observed)), ""),
    "action_delay": (wrappers.action_delay, 0),
    "tremble": (wrappers.tremble, 0.0),
    "choices": (wrappers.choices, 0),
    "observation_noise": (wrappers.observation_noise, 0.0),
    "pixels": (pixels.wrap, 0),
}
_OF_ENTRIES = ("observe", "observation_noise")  # which a picture has not
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
        raise ValueError(f"{name!r} cannot name an environment: ':,=' mark options")
    if not _same(_MAKERS.get(name, make_fn), make_fn):
        raise ValueError(f"an environment named {name!r} is registered already")
    _MAKERS[name] = make_fn


def hold(name: str, env: Environment) -> None:
    """Adds an environment that is made already; it takes the place of an older one."""
    _MAKERS[name] = lambda: env


def names() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted(_MAKERS))


def maker(name: str) -> Maker | str:
    """What a registered name stands for: a make function, or "package.module:function"."""
    return _MAKERS[name]


def make(name: str, **options: Any) -> Environment:
    """Builds a registered environment.

    Args:
      name: a registered name, with options or without.
      options: of the environment or of WRAPPERS; they go before those in the name.

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
    offered = {o: d for o, d in _offered().items() if o not in parameters}
    for option in written | options:
        if option not in parameters and option not in offered and not open_ended:
            raise UsageError(
                f"environment {name!r} has no option {option!r}."
                f"{did_you_mean(option, [*parameters, *offered])} It has: "
                f"{', '.join(parameters) or 'none'}; and as every environment: "
                f"{', '.join(offered)}."
            )
    defaults = offered | {option: each.default for option, each in parameters.items()}
    given = {
        option: _value(name, option, value, defaults.get(option))
        for option, value in written.items()
    } | options
    env = make_fn(*task, **{o: v for o, v in given.items() if o not in offered})
    return _wrapped(name, _precise(env), {o: v for o, v in given.items() if o in offered})


def _precise(env: Environment) -> Environment:
    """Its physics in products of whole float32 numbers, of which a GPU by itself keeps ten
    bits; networks are not concerned."""

    def whole(function: Callable) -> Callable:
        @functools.wraps(function)
        def precise(*args: Any) -> Any:
            with jax.default_matmul_precision("highest"):
                return function(*args)

        return precise

    prior = env.prior and env.prior._replace(step=whole(env.prior.step))
    return env._replace(reset=whole(env.reset), step=whole(env.step), prior=prior)


def _wrapped(name: str, env: Environment, given: dict[str, Any]) -> Environment:
    """The environment within the wrappers that are asked for."""
    chosen = {o: v for o, v in given.items() if o in WRAPPERS and v != WRAPPERS[o][1]}
    blind = [option for option in _OF_ENTRIES if option in chosen]
    if "pixels" in chosen and blind:
        raise UsageError(
            f"environment {name!r}: option {blind[0]} is about entries of an observation, "
            "which a picture has not: leave out either it or pixels."
        )
    for option, (wrap, _) in WRAPPERS.items():
        details = {detail: given[detail] for detail in _details(wrap) if detail in given}
        if option in chosen:
            env = wrap(env, chosen[option], **details)
        elif details:
            raise UsageError(
                f"environment {name!r}: option {next(iter(details))} says something only "
                f"beside option {option}."
            )
    return env


def _offered() -> dict[str, Any]:
    """Options of every environment, and what they are unless they are given."""
    offered = {option: nothing for option, (_, nothing) in WRAPPERS.items()}
    for wrap, _ in WRAPPERS.values():
        offered |= _details(wrap)
    return offered


def _details(wrap: Callable[..., Environment]) -> dict[str, Any]:
    """The keyword arguments of a wrapper and their defaults."""
    parameters = inspect.signature(wrap).parameters.values()
    return {
        each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY
    }


def _same(one: Maker | str, other: Maker | str) -> bool:
    """Whether two makers are one; a file that is run twice defines its own anew."""
    places = [
        (code.co_filename, code.co_firstlineno, code.co_name)
        for code in (getattr(maker, "__code__", None) for maker in (one, other))
        if code
    ]
    return one == other or (len(places) == 2 and places[0] == places[1])


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


def _entries(env: Environment, observed: Any) -> tuple[int, ...]:
    """The indices in "0+1+4", or those given as a sequence."""
    if not isinstance(observed, str):
        return tuple(observed)
    try:
        return tuple(int(entry) for entry in observed.split("+"))
    except ValueError:
        raise UsageError(
            f"environment {env.spec.name!r}: option observe must be indices joined by '+', "
            f"as in observe=0+1, not {observed!r}."
        ) from None


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
