"""Spectral normalisation: every kernel divided by its largest singular value.

    W̄ = W / σ(W),   σ(W) = uᵀ W v

Source: Miyato et al. 2018, Spectral Normalization for GANs, arXiv 1802.05957, eq. 8.
Departures: the paper carries u from step to step and iterates once. Here the iteration
starts from a fixed vector every time, and squaring the matrix makes it fast. So the
normalised parameters are a pure function of the raw ones, and no vector is saved.
"""

import jax
import jax.numpy as jnp

from planil_jax.base import Params

_SQUARINGS = 8  # 2⁸ power iterations
_TINY = 1e-30


def normalise(params: Params) -> Params:
    """Divides each matrix in `params` by its spectral norm; other leaves stay.

    Gradients flow through W and σ(W); u and v are constants to them.
    """

    def normalise_leaf(leaf: jax.Array) -> jax.Array:
        return leaf / jnp.maximum(spectral_norm(leaf), _TINY) if leaf.ndim == 2 else leaf

    return jax.tree.map(normalise_leaf, params)


def spectral_norm(matrix: jax.Array) -> jax.Array:
    """The largest singular value [] of `matrix` `[I, O]`; at most 2% too small."""
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    constant = _scale_to_one(jax.lax.stop_gradient(matrix))
    power = constant.T @ constant
    for _ in range(_SQUARINGS):
        power = _scale_to_one(power)
        power = power @ power
    v = _scale_to_one(power @ jax.random.normal(jax.random.key(0), power.shape[:1]))
    u = _scale_to_one(constant @ v)
    return u @ matrix @ v


def _scale_to_one(array: jax.Array) -> jax.Array:
    """The array scaled to Frobenius norm 1; zeros stay zeros."""
    scale = jnp.max(jnp.abs(array))
    array = array / jnp.maximum(scale, _TINY)
    return array / jnp.sqrt(jnp.maximum(jnp.sum(array**2), _TINY))
