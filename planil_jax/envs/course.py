"""Drive a car along a closed course with bends to both sides, at one metre a second.

The course is a peanut that passes the origin along x:

    ρ(θ) = 2.4 + 0.8 cos 2θ metres, about (0, 1.6)

Observation and action are those of `navigation`, as are the options. `course` has the car
of `navigation`, and `course_mjx` that of `navigation_mjx`.
Reward: 1 - cost, see `expert_cost`; it is 1 on the course at 1 m/s.
End: by time alone, after 200 steps.

The demonstrator pursues a point half a metre ahead on the course, so it copes with cars
that react late. In the body's frame that point is at (a, b):

    steer ∝ atan(2 b L / (a² + b²)),   throttle ∝ 1 + (1 - v) / 2

Source: after the real drive of Han et al. 2025, MPAIL, arXiv 2507.21533, section 5.3;
Coulter 1992, Implementation of the Pure Pursuit Path Tracking Algorithm.
Departures: the course of the paper is not published; this one is ours.
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
_FULL_STEER = 0.488  # radians of front wheel at full steer, for the demonstrator
_POINTS = 160  # corners of the polygon that approximates the course


def with_course(
    make_car: Callable[..., Environment], name: str
) -> Callable[..., Environment]:
    """A function that makes the course, with the car of another task.

    Args:
      make_car: makes an environment with observation and action of `navigation`.
      name: of the new environment.

    Returns:
      (episode_length=200, **options) -> Environment; the options are those of `make_car`.
    """

    @functools.wraps(make_car)
    def make(episode_length: int = 200, **options: Any) -> Environment:
        return _replace_task(make_car(episode_length=episode_length, **options), name)

    return make


def _replace_task(env: Environment, name: str) -> Environment:
    """The environment with the reward and the demonstrator of the course."""

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        next_state, transition = env.step(state, action)
        reward = 1.0 - expert_cost(state.obs, action, next_state.obs)
        return next_state, transition.replace(reward=reward)  # type: ignore[attr-defined]

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
    """Points of the closed course in the direction of travel, `[P, 2]` metres."""
    angle = np.linspace(0.0, 2 * math.pi, _POINTS, endpoint=False) - math.pi / 2
    radius = 2.4 + 0.8 * np.cos(2 * angle)
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (points - points[0]).astype(np.float32)


_COURSE = course()
_AHEAD = np.roll(_COURSE, -1, axis=0) - np.roll(_COURSE, 1, axis=0)
_HEADING = np.arctan2(_AHEAD[:, 1], _AHEAD[:, 0]).astype(np.float32)


def pursue(obs: jax.Array) -> jax.Array:
    """The demonstrator's action `[2]` for an observation `[7]` of `navigation`.

    Source: Coulter 1992, section 3 (pure pursuit).
    """
    offsets = _COURSE - obs[:2]  # [P, 2]
    distances = jnp.sqrt(jnp.sum(offsets**2, axis=1) + 1e-12)
    nearest = jnp.argmin(distances)
    farther = jnp.roll(distances, -nearest) >= _LOOKAHEAD
    aim = offsets[(nearest + jnp.argmax(farther)) % _POINTS]
    cos, sin = obs[2], obs[3]
    ahead, left = cos * aim[0] + sin * aim[1], -sin * aim[0] + cos * aim[1]
    wheel = jnp.arctan(2 * left * navigation.WHEELBASE / (ahead**2 + left**2))
    steer = jnp.clip(wheel / _FULL_STEER, -1.0, 1.0)
    throttle = SPEED / navigation.MAX_SPEED * (1 + (SPEED - obs[4]) / 2)
    return jnp.stack([jnp.clip(throttle, 0.0, 1.0), steer])


def expert_cost(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
    """Cost [] of a step, of the observation `[7]` of `navigation` after it.

    2 distance to the course (m) + |v - 1| (m/s) + 1 - cos(heading error)
    """
    del obs, action
    squared = jnp.sum((next_obs[:2] - _COURSE) ** 2, axis=1)  # [P]
    nearest = jnp.argmin(squared)
    heading = jnp.asarray(_HEADING)[nearest]
    cos_error = next_obs[2] * jnp.cos(heading) + next_obs[3] * jnp.sin(heading)
    distance = jnp.sqrt(squared[nearest] + 1e-12)
    return 2.0 * distance + jnp.abs(next_obs[4] - SPEED) + 1.0 - cos_error
