"""Physics as a planner's model: the environment's own, those of another, or of many.

`make(env)` is a perfect model. `make(other)` is a wrong one, where `other` is the same task
with other parameters, `envs.make(name, mass=1.3)`: it starts from the state of the real
environment, whose structure it shares. `members` holds several at once.

A state of another kind, such as that of the same car on another engine, is read off its
observation, where the model can start from one.

A real environment may be wrapped more than the model is. The model then starts from the
layer within that is a state of its own, and what lies around it (noise, delays, a trembling
hand) is what the model does not know. The perfect model of an environment that trembles or
is noisy foresees its very accidents, since their keys are a part of the state.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from planil_jax.base import Dynamics, Environment, EnvState, UsageError


def make(env: Environment) -> Dynamics:
    """A model that steps `env`: perfect of `env` itself, wrong of its like.

    Its `z` is an `EnvState` of `env`. It starts from an observation where that tells all.
    """
    recover = env.recover
    return Dynamics(
        init=lambda key: (),
        start=lambda params, state: _layer(env, state),
        step=lambda params, state, action, key: env.step(state, action)[0],
        observe=lambda params, state: state.obs,
        recover=None if recover is None else lambda params, obs: recover(obs),
    )


def members(models: Sequence[Environment]) -> Dynamics:
    """M models that are rolled side by side under the same actions.

    `start` gives each member the same state; every leaf of `z` has a leading axis `[M]`,
    and `observe` shows `[M, O]`. A planner scores each member as if alone and averages
    the scores over that axis, so that a plan must do well under all of them: domain
    randomisation within a plan. Each member is a program of its own; a handful is meant.

    Args:
      models: one task with M different sets of parameters, wrapped alike, M >= 1.
    """
    if not models:
        raise UsageError("a model of many members needs at least one.")
    parts = [make(model) for model in models]

    def step(params, z, action: jax.Array, key: jax.Array):
        keys = jax.random.split(key, len(parts))
        each = [jax.tree.map(lambda leaf, i=i: leaf[i], z) for i in range(len(parts))]
        return _stack(
            [
                part.step(params, z_i, action, key_i)
                for part, z_i, key_i in zip(parts, each, keys, strict=True)
            ]
        )

    return Dynamics(
        init=lambda key: (),
        start=lambda params, state: _stack([part.start(params, state) for part in parts]),
        step=step,
        observe=lambda params, z: z.obs,  # [M, O]
    )


def prior_or_physics(env: Environment) -> Dynamics:
    """The environment's prior model where it has one, else its own physics."""
    return env.prior or make(env)


def _layer(env: Environment, state: EnvState) -> EnvState:
    """The layer of a state, wrapped or bare, that is a state of `env`."""
    own = jax.eval_shape(env.reset, jax.random.key(0))
    if env.recover is None and not (_wrapped(own) or _wrapped(state)):
        return state
    layer = state
    while not _alike(layer, own):
        if not _wrapped(layer):
            if env.recover is not None:
                return env.recover(state.obs)
            raise UsageError(
                f"a model of {env.spec.name!r} cannot start here: it may have fewer "
                "wrappers than the environment, but no others, from the innermost outwards."
            )
        layer = layer.sim.inner
    return layer


def _wrapped(state: EnvState) -> bool:
    return isinstance(getattr(state.sim, "inner", None), EnvState)


def _alike(state: EnvState, own: EnvState) -> bool:
    shape, own_shape = (
        ([leaf.shape for leaf in jax.tree.leaves(each)], jax.tree.structure(each))
        for each in (state, own)
    )
    return shape == own_shape


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
