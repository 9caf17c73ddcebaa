"""Image observations: a stack of the last frames in place of the vector.

Observation: the last k frames, `[size, size, 3 k]` uint8, the oldest first. At a reset, k
times the first frame. Action, reward, end and inner state are those of the environment.

Images are rendered inside the compiled loop, on any device, by the ray caster. `scenes`
says what each environment looks like.

    envs.make("pendulum:pixels=64")
    envs.make("playground/CheetahRun:action_repeat=2,pixels=64,frames=3,camera=back")

Source: stacks of three frames as in Yarats et al. 2021, DrQ-v2, arXiv 2107.09645, and in
Hansen et al. 2024, TD-MPC2, arXiv 2310.16828.
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
    """The environment with images: `obs` is uint8 `[size, size, 3 frames]`.

    `spec.image` is that shape, and `observation_names` is empty. `state.sim.inner` is the
    state with the vector observation. Prior, expert cost and success are functions of that
    vector, so they become None.

    Apply this wrapper last: then a repeated action renders one image.

    Args:
      env: any environment with vector observations.
      size: pixels along a side.
      scene: what it looks like; None: what `scenes` has for its name.
      frames: the number of stacked frames, the newest in the last three channels.
      camera: name of a camera of the scene; "": the first one.

    Raises:
      UsageError: an option is out of range, the environment shows images already, or it
        has no scene or camera of that name.
    """
    for option, value in (("pixels", size), ("frames", frames)):
        if int(value) != value or value < 1:
            raise UsageError(
                f"environment {env.spec.name!r}: option {option} must be a whole number "
                f">= 1, not {value!r}."
            )
    if env.spec.image is not None:
        raise UsageError(f"environment {env.spec.name!r} shows images already.")
    view = scenes.View(height=size, width=size, camera=camera)
    draw = (scene or scenes.find(env.spec.name))(env.spec.name, view)

    def reset(key: jax.Array) -> EnvState:
        inner = env.reset(key)
        obs = jnp.tile(draw(innermost(inner).sim), frames)  # [size, size, 3 frames]
        return EnvState(sim=Wrapped(inner, ()), obs=obs, time=inner.time)

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        inner, transition = env.step(state.sim.inner, action)
        frame = draw(innermost(inner).sim)
        obs = jnp.concatenate([state.obs[..., 3:], frame], axis=-1)
        next_state = EnvState(sim=Wrapped(inner, ()), obs=obs, time=inner.time)
        return next_state, replace(transition, obs=state.obs, next_obs=obs)

    image = (size, size, 3 * frames)
    spec = env.spec._replace(observation_names=(), image=image)
    return Environment(spec, reset, step, subtasks=env.subtasks)
