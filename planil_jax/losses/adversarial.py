"""Discriminators: their losses, and rewards made of their logits.

One sign everywhere: a *high logit means expert*, D = σ(logit) = P(expert).
A loss takes logits or a function that makes them; it knows no network.
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from planil_jax.base import Metrics, UsageError

# Reward of a logit l. Its sign decides tasks that can end early: at l = 0 a form that pays
# for living (gail_pos, prob) rewards survival, one that charges for it (gail_neg) ending.
REWARDS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "logit": lambda logit: logit,  # log D - log(1 - D): AIRL, DAC, MPAIL
    "gail_pos": jax.nn.softplus,  # -log(1 - D) >= 0: Ho & Ermon's code
    "gail_neg": jax.nn.log_sigmoid,  # log D <= 0
    "prob": jax.nn.sigmoid,  # D: V-MAIL's code
    "neg_prob": lambda logit: -jax.nn.sigmoid(-logit),  # -(1 - D): MAIL
}


def reward_of(form: str) -> Callable[[jax.Array], jax.Array]:
    """The reward of a logit in this form.

    Raises:
      UsageError: there is no such form.
    """
    if form not in REWARDS:
        raise UsageError(f"agent.reward is one of {', '.join(REWARDS)}, not {form!r}.")
    return REWARDS[form]


# What a form of reward does to a task that can end early, whatever is imitated.
BIASES: dict[str, str] = {
    "gail_pos": "pays for every step, so it rewards staying alive by itself",
    "prob": "pays for every step, so it rewards staying alive by itself",
    "gail_neg": "charges for every step, so it rewards an early end by itself",
    "neg_prob": "charges for every step, so it rewards an early end by itself",
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


def discrimination(
    expert_logits: jax.Array, learner_logits: jax.Array
) -> tuple[jax.Array, Metrics]:
    """The cross-entropy of logits `[B]` of each, `[]`, and what reports tell of it."""
    loss = cross_entropy(expert_logits, learner_logits)
    return loss, {
        "discriminator/loss": loss,
        "discriminator/accuracy": accuracy(expert_logits, learner_logits),
        "discriminator/expert_logit": jnp.mean(expert_logits),
        "discriminator/learner_logit": jnp.mean(learner_logits),
    }


def accuracy(expert_logits: jax.Array, learner_logits: jax.Array) -> jax.Array:
    """Share of samples on their side of zero, each class weighted alike, `[]` in [0, 1]."""
    chex.assert_rank([expert_logits, learner_logits], 1)
    return 0.5 * (jnp.mean(expert_logits > 0) + jnp.mean(learner_logits <= 0))


def wasserstein(expert_scores: jax.Array, learner_scores: jax.Array) -> jax.Array:
    """E_learner[f] - E_expert[f] of scores `[B]`, `[]`; a high score means expert.

    Arjovsky et al. 2017, arXiv 1701.07875, eq. 2; with a bound on the slope of f its
    least value is the distance of the two, negated. A constant added to f cancels.
    """
    chex.assert_rank([expert_scores, learner_scores], 1)
    return jnp.mean(learner_scores) - jnp.mean(expert_scores)


def gradient_penalty(
    logit_fn: Callable[[Any], jax.Array],
    expert: Any,
    learner: Any,
    key: jax.Array,
    norm: float = 1.0,
) -> jax.Array:
    """How far the slope of a logit is from `norm` between the classes, squared, `[]`.

        E[(‖∇ l(x)‖ - norm)²],   x = u x_expert + (1 - u) x_learner,   u ~ U(0, 1)

    Gulrajani et al. 2017, arXiv 1704.00028, eq. 3.

    Args:
      logit_fn: of one sample, a tree of float arrays, to `[]`.
      expert, learner: such trees, `[B, ...]`.
    """
    shares = jax.random.uniform(key, (jax.tree.leaves(expert)[0].shape[0],))  # [B]

    def slope(share: jax.Array, one: Any, other: Any) -> jax.Array:
        between = jax.tree.map(lambda a, b: share * a + (1 - share) * b, one, other)
        gradient = jax.grad(logit_fn)(between)
        return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)) + 1e-12)

    return jnp.mean((jax.vmap(slope)(shares, expert, learner) - norm) ** 2)


def shaped(
    reward: jax.Array,
    potential: jax.Array,
    next_potential: jax.Array,
    terminal: jax.Array,
    discount: float,
) -> jax.Array:
    """AIRL's f = g(s) + γ (1 - terminal) h(s') - h(s), elementwise.

    Fu et al. 2018, arXiv 1710.11248, eq. 4, with h = 0 after an end: the discounted sum of
    f over an episode that ends is that of g, less h(s_0).
    """
    return reward + discount * ~terminal * next_potential - potential
