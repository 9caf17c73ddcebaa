"""The ray caster against surfaces found otherwise: level functions say what is inside, and
marching along every ray in double precision finds the surface. No quadratic is solved."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.base import UsageError
from planil_jax.envs import raycast
from planil_jax.envs.raycast import Config, Solid

SIZES = {
    "plane": (0.7, 0.5),
    "sphere": (0.5,),
    "capsule": (0.25, 0.5),
    "ellipsoid": (0.3, 0.6, 0.45),
    "cylinder": (0.4, 0.3),
    "box": (0.3, 0.5, 0.2),
}
CAMERA = raycast.look_at((0.3, -2.5, 0.4), (0.1, 0.0, 0.1))
SMALL = Config(height=18, width=24, fovy=40.0)
POSES = 6


def level(kind, size, points):
    """Below 0 inside, above 0 outside, `[...]` of points `[..., 3]`."""
    x, y, z = np.moveaxis(points, -1, 0)
    if kind == "plane":
        return z
    if kind == "sphere":
        return np.linalg.norm(points, axis=-1) - size[0]
    if kind == "ellipsoid":
        return np.linalg.norm(points / np.array(size), axis=-1) - 1
    if kind == "box":
        return np.max(np.abs(points) - np.array(size), axis=-1)
    if kind == "cylinder":
        return np.maximum(np.hypot(x, y) - size[0], np.abs(z) - size[1])
    onto_axis = np.stack([0 * x, 0 * y, np.clip(z, -size[1], size[1])], axis=-1)
    return np.linalg.norm(points - onto_axis, axis=-1) - size[0]


def rays(config):
    """Directions `[H, W, 3]` in the camera's frame, which advance by a depth of 1."""
    half = math.tan(math.radians(config.fovy / 2))
    directions = np.zeros((config.height, config.width, 3))
    for row in range(config.height):
        for column in range(config.width):
            right = (column + 0.5 - config.width / 2) / (config.height / 2)
            up = (config.height / 2 - row - 0.5) / (config.height / 2)
            directions[row, column] = half * right, half * up, -1
    return directions


def marched(kind, size, pose, config, camera):
    """Depths `[H, W]` and points `[H, W, 3]` where rays enter, and their least levels."""
    centre, axes, eye, frame = (np.float64(x) for x in (*pose, *camera))
    start = axes.T @ (eye - centre)
    along = rays(config) @ frame.T @ axes
    depths = np.linspace(0.5, 5.0, 1500)
    levels = level(kind, size, start + depths[:, None, None, None] * along)
    inside = levels < 0
    entered = ~inside[:-1] & inside[1:]
    first = np.argmax(entered, axis=0)
    low, high = depths[first], depths[first + 1]
    for _ in range(40):
        middle = (low + high) / 2
        within = level(kind, size, start + middle[..., None] * along) < 0
        low, high = np.where(within, low, middle), np.where(within, middle, high)
    points = start + low[..., None] * along
    met = entered.any(axis=0)
    margin = np.abs(levels).min(axis=0)
    if kind == "plane":
        edge = np.max(np.abs(points[..., :2]) - np.array(size), axis=-1)
        met, margin = met & (edge < 0), np.abs(edge)
    return np.where(met, low, np.inf), points, margin


@functools.cache
def rendered(kind):
    """The ray caster's hits on one solid in some poses, and the poses."""
    rng = np.random.default_rng(sorted(SIZES).index(kind))
    axes = np.linalg.qr(rng.normal(size=(POSES, 3, 3)))[0]
    axes *= np.linalg.det(axes)[:, None, None]  # turned, not mirrored
    if kind == "plane":  # towards the camera in most poses, away from it in some
        axes *= np.where(axes[:, 1, 2] > 0, -1, 1)[:, None, None]
        axes[0] *= -1
        axes[:, :, 0] = np.cross(axes[:, :, 1], axes[:, :, 2])
    centres = rng.uniform(-0.3, 0.3, (POSES, 3))
    cast = raycast.cast([Solid(kind=kind, size=SIZES[kind])], SMALL)
    poses = jnp.float32(centres[:, None]), jnp.float32(axes[:, None])
    sight = jax.jit(jax.vmap(cast, (0, None)))(poses, CAMERA)
    return jax.device_get(sight), list(zip(centres, axes, strict=True))


