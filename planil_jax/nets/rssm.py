"""Networks of a recurrent state-space model: a memory h, and Gaussians of a latent z.

    memory       h' = (1 - u) h + u tanh(r c),   x = f(W [z, a])
                 r, c, u are the three parts of LayerNorm(W' [x, h]),
                 r = σ(r),  u = σ(u - 1)
    priors       p_k(z | h),   K networks of one shape; each call uses one of them
    posterior    q(z | h, e),  e are the features of an observation

Each Gaussian comes from one hidden layer. Its standard deviation is 2 σ(x / 2) + 0.1.

Source: Hafner et al. 2021, DreamerV2, arXiv 2010.02193, and its code; K priors on one
memory, Kolev et al. 2024, arXiv 2405.13193.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.base import Network, Params
from planil_jax.config import Count
from planil_jax.nets import mlp


@dataclass(frozen=True, kw_only=True)
class Config:
    deter: Count = 200  # D, units of the memory h
    stoch: Count = 30  # Z, entries of the latent z
    hidden: Count = 200  # units of each hidden layer
    heads: Count = 10  # K, priors
    activation: mlp.Activation = "elu"  # activation function of the hidden layers


@struct.dataclass
class Gaussian:
    """A Gaussian with independent entries."""

    mean: jax.Array  # [.., Z]
    std: jax.Array  # [.., Z]


class Heads(NamedTuple):
    """K networks of one shape, their parameters stacked `[K]`."""

    init: Callable[[jax.Array], Params]  # (key) -> params [K]
    # (params [K], head [] int, deter [.., D]) -> the Gaussian of one head, [.., Z]
    apply_one: Callable[[Params, jax.Array, jax.Array], Gaussian]
    # (params [K], deter [.., D]) -> the Gaussians of all heads, [K, .., Z]
    apply_all: Callable[[Params, jax.Array], Gaussian]


class _Memory(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, deter: jax.Array, stoch: jax.Array, action: jax.Array) -> jax.Array:
        config = self.config
        x = nn.Dense(config.hidden)(jnp.concatenate([stoch, action], axis=-1))
        x = mlp.ACTIVATIONS[config.activation](x)
        parts = nn.Dense(3 * config.deter, use_bias=False)(
            jnp.concatenate([x, deter], axis=-1)
        )
        parts = nn.LayerNorm(epsilon=1e-3)(parts)
        reset, candidate, update = jnp.split(parts, 3, axis=-1)
        candidate = jnp.tanh(nn.sigmoid(reset) * candidate)
        update = nn.sigmoid(update - 1)  # a new memory keeps more than it takes in
        return update * candidate + (1 - update) * deter


class _Gaussian(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> Gaussian:
        x = nn.Dense(self.config.hidden)(jnp.concatenate(inputs, axis=-1))
        x = mlp.ACTIVATIONS[self.config.activation](x)
        mean, raw = jnp.split(nn.Dense(2 * self.config.stoch)(x), 2, axis=-1)
        return Gaussian(mean, 2 * nn.sigmoid(raw / 2) + 0.1)


def make_memory(config: Config, action_size: int) -> Network:
    """`(params, deter [.., D], stoch [.., Z], action [.., U]) -> deter [.., D]`."""
    return _network(_Memory(config), (config.deter, config.stoch, action_size))


def make_posterior(config: Config, features: int) -> Network:
    """`(params, deter [.., D], features [.., F]) -> Gaussian [.., Z]`."""
    return _network(_Gaussian(config), (config.deter, features))


def make_priors(config: Config) -> Heads:
    """K networks `deter [.., D] -> Gaussian [.., Z]`."""
    network = _network(_Gaussian(config), (config.deter,))
    apply: Callable[..., Gaussian] = network.apply  # type: ignore[assignment]

    def init(key: jax.Array) -> Params:
        return jax.vmap(network.init)(jax.random.split(key, config.heads))

    def apply_one(params: Params, head: jax.Array, deter: jax.Array) -> Gaussian:
        return apply(jax.tree.map(lambda leaf: leaf[head], params), deter)

    def apply_all(params: Params, deter: jax.Array) -> Gaussian:
        return jax.vmap(apply, (0, None))(params, deter)

    return Heads(init, apply_one, apply_all)


def _network(module: nn.Module, sizes: tuple[int, ...]) -> Network:
    dummies = [jnp.zeros((size,), jnp.float32) for size in sizes]

    def apply(params: Params, *inputs: jax.Array):
        return module.apply(params, *inputs)

    return Network(init=lambda key: module.init(key, *dummies), apply=apply)
