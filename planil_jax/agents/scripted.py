"""The scripted demonstrator: MPPI on the task's own cost; learns nothing.

Source: Han et al. 2025, MPAIL, arXiv 2507.21533: the expert has 1024 samples and H = 20.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.base import Agent, Dynamics, Environment, EnvState, Params, Plan, UsageError
from planil_jax.models import foresight, simulator
from planil_jax.planners import mppi


@dataclass(frozen=True, kw_only=True)
class Config:
    planner: mppi.Config = field(
        default_factory=lambda: mppi.Config(samples=1024, horizon=20, iterations=2)
    )
    temperature: float = 0.1  # in units of cost
    keep_plan: bool = False  # the plan so far competes: steadier where all noise is worse


@struct.dataclass
class State:
    params: Params  # of the planner's model


def make(env: Environment, dynamics: Dynamics | None, config: Config) -> Agent:
    """An agent that minimises `env.expert_cost`.

    Args:
      dynamics: what it plans with. None: the environment's own physics, whose reward it
        maximises where there is no `expert_cost`.

    Raises:
      UsageError: there is no such cost, and a model does not tell of rewards.
    """
    if env.expert_cost is None:
        if dynamics is not None:
            raise UsageError(
                f"environment {env.spec.name!r} has no expert_cost to script an expert "
                "from; register it with one, or plan on its reward with its own physics."
            )
        env, dynamics = _of_reward(env)
    elif dynamics is None:
        dynamics = simulator.make(env)
    return _planning(env, dynamics, config)


def _of_reward(env: Environment) -> tuple[Environment, Dynamics]:
    """The environment with a cost of its own reward, and physics that observe that."""

    def step(params, z, action: jax.Array, key: jax.Array):
        del params, key
        state, ended, _ = z
        following, transition = env.step(state, action)
        reward = jnp.where(ended, 0.0, transition.reward).astype(jnp.float32)
        return following, ended | transition.terminal, reward

    physics = Dynamics(
        init=lambda key: (),
        start=lambda params, state: (state, jnp.zeros((), bool), jnp.zeros(())),
        step=step,
        observe=lambda params, z: z[2][None],
    )
    return env._replace(expert_cost=lambda obs, action, reward: -reward[..., 0]), physics


def _planning(env: Environment, dynamics: Dynamics, config: Config) -> Agent:
    expert_cost = env.expert_cost
    assert expert_cost is not None  # `make` sees to it
    planner = mppi.make(config.planner, env.spec.action_low, env.spec.action_high)

    def step_score(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
        if next_obs.ndim == 1:
            return -expert_cost(obs, action, next_obs)
        return -jax.vmap(expert_cost, (0, None, 0))(obs, action, next_obs)  # of members

    def act(params, carry: Plan, state: EnvState, key: jax.Array, explore: bool):
        plan_key, model_key = jax.random.split(key)
        horizon = config.planner.horizon
        scores = foresight.score_plan(
            dynamics, params, state, model_key, horizon, step_score
        )

        def score(actions: jax.Array) -> jax.Array:
            return jnp.sum(scores(actions))

        kept = carry.mean[None] if config.keep_plan else None
        return planner.plan(score, carry, plan_key, config.temperature, explore, kept)

    return Agent(
        init=lambda key: State(dynamics.init(key)),
        carry=planner.init,
        act=act,
        update=lambda state, *_: (state, {}),
    )
