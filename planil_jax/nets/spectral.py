"""Spectral normalisation: every kernel divided by its largest singular value.

    W̄ = W / σ(W),   σ(W) = uᵀ W v

Source: Miyato et al. 2018, Spectral Normalization for GANs, arXiv 1802.05957, eq. 8.
Departures: the power iteration starts afresh from one fixed vector and takes more steps,
so that the normalised parameters are a pure function of the raw ones and no vector has to be
carried, saved and restored.
"""

import jax
import jax.numpy as jnp

from planil_jax.base import Params


def normalise(params: Params, iterations: int = 12) -> Params:
    """Divides each matrix in `params` by its spectral norm; biases stay.

    Gradients flow through W and σ(W), with u and v held fixed.
    """

    def one(leaf: jax.Array) -> jax.Array:
        return leaf / spectral_norm(leaf, iterations) if leaf.ndim == 2 else leaf

    return jax.tree.map(one, params)


def spectral_norm(matrix: jax.Array, iterations: int = 12) -> jax.Array:
    """Largest singular value of `matrix` [I, O], by power iteration on its smaller Gram matrix."""
    fixed = jax.lax.stop_gradient(matrix)
    if fixed.shape[0] < fixed.shape[1]:
        matrix, fixed = matrix.T, fixed.T
    gram = fixed.T @ fixed
    v = jax.random.normal(jax.random.key(0), gram.shape[:1])
    for _ in range(iterations):
        gram_v = gram @ v
        v = gram_v / jnp.sqrt(jnp.sum(gram_v**2) + 1e-12)
    u = fixed @ v
    u = u / jnp.sqrt(jnp.sum(u**2) + 1e-12)
    return u @ matrix @ v
