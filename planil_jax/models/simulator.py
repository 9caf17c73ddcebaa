"""A simulator as a planner's model: of the environment itself, or of similar ones.

`make(env)` is a perfect model of `env`. `make(other)` is a wrong model of it, where `other`
is the same task with other parameters, such as `envs.make(name, mass=1.3)`. The model
starts from the state of the real environment, because both states have the same structure.
`members` combines several models.

The real environment may have another engine, so that its states differ in structure. Then
the model starts from the observation, if it has `recover`.

The real environment may have more wrappers than the model. Then the model starts from the
inner state that has its structure, and does not know the outer wrappers (noise, delays,
random actions). A perfect model of an environment with noise or random actions predicts
their very samples, because their random keys are part of the state.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from planil_jax.base import Dynamics, Environment, EnvState, UsageError


def make(env: Environment) -> Dynamics:
    """A model that steps `env`.

    Its state z is an `EnvState` of `env`. It can start from an observation if `env` has
    `recover`.

    Raises:
      UsageError: at `start`, if a state of the real environment contains no state of `env`.
    """
    recover = env.recover
    return Dynamics(
        init=lambda key: (),
        start=lambda params, state: _find_state(env, state),
        step=lambda params, state, action, key: env.step(state, action)[0],
        observe=lambda params, state: state.obs,
        recover=None if recover is None else lambda params, obs: recover(obs),
    )


def members(models: Sequence[Environment]) -> Dynamics:
    """An ensemble of M models that take the same actions.

    `start` gives every member the same state. Every leaf of z has a leading axis `[M]`, and
    `observe` returns `[M, O]`. A planner averages the scores of the members, so a plan must
    do well under all of them: this is domain randomisation within a plan. The members are
    compiled one by one, so M should be small.

    Args:
      models: M >= 1 environments of one task, with the same wrappers and different
        parameters.

    Raises:
      UsageError: there is no model.
    """
    if not models:
        raise UsageError("an ensemble of models needs at least one member.")
    parts = [make(model) for model in models]

    def step(params, z, action: jax.Array, key: jax.Array):
        keys = jax.random.split(key, len(parts))
        states = [jax.tree.map(lambda leaf, i=i: leaf[i], z) for i in range(len(parts))]
        return _stack(
            [
                part.step(params, state, action, member_key)
                for part, state, member_key in zip(parts, states, keys, strict=True)
            ]
        )

    return Dynamics(
        init=lambda key: (),
        start=lambda params, state: _stack([part.start(params, state) for part in parts]),
        step=step,
        observe=lambda params, z: z.obs,  # [M, O]
    )


def prior_or_physics(env: Environment) -> Dynamics:
    """The prior of the environment if it has one, else a perfect model of it."""
    return env.prior or make(env)


def _find_state(env: Environment, state: EnvState) -> EnvState:
    """The state, or the state within its wrappers, that has the structure of `env`'s.

    Raises:
      UsageError: there is none, and `env` cannot recover it from the observation.
    """
    template = jax.eval_shape(env.reset, jax.random.key(0))
    if env.recover is None and not (_is_wrapped(template) or _is_wrapped(state)):
        return state
    inner = state
    while _structure(inner) != _structure(template):
        if not _is_wrapped(inner):
            if env.recover is not None:
                return env.recover(state.obs)
            raise UsageError(
                f"a model of {env.spec.name!r} cannot start here: its wrappers must be the "
                "first of the environment's wrappers, counted from the innermost."
            )
        inner = inner.sim.inner
    return inner


def _is_wrapped(state: EnvState) -> bool:
    return isinstance(getattr(state.sim, "inner", None), EnvState)


def _structure(state: EnvState) -> Any:
    return [leaf.shape for leaf in jax.tree.leaves(state)], jax.tree.structure(state)


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