@pytest.mark.parametrize("kind", SIZES)
def test_a_ray_meets_a_solid_where_marching_along_it_finds_its_surface(kind):
    sight, poses = rendered(kind)
    hits = misses = 0
    for depth, solid, pose in zip(sight.depth, sight.solid, poses, strict=True):
        expected, _, margin = marched(kind, SIZES[kind], pose, SMALL, CAMERA)
        visible = np.isfinite(expected)
        sure = visible | (margin > 0.01)  # else the march may have stepped over an edge
        np.testing.assert_array_equal(np.isfinite(depth)[sure], visible[sure])
        np.testing.assert_array_equal(solid >= 0, np.isfinite(depth))
        np.testing.assert_allclose(depth[visible], expected[visible], atol=2e-5)
        hits, misses = hits + visible.sum(), misses + (~visible & sure).sum()
    assert hits > 100 and misses > 100


@pytest.mark.parametrize("kind", SIZES)
def test_the_normal_is_the_gradient_of_the_implicit_function(kind):
    sight, poses = rendered(kind)
    off = []
    for normal, pose in zip(sight.normal, poses, strict=True):
        depth, points, _ = marched(kind, SIZES[kind], pose, SMALL, CAMERA)
        step = 1e-5
        slopes = [
            level(kind, SIZES[kind], points + step * axis)
            - level(kind, SIZES[kind], points - step * axis)
            for axis in np.eye(3)
        ]
        slope = np.stack(slopes, axis=-1)
        slope /= np.linalg.norm(slope, axis=-1, keepdims=True)
        off.append(np.abs(normal - slope).max(axis=-1)[np.isfinite(depth)] > 2e-3)
    # On an edge the level has two slopes; a pixel or two may lie there.
    assert np.concatenate(off).mean() < 0.01


def test_a_thin_solid_far_away_keeps_its_edge():
    """A ball of 1 cm at 100 m fills 2/5 of a picture of 0.025 m; in pixels, r = 12.8."""
    fovy = math.degrees(2 * math.atan(0.0125 / 100))
    config = Config(height=32, width=32, fovy=fovy)
    camera = raycast.look_at((0.0, -100.0, 0.0), (0.0, 0.0, 0.0))
    pose = jnp.zeros((1, 3)), jnp.eye(3)[None]
    across = np.arange(32) + 0.5 - 16
    expected = np.hypot(across[:, None], across) < 12.8
    for kind, size in (("sphere", (0.01,)), ("capsule", (0.01, 0.0))):
        sight = jax.jit(raycast.cast([Solid(kind=kind, size=size)], config))(pose, camera)
        assert (np.isfinite(sight.depth) != expected).sum() <= 8  # of 515, at the edge


def drawn(solids, centres, config, camera=CAMERA):
    turns = jnp.broadcast_to(jnp.eye(3), (len(solids), 3, 3))
    draw = jax.jit(raycast.make(solids, config))
    return np.asarray(draw((jnp.float32(centres), turns), camera))


def test_the_nearest_solid_is_drawn_for_any_kind_and_order():
    solids = [
        Solid(kind="sphere", size=(0.3,)),
        Solid(kind="box", size=(0.3, 0.3, 0.3)),
        Solid(kind="sphere", size=(0.3,)),
    ]
    camera = raycast.look_at((0.0, -5.0, 0.0), (0.0, 0.0, 0.0))
    cast = jax.jit(raycast.cast(solids, Config(height=3, width=3, fovy=1.0)))
    for nearest in range(3):
        far = [3.0, 3.0, 3.0]
        far[nearest] = 1.0
        centres = jnp.array([(0.0, y, 0.0) for y in far])
        sight = cast((centres, jnp.broadcast_to(jnp.eye(3), (3, 3, 3))), camera)
        assert int(sight.solid[1, 1]) == nearest
        np.testing.assert_allclose(sight.depth[1, 1], 5.7, rtol=1e-6)


