"""What an experiment is: an environment, a method, and how long; and how it is built."""

from dataclasses import dataclass, field

from planil_jax import envs
from planil_jax.agents import mpail, scripted
from planil_jax.base import Agent, Demonstrations, Environment, UsageError
from planil_jax.models import simulator
from planil_jax.planners import mppi
from planil_jax.training import loop as training_loop
from planil_jax.training import run as training_run


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that `config.json` of a run directory holds."""

    environment: str = "navigation"  # a name of envs.names()
    demonstrations: str = ""  # digest of the file, filled in by train
    seed: int = 0  # the first; --seed
    seeds: int = 1  # how many, trained side by side; --seeds
    agent: mpail.Config = field(default_factory=mpail.Config)
    loop: training_loop.Config = field(default_factory=training_loop.Config)
    run: training_run.Config = field(default_factory=training_run.Config)


# Settings of the scripted demonstrator by environment; elsewhere scripted.Config's own.
EXPERTS: dict[str, scripted.Config] = {
    "navigation": scripted.Config(
        temperature=0.01,
        planner=mppi.Config(samples=1024, horizon=20, iterations=3, noise=(0.3,)),
    ),
    "pendulum": scripted.Config(
        temperature=0.1,
        planner=mppi.Config(samples=256, horizon=30, iterations=3, noise=(1.0,)),
    ),
}


def make_agent(experiment: Experiment, env: Environment, demos: Demonstrations) -> Agent:
    """The method of an experiment, for its environment and its demonstrations."""
    return mpail.make(
        env.spec,
        simulator.prior_or_physics(env),
        experiment.agent,
        experiment.loop.environments,
        demos.entries,
    )


def make_expert(environment: str, env: Environment) -> Agent:
    """The scripted demonstrator of an environment."""
    config = EXPERTS.get(environment, scripted.Config())
    return scripted.make(env, simulator.prior_or_physics(env), config)


def make_field(environment: str, side: float, episode_length: int) -> Environment:
    """The same task, started anywhere on a square field, with time enough to get there.

    Args:
      side: metres.
      episode_length: control steps.

    Raises:
      UsageError: the environment has no field.
    """
    try:
        env = envs.make(
            environment, start="field", field=side, episode_length=episode_length
        )
        if env.success is None:
            raise UsageError(f"environment {environment!r} has no success.")
        return env
    except UsageError:
        raise UsageError(
            f"environment {environment!r} has no field of starts (options start, field and "
            "episode_length of its make function, and a success); leave --field out."
        ) from None
