"""Numbers as distributions over bins: regression by classification.

    symlog(x) = sign(x) log(1 + |x|),   symexp its inverse

101 bins are spread evenly over [-10, 10] of symlog(x). A number becomes weights of the two
bins next to it, whose mean it is; logits become the symexp of the mean of their softmax.

Source: Hafner et al. 2023, DreamerV3, arXiv 2301.04104, eqs. 8 to 10; Hansen, Su & Wang
2024, TD-MPC2, arXiv 2310.16828.
"""

import jax
import jax.numpy as jnp

BINS = 101
LIMIT = 10.0  # of symlog(x)
_CENTRES = jnp.linspace(-LIMIT, LIMIT, BINS)


def symlog(x: jax.Array) -> jax.Array:
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: jax.Array) -> jax.Array:
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def encode(x: jax.Array) -> jax.Array:
    """Weights `[..., BINS]` of numbers `[...]`; those beyond the last bins take these."""
    place = (jnp.clip(symlog(x), -LIMIT, LIMIT) + LIMIT) * (BINS - 1) / (2 * LIMIT)
    distance = jnp.abs(place[..., None] - jnp.arange(BINS, dtype=place.dtype))
    return jnp.maximum(1.0 - distance, 0.0)


def decode(logits: jax.Array) -> jax.Array:
    """Numbers `[...]` of logits `[..., BINS]`."""
    return symexp(jax.nn.softmax(logits, axis=-1) @ _CENTRES)


def cross_entropy(logits: jax.Array, x: jax.Array) -> jax.Array:
    """-Σ weights log softmax, `[...]`, of logits `[..., BINS]` for numbers `[...]`."""
    return -jnp.sum(encode(x) * jax.nn.log_softmax(logits, axis=-1), axis=-1)
