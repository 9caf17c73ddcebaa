"""One-idea environments whose values are known without computing them.

one_step:  the observation is a coin in {-1, 1}; the episode ends at once and pays the coin.
           V(obs) = obs, whatever is done.
countdown: the observation is the number of steps left; every step pays 1 and the last one
           is terminal. V(n) = (1 - γ^n) / (1 - γ). With `endless=True` the same countdown
           is cut by time instead, so that a value must look past its end.
"""

import dataclasses

import jax
import jax.numpy as jnp

from planil_jax.base import Environment, EnvSpec, EnvState, Transition


def one_step() -> Environment:
    """A coin that pays its face; ends after one step."""

    def reset(key: jax.Array) -> EnvState:
        coin = jax.random.rademacher(key, (1,), jnp.float32)
        return EnvState(sim=(), obs=coin, time=jnp.zeros((), jnp.int32))

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        following = dataclasses.replace(state, time=state.time + 1)
        transition = Transition(
            obs=state.obs,
            action=action,
            next_obs=following.obs,
            reward=state.obs[0],
            terminal=jnp.ones((), bool),
            truncated=jnp.zeros((), bool),
        )
        return following, transition

    return Environment(_spec("probe/one_step", "coin", 1), reset, step)


def countdown(length: int = 5, endless: bool = False) -> Environment:
    """`length` steps that pay 1 each; the end is terminal, or by time if `endless`."""

    def reset(key: jax.Array) -> EnvState:
        del key
        left = jnp.full((1,), length, jnp.float32)
        return EnvState(sim=(), obs=left, time=jnp.zeros((), jnp.int32))

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        following = dataclasses.replace(state, obs=state.obs - 1.0, time=state.time + 1)
        ended = following.time >= length
        transition = Transition(
            obs=state.obs,
            action=action,
            next_obs=following.obs,
            reward=jnp.ones((), jnp.float32),
            terminal=ended & (not endless),
            truncated=ended & endless,
        )
        return following, transition

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
