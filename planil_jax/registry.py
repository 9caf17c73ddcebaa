"""Methods and environments by name; a method is imported when it is first used.

A method is a module with `Config`, `NEEDS` and `make`, and maybe `shows`:

    Config                      a frozen dataclass with a default in every field
    NEEDS                       a `base.Needs`, or a function (config) -> Needs
    make(task, config)          -> `base.Agent`
    shows(task, config)         -> `base.Shows`, for reports

Those of this package are named here. Others come by `register_agent`, or by an entry point
of the group "planil_jax.agents" whose name is the method's and whose value is the module.
Environments come by `envs.register`, or by the group "planil_jax.envs", whose value is
"package.module:function".
"""

import dataclasses
import functools
import importlib
import sys
from importlib import machinery, metadata, util
from types import ModuleType
from typing import Any, NamedTuple

from planil_jax import envs
from planil_jax.base import (
    Agent,
    Environment,
    Needs,
    Shows,
    Task,
    UsageError,
    did_you_mean,
    printable,
)
from planil_jax.config import differences, document

AGENTS = "planil_jax.agents"  # groups of entry points
ENVS = "planil_jax.envs"
_REQUIRED = ("Config", "NEEDS", "make")


class Method(NamedTuple):
    """A method as the registry knows it."""

    name: str
    module: ModuleType
    config: Any  # its default settings

    def needs(self, config: Any) -> Needs:
        """What it needs and can do under these settings."""
        needs = self.module.NEEDS
        found = needs(config) if callable(needs) else needs
        if not isinstance(found, Needs):
            raise UsageError(
                f"method {self.name!r}: NEEDS of {self.module.__name__} must be a Needs, "
                f"or a function (config) -> Needs, not {found!r}."
            )
        return found

    def make(self, task: Task, config: Any) -> Agent:
        """The agent of a task."""
        agent = self.module.make(task, config)
        if not isinstance(agent, Agent):
            raise UsageError(
                f"method {self.name!r}: make(task, config) of {self.module.__name__} must "
                f"return an Agent, not {agent!r}."
            )
        reads_rewards = agent.reads_rewards or not self.needs(config).demonstrations
        return agent._replace(reads_rewards=reads_rewards)

    def shows(self, task: Task, config: Any) -> Shows:
        """The parts of a trained agent that a report can show."""
        shows = getattr(self.module, "shows", None)
        found = Shows() if shows is None else shows(task, config)
        if not isinstance(found, Shows):
            raise UsageError(
                f"method {self.name!r}: shows(task, config) of {self.module.__name__} must "
                f"return a Shows, not {found!r}."
            )
        return found


class _Row(NamedTuple):
    module: str | ModuleType
    config: Any  # a config, a function that makes one, or None: the module's default


# Variants of a module differ by their default settings, as the function here makes them.
_ROWS: dict[str, _Row] = {}


def register_agent(
    name: str, module: str | ModuleType, *, config: Any | None = None
) -> None:
    """Adds a method under a name of your choice.

    Args:
      name: what `train` and `--method` will say.
      module: with `Config`, `NEEDS` and `make`, or its dotted name, which is imported when
        the method is first used.
      config: its default settings, or a function of the module that makes them; None:
        `Config()`.

    Raises:
      UsageError: there is no such module, or it is loaded and lacks a part.
      ValueError: the name is taken by another method, or cannot be a name.
    """
    if not (isinstance(name, str) and name.isprintable() and name and "/" not in name):
        raise ValueError(f"{name!r} cannot name a method: a word without '/'")
    there = _ROWS.get(name)
    if there and _module_name(there.module) != _module_name(module):
        raise ValueError(f"a method named {name!r} is registered already")
    _check_agent(name, module)
    _ROWS[name] = _Row(module, config)
    method.cache_clear()


def register_env(name: str, make_fn: Any, about: str = "") -> None:
    """Adds an environment under a name of your choice; see `envs.register`.

    Raises:
      UsageError: it is neither a function nor the text "package.module:function", or there
        is no such module.
      ValueError: as for `envs.register`.
    """
    if isinstance(make_fn, str):
        module, _, function = make_fn.partition(":")
        if not (module and function.isidentifier()):
            raise UsageError(
                f"environment {name!r} is registered as {make_fn!r}: write "
                '"package.module:function".'
            )
        _require_module(f"environment {name!r}", module)
    elif not callable(make_fn):
        raise UsageError(
            f"environment {name!r} is registered as {make_fn!r}: give a function that "
            'returns an Environment, or its name, "package.module:function".'
        )
    envs.register(name, make_fn, about)


def methods() -> tuple[str, ...]:
    """The names of all methods, those of this package first."""
    _read_entry_points()
    return tuple(_ROWS)


def environments() -> tuple[str, ...]:
    """The names of all environments, sorted; one that ends in "/*" is a family."""
    _read_entry_points()
    return envs.names()


def make_env(name: str, **options: Any) -> Environment:
    """An environment by its name.

    `name:option=value` equals `make_env(name, option=value)`.

    Raises:
      UsageError: the name or an option is unknown.
    """
    _read_entry_points()
    return envs.make(name, **options)


