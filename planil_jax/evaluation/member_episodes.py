"""Episodes of a trained run: what its members do from given starts."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax import runs
from planil_jax.base import Environment, EnvState, Transition
from planil_jax.training import loop


class Episodes(NamedTuple):
    """One episode of each of S members from each of B starts."""

    obs: np.ndarray  # [S, B, L + 1, O]
    returns: np.ndarray  # [S, B]; nan where a step of the episode was not finite
    subtasks_done: np.ndarray  # [S, B, K] bool: at any time of the episode


def rollout(trained: runs.Run, env: Environment, keys: jax.Array) -> Episodes:
    """One episode of every member for each key `[B]`, without exploration."""
    rewarding = _with_subtask_rewards(env)

    def one_member(params, settings):
        agent = trained.make_agent(env, settings)
        steps, alive = loop.evaluate(agent, rewarding, params, keys)
        rewards = jnp.where(alive[..., None], steps.reward, 0.0)  # [B, L, 1 + K]
        assert steps.valid is not None  # the loop writes it
        known = jnp.all(steps.valid, axis=1)
        returns = jnp.where(known, rewards[..., 0].sum(1), jnp.nan)
        return steps.obs[:, :1], steps.next_obs, returns, rewards[..., 1:].any(1)

    first, next_obs, returns, done = runs.over_seeds(one_member, trained)
    obs = np.concatenate([first, next_obs], axis=2)
    return Episodes(obs, np.asarray(returns), np.asarray(done))


def _with_subtask_rewards(env: Environment) -> Environment:
    """The reward becomes `[1 + K]`: the task's, then 1 for each subtask that is done."""

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        next_state, transition = env.step(state, action)
        rewards = transition.reward[None]
        if env.subtasks is not None:
            rewards = jnp.append(rewards, env.subtasks.done(next_state))
        return next_state, dataclasses.replace(transition, reward=rewards)

    return env._replace(step=step)
