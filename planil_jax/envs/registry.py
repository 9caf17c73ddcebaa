"""`make(name, **options)` and the table of makers, which other packages can extend.

A name may carry options, so that one string specifies a task:
"navigation:steering_gain=0.45,start=field". A name that ends in `/*` stands for a family:
for "brax/hopper" the maker of `brax/*` is called with "hopper" as its first argument.

Every environment also takes the options of WRAPPERS, in its name or as keywords:

    action_repeat      control steps for which one action is applied; default 1
    observe            indices of the observation entries to keep, as in "0+1+4"
    action_delay       control steps until an action takes effect; default 0
    tremble            probability of a random action in place of the chosen one; default 0
    choices            number of discrete actions in place of a continuous one
    observation_noise  standard deviation of Gaussian noise on every entry; default 0
    pixels             side of the image that replaces the observation, in pixels

The order in the name does not matter: the wrapper that is first in this list is innermost.
If an environment has an option of the same name, the environment takes it.

A wrapper may have keyword arguments. They are options too, and need the wrapper's own
option beside them: "pendulum:pixels=64,frames=2".
"""

import ast
import functools
import importlib
import inspect
import re
import typing
from collections.abc import Callable
from typing import Any

import jax

from planil_jax.base import Environment, UsageError, did_you_mean
from planil_jax.envs import pixels, wrappers
from planil_jax.envs.checks import check_functions, check_spec

Maker = Callable[..., Environment]
# Option of every environment -> its wrapper and the value that means "no wrapper".
# A model may have the environment's first wrappers and lack the last ones. So wrappers that
# a model is often made without come last.
WRAPPERS: dict[str, tuple[Callable[..., Environment], Any]] = {
    "action_repeat": (wrappers.action_repeat, 1),
    "observe": (lambda env, observed: wrappers.mask(env, _entries(env, observed)), ""),
    "action_delay": (wrappers.action_delay, 0),
    "tremble": (wrappers.tremble, 0.0),
    "choices": (wrappers.choices, 0),
    "observation_noise": (wrappers.observation_noise, 0.0),
    "pixels": (pixels.wrap, 0),
}
_OF_ENTRIES = ("observe", "observation_noise")  # wrappers that images do not allow
OBJECT = "object/"  # before the names of environments that are held as objects
_MAKERS: dict[str, Maker | str] = {}
_ABOUT: dict[str, str] = {}


def register(name: str, make_fn: Maker | str, about: str = "") -> None:
    """Adds an environment, or a family of them, under a name of your choice.

    Args:
      name: the name for `make`; without ":", "," and "=".
      make_fn: builds the environment from keyword options, all of them with defaults. The
        maker of a family takes the rest of the name as its first argument. A string
        "package.module:function" is imported at the first use.

    Raises:
      ValueError: the name belongs to another function, or contains ":", "," or "=".
    """
    if any(mark in name for mark in ":,="):
        raise ValueError(f"{name!r} cannot name an environment: ':,=' mark options")
    if not _same(_MAKERS.get(name, make_fn), make_fn):
        raise ValueError(f"an environment named {name!r} is registered already")
    _MAKERS[name] = make_fn
    _ABOUT[name] = about


def hold(env: Environment) -> str:
    """A name for an environment that is an object, in this process.

    It replaces an environment of the same name.

    Raises:
      UsageError: its names, bounds, times or functions make no environment.
    """
    if not isinstance(env, Environment):
        raise UsageError(f"env must be a name or an Environment, not {env!r}.")
    check_spec(env.spec)
    check_functions(env)
    name = OBJECT + re.sub(r"[:,=\s]+", "_", env.spec.name)
    _MAKERS[name] = lambda: env
    return name


def holds(name: str) -> bool:
    """Whether an environment is held under this name."""
    return name.startswith(OBJECT) and name in _MAKERS


def names() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted(name for name in _MAKERS if not name.startswith(OBJECT)))


def about(name: str) -> str:
    """One line about a registered environment; "" where none was given."""
    return _ABOUT.get(name, "")


def with_option(name: str, option: str, value: str) -> str:
    """The name with an option more, if the environment has it and the name does not.

    Raises:
      UsageError: there is no such environment, or its options are not written as options.
    """
    base, _, text = name.partition(":")
    if base.startswith(OBJECT):
        return name
    make_fn = _load(_MAKERS[_find(base)])
    known = inspect.signature(make_fn).parameters
    if option not in known or option in _options(base, text):
        return name
    return f"{name}{',' if text else ':'}{option}={value}"


def make(name: str, **options: Any) -> Environment:
    """Builds a registered environment.

    Args:
      name: a registered name, with options or without.
      options: of the environment or of WRAPPERS. They override those in the name.

    Raises:
      UsageError: the name or an option is unknown, and the message lists the known ones;
        or an option has a wrong value, or the specification fails `check_spec`.
    """
    name, _, text = name.partition(":")
    registered = _find(name)
    make_fn = _load(_MAKERS[registered])
    parameters = dict(inspect.signature(make_fn, eval_str=True).parameters)
    task: tuple[str, ...] = ()
    if registered.endswith("/*"):
        task = (name.removeprefix(registered[:-1]),)
        parameters.pop(next(iter(parameters)))
    written = _options(name, text)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    shared = {o: p for o, p in _shared_options().items() if o not in parameters}
    for option in written | options:
        if option not in parameters and option not in shared and not takes_any:
            raise UsageError(
                f"environment {name!r} has no option {option!r}."
                f"{did_you_mean(option, [*parameters, *shared])} It has: "
                f"{', '.join(parameters) or 'none'}; and as every environment: "
                f"{', '.join(shared)}."
            )
    known = shared | parameters
    values = {
        option: _value(name, option, text, known.get(option))
        for option, text in written.items()
    } | options
    env = make_fn(*task, **{o: v for o, v in values.items() if o not in shared})
    if not isinstance(env, Environment):
        raise UsageError(
            f"environment {name!r}: its function must return an Environment, not a "
            f"{type(env).__name__}."
        )
    check_spec(env.spec)
    return _wrap(name, _precise(env), {o: v for o, v in values.items() if o in shared})


