"""Who drives when demonstrations or films are made: a scripted expert, or a trained run.

Where an environment shows pictures, both may read the state that they show; where it takes
choices, a run that acts continuously takes the nearest.
"""

from typing import NamedTuple

import jax
import numpy as np

from planil_jax import envs, experiment, runs
from planil_jax.base import Agent, Environment, Params, Transition, UsageError
from planil_jax.envs import wrappers
from planil_jax.reporting import renderer
from planil_jax.training import loop, run

_OF_PICTURES = ("pixels", "frames", "camera")
_OF_CHOICES = ("choices",)


class Driver(NamedTuple):
    """Who drives, and where."""

    env: Environment
    agent: Agent
    params: Params
    name: str  # of the expert


def scripted(environment: str) -> Driver:
    """The scripted expert of an environment, there."""
    env = envs.make(environment)
    if env.spec.image:
        within = envs.make(unseen(environment))
        expert = privileged(experiment.make_expert(environment, within))
    else:
        expert = experiment.make_expert(environment, env)
    return Driver(env, expert, (), "scripted MPPI")


def first_member(trained: runs.Run, environment: str | None = None) -> Driver:
    """The first member of a run.

    Args:
      environment: where; None: where it was trained.

    Raises:
      UsageError: the environment is of other sizes than where it was trained.
    """
    own, params = jax.tree.map(lambda leaf: leaf[0], (trained.settings, trained.params))
    agent = trained.make_agent(trained.env, own)
    env = envs.make(environment) if environment else trained.env
    if environment:
        seen = bool(env.spec.image and not trained.env.spec.image)
        chosen = env.spec.discrete and not trained.env.spec.discrete
        foreign = _OF_PICTURES * seen + _OF_CHOICES * chosen
        _require_same(trained.env, envs.make(without(environment, foreign)))
        agent = privileged(agent) if seen else agent
        agent = choosing(agent, trained.env, env.spec.action_size) if chosen else agent
    name = f"{trained.experiment.method} after {trained.step} steps"
    return Driver(env, agent, params, name)


def drive(
    driver: Driver, keys: jax.Array, sight: renderer.RenderSpec | None = None
) -> tuple[Transition, np.ndarray]:
    """An episode a key `[N]`: transitions `[N, L]`, and whether they belong to it `[N, L]`.

    Args:
      sight: what MuJoCo's renderer draws; observations `[P]` then tell where bodies are.
    """
    env, agent = driver.env, driver.agent
    if sight:
        env, agent = renderer.placed(env, sight), privileged(agent)
    driven = jax.jit(lambda params, keys: loop.evaluate(agent, env, params, keys))
    return jax.device_get(driven(driver.params, keys))


def returns(driver: Driver, keys: jax.Array) -> np.ndarray:
    """What an episode of each key returns, `[N]`."""

    def driven(params, keys):
        return run.mean_return(driver.agent, driver.env, keys[None], params)

    return jax.device_get(jax.jit(jax.vmap(driven, (None, 0)))(driver.params, keys))


def privileged(expert: Agent) -> Agent:
    """An expert that reads, where pictures are shown, the state that they show."""

    def act(params, carry, state, key, explore):
        return expert.act(params, carry, state.sim.inner, key, explore)

    return expert._replace(act=act)


def choosing(expert: Agent, env: Environment, count: int) -> Agent:
    """An expert of `env`, who takes the nearest of so many choices."""
    nearest = wrappers.nearest(env.spec, count)

    def act(params, carry, state, key, explore):
        action, carry = expert.act(params, carry, state, key, explore)
        return nearest(action), carry

    return expert._replace(act=act)


def unseen(environment: str) -> str:
    """The name of an environment without what is said of pictures."""
    return without(environment, _OF_PICTURES)


def without(environment: str, foreign: tuple[str, ...]) -> str:
    """The name of an environment without some of its options."""
    name, _, options = environment.partition(":")
    kept = [
        option
        for option in options.split(",")
        if option and option.partition("=")[0] not in foreign
    ]
    return ":".join([name, *([",".join(kept)] if kept else [])])


def _require_same(trained: Environment, other: Environment) -> None:
    """Refuses an environment that an expert of another cannot drive in."""
    for what in ("observation_names", "action_low", "action_high"):
        if getattr(trained.spec, what) != getattr(other.spec, what):
            raise UsageError(
                f"--env={other.spec.name} has other {what.replace('_', ' ')} than "
                f"{trained.spec.name}, where --run was trained: give one with the same."
            )
