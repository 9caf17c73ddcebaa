"""An analytic ray caster: images of simple solids inside `jit` and `vmap`, on any device.

The ray through the point (x, y) of a pinhole camera's image, in the frame of a solid:

    p(t) = o + t d,   o = Rᵀ (eye - centre),   d = Rᵀ C (x, y, -1)

t is the depth in front of the camera. A pixel shows the solid that its ray enters at the
smallest t. Its colour is the solid's colour times the light on it. n is the normal, e
points back to the plane of the camera, and l_i points to a light:

    ambient + head max(0, n·e) + Σ_i light_i max(0, n·l_i)

First o is moved along the ray to the point nearest to the centre. Otherwise, in float32, a
thin solid far away would lose its edge. Every ray is tested against every solid, at some
tens of operations each. That suits tens of solids and small images.

Source: the moved origin is that of Haines, Günther and Akenine-Möller 2019, Precision
Improvements for Ray/Sphere Intersection, in Ray Tracing Gems. Cameras are MuJoCo's.
Departures from MuJoCo's renderer: one ray a pixel; all lights are parallel; no shadow,
highlight, reflection, haze or transparency.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from planil_jax.base import UsageError
from planil_jax.config import Count, NonNegative, Positive, Range, check
from planil_jax.envs.primitives import KINDS, TINY, Vector, dot, further, unit_vector

# Red, green and blue; 1 is the brightest that an image holds, and light may be brighter.
Colour: TypeAlias = tuple[NonNegative, NonNegative, NonNegative]
Direction: TypeAlias = tuple[float, float, float]  # in the world; of any length
Pose: TypeAlias = tuple[jax.Array, jax.Array]  # centre [3] metres; axes as columns [3, 3]
Ray: TypeAlias = tuple[jax.Array, jax.Array]  # x and y in the picture at a depth of 1

_NAMES = tuple(KINDS)


@dataclass(frozen=True, kw_only=True)
class Solid:
    """A solid. Its pose is an argument of the function that draws it."""

    kind: str = "sphere"  # one of KINDS
    # metres, see primitives.py; 0 for an infinite plane
    size: tuple[NonNegative, ...] = (0.1,)
    rgb: Colour = (0.5, 0.5, 0.5)  # colour
    odd_rgb: Colour = (0.5, 0.5, 0.5)  # colour of every other tile of a plane
    # Sides of the tiles of a plane, metres; 0: no tiles. The first tile is in the corner of
    # -x and +y, or starts at the origin of an infinite plane.
    tile: tuple[NonNegative, NonNegative] = (0.0, 0.0)

    def check(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"kind is one of {', '.join(KINDS)}, not {self.kind!r}.")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Camera and lights."""

    height: Count = 64  # pixels
    width: Count = 64  # pixels
    # vertical field of view, degrees
    fovy: Annotated[float, Range(0.0, 180.0, above=True, below=True)] = 45.0
    near: Positive = 0.01  # smallest depth that is visible, metres
    ambient: Colour = (0.4, 0.4, 0.4)  # colour of the ambient light
    head: Colour = (0.4, 0.4, 0.4)  # colour of the light at the camera
    # Other lights: the direction in the world in which each shines, and its colour.
    lights: tuple[tuple[Direction, Colour], ...] = (((0.4, 0.6, -1.0), (0.4, 0.4, 0.4)),)
    zenith: Colour = (0.36, 0.55, 0.73)  # colour of the sky straight up
    nadir: Colour = (0.04, 0.05, 0.07)  # colour straight down; between them it is linear


@struct.dataclass
class RayHit:
    """Where the rays of the pixels end."""

    solid: jax.Array  # [H, W] int32, index of the solid; -1: the sky
    depth: jax.Array  # [H, W] metres along the camera's axis; inf: the sky
    normal: jax.Array  # [H, W, 3] outward, in the frame of the solid; undefined for the sky


@struct.dataclass
class _Placed:
    """A solid with its pose relative to the camera; directions are in the solid's frame."""

    eye: jax.Array  # [3] the camera, metres
    axes: jax.Array  # [3, 3] columns: the camera's right, up and back
    lights: jax.Array  # [I, 3] towards each light
    size: jax.Array  # [3]
    rgb: jax.Array  # [2, 3] of even and odd tiles
    tile: jax.Array  # [2] metres; inf: no tiles
    kind: jax.Array  # [] int32, index in KINDS


