"""Optimisers over `Fit` states, a learning-rate schedule, and averaged parameters."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from planil_jax.base import Fit, Params


class Optimizer(NamedTuple):
    """An optimiser over `Fit` states."""

    init: Callable[[Params], Fit]  # (params) -> fit
    step: Callable[[Fit, Params], Fit]  # (fit, gradients) -> fit


def make(tx: optax.GradientTransformation) -> Optimizer:
    """An optimiser by an optax transformation, such as `optax.adam(1e-3)`."""

    def step(fit: Fit, gradients: Params) -> Fit:
        updates, opt_state = tx.update(gradients, fit.opt_state, fit.params)
        return Fit(optax.apply_updates(fit.params, updates), opt_state)

    return Optimizer(init=lambda params: Fit(params, tx.init(params)), step=step)


def exponential_decay(
    learning_rate: float, half_life: int | None, hold: int = 0
) -> optax.ScalarOrSchedule:
    """A learning rate that halves again and again.

        α_n = α_0 2^(-max(0, n - hold) / half_life)   at gradient step n

    Args:
      learning_rate: α_0.
      half_life: gradient steps in which it halves; None or 0: it stays constant.
      hold: gradient steps before the decay begins.
    """
    if not half_life:
        return learning_rate
    return optax.exponential_decay(learning_rate, half_life, 0.5, transition_begin=hold)


def polyak(target: Params, online: Params, rate: float | jax.Array) -> Params:
    """Exponentially averaged parameters: target + rate (online - target).

    Polyak & Juditsky 1992 average; Lillicrap et al. 2015, arXiv 1509.02971, average like
    this, with rate τ.

    Args:
      target: the average so far.
      online: the newest parameters, of the same structure.
      rate: share of `online` in the new average, [0, 1].
    """
    return jax.tree.map(lambda t, o: t + rate * (o - t), target, online)
