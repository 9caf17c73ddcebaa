"""Arrays and parameters drawn by NumPy, for which nothing is compiled."""

import jax
import jax.numpy as jnp
import numpy as np


def normal(*shape, seed: int = 1, scale: float = 1.0) -> jax.Array:
    drawn = scale * np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(drawn, jnp.float32)


def random_params(tree, seed: int = 0):
    """Parameters of these shapes, none of which is zero; nothing is compiled for them."""
    leaves, structure = jax.tree.flatten(tree)
    drawn = [
        normal(*leaf.shape, seed=100 * seed + i, scale=0.4) for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, drawn)