def _precise(env: Environment) -> Environment:
    """The environment with physics whose matrix products keep all digits of float32.

    A GPU by default rounds the factors to ten bits. Networks are not affected.
    """

    def in_float32(function: Callable) -> Callable:
        @functools.wraps(function)
        def precise(*args: Any) -> Any:
            with jax.default_matmul_precision("highest"):
                return function(*args)

        return precise

    prior = env.prior and env.prior._replace(step=in_float32(env.prior.step))
    return env._replace(
        reset=in_float32(env.reset),
        step=in_float32(env.step),
        prior=prior,
        recover=env.recover and in_float32(env.recover),
    )


def _wrap(name: str, env: Environment, values: dict[str, Any]) -> Environment:
    """The environment in the wrappers that these options ask for."""
    chosen = {o: v for o, v in values.items() if o in WRAPPERS and v != WRAPPERS[o][1]}
    of_entries = [option for option in _OF_ENTRIES if option in chosen]
    if "pixels" in chosen and of_entries:
        raise UsageError(
            f"environment {name!r}: option {of_entries[0]} needs an observation with "
            "entries, and an image has none: leave out that option or pixels."
        )
    for option, (wrapper, _) in WRAPPERS.items():
        details = {d: values[d] for d in _details(wrapper) if d in values}
        if option in chosen:
            env = wrapper(env, chosen[option], **details)
        elif details:
            raise UsageError(
                f"environment {name!r}: option {next(iter(details))} needs option {option} "
                "beside it."
            )
    return env


def _shared_options() -> dict[str, inspect.Parameter]:
    """The options of every environment."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    shared = {
        option: inspect.Parameter(option, keyword, default=absent)
        for option, (_, absent) in WRAPPERS.items()
    }
    for wrapper, _ in WRAPPERS.values():
        shared |= _details(wrapper)
    return shared


def _details(wrapper: Callable[..., Environment]) -> dict[str, inspect.Parameter]:
    """The keyword arguments of a wrapper."""
    parameters = inspect.signature(wrapper, eval_str=True).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}


def _same(one: Maker | str, other: Maker | str) -> bool:
    """Whether two makers are the same: equal, or defined on the same line of a file.

    A file that is run twice defines its function twice.
    """
    origins = [
        (code.co_filename, code.co_firstlineno, code.co_name)
        for code in (getattr(maker, "__code__", None) for maker in (one, other))
        if code
    ]
    return one == other or (len(origins) == 2 and origins[0] == origins[1])


def _find(name: str) -> str:
    """The registered name or family whose maker makes `name`."""
    if name in _MAKERS and not name.endswith("/*"):
        return name
    parts = name.split("/")
    for count in range(len(parts) - 1, 0, -1):
        family = "/".join(parts[:count]) + "/*"
        if family in _MAKERS and len(name) > len(family) - 1:
            return family
    hint = did_you_mean(name, _MAKERS)
    raise UsageError(
        f"no environment {name!r}.{hint} There are: {', '.join(names())}. One of your own "
        "needs pj.register_env in every process, or an entry point of planil_jax.envs."
    )


def _load(make_fn: Maker | str) -> Maker:
    """The maker itself; a string is imported."""
    if not isinstance(make_fn, str):
        return make_fn
    module, _, function = make_fn.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        if module.startswith("planil_jax."):
            raise
        raise UsageError(
            f"an environment is registered as {make_fn!r}, which cannot be had ({error}): "
            'write "package.module:function".'
        ) from error


def _options(name: str, text: str) -> dict[str, str]:
    """Options and values of "option=value,option=value"."""
    written: dict[str, str] = {}
    for item in filter(None, text.split(",")):
        option, equals, value = item.partition("=")
        if not equals:
            raise UsageError(
                f"environment {name!r}: write its options as option=value, not {item!r}."
            )
        if option in written:
            raise UsageError(
                f"environment {name!r}: option {option} is given twice, as "
                f"{written[option]} and as {value}: leave one out."
            )
        written[option] = value
    return written


def _entries(env: Environment, observed: Any) -> tuple[int, ...]:
    """The indices that the text "0+1+4" lists; a sequence of indices stays as it is."""
    if not isinstance(observed, str):
        return tuple(observed)
    try:
        return tuple(int(entry) for entry in observed.split("+"))
    except ValueError:
        raise UsageError(
            f"environment {env.spec.name!r}: option observe must be indices joined by '+', "
            f"as in observe=0+1, not {observed!r}."
        ) from None


def _value(name: str, option: str, text: str, parameter: inspect.Parameter | None) -> Any:
    """The text as the type of the option's default, or of its annotation `T | None`."""
    default = parameter.default if parameter else None
    if default is None and text.lower() == "none":
        return None
    wanted = type(default)
    if default is None:
        hints = set(typing.get_args(parameter.annotation)) if parameter else set()
        wanted = next(iter(hints - {type(None)}), type(None))
    if wanted is str:
        return text
    try:
        value = ast.literal_eval(text.capitalize() if wanted is bool else text)
    except (ValueError, SyntaxError):
        value = text
    if wanted is float and type(value) is int:
        value = float(value)
    if wanted is not type(None) and type(value) is not wanted:
        raise UsageError(
            f"environment {name!r}: option {option} must be {wanted.__name__}, "
            f"not {text!r}."
        )
    return value
