"""Forward models of observations, learned: M networks side by side.

    s' = s + Δ̄ + σ_Δ y,   y ~ N(mean, std²) of the network at ((s - s̄) / σ_s, a)

s̄, σ_s, Δ̄ and σ_Δ are the mean and deviation of observations and of their changes, as far
as they were seen. A deterministic network says y itself.

Every member is a `Dynamics` of its own, through which a policy can be differentiated; all
together are another, which shows planners an observation of each, `[M, O]`.

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
from planil_jax.nets import forward, normalise
from planil_jax.nets.normalise import Moments

_SMALLEST = 1e-6  # deviation of a change, in units of its observation


@dataclass(frozen=True, kw_only=True)
class Config:
    network: forward.Config = field(default_factory=forward.Config)
    members: int = 1  # M


@struct.dataclass
class ModelParams:
    """The parameters: of all members, or of one, whose `networks` has no axis `[M]`."""

    networks: Params  # [M]
    obs: Moments  # of observations
    change: Moments  # of next_obs - obs


@struct.dataclass
class ModelState:
    """Where one member believes the environment to be: its z."""

    obs: jax.Array  # [O]
    memory: jax.Array  # [G]


# Which leaves of Learned have the axis [M]: `jax.vmap(f, (EACH, ...))` goes over members.
EACH = ModelParams(networks=0, obs=None, change=None)  # type: ignore[arg-type]


class Ensemble(NamedTuple):
    """M models; actions are in the environment's units."""

    member: Dynamics  # one of them: `z` is Foreseen, `observe` shows [O]
    dynamics: Dynamics  # all of them: `z` is Foreseen [M], `observe` shows [M, O]
    # (params of one, obs [H + 1, O], actions [H, U]) -> mean [H, O] and std [H, O] of the
    # observations after the first, each foreseen from the mean before
    predict: Callable[[ModelParams, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def make(spec: EnvSpec, config: Config) -> Ensemble:
    """Models of an environment of this spec."""
    size = spec.observation_size
    network = forward.make(config.network, (size, spec.action_size), size)
    low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)

    def init(key: jax.Array) -> ModelParams:
        return ModelParams(network.init(key), normalise.init(size), normalise.init(size))

    def recover(params: ModelParams, obs: jax.Array) -> ModelState:
        del params
        return ModelState(obs, network.memory())

    def predict_step(params: ModelParams, z: ModelState, action: jax.Array):
        """z of the mean, and the deviation `[O]` of its observation."""
        unit = (2 * action - low - high) / (high - low)
        inputs = normalise.apply(params.obs, z.obs), unit
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

        def one(z: ModelState, action: jax.Array):
            z, std = predict_step(params, z, action)
            return z, (z.obs, std)

        return jax.lax.scan(one, recover(params, obs[0]), actions)[1]

    member = Dynamics(
        init=init,
        start=lambda params, state: recover(params, state.obs),
        step=step,
        observe=lambda params, z: z.obs,
        recover=recover,
    )
    return Ensemble(member, _side_by_side(member, recover, config.members), predict)


def _side_by_side(member: Dynamics, recover_one: Callable, count: int) -> Dynamics:
    """All members, under the same actions, each with noise of its own."""

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
    """`[F]`, never 0."""
    return jnp.sqrt(jnp.maximum(moments.variance, _SMALLEST**2))


def update_normalizer(
    params: ModelParams, obs: jax.Array, next_obs: jax.Array
) -> ModelParams:
    """With what was observed, `[..., O]` each, in the normalisers."""
    return ModelParams(
        networks=params.networks,
        obs=normalise.update(params.obs, obs),
        change=normalise.update(params.change, next_obs - obs),
    )


def errors(
    ensemble: Ensemble, params: ModelParams, obs: jax.Array, actions: jax.Array
) -> jax.Array:
    """How far the members' mean is off after each step, `[H, O]`, in units of the entry.

    Root mean squares over sequences; held-out, if the members have not seen these.

    Args:
      obs: `[H + 1, B, O]`.
      actions: `[H, B, U]`.
    """
    chex.assert_rank([obs, actions], 3)
    one = jax.vmap(ensemble.predict, (None, 1, 1), 1)  # over B
    means, _ = jax.vmap(one, (EACH, None, None))(params, obs, actions)  # [M, H, B, O]
    return jnp.sqrt(jnp.mean((jnp.mean(means, axis=0) - obs[1:]) ** 2, axis=1))
