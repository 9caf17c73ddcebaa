"""Images of MuJoCo models, compared with what MuJoCo says is visible.

Its ray casting, `mj_multiRay`, needs no graphics driver. It says what is visible, how far
it is and where it faces. Its renderer, where there is software EGL, shows silhouettes. Its
viewer sets up scenes that say which geoms are visible, in which colours and from where.
"""

import functools
import importlib.util
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from planil_jax.base import UsageError
from planil_jax.envs import mjcf, mjcf_scene, raycast, scenes

# Playground's models, their first cameras: "side" (trackcom), "back" (trackcom), "fixed".
TASKS = {"CheetahRun": "cheetah", "HumanoidWalk": "humanoid", "CartpoleBalance": "cartpole"}
POSES = 4
SIDE = 64
GROUPS = np.array([1, 1, 1, 0, 0, 0], np.uint8)


@functools.cache
def model_of(task):
    spec = importlib.util.find_spec("mujoco_playground")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("needs MuJoCo Playground")
    folder = Path(spec.submodule_search_locations[0]) / "_src" / "dm_control_suite" / "xmls"
    return mujoco.MjModel.from_xml_path(str(folder / f"{TASKS[task]}.xml"))


@functools.cache
def posed(task):
    """Data in POSES poses: the model's initial one, and others near it."""
    model, rng = model_of(task), np.random.default_rng(0)
    poses = []
    for pose in range(POSES):
        data = mujoco.MjData(model)
        moved = rng.normal(size=model.nv) * (0.4 if pose else 0.0)
        mujoco.mj_integratePos(model, data.qpos, moved, 1.0)
        mujoco.mj_forward(model, data)
        poses.append(data)
    return poses


def poses_of(data):
    fields = data.geom_xpos, data.geom_xmat, data.cam_xpos, data.cam_xmat
    return [jnp.asarray(field, jnp.float32) for field in fields]


@functools.cache
def sights(task):
    """The ray caster's hits in every pose, `[POSES, SIDE, SIDE]`."""
    model = model_of(task)
    config = mjcf_scene.look(model, "", SIDE, SIDE)
    cast = raycast.cast(mjcf_scene.solids(model), config)
    ids = mjcf_scene.shown(model)

    def see(geom_xpos, geom_xmat, cam_xpos, cam_xmat):
        turns, frame = geom_xmat.reshape(-1, 3, 3), cam_xmat.reshape(-1, 3, 3)[0]
        return cast((geom_xpos[ids], turns[ids]), (cam_xpos[0], frame))

    inputs = [jnp.stack(leaves) for leaves in zip(*map(poses_of, posed(task)), strict=True)]
    sight = jax.device_get(jax.jit(jax.vmap(see))(*inputs))
    return np.append(ids, -1)[sight.solid], sight.depth, sight.normal


def directions(data, fovy):
    """Through the middles of all pixels, `[SIDE * SIDE, 3]`, in the world; depth 1."""
    half = math.tan(math.radians(fovy / 2))
    across = ((np.arange(SIDE) + 0.5) / SIDE * 2 - 1) * half
    x, y = np.meshgrid(across, -across)
    rays = np.stack([x, y, -np.ones_like(x)], axis=-1).reshape(-1, 3)
    return rays @ data.cam_xmat[0].reshape(3, 3).T


@functools.cache
def mujoco_rays(task, pose):
    """MuJoCo's geoms, depths and normals in the world."""
    model, data = model_of(task), posed(task)[pose]
    rays = directions(data, model.cam_fovy[0])
    count = len(rays)
    geoms, depths = np.full(count, -1, np.int32), np.zeros(count)
    normals = np.zeros((count, 3))
    eye = data.cam_xpos[0].copy()
    mujoco.mj_multiRay(
        model,
        data,
        eye,
        rays.ravel(),
        GROUPS,
        True,
        -1,
        geoms,
        depths,
        normals.ravel(),
        count,
        1e9,
    )
    return (x.reshape(SIDE, SIDE, *x.shape[1:]) for x in (geoms, depths, normals))


