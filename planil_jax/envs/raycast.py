"""An analytic ray caster: pictures of simple solids inside `jit` and `vmap`, on any device.

A ray through the point (x, y) of a pinhole camera's picture, in the frame of a solid:

    p(t) = o + t d,   o = Rᵀ (eye - centre),   d = Rᵀ C (x, y, -1)

t is the depth before the camera, and the solid that is entered at the least t is seen, in
its colour times the light on it. n is its normal, e points back to the camera's plane and
l_i to a light:

    ambient + head max(0, n·e) + Σ_i light_i max(0, n·l_i)

o is first moved along the ray to where it is nearest to the centre, since in float32 a thin
solid far away would lose its edge. There is no tree and no list to sort: every ray is held
against every solid, some tens of operations each, which suits tens of solids and the small
pictures that agents see.

Source: the moved origin is that of Haines, Günther and Akenine-Möller 2019, Precision
Improvements for Ray/Sphere Intersection, in Ray Tracing Gems. Cameras are MuJoCo's.
Departures from MuJoCo's renderer: one ray a pixel; all lights are parallel; no shadow,
highlight, reflection, haze or transparency.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from planil_jax.envs.primitives import KINDS, TINY, Vector, dot, further, unit

Colour: TypeAlias = tuple[float, float, float]  # red, green, blue; [0, 1]
Pose: TypeAlias = tuple[jax.Array, jax.Array]  # centre [3] metres; axes as columns [3, 3]
Ray: TypeAlias = tuple[jax.Array, jax.Array]  # x and y in the picture at a depth of 1

_NAMES = tuple(KINDS)


@dataclass(frozen=True, kw_only=True)
class Solid:
    """A thing to be seen. Where it is and how it is turned is told at the call."""

    kind: str = "sphere"  # of KINDS
    size: tuple[float, ...] = (0.1,)  # metres, as KINDS says; of a plane 0: without end
    rgb: Colour = (0.5, 0.5, 0.5)
    odd_rgb: Colour = (0.5, 0.5, 0.5)  # of every other tile of a plane
    # Metres, sides of a plane's tiles. The first one lies in the corner of -x and +y, or
    # begins in the middle of a plane without end. 0: no tiles.
    tile: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Config:
    height: int = 64  # pixels
    width: int = 64  # pixels
    fovy: float = 45.0  # degrees between the lower and the upper edge of the picture
    near: float = 0.01  # metres of depth before which nothing is seen
    ambient: Colour = (0.4, 0.4, 0.4)
    head: Colour = (0.4, 0.4, 0.4)  # of the light that comes from the camera
    # Other lights: where in the world each shines to, and its colour.
    lights: tuple[tuple[Colour, Colour], ...] = (((0.4, 0.6, -1.0), (0.4, 0.4, 0.4)),)
    zenith: Colour = (0.36, 0.55, 0.73)  # the sky straight above; it is linear in height
    nadir: Colour = (0.04, 0.05, 0.07)  # straight below


@struct.dataclass
class RayHit:
    """What pixels see."""

    solid: jax.Array  # [H, W] int32, its index; -1: the sky
    depth: jax.Array  # [H, W] metres along the camera's axis; inf: the sky
    normal: jax.Array  # [H, W, 3] outwards in the frame of the solid; of the sky: anything


@struct.dataclass
class _Placed:
    """A solid as the camera finds it; directions are in the solid's frame."""

    eye: jax.Array  # [3] the camera, metres
    axes: jax.Array  # [3, 3] columns: the camera's right, up and back
    lights: jax.Array  # [I, 3] towards each light
    size: jax.Array  # [3]
    rgb: jax.Array  # [2, 3] of even and odd tiles
    tile: jax.Array  # [2] metres; inf: no tiles
    kind: jax.Array  # [] int32, index in KINDS


def make(solids: Sequence[Solid], config: Config) -> Callable[[Pose, Pose], jax.Array]:
    """What draws: (poses `[G]` of the solids, pose of the camera) -> uint8 `[H, W, 3]`.

    The camera looks along its -z, and its y is up in the picture.
    """
    kinds, see = {solid.kind for solid in solids}, _seeing(solids, config)

    def draw(poses: Pose, camera: Pose) -> jax.Array:
        def pixel(ray: Ray, index: jax.Array, depth: jax.Array, solid: _Placed) -> Vector:
            lit = _colour(solid, kinds, ray, depth, config)
            sky = _sky(ray, camera[1], config)
            one, two, three = (
                jnp.where(index < 0, a, b) for a, b in zip(sky, lit, strict=True)
            )
            return one, two, three

        rgb = jnp.stack(see(pixel, poses, camera), axis=-1)  # [H, W, 3]
        return (jnp.clip(rgb, 0.0, 1.0) * 255.0 + 0.5).astype(jnp.uint8)

    return draw


