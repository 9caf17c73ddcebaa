"""An experiment: an environment, a method and its settings; and how it is built."""

import contextlib
import dataclasses
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from planil_jax import config, envs, registry
from planil_jax.base import (
    Agent,
    Demonstrations,
    Dynamics,
    Environment,
    Needs,
    Task,
    UsageError,
    printable,
)
from planil_jax.data.demos import require_actions, require_length
from planil_jax.envs import engines as physics
from planil_jax.losses.adversarial import BIASES
from planil_jax.models import simulator
from planil_jax.training import loop as training_loop
from planil_jax.training import run as training_run


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that `config.json` of a run directory holds."""

    imports: tuple[str, ...] = ()  # modules that register your methods or environments
    module: str = ""  # module of the method, where it is not registered
    method: str = "mpail"  # method, a name of `planil methods`
    environment: str = "navigation"  # a name of `planil envs`, maybe with options
    # Environments, maybe with options, whose physics planners roll forward; a plan is
    # scored on all of them. Empty: the environment's prior, or else its physics.
    model: tuple[str, ...] = ()
    # what steps MuJoCo's models, where the names of environments leave it open: c is MuJoCo
    # in C, mjx is MuJoCo in JAX, auto is c on a CPU; a run holds which one it became
    engine: Literal["auto", "c", "mjx"] = "auto"
    demonstrations: str = ""  # fingerprint of the file of demonstrations, filled in
    # how many of the demonstrated episodes to use; None: all
    episodes: config.Count | None = None
    seed: config.Seed = 0  # the first seed
    seeds: config.Count = 1  # number of seeds, trained side by side
    sweep: tuple[str, ...] = ()  # settings tried side by side, "agent.FIELD=NUMBER,NUMBER"
    agent: Any = field(default_factory=lambda: registry.method("mpail").config)
    loop: training_loop.Config = field(default_factory=training_loop.Config)
    run: training_run.Config = field(default_factory=training_run.Config)


def for_method(method: str, **fields: Any) -> Experiment:
    """An experiment with a method and its default settings, where `fields` sets no others.

    Raises:
      UsageError: there is no such method.
    """
    config = registry.method(method).config
    return Experiment(method=method, **({"agent": config} | fields))


def needs(settings: Experiment) -> Needs:
    """What the method of an experiment needs and can do."""
    return registry.method(settings.method).needs(settings.agent)


def from_config_dict(settings: Mapping[str, Any]) -> Experiment:
    """The experiment of a nested mapping; fields that it lacks keep their defaults.

    The "version" of a saved configuration is no field, and left out.

    Raises:
      UsageError: the method, a field or a module to import is unknown, or a value is of
        the wrong type.
    """
    fields = {name: settings[name] for name in settings if name != "version"}
    method = str(fields.get("method", "mpail"))
    for module in modules(settings):
        _import(module)
    if settings.get("module"):
        if method not in registry.methods():
            registry.register_agent(method, settings["module"])
    return config.from_config_dict(fields, for_method(method))


def modules(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The modules outside this package that `from_config_dict` would import."""
    of_method = (settings["module"],) if settings.get("module") else ()
    imports = settings.get("imports", ())
    if isinstance(imports, str) or not isinstance(imports, Sequence):
        raise UsageError(
            f"imports must be names of modules, not {printable(repr(imports))}."
        )
    return (*imports, *of_method)


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"imports names the module {module!r}, but {error}; run from the directory "
            "that holds it, or put that on PYTHONPATH."
        ) from None


def override(settings: Experiment, text: str) -> Experiment:
    """The experiment with other values in the fields that a text names.

    Args:
      text: "agent.learning_rate=1e-3,loop.num_envs=1"; empty: nothing is changed.

    Raises:
      UsageError: the text is not of that form, or as for `config.from_config_dict`.
    """
    for item in text.split(",") if text else []:
        settings = config.override(settings, item)
    return settings


def with_value(settings: Experiment, path: str, value: Any) -> Experiment:
    """The experiment with another value in one field.

    Args:
      path: "loop.num_envs", "agent.planner.horizon", or in short "planner.horizon", a
        field of the method.

    Raises:
      UsageError: there is no such field, or the value is of the wrong type or range.
    """
    first, dot, _ = path.partition(".")
    of_experiment = first in {field.name for field in dataclasses.fields(settings)}
    is_group = of_experiment and dataclasses.is_dataclass(getattr(settings, first))
    if not of_experiment or (dot and not is_group):
        path = f"agent.{path}"
    return config.set_path(settings, path, value)


def to_json(settings: Experiment) -> str:
    """The experiment as indented JSON, with the version of the configuration first."""
    versioned = {"version": config.VERSION} | json.loads(config.to_json(settings))
    return json.dumps(versioned, indent=2) + "\n"


def from_json(text: str) -> Experiment:
    """Reads what `to_json` wrote of an experiment.

    Raises:
      UsageError: it is of another version, as for `from_config_dict`, or the text is no
        JSON object.
    """
    plain = config.parse_json(text)
    config.require_version(plain, "the run")
    return from_config_dict(plain)


