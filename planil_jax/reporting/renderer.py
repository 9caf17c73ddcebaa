"""Pictures by MuJoCo's own renderer: one at a time on the host, for files and for films.

    positions [L + 1, P] of an episode in `placed(env, sight)`  ->  frames [L + 1, H, W, 3]

Of any environment whose scene is a MuJoCo model, meshes too, with shadows and reflections.
It needs OpenGL: what MUJOCO_GL names (egl, osmesa, glfw), or else EGL. The ray caster needs
none and draws in the compiled loop: `planil_jax.envs.pixels`.
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
_GEOMS = 10_000  # that a scene has room for


class RenderSpec(NamedTuple):
    """What is drawn, and how."""

    standing: mjcf_scene.ScenePose
    view: scenes.View


def sight(name: str, view: scenes.View) -> RenderSpec:
    """How an environment is drawn.

    Raises:
      UsageError: it has no scene, or one that is no MuJoCo model, or no such camera.
    """
    scene = scenes.find(name)
    if not isinstance(scene, mjcf_scene.OfModel):
        raise UsageError(
            f"environment {name!r} is no MuJoCo model, so that MuJoCo's renderer cannot "
            "draw it; the ray caster does, where nothing is said."
        )
    standing = scene.stand(name)
    mjcf_scene.camera_index(standing.model, view.camera)
    return RenderSpec(standing, view)


def placed(env: Environment, seen: RenderSpec) -> Environment:
    """The environment, showing where its bodies are: `obs` is `[P]`, as for `draw`.

    P = nq, or nq + 7 nmocap. The environment's own state is `state.sim.inner`; its spec
    stays as it is.
    """

    def told(inner: EnvState) -> EnvState:
        parts = seen.standing.positions(innermost(inner).sim)
        obs = jnp.concatenate([jnp.ravel(part) for part in parts])
        return EnvState(sim=Wrapped(inner, ()), obs=obs, time=inner.time)

    def reset(key: jax.Array) -> EnvState:
        return told(env.reset(key))

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        inner, transition = env.step(state.sim.inner, action)
        following = told(inner)
        return following, replace(transition, obs=state.obs, next_obs=following.obs)

    return Environment(env.spec, reset, step)


def draw(seen: RenderSpec, episodes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Frames uint8 `[L + 1, H, W, 3]` of each episode, of positions `[L + 1, P]` each.

    Tells its progress.

    Raises:
      UserError: there is no OpenGL here.
    """
    positions = np.concatenate(episodes)
    shown = tqdm.tqdm(positions, "drawing", unit="frame", disable=None, leave=False)
    with _opened(seen) as draw_one:
        frames = np.stack([draw_one(each) for each in shown])
    return np.split(frames, np.cumsum([len(each) for each in episodes])[:-1])


def require(seen: RenderSpec) -> None:
    """Draws the model as it stands at first, so that what is missing is told at once."""
    with _opened(seen) as draw_one:
        draw_one(seen.standing.model.qpos0)


def pose(model: mujoco.MjModel, data: mujoco.MjData, positions: np.ndarray) -> None:
    """Puts positions `[P]` into the data, and all places that follow from them."""
    data.qpos[:], mocap = np.split(positions, [model.nq])
    if mocap.size:
        places, turns = np.split(mocap, [3 * model.nmocap])
        data.mocap_pos[:] = places.reshape(-1, 3)
        data.mocap_quat[:] = turns.reshape(-1, 4)
    mujoco.mj_fwdPosition(model, data)


@contextlib.contextmanager
def _opened(seen: RenderSpec) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """What draws positions `[P]`, while OpenGL is open.

    `mujoco.Renderer` does the same, but on the platform that was named when MuJoCo was
    imported, which is none on a machine without a screen unless MUJOCO_GL is set.
    """
    view = seen.view
    model = copy.copy(seen.standing.model)
    model.vis.global_.offwidth, model.vis.global_.offheight = view.width, view.height
    data, option = mujoco.MjData(model), mujoco.MjvOption()
    scene, camera = mujoco.MjvScene(model, _GEOMS), _camera(model, view.camera)
    area = mujoco.MjrRect(0, 0, view.width, view.height)
    with _context(view) as graphics:
        target = graphics(model)

        def draw_one(positions: np.ndarray) -> np.ndarray:
            pose(model, data, positions)
            every = mujoco.mjtCatBit.mjCAT_ALL.value
            mujoco.mjv_updateScene(model, data, option, None, camera, every, scene)
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
    """What makes a model's own part of OpenGL, while that is open.

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
    except Exception as error:  # libraries that are half there raise whatever they like
        raise _no_driver(error) from error
    try:
        yield graphics
    finally:
        context.free()


def _platform() -> Any:
    """The class of OpenGL contexts that MUJOCO_GL names, or else that needs no screen."""
    if os.environ.get("MUJOCO_GL") or sys.platform != "linux":
        return mujoco.gl_context.GLContext
    from mujoco import egl  # not above: it fails where there is no EGL

    return egl.GLContext


def _no_driver(error: Exception) -> UserError:
    chosen = os.environ.get("MUJOCO_GL") or "egl"
    return UserError(
        f"MuJoCo's renderer finds no OpenGL driver (MUJOCO_GL={chosen}: {error}): install "
        "one, `apt-get install libegl1 libgl1-mesa-dri` for MUJOCO_GL=egl or `apt-get "
        "install libosmesa6` for MUJOCO_GL=osmesa, or leave the drawing to the ray caster."
    )
