"""A gradient step of a loss, the same for every agent."""

from collections.abc import Callable
from typing import Any

import jax

from planil_jax.base import Fit, Metrics
from planil_jax.nets import fit

Loss = Callable[..., tuple[jax.Array, Metrics]]  # (params, *args) -> (loss [], metrics)


def step(
    optimizer: fit.Optimizer, loss_fn: Loss, fitted: Fit, *args: Any
) -> tuple[Fit, Metrics]:
    """One step down the gradient of `loss_fn(params, *args)` in `params` alone."""
    gradients, metrics = jax.grad(loss_fn, has_aux=True)(fitted.params, *args)
    return optimizer.step(fitted, gradients), metrics
