"""A learned forward model of observations, and how it is fitted.

    max E log p(s' | s, a)    on steps that were taken, each member on its own share of them

Source: Chua et al. 2018, PETS, arXiv 1805.12114, section 4.
Departures: a batch is divided among the members, where PETS resamples all data for each.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from planil_jax.agents.common import learning
from planil_jax.base import EnvSpec, Fit, Metrics, Params, Transition
from planil_jax.losses import world_model
from planil_jax.models import ensemble
from planil_jax.nets import fit


class Learner(NamedTuple):
    """The models, and the optimiser of their networks `[M]`."""

    ensemble: ensemble.Ensemble
    fit: fit.Optimizer


def make(spec: EnvSpec, config: ensemble.Config, learning_rate: float) -> Learner:
    """Models of an environment of this spec, fitted by Adam."""
    return Learner(ensemble.make(spec, config), fit.make(optax.adam(learning_rate)))


def step(
    learner: Learner,
    fitted: Fit,
    model: ensemble.ModelParams,
    obs: jax.Array,
    actions: jax.Array,
) -> tuple[Fit, Metrics]:
    """One gradient step on sequences obs `[H + 1, B, O]` and actions `[H, B, U]`.

    Args:
      fitted: the networks and their optimiser's state.
      model: gives the normalisers, which stay; its networks are not read.
    """

    def loss_fn(networks: Params) -> tuple[jax.Array, Metrics]:
        params = ensemble.ModelParams(networks, model.obs, model.change)
        value = loss(learner, params, obs, actions)
        return value, {"model/loss": value}

    return learning.gradient_step(learner.fit, fitted, loss_fn)


def loss(
    learner: Learner, model: ensemble.ModelParams, obs: jax.Array, actions: jax.Array
) -> jax.Array:
    """-log likelihood of sequences, `[]`, in deviations of a change and less a constant.

        mean over members, steps and entries of ½ ((s' - mean) / std)² + log std

    Chua et al. 2018, section 4.

    Args:
      obs: `[H + 1, B, O]`; member m learns from the m-th of M equal parts of B.
      actions: `[H, B, U]`.
    """
    members = jax.tree.leaves(model.networks)[0].shape[0]
    scale = ensemble.deviation(model.change)  # [O]
    predict = jax.vmap(learner.ensemble.predict, (None, 1, 1), 1)  # over B

    def member_loss(member: ensemble.ModelParams, obs: jax.Array, actions: jax.Array):
        mean, std = predict(member, obs, actions)  # [H, B / M, O]
        return world_model.gaussian(mean / scale, std / scale, obs[1:] / scale)

    parts = shared(obs, members), shared(actions, members)
    return jnp.mean(jax.vmap(member_loss, (ensemble.EACH, 1, 1))(model, *parts))


def fresh_errors(
    learner: Learner, model: ensemble.ModelParams, rollout: Transition
) -> Metrics:
    """Errors of one-step predictions on a rollout `[T, E]` that was not learned from yet.

    They are root mean squares in deviations of a change: 1 is as good as the mean change.
    """
    obs = jnp.stack([rollout.obs, rollout.next_obs]).reshape(2, -1, rollout.obs.shape[-1])
    actions = rollout.action.reshape(1, -1, rollout.action.shape[-1])
    errors = ensemble.errors(learner.ensemble, model, obs, actions)[0]  # [O]
    errors = errors / ensemble.deviation(model.change)
    return {"model/fresh_error": jnp.mean(errors), "model/worst_error": jnp.max(errors)}


def shared(leaf: jax.Array, members: int) -> jax.Array:
    """`[T, B, ...]` divided among members, `[T, M, B / M, ...]`."""
    return leaf.reshape(leaf.shape[0], members, -1, *leaf.shape[2:])
