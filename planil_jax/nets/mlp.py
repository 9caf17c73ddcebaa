"""Multilayer perceptrons as `Network(init, apply)`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from planil_jax.base import Network, Params
from planil_jax.config import Count

Activation: TypeAlias = Literal["elu", "leaky_relu", "relu", "silu", "tanh"]
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "elu": nn.elu,
    "leaky_relu": lambda x: nn.leaky_relu(x, 0.2),
    "relu": nn.relu,
    "silu": nn.silu,
    "tanh": jnp.tanh,
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """A multilayer perceptron."""

    hidden: tuple[Count, ...] = (64, 64)  # units of each hidden layer
    activation: Activation = "relu"  # activation function of the hidden layers


class _Mlp(nn.Module):
    """Dense layers of the concatenated inputs; the output layer is linear."""

    config: Config
    output_size: int

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        x = jnp.concatenate(inputs, axis=-1)
        for size in self.config.hidden:
            x = ACTIVATIONS[self.config.activation](nn.Dense(size)(x))
        return nn.Dense(self.output_size)(x)


def make(config: Config, input_sizes: tuple[int, ...], output_size: int) -> Network:
    """A perceptron: `apply(params, *inputs [..., I]) -> [..., O]`.

    Args:
      config: hidden layers.
      input_sizes: I of each input; the inputs are concatenated.
      output_size: O; the output is unbounded.
    """
    module = _Mlp(config, output_size)
    examples = [jnp.zeros((size,), jnp.float32) for size in input_sizes]

    def apply(params: Params, *inputs: jax.Array) -> jax.Array:
        return module.apply(params, *inputs)  # type: ignore[return-value]

    return Network(init=lambda key: module.init(key, *examples), apply=apply)


def make_scalar(config: Config, input_sizes: tuple[int, ...]) -> Network:
    """A perceptron with one output: `apply(params, *inputs [..., I]) -> [...]`.

    Args:
      config: hidden layers.
      input_sizes: I of each input; the inputs are concatenated.
    """
    network = make(config, input_sizes, 1)
    return network._replace(apply=lambda params, *xs: network.apply(params, *xs)[..., 0])