@functools.cache
def method(name: str) -> Method:
    """The method of a name.

    Raises:
      UsageError: there is none, its module cannot be imported, or it lacks a part.
    """
    if name not in methods():
        raise UsageError(
            f"no method '{printable(name)}'.{did_you_mean(name, methods())} "
            f"There are: {', '.join(methods())}."
        )
    row = _ROWS[name]
    module = row.module
    if isinstance(module, str):
        try:
            module = importlib.import_module(module)
        except ImportError as error:
            raise UsageError(
                f"method {name!r} is the module {row.module!r}, which cannot be imported: "
                f"{error}."
            ) from error
    _check_parts(name, module)
    config = row.config
    try:
        if config is None:
            config = module.Config()
        elif isinstance(config, str):
            config = getattr(module, config)()
    except (TypeError, AttributeError) as error:
        raise UsageError(
            f"method {name!r}: its default settings cannot be made ({error}); Config of "
            f"{module.__name__} must be a dataclass with a default in every field."
        ) from error
    document(module.Config)
    return Method(name, module, config)


def variant(name: str) -> str:
    """The function of its module that makes a variant's settings; "" for a plain method."""
    config = _ROWS[name].config
    return config if isinstance(config, str) else ""


def method_of(config: Any) -> str:
    """The name of the method whose settings these are.

    Of several variants of a module it is the one with the nearest default settings.

    Raises:
      UsageError: no registered method has such settings.
    """

    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise UsageError(
            f"method must be a name or settings, such as mpail.Config(), not {config!r}."
        )

    def changes(name: str) -> int:
        return len(differences(method(name).config, config))

    # A module whose settings somebody made is imported.
    loaded = [name for name in methods() if _module_name(_ROWS[name].module) in sys.modules]
    found = [name for name in loaded if method(name).module.Config is type(config)]
    if found:
        return min(found, key=changes)
    raise UsageError(
        f"no method has settings of the class {type(config).__module__}."
        f"{type(config).__qualname__}; register its module by register_agent."
    )


def foreign_module(name: str) -> str:
    """The module of a method that another process would not know by its name; or "".

    The methods of this package and of entry points are known everywhere.
    """
    module = _module_name(method(name).module)
    known = {point.name for point in metadata.entry_points(group=AGENTS)}
    return "" if module.startswith("planil_jax.") or name in known else module


@functools.cache
def _read_entry_points() -> None:
    for point in metadata.entry_points(group=AGENTS):
        _ROWS.setdefault(point.name, _Row(point.value, None))
    for point in metadata.entry_points(group=ENVS):
        if point.name not in envs.names():
            envs.register(point.name, point.value)


def _check_agent(name: str, module: Any) -> None:
    """Refuses what is known not to be an agent's module, without importing anything."""
    if isinstance(module, str):
        _require_module(f"method {name!r}", module)
        module = sys.modules.get(module)
    elif not isinstance(module, ModuleType):
        raise UsageError(
            f"method {name!r} is registered as {module!r}: give a module with Config, "
            "NEEDS and make(task, config), or its dotted name."
        )
    # A module that registers itself may define the rest below; so may a script.
    spec = getattr(module, "__spec__", None)
    if spec is not None and not getattr(spec, "_initializing", False):
        _check_parts(name, module)


def _check_parts(name: str, module: Any) -> None:
    missing = [part for part in _REQUIRED if not hasattr(module, part)]
    if missing:
        raise UsageError(
            f"method {name!r}: the module {module.__name__} lacks {' and '.join(missing)}; "
            "an agent is a module with Config, NEEDS and make(task, config)."
        )
    for part in ("Config", "make", "shows"):
        found = getattr(module, part, None)
        if not callable(found) and (found is not None or part != "shows"):
            raise UsageError(
                f"method {name!r}: {part} of {module.__name__} must be "
                f"{'a class' if part == 'Config' else 'a function'}, not {found!r}."
            )


def _require_module(who: str, module: str) -> None:
    """Refuses the name of a module that cannot be found; the module is not imported."""
    if module in sys.modules:
        return
    first, *rest = module.split(".")
    try:
        found = util.find_spec(first)
    except (ImportError, ValueError):
        found = None
    for depth, _ in enumerate(rest):
        folders = found and found.submodule_search_locations
        path = ".".join([first, *rest[: depth + 1]])
        found = machinery.PathFinder.find_spec(path, folders) if folders else None
    if found is None:
        raise UsageError(
            f"{who} is the module {module!r}, which cannot be found: install it, run from "
            "the directory that holds it, or put that on PYTHONPATH."
        )


def _module_name(module: str | ModuleType) -> str:
    return module if isinstance(module, str) else getattr(module, "__name__", repr(module))


for _name in ("mpail", "mpail2", "iqmpc", "mail", "cmil", "bc", "ppo", "sac", "tdmpc2"):
    _ROWS[_name] = _Row(f"planil_jax.agents.{_name}", None)
for _name in ("gaifo", "gail", "airl", "irl_mpc"):
    _ROWS[_name] = _Row("planil_jax.agents.adversarial", _name)
_ROWS["mpail_om"] = _Row("planil_jax.agents.mpail", "learned_model")
_ROWS["vmail"] = _Row("planil_jax.agents.cmil", "vmail")
