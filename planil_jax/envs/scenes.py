"""What environments look like: a scene of each, by the environment's name.

A scene is a function of a `View` to another, of an environment's innermost `sim` to uint8
[H, W, 3]. Those of the analytic environments are built here by hand; those on MuJoCo are
their models (`mjcf_scene`), whose cameras they have. Others `register` their own.
"""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from planil_jax.base import UsageError, did_you_mean
from planil_jax.envs import navigation, raycast
from planil_jax.envs.raycast import Config, Pose, Solid

Draw: TypeAlias = Callable[[Any], jax.Array]  # (sim) -> uint8 [H, W, 3]

_RED, _WHITE = (0.75, 0.2, 0.15), (0.95, 0.95, 0.9)
_SKIN, _DARK = (0.7, 0.5, 0.3), (0.15, 0.15, 0.18)


@dataclass(frozen=True, kw_only=True)
class View:
    height: int = 64  # pixels
    width: int = 64  # pixels
    camera: str = ""  # by name; "": the scene's first


Scene: TypeAlias = Callable[[str, View], Draw]  # (name of the environment, view)


def pendulum(name: str, view: View) -> Draw:
    """A rod that turns about the middle of the picture; angles grow counter-clockwise."""
    config = _config(name, view, {"front": 35.0})
    camera = raycast.look_at((0.0, -4.0, 0.0), (0.0, 0.0, 0.0))
    draw = raycast.make(
        [
            Solid(kind="capsule", size=(0.09, 0.5), rgb=_SKIN),
            Solid(kind="cylinder", size=(0.06, 0.12), rgb=_DARK),
        ],
        config,
    )

    def picture(sim: Any) -> jax.Array:
        sin, cos = jnp.sin(sim.angle), jnp.cos(sim.angle)
        zero, one = jnp.zeros_like(sin), jnp.ones_like(sin)
        up = jnp.stack([-sin, zero, cos])  # [3] along the rod
        along_y = jnp.stack([zero, one, zero])
        rod = jnp.stack([jnp.stack([cos, zero, sin]), along_y, up], axis=1)
        pin = jnp.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], jnp.float32)
        centres = jnp.stack([0.5 * up, jnp.zeros_like(up)])
        return draw((centres, jnp.stack([rod, pin])), camera)

    return picture


def point_mass(name: str, view: View) -> Draw:
    """A ball on a floor, from above, within 2 m of the goal, a red disc."""
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

    def picture(sim: Any) -> jax.Array:
        here = jnp.stack([sim.x, sim.y, jnp.full_like(sim.x, 0.15)])
        centres = jnp.stack([jnp.zeros_like(here), jnp.zeros_like(here), here])
        return draw((centres, _upright(3)), camera)

    return picture


def navigation_car(name: str, view: View) -> Draw:
    """The car and its goal, a red disc.

    Cameras: "top" sees x and y from -4 to 14 m, where the starts and the goal of the task
    are, and the car four times its size; "chase" follows the car wherever it drives, and
    there is a post in the goal that can be seen from afar.
    """
    config = _config(name, view, {"top": 45.0, "chase": 60.0})
    chase = view.camera == "chase"
    scale, tile = (1.0, 1.0) if chase else (4.0, 3.0)
    above = raycast.look_at((5.0, 5.0, 9.0 / math.tan(math.radians(22.5))), (5.0, 5.0, 0.0))
    # Half lengths, and how far the middle is ahead of the rear axle and above the ground.
    parts = [
        ((0.21, 0.11, 0.05), _SKIN, 0.16, 0.08),
        ((0.05, 0.09, 0.04), _WHITE, 0.30, 0.12),
        ((0.04, 0.14, 0.05), _DARK, 0.0, 0.05),
        ((0.04, 0.14, 0.05), _DARK, 0.325, 0.05),
    ]
    car = [
        Solid(kind="box", size=tuple(scale * each for each in size), rgb=rgb)
        for size, rgb, _, _ in parts
    ]
    still = [
        _floor(tile),
        Solid(kind="cylinder", size=(navigation.SUCCESS_RADIUS, 0.01), rgb=_RED),
    ]
    places = [(0.0, 0.0, 0.0), (*navigation.GOAL, 0.0)]
    if chase:
        still.append(Solid(kind="capsule", size=(0.15, 1.0), rgb=_RED))
        places.append((*navigation.GOAL, 1.0))
    ahead, up = scale * jnp.array([(far, high) for _, _, far, high in parts], jnp.float32).T
    draw = raycast.make([*still, *car], config)

    def picture(sim: Any) -> jax.Array:
        cos, sin = jnp.cos(sim.heading), jnp.sin(sim.heading)
        zero, one = jnp.zeros_like(cos), jnp.ones_like(cos)
        rows = (cos, -sin, zero), (sin, cos, zero), (zero, zero, one)
        turn = jnp.stack([jnp.stack(row) for row in rows])
        here = jnp.stack([sim.x + ahead * cos, sim.y + ahead * sin, up], axis=1)
        centres = jnp.concatenate([jnp.array(places, jnp.float32), here])
        turns = jnp.broadcast_to(turn, (len(car), 3, 3))
        poses = centres, jnp.concatenate([_upright(len(still)), turns])
        return draw(poses, _behind(sim, turn) if chase else above)

    return picture


def register(name: str, scene: Scene | str) -> None:
    """Says how an environment looks, so that "name:pixels=64" shows it.

    Args:
      name: of the environment, `spec.name`; one that ends in "/*" stands for a family.
      scene: (name, view) -> (sim) -> uint8 [H, W, 3]; or "package.module:function", which
        is imported when it is first used.
    """
    _SCENES[name] = scene


def find(name: str) -> Scene:
    """The scene of an environment.

    Raises:
      UsageError: it has none.
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
    """What a view of a scene with cameras of these openings, in degrees, is drawn with."""
    camera = view.camera or next(iter(cameras))
    if camera not in cameras:
        raise UsageError(
            f"environment {name!r} has no camera {camera!r}."
            f"{did_you_mean(camera, cameras)} It has: {', '.join(cameras)}."
        )
    return Config(height=view.height, width=view.width, fovy=cameras[camera])


def _behind(sim: Any, turn: jax.Array) -> Pose:
    """A camera 1.4 m behind a car and 0.8 m above it that looks ahead and slightly down."""
    cos, sin = math.cos(0.3), math.sin(0.3)
    in_car = jnp.array([[0, sin, -cos], [-1, 0, 0], [0, cos, sin]], jnp.float32)
    place = jnp.stack([sim.x, sim.y, jnp.full_like(sim.x, 0.8)]) - 1.4 * turn[:, 0]
    return place, jnp.einsum("ij,jk->ik", turn, in_car, precision=jax.lax.Precision.HIGHEST)


def _floor(tile: float) -> Solid:
    """A chequered plane without end."""
    light, dark = (0.32, 0.38, 0.45), (0.22, 0.27, 0.33)
    return Solid(kind="plane", size=(), rgb=light, odd_rgb=dark, tile=(tile, tile))


def _upright(count: int) -> jax.Array:
    """Axes of things that are not turned."""
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
