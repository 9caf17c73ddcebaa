"""Two-hot targets: regression by classification over bins.

    symlog(x) = sign(x) log(1 + |x|),   symexp is its inverse

101 bins are evenly spaced over [-10, 10] of symlog(x). A number is encoded as weights of
the two bins next to it, whose weighted mean it is. Logits are decoded as the symexp of the
mean of their softmax.

Source: Hafner et al. 2023, DreamerV3, arXiv 2301.04104, eqs. 8 to 10; Hansen, Su & Wang
2024, TD-MPC2, arXiv 2310.16828.
"""

import jax
import jax.numpy as jnp

BINS = 101
LIMIT = 10.0  # of symlog(x)
_CENTRES = jnp.linspace(-LIMIT, LIMIT, BINS)


def symlog(x: jax.Array) -> jax.Array:
    """sign(x) log(1 + |x|), elementwise."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: jax.Array) -> jax.Array:
    """sign(x) (e^|x| - 1), elementwise: the inverse of `symlog`."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def encode(x: jax.Array) -> jax.Array:
    """Weights `[..., BINS]` of numbers `[...]`; numbers beyond the last bin are clipped."""
    position = (jnp.clip(symlog(x), -LIMIT, LIMIT) + LIMIT) * (BINS - 1) / (2 * LIMIT)
    distance = jnp.abs(position[..., None] - jnp.arange(BINS, dtype=position.dtype))
    return jnp.maximum(1.0 - distance, 0.0)


def decode(logits: jax.Array) -> jax.Array:
    """The numbers `[...]` that logits `[..., BINS]` stand for."""
    return symexp(jax.nn.softmax(logits, axis=-1) @ _CENTRES)


def cross_entropy(logits: jax.Array, x: jax.Array) -> jax.Array:
    """-Σ weights log softmax, `[...]`, of logits `[..., BINS]` for numbers `[...]`."""
    return -jnp.sum(encode(x) * jax.nn.log_softmax(logits, axis=-1), axis=-1)
