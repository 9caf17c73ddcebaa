"""The scene of a MuJoCo model: geoms as solids, cameras, colours and lights.

The image shows the geoms of groups 0 to 2 that are not fully transparent, like MuJoCo's
viewer. The camera is one of the model, or the viewer's initial camera if the model has
none. A colour is that of the geom or of its material, times the mean of its texture. The
texture of a plane is taken as 2 × 2 tiles.

Departures: sites, tendons and skins are not shown; meshes and height fields are refused.
Lights keep the direction of the initial pose. A light with a position shines everywhere, at
half its brightness. `raycast` lists the departures of the rendering.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from planil_jax.base import UsageError, did_you_mean
from planil_jax.envs import engine_c, raycast
from planil_jax.envs.quiet import mjx
from planil_jax.envs.raycast import Colour, Config, Pose, Solid
from planil_jax.envs.scenes import Draw, View

GROUPS = (0, 1, 2)  # of geoms that are shown
_KINDS = {
    int(mujoco.mjtGeom.mjGEOM_PLANE): "plane",
    int(mujoco.mjtGeom.mjGEOM_SPHERE): "sphere",
    int(mujoco.mjtGeom.mjGEOM_CAPSULE): "capsule",
    int(mujoco.mjtGeom.mjGEOM_ELLIPSOID): "ellipsoid",
    int(mujoco.mjtGeom.mjGEOM_CYLINDER): "cylinder",
    int(mujoco.mjtGeom.mjGEOM_BOX): "box",
}
_UNSET = (0.5, 0.5, 0.5, 1.0)  # a geom's colour that lets its material's through


def of_model(
    model: mujoco.MjModel, camera: str = "", height: int = 64, width: int = 64
) -> Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]:
    """A function that draws a model.

    Args:
      model: the model.
      camera: name of a camera; "": the first one.
      height, width: pixels.

    Returns:
      (geom_xpos, geom_xmat, cam_xpos, cam_xmat) -> uint8 `[H, W, 3]`; the arguments are
      fields of an `mjx.Data` or an `MjData` of the model.

    Raises:
      UsageError: there is no such camera, or the model has geoms that cannot be drawn.
    """
    ids, which = shown(model), camera_index(model, camera)
    draw = raycast.make(solids(model), look(model, camera, height, width))

    def draw_model(
        geom_xpos: jax.Array, geom_xmat: jax.Array, cam_xpos: jax.Array, cam_xmat: jax.Array
    ) -> jax.Array:
        poses = _poses(geom_xpos, geom_xmat, ids)
        camera_pose = _free(model) if which < 0 else _poses(cam_xpos, cam_xmat, which)
        return draw(poses, camera_pose)

    return draw_model


def of_positions(model: mujoco.MjModel, view: View) -> Callable[..., jax.Array]:
    """A function that draws a model: (qpos[, mocap_pos, mocap_quat]) -> uint8 `[H, W, 3]`.

    MJX computes the poses of the geoms from the positions, or MuJoCo in C where MJX cannot
    take the model. Those in a simulator's data belong to the time before its last step.

    Raises:
      UsageError: as for `of_model`.
    """
    draw = of_model(model, view.camera, view.height, view.width)
    try:
        placed = mjx.put_model(model, impl="jax")
    except NotImplementedError:
        return _in_c(model, draw)
    blank = mjx.make_data(placed)

    def draw_positions(qpos: jax.Array, *mocap: jax.Array) -> jax.Array:
        data = blank.replace(qpos=qpos, **_mocap(mocap))
        for follow in (mjx.kinematics, mjx.com_pos, mjx.camlight):
            data = follow(placed, data)
        return draw(data.geom_xpos, data.geom_xmat, data.cam_xpos, data.cam_xmat)

    return draw_positions


def _in_c(model: mujoco.MjModel, draw: Callable) -> Callable[..., jax.Array]:
    """As `of_positions`, by MuJoCo in C."""
    names = "geom_xpos", "geom_xmat", "cam_xpos", "cam_xmat"
    physics = engine_c.make("the scene", model, 1, names)

    def draw_positions(qpos: jax.Array, *mocap: jax.Array) -> jax.Array:
        state = physics.start(physics.home.replace(qpos=qpos, **_mocap(mocap)))
        return draw(*(state.fields[name] for name in names))

    return draw_positions


def _mocap(given: tuple[jax.Array, ...]) -> dict[str, jax.Array]:
    return dict(zip(("mocap_pos", "mocap_quat"), given, strict=False))


def shown(model: mujoco.MjModel) -> np.ndarray:
    """Indices of the geoms that are shown.

    Raises:
      UsageError: there are none, or the ray caster lacks the kind of some.
    """
    ids = [
        i
        for i in range(model.ngeom)
        if model.geom_group[i] in GROUPS and _rgba(model, i)[3] > 0
    ]
    if not ids:
        raise UsageError(
            "the MuJoCo model shows nothing: give it geoms in groups 0 to 2 that are not "
            "transparent."
        )
    unknown = [i for i in ids if model.geom_type[i] not in _KINDS]
    if unknown:
        named = [model.geom(i).name or f"number {i}" for i in unknown]
        raise UsageError(
            f"pictures show {', '.join(raycast.KINDS)} and no other kind of geom: move "
            f"{', '.join(named)} to group 3 and draw primitives in their place."
        )
    return np.array(ids)


def solids(model: mujoco.MjModel) -> tuple[Solid, ...]:
    """The geoms that are shown, in the order of `shown`."""
    return tuple(_solid(model, int(i)) for i in shown(model))


def look(model: mujoco.MjModel, camera: str, height: int, width: int) -> Config:
    """The field of view of the camera, the lights and the sky of the model.

    Raises:
      UsageError: as for `camera_index`.
    """
    which = camera_index(model, camera)
    lamp = model.vis.headlight
    active = np.flatnonzero(model.light_active)
    directional = model.light_type == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    strength = np.where(directional, 1.0, 0.5)[:, None] * model.light_diffuse
    ambient = [model.light_ambient[i] for i in active]
    head = np.zeros(3)
    if lamp.active:
        ambient.append(lamp.ambient)
        head = lamp.diffuse
    zenith, nadir = _sky(model)
    return Config(
        height=height,
        width=width,
        fovy=float(model.vis.global_.fovy if which < 0 else model.cam_fovy[which]),
        near=float(model.vis.map.znear * model.stat.extent),
        ambient=_colour(np.sum(ambient, axis=0) if ambient else head),
        head=_colour(head),
        lights=tuple((_colour(model.light_dir0[i]), _colour(strength[i])) for i in active),
        zenith=zenith,
        nadir=nadir,
    )


# ------------------------------------------------------------------- scenes of environments


class ScenePose(NamedTuple):
    """A MuJoCo model, and its positions in a state of an environment."""

    model: mujoco.MjModel
    # (the innermost sim) -> qpos[, mocap_pos, mocap_quat]
    positions: Callable[[Any], tuple[jax.Array, ...]]


class OfModel(NamedTuple):
    """The scene of a MuJoCo model: (name, view) -> a function that draws a sim."""

    stand: Callable[[str], ScenePose]  # (name of the environment)

    def __call__(self, name: str, view: View) -> Draw:
        model, positions = self.stand(name)
        draw = of_positions(model, view)
        return lambda sim: draw(*positions(sim))


def of_mjcf(model: mujoco.MjModel) -> OfModel:
    """The scene of an environment that `mjcf.make` made from the model.

    scenes.register("arm", mjcf_scene.of_mjcf(model))
    """
    return OfModel(lambda name: ScenePose(model, _placed))


def _gym(name: str) -> ScenePose:
    from planil_jax.envs import gym_c, gym_mjx, gym_robots

    task = name.partition("/")[2]
    model = gym_robots.load(task, (gym_mjx.TASKS | gym_c.TASKS)[task].file)
    return ScenePose(model, lambda body: (body.qpos,))


def _kitchen(name: str) -> ScenePose:
    from planil_jax.envs.kitchen import model

    return ScenePose(model(), _placed)


def _brax(name: str) -> ScenePose:
    from brax import envs as brax_envs

    task, _, backend = name.partition("/")[2].partition("/")
    env = brax_envs.get_environment(task, **({"backend": backend} if backend else {}))
    return ScenePose(env.sys.mj_model, lambda state: (state.pipeline_state.q,))


def _playground(name: str) -> ScenePose:
    from planil_jax.envs import brax_env

    env, _ = brax_env._load_playground(name, name.partition("/")[2], "jax")
    return ScenePose(env.mj_model, lambda state: _placed(state.data))


def _placed(data: Any) -> tuple[jax.Array, ...]:
    return data.qpos, data.mocap_pos, data.mocap_quat


gym = OfModel(_gym)  # for "gym/*"
kitchen = OfModel(_kitchen)
brax = OfModel(_brax)  # for "brax/*"
playground = OfModel(_playground)  # for "playground/*"


# ------------------------------------------------------------------- contents of the model


def _poses(positions: jax.Array, axes: jax.Array, which: Any) -> Pose:
    """Poses of some geoms or of a camera. MuJoCo's matrices are flat, MJX's are square."""
    square = jnp.reshape(axes, (-1, 3, 3))
    return jnp.asarray(positions)[which], square[which]


def camera_index(model: mujoco.MjModel, name: str) -> int:
    """The index of a camera by its name; "" is the first one, or -1 if there is none.

    Raises:
      UsageError: there is no camera of that name, or it is orthographic.
    """
    names = [model.camera(i).name for i in range(model.ncam)]
    if not name:
        which = 0 if names else -1
    elif name in names:
        which = names.index(name)
    else:
        raise UsageError(
            f"the MuJoCo model has no camera {name!r}.{did_you_mean(name, names)} It has: "
            f"{', '.join(filter(None, names)) or 'none with a name'}; add one to its MJCF."
        )
    # MuJoCo renamed the field; 0 means perspective in both.
    field = "cam_projection" if hasattr(model, "cam_projection") else "cam_orthographic"
    if which >= 0 and getattr(model, field)[which]:
        raise UsageError(
            f"camera {names[which]!r} is orthographic: name another or change its MJCF."
        )
    return which


def _free(model: mujoco.MjModel) -> Pose:
    """The initial pose of the camera of MuJoCo's viewer."""
    azimuth = math.radians(model.vis.global_.azimuth)
    elevation = math.radians(model.vis.global_.elevation)
    horizontal = math.cos(elevation)
    forward = np.array(
        [
            horizontal * math.cos(azimuth),
            horizontal * math.sin(azimuth),
            math.sin(elevation),
        ]
    )
    centre = model.stat.center
    return raycast.look_at(centre - 1.5 * model.stat.extent * forward, centre)


