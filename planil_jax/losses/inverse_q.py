"""Inverse soft Q-learning: critics whose Bellman residual is the reward of the expert.

    V(s) = Q(s, a) - β log π(a|s),  a ~ π(·|s)
    r(s, a, s') = Q(s, a) - γ V̄(s')
    L = - E_E[r] + c + E[r²] / (4 α)

where c is (1 - γ) E[V(s_0)], or E[V(s) - γ V̄(s')] of the learner's steps: for exact values
both are the same. The χ² term is an average over the expert's and the learner's steps, so
that at the optimum, where the gradient of c reaches every V,

    r = 4 α (ρ_E - ρ_π) / (ρ_E + ρ_π),   |r| <= 4 α

and rewards beyond ±4α are a sign of divergence.

Source: Garg et al. 2021, IQ-Learn, arXiv 2106.12142, section 4; Li, Huang & Su 2025,
IQ-MPC, arXiv 2410.14081.
"""

import chex
import jax
import jax.numpy as jnp


def decoded_rewards(
    values: jax.Array, next_values: jax.Array, terminal: jax.Array, discount: float
) -> jax.Array:
    """Q(s, a) - γ (1 - terminal) V̄(s'), elementwise."""
    return values - discount * ~terminal * next_values


def inverse_soft_q(
    expert_rewards: jax.Array,
    learner_rewards: jax.Array,
    value_term: jax.Array,
    alpha: float,
) -> jax.Array:
    """L `[]` of decoded rewards `[B]` of expert and learner and the term c `[]`.

    Garg et al. 2021, arXiv 2106.12142, section 4.
    """
    chex.assert_rank([expert_rewards, learner_rewards], 1)
    chex.assert_equal_shape([expert_rewards, learner_rewards])
    squares = (jnp.mean(expert_rewards**2) + jnp.mean(learner_rewards**2)) / 2
    return -jnp.mean(expert_rewards) + value_term + squares / (4 * alpha)
