"""The path of a policy through a model, to be differentiated.

    z_0 = recover(s_0),   s_t = observe(z_t)
    a_t = act(s_t, x_t),  z_{t+1} = step(z_t, a_t)

The inputs x_t, such as noise, are drawn beforehand. So a sum of costs of s_t and a_t has a
gradient in the policy's parameters through all of its steps.

The states need not be the model's: `straight_through` visits the states of physics or of a
recorded path, and has the model's gradients there.

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
      params: of the dynamics.
      start: s_0 `[O]`.
      inputs: x of `act`, a tree of `[H, ...]`.
      keys: of the dynamics, `[H]`.
    """
    assert dynamics.recover is not None

    def step(z, inputs_and_key):
        step_inputs, key = inputs_and_key
        obs = dynamics.observe(params, z)
        action = act(obs, step_inputs)
        return dynamics.step(params, z, action, key), (obs, action)

    return jax.lax.scan(step, dynamics.recover(params, start), (inputs, keys))[1]


def straight_through(model: Dynamics, real: Dynamics) -> Dynamics:
    """Visits the states of `real`, and has the slopes of `model` there.

        s' = s'_real + [f(s, a) - sg f(s, a)]

    Its parameters are the pair (of `model`, of `real`), and so is its z. Nothing is
    differentiated through `real`.

    Args:
      model: a member of an ensemble; its z has a field `obs`.
      real: physics or `recorded()`. Both can `recover`.
    """
    assert model.recover is not None and real.recover is not None
    model_recover, real_recover = model.recover, real.recover
    stop = jax.lax.stop_gradient

    def recover(params, obs: jax.Array):
        return model_recover(params[0], obs), real_recover(params[1], stop(obs))

    def step(params, z, action: jax.Array, key: jax.Array):
        model_key, real_key = jax.random.split(key)
        predicted = model.step(params[0], z[0], action, model_key)
        next_z = stop(real.step(params[1], z[1], stop(action), real_key))
        next_obs = real.observe(params[1], next_z)
        # The bracket is exactly 0.
        corrected = next_obs + (predicted.obs - stop(predicted.obs))
        return predicted.replace(obs=corrected), next_z

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
    """A recorded path: its parameters are observations `[H + 1, O]`; actions do nothing.

    Its z is the index of the present observation, `[]` int32.
    """

    def first(params, _) -> jax.Array:
        return jnp.zeros((), jnp.int32)

    return Dynamics(
        init=lambda key: (),
        start=first,
        step=lambda params, time, action, key: time + 1,
        observe=lambda params, time: params[time],
        recover=first,
    )


def differentiable(dynamics: Dynamics, spec: EnvSpec) -> bool:
    """Whether a step can be differentiated in its action; nothing is run.

    Args:
      dynamics: one that can `recover` and has no parameters.
      spec: of its environment.
    """

    def sum_of_next_obs(action: jax.Array, obs: jax.Array, key: jax.Array) -> jax.Array:
        assert dynamics.recover is not None
        z = dynamics.step((), dynamics.recover((), obs), action, key)
        return jnp.sum(dynamics.observe((), z))

    sizes = spec.action_size, spec.observation_size
    vectors = [jax.ShapeDtypeStruct((size,), jnp.float32) for size in sizes]
    try:
        jax.eval_shape(jax.grad(sum_of_next_obs), *vectors, jax.random.key(0))
    except (ValueError, NotImplementedError):
        return False
    return True
