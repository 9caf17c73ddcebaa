"""Policies over bounded actions: a Gaussian squashed into its bounds by tanh.

    a = centre + half tanh(u),   u ~ N(mean, std²)
    log π(a) = Σ_i log N(u_i; mean_i, std_i²)
                   - log half_i - 2 (log 2 - u_i - softplus(-2 u_i))

The last term is log(1 - tanh² u), written so that it neither overflows nor loses digits.

Source: Haarnoja et al. 2018, Soft Actor-Critic, arXiv 1801.01290, appendix C.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.base import Params
from planil_jax.nets import mlp

_EDGE = 1e-4  # actions nearer to a bound than this share are taken to be there


@dataclass(frozen=True, kw_only=True)
class Config:
    network: mlp.Config = field(default_factory=lambda: mlp.Config(activation="tanh"))
    std: float = 0.6  # of a new policy, before squashing
    std_low: float = 0.01
    std_high: float = 5.0
    std_of_state: bool = False  # a network's output; else one parameter an action entry


@struct.dataclass
class Squashed:
    """The Gaussian before it is squashed."""

    mean: jax.Array  # [..., U]
    std: jax.Array  # [..., U]


class Policy(NamedTuple):
    """A stochastic policy; actions and log-densities are in the environment's units."""

    init: Callable[[jax.Array], Params]  # (key) -> params
    apply: Callable[..., Squashed]  # (params, *inputs [..., I]) -> distribution
    mode: Callable[[Squashed], jax.Array]  # the squashed mean, [..., U]
    # (distribution, key) -> action [..., U], log-density [...]
    sample: Callable[[Squashed, jax.Array], tuple[jax.Array, jax.Array]]
    # (distribution, action [..., U]) -> log-density [...]
    log_prob: Callable[[Squashed, jax.Array], jax.Array]


class _Head(nn.Module):
    config: Config
    action_size: int

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> Squashed:
        config = self.config
        x = jnp.concatenate(inputs, axis=-1)
        for size in config.network.hidden:
            x = mlp.ACTIVATIONS[config.network.activation](nn.Dense(size)(x))
        small = nn.initializers.variance_scaling(1e-4, "fan_in", "truncated_normal")
        mean = nn.Dense(self.action_size, kernel_init=small)(x)
        if config.std_of_state:
            raw = nn.Dense(self.action_size, kernel_init=small, name="raw_std")(x)
        else:
            shape = (self.action_size,)
            raw = self.param("raw_std", nn.initializers.zeros_init(), shape, jnp.float32)
            raw = jnp.broadcast_to(raw, mean.shape)
        return Squashed(mean, spread(config, raw))


def spread(config: Config, raw: jax.Array) -> jax.Array:
    """The deviation from std_low to std_high, smoothly in its logarithm, `std` at 0."""
    low, high = math.log(config.std_low), math.log(config.std_high)
    share = (math.log(config.std) - low) / (high - low)
    offset = math.log(share / (1 - share))
    return jnp.exp(low + (high - low) * jax.nn.sigmoid(raw + offset))


def make(
    config: Config,
    input_sizes: tuple[int, ...],
    action_low: tuple[float, ...],
    action_high: tuple[float, ...],
) -> Policy:
    """A policy of the concatenated inputs, for actions within these bounds."""
    module = _Head(config, len(action_low))
    dummies = [jnp.zeros((size,), jnp.float32) for size in input_sizes]

    def apply(params: Params, *inputs: jax.Array) -> Squashed:
        return module.apply(params, *inputs)  # type: ignore[return-value]

    return squashing(lambda key: module.init(key, *dummies), apply, action_low, action_high)


def squashing(
    init: Callable[[jax.Array], Params],
    apply: Callable[..., Squashed],
    action_low: tuple[float, ...],
    action_high: tuple[float, ...],
) -> Policy:
    """A policy of the Gaussian that `apply` gives, for actions within these bounds."""
    low, high = jnp.asarray(action_low), jnp.asarray(action_high)
    centre, half = (low + high) / 2, (high - low) / 2

    def squash(u: jax.Array) -> jax.Array:
        return jnp.clip(centre + half * jnp.tanh(u), low, high)

    def density(distribution: Squashed, u: jax.Array) -> jax.Array:
        z = (u - distribution.mean) / distribution.std
        normal = -0.5 * z**2 - jnp.log(distribution.std) - 0.5 * math.log(2 * math.pi)
        stretch = jnp.log(half) + 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))
        return jnp.sum(normal - stretch, axis=-1)

    def sample(distribution: Squashed, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        noise = jax.random.normal(key, distribution.mean.shape)
        u = distribution.mean + distribution.std * noise
        return squash(u), density(distribution, u)

    def log_prob(distribution: Squashed, action: jax.Array) -> jax.Array:
        unit = jnp.clip((action - centre) / half, -1 + _EDGE, 1 - _EDGE)
        return density(distribution, jnp.arctanh(unit))

    return Policy(
        init=init,
        apply=apply,
        mode=lambda distribution: squash(distribution.mean),
        sample=sample,
        log_prob=log_prob,
    )