@pytest.mark.parametrize("task", TASKS)
def test_mujoco_casts_the_same_rays_to_the_same_geoms(task):
    """Of 16,384 rays a task, 99.9%: one on an edge may fall to either side."""
    visible, depths, normals = sights(task)
    turns = [data.geom_xmat.reshape(-1, 3, 3) for data in posed(task)]
    agree, off, turned = [], [], []
    for pose in range(POSES):
        geoms, expected, normal = mujoco_rays(task, pose)
        same = visible[pose] == geoms
        agree.append(same.mean())
        both = same & (geoms >= 0)
        off.append(np.abs(depths[pose] - expected)[both].max())
        in_world = np.einsum("pij,pj->pi", turns[pose][geoms[both]], normals[pose][both])
        turned.append(np.einsum("pi,pi->p", in_world, normal[both]))
        assert len(np.unique(geoms)) > 3  # so that the comparison is not empty
    assert np.mean(agree) > 0.999
    assert max(off) < 1e-4
    assert np.mean(np.concatenate(turned) > 0.999) > 0.999


@pytest.fixture
def renderer():
    """Makes MuJoCo's segmentation renderer of a task, on software EGL."""
    made = []

    def make(task):
        try:
            import mujoco.egl

            # MuJoCo chooses GL's platform when it is imported.
            module = sys.modules[mujoco.Renderer.__module__]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module.gl_context, "GLContext", mujoco.egl.GLContext)
                made.append(mujoco.Renderer(model_of(task), SIDE, SIDE))
        except (ImportError, AttributeError, RuntimeError, mujoco.FatalError) as error:
            pytest.skip(f"no EGL here ({error}); the rays are compared all the same")
        made[-1].enable_segmentation_rendering()
        return made[-1]

    yield make
    for made_renderer in made:
        made_renderer.close()


@pytest.mark.parametrize("task", TASKS)
def test_silhouettes_are_those_of_mujocos_renderer(task, renderer):
    """Intersection over union of all that is not a plane; it was 1 in every pose."""
    model, renderer = model_of(task), renderer(task)
    solid = np.flatnonzero(model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE)
    masks = set()
    for pose, data in enumerate(posed(task)):
        renderer.update_scene(data, camera=0)
        index, kind = np.moveaxis(renderer.render(), -1, 0)
        expected = np.isin(index, solid) & (kind == mujoco.mjtObj.mjOBJ_GEOM)
        mask = np.isin(sights(task)[0][pose], solid)
        assert (mask & expected).sum() / (mask | expected).sum() >= 0.97
        masks.add(mask.tobytes())
    assert len(masks) == POSES


# -------------------------------------------------------------------- what a model says

SCENE = """
<mujoco>
  <visual><headlight ambient=".3 .2 .1" diffuse=".4 .4 .5"/><map znear=".02"/>
    <global azimuth="30" elevation="-20" fovy="50"/></visual>
  <statistic center="1 2 .5" extent="3"/>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1="1 0 0" rgb2="0 0 1"
             width="64" height="384"/>
    <texture name="check" type="2d" builtin="checker" rgb1="1 0 0" rgb2="0 1 0"
             width="64" height="64"/>
    <texture name="half" type="cube" builtin="flat" rgb1=".5 .5 .5" width="8" height="8"/>
    <material name="check" texture="check" texrepeat="2 4" rgba="1 .5 1 1"/>
    <material name="metre" texture="check" texrepeat="2 4" texuniform="true"/>
    <material name="blue" rgba="0 0 1 1"/>
    <material name="half" texture="half" rgba=".2 .4 .6 1"/>
    <material name="glass" rgba="1 1 1 0"/>
  </asset>
  <worldbody>
    {cameras}
    <light type="directional" dir="0 1 -1" diffuse=".6 .6 .6" ambient=".1 0 0"/>
    <light pos="0 0 3" diffuse=".8 .8 .8"/>
    <light active="false" diffuse="1 1 1" ambient="1 1 1"/>
    <geom name="tiled" type="plane" size="2 8 .1" material="check"/>
    <geom name="metres" type="plane" size="2 8 .1" material="metre" pos="0 0 -1"/>
    <body pos="0 0 1">
      <joint type="slide" axis="1 0 0"/>
      <geom name="plain" size=".1"/>
      <geom name="coloured" size=".1" rgba="1 0 0 1" material="blue"/>
      <geom name="material" size=".1" material="blue" group="2"/>
      <geom name="textured" type="box" size=".1 .1 .1" material="half"/>
      <geom name="hidden" size=".1" group="3"/>
      <geom name="clear" size=".1" rgba="1 1 1 0"/>
      <geom name="glass" size=".1" material="glass"/>
    </body>
  </worldbody>
</mujoco>
"""
CAMERAS = '<camera name="near" pos="0 -3 1" fovy="30"/><camera name="far" pos="0 -9 1"/>'


