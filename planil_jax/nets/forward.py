"""Forward models: a Gaussian of the next vector for a vector and an action.

    mean, std = MLP([x, a])                              without a GRU
    h' = GRU(h, [x, a]),   mean, std = MLP(h')           with a GRU

Source: the GRU is that of Cho et al. 2014, arXiv 1406.1078. The standard deviation is an
output as in Chua et al. 2018, PETS, arXiv 1805.12114.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from planil_jax.base import Params
from planil_jax.config import Count, Positive
from planil_jax.nets import heads, mlp


@dataclass(frozen=True, kw_only=True)
class Config:
    """A forward model."""

    network: mlp.Config = field(  # hidden layers
        default_factory=lambda: mlp.Config(hidden=(128, 128), activation="silu")
    )
    gru_units: Count | None = (
        None  # units G of a GRU before the hidden layers; None: no GRU
    )
    probabilistic: bool = False  # whether the standard deviation is learned; else it is 1
    std: Positive = 0.3  # initial standard deviation, in normalised units
    std_low: Positive = 1e-3  # lower bound of the standard deviation
    std_high: Positive = 3.0  # upper bound of the standard deviation


class Forward(NamedTuple):
    """A network of one step, for one vector or for batches."""

    init: Callable[[jax.Array], Params]  # (key) -> params
    memory: Callable[[], jax.Array]  # () -> [G] zeros, the state of the GRU at first
    # (params, memory [..., G], *inputs [..., I]) -> memory [..., G], mean and std [..., O]
    apply: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]


class _Step(nn.Module):
    """One step; a new network predicts mean 0 and `config.std`."""

    config: Config
    output_size: int

    @nn.compact
    def __call__(self, memory: jax.Array, *inputs: jax.Array):
        config = self.config
        x = jnp.concatenate(inputs, axis=-1)
        if config.gru_units:
            memory, x = nn.GRUCell(config.gru_units)(memory, x)
        for size in config.network.hidden:
            x = mlp.ACTIVATIONS[config.network.activation](nn.Dense(size)(x))
        zero = nn.initializers.zeros_init()
        mean = nn.Dense(self.output_size, kernel_init=zero, name="mean")(x)
        if not config.probabilistic:
            return memory, mean, jnp.ones_like(mean)
        raw = nn.Dense(self.output_size, kernel_init=zero, name="raw_std")(x)
        bounds = heads.Config(
            std=config.std, std_low=config.std_low, std_high=config.std_high
        )
        return memory, mean, heads.bounded_std(bounds, raw)


def make(config: Config, input_sizes: tuple[int, ...], output_size: int) -> Forward:
    """A forward model of concatenated inputs; a new one predicts mean 0.

    Args:
      config: the layers.
      input_sizes: I of each input.
      output_size: O.
    """
    module = _Step(config, output_size)
    examples = [jnp.zeros((size,), jnp.float32) for size in input_sizes]

    def memory() -> jax.Array:
        return jnp.zeros((config.gru_units or 0,), jnp.float32)

    def apply(params: Params, memory: jax.Array, *inputs: jax.Array):
        return module.apply(params, memory, *inputs)

    return Forward(lambda key: module.init(key, memory(), *examples), memory, apply)