@pytest.mark.parametrize("y", [-6.0, -5.0, -4.65])  # behind, around, nearer than `near`
def test_solids_that_are_not_in_front_of_the_camera_are_not_drawn(y):
    camera = raycast.look_at((0.0, -5.0, 0.0), (0.0, 0.0, 0.0))
    cast = jax.jit(raycast.cast([Solid(size=(0.3,))], Config(height=3, width=3, near=0.1)))
    sight = cast((jnp.array([[0.0, y, 0.0]]), jnp.eye(3)[None]), camera)
    assert np.all(np.isinf(sight.depth))


def test_right_is_right_and_up_is_up():
    """A red ball lies at +x, a green one at +z; the camera looks along +y."""
    solids = [Solid(size=(0.2,), rgb=(1.0, 0, 0)), Solid(size=(0.2,), rgb=(0, 1.0, 0))]
    dark = Config(height=20, width=40, zenith=(0.0,) * 3, nadir=(0.0,) * 3)
    camera = raycast.look_at((0.0, -4.0, 0.0), (0.0, 0.0, 0.0))
    picture = drawn(solids, [(1.0, 0, 0), (0, 0, 1.0)], dark, camera)
    # A unit at 4 m is 10 / tan(22.5°) / 4 = 6.04 pixels.
    for channel, (row, column) in enumerate([(9.5, 19.5 + 6.04), (9.5 - 6.04, 19.5)]):
        rows, columns = np.nonzero(picture[..., channel])
        assert len(rows) > 2
        assert abs(rows.mean() - row) < 0.5 and abs(columns.mean() - column) < 0.5


def test_light_is_the_ambient_light_plus_the_lights_on_the_surface():
    config = Config(
        height=1,
        width=1,
        ambient=(0.1, 0.2, 0.0),
        head=(0.3, 0.0, 0.5),
        lights=(
            ((0.0, math.sqrt(3) / 2, -0.5), (0.4, 0.4, 0.8)),
            ((0, 0, 2.0), (1.0,) * 3),
        ),
    )
    camera = raycast.look_at((0.0, 0.0, 3.0), (0.0, 0.0, 0.0))
    plane = Solid(kind="plane", size=(0.0, 0.0), rgb=(1.0, 0.5, 0.25))
    pixel = drawn([plane], [(0.0, 0.0, 0.0)], config, camera)[0, 0]
    # The head light falls straight, the first lamp at 60°, the second from below.
    expected = np.array([0.1 + 0.3 + 0.2, 0.5 * (0.2 + 0.2), 0.25 * (0.5 + 0.4)])
    np.testing.assert_allclose(pixel, 255 * expected, atol=0.51)


def test_a_colour_that_is_too_bright_is_clipped():
    config = Config(height=1, width=1, ambient=(3.0,) * 3)
    assert drawn([Solid(size=(1.0,), rgb=(1.0,) * 3)], [(0, 0, 0)], config).min() == 255


FLAT = Config(height=8, width=8, ambient=(1.0,) * 3, head=(0.0,) * 3, lights=())
BLACK, WHITE = (0.0,) * 3, (1.0,) * 3


