"""Environments that are seen: the observation is a picture, or a stack of the last ones.

    obs = the last k frames [size, size, 3 k] uint8, the oldest first; k times the first one
    at a reset

Physics, rewards, ends and the state within are those of the environment. Pictures are drawn
inside the compiled loop, on whatever device it runs, of what `scenes` says is there.

    envs.make("pendulum:pixels=64")
    envs.make("playground/CheetahRun:action_repeat=2,pixels=64,frames=3,camera=back")

Source: stacks of three frames as Yarats et al. 2021, DrQ-v2, arXiv 2107.09645, and TD-MPC2,
arXiv 2310.16828, have them.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp

from planil_jax.base import Environment, EnvState, Transition, UsageError
from planil_jax.envs import scenes
from planil_jax.envs.wrappers import Wrapped, innermost


def wrap(
    env: Environment,
    size: int = 64,
    scene: scenes.Scene | None = None,
    *,
    frames: int = 3,
    camera: str = "",
) -> Environment:
    """The environment, seen: `obs` is uint8 `[size, size, 3 frames]`.

    `spec.image` tells that shape, and there are no `observation_names`. The environment's
    own state, with what it would have shown, is `state.sim.inner`. Prior, expert's cost and
    success are None in what comes of it: they are about what is no longer told.

    Wrap last what is wrapped several times: then a repeated action is drawn once.

    Args:
      env: any environment that shows numbers.
      size: pixels along a side.
      scene: what it looks like; None: what `scenes` has for its name.
      frames: the last ones that are shown together, the newest in the last three channels.
      camera: the name of one of the scene's; "": the first.
    """
    for option, value in (("pixels", size), ("frames", frames)):
        if int(value) != value or value < 1:
            raise UsageError(
                f"environment {env.spec.name!r}: option {option} must be a whole number "
                f">= 1, not {value!r}."
            )
    if env.spec.image is not None:
        raise UsageError(f"environment {env.spec.name!r} shows pictures already.")
    view = scenes.View(height=size, width=size, camera=camera)
    draw = (scene or scenes.find(env.spec.name))(env.spec.name, view)

    def reset(key: jax.Array) -> EnvState:
        inner = env.reset(key)
        obs = jnp.tile(draw(innermost(inner).sim), frames)  # [size, size, 3 frames]
        return EnvState(sim=Wrapped(inner, ()), obs=obs, time=inner.time)

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        inner, told = env.step(state.sim.inner, action)
        frame = draw(innermost(inner).sim)
        obs = jnp.concatenate([state.obs[..., 3:], frame], axis=-1)
        following = EnvState(sim=Wrapped(inner, ()), obs=obs, time=inner.time)
        return following, replace(told, obs=state.obs, next_obs=obs)

    image = (size, size, 3 * frames)
    spec = env.spec._replace(observation_names=(), image=image)
    return Environment(spec, reset, step, subtasks=env.subtasks)
