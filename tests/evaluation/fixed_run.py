"""A run whose members always take the same action, without training."""

import jax.numpy as jnp

from planil_jax import envs, experiment, runs
from planil_jax.base import Agent
from planil_jax.data import demos


def fixed_run(environment: str, actions, directory) -> runs.Run:
    """A run with one member an action."""
    env = envs.make(environment)
    settings = experiment.Experiment(environment=environment, seeds=len(actions))
    agent = Agent(
        init=lambda key: jnp.zeros(2),
        carry=lambda: (),
        act=lambda params, carry, state, key, explore: (params, carry),
        update=lambda state, *_: (state, {}),
    )
    obs = jnp.array([[[0.0] * 7, [9.0] + [0.0] * 6]])
    demonstrations = demos.none(env.spec).replace(obs=obs)
    params = jnp.asarray(actions)
    return runs.Run(
        directory, settings, env, lambda *_: agent, demonstrations, params, {}, 0
    )
