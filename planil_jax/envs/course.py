"""Drive a car round a course that is neither straight nor a circle, at one metre a second.

The course is a peanut, through the origin along x, with bends to both sides:

    ρ(θ) = 2.4 + 0.8 cos 2θ metres, about (0, 1.6)

The cars are those of `navigation` and of `navigation_mjx`, with their options: what is
learned with the one can be driven on the other.

The demonstrator pursues a point half a metre ahead on the course, as a person does, and so
copes with cars that answer late. In the body's frame that point is at (a, b):

    steer ∝ atan(2 b L / (a² + b²)),   throttle ∝ 1 + (1 - v) / 2

Source: after the real drive of Han et al. 2025, MPAIL, arXiv 2507.21533, section 5.3;
Coulter 1992, Implementation of the Pure Pursuit Path Tracking Algorithm.
Departures: their course is not published; this one is ours.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax.base import Environment, EnvState, Transition
from planil_jax.envs import navigation

SPEED = 1.0  # metres a second
_LOOKAHEAD = 0.5  # metres
_FULL_STEER = 0.488  # radians of front wheel, as the demonstrator believes
_POINTS = 160  # of the polygon that stands for the course


def with_course(
    make_car: Callable[..., Environment], name: str
) -> Callable[..., Environment]:
    """What makes the course, of what makes a task with its car; the options are the car's.

    An episode lasts 200 control steps unless `episode_length` says otherwise.
    """

    @functools.wraps(make_car)
    def make(episode_length: int = 200, **options: Any) -> Environment:
        return _along(make_car(episode_length=episode_length, **options), name)

    return make


def _along(env: Environment, name: str) -> Environment:
    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        following, transition = env.step(state, action)
        reward = 1.0 - expert_cost(state.obs, action, following.obs)
        return following, transition.replace(reward=reward)  # type: ignore[attr-defined]

    spec = env.spec._replace(name=name)
    return env._replace(
        spec=spec,
        step=step,
        expert_cost=expert_cost,
        success=None,
        demonstrator=lambda state: pursue(state.obs),
    )


make = with_course(navigation.make, "course")


def course() -> np.ndarray:
    """The course, closed, `[P, 2]` metres, in the direction of travel."""
    angle = np.linspace(0.0, 2 * math.pi, _POINTS, endpoint=False) - math.pi / 2
    radius = 2.4 + 0.8 * np.cos(2 * angle)
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (points - points[0]).astype(np.float32)


_COURSE = course()
_AHEAD = np.roll(_COURSE, -1, axis=0) - np.roll(_COURSE, 1, axis=0)
_HEADING = np.arctan2(_AHEAD[:, 1], _AHEAD[:, 0]).astype(np.float32)


def pursue(obs: jax.Array) -> jax.Array:
    """The demonstrator's action `[2]`, of an observation `[7]` of `navigation`."""
    away = _COURSE - obs[:2]  # [P, 2]
    distances = jnp.sqrt(jnp.sum(away**2, axis=1) + 1e-12)
    nearest = jnp.argmin(distances)
    farther = jnp.roll(distances, -nearest) >= _LOOKAHEAD
    aim = away[(nearest + jnp.argmax(farther)) % _POINTS]
    cos, sin = obs[2], obs[3]
    ahead, absorbing_embedding = cos * aim[0] + sin * aim[1], -sin * aim[0] + cos * aim[1]
    wheel = jnp.arctan(
        2 * absorbing_embedding * navigation.WHEELBASE / (ahead**2 + absorbing_embedding**2)
    )
    steer = jnp.clip(wheel / _FULL_STEER, -1.0, 1.0)
    throttle = SPEED / navigation.MAX_SPEED * (1 + (SPEED - obs[4]) / 2)
    return jnp.stack([jnp.clip(throttle, 0.0, 1.0), steer])


def expert_cost(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
    """Cost of the scripted demonstrator, of observations `[7]` of `navigation`.

    2 distance to the course + |v - 1| + (1 - cos of the error of heading)
    """
    del obs, action
    squared = jnp.sum((next_obs[:2] - _COURSE) ** 2, axis=1)  # [P]
    nearest = jnp.argmin(squared)
    ahead = jnp.asarray(_HEADING)[nearest]
    along = next_obs[2] * jnp.cos(ahead) + next_obs[3] * jnp.sin(ahead)
    distance = jnp.sqrt(squared[nearest] + 1e-12)
    return 2.0 * distance + jnp.abs(next_obs[4] - SPEED) + 1.0 - along
