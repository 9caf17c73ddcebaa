"""Gradient steps, as every agent takes them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from planil_jax.base import Fit, Metrics, Transition
from planil_jax.nets import fit

# (params, *inputs) -> (loss [], metrics)
Loss = Callable[..., tuple[jax.Array, Metrics]]


def gradient_step(
    optimizer: fit.Optimizer, fitted: Fit, loss_fn: Loss, *inputs: Any
) -> tuple[Fit, Metrics]:
    """One step of the optimiser down the gradient of `loss_fn(params, *inputs)`."""
    gradients, metrics = jax.grad(loss_fn, has_aux=True)(fitted.params, *inputs)
    return optimizer.step(fitted, gradients), metrics


def scan_mean(
    step: Callable[[Any, Any], tuple[Any, Metrics]], state: Any, inputs: Any
) -> tuple[Any, Metrics]:
    """`step(state, input) -> (state, metrics)` over the inputs; metrics are their means.

    Args:
      inputs: a tree of arrays `[N, ...]`: N steps are taken.

    Returns:
      The last state, and the mean of each metric over the N steps.
    """
    state, metrics = jax.lax.scan(step, state, inputs)
    return state, jax.tree.map(jnp.mean, metrics)


def flatten(rollout: Any) -> Any:
    """A rollout's leaves `[T, E, ...]` as one batch, `[T E, ...]`."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rollout)


def starts_anew(rollout: Transition) -> jax.Array:
    """Where a rollout `[T, E]` does not go on from the one before, `[E]` bool.

    Its first step is not valid there, and a copy stands in its place.
    """
    if rollout.valid is None:
        return jnp.zeros(rollout.terminal.shape[1:], bool)
    return ~rollout.valid[0]