def scene_of(cameras=CAMERAS, **changed):
    text = SCENE.format(cameras=cameras)
    for old, new in changed.items():
        text = text.replace(old, new)
    model = mujoco.MjModel.from_xml_string(text)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def viewed(model, data):
    """The scene that MuJoCo's viewer sets up from the free camera; needs no driver."""
    scene = mujoco.MjvScene(model, maxgeom=100)
    camera = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, camera)
    mujoco.mjv_updateScene(
        model,
        data,
        mujoco.MjvOption(),
        mujoco.MjvPerturb(),
        camera,
        mujoco.mjtCatBit.mjCAT_ALL,
        scene,
    )
    return scene


def test_the_geoms_and_colours_are_those_of_mujocos_viewer():
    model, data = scene_of()
    scene = viewed(model, data)
    geoms = [geom for geom in scene.geoms[: scene.ngeom] if geom.rgba[3] > 0]
    expected = {geom.objid: geom.rgba[:3] for geom in geoms}
    ids = mjcf_scene.shown(model)
    assert {model.geom(i).name for i in ids} == {
        "tiled",
        "metres",
        "plain",
        "coloured",
        "material",
        "textured",
    }
    assert set(ids.tolist()) == set(expected)
    for i, solid in zip(ids, mjcf_scene.solids(model), strict=True):
        if model.geom(i).name in ("plain", "coloured", "material"):  # these have no texture
            np.testing.assert_allclose(solid.rgb, expected[i], atol=1e-6)


def test_a_texture_colours_a_solid_by_its_mean_and_a_plane_by_its_tiles():
    model, _ = scene_of()
    solids = dict(
        zip(mjcf_scene.shown(model).tolist(), mjcf_scene.solids(model), strict=True)
    )
    textured = solids[model.geom("textured").id]
    np.testing.assert_allclose(textured.rgb, np.array([0.2, 0.4, 0.6]) / 2, atol=2e-3)
    tiled, metres = (solids[model.geom(name).id] for name in ("tiled", "metres"))
    np.testing.assert_allclose(tiled.rgb, (1.0, 0.0, 0.0), atol=1e-3)
    np.testing.assert_allclose(tiled.odd_rgb, (0.0, 0.5, 0.0), atol=1e-3)
    # Twice and four times, two tiles wide, in the whole plane or in two metres.
    np.testing.assert_allclose(tiled.tile, (2 * 2 / 2 / 2, 2 * 8 / 4 / 2))
    np.testing.assert_allclose(metres.tile, (1 / 2, 1 / 4))


def test_lights_sky_and_opening_are_the_models():
    model, _ = scene_of()
    config = mjcf_scene.look(model, "", 20, 30)
    assert (config.height, config.width, config.fovy) == (20, 30, 30.0)
    assert mjcf_scene.look(model, "far", 20, 30).fovy == 45.0
    np.testing.assert_allclose(config.near, 0.06)
    np.testing.assert_allclose(config.ambient, (0.4, 0.2, 0.1), atol=1e-6)
    np.testing.assert_allclose(config.head, (0.4, 0.4, 0.5), atol=1e-6)
    (sun, shine), (down, lamp) = config.lights
    np.testing.assert_allclose(sun, np.array([0, 1, -1]) / math.sqrt(2), atol=1e-6)
    np.testing.assert_allclose([*shine, *down], [0.6, 0.6, 0.6, 0, 0, -1], atol=1e-6)
    np.testing.assert_allclose(lamp, 0.4, atol=1e-6)  # half as bright, but everywhere
    assert config.zenith[0] > 0.8 > 0.2 > config.zenith[2]
    assert config.nadir[2] > 0.8 > 0.2 > config.nadir[0]


