"""Stochastic policies: a tanh-squashed Gaussian, or a categorical over discrete actions.

Bounded actions, with the centre and half the width of their range:

    a = centre + half tanh(u),   u = mean + std ξ,   ξ ~ N(0, 1)
    log π(a) = Σ_i log N(u_i; mean_i, std_i²)
                   - log half_i - 2 (log 2 - u_i - softplus(-2 u_i))

The last term is log(1 - tanh² u) in a form that neither overflows nor loses digits.

Discrete actions, by the Gumbel-max trick with straight-through gradients:

    a = one-hot of argmax_i (logit_i + ξ_i),   ξ_i ~ Gumbel(0, 1)
    da = d softmax((logit + ξ) / τ)
    log π(a) = Σ_i a_i log softmax(logit)_i

Source: Haarnoja et al. 2018, Soft Actor-Critic, arXiv 1801.01290, appendix C, eq. 21; Jang
et al. 2017, arXiv 1611.01144, section 2.2; Maddison et al. 2017, arXiv 1611.00712.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.base import EnvSpec, Params, UsageError
from planil_jax.config import Positive
from planil_jax.nets import mlp

_EDGE = 1e-4  # log_prob moves actions at least this far inside their bounds, of half ranges
_small_init = nn.initializers.variance_scaling(1e-4, "fan_in", "truncated_normal")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A stochastic policy; discrete actions use `network` alone."""

    network: mlp.Config = field(  # hidden layers
        default_factory=lambda: mlp.Config(activation="tanh")
    )
    std: Positive = 0.6  # initial standard deviation, before the tanh
    std_low: Positive = 0.01  # lower bound of the standard deviation
    std_high: Positive = 5.0  # upper bound of the standard deviation
    std_of_state: bool = (
        False  # std is a network output; else one parameter per action entry
    )


@struct.dataclass
class TanhNormal:
    """A Gaussian before the tanh."""

    mean: jax.Array  # [..., U]
    std: jax.Array  # [..., U]


@struct.dataclass
class Categorical:
    """A distribution over U discrete actions."""

    logits: jax.Array  # [..., U]


class Policy(NamedTuple):
    """A stochastic policy; actions and log-densities are in the environment's units.

    It is reparametrised: an action is a differentiable function of the distribution, and of
    noise ξ that does not depend on it.
    """

    init: Callable[[jax.Array], Params]  # (key) -> params
    apply: Callable[..., Any]  # (params, *inputs [..., I]) -> distribution
    mode: Callable[[Any], jax.Array]  # tanh of the mean, or the likeliest choice, [..., U]
    # (distribution, key) -> action [..., U], log-density [...]
    sample: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
    # (distribution, action [..., U]) -> log-density [...]
    log_prob: Callable[[Any, jax.Array], jax.Array]
    noise: Callable[[jax.Array, tuple[int, ...]], jax.Array]  # (key, [..., U]) -> ξ
    rsample: Callable[[Any, jax.Array], jax.Array]  # (distribution, ξ) -> action [..., U]
    # (distribution, action [..., U], ξ) -> noise that produces the action. Many noises
    # produce the same choice; one of them is sampled by means of ξ.
    inverse_noise: Callable[[Any, jax.Array, jax.Array], jax.Array]


class _Head(nn.Module):
    """A Gaussian whose mean is about 0 at first."""

    config: Config
    action_size: int

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> TanhNormal:
        config = self.config
        x = _hidden(config.network, inputs)
        mean = nn.Dense(self.action_size, kernel_init=_small_init)(x)
        if config.std_of_state:
            raw = nn.Dense(self.action_size, kernel_init=_small_init, name="raw_std")(x)
        else:
            shape = (self.action_size,)
            raw = self.param("raw_std", nn.initializers.zeros_init(), shape, jnp.float32)
            raw = jnp.broadcast_to(raw, mean.shape)
        return TanhNormal(mean, bounded_std(config, raw))


class _Choices(nn.Module):
    """Logits that are about 0 at first."""

    config: Config
    count: int

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> Categorical:
        x = _hidden(self.config.network, inputs)
        return Categorical(nn.Dense(self.count, kernel_init=_small_init)(x))


