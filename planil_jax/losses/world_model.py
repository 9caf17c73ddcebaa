"""Losses of models that predict their own features or observations."""

import chex
import jax
import jax.numpy as jnp


def over_horizon(losses: jax.Array, decay: float) -> jax.Array:
    """Σ_{t<H} ρ^t loss_t / H of `[H]`, `[]`: later predictions count less."""
    chex.assert_rank(losses, 1)
    weights = decay ** jnp.arange(losses.shape[0], dtype=jnp.float32)
    return jnp.mean(weights * losses)


def consistency(predicted: jax.Array, encoded: jax.Array, decay: float) -> jax.Array:
    """The distance of predicted latent states from encoded ones, `[]`.

        Σ_{t<H} ρ^t E[mean_i (z_{t+1,i} - ẑ_{t+1,i})²] / H

    Hansen, Su & Wang 2024, TD-MPC2, arXiv 2310.16828, eq. 3, with the mean over entries
    that its published code takes.

    Args:
      predicted, encoded: `[H, B, Z]`; stop the gradient of `encoded` before the call.
      decay: ρ in [0, 1].
    """
    chex.assert_rank([predicted, encoded], 3)
    chex.assert_equal_shape([predicted, encoded])
    return over_horizon(jnp.mean((predicted - encoded) ** 2, axis=(1, 2)), decay)


def gaussian(
    mean: jax.Array, std: jax.Array, observed: jax.Array, decay: float = 1.0
) -> jax.Array:
    """The negative log likelihood of observations, up to a constant, `[]`.

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


def kl(
    mean: jax.Array, std: jax.Array, other_mean: jax.Array, other_std: jax.Array
) -> jax.Array:
    """KL(N(μ, σ²) || N(m, s²)) of Gaussians with independent entries, `[..]`, in nats.

        Σ_i log(s_i / σ_i) + (σ_i² + (μ_i - m_i)²) / (2 s_i²) - ½

    Args:
      mean, std, other_mean, other_std: `[.., Z]`.
    """
    chex.assert_equal_shape([mean, std, other_mean, other_std])
    ratio = std / other_std
    gap = (mean - other_mean) / other_std
    return jnp.sum(0.5 * (ratio**2 + gap**2 - 1) - jnp.log(ratio), axis=-1)


def balanced_kl(
    posterior: tuple[jax.Array, jax.Array],
    prior: tuple[jax.Array, jax.Array],
    balance: float,
    free: float,
) -> jax.Array:
    """E KL(posterior || prior) with KL balancing and free nats, `[]`.

        β max(E KL(sg(q) || p), free) + (1 - β) max(E KL(q || sg(p)), free)

    With β > ½ the prior learns more than the posterior. Hafner et al. 2021, DreamerV2,
    arXiv 2010.02193, algorithm 2; free nats apply to the mean and not to every step, as in
    its code.

    Args:
      posterior, prior: q and p, each a mean and a standard deviation `[.., Z]`.
      balance: β in [0, 1].
      free: nats below which there is no gradient.
    """
    stop = jax.lax.stop_gradient
    of_prior = jnp.mean(kl(*stop(posterior), *prior))
    of_posterior = jnp.mean(kl(*posterior, *stop(prior)))
    return balance * jnp.maximum(of_prior, free) + (1 - balance) * jnp.maximum(
        of_posterior, free
    )
