"""A reward-free world model: an encoder and deterministic dynamics of latent states.

    z_0 = h(s_0),   z_{t+1} = d(z_t, a_t),   a in [-1, 1]

It predicts its own encoding of the next observation and has no decoder. Critics, policies
and rewards read its latent states.

Source: Hansen, Su & Wang 2024, TD-MPC2, arXiv 2310.16828; Li, Huang & Su 2025, IQ-MPC,
arXiv 2410.14081.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from planil_jax.base import EnvSpec, Params
from planil_jax.nets import latent


class Latent(NamedTuple):
    """The model; it reads the parameters "encoder" and "step" of a dict."""

    init: Callable[[jax.Array], dict[str, Params]]
    # (params, obs [.., O], or pictures [.., H, W, C]) -> [.., Z]
    encode: Callable[[Params, jax.Array], jax.Array]
    # (params, z [.., Z], action [.., U]) -> z [.., Z]
    step: Callable[[Params, jax.Array, jax.Array], jax.Array]
    # (params, z [.., Z], actions [H, .., U]) -> [H + 1, .., Z], z first
    rollout: Callable[[Params, jax.Array, jax.Array], jax.Array]


def make(spec: EnvSpec, config: latent.Config) -> Latent:
    """A model of the observations of an environment."""
    encoder = latent.make_encoder(config, spec.observation_size, spec.image)
    dynamics = latent.make_step(config, spec.action_size)

    def init(key: jax.Array) -> dict[str, Params]:
        encoder_key, step_key = jax.random.split(key)
        return {"encoder": encoder.init(encoder_key), "step": dynamics.init(step_key)}

    def encode(params: Params, obs: jax.Array) -> jax.Array:
        return encoder.apply(params["encoder"], obs)

    def step(params: Params, z: jax.Array, action: jax.Array) -> jax.Array:
        return dynamics.apply(params["step"], z, action)

    def rollout(params: Params, z: jax.Array, actions: jax.Array) -> jax.Array:
        zs = [z]
        for action in actions:  # few; unrolled, they compile to plain products
            zs.append(step(params, zs[-1], action))
        return jnp.stack(zs)

    return Latent(init, encode, step, rollout)