def make(solids: Sequence[Solid], config: Config) -> Callable[[Pose, Pose], jax.Array]:
    """A function that draws the solids.

    Args:
      solids: G of them.
      config: camera and lights.

    Returns:
      (poses `[G]` of the solids, pose of the camera) -> image `[H, W, 3]` uint8. The camera
      looks along its -z, and its y points up in the image.
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
    """A function like that of `make`, which returns the hits of the rays, not colours."""
    kinds, see = {solid.kind for solid in solids}, _seeing(solids, config)

    def pixel(ray: Ray, index: jax.Array, depth: jax.Array, solid: _Placed) -> RayHit:
        normal = _normal(solid, kinds, _point(solid, ray, depth))
        depth = jnp.where(index < 0, jnp.inf, depth)
        return RayHit(index, depth, jnp.stack(normal))

    return functools.partial(see, pixel)


def look_at(eye: Sequence[float], target: Sequence[float]) -> Pose:
    """The pose of a camera at `eye` that looks at `target`, both in metres; z is up."""
    back = np.subtract(eye, target)
    back = back / np.linalg.norm(back)
    right = np.cross((0.0, 0.0, 1.0), back)
    if np.linalg.norm(right) < 1e-6:  # it looks along z
        right = np.array((1.0, 0.0, 0.0))
    right = right / np.linalg.norm(right)
    axes = np.stack([right, np.cross(back, right), back], axis=1)
    return jnp.asarray(eye, jnp.float32), jnp.asarray(axes, jnp.float32)


def _seeing(solids: Sequence[Solid], config: Config) -> Callable:
    """(pixel, poses, camera) -> the values `[H, W, ...]` of `pixel` for all rays.

    `pixel` takes a ray, the index of the nearest solid on it (-1: none), its depth, and the
    solid. If there is none, depth and solid are arbitrary.

    Raises:
      UsageError: a setting of a solid, the camera or a light is outside its range.
    """
    check(config, "image.")
    for index, solid in enumerate(solids):
        check(solid, f"solids[{index}].")
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
            of_kind = jax.tree.map(lambda leaf, indices=indices: leaf[indices], placed)
            nearer = functools.partial(_nearer, kind, config.near, rays)
            nearest, _ = jax.lax.scan(nearer, nearest, (indices, of_kind))

        def finish(hit):
            ray, index, depth = hit
            solid = jax.tree.map(lambda leaf: leaf[jnp.maximum(index, 0)], placed)
            return pixel(ray, index, jnp.where(index < 0, 1.0, depth), solid)

        # A loop of four batches. Otherwise XLA on a CPU fuses this into later operations,
        # repeats it for each colour without vector instructions, and is 6 times slower.
        batch = max(config.height * config.width // 4, 1)
        pixels = jax.lax.map(finish, (rays, *nearest), batch_size=batch)  # [P, ...]
        size = config.height, config.width
        return jax.tree.map(lambda leaf: leaf.reshape(*size, *leaf.shape[1:]), pixels)

    return see


def _placing(solids: Sequence[Solid], config: Config) -> Callable[[Pose, Pose], _Placed]:
    """(poses, camera) -> solids `[G]` relative to the camera."""
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
        # In TF32, the default precision on a GPU, edges would be off by pixels.
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
    """Rays through the centres of all pixels, `[P]`, row by row from the upper left."""
    half = math.tan(math.radians(config.fovy) / 2)
    x = (np.arange(config.width) + 0.5) * 2 / config.height - config.width / config.height
    y = 1 - (np.arange(config.height) + 0.5) * 2 / config.height
    x, y = np.meshgrid(half * x, half * y)
    return jnp.asarray(x.ravel(), jnp.float32), jnp.asarray(y.ravel(), jnp.float32)


# -------------------------------------------------------------------------- nearest solid


def _nearer(kind: str, near: float, rays: Ray, nearest: tuple, one: tuple):
    """A step of a scan over solids: updates index and depth `[P]` of the nearest solid.

    Arrays for all solids at once, `[G, P]`, would not fit into the cache of a CPU.
    """
    index, solid = one
    depth = jax.vmap(functools.partial(_depth, kind, near, solid))(rays)
    closer = depth < nearest[1]
    depth = jnp.where(closer, depth, nearest[1])
    return (jnp.where(closer, index, nearest[0]), depth), None


def _depth(kind: str, near: float, solid: _Placed, ray: Ray) -> jax.Array:
    """The depth [] at which a ray enters a solid, metres; inf: it does not."""
    start, along = _components(solid.eye), _along(solid, ray)
    middle = jnp.zeros_like(ray[0])
    if kind != "plane":
        middle = -dot(start, along) / dot(along, along)
        start = further(start, along, middle)
    hit, depth = KINDS[kind].enter(start, along, _components(solid.size))
    depth = depth + middle
    return jnp.where(hit & (depth > near), depth, jnp.inf)


# --------------------------------------------------------------------------------- colour


def _colour(
    solid: _Placed, kinds: set[str], ray: Ray, depth: jax.Array, config: Config
) -> Vector:
    """The colour of a solid at a depth on a ray."""
    point = _point(solid, ray, depth)
    normal = _normal(solid, kinds, point)
    rgb = _components(solid.rgb[0])
    if "plane" in kinds:
        odd = _oddness(solid, ray, point, config)
        rgb = further(rgb, _components(solid.rgb[1] - solid.rgb[0]), odd)
    light = _components(jnp.asarray(config.ambient, jnp.float32))
    directions = [solid.axes[:, 2], *solid.lights]
    lamps = [config.head, *(lamp for _, lamp in config.lights)]
    for direction, lamp in zip(directions, lamps, strict=True):
        cosine = jnp.maximum(dot(normal, _components(direction)), 0.0)
        light = further(light, _components(jnp.asarray(lamp, jnp.float32)), cosine)
    return light[0] * rgb[0], light[1] * rgb[1], light[2] * rgb[2]


def _oddness(solid: _Placed, ray: Ray, point: Vector, config: Config) -> jax.Array:
    """0 on even tiles, 1 on odd tiles, and 1/2 where tiles are smaller than pixels."""
    corner = jnp.where(jnp.isinf(solid.size), 0.0, solid.size)
    x = (corner[0] + point[0]) / solid.tile[0]
    y = (corner[1] - point[1]) / solid.tile[1]
    odd = (jnp.floor(x) + jnp.floor(y)) % 2
    # Movement of the point when the ray turns by one unit: height over d_z².
    rate = jnp.abs(solid.eye[2]) / jnp.maximum(_along(solid, ray)[2] ** 2, TINY)
    pixel = 2 * math.tan(math.radians(config.fovy) / 2) / config.height
    width = rate * pixel / jnp.minimum(solid.tile[0], solid.tile[1])  # of a pixel, in tiles
    return 0.5 + (odd - 0.5) * jnp.clip(1.5 - width, 0.0, 1.0)


def _sky(ray: Ray, axes: jax.Array, config: Config) -> Vector:
    """The colour of the sky, linear in the sine of the elevation."""
    x, y = ray
    sine = (axes[2, 0] * x + axes[2, 1] * y - axes[2, 2]) / jnp.sqrt(x * x + y * y + 1)
    nadir, zenith = (jnp.asarray(c, jnp.float32) for c in (config.nadir, config.zenith))
    return further(_components(nadir), _components(zenith - nadir), (1 + sine) / 2)


def _normal(solid: _Placed, kinds: set[str], point: Vector) -> Vector:
    """The unit normal at a point of the surface, in the solid's frame."""
    size = _components(solid.size)
    x, y, z = point
    for kind in sorted(kinds):
        normal = unit_vector(KINDS[kind].normal(point, size))
        is_kind = solid.kind == _NAMES.index(kind)
        x, y, z = (jnp.where(is_kind, a, b) for a, b in zip(normal, (x, y, z), strict=True))
    return x, y, z


def _point(solid: _Placed, ray: Ray, depth: jax.Array) -> Vector:
    """The point of a ray at a depth, in the solid's frame."""
    return further(_components(solid.eye), _along(solid, ray), depth)


def _along(solid: _Placed, ray: Ray) -> Vector:
    """The direction of a ray in the solid's frame, scaled to a depth of 1 metre."""
    x, y = ray
    one, two, three = (row[0] * x + row[1] * y - row[2] for row in solid.axes)
    return one, two, three


def _components(vector: jax.Array) -> Vector:
    return vector[0], vector[1], vector[2]