def make_agent(experiment: Experiment, env: Environment, demos: Demonstrations) -> Agent:
    """The method of an experiment, for its environment and its demonstrations.

    Raises:
      UsageError: the method is not for such an environment, or needs what the
        demonstrations do not hold.
    """
    require_env(experiment, env)
    _check(experiment, demos, env)
    method = registry.method(experiment.method)
    return method.make(make_task(experiment, env, demos), experiment.agent)


def make_env(settings: Experiment) -> Environment:
    """The environment of an experiment, on its engine.

    Raises:
      UsageError: as for `registry.make_env`.
    """
    return registry.make_env(on_engine(settings.environment, settings.engine))


def require_engine(settings: Experiment, env: Environment) -> None:
    """Refuses an environment that is stepped by another engine than its experiment.

    Raises:
      UsageError: it is.
    """
    if settings.engine != "auto" and env.engine not in (None, settings.engine):
        raise UsageError(
            f"the engine is {settings.engine}, but the environment {env.spec.name} was "
            f"made with engine={env.engine}: make it with engine={settings.engine}."
        )


def on_engine(name: str, engine: str) -> str:
    """An environment's name, with the engine as an option where that is needed.

    It is where the environment has a choice, its name does not choose, and "auto" would
    choose another one here.
    """
    if engine == "auto" or physics.resolve(name, "auto") == engine:
        return name
    registry.environments()  # those of other packages are there then
    return envs.with_option(name, "engine", engine)


def make_task(experiment: Experiment, env: Environment, demos: Demonstrations) -> Task:
    """The task that the agent of an experiment is made for."""
    return Task(
        spec=env.spec,
        dynamics=make_model(experiment, env),
        observed=demos.observed,
        num_envs=experiment.loop.num_envs,
        recover=env.recover,
    )


def require_env(experiment: Experiment, env: Environment) -> None:
    """Refuses a method in an environment that it is not for.

    Raises:
      UsageError: what it cannot do there, with those that can.
    """
    method, need = experiment.method, needs(experiment)
    if env.spec.image and not need.pixels:
        raise UsageError(
            f"{method} reads vectors, but {experiment.environment} shows pictures: leave "
            f"its option pixels out, or choose one of {', '.join(_that_can('pixels'))}."
        )
    if env.spec.discrete and not need.discrete:
        raise UsageError(
            f"{method} acts continuously, but {experiment.environment} takes "
            f"{env.spec.action_form}: leave its option choices out, or choose one of "
            f"{', '.join(_that_can('discrete'))}."
        )


def _check(experiment: Experiment, demos: Demonstrations, env: Environment) -> None:
    """Refuses demonstrations that a method cannot learn from."""
    method, need = experiment.method, needs(experiment)
    if not need.demonstrations:
        return
    require_length(demos, need.sequence, method)
    if len(demos.length) < need.episodes:
        raise UsageError(
            f"{method} with these settings needs at least {need.episodes} episodes, but "
            f"the demonstrations hold {len(demos.length)}: record more."
        )
    if need.actions:
        require_actions(demos, method)
    if need.full_observations and len(demos.observed) < env.spec.observation_size:
        raise UsageError(
            f"{method} needs whole observations, but these demonstrations hold "
            f"{len(demos.observed)} of {env.spec.observation_size} entries: choose a "
            "method such as gaifo."
        )


def engines() -> str:
    """The methods that learn from a task's reward, for a sentence."""
    return ", ".join(
        m.name for m in _sound_methods() if not m.needs(m.config).demonstrations
    )


def _that_can(what: str) -> list[str]:
    """Names of the methods that have a capability, a field of `Needs`, by default."""
    return [m.name for m in _sound_methods() if getattr(m.needs(m.config), what)]


def _sound_methods() -> list[registry.Method]:
    """All methods but those of others that cannot be used."""
    found = []
    for name in registry.methods():
        with contextlib.suppress(UsageError):
            found.append(registry.method(name))
    return found


def config_warnings(experiment: Experiment, env: Environment) -> list[str]:
    """Notes for the user before training starts."""
    reward = getattr(experiment.agent, "reward", "logit")
    if env.spec.terminates and reward in BIASES:
        return [
            f"note: {env.spec.name} can end early, and agent.reward={reward} "
            f"{BIASES[reward]}; agent.reward=logit does neither"
        ]
    return []


def make_model(experiment: Experiment, env: Environment) -> Dynamics:
    """The model that planners roll forward.

    Raises:
      UsageError: a model takes other actions than the environment.
    """
    names = [on_engine(name, experiment.engine) for name in experiment.model]
    models = [envs.make(name) for name in names]
    for name, model in zip(experiment.model, models, strict=True):
        if model.spec.action_form != env.spec.action_form:
            raise UsageError(
                f"model {name} takes {model.spec.action_form}, but "
                f"{experiment.environment} takes {env.spec.action_form}: choose a model "
                "that takes the same, with the option choices or without."
            )
    if len(models) > 1:
        return simulator.members(models)
    return simulator.make(models[0]) if models else simulator.prior_or_physics(env)
