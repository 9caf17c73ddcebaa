"""Tug: a linear policy is pulled to the demonstrator's actions. A stranger's method.

a = W o,   W <- W - rate d/dW E_expert |W o - a|^2
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

import planil_jax as pj
from planil_jax.data import demos as demonstrations


@dataclass(frozen=True, kw_only=True)
class Config:
    learning_rate: float = 0.05  # of gradient descent
    steps: int = 20  # gradient steps a round
    batch: int = 64


NEEDS = pj.Needs(actions=True, full_observations=True, interacts=False)


@struct.dataclass
class State:
    params: jax.Array  # W [U, O]


def make(task: pj.Task, config: Config) -> pj.Agent:
    low, high = jnp.asarray(task.spec.action_low), jnp.asarray(task.spec.action_high)

    def act(params, carry, state, key, explore):
        action = params @ state.obs
        noise = explore * 0.5 * (high - low) * jax.random.normal(key, action.shape)
        return jnp.clip(action + noise, low, high), carry

    def init(key):
        shape = (task.spec.action_size, task.spec.observation_size)
        return State(0.01 * jax.random.normal(key, shape))

    def update(state, rollout, demos, key, round_):
        def step(weights, key):
            obs, actions, _, _ = demonstrations.sample(demos, key, config.batch)
            loss, slope = jax.value_and_grad(
                lambda weights: jnp.mean((obs @ weights.T - actions) ** 2)
            )(weights)
            return weights - config.learning_rate * slope, loss

        keys = jax.random.split(key, config.steps)
        weights, losses = jax.lax.scan(step, state.params, keys)
        return State(weights), {"policy/loss": jnp.mean(losses)}

    return pj.Agent(init=init, carry=lambda: (), act=act, update=update)


def shows(task: pj.Task, config: Config) -> pj.Shows:
    return pj.Shows(value=lambda params, obs: -jnp.sum(obs**2, axis=-1))
