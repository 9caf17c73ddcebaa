"""MuJoCo's renderer: it draws on the host, one picture at a time, for files and films.

    positions [L + 1, P] of an episode in `with_poses(env, spec)` -> frames [L + 1, H, W, 3]

It draws any environment whose scene is a MuJoCo model; meshes, shadows and reflections too.
It needs OpenGL: the platform that MUJOCO_GL names (egl, osmesa, glfw), or else EGL. The ray
caster (`planil_jax.envs.pixels`) needs none and draws inside the compiled loop.
"""

import contextlib
import copy
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import tqdm

from planil_jax.base import Environment, EnvState, Transition, UsageError, UserError
from planil_jax.envs import mjcf_scene, scenes
from planil_jax.envs.wrappers import Wrapped, innermost

NAME = f"MuJoCo {mujoco.__version__}"
_GEOMS = 10_000  # the most that a scene can hold


class RenderSpec(NamedTuple):
    """A scene, and the view of it."""

    scene: mjcf_scene.ScenePose
    view: scenes.View


def render_spec(name: str, view: scenes.View) -> RenderSpec:
    """How the environment of a name is drawn.

    Raises:
      UsageError: it has no scene, its scene is no MuJoCo model, or there is no such camera.
    """
    scene = scenes.find(name)
    if not isinstance(scene, mjcf_scene.OfModel):
        raise UsageError(
            f"environment {name!r} is no MuJoCo model, and MuJoCo's renderer draws nothing "
            "else: take the ray caster, which is the default."
        )
    pose = scene.stand(name)
    mjcf_scene.camera_index(pose.model, view.camera)
    return RenderSpec(pose, view)


def with_poses(env: Environment, spec: RenderSpec) -> Environment:
    """The environment with the positions of its bodies as observation, `[P]`, for `draw`.

    P = nq, or nq + 7 nmocap. The state of the environment itself is `state.sim.inner`. The
    `EnvSpec` is unchanged.
    """

    def observed(inner: EnvState) -> EnvState:
        parts = spec.scene.positions(innermost(inner).sim)
        obs = jnp.concatenate([jnp.ravel(part) for part in parts])
        return EnvState(sim=Wrapped(inner, ()), obs=obs, time=inner.time)

    def reset(key: jax.Array) -> EnvState:
        return observed(env.reset(key))

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        inner, transition = env.step(state.sim.inner, action)
        next_state = observed(inner)
        return next_state, replace(transition, obs=state.obs, next_obs=next_state.obs)

    return Environment(env.spec, reset, step)


def draw(spec: RenderSpec, episodes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Frames uint8 `[L + 1, H, W, 3]` of each episode; a terminal shows a progress bar.

    Args:
      episodes: the observations of `with_poses`, `[L + 1, P]` of each episode.

    Raises:
      UserError: there is no OpenGL here.
    """
    positions = np.concatenate(episodes)
    bar = tqdm.tqdm(positions, "drawing", unit="frame", disable=None, leave=False)
    with _opened(spec) as draw_one:
        frames = np.stack([draw_one(position) for position in bar])
    return np.split(frames, np.cumsum([len(episode) for episode in episodes])[:-1])


def require_opengl(spec: RenderSpec) -> None:
    """Draws one picture, so that a missing driver is reported before anything is computed.

    Raises:
      UserError: there is no OpenGL here.
    """
    with _opened(spec) as draw_one:
        draw_one(spec.scene.model.qpos0)


def pose(model: mujoco.MjModel, data: mujoco.MjData, positions: np.ndarray) -> None:
    """Sets positions `[P]` in the data, and computes the poses that depend on them."""
    data.qpos[:], mocap = np.split(positions, [model.nq])
    if mocap.size:
        centres, quaternions = np.split(mocap, [3 * model.nmocap])
        data.mocap_pos[:] = centres.reshape(-1, 3)
        data.mocap_quat[:] = quaternions.reshape(-1, 4)
    mujoco.mj_fwdPosition(model, data)


@contextlib.contextmanager
def _opened(spec: RenderSpec) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """A function that draws positions `[P]`; OpenGL is open inside the block.

    `mujoco.Renderer` does the same, but only on the platform that was named when MuJoCo was
    imported. Without a screen and without MUJOCO_GL there is no such platform.
    """
    view = spec.view
    model = copy.copy(spec.scene.model)
    model.vis.global_.offwidth, model.vis.global_.offheight = view.width, view.height
    data, option = mujoco.MjData(model), mujoco.MjvOption()
    scene, camera = mujoco.MjvScene(model, _GEOMS), _camera(model, view.camera)
    area = mujoco.MjrRect(0, 0, view.width, view.height)
    with _context(view) as graphics:
        target = graphics(model)

        def draw_one(positions: np.ndarray) -> np.ndarray:
            pose(model, data, positions)
            categories = mujoco.mjtCatBit.mjCAT_ALL.value
            mujoco.mjv_updateScene(model, data, option, None, camera, categories, scene)
            frame = np.empty((view.height, view.width, 3), np.uint8)
            mujoco.mjr_render(area, scene, target)
            mujoco.mjr_readPixels(frame, None, area, target)
            return frame[::-1]  # OpenGL counts rows from below

        try:
            yield draw_one
        finally:
            target.free()


def _camera(model: mujoco.MjModel, name: str) -> mujoco.MjvCamera:
    camera, index = mujoco.MjvCamera(), mjcf_scene.camera_index(model, name)
    if index < 0:
        mujoco.mjv_defaultFreeCamera(model, camera)
    else:
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, index
    return camera


@contextlib.contextmanager
def _context(view: scenes.View) -> Iterator[Callable[[mujoco.MjModel], Any]]:
    """A function that prepares a model for OpenGL, which is open inside the block.

    Raises:
      UserError: there is no OpenGL here.
    """
    context = None

    def graphics(model: mujoco.MjModel) -> Any:
        target = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, target)
        return target

    try:
        context = _platform()(view.width, view.height)
        context.make_current()
    except Exception as error:  # incomplete libraries raise errors of any type
        raise _no_driver(error) from error
    try:
        yield graphics
    finally:
        context.free()


def _platform() -> Any:
    """The class of OpenGL contexts: of MUJOCO_GL, or else one that needs no screen."""
    if os.environ.get("MUJOCO_GL") or sys.platform != "linux":
        return mujoco.gl_context.GLContext
    from mujoco import egl  # here, because it fails where there is no EGL

    return egl.GLContext


def _no_driver(error: Exception) -> UserError:
    chosen = os.environ.get("MUJOCO_GL") or "egl"
    return UserError(
        f"MuJoCo's renderer finds no OpenGL driver (MUJOCO_GL={chosen}: {error}): install "
        "one, `apt-get install libegl1 libgl1-mesa-dri` for MUJOCO_GL=egl or `apt-get "
        "install libosmesa6` for MUJOCO_GL=osmesa, or draw by the ray caster."
    )