@pytest.mark.parametrize("size", [(), (3.0, 2.0), (4.0, 4.0)])
def test_tiles_start_in_the_corner_of_a_plane_or_at_its_origin(size):
    """A pixel is half a metre, a tile one metre; +y is up in the picture."""
    camera = raycast.look_at((0.0, 0.0, 2 / math.tan(math.radians(22.5))), (0.0, 0.0, 0.0))
    plane = Solid(kind="plane", size=size, rgb=BLACK, odd_rgb=WHITE, tile=(1.0, 1.0))
    picture = drawn([plane], [(0.0, 0.0, 0.0)], FLAT, camera)[..., 0]
    left, top = (-size[0], size[1]) if size else (0.0, 0.0)
    for row in range(8):
        for column in range(8):
            x, y = -1.75 + column / 2, 1.75 - row / 2
            odd = (math.floor(x - left) + math.floor(top - y)) % 2
            if not size or (abs(x) < size[0] and abs(y) < size[1]):
                assert picture[row, column] == 255 * odd, (row, column)


def test_tiles_that_are_smaller_than_pixels_are_grey():
    plane = Solid(kind="plane", size=(), rgb=BLACK, odd_rgb=WHITE, tile=(0.03, 0.03))
    camera = raycast.look_at((0.0, 0.0, 2 / math.tan(math.radians(22.5))), (0.0, 0.0, 0.0))
    picture = drawn([plane], [(0.0, 0.0, 0.0)], FLAT, camera)
    assert set(picture.ravel().tolist()) == {128}


def test_the_sky_goes_from_its_nadir_to_its_zenith():
    config = Config(height=1, width=1, zenith=(1.0, 0.5, 0.0), nadir=(0.0, 0.5, 1.0))
    draw = jax.jit(raycast.make([Solid(size=(0.01,))], config))
    hidden = jnp.array([[-9.0, 9.0, 0.0]]), jnp.eye(3)[None]
    for target, expected in [
        ((0, 0, 2.0), (255, 128, 0)),
        ((0, 0, -2.0), (0, 128, 255)),
        ((3.0, 0, 0), (128, 128, 128)),
        ((1.0, 0, math.tan(math.radians(30))), (191, 128, 64)),  # sin 30° = 1/2
    ]:
        camera = raycast.look_at((0.0, 0.0, 0.0), target)
        pixel = draw(hidden, camera)[0, 0]
        np.testing.assert_allclose(pixel, expected, atol=1)


def test_a_batch_of_images_equals_the_single_images():
    solids = [Solid(kind=kind, size=SIZES[kind]) for kind in SIZES]
    rng = np.random.default_rng(0)
    centres = jnp.float32(rng.uniform(-0.8, 0.8, (3, len(solids), 3)))
    turns = jnp.broadcast_to(jnp.eye(3), (3, len(solids), 3, 3))
    draw = raycast.make(solids, SMALL)
    batch = jax.jit(jax.vmap(draw, (0, None)))((centres, turns), CAMERA)
    one = jax.jit(draw)
    alone = [one((c, t), CAMERA) for c, t in zip(centres, turns, strict=True)]
    assert batch.dtype == jnp.uint8 and batch.shape == (3, 18, 24, 3)
    difference = np.abs(np.int32(batch) - np.int32(jnp.stack(alone)))
    assert np.mean(difference > 1) < 0.01  # a pixel on an edge may fall to either side
    assert len({one.tobytes() for one in np.asarray(batch)}) == 3


@pytest.mark.parametrize(
    ("solid", "config", "message"),
    [
        ({}, {"height": 0}, "image.height must be at least 1, not 0."),
        ({}, {"fovy": 180.0}, "image.fovy must be above 0 and below 180, not 180."),
        ({}, {"near": 0.0}, "image.near must be above 0, not 0."),
        ({}, {"head": (-1.0, 0.0, 0.0)}, "image.head[0] must be at least 0, not -1."),
        ({"size": (-0.1,)}, {}, "solids[0].size[0] must be at least 0, not -0.1."),
        (
            {"kind": "cone"},
            {},
            "solids[0]: kind is one of plane, sphere, capsule, ",
        ),
    ],
)
def test_a_setting_outside_its_range_is_refused_by_name(solid, config, message):
    with pytest.raises(UsageError) as caught:
        raycast.make([Solid(**solid)], Config(**config))
    assert str(caught.value).startswith(message)
