"""Six kinds of solids: where a ray enters them, and the normals of their surfaces.

A ray is p(t) = o + t d in the frame of the solid, with d of any length. It enters a

    plane      at t = -o_z / d_z, from above only, within the half lengths
    ellipsoid  at the smaller root of |S⁻¹ p(t)| = 1; a sphere has S = r I
    box        where it enters the last of three slabs, if it has left none of them before
    cylinder   likewise, of a slab in z and the tube x² + y² <= r²
    capsule    at the smaller root of x² + y² = r² where |z| <= h, else at the sphere of an
    end

Kinds, sizes and frames are those of MuJoCo. Sizes are in metres. A sphere has its radius; a
capsule and a cylinder have the radius and half the length along z; an ellipsoid and a box
have three half lengths; a plane has two half lengths, inf for an infinite plane.

Every function takes one ray and one solid as scalars. Under `vmap` each component is one
contiguous array.

Source: Kay & Kajiya 1986, Ray Tracing Complex Scenes (slabs); textbook quadratics.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

Vector: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]  # x, y, z: [] each

TINY = 1e-12


class Kind(NamedTuple):
    """The functions of one kind of solid."""

    # (o, d, size) -> whether the line meets the solid [] bool, and the t where it enters []
    enter: Callable[[Vector, Vector, Vector], tuple[jax.Array, jax.Array]]
    # (point of the surface, size) -> outward normal, of any length
    normal: Callable[[Vector, Vector], Vector]


def _enter_plane(start: Vector, along: Vector, size: Vector):
    hit = (start[2] > 0) & (along[2] < 0)
    depth = start[2] / jnp.maximum(-along[2], TINY)
    x, y, _ = further(start, along, depth)
    return hit & (jnp.abs(x) <= size[0]) & (jnp.abs(y) <= size[1]), depth


def _enter_ellipsoid(start: Vector, along: Vector, size: Vector):
    start, along = divide(start, size), divide(along, size)
    a, b, c = dot(along, along), dot(start, along), dot(start, start) - 1
    return _lesser_root(a, b, c)


def _enter_sphere(start: Vector, along: Vector, size: Vector):
    return _enter_ellipsoid(start, along, (size[0],) * 3)


def _enter_capsule(start: Vector, along: Vector, size: Vector):
    a, b, c = _tube(start, along, size[0])
    hit, side = _lesser_root(a, b, c)  # a ray that misses the tube misses both ends too
    z = start[2] + side * along[2]
    below_end = start[2] - jnp.clip(z, -size[1], size[1])
    a, b, c = a + along[2] ** 2, b + below_end * along[2], c + below_end**2
    hit_end, end = _lesser_root(a, b, c)
    beside = jnp.abs(z) <= size[1]
    return hit & (beside | hit_end), jnp.where(beside, side, end)


def _enter_cylinder(start: Vector, along: Vector, size: Vector):
    a, b, c = _tube(start, along, size[0])
    within = b * b >= a * c
    root = jnp.sqrt(jnp.maximum(b * b - a * c, 0.0))
    enter_slab, leave_slab = _slab(start[2], along[2], size[1])
    enter = jnp.maximum(enter_slab, (-b - root) / a)
    return within & (enter <= jnp.minimum(leave_slab, (-b + root) / a)), enter


def _enter_box(start: Vector, along: Vector, size: Vector):
    enters, leaves = zip(*map(_slab, start, along, size), strict=True)
    enter = functools.reduce(jnp.maximum, enters)
    return enter <= functools.reduce(jnp.minimum, leaves), enter


def _tube(start: Vector, along: Vector, radius: jax.Array):
    """Coefficients a, b, c of a t² + 2 b t + c = 0, where the ray meets x² + y² = r²."""
    a = jnp.maximum(along[0] ** 2 + along[1] ** 2, TINY)
    b = start[0] * along[0] + start[1] * along[1]
    return a, b, start[0] ** 2 + start[1] ** 2 - radius**2


def _lesser_root(a: jax.Array, b: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether a t² + 2 b t + c = 0 has a real root, and the smaller root."""
    square = b * b - a * c
    return square >= 0, (-b - jnp.sqrt(jnp.maximum(square, 0.0))) / a


def _slab(start: jax.Array, along: jax.Array, half: jax.Array):
    """The t at which the ray enters -h <= z <= h, and the t at which it leaves."""
    along = jnp.where(jnp.abs(along) < TINY, TINY, along)
    middle, extent = -start / along, half / jnp.abs(along)
    return middle - extent, middle + extent


def _normal_plane(point: Vector, size: Vector) -> Vector:
    zero = jnp.zeros_like(point[0])
    return zero, zero, zero + 1


def _normal_ellipsoid(point: Vector, size: Vector) -> Vector:
    return divide(divide(point, size), size)


def _normal_sphere(point: Vector, size: Vector) -> Vector:
    return point


def _normal_capsule(point: Vector, size: Vector) -> Vector:
    return point[0], point[1], point[2] - jnp.clip(point[2], -size[1], size[1])


def _normal_cylinder(point: Vector, size: Vector) -> Vector:
    x, y, z = point
    radial_excess = jnp.sqrt(x * x + y * y + TINY) - size[0]
    side = radial_excess > jnp.abs(z) - size[1]
    return jnp.where(side, x, 0.0), jnp.where(side, y, 0.0), jnp.where(side, 0.0, z)


def _normal_box(point: Vector, size: Vector) -> Vector:
    excess = [jnp.abs(entry) - half for entry, half in zip(point, size, strict=True)]
    furthest = functools.reduce(jnp.maximum, excess)
    x, y, z = (
        jnp.where(distance == furthest, jnp.sign(entry), 0.0)
        for distance, entry in zip(excess, point, strict=True)
    )
    return x, y, z


# ------------------------------------------------------------------------------- vectors


def further(start: Vector, along: Vector, t: jax.Array) -> Vector:
    """o + t d."""
    x, y, z = (a + t * b for a, b in zip(start, along, strict=True))
    return x, y, z


def divide(one: Vector, other: Vector) -> Vector:
    """The quotient, component by component."""
    x, y, z = (a / b for a, b in zip(one, other, strict=True))
    return x, y, z


def dot(one: Vector, other: Vector) -> jax.Array:
    """The scalar product."""
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2]


def unit_vector(vector: Vector) -> Vector:
    """The vector of length 1 in the same direction; zero stays zero."""
    scale = jax.lax.rsqrt(dot(vector, vector) + TINY)
    return vector[0] * scale, vector[1] * scale, vector[2] * scale


KINDS = {
    "plane": Kind(_enter_plane, _normal_plane),
    "sphere": Kind(_enter_sphere, _normal_sphere),
    "capsule": Kind(_enter_capsule, _normal_capsule),
    "ellipsoid": Kind(_enter_ellipsoid, _normal_ellipsoid),
    "cylinder": Kind(_enter_cylinder, _normal_cylinder),
    "box": Kind(_enter_box, _normal_box),
}