def cast(solids: Sequence[Solid], config: Config) -> Callable[[Pose, Pose], RayHit]:
    """What measures: as `make`, but what is seen where, and not how it looks."""
    kinds, see = {solid.kind for solid in solids}, _seeing(solids, config)

    def pixel(ray: Ray, index: jax.Array, depth: jax.Array, solid: _Placed) -> RayHit:
        normal = _normal(solid, kinds, _point(solid, ray, depth))
        depth = jnp.where(index < 0, jnp.inf, depth)
        return RayHit(index, depth, jnp.stack(normal))

    return functools.partial(see, pixel)


def look_at(eye: Sequence[float], target: Sequence[float]) -> Pose:
    """The pose of a camera at `eye` that looks at `target`, metres; z is up."""
    back = np.subtract(eye, target)
    back = back / np.linalg.norm(back)
    right = np.cross((0.0, 0.0, 1.0), back)
    if np.linalg.norm(right) < 1e-6:  # it looks along z
        right = np.array((1.0, 0.0, 0.0))
    right = right / np.linalg.norm(right)
    axes = np.stack([right, np.cross(back, right), back], axis=1)
    return jnp.asarray(eye, jnp.float32), jnp.asarray(axes, jnp.float32)


def _seeing(solids: Sequence[Solid], config: Config) -> Callable:
    """(pixel, poses, camera) -> `[H, W, ...]` of what `pixel` makes of each pixel.

    `pixel` is given a ray, the index of the solid that is nearest on it (-1: none), its
    depth, and the solid itself; where there is none, some depth and some solid.
    """
    rays, place = _rays(config), _placing(solids, config)
    members = {
        kind: np.flatnonzero([solid.kind == kind for solid in solids])
        for kind in {solid.kind for solid in solids}
    }

    def see(pixel: Callable, poses: Pose, camera: Pose):
        placed = place(poses, camera)
        nearest = jnp.full_like(rays[0], -1, jnp.int32), jnp.full_like(rays[0], jnp.inf)
        for kind in sorted(members):  # a fixed handful
            indices = jnp.asarray(members[kind], jnp.int32)
            some = jax.tree.map(lambda leaf, indices=indices: leaf[indices], placed)
            nearer = functools.partial(_nearer, kind, config.near, rays)
            nearest, _ = jax.lax.scan(nearer, nearest, (indices, some))

        def finish(seen):
            ray, index, depth = seen
            solid = jax.tree.map(lambda leaf: leaf[jnp.maximum(index, 0)], placed)
            return pixel(ray, index, jnp.where(index < 0, 1.0, depth), solid)

        # In a loop of four turns: else XLA on a CPU would fuse all of this into what comes
        # after it, for each colour anew and without vector instructions, 6 times slower.
        turn = max(config.height * config.width // 4, 1)
        pixels = jax.lax.map(finish, (rays, *nearest), batch_size=turn)  # [P, ...]
        size = config.height, config.width
        return jax.tree.map(lambda leaf: leaf.reshape(*size, *leaf.shape[1:]), pixels)

    return see


def _placing(solids: Sequence[Solid], config: Config) -> Callable[[Pose, Pose], _Placed]:
    """(poses, camera) -> solids `[G]` as the camera finds them."""
    size = np.array([(*solid.size, 0.0, 0.0, 0.0)[:3] for solid in solids], np.float32)
    flat = np.array([[solid.kind == "plane"] for solid in solids])
    size = np.where(flat & (size == 0), np.inf, size)
    rgb = np.array([(solid.rgb, solid.odd_rgb) for solid in solids], np.float32)
    tile = np.array([solid.tile for solid in solids], np.float32)
    tile = np.where(tile == 0, np.inf, tile)
    kind = np.array([_NAMES.index(solid.kind) for solid in solids], np.int32)
    lights = np.array([way for way, _ in config.lights], np.float32).reshape(-1, 3)
    lights = -lights / np.linalg.norm(lights, axis=1, keepdims=True)  # [I, 3]

    def place(poses: Pose, camera: Pose) -> _Placed:
        centre, axes = poses
        # A GPU's default precision of products, TF32, would move edges by pixels.
        product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
        return _Placed(
            eye=product("gji,gj->gi", axes, camera[0] - centre),
            axes=product("gji,jk->gik", axes, camera[1]),
            lights=product("gji,lj->gli", axes, lights),
            size=jnp.asarray(size),
            rgb=jnp.asarray(rgb),
            tile=jnp.asarray(tile),
            kind=jnp.asarray(kind),
        )

    return place


def _rays(config: Config) -> Ray:
    """Through the middles of all pixels, `[P]` each, row by row from the upper left."""
    half = math.tan(math.radians(config.fovy) / 2)
    x = (np.arange(config.width) + 0.5) * 2 / config.height - config.width / config.height
    y = 1 - (np.arange(config.height) + 0.5) * 2 / config.height
    x, y = np.meshgrid(half * x, half * y)
    return jnp.asarray(x.ravel(), jnp.float32), jnp.asarray(y.ravel(), jnp.float32)


# ------------------------------------------------------------------------- what is nearest


def _nearer(kind: str, near: float, rays: Ray, nearest: tuple, one: tuple):
    """Holds one solid against the nearest so far, index and depth `[P]`; a step of a scan.

    All solids at once, `[G, P]`, would not fit into a processor's cache.
    """
    index, solid = one
    depth = jax.vmap(functools.partial(_depth, kind, near, solid))(rays)
    closer = depth < nearest[1]
    depth = jnp.where(closer, depth, nearest[1])
    return (jnp.where(closer, index, nearest[0]), depth), None


def _depth(kind: str, near: float, solid: _Placed, ray: Ray) -> jax.Array:
    """The depth at which one ray sees one solid, [] metres; inf: it does not."""
    start, along = _components(solid.eye), _along(solid, ray)
    middle = jnp.zeros_like(ray[0])
    if kind != "plane":
        middle = -dot(start, along) / dot(along, along)
        start = further(start, along, middle)
    hit, depth = KINDS[kind].enter(start, along, _components(solid.size))
    depth = depth + middle
    return jnp.where(hit & (depth > near), depth, jnp.inf)


# --------------------------------------------------------------------------- how it looks


def _colour(
    solid: _Placed, kinds: set[str], ray: Ray, depth: jax.Array, config: Config
) -> Vector:
    """The colour of a solid at some depth on a ray."""
    point = _point(solid, ray, depth)
    normal = _normal(solid, kinds, point)
    rgb = _components(solid.rgb[0])
    if "plane" in kinds:
        odd = _oddness(solid, ray, point, config)
        rgb = further(rgb, _components(solid.rgb[1] - solid.rgb[0]), odd)
    light = _components(jnp.asarray(config.ambient, jnp.float32))
    ways = [solid.axes[:, 2], *solid.lights]
    lamps = [config.head, *(lamp for _, lamp in config.lights)]
    for way, lamp in zip(ways, lamps, strict=True):
        falling = jnp.maximum(dot(normal, _components(way)), 0.0)
        light = further(light, _components(jnp.asarray(lamp, jnp.float32)), falling)
    return light[0] * rgb[0], light[1] * rgb[1], light[2] * rgb[2]


def _oddness(solid: _Placed, ray: Ray, point: Vector, config: Config) -> jax.Array:
    """0 on even tiles, 1 on odd ones, their mean where tiles are smaller than pixels."""
    corner = jnp.where(jnp.isinf(solid.size), 0.0, solid.size)
    x = (corner[0] + point[0]) / solid.tile[0]
    y = (corner[1] - point[1]) / solid.tile[1]
    odd = (jnp.floor(x) + jnp.floor(y)) % 2
    # How far the point runs when the ray turns by one unit: height over d_z².
    run = jnp.abs(solid.eye[2]) / jnp.maximum(_along(solid, ray)[2] ** 2, TINY)
    pixel = 2 * math.tan(math.radians(config.fovy) / 2) / config.height
    width = run * pixel / jnp.minimum(solid.tile[0], solid.tile[1])  # of a pixel, in tiles
    return 0.5 + (odd - 0.5) * jnp.clip(1.5 - width, 0.0, 1.0)


def _sky(ray: Ray, axes: jax.Array, config: Config) -> Vector:
    """The colour of the sky, linear in the sine of the height."""
    x, y = ray
    sine = (axes[2, 0] * x + axes[2, 1] * y - axes[2, 2]) / jnp.sqrt(x * x + y * y + 1)
    nadir, zenith = (jnp.asarray(c, jnp.float32) for c in (config.nadir, config.zenith))
    return further(_components(nadir), _components(zenith - nadir), (1 + sine) / 2)


def _normal(solid: _Placed, kinds: set[str], point: Vector) -> Vector:
    """The normal at a point of the surface, of length 1, in the solid's frame."""
    size = _components(solid.size)
    x, y, z = point
    for kind in sorted(kinds):
        other = unit(KINDS[kind].normal(point, size))
        chosen = solid.kind == _NAMES.index(kind)
        x, y, z = (jnp.where(chosen, a, b) for a, b in zip(other, (x, y, z), strict=True))
    return x, y, z


def _point(solid: _Placed, ray: Ray, depth: jax.Array) -> Vector:
    """Where a ray is at a depth, in the solid's frame."""
    return further(_components(solid.eye), _along(solid, ray), depth)


def _along(solid: _Placed, ray: Ray) -> Vector:
    """The direction of a ray in the solid's frame, of which 1 is a depth of 1 metre."""
    x, y = ray
    one, two, three = (row[0] * x + row[1] * y - row[2] for row in solid.axes)
    return one, two, three


def _components(vector: jax.Array) -> Vector:
    return vector[0], vector[1], vector[2]
