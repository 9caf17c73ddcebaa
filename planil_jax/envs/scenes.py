"""Scenes of environments, by the name of the environment.

A scene maps the environment's name and a `View` to a function that draws the innermost
`sim` of a state, as uint8 `[H, W, 3]`. The scenes of the analytic environments are written
here. Those of MuJoCo environments are their models, with the cameras of the models
(`mjcf_scene`). Other packages `register` their own.
"""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from planil_jax.base import UsageError, did_you_mean
from planil_jax.config import Count
from planil_jax.envs import navigation, raycast
from planil_jax.envs.raycast import Config, Pose, Solid

Draw: TypeAlias = Callable[[Any], jax.Array]  # (sim) -> uint8 [H, W, 3]

_RED, _WHITE = (0.75, 0.2, 0.15), (0.95, 0.95, 0.9)
_SKIN, _DARK = (0.7, 0.5, 0.3), (0.15, 0.15, 0.18)


@dataclass(frozen=True, kw_only=True)
class View:
    """The size of an image and its camera."""

    height: Count = 64  # pixels
    width: Count = 64  # pixels
    camera: str = ""  # name of a camera of the scene; "": the first one


Scene: TypeAlias = Callable[[str, View], Draw]  # (name of the environment, view)


def pendulum(name: str, view: View) -> Draw:
    """A rod that turns about the centre of the image; angles grow counter-clockwise."""
    config = _config(name, view, {"front": 35.0})
    camera = raycast.look_at((0.0, -4.0, 0.0), (0.0, 0.0, 0.0))
    draw = raycast.make(
        [
            Solid(kind="capsule", size=(0.09, 0.5), rgb=_SKIN),
            Solid(kind="cylinder", size=(0.06, 0.12), rgb=_DARK),
        ],
        config,
    )

    def draw_sim(sim: Any) -> jax.Array:
        sin, cos = jnp.sin(sim.angle), jnp.cos(sim.angle)
        zero, one = jnp.zeros_like(sin), jnp.ones_like(sin)
        up = jnp.stack([-sin, zero, cos])  # [3] along the rod
        along_y = jnp.stack([zero, one, zero])
        rod = jnp.stack([jnp.stack([cos, zero, sin]), along_y, up], axis=1)
        pin = jnp.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], jnp.float32)
        centres = jnp.stack([0.5 * up, jnp.zeros_like(up)])
        return draw((centres, jnp.stack([rod, pin])), camera)

    return draw_sim


def point_mass(name: str, view: View) -> Draw:
    """A ball on a floor and the goal, a red disc, from above; x and y within ±2 m."""
    config = _config(name, view, {"top": 45.0})
    camera = raycast.look_at((0.0, 0.0, 2.0 / math.tan(math.radians(22.5))), (0.0,) * 3)
    draw = raycast.make(
        [
            _floor(tile=0.5),
            Solid(kind="cylinder", size=(0.2, 0.01), rgb=_RED),
            Solid(kind="sphere", size=(0.15,), rgb=_SKIN),
        ],
        config,
    )

    def draw_sim(sim: Any) -> jax.Array:
        ball = jnp.stack([sim.x, sim.y, jnp.full_like(sim.x, 0.15)])
        centres = jnp.stack([jnp.zeros_like(ball), jnp.zeros_like(ball), ball])
        return draw((centres, _upright(3)), camera)

    return draw_sim


