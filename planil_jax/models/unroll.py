"""Where a policy leads in a model, as something to differentiate.

    z_0 = recover(s_0),   s_t = observe(z_t)
    a_t = act(s_t, x_t),  z_{t+1} = step(z_t, a_t)

with inputs x_t, such as noise, that were drawn beforehand. A sum of costs of s_t and a_t
then has a gradient of the policy's parameters through all of its steps.

The states need not be the model's own: `straight_through` goes where something real goes,
be it physics or a record, with the model's slopes there.

Source: Heess et al. 2015, Learning Continuous Control Policies by Stochastic Value
Gradients, arXiv 1510.09142.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from planil_jax.base import Dynamics, EnvSpec, Params


def path(
    act: Callable[[jax.Array, Any], jax.Array],
    dynamics: Dynamics,
    params: Params,
    start: jax.Array,
    inputs: Any,
    keys: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """States `[H, O]` and actions `[H, U]` of a policy from an observation on.

    Args:
      act: (obs [O], input) -> action [U].
      dynamics: one that can `recover`.
      start: `[O]`.
      inputs: of `act`, a tree of `[H, ...]`.
      keys: of the model, `[H]`.
    """
    assert dynamics.recover is not None

    def step(z, drawn):
        seen = dynamics.observe(params, z)
        action = act(seen, drawn[0])
        return dynamics.step(params, z, action, drawn[1]), (seen, action)

    return jax.lax.scan(step, dynamics.recover(params, start), (inputs, keys))[1]


def straight_through(model: Dynamics, real: Dynamics) -> Dynamics:
    """Goes where `real` goes, and has the slopes of `model` there.

        s' = s'_real + [f(s, a) - sg f(s, a)]

    Its parameters are those of both, a pair, and so is its z. Nothing is differentiated
    through `real`.

    Args:
      model: a member of an ensemble; its z has a field `obs`.
      real: both can `recover`.
    """
    assert model.recover is not None and real.recover is not None
    model_recover, real_recover = model.recover, real.recover
    stop = jax.lax.stop_gradient

    def recover(params, obs: jax.Array):
        return model_recover(params[0], obs), real_recover(params[1], stop(obs))

    def step(params, z, action: jax.Array, key: jax.Array):
        model_key, real_key = jax.random.split(key)
        foreseen = model.step(params[0], z[0], action, model_key)
        true = stop(real.step(params[1], z[1], stop(action), real_key))
        seen = real.observe(params[1], true)
        # The bracket is 0 to the last bit.
        return foreseen.replace(obs=seen + (foreseen.obs - stop(foreseen.obs))), true

    return Dynamics(
        init=lambda key: (model.init(key), real.init(key)),
        start=lambda params, state: (
            model.start(params[0], state),
            real.start(params[1], state),
        ),
        step=step,
        observe=lambda params, z: model.observe(params[0], z[0]),
        recover=recover,
    )


def recorded() -> Dynamics:
    """What did happen, whatever is done: its parameters are observations `[H + 1, O]`."""

    def first(params, of) -> jax.Array:
        return jnp.zeros((), jnp.int32)

    return Dynamics(
        init=lambda key: (),
        start=first,
        step=lambda params, time, action, key: time + 1,
        observe=lambda params, time: params[time],
        recover=first,
    )


def differentiable(dynamics: Dynamics, spec: EnvSpec) -> bool:
    """Whether a step has a slope in what is done; nothing is run.

    Args:
      dynamics: one that can `recover` and has no parameters.
      spec: of its environment.
    """

    def seen(action: jax.Array, obs: jax.Array, key: jax.Array) -> jax.Array:
        assert dynamics.recover is not None
        z = dynamics.step((), dynamics.recover((), obs), action, key)
        return jnp.sum(dynamics.observe((), z))

    sizes = spec.action_size, spec.observation_size
    vectors = [jax.ShapeDtypeStruct((size,), jnp.float32) for size in sizes]
    try:
        jax.eval_shape(jax.grad(seen), *vectors, jax.random.key(0))
    except (ValueError, NotImplementedError):
        return False
    return True
