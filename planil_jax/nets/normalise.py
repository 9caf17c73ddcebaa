"""Running means and variances, by which the inputs of networks are normalised.

    n = n_a + n_b,   δ = mean_b - mean_a,   w = n_b / n
    mean = mean_a + w δ
    var  = var_a + w (var_b - var_a) + w (1 - w) δ²

Source: Chan, Golub & LeVeque 1979, Updating Formulae and a Pairwise Algorithm.
"""

import jax
import jax.numpy as jnp
from flax import struct

# Deviations below these are noise, of float32 or of a solver: the entry never changed.
_NOISE_OF_MEAN = 3e-7  # share of the mean
_NOISE = 1e-7  # in the entry's unit
_UNKNOWN = 1e-3  # the deviation by which an entry that never changed is divided
_CLIP = 10.0  # standard deviations


@struct.dataclass
class Moments:
    """Mean and variance of the vectors so far; at first 0 and 1, which change nothing."""

    count: jax.Array  # [] float32, the number of vectors, or their weight
    mean: jax.Array  # [F]
    variance: jax.Array  # [F]


def init(size: int) -> Moments:
    """Moments of no vectors, for vectors of F = `size` entries."""
    return Moments(
        count=jnp.zeros((), jnp.float32),
        mean=jnp.zeros((size,), jnp.float32),
        variance=jnp.ones((size,), jnp.float32),
    )


def update(moments: Moments, batch: jax.Array, stats_cap: float = float("inf")) -> Moments:
    """The moments with the vectors of a batch added.

    Args:
      moments: so far.
      batch: `[..., F]`; all leading axes count alike.
      stats_cap: upper bound of `count`, with which older vectors lose weight.
    """
    rows = batch.reshape(-1, batch.shape[-1])
    count = jnp.asarray(rows.shape[0], jnp.float32)
    share = count / (moments.count + count)
    delta = jnp.mean(rows, axis=0) - moments.mean
    variance = moments.variance + share * (jnp.var(rows, axis=0) - moments.variance)
    return Moments(
        count=jnp.minimum(moments.count + count, stats_cap),
        mean=moments.mean + share * delta,
        variance=variance + share * (1 - share) * delta**2,
    )


def apply(moments: Moments, x: jax.Array) -> jax.Array:
    """`x` `[..., F]` normalised to mean 0 and variance 1, and clipped to ±10."""
    noise = jnp.maximum(_NOISE_OF_MEAN * jnp.abs(moments.mean), _NOISE)
    std = jnp.sqrt(jnp.maximum(moments.variance, noise**2))
    std = jnp.where(moments.variance > noise**2, std, _UNKNOWN)
    return jnp.clip((x - moments.mean) / std, -_CLIP, _CLIP)
