"""What a MuJoCo model looks like: its geoms as solids, its cameras, colours and lights.

Seen are the geoms of groups 0 to 2 that are not wholly transparent, as MuJoCo's own viewer
shows them, from a camera of the model; of a model without cameras, from where that viewer
first stands. A colour is that of the geom, or of its material, times the mean of a texture;
a plane's texture is read as tiles, two by two.

Departures: sites, tendons and skins are not seen, meshes and height fields are refused.
Lights shine the way they do in the model's first pose; a lamp that has a place shines half
as bright, but everywhere, since where it would be is not told. What departs in how things
look is told in `raycast`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import mjx

from planil_jax.base import UsageError, did_you_mean
from planil_jax.envs import raycast
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
    """What draws a model: (geom_xpos, geom_xmat, cam_xpos, cam_xmat) -> uint8 `[H, W, 3]`.

    The arguments are those of an `mjx.Data` or an `MjData` of the model.

    Args:
      camera: a camera's name; "": the first one.
      height, width: pixels.

    Raises:
      UsageError: there is no such camera, or there is something that cannot be drawn.
    """
    ids, which = shown(model), camera_index(model, camera)
    draw = raycast.make(solids(model), look(model, camera, height, width))

    def draw_model(
        geom_xpos: jax.Array, geom_xmat: jax.Array, cam_xpos: jax.Array, cam_xmat: jax.Array
    ) -> jax.Array:
        poses = _poses(geom_xpos, geom_xmat, ids)
        seen_from = _free(model) if which < 0 else _poses(cam_xpos, cam_xmat, which)
        return draw(poses, seen_from)

    return draw_model


def of_positions(model: mujoco.MjModel, view: View) -> Callable[..., jax.Array]:
    """What draws a model in a position: (qpos[, mocap_pos, mocap_quat]) -> the picture.

    Places follow from positions here, by MJX, because those that a simulator leaves in its
    data are of the moment before its last step.
    """
    draw = of_model(model, view.camera, view.height, view.width)
    placed = mjx.put_model(model, impl="jax")
    blank = mjx.make_data(placed)

    def draw_positions(qpos: jax.Array, *mocap: jax.Array) -> jax.Array:
        fields = dict(zip(("mocap_pos", "mocap_quat"), mocap, strict=False))
        data = blank.replace(qpos=qpos, **fields)
        for follow in (mjx.kinematics, mjx.com_pos, mjx.camlight):
            data = follow(placed, data)
        return draw(data.geom_xpos, data.geom_xmat, data.cam_xpos, data.cam_xmat)

    return draw_positions


def shown(model: mujoco.MjModel) -> np.ndarray:
    """Indices of the geoms that are seen.

    Raises:
      UsageError: there are none, or some of a kind that the ray caster lacks.
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
    strange = [i for i in ids if model.geom_type[i] not in _KINDS]
    if strange:
        named = [model.geom(i).name or f"number {i}" for i in strange]
        raise UsageError(
            f"pictures show {', '.join(raycast.KINDS)} and no other kind of geom: move "
            f"{', '.join(named)} to group 3 and draw primitives in their place."
        )
    return np.array(ids)


def solids(model: mujoco.MjModel) -> tuple[Solid, ...]:
    """The geoms that are seen, in the order of `shown`."""
    return tuple(_solid(model, int(i)) for i in shown(model))


def look(model: mujoco.MjModel, camera: str, height: int, width: int) -> Config:
    """The camera's opening, the model's lights and its sky."""
    which = camera_index(model, camera)
    lamp = model.vis.headlight
    active = np.flatnonzero(model.light_active)
    placeless = model.light_type == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    strength = np.where(placeless, 1.0, 0.5)[:, None] * model.light_diffuse
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
    """A MuJoCo model, and how it stands in a state of an environment."""

    model: mujoco.MjModel
    # (the innermost sim) -> qpos[, mocap_pos, mocap_quat]
    positions: Callable[[Any], tuple[jax.Array, ...]]


class OfModel(NamedTuple):
    """A scene that is a MuJoCo model: (name, view) -> what draws a sim."""

    stand: Callable[[str], ScenePose]  # (name of the environment)

    def __call__(self, name: str, view: View) -> Draw:
        model, positions = self.stand(name)
        draw = of_positions(model, view)
        return lambda sim: draw(*positions(sim))


def of_mjcf(model: mujoco.MjModel) -> OfModel:
    """The scene of an environment that `mjcf.make` made of the model.

    scenes.register("arm", mjcf_scene.of_mjcf(model))
    """
    return OfModel(lambda name: ScenePose(model, _placed))


