"""Losses of models that predict their own features."""

import chex
import jax
import jax.numpy as jnp


def over_horizon(losses: jax.Array, decay: float) -> jax.Array:
    """Σ_{t<H} ρ^t loss_t / H of `[H]`, `[]`: what is foreseen farther ahead counts less."""
    chex.assert_rank(losses, 1)
    weights = decay ** jnp.arange(losses.shape[0], dtype=jnp.float32)
    return jnp.mean(weights * losses)


def consistency(predicted: jax.Array, encoded: jax.Array, decay: float) -> jax.Array:
    """How far latent states as foreseen are from those that were encoded, `[]`.

        Σ_{t<H} ρ^t E[mean_i (z_{t+1,i} - ẑ_{t+1,i})²] / H

    Hansen, Su & Wang 2024, TD-MPC2, arXiv 2310.16828, eq. 3, with the mean over entries
    that its published code takes.

    Args:
      predicted, encoded: `[H, B, Z]`; stop the gradient of `encoded` before.
      decay: ρ.
    """
    chex.assert_rank([predicted, encoded], 3)
    chex.assert_equal_shape([predicted, encoded])
    return over_horizon(jnp.mean((predicted - encoded) ** 2, axis=(1, 2)), decay)


def gaussian(
    mean: jax.Array, std: jax.Array, observed: jax.Array, decay: float = 1.0
) -> jax.Array:
    """-log likelihood of what was observed, less a constant, `[]`.

        Σ_{t<H} ρ^t E[mean_i ½ ((s_{t+1,i} - mean_i) / σ_i)² + log σ_i] / H

    With σ = 1 it is half the mean squared error. Chua et al. 2018, PETS, arXiv 1805.12114,
    section 4, with a mean over entries.

    Args:
      mean, std, observed: `[H, B, O]`.
      decay: ρ.
    """
    chex.assert_rank([mean, std, observed], 3)
    chex.assert_equal_shape([mean, std, observed])
    losses = 0.5 * ((observed - mean) / std) ** 2 + jnp.log(std)
    return over_horizon(jnp.mean(losses, axis=(1, 2)), decay)
