"""Policies: over bounded actions a Gaussian squashed by tanh, over choices a categorical.

    a = centre + half tanh(u),   u = mean + std ξ,   ξ ~ N(0, 1)
    log π(a) = Σ_i log N(u_i; mean_i, std_i²)
                   - log half_i - 2 (log 2 - u_i - softplus(-2 u_i))

The last term is log(1 - tanh² u), written so that it neither overflows nor loses digits.

    a = one-hot of argmax_i (logit_i + ξ_i),   ξ_i ~ Gumbel(0, 1)
    da = d softmax((logit + ξ) / τ)                          straight-through Gumbel-softmax
    log π(a) = Σ_i a_i log softmax(logit)_i

Source: Haarnoja et al. 2018, Soft Actor-Critic, arXiv 1801.01290, appendix C; Jang et al.
2017, arXiv 1611.01144, section 2.2, and Maddison et al. 2017, arXiv 1611.00712.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.base import EnvSpec, Params
from planil_jax.nets import mlp

_EDGE = 1e-4  # actions nearer to a bound than this share are taken to be there
_small = nn.initializers.variance_scaling(1e-4, "fan_in", "truncated_normal")


@dataclass(frozen=True, kw_only=True)
class Config:
    network: mlp.Config = field(default_factory=lambda: mlp.Config(activation="tanh"))
    std: float = 0.6  # of a new policy, before squashing; a categorical has none
    std_low: float = 0.01
    std_high: float = 5.0
    std_of_state: bool = False  # a network's output; else one parameter an action entry


@struct.dataclass
class TanhNormal:
    """The Gaussian before it is squashed."""

    mean: jax.Array  # [..., U]
    std: jax.Array  # [..., U]


@struct.dataclass
class Categorical:
    """One of U choices."""

    logits: jax.Array  # [..., U]


class Policy(NamedTuple):
    """A stochastic policy; actions and log-densities are in the environment's units.

    Reparametrised: an action is a function of the distribution, to be differentiated, and
    of noise ξ that knows nothing of it.
    """

    init: Callable[[jax.Array], Params]  # (key) -> params
    apply: Callable[..., Any]  # (params, *inputs [..., I]) -> distribution
    mode: Callable[[Any], jax.Array]  # the squashed mean, or the likeliest choice, [..., U]
    # (distribution, key) -> action [..., U], log-density [...]
    sample: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
    # (distribution, action [..., U]) -> log-density [...]
    log_prob: Callable[[Any, jax.Array], jax.Array]
    noise: Callable[[jax.Array, tuple[int, ...]], jax.Array]  # (key, [..., U]) -> ξ
    rsample: Callable[[Any, jax.Array], jax.Array]  # (distribution, ξ) -> action [..., U]
    # (distribution, action [..., U], ξ) -> a ξ that leads there; where many do, one drawn
    # by the ξ that is given
    inverse_noise: Callable[[Any, jax.Array, jax.Array], jax.Array]


class _Head(nn.Module):
    config: Config
    action_size: int

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> TanhNormal:
        config = self.config
        x = _hidden(config.network, inputs)
        mean = nn.Dense(self.action_size, kernel_init=_small)(x)
        if config.std_of_state:
            raw = nn.Dense(self.action_size, kernel_init=_small, name="raw_std")(x)
        else:
            shape = (self.action_size,)
            raw = self.param("raw_std", nn.initializers.zeros_init(), shape, jnp.float32)
            raw = jnp.broadcast_to(raw, mean.shape)
        return TanhNormal(mean, spread(config, raw))


class _Choices(nn.Module):
    config: Config
    count: int

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> Categorical:
        x = _hidden(self.config.network, inputs)
        return Categorical(nn.Dense(self.count, kernel_init=_small)(x))


def _hidden(network: mlp.Config, inputs: tuple[jax.Array, ...]) -> jax.Array:
    """The hidden layers, of whichever module calls."""
    x = jnp.concatenate(inputs, axis=-1)
    for size in network.hidden:
        x = mlp.ACTIVATIONS[network.activation](nn.Dense(size)(x))
    return x


def spread(config: Config, raw: jax.Array) -> jax.Array:
    """The deviation from std_low to std_high, smoothly in its logarithm, `std` at 0."""
    low, high = math.log(config.std_low), math.log(config.std_high)
    share = (math.log(config.std) - low) / (high - low)
    offset = math.log(share / (1 - share))
    return jnp.exp(low + (high - low) * jax.nn.sigmoid(raw + offset))


def make_for(
    spec: EnvSpec, config: Config, input_sizes: tuple[int, ...], temperature: float = 1.0
) -> Policy:
    """A policy of the concatenated inputs, for actions such as the environment takes.

    Args:
      temperature: τ of the slope of choices, > 0.
    """
    if not spec.discrete:
        return make(config, input_sizes, spec.action_low, spec.action_high)
    module = _Choices(config, spec.action_size)
    dummies = [jnp.zeros((size,), jnp.float32) for size in input_sizes]

    def apply(params: Params, *inputs: jax.Array) -> Categorical:
        return module.apply(params, *inputs)  # type: ignore[return-value]

    return choosing(lambda key: module.init(key, *dummies), apply, temperature)


def make(
    config: Config,
    input_sizes: tuple[int, ...],
    action_low: tuple[float, ...],
    action_high: tuple[float, ...],
) -> Policy:
    """A policy of the concatenated inputs, for actions within these bounds."""
    module = _Head(config, len(action_low))
    dummies = [jnp.zeros((size,), jnp.float32) for size in input_sizes]

    def apply(params: Params, *inputs: jax.Array) -> TanhNormal:
        return module.apply(params, *inputs)  # type: ignore[return-value]

    return squashing(lambda key: module.init(key, *dummies), apply, action_low, action_high)


def squashing(
    init: Callable[[jax.Array], Params],
    apply: Callable[..., TanhNormal],
    action_low: tuple[float, ...],
    action_high: tuple[float, ...],
) -> Policy:
    """A policy of the Gaussian that `apply` gives, for actions within these bounds."""
    low, high = jnp.asarray(action_low), jnp.asarray(action_high)
    centre, half = (low + high) / 2, (high - low) / 2

    def squash(u: jax.Array) -> jax.Array:
        return jnp.clip(centre + half * jnp.tanh(u), low, high)

    def density(distribution: TanhNormal, u: jax.Array) -> jax.Array:
        z = (u - distribution.mean) / distribution.std
        normal = -0.5 * z**2 - jnp.log(distribution.std) - 0.5 * math.log(2 * math.pi)
        stretch = jnp.log(half) + 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))
        return jnp.sum(normal - stretch, axis=-1)

    def unsquash(action: jax.Array) -> jax.Array:
        return jnp.arctanh(jnp.clip((action - centre) / half, -1 + _EDGE, 1 - _EDGE))

    def sample(distribution: TanhNormal, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        noise = jax.random.normal(key, distribution.mean.shape)
        u = distribution.mean + distribution.std * noise
        return squash(u), density(distribution, u)

    def inverse_noise(
        distribution: TanhNormal, action: jax.Array, noise: jax.Array
    ) -> jax.Array:
        del noise
        return (unsquash(action) - distribution.mean) / distribution.std

    return Policy(
        init=init,
        apply=apply,
        mode=lambda distribution: squash(distribution.mean),
        sample=sample,
        log_prob=lambda distribution, action: density(distribution, unsquash(action)),
        noise=jax.random.normal,
        rsample=lambda given, noise: squash(given.mean + given.std * noise),
        inverse_noise=inverse_noise,
    )


def choosing(
    init: Callable[[jax.Array], Params],
    apply: Callable[..., Categorical],
    temperature: float,
) -> Policy:
    """A policy of the categorical that `apply` gives; actions are one-hot.

    `inverse_noise` draws from the noise that leads to a choice as it is distributed: the largest of
    logit_i + ξ_i does not depend on which it is, and the others are cut off there.

    Source of that: Maddison, Tarlow & Minka 2014, A* Sampling, arXiv 1411.0030, section 3.
    """

    def one_hot(scores: jax.Array) -> jax.Array:
        largest = jnp.argmax(scores, axis=-1)
        return jax.nn.one_hot(largest, scores.shape[-1], dtype=scores.dtype)

    def rsample(distribution: Categorical, noise: jax.Array) -> jax.Array:
        scores = distribution.logits + noise
        relaxed = jax.nn.softmax(scores / temperature)
        return one_hot(scores) + (relaxed - jax.lax.stop_gradient(relaxed))

    def log_prob(distribution: Categorical, action: jax.Array) -> jax.Array:
        return jnp.sum(action * jax.nn.log_softmax(distribution.logits), axis=-1)

    def sample(distribution: Categorical, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        action = rsample(distribution, jax.random.gumbel(key, distribution.logits.shape))
        return action, log_prob(distribution, action)

    def inverse_noise(
        distribution: Categorical, action: jax.Array, noise: jax.Array
    ) -> jax.Array:
        logits = jax.nn.log_softmax(distribution.logits)
        largest = jnp.sum(action * noise, axis=-1, keepdims=True)
        below = -jnp.logaddexp(-largest, -(logits + noise))
        return jnp.where(action > 0.5, largest, below) - logits

    return Policy(
        init=init,
        apply=apply,
        mode=lambda distribution: one_hot(distribution.logits),
        sample=sample,
        log_prob=log_prob,
        noise=jax.random.gumbel,
        rsample=rsample,
        inverse_noise=inverse_noise,
    )
