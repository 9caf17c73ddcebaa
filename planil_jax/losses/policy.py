"""Losses of policies: PPO's surrogate, SAC's actor and temperature, cloning."""

import chex
import jax
import jax.numpy as jnp


def clipped_surrogate(
    log_probs: jax.Array, old_log_probs: jax.Array, advantages: jax.Array, clip_eps: float
) -> jax.Array:
    """PPO's loss for actions of the old policy, `[]`.

        L = -E[min(ρ A, clip(ρ, 1 - ε, 1 + ε) A)],   ρ = π(a|s) / π_old(a|s)

    Schulman et al. 2017, arXiv 1707.06347, eq. 7.

    Args:
      log_probs, old_log_probs: `[B]`, log π(a|s) and log π_old(a|s).
      advantages: `[B]`, A.
      clip_eps: ε.
    """
    chex.assert_rank([log_probs, old_log_probs, advantages], 1)
    ratio = jnp.exp(jnp.clip(log_probs - old_log_probs, -20.0, 20.0))  # stays finite
    clipped = jnp.clip(ratio, 1 - clip_eps, 1 + clip_eps)
    return -jnp.mean(jnp.minimum(ratio * advantages, clipped * advantages))


def soft_actor(
    log_probs: jax.Array, values: jax.Array, temperature: jax.Array
) -> jax.Array:
    """SAC's loss of the policy, E[α log π(a|s) - Q(s, a)] with a ~ π(·|s), `[]`.

    Haarnoja et al. 2018, arXiv 1812.05905, eq. 7.

    Args:
      log_probs: `[B]`, log π(a|s).
      values: `[B]`, Q(s, a).
      temperature: `[]`, α.
    """
    chex.assert_rank([log_probs, values], 1)
    return jnp.mean(temperature * log_probs - values)


def soft_temperature(
    log_temperature: jax.Array, log_probs: jax.Array, target_entropy: float
) -> jax.Array:
    """SAC's loss of the temperature, -α E[log π(a|s) + H̄], `[]`.

    α rises while the entropy is below H̄. Haarnoja et al. 2018, arXiv 1812.05905, eq. 18,
    as a loss of log α, so that α stays positive.

    Args:
      log_temperature: `[]`, log α.
      log_probs: `[B]` or their mean `[]`, log π(a|s); no gradient goes into them.
      target_entropy: H̄, in nats.
    """
    gap = jax.lax.stop_gradient(jnp.mean(log_probs) + target_entropy)
    return -jnp.exp(log_temperature) * gap


def cloning_likelihood(log_probs: jax.Array) -> jax.Array:
    """-E_expert[log π(a|s)] of log-densities `[B]` of the expert's actions, `[]`."""
    chex.assert_rank(log_probs, 1)
    return -jnp.mean(log_probs)


def cloning_error(actions: jax.Array, expert_actions: jax.Array) -> jax.Array:
    """E_expert‖a - a_E‖² of actions `[B, U]` and the expert's `[B, U]`, `[]`."""
    chex.assert_rank([actions, expert_actions], 2)
    chex.assert_equal_shape([actions, expert_actions])
    return jnp.mean(jnp.sum((actions - expert_actions) ** 2, axis=-1))
