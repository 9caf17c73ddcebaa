"""What an experiment is: an environment, a method, and how long; and how it is built."""

import ast
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from planil_jax import config, envs, registry
from planil_jax.base import (
    Agent,
    Demonstrations,
    Dynamics,
    Environment,
    Needs,
    Task,
    UsageError,
)
from planil_jax.data.demos import require_actions, require_length
from planil_jax.losses.adversarial import BIASES
from planil_jax.models import simulator
from planil_jax.training import loop as training_loop
from planil_jax.training import run as training_run


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that `config.json` of a run directory holds."""

    imports: tuple[str, ...] = ()  # modules of yours that register what is named below
    method: str = "mpail"  # a name of registry.agents()
    environment: str = "navigation"  # a name of envs.names(), maybe with options
    # What planners roll forward. Empty: the environment's prior, or else its own physics.
    # Names of environments, maybe with options: their physics; of several, each plan is
    # tried on all.
    model: tuple[str, ...] = ()
    demonstrations: str = ""  # digest of the file, filled in by train
    episodes: int = 0  # of the demonstrations, the first so many; 0: all
    seed: int = 0  # the first; --seed
    seeds: int = 1  # how many, trained side by side; --seeds
    sweep: tuple[str, ...] = ()  # settings tried side by side; --sweep
    agent: Any = field(default_factory=lambda: registry.method("mpail").config)
    loop: training_loop.Config = field(default_factory=training_loop.Config)
    run: training_run.Config = field(default_factory=training_run.Config)


def for_method(method: str, **fields: Any) -> Experiment:
    """An experiment with a method and, unless told otherwise, its default settings.

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

    Raises:
      UsageError: the method, a field or a module to import is unknown, or a value is of
        the wrong type.
    """
    frozen = config.from_config_dict(
        settings, for_method(str(settings.get("method", "mpail")))
    )
    for module in frozen.imports:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"imports names the module {module!r}, but {error}; run from the directory "
                "that holds it, or put that on PYTHONPATH."
            ) from None
    return frozen


def override(settings: Experiment, text: str) -> Experiment:
    """The experiment with other values in the fields that a text names.

    Args:
      text: "agent.learning_rate=1e-3,loop.num_envs=1"; empty: nothing is changed.

    Raises:
      UsageError: the text is not of that form, or as for `freeze`.
    """
    for item in text.split(",") if text else []:
        path, _, written = item.partition("=")
        try:
            value = ast.literal_eval(written)
        except (SyntaxError, ValueError):
            value = written
        nested: Any = value
        for name in reversed(path.split(".")):
            nested = {name: nested}
        settings = config.from_config_dict(nested, settings)
    return settings


def from_json(text: str) -> Experiment:
    """Reads what `config.to_json` wrote of an experiment.

    Raises:
      UsageError: as for `freeze`, or the text is no JSON object.
    """
    return from_config_dict(config.parse_json(text))


def make_agent(experiment: Experiment, env: Environment, demos: Demonstrations) -> Agent:
    """The method of an experiment, for its environment and its demonstrations.

    Raises:
      UsageError: the method is not for such an environment, or needs what the
        demonstrations do not hold.
    """
    _check(experiment, env, demos)
    method = registry.method(experiment.method)
    return method.make(make_task(experiment, env, demos), experiment.agent)


def make_task(experiment: Experiment, env: Environment, demos: Demonstrations) -> Task:
    """What the agent of an experiment is made for."""
    return Task(
        spec=env.spec,
        dynamics=make_model(experiment, env),
        observed=demos.observed,
        num_envs=experiment.loop.num_envs,
        recover=env.recover,
    )


def _check(experiment: Experiment, env: Environment, demos: Demonstrations) -> None:
    """Refuses a method in an environment, or with demonstrations, that it is not for."""
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
    if not need.demonstrations:
        return
    require_length(demos, need.sequence, method)
    if need.actions:
        require_actions(demos, method)
    if need.full_observations and len(demos.observed) < env.spec.observation_size:
        raise UsageError(
            f"{method} needs whole observations, but these demonstrations hold "
            f"{len(demos.observed)} of {env.spec.observation_size} entries: choose a "
            "method such as gaifo."
        )


def engines() -> str:
    """The methods that learn from a task's own reward, for a sentence."""
    methods = map(registry.method, registry.agents())
    return ", ".join(
        each.name for each in methods if not each.needs(each.config).demonstrations
    )


def _that_can(what: str) -> list[str]:
    """Names of the methods that have a capability, a field of `Needs`, by default."""
    methods = map(registry.method, registry.agents())
    return [each.name for each in methods if getattr(each.needs(each.config), what)]


def config_warnings(experiment: Experiment, env: Environment) -> list[str]:
    """What a user should know before training starts."""
    reward = getattr(experiment.agent, "reward", "logit")
    if env.spec.terminates and reward in BIASES:
        return [
            f"note: {env.spec.name} can end early, and agent.reward={reward} "
            f"{BIASES[reward]}; agent.reward=logit does neither"
        ]
    return []


def make_model(experiment: Experiment, env: Environment) -> Dynamics:
    """What planners roll forward.

    Raises:
      UsageError: a model takes other actions than the environment.
    """
    models = [envs.make(name) for name in experiment.model]
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