def navigation_car(name: str, view: View) -> Draw:
    """The car and its goal, a red disc.

    Camera "top" shows x and y from -4 to 14 m, with the car at four times its size. Camera
    "chase" follows the car, and a post marks the goal.
    """
    config = _config(name, view, {"top": 45.0, "chase": 60.0})
    chase = view.camera == "chase"
    scale, tile = (1.0, 1.0) if chase else (4.0, 3.0)
    above = raycast.look_at((5.0, 5.0, 9.0 / math.tan(math.radians(22.5))), (5.0, 5.0, 0.0))
    # Half lengths, colour, and the centre: ahead of the rear axle, and above the ground.
    parts = [
        ((0.21, 0.11, 0.05), _SKIN, 0.16, 0.08),
        ((0.05, 0.09, 0.04), _WHITE, 0.30, 0.12),
        ((0.04, 0.14, 0.05), _DARK, 0.0, 0.05),
        ((0.04, 0.14, 0.05), _DARK, 0.325, 0.05),
    ]
    car = [
        Solid(kind="box", size=tuple(scale * half for half in size), rgb=rgb)
        for size, rgb, _, _ in parts
    ]
    still = [
        _floor(tile),
        Solid(kind="cylinder", size=(navigation.SUCCESS_RADIUS, 0.01), rgb=_RED),
    ]
    still_centres = [(0.0, 0.0, 0.0), (*navigation.GOAL, 0.0)]
    if chase:
        still.append(Solid(kind="capsule", size=(0.15, 1.0), rgb=_RED))
        still_centres.append((*navigation.GOAL, 1.0))
    ahead, up = scale * jnp.array([(far, high) for _, _, far, high in parts], jnp.float32).T
    draw = raycast.make([*still, *car], config)

    def draw_sim(sim: Any) -> jax.Array:
        cos, sin = jnp.cos(sim.heading), jnp.sin(sim.heading)
        zero, one = jnp.zeros_like(cos), jnp.ones_like(cos)
        rows = (cos, -sin, zero), (sin, cos, zero), (zero, zero, one)
        rotation = jnp.stack([jnp.stack(row) for row in rows])
        car_centres = jnp.stack([sim.x + ahead * cos, sim.y + ahead * sin, up], axis=1)
        centres = jnp.concatenate([jnp.array(still_centres, jnp.float32), car_centres])
        rotations = jnp.broadcast_to(rotation, (len(car), 3, 3))
        poses = centres, jnp.concatenate([_upright(len(still)), rotations])
        return draw(poses, _behind(sim, rotation) if chase else above)

    return draw_sim


def register(name: str, scene: Scene | str) -> None:
    """Registers the scene of an environment, for the option "name:pixels=64".

    Args:
      name: of the environment, `spec.name`; a name that ends in "/*" stands for a family.
      scene: (name, view) -> (sim) -> uint8 [H, W, 3]; or "package.module:function", which
        is imported at the first use.
    """
    _SCENES[name] = scene


def find(name: str) -> Scene:
    """The scene of an environment, by `spec.name`.

    Raises:
      UsageError: there is none.
    """
    family = f"{name.partition('/')[0]}/*"
    scene = _SCENES.get(name, _SCENES.get(family))
    if scene is None:
        raise UsageError(
            f"environment {name!r} has no scene to draw: give it one by scenes.register"
            f"({name!r}, scene), of a MuJoCo model with scene=mjcf_scene.of_mjcf(model)."
        )
    if not isinstance(scene, str):
        return scene
    module, _, function = scene.partition(":")
    return getattr(importlib.import_module(module), function)


def _config(name: str, view: View, cameras: dict[str, float]) -> Config:
    """The image of a view; `cameras` maps names to vertical fields of view in degrees."""
    camera = view.camera or next(iter(cameras))
    if camera not in cameras:
        raise UsageError(
            f"environment {name!r} has no camera {camera!r}."
            f"{did_you_mean(camera, cameras)} It has: {', '.join(cameras)}."
        )
    return Config(height=view.height, width=view.width, fovy=cameras[camera])


def _behind(sim: Any, rotation: jax.Array) -> Pose:
    """A camera 1.4 m behind and 0.8 m above a car that looks ahead and slightly down."""
    cos, sin = math.cos(0.3), math.sin(0.3)
    in_car = jnp.array([[0, sin, -cos], [-1, 0, 0], [0, cos, sin]], jnp.float32)
    centre = jnp.stack([sim.x, sim.y, jnp.full_like(sim.x, 0.8)]) - 1.4 * rotation[:, 0]
    highest = jax.lax.Precision.HIGHEST
    return centre, jnp.einsum("ij,jk->ik", rotation, in_car, precision=highest)


def _floor(tile: float) -> Solid:
    """An infinite chequered plane; tiles in metres."""
    light, dark = (0.32, 0.38, 0.45), (0.22, 0.27, 0.33)
    return Solid(kind="plane", size=(), rgb=light, odd_rgb=dark, tile=(tile, tile))


def _upright(count: int) -> jax.Array:
    """Identity rotations, `[count, 3, 3]`."""
    return jnp.broadcast_to(jnp.eye(3, dtype=jnp.float32), (count, 3, 3))


_SCENES: dict[str, Scene | str] = {
    "navigation": navigation_car,
    "pendulum": pendulum,
    "point_mass": point_mass,
    "brax/*": "planil_jax.envs.mjcf_scene:brax",
    "kitchen": "planil_jax.envs.mjcf_scene:kitchen",
    "gym/*": "planil_jax.envs.mjcf_scene:gym",
    "playground/*": "planil_jax.envs.mjcf_scene:playground",
}
