"""The scripted demonstrator: MPPI on the task's own cost; learns nothing.

Source: Han et al. 2025, MPAIL, arXiv 2507.21533: the expert has 1024 samples and H = 20.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.base import Agent, Dynamics, Environment, EnvState, Params, Plan, UsageError
from planil_jax.planners import mppi


@dataclass(frozen=True, kw_only=True)
class Config:
    planner: mppi.Config = field(
        default_factory=lambda: mppi.Config(samples=1024, horizon=20, iterations=2)
    )
    temperature: float = 0.1  # in units of cost


@struct.dataclass
class State:
    params: Params  # of the planner's model


def make(env: Environment, dynamics: Dynamics, config: Config) -> Agent:
    """An agent that minimises `env.expert_cost`.

    Raises:
      UsageError: the environment has no such cost.
    """
    if env.expert_cost is None:
        raise UsageError(
            f"environment {env.spec.name!r} has no expert_cost to script an expert from; "
            "register it with one, or bring demonstrations."
        )
    expert_cost = env.expert_cost
    planner = mppi.make(config.planner, env.spec.action_low, env.spec.action_high)

    def act(params, carry: Plan, state: EnvState, key: jax.Array, explore: bool):
        plan_key, model_key = jax.random.split(key)
        start = dynamics.start(params, state)
        model_keys = jax.random.split(model_key, config.planner.horizon)

        def score(actions: jax.Array) -> jax.Array:
            def step(running, inputs):
                z, obs = running
                action, step_key = inputs
                z = dynamics.step(params, z, action, step_key)
                next_obs = dynamics.observe(params, z)
                return (z, next_obs), expert_cost(obs, action, next_obs)

            costs = jax.lax.scan(step, (start, state.obs), (actions, model_keys))[1]
            return -jnp.sum(costs)

        return planner.plan(score, carry, plan_key, config.temperature, explore)

    return Agent(
        needs_actions=False,
        init=lambda key: State(dynamics.init(key)),
        carry=planner.init,
        act=act,
        update=lambda state, *_: (state, {}),
    )
