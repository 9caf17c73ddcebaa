"""Brings an algorithm of one's own: a module with Config, NEEDS and make.

    python examples/own_algorithm.py

It fits a linear policy to the demonstrated actions by ridge regression,

    a = W o,   W = A'O (O'O + penalty 1)^-1,   rows of O and A: demonstrated steps,

and prints its return beside the demonstrator's and where the run lies.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

import planil_jax as pj
from planil_jax.data import demos as demonstrations


@dataclass(frozen=True, kw_only=True)
class Config:
    penalty: float = 1e-3  # on the squared weights


NEEDS = pj.Needs(actions=True, full_observations=True, interacts=False)


@struct.dataclass
class State:
    params: jax.Array  # W [U, O], what acts


def make(task: pj.Task, config: Config) -> pj.Agent:
    spec = task.spec
    low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)

    def act(params, carry, state, key, explore):
        return jnp.clip(params @ state.obs, low, high), carry

    def update(state, rollout, demos, key, round_):
        obs, _, valid = demonstrations.transitions(demos)  # padding is not valid
        weighted = obs * valid[:, None]
        actions = demos.actions.reshape(-1, spec.action_size)
        gram = weighted.T @ obs + config.penalty * jnp.eye(spec.observation_size)
        weights = jnp.linalg.solve(gram, weighted.T @ actions).T
        error = jnp.mean((obs @ weights.T - actions) ** 2, where=valid[:, None])
        return State(weights), {"policy/error": error}

    start = jnp.zeros((spec.action_size, spec.observation_size), jnp.float32)
    return pj.Agent(init=lambda key: State(start), carry=tuple, act=act, update=update)


if __name__ == "__main__":
    pj.register_agent("ridge", "own_algorithm")  # this file, as a module
    shown = pj.collect("point_mass", episodes=4, actions=True)
    run = pj.train("ridge", "point_mass", demos=shown, total_steps=3_200)
    print(run.evaluate(episodes=16))
    print(f"the run lies in {run.directory}")
