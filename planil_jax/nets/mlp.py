"""Multilayer perceptrons as `Network(init, apply)`."""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from planil_jax.base import Network, Params

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "elu": nn.elu,
    "leaky_relu": lambda x: nn.leaky_relu(x, 0.2),
    "relu": nn.relu,
    "silu": nn.silu,
    "tanh": jnp.tanh,
}


@dataclass(frozen=True, kw_only=True)
class Config:
    hidden: tuple[int, ...] = (64, 64)  # units of each hidden layer
    activation: str = "relu"  # a name of ACTIVATIONS


class _Mlp(nn.Module):
    config: Config
    output_size: int

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        x = jnp.concatenate(inputs, axis=-1)
        for size in self.config.hidden:
            x = ACTIVATIONS[self.config.activation](nn.Dense(size)(x))
        return nn.Dense(self.output_size)(x)


def make(config: Config, input_sizes: tuple[int, ...], output_size: int) -> Network:
    """A perceptron of concatenated inputs: `apply(params, *inputs [.., I]) -> [.., O]`."""
    module = _Mlp(config, output_size)
    dummies = [jnp.zeros((size,), jnp.float32) for size in input_sizes]

    def apply(params: Params, *inputs: jax.Array) -> jax.Array:
        return module.apply(params, *inputs)  # type: ignore[return-value]

    return Network(init=lambda key: module.init(key, *dummies), apply=apply)


def make_scalar(config: Config, input_sizes: tuple[int, ...]) -> Network:
    """A perceptron with one output: `apply(params, *inputs [.., I]) -> [..]`."""
    network = make(config, input_sizes, 1)
    return network._replace(apply=lambda params, *xs: network.apply(params, *xs)[..., 0])