def _solid(model: mujoco.MjModel, i: int) -> Solid:
    """A geom as a solid."""
    kind = _KINDS[int(model.geom_type[i])]
    rgb = np.array(_rgba(model, i)[:3])
    size = tuple(map(float, model.geom_size[i]))
    material = model.geom_matid[i]
    image = None if material < 0 else _image(model, _texture(model, material))
    if image is None:
        return Solid(kind=kind, size=size, rgb=_colour(rgb))
    if kind != "plane":
        return Solid(kind=kind, size=size, rgb=_colour(rgb * image.mean(axis=(0, 1))))
    rows, columns = (side // 2 for side in image.shape[:2])
    even = image[:rows, :columns].mean(axis=(0, 1))
    odd = image[:rows, columns:].mean(axis=(0, 1))
    repeat = model.mat_texrepeat[material]
    # The texture is two tiles wide. It covers two metres, or the whole plane.
    half = np.ones(2) if model.mat_texuniform[material] else np.array(size[:2])
    tile = np.where(half > 0, half, 1.0) / repeat
    return Solid(
        kind=kind,
        size=(*size[:2], 0.0),
        rgb=_colour(rgb * even),
        odd_rgb=_colour(rgb * odd),
        tile=(float(tile[0]), float(tile[1])),
    )


def _rgba(model: mujoco.MjModel, i: int) -> tuple[float, ...]:
    """The colour of a geom, or of its material if the geom has none."""
    rgba = tuple(map(float, model.geom_rgba[i]))
    material = model.geom_matid[i]
    if material >= 0 and rgba == _UNSET:
        return tuple(map(float, model.mat_rgba[material]))
    return rgba


def _texture(model: mujoco.MjModel, material: int) -> int:
    """The index of the texture of a material; -1: it has none."""
    return int(model.mat_texid[material][mujoco.mjtTextureRole.mjTEXROLE_RGB])


def _image(model: mujoco.MjModel, texture: int) -> np.ndarray | None:
    """A texture `[H, W, 3]` in [0, 1]; the faces of a cube are stacked vertically."""
    if texture < 0 or model.tex_nchannel[texture] < 3:
        return None
    shape = [
        int(a[texture]) for a in (model.tex_height, model.tex_width, model.tex_nchannel)
    ]
    first = int(model.tex_adr[texture])
    pixels = model.tex_data[first : first + math.prod(shape)].reshape(shape)
    return pixels[..., :3].astype(np.float64) / 255


def _sky(model: mujoco.MjModel) -> tuple[Colour, Colour]:
    """Colours straight up and straight down; black without a sky."""
    skies = np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)
    image = _image(model, int(skies[0])) if len(skies) else None
    if image is None:
        return (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    side = image.shape[1]
    faces = image.reshape(-1, side, side, 3)
    up, down = (faces[2], faces[3]) if len(faces) == 6 else (faces[0], faces[0])
    middle = slice(side * 3 // 8, side * 5 // 8)
    # The median ignores stars.
    high, low = (np.median(face[middle, middle], axis=(0, 1)) for face in (up, down))
    return _colour(high), _colour(low)


def _colour(rgb: np.ndarray) -> Colour:
    red, green, blue = map(float, rgb)
    return red, green, blue
