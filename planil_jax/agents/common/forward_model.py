"""What agents with a learned forward model of observations share: how it is fitted.

    max  E log p(s'|s, a)    on steps that were taken, each member on a share of its own

Source: Chua et al. 2018, PETS, arXiv 1805.12114, section 4.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from planil_jax.base import EnvSpec, Fit, Metrics, Params, Transition
from planil_jax.losses import world_model
from planil_jax.models import ensemble
from planil_jax.nets import fit


class Learner(NamedTuple):
    """The models, and what fits their networks `[M]`."""

    ensemble: ensemble.Ensemble
    fit: fit.Optimizer


def make(spec: EnvSpec, config: ensemble.Config, rate: float) -> Learner:
    """Models of an environment of this spec, fitted by Adam at this rate."""
    return Learner(ensemble.make(spec, config), fit.make(optax.adam(rate)))


def step(
    learner: Learner,
    fitted: Fit,
    model: ensemble.ModelParams,
    obs: jax.Array,
    actions: jax.Array,
) -> tuple[Fit, Metrics]:
    """One gradient step on sequences obs `[H + 1, B, O]` and actions `[H, B, U]`.

    Args:
      model: whose networks are those of `fitted`, and whose normalisers stay.
    """

    def of_networks(networks: Params) -> jax.Array:
        tried = ensemble.ModelParams(networks, model.obs, model.change)
        return loss(learner, tried, obs, actions)

    value, gradients = jax.value_and_grad(of_networks)(fitted.params)
    return learner.fit.step(fitted, gradients), {"model/loss": value}


def loss(
    learner: Learner, model: ensemble.ModelParams, obs: jax.Array, actions: jax.Array
) -> jax.Array:
    """-log likelihood of sequences, obs `[H + 1, B, O]` and actions `[H, B, U]`, `[]`; each
    member's of its own share of B."""
    members = jax.tree.leaves(model.networks)[0].shape[0]
    scale = ensemble.deviation(model.change)

    def one(model: ensemble.ModelParams, obs: jax.Array, actions: jax.Array) -> jax.Array:
        predict = jax.vmap(learner.ensemble.predict, (None, 1, 1), 1)
        mean, std = predict(model, obs, actions)
        return world_model.gaussian(mean / scale, std / scale, obs[1:] / scale)

    shares = (shared(obs, members), shared(actions, members))
    return jnp.mean(jax.vmap(one, (ensemble.EACH, 1, 1))(model, *shares))


def fresh_errors(
    learner: Learner, model: ensemble.ModelParams, rollout: Transition
) -> Metrics:
    """Of a step that the model has not seen yet, in deviations of a change."""
    obs = jnp.stack([rollout.obs, rollout.next_obs]).reshape(2, -1, rollout.obs.shape[-1])
    actions = rollout.action.reshape(1, -1, rollout.action.shape[-1])
    found = ensemble.errors(learner.ensemble, model, obs, actions)[0]  # [O]
    found = found / ensemble.deviation(model.change)
    return {"model/fresh_error": jnp.mean(found), "model/worst_error": jnp.max(found)}


def shared(leaf: jax.Array, members: int) -> jax.Array:
    """`[T, B, ...]` as `[T, M, B / M, ...]`."""
    return leaf.reshape(leaf.shape[0], members, -1, *leaf.shape[2:])
