"""Spectral normalisation: every kernel divided by its largest singular value.

    W̄ = W / σ(W),   σ(W) = uᵀ W v

Source: Miyato et al. 2018, Spectral Normalization for GANs, arXiv 1802.05957, eq. 8.
Departures: the power iteration starts afresh from one fixed vector and squares the matrix
as it goes, so that the normalised parameters are a pure function of the raw ones, and no
vector has to be carried, saved and restored.
"""

import jax
import jax.numpy as jnp

from planil_jax.base import Params

_SQUARINGS = 8  # 2⁸ power iterations
_TINY = 1e-30


def normalise(params: Params) -> Params:
    """Divides each matrix in `params` by its spectral norm; biases stay.

    Gradients flow through W and σ(W), with u and v held fixed.
    """

    def one(leaf: jax.Array) -> jax.Array:
        return leaf / jnp.maximum(spectral_norm(leaf), _TINY) if leaf.ndim == 2 else leaf

    return jax.tree.map(one, params)


def spectral_norm(matrix: jax.Array) -> jax.Array:
    """Largest singular value of `matrix` `[I, O]`, within 2% (from below)."""
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    fixed = _unit(jax.lax.stop_gradient(matrix))
    power = fixed.T @ fixed
    for _ in range(_SQUARINGS):
        power = _unit(power)
        power = power @ power
    v = _unit(power @ jax.random.normal(jax.random.key(0), power.shape[:1]))
    u = _unit(fixed @ v)
    return u @ matrix @ v


def _unit(array: jax.Array) -> jax.Array:
    """`array` at Frobenius norm 1; zero stays zero."""
    scale = jnp.max(jnp.abs(array))
    array = array / jnp.maximum(scale, _TINY)
    return array / jnp.sqrt(jnp.maximum(jnp.sum(array**2), _TINY))
