"""Returns of one trajectory."""

import chex
import jax
import jax.numpy as jnp


def lambda_returns(
    rewards: jax.Array,
    next_values: jax.Array,
    discounts: jax.Array,
    cut: jax.Array,
    td_lambda: float,
) -> jax.Array:
    """λ-returns of one trajectory, `[T]`.

        G_t = r_t + γ_t [(1 - λ_t) V(s_{t+1}) + λ_t G_{t+1}],   λ_t = 0 where cut

    Sutton & Barto 2018, eq. 12.18. The last step bootstraps.

    Args:
      rewards: `[T]`.
      next_values: `[T]`, V(s_{t+1}) of the true successor.
      discounts: `[T]`, γ, or 0 where s_{t+1} is terminal.
      cut: `[T]` bool, whether the episode stops with this step, by an end or by a reset.
      td_lambda: λ in [0, 1].
    """
    chex.assert_rank([rewards, next_values, discounts, cut], 1)
    chex.assert_equal_shape([rewards, next_values, discounts, cut])
    lambdas = jnp.where(cut, 0.0, td_lambda).at[-1].set(0.0)  # [T]

    def backwards(next_return, step):
        reward, next_value, discount, lambda_t = step
        mixed = (1 - lambda_t) * next_value + lambda_t * next_return
        value = reward + discount * mixed
        return value, value

    start = jnp.zeros((), rewards.dtype)
    steps = (rewards, next_values, discounts, lambdas)
    return jax.lax.scan(backwards, start, steps, reverse=True)[1]


def advantages(
    rewards: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    discounts: jax.Array,
    cut: jax.Array,
    td_lambda: float,
) -> tuple[jax.Array, jax.Array]:
    """Generalised advantages (GAE) and λ-returns of one trajectory, `[T]` each.

        A_t = δ_t + γ_t λ_t A_{t+1} = G_t - V(s_t),   δ_t = r_t + γ_t V(s_{t+1}) - V(s_t)

    Schulman et al. 2016, arXiv 1506.02438, eq. 16. The second form is computed. It equals
    the first where `next_values[t]` is `values[t + 1]` at all steps that are not cut.

    Args:
      values: `[T]`, V(s_t); the rest as for `lambda_returns`.
    """
    chex.assert_equal_shape([rewards, values])
    targets = lambda_returns(rewards, next_values, discounts, cut, td_lambda)
    return targets - values, targets
