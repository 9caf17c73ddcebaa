"""Learned forward models of observations: an ensemble of M networks.

    s' = s + Δ̄ + σ_Δ y,   y ~ N(mean, std²) of the network at ((s - s̄) / σ_s, a)

s̄, σ_s, Δ̄ and σ_Δ are the mean and deviation of all observations so far, and of their
changes. The action a is scaled to [-1, 1]. A deterministic network outputs y itself.

One member is a `Dynamics`, through which a policy can be differentiated. All members
together are another, which shows planners an observation of each member, `[M, O]`.

Source: Chua et al. 2018, PETS, arXiv 1805.12114, section 4.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.base import Dynamics, EnvSpec, Params
from planil_jax.config import Count
from planil_jax.nets import forward, normalise
from planil_jax.nets.normalise import Moments

_MIN_DEVIATION = 1e-6  # of a change, in units of its observation


@dataclass(frozen=True, kw_only=True)
class Config:
    network: forward.Config = field(default_factory=forward.Config)  # of one member
    members: Count = 1  # M, networks that learn apart and predict together


@struct.dataclass
class ModelParams:
    """Parameters of all members, or of one: then `networks` has no axis `[M]`."""

    networks: Params  # [M]
    obs: Moments  # of observations
    change: Moments  # of next_obs - obs


@struct.dataclass
class ModelState:
    """The state z of one member."""

    obs: jax.Array  # [O] as it predicts it
    memory: jax.Array  # [G] of a recurrent network


# Which leaves of ModelParams have the axis [M]: `jax.vmap(f, (EACH, ...))` maps members.
EACH = ModelParams(networks=0, obs=None, change=None)  # type: ignore[arg-type]


class Ensemble(NamedTuple):
    """M models; actions are in the environment's units."""

    member: Dynamics  # of one: z is a ModelState, `observe` gives [O]
    dynamics: Dynamics  # of all: z is a ModelState [M], `observe` gives [M, O]
    # (params of one, obs [H + 1, O], actions [H, U]) -> mean [H, O] and std [H, O] of the
    # observations after the first, each predicted from the mean before it
    predict: Callable[[ModelParams, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def make(spec: EnvSpec, config: Config) -> Ensemble:
    """Models of an environment of this spec."""
    size = spec.observation_size
    network = forward.make(config.network, (size, spec.action_size), size)
    low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)

    def to_unit_interval(action: jax.Array) -> jax.Array:
        return (2 * action - low - high) / (high - low)  # [-1, 1]

    def init(key: jax.Array) -> ModelParams:
        return ModelParams(network.init(key), normalise.init(size), normalise.init(size))

    def recover(params: ModelParams, obs: jax.Array) -> ModelState:
        del params
        return ModelState(obs, network.memory())

    def predict_step(params: ModelParams, z: ModelState, action: jax.Array):
        """The mean of z after an action, and the deviation `[O]` of its observation."""
        inputs = normalise.apply(params.obs, z.obs), to_unit_interval(action)
        memory, mean, std = network.apply(params.networks, z.memory, *inputs)
        scale = deviation(params.change)
        return ModelState(z.obs + params.change.mean + scale * mean, memory), scale * std

    def step(
        params: ModelParams, z: ModelState, action: jax.Array, key: jax.Array
    ) -> ModelState:
        z, std = predict_step(params, z, action)
        if not config.network.probabilistic:
            return z
        return ModelState(z.obs + std * jax.random.normal(key, std.shape), z.memory)

    def predict(params: ModelParams, obs: jax.Array, actions: jax.Array):
        chex.assert_rank([obs, actions], 2)

        def predict_next(z: ModelState, action: jax.Array):
            z, std = predict_step(params, z, action)
            return z, (z.obs, std)

        return jax.lax.scan(predict_next, recover(params, obs[0]), actions)[1]

    member = Dynamics(
        init=init,
        start=lambda params, state: recover(params, state.obs),
        step=step,
        observe=lambda params, z: z.obs,
        recover=recover,
    )
    return Ensemble(member, _all_members(member, recover, config.members), predict)


def _all_members(member: Dynamics, recover_one: Callable, count: int) -> Dynamics:
    """All members under the same actions, each with its own noise."""

    def init(key: jax.Array) -> ModelParams:
        return jax.vmap(member.init, out_axes=EACH)(jax.random.split(key, count))

    def step(
        params: ModelParams, z: ModelState, action: jax.Array, key: jax.Array
    ) -> ModelState:
        keys = jax.random.split(key, count)
        return jax.vmap(member.step, (EACH, 0, None, 0))(params, z, action, keys)

    def recover(params: ModelParams, obs: jax.Array) -> ModelState:
        return jax.vmap(recover_one, (EACH, None))(params, obs)

    return Dynamics(
        init=init,
        start=lambda params, state: recover(params, state.obs),
        step=step,
        observe=lambda params, z: z.obs,
        recover=recover,
    )


def deviation(moments: Moments) -> jax.Array:
    """The standard deviation `[F]`, never 0."""
    return jnp.sqrt(jnp.maximum(moments.variance, _MIN_DEVIATION**2))


def update_normalizer(
    params: ModelParams, obs: jax.Array, next_obs: jax.Array
) -> ModelParams:
    """The parameters with observations `[..., O]` and their successors normalised for."""
    return ModelParams(
        networks=params.networks,
        obs=normalise.update(params.obs, obs),
        change=normalise.update(params.change, next_obs - obs),
    )


def errors(
    ensemble: Ensemble, params: ModelParams, obs: jax.Array, actions: jax.Array
) -> jax.Array:
    """Errors of the members' mean after each step, `[H, O]`, in units of the entry.

    They are root mean squares over sequences.

    Args:
      obs: `[H + 1, B, O]`.
      actions: `[H, B, U]`.
    """
    chex.assert_rank([obs, actions], 3)
    predict = jax.vmap(ensemble.predict, (None, 1, 1), 1)  # over B
    means, _ = jax.vmap(predict, (EACH, None, None))(params, obs, actions)  # [M, H, B, O]
    return jnp.sqrt(jnp.mean((jnp.mean(means, axis=0) - obs[1:]) ** 2, axis=1))