def _hidden(network: mlp.Config, inputs: tuple[jax.Array, ...]) -> jax.Array:
    """The hidden layers; they belong to the module that calls this."""
    x = jnp.concatenate(inputs, axis=-1)
    for size in network.hidden:
        x = mlp.ACTIVATIONS[network.activation](nn.Dense(size)(x))
    return x


def bounded_std(config: Config, raw: jax.Array) -> jax.Array:
    """A standard deviation between its bounds, `[...]`, smooth in an unbounded parameter.

        log std = log low + (log high - log low) sigmoid(raw + offset)

    The offset is such that raw = 0 gives config.std.

    Args:
      config: its std, std_low and std_high.
      raw: `[...]` unbounded.

    Raises:
      UsageError: config.std is not between config.std_low and config.std_high.
    """
    if not 0 < config.std_low < config.std < config.std_high:
        raise UsageError(
            "the initial std must lie between std_low and std_high, and here these are "
            f"{config.std}, {config.std_low} and {config.std_high}."
        )
    low, high = math.log(config.std_low), math.log(config.std_high)
    share = (math.log(config.std) - low) / (high - low)
    offset = math.log(share / (1 - share))
    return jnp.exp(low + (high - low) * jax.nn.sigmoid(raw + offset))


def make_for(
    spec: EnvSpec, config: Config, input_sizes: tuple[int, ...], temperature: float = 1.0
) -> Policy:
    """A policy for the actions of an environment, continuous or discrete.

    Args:
      spec: of the environment.
      config: its network and standard deviation.
      input_sizes: I of each input; the inputs are concatenated.
      temperature: τ > 0 of the gradient of discrete actions.
    """
    if not spec.discrete:
        return make(config, input_sizes, spec.action_low, spec.action_high)
    module = _Choices(config, spec.action_size)
    examples = [jnp.zeros((size,), jnp.float32) for size in input_sizes]

    def apply(params: Params, *inputs: jax.Array) -> Categorical:
        return module.apply(params, *inputs)  # type: ignore[return-value]

    return categorical(lambda key: module.init(key, *examples), apply, temperature)


def make(
    config: Config,
    input_sizes: tuple[int, ...],
    action_low: tuple[float, ...],
    action_high: tuple[float, ...],
) -> Policy:
    """A tanh-squashed Gaussian policy.

    Args:
      config: its network and standard deviation.
      input_sizes: I of each input; the inputs are concatenated.
      action_low, action_high: U bounds each, finite.
    """
    module = _Head(config, len(action_low))
    examples = [jnp.zeros((size,), jnp.float32) for size in input_sizes]

    def apply(params: Params, *inputs: jax.Array) -> TanhNormal:
        return module.apply(params, *inputs)  # type: ignore[return-value]

    return tanh_normal(
        lambda key: module.init(key, *examples), apply, action_low, action_high
    )


def tanh_normal(
    init: Callable[[jax.Array], Params],
    apply: Callable[..., TanhNormal],
    action_low: tuple[float, ...],
    action_high: tuple[float, ...],
) -> Policy:
    """A tanh-squashed Gaussian policy.

    Args:
      init: (key) -> params.
      apply: (params, *inputs) -> the Gaussian before the tanh.
      action_low, action_high: U bounds each, finite.
    """
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
        rsample=lambda normal, noise: squash(normal.mean + normal.std * noise),
        inverse_noise=inverse_noise,
    )


def categorical(
    init: Callable[[jax.Array], Params],
    apply: Callable[..., Categorical],
    temperature: float,
) -> Policy:
    """A policy over discrete actions, which are one-hot.

    `inverse_noise` samples the noise from its distribution given the choice: the maximum of
    logit_i + ξ_i is independent of the choice, and the other entries are Gumbel variables
    truncated at that maximum.

    Source: Maddison, Tarlow & Minka 2014, A* Sampling, arXiv 1411.0030, section 3.

    Args:
      init: (key) -> params.
      apply: (params, *inputs) -> the categorical.
      temperature: τ > 0 of the gradient.
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
        truncated = -jnp.logaddexp(-largest, -(logits + noise))
        return jnp.where(action > 0.5, largest, truncated) - logits

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
