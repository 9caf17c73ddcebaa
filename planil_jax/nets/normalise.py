"""Running means and variances of what a network reads.

    count, mean, M2 of the union of two sets from those of each, M2 = Σ (x - mean)²

Source: Chan, Golub & LeVeque 1979, Updating Formulae and a Pairwise Algorithm.
"""

import jax
import jax.numpy as jnp
from flax import struct

_FLOOR = 1e-6  # of a variance: an entry that never changed is not blown up
_FARTHEST = 10.0  # deviations beyond which an entry is cut off


@struct.dataclass
class Moments:
    """Of vectors [F] seen so far; fresh ones change nothing that is normalised."""

    count: jax.Array  # []
    mean: jax.Array  # [F]
    variance: jax.Array  # [F]


def init(size: int) -> Moments:
    return Moments(
        count=jnp.zeros((), jnp.float32),
        mean=jnp.zeros((size,), jnp.float32),
        variance=jnp.ones((size,), jnp.float32),
    )


def update(moments: Moments, batch: jax.Array, stats_cap: float = float("inf")) -> Moments:
    """Takes in `batch` `[..., F]`.

    Args:
      memory: the most that `count` may be, so that what is older fades.
    """
    rows = batch.reshape(-1, batch.shape[-1])
    count = jnp.asarray(rows.shape[0], jnp.float32)
    share = count / (moments.count + count)
    gap = jnp.mean(rows, axis=0) - moments.mean
    variance = moments.variance + share * (jnp.var(rows, axis=0) - moments.variance)
    return Moments(
        count=jnp.minimum(moments.count + count, stats_cap),
        mean=moments.mean + share * gap,
        variance=variance + share * (1 - share) * gap**2,
    )


def apply(moments: Moments, x: jax.Array) -> jax.Array:
    """`x` `[..., F]` at mean 0 and variance 1, cut off at ±10."""
    deviation = jnp.sqrt(jnp.maximum(moments.variance, _FLOOR))
    return jnp.clip((x - moments.mean) / deviation, -_FARTHEST, _FARTHEST)
