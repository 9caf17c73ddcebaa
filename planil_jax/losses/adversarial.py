"""Discriminators: their losses, and rewards made of their logits.

One sign everywhere: a *high logit means expert*, D = σ(logit) = P(expert).
A loss takes logits or a function that makes them; it knows no network.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

# Reward of a logit l. Its sign decides tasks that can end early: at l = 0 a form that pays
# for living (gail_pos, prob) rewards survival, one that charges for it (gail_neg) ending.
REWARDS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "logit": lambda logit: logit,  # log D - log(1 - D): AIRL, DAC, MPAIL
    "gail_pos": jax.nn.softplus,  # -log(1 - D) >= 0: Ho & Ermon's code
    "gail_neg": jax.nn.log_sigmoid,  # log D <= 0
    "prob": jax.nn.sigmoid,  # D: V-MAIL's code
    "neg_prob": lambda logit: -jax.nn.sigmoid(-logit),  # -(1 - D): MAIL
}


def cross_entropy(expert_logits: jax.Array, learner_logits: jax.Array) -> jax.Array:
    """Binary cross-entropy, each class averaged on its own and so weighted alike, `[]`.

        L = E_expert[softplus(-l)] + E_learner[softplus(l)]

    Ho & Ermon 2016, eq. 15; Torabi et al. 2018 (GAIfO), eq. 4, on pairs (s, s').
    """
    chex.assert_rank([expert_logits, learner_logits], 1)
    return jnp.mean(jax.nn.softplus(-expert_logits)) + jnp.mean(
        jax.nn.softplus(learner_logits)
    )


def accuracy(expert_logits: jax.Array, learner_logits: jax.Array) -> jax.Array:
    """Share of samples on their side of zero, each class weighted alike, `[]` in [0, 1]."""
    chex.assert_rank([expert_logits, learner_logits], 1)
    return 0.5 * (jnp.mean(expert_logits > 0) + jnp.mean(learner_logits <= 0))
