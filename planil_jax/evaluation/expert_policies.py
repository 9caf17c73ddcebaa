"""Expert policies, which record demonstrations and act in films.

An expert is scripted, or it is the policy of a trained run. In an environment that shows
pictures it may read the state behind them. In an environment of choices a continuous policy
takes the choice that is nearest to its action.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax import envs, experiment, runs
from planil_jax.agents import scripted
from planil_jax.base import (
    Agent,
    Environment,
    EnvState,
    Params,
    Transition,
    UsageError,
)
from planil_jax.envs import wrappers
from planil_jax.planners import mppi
from planil_jax.training import loop, run
from planil_jax.training.report import Report

if TYPE_CHECKING:
    from planil_jax.envs.mujoco_renderer import RenderSpec

_PIXEL_OPTIONS = ("pixels", "frames", "camera")
_CHOICE_OPTIONS = ("choices",)

# Settings of the scripted planner by environment; others take the defaults of
# `scripted.Config`.
EXPERTS: dict[str, scripted.Config] = {
    "navigation": scripted.Config(
        temperature=0.01,
        planner=mppi.Config(samples=1024, horizon=20, iterations=3, noise=(0.3,)),
    ),
    "pendulum": scripted.Config(
        temperature=0.1,
        planner=mppi.Config(samples=256, horizon=30, iterations=3, noise=(1.0,)),
    ),
    "playground/PendulumSwingup": scripted.Config(
        temperature=0.05,
        keep_plan=True,
        planner=mppi.Config(
            samples=256,
            horizon=40,
            iterations=4,
            elites=16,
            sampling="gaussian",
            noise=(1.0,),
            adapt_std=True,
            min_std=0.05,
        ),
    ),
    "playground/CartpoleSwingup": scripted.Config(
        planner=mppi.Config(samples=256, horizon=25, iterations=2)
    ),
}
EXPERTS["navigation_mjx"] = EXPERTS["navigation"]

# Where actions are choices, smooth noise is of no use.
DISCRETE_EXPERT = scripted.Config(
    planner=mppi.Config(
        samples=256, horizon=30, iterations=3, sampling="gaussian", noise=(0.5,)
    )
)


class ExpertPolicy(NamedTuple):
    """A policy, and the environment in which it acts."""

    env: Environment
    agent: Agent
    params: Params
    name: str  # for the card of demonstrations


def make_expert(
    environment: str, env: Environment, settings: scripted.Config | None = None
) -> Agent:
    """The scripted expert of an environment: its script, or a planner.

    Args:
      environment: the name of `env`, which chooses the planner's settings of EXPERTS.
      settings: of the planner, in place of those; the environment's script is then left.
    """
    script = env.demonstrator
    if script is not None and settings is None:
        return _fixed(lambda state, key: script(state))
    if settings is None:
        settings = EXPERTS.get(environment.partition(":")[0], scripted.Config())
        settings = DISCRETE_EXPERT if env.spec.discrete else settings
    return scripted.make(env, env.prior if env.expert_cost else None, settings)


def make_random(env: Environment) -> Agent:
    """The policy whose actions are uniform between the bounds."""
    low, high = jnp.asarray(env.spec.action_low), jnp.asarray(env.spec.action_high)
    return _fixed(lambda _, key: jax.random.uniform(key, low.shape, low.dtype, low, high))


def scripted_expert(
    environment: str, settings: scripted.Config | None = None
) -> ExpertPolicy:
    """The scripted expert of an environment, which acts there.

    Args:
      settings: as for `make_expert`.
    """
    env = envs.make(environment)
    if env.spec.image:
        state_env = envs.make(without_pixels(environment))
        expert = privileged(make_expert(environment, state_env, settings))
    else:
        expert = make_expert(environment, env, settings)
    return ExpertPolicy(env, expert, (), "scripted MPPI")


def from_run(trained: runs.Run, environment: str | None = None) -> ExpertPolicy:
    """The policy of the first member of a run.

    Args:
      environment: where it acts; None: where it was trained.

    Raises:
      UsageError: the environment has other observations or actions than the one where the
        run was trained; or that member stopped, as it was not finite.
    """
    if sentence := runs.stops_by_member(trained).get(0):
        raise UsageError(f"{sentence} It cannot demonstrate: choose another run.")
    settings, params = jax.tree.map(
        lambda leaf: leaf[0], (trained.settings, trained.params)
    )
    agent = trained.make_agent(trained.env, settings)
    if environment:
        environment = experiment.on_engine(environment, trained.experiment.engine)
    env = envs.make(environment) if environment else trained.env
    if environment:
        to_pixels = bool(env.spec.image and not trained.env.spec.image)
        to_choices = env.spec.discrete and not trained.env.spec.discrete
        options = _PIXEL_OPTIONS * to_pixels + _CHOICE_OPTIONS * to_choices
        _require_same(trained.env, envs.make(without_options(environment, options)))
        agent = privileged(agent) if to_pixels else agent
        if to_choices:
            agent = nearest_choice(agent, trained.env, env.spec.action_size)
    name = f"{trained.experiment.method} after {trained.step} steps"
    return ExpertPolicy(env, agent, params, name)


def rollout(
    expert: ExpertPolicy,
    keys: jax.Array,
    render_spec: "RenderSpec | None" = None,
    report: Report | None = None,
) -> tuple[Transition, np.ndarray]:
    """One episode for each key `[N]`.

    Args:
      render_spec: what MuJoCo's renderer will draw; observations are then the positions
        `[P]` of the bodies.
      report: says how long it takes; None: nothing is said.

    Returns:
      Transitions `[N, L]`, and whether they belong to the episode, `[N, L]` bool.
    """
    env, agent = expert.env, expert.agent
    if render_spec:
        from planil_jax.envs import mujoco_renderer  # here: it imports MJX, in seconds

        env = mujoco_renderer.with_poses(env, render_spec)
        agent = privileged(agent)
    report = report or Report(console=False)
    run_all = jax.jit(lambda params, keys: loop.evaluate(agent, env, params, keys))
    with report.compiling("the expert"):
        program = run_all.lower(expert.params, keys).compile()
    episodes = f"{len(keys)} episodes in {env.spec.name}"
    with report.timed(f"recording {episodes}", f"recorded {episodes}"):
        return jax.device_get(program(expert.params, keys))


def returns(expert: ExpertPolicy, keys: jax.Array) -> np.ndarray:
    """The return of one episode for each key, `[N]`."""

    def return_of(params, key):
        return run.mean_return(expert.agent, expert.env, key[None], params)

    return jax.device_get(jax.jit(jax.vmap(return_of, (None, 0)))(expert.params, keys))


def privileged(agent: Agent) -> Agent:
    """An agent for a wrapped environment that reads the state inside the wrapper."""

    def act(params, carry, state, key, explore):
        return agent.act(params, carry, state.sim.inner, key, explore)

    return agent._replace(act=act)


def nearest_choice(agent: Agent, env: Environment, count: int) -> Agent:
    """A continuous agent of `env` that takes the nearest of `count` choices."""
    nearest = wrappers.nearest(env.spec, count)

    def act(params, carry, state, key, explore):
        action, carry = agent.act(params, carry, state, key, explore)
        return nearest(action), carry

    return agent._replace(act=act)


def without_pixels(environment: str) -> str:
    """The name of an environment without its options of pictures."""
    return without_options(environment, _PIXEL_OPTIONS)


def without_options(environment: str, names: tuple[str, ...]) -> str:
    """The name of an environment without the options of these names."""
    name, _, options = environment.partition(":")
    remaining = [
        option
        for option in options.split(",")
        if option and option.partition("=")[0] not in names
    ]
    return ":".join([name, *([",".join(remaining)] if remaining else [])])


def _fixed(action_fn: Callable[[EnvState, jax.Array], jax.Array]) -> Agent:
    """An agent that acts by `(state, key) -> action [U]` and never learns."""

    def act(params, carry, state: EnvState, key: jax.Array, explore: bool):
        return action_fn(state, key), carry

    return Agent(
        init=lambda key: (),
        carry=lambda: (),
        act=act,
        update=lambda state, *_: (state, {}),
    )


def _require_same(trained: Environment, other: Environment) -> None:
    """Refuses an environment in which a policy of `trained` cannot act."""
    for what in ("observation_names", "action_low", "action_high"):
        if getattr(trained.spec, what) != getattr(other.spec, what):
            raise UsageError(
                f"environment {other.spec.name!r} has other {what.replace('_', ' ')} than "
                f"{trained.spec.name!r}, where the run was trained: choose one that has "
                "the same."
            )