def _gym(name: str) -> ScenePose:
    from planil_jax.envs import gym_mjx

    task = name.partition("/")[2]
    model = gym_mjx._load(task, gym_mjx.TASKS[task].file)
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


gym = OfModel(_gym)  # "gym/Hopper" and its like
kitchen = OfModel(_kitchen)
brax = OfModel(_brax)  # "brax/hopper/spring" and its like
playground = OfModel(_playground)  # "playground/CheetahRun" and its like


# ----------------------------------------------------------------------- what a model says


def _poses(places: jax.Array, axes: jax.Array, which: Any) -> Pose:
    """Of some geoms or of one camera; MuJoCo's matrices are flat, MJX's are square."""
    square = jnp.reshape(axes, (-1, 3, 3))
    return jnp.asarray(places)[which], square[which]


def camera_index(model: mujoco.MjModel, name: str) -> int:
    """The index of a camera; -1: the model has none, and none is named."""
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
    # MuJoCo has renamed the field; 0 is perspective in both.
    field = "cam_projection" if hasattr(model, "cam_projection") else "cam_orthographic"
    if which >= 0 and getattr(model, field)[which]:
        raise UsageError(
            f"camera {names[which]!r} is orthographic: name another or change its MJCF."
        )
    return which


def _free(model: mujoco.MjModel) -> Pose:
    """Where MuJoCo's viewer stands before it is moved."""
    turn = math.radians(model.vis.global_.azimuth)
    rise = math.radians(model.vis.global_.elevation)
    forward = np.array(
        [math.cos(rise) * math.cos(turn), math.cos(rise) * math.sin(turn), math.sin(rise)]
    )
    centre = model.stat.center
    return raycast.look_at(centre - 1.5 * model.stat.extent * forward, centre)


def _solid(model: mujoco.MjModel, i: int) -> Solid:
    kind = _KINDS[int(model.geom_type[i])]
    rgb = np.array(_rgba(model, i)[:3])
    size = tuple(float(each) for each in model.geom_size[i])
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
    # The whole texture, two tiles wide, is repeated in two units, or in the whole plane.
    spread = np.ones(2) if model.mat_texuniform[material] else np.array(size[:2])
    tile = np.where(spread > 0, spread, 1.0) / repeat
    return Solid(
        kind=kind,
        size=(*size[:2], 0.0),
        rgb=_colour(rgb * even),
        odd_rgb=_colour(rgb * odd),
        tile=(float(tile[0]), float(tile[1])),
    )


def _rgba(model: mujoco.MjModel, i: int) -> tuple[float, ...]:
    """A geom's colour, or its material's where it has none of its own."""
    own = tuple(float(each) for each in model.geom_rgba[i])
    material = model.geom_matid[i]
    if material >= 0 and own == _UNSET:
        return tuple(float(each) for each in model.mat_rgba[material])
    return own


def _texture(model: mujoco.MjModel, material: int) -> int:
    """The index of a material's texture; -1: it has none."""
    return int(model.mat_texid[material][mujoco.mjtTextureRole.mjTEXROLE_RGB])


def _image(model: mujoco.MjModel, texture: int) -> np.ndarray | None:
    """A texture `[H, W, 3]` in [0, 1]; a cube's faces lie under each other."""
    if texture < 0 or model.tex_nchannel[texture] < 3:
        return None
    shape = [
        int(a[texture]) for a in (model.tex_height, model.tex_width, model.tex_nchannel)
    ]
    first = int(model.tex_adr[texture])
    pixels = model.tex_data[first : first + math.prod(shape)].reshape(shape)
    return pixels[..., :3].astype(np.float64) / 255


def _sky(model: mujoco.MjModel) -> tuple[Colour, Colour]:
    """Colours straight above and straight below; black without a sky."""
    skies = np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)
    image = _image(model, int(skies[0])) if len(skies) else None
    if image is None:
        return (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    side = image.shape[1]
    faces = image.reshape(-1, side, side, 3)
    up, down = (faces[2], faces[3]) if len(faces) == 6 else (faces[0], faces[0])
    middle = slice(side * 3 // 8, side * 5 // 8)
    # The median, since skies may have stars.
    high, low = (np.median(face[middle, middle], axis=(0, 1)) for face in (up, down))
    return _colour(high), _colour(low)


def _colour(rgb: np.ndarray) -> Colour:
    red, green, blue = (float(each) for each in rgb)
    return red, green, blue