def test_a_model_without_cameras_is_drawn_from_the_viewer_s_initial_camera():
    model, data = scene_of(cameras="")
    eye, frame = mjcf_scene._free(model)
    left, right = viewed(model, data).camera  # of the two eyes
    np.testing.assert_allclose(eye, (left.pos + right.pos) / 2, atol=1e-4)
    np.testing.assert_allclose(-frame[:, 2], left.forward, atol=1e-5)
    np.testing.assert_allclose(frame[:, 1], left.up, atol=1e-5)
    assert mjcf_scene.look(model, "", 8, 8).fovy == 50.0
    picture = jax.jit(mjcf_scene.of_model(model, "", 8, 8))(*poses_of(data))
    assert picture.shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("cameras", "camera", "message"),
    [
        (CAMERAS, "nere", r"no camera 'nere'\. Did you mean near\? It has: near, far;"),
        ("", "side", "no camera 'side'. It has: none with a name; add one to its MJCF"),
        (
            '<camera name="flat" projection="orthographic"/>',
            "",
            "camera 'flat' is orthographic",
        ),
    ],
)
def test_an_unknown_or_orthographic_camera_is_refused(cameras, camera, message):
    model, _ = scene_of(cameras)
    with pytest.raises(UsageError, match=message):
        mjcf_scene.of_model(model, camera)


def test_a_geom_that_cannot_be_drawn_is_named():
    mesh = '<mesh name="wedge" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset>'
    geom = '<geom name="wedge" type="mesh" mesh="wedge"/></body>'
    model, _ = scene_of(**{"</asset>": mesh, "</body>": geom})
    with pytest.raises(UsageError, match="move wedge to group 3"):
        mjcf_scene.of_model(model)


def test_a_model_that_shows_nothing_is_refused():
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><geom size="1" group="4"/></worldbody></mujoco>'
    )
    with pytest.raises(UsageError, match="shows nothing"):
        mjcf_scene.of_model(model)


def test_geom_poses_follow_from_positions_as_in_mujoco():
    """The view of a camera that follows the cart, in an environment of `mjcf.make`."""
    model, data = model_of("CartpoleBalance"), posed("CartpoleBalance")[1]
    nothing = jnp.zeros((0,))
    sim = mjcf.Physics(
        qpos=jnp.float32(data.qpos),
        qvel=jnp.zeros((model.nv,)),
        act=nothing,
        ctrl=nothing,
        mocap_pos=jnp.zeros((0, 3)),
        mocap_quat=jnp.zeros((0, 4)),
        qacc_warmstart=nothing,
    )
    view = scenes.View(height=24, width=32, camera="lookatcart")
    in_world = raycast.make(mjcf_scene.solids(model), mjcf_scene.look(model, "", 24, 32))
    ids, which = mjcf_scene.shown(model), model.camera("lookatcart").id
    poses = data.geom_xpos[ids], data.geom_xmat.reshape(-1, 3, 3)[ids]
    camera = data.cam_xpos[which], data.cam_xmat[which].reshape(3, 3)
    expected = jax.jit(in_world)(*jax.tree.map(jnp.float32, (poses, camera)))
    drawn = jax.jit(mjcf_scene.of_mjcf(model)("cartpole", view))(sim)
    difference = np.abs(np.int32(drawn) - np.int32(expected)).max(axis=-1)
    assert np.mean(difference > 2) < 0.01  # a pixel on an edge
    fixed = jax.jit(mjcf_scene.of_model(model, "fixed", 24, 32))(*poses_of(data))
    assert np.mean(np.any(drawn != fixed, axis=-1)) > 0.5
