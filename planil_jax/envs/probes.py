"""Probe environments, whose values are known in closed form. Their action has no effect.

one_step:  The observation is a coin in {-1, 1}. The reward is the coin, and the episode
           ends after one step. V(obs) = obs.
countdown: The observation is the number of steps left. Every step has reward 1, and the
           last one is terminal: V(n) = (1 - γ^n) / (1 - γ). With `endless=True` the last
           one is truncated instead, so V must not be 0 after it.

Action: one number in [-1, 1], for 1 s.
"""

import dataclasses

import jax
import jax.numpy as jnp

from planil_jax.base import Environment, EnvSpec, EnvState, Transition


def one_step() -> Environment:
    """The reward is the observed coin; the episode ends after one step."""

    def reset(key: jax.Array) -> EnvState:
        coin = jax.random.rademacher(key, (1,), jnp.float32)
        return EnvState(sim=(), obs=coin, time=jnp.zeros((), jnp.int32))

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        next_state = dataclasses.replace(state, time=state.time + 1)
        transition = Transition(
            obs=state.obs,
            action=action,
            next_obs=next_state.obs,
            reward=state.obs[0],
            terminal=jnp.ones((), bool),
            truncated=jnp.zeros((), bool),
        )
        return next_state, transition

    return Environment(_spec("probe/one_step", "coin", 1), reset, step)


def countdown(length: int = 5, endless: bool = False) -> Environment:
    """Steps with reward 1 each.

    Args:
      length: steps of an episode.
      endless: whether the last step is truncated; else it is terminal.
    """

    def reset(key: jax.Array) -> EnvState:
        del key
        left = jnp.full((1,), length, jnp.float32)
        return EnvState(sim=(), obs=left, time=jnp.zeros((), jnp.int32))

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        next_state = dataclasses.replace(state, obs=state.obs - 1.0, time=state.time + 1)
        ended = next_state.time >= length
        transition = Transition(
            obs=state.obs,
            action=action,
            next_obs=next_state.obs,
            reward=jnp.ones((), jnp.float32),
            terminal=ended & (not endless),
            truncated=ended & endless,
        )
        return next_state, transition

    return Environment(_spec("probe/countdown", "steps left", length), reset, step)


def _spec(name: str, observation: str, episode_length: int) -> EnvSpec:
    return EnvSpec(
        name=name,
        observation_names=(observation,),
        action_low=(-1.0,),
        action_high=(1.0,),
        episode_length=episode_length,
        control_period=1.0,
        terminates=True,
    )
