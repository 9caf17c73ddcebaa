"""Losses of discriminators, and rewards of their logits.

One sign everywhere: a *high logit means expert*, D = σ(l) = P(expert). A loss takes logits,
or a function that computes them; it knows no network.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import chex
import jax
import jax.numpy as jnp

from planil_jax.base import Metrics, UsageError

# The forms of a reward, for a field of a configuration.
Reward: TypeAlias = Literal["logit", "gail_pos", "gail_neg", "prob", "neg_prob"]

# Reward of a logit l. Its sign matters where an episode can end early: at l = 0, positive
# forms (gail_pos, prob) reward a long episode, and negative ones (gail_neg, neg_prob) a
# short one.
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


# How a form of reward biases a task that can end early, whatever is imitated.
BIASES: dict[str, str] = {
    "gail_pos": "pays for every step, so it rewards staying alive by itself",
    "prob": "pays for every step, so it rewards staying alive by itself",
    "gail_neg": "charges for every step, so it rewards an early end by itself",
    "neg_prob": "charges for every step, so it rewards an early end by itself",
}


def cross_entropy(expert_logits: jax.Array, learner_logits: jax.Array) -> jax.Array:
    """Binary cross-entropy of logits `[B]`, both classes weighted alike, `[]`.

        L = E_expert[softplus(-l)] + E_learner[softplus(l)]

    Ho & Ermon 2016, arXiv 1606.03476, Algorithm 1, on pairs (s, a); Torabi et al. 2018
    (GAIfO), arXiv 1807.06158, Algorithm 1, on pairs (s, s').
    """
    chex.assert_rank([expert_logits, learner_logits], 1)
    return jnp.mean(jax.nn.softplus(-expert_logits)) + jnp.mean(
        jax.nn.softplus(learner_logits)
    )


def discrimination(
    expert_logits: jax.Array, learner_logits: jax.Array
) -> tuple[jax.Array, Metrics]:
    """The cross-entropy of logits `[B]`, `[]`, and its metrics."""
    loss = cross_entropy(expert_logits, learner_logits)
    return loss, {
        "discriminator/loss": loss,
        "discriminator/accuracy": accuracy(expert_logits, learner_logits),
        "discriminator/expert_logit": jnp.mean(expert_logits),
        "discriminator/learner_logit": jnp.mean(learner_logits),
    }


def accuracy(expert_logits: jax.Array, learner_logits: jax.Array) -> jax.Array:
    """Share of logits `[B]` that classify right, both classes weighted alike, `[]`."""
    chex.assert_rank([expert_logits, learner_logits], 1)
    return 0.5 * (jnp.mean(expert_logits > 0) + jnp.mean(learner_logits <= 0))


def wasserstein(expert_scores: jax.Array, learner_scores: jax.Array) -> jax.Array:
    """E_learner[f] - E_expert[f] of scores `[B]`, `[]`; a high score means expert.

    Arjovsky et al. 2017, arXiv 1701.07875, eq. 2. Over all f with a slope of at most 1, its
    minimum is the Wasserstein distance, negated. A constant added to f cancels.
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
    """Mean squared distance of the logit's slope between the classes from `norm`, `[]`.

        E[(‖∇ l(x)‖ - norm)²],   x = u x_expert + (1 - u) x_learner,   u ~ U(0, 1)

    Gulrajani et al. 2017, arXiv 1704.00028, eq. 3.

    Args:
      logit_fn: a function of one sample, a tree of float arrays, to `[]`.
      expert, learner: such trees with leaves `[B, ...]`.
      key: of the mixtures u, one a sample.
      norm: the slope that costs nothing.
    """
    mixtures = jax.random.uniform(key, (jax.tree.leaves(expert)[0].shape[0],))  # [B]

    def slope(u: jax.Array, expert: Any, learner: Any) -> jax.Array:
        mixed = jax.tree.map(lambda a, b: u * a + (1 - u) * b, expert, learner)
        gradient = jax.grad(logit_fn)(mixed)
        return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)) + 1e-12)

    return jnp.mean((jax.vmap(slope)(mixtures, expert, learner) - norm) ** 2)


def shaped(
    reward: jax.Array,
    potential: jax.Array,
    next_potential: jax.Array,
    terminal: jax.Array,
    discount: float,
) -> jax.Array:
    """AIRL's shaped reward of steps `[...]`, elementwise.

        f = g(s) + γ (1 - terminal) h(s') - h(s)

    Fu et al. 2018, arXiv 1710.11248, eq. 4. With h = 0 after an end, the discounted sum of
    f over an episode that ends is that of g, less h(s_0).

    Args:
      reward: g(s).
      potential, next_potential: h(s) and h(s').
      terminal: bool, whether the episode ended for good.
      discount: γ.
    """
    return reward + discount * ~terminal * next_potential - potential
