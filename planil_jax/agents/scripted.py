"""The scripted demonstrator: MPPI on the task's cost; it learns nothing.

At each control step, from the present state and with a model of the physics:

    1. predict: s_{t+1} = f(s_t, a_t) for each sampled plan
    2. minimise over plans  Σ_{t<H} expert_cost(s_t, a_t, s_{t+1})  by MPPI, and take a_0

Where the environment has no `expert_cost` and its physics are the model, the cost is its
reward, negated, up to the first end of the plan.

Source: Williams et al. 2017, Information Theoretic MPC; as the expert of Han et al. 2025,
MPAIL, arXiv 2507.21533, which has 1024 samples and H = 20.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.base import (
    Agent,
    Dynamics,
    Environment,
    EnvState,
    Params,
    Plan,
    Planner,
    UsageError,
)
from planil_jax.config import Positive
from planil_jax.models import foresight, simulator
from planil_jax.planners import mppi

# (obs [O], action [U], next_obs [O]) -> []
Cost = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@dataclass(frozen=True, kw_only=True)
class Config:
    planner: mppi.Config = field(  # of the plans
        default_factory=lambda: mppi.Config(samples=1024, horizon=20, iterations=2)
    )
    temperature: Positive = 0.1  # λ of the planner, in units of cost
    keep_plan: bool = False  # whether the plan so far competes: steadier, where noise hurts


@struct.dataclass
class State:
    params: Params  # of the planner's model


class Components(NamedTuple):
    """What the demonstrator is made of."""

    config: Config
    cost: Cost
    dynamics: Dynamics
    planner: Planner


def make(env: Environment, dynamics: Dynamics | None, config: Config) -> Agent:
    """An agent that minimises `env.expert_cost`.

    Args:
      dynamics: the model that it plans with. None: the environment's physics, whose reward
        it maximises where there is no `expert_cost`.

    Raises:
      UsageError: there is no such cost, and a model has no rewards.
    """
    components = build(env, dynamics, config)
    return Agent(
        init=lambda key: State(components.dynamics.init(key)),
        carry=components.planner.init,
        act=functools.partial(act, components),
        update=lambda state, *_: (state, {}),
    )


def build(env: Environment, dynamics: Dynamics | None, config: Config) -> Components:
    """The cost, the model and the planner; raises as `make` does."""
    cost: Cost | None = env.expert_cost
    if cost is None and dynamics is not None:
        raise UsageError(
            f"environment {env.spec.name!r} has no expert_cost to script an expert "
            "from; register it with one, or plan on its reward with its physics."
        )
    if cost is None:
        cost, dynamics = negative_reward, rewarding_physics(env)
    elif dynamics is None:
        dynamics = simulator.make(env)
    planner = mppi.make(config.planner, env.spec.action_low, env.spec.action_high)
    return Components(config, cost, dynamics, planner)


def rewarding_physics(env: Environment) -> Dynamics:
    """The environment's physics, of which the last step's reward is observed, `[1]`."""

    def step(params, z, action: jax.Array, key: jax.Array):
        del params, key
        state, ended, _ = z
        next_state, transition = env.step(state, action)
        reward = jnp.where(ended, 0.0, transition.reward).astype(jnp.float32)
        return next_state, ended | transition.terminal, reward

    return Dynamics(
        init=lambda key: (),
        start=lambda params, state: (state, jnp.zeros((), bool), jnp.zeros(())),
        step=step,
        observe=lambda params, z: z[2][None],
    )


def negative_reward(obs: jax.Array, action: jax.Array, reward: jax.Array) -> jax.Array:
    """The cost of a step of `rewarding_physics`, which shows its reward `[1]`, `[]`."""
    del obs, action
    return -reward[..., 0]


def act(
    components: Components,
    params: Params,
    carry: Plan,
    state: EnvState,
    key: jax.Array,
    explore: bool,
) -> tuple[jax.Array, Plan]:
    """The first action of the best plan; see the steps above."""
    config, dynamics = components.config, components.dynamics
    plan_key, model_key = jax.random.split(key)
    step_score = functools.partial(negative_cost, components.cost)
    scores = foresight.score_plan(
        dynamics, params, state, model_key, config.planner.horizon, step_score
    )
    proposals = carry.mean[None] if config.keep_plan else None  # [1, H, U]
    return components.planner.plan(
        lambda plan: jnp.sum(scores(plan)),
        carry,
        plan_key,
        config.temperature,
        explore,
        proposals,
    )


def negative_cost(
    cost: Cost, obs: jax.Array, action: jax.Array, next_obs: jax.Array
) -> jax.Array:
    """The score of a step, `[]`; of a model with members `[M, O]`, `[M]`."""
    if next_obs.ndim == 1:
        return -cost(obs, action, next_obs)
    return -jax.vmap(cost, (0, None, 0))(obs, action, next_obs)
