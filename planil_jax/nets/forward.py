"""Networks that foresee: the next vector of a vector and an action, maybe with a memory.

    h' = GRU(h, [x, a])       or, without a memory, nothing
    mean, raw = MLP([x, a] or h')

Source: of the GRU, Cho et al. 2014, arXiv 1406.1078; of the deviation as an output, Chua et
al. 2018, PETS, arXiv 1805.12114.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from planil_jax.base import Params
from planil_jax.nets import heads, mlp


@dataclass(frozen=True, kw_only=True)
class Config:
    network: mlp.Config = field(
        default_factory=lambda: mlp.Config(hidden=(128, 128), activation="silu")
    )
    memory: int = 0  # G, units of a GRU before the hidden layers; 0: none
    probabilistic: bool = False  # whether the deviation is an output, or else 1
    std: float = 0.3  # of a new network
    std_low: float = 1e-3  # bounds of it
    std_high: float = 3.0


class Forward(NamedTuple):
    """A network of one step; of one vector or of many alike."""

    init: Callable[[jax.Array], Params]  # (key) -> params
    memory: Callable[[], jax.Array]  # () -> [G], where nothing was seen yet
    # (params, memory [.., G], *inputs [.., I]) -> memory [.., G], mean and std [.., O]
    apply: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]


class _Step(nn.Module):
    config: Config
    output_size: int

    @nn.compact
    def __call__(self, memory: jax.Array, *inputs: jax.Array):
        config = self.config
        x = jnp.concatenate(inputs, axis=-1)
        if config.memory:
            memory, x = nn.GRUCell(config.memory)(memory, x)
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
        return memory, mean, heads.spread(bounds, raw)


def make(config: Config, input_sizes: tuple[int, ...], output_size: int) -> Forward:
    """A network of the concatenated inputs, whose mean is 0 at first."""
    module = _Step(config, output_size)
    dummies = [jnp.zeros((size,), jnp.float32) for size in input_sizes]

    def memory() -> jax.Array:
        return jnp.zeros((config.memory,), jnp.float32)

    def apply(params: Params, memory: jax.Array, *inputs: jax.Array):
        return module.apply(params, memory, *inputs)

    return Forward(lambda key: module.init(key, memory(), *dummies), memory, apply)
