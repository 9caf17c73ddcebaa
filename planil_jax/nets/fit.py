"""Parameters that follow gradients, and targets that follow parameters."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from planil_jax.base import Fit, Params


class Optimizer(NamedTuple):
    """An optimiser over `Fit` records."""

    init: Callable[[Params], Fit]
    step: Callable[[Fit, Params], Fit]  # (fit, gradients) -> fit


def make(tx: optax.GradientTransformation) -> Optimizer:
    """Wraps an optax transformation."""

    def step(fit: Fit, gradients: Params) -> Fit:
        updates, opt_state = tx.update(gradients, fit.opt_state, fit.params)
        return Fit(optax.apply_updates(fit.params, updates), opt_state)

    return Optimizer(init=lambda params: Fit(params, tx.init(params)), step=step)


def exponential_decay(
    rate: float, steps: int | None, hold: int = 0
) -> optax.ScalarOrSchedule:
    """A learning rate that stays for `hold` gradient steps, and from then on halves every
    so many; None or 0: it stays."""
    if not steps:
        return rate
    return optax.exponential_decay(rate, steps, 0.5, transition_begin=hold)


def polyak(target: Params, online: Params, rate: float | jax.Array) -> Params:
    """target + rate (online - target): exponentially averaged parameters."""
    return jax.tree.map(lambda t, o: t + rate * (o - t), target, online)
