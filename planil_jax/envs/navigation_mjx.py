"""The navigation task with a car that has wheels, springs and tyres.

Observation, action, reward, success, end, demonstrator and the planner's wrong prior are
those of `navigation`. The same key gives the same start.

The car of `car.xml` is a free chassis on four sprung wheels: 3.5 kg, wheelbase 0.325 m. All
wheels are driven through differentials, and the front wheels are steered. Throttle and
steer set targets, which motor and servo follow by first-order lags. The torque of the motor
and the friction of the tyres limit the motion. The observed position is the middle of the
rear axle, as that of the kinematic bicycle.

An observation does not hold wheels and springs, so there is no `recover`.

Source: Han et al. 2025, MPAIL, arXiv 2507.21533, section 5; vehicle after MuSHR.
Departures: masses, springs, lags and friction are ours; wheels meet the ground as spheres.
The engines agree in forces, steady speeds and turns. They integrate the motor's feedback
through the differentials in another way, so that speeds differ by up to 0.3 m/s while the
car pulls away.
"""

import importlib.resources
import math

import jax
import jax.numpy as jnp
import mujoco

from planil_jax.base import Environment, UsageError
from planil_jax.envs import course, mjcf, navigation
from planil_jax.envs.quiet import mjx


def make(
    start: str = "box",
    field: float = 40.0,
    episode_length: int = 100,
    steering_gain: float = 0.488,
    drive_lag: float = 0.1,
    steering_lag: float = 0.1,
    mass: float = 1.0,
    friction: float = 1.0,
    box: float = 1.0,
    engine: str = "auto",
) -> Environment:
    """The navigation task on MJX.

    Args:
      start: "box" starts in 1 × 1 m about the origin, heading along x within ±0.5 rad;
        "field" starts anywhere on the field, at any heading.
      field: side of the square field about the origin, metres.
      episode_length: control steps of 0.1 s.
      steering_gain: radians of front wheel at full steer.
      drive_lag, steering_lag: time constants of the targets of motor and servo, seconds.
      mass, friction: factors of the mass of the car and of the friction of its tyres.
      box: side of the box of "box" starts, metres; half of it, in radians, bounds headings.
      engine: of the physics, see `envs.engines`.

    Raises:
      UsageError: an option is out of range; the message names it.
    """
    navigation.check_start(start)

    def reset(key: jax.Array, data: mjx.Data) -> mjx.Data:
        x, y, heading = navigation.start_pose(key, start, field, box)
        turn = [jnp.cos(heading / 2), 0.0, 0.0, jnp.sin(heading / 2)]
        pose = jnp.array([x, y, data.qpos[2], *turn], jnp.float32)
        return data.replace(qpos=data.qpos.at[:7].set(pose))

    def reward(data: mjx.Data, action: jax.Array, next_data: mjx.Data) -> jax.Array:
        del data, action
        distance = navigation.distance_to_goal(observe(next_data))
        return math.hypot(*navigation.GOAL) - distance

    return mjcf.make(
        "navigation_mjx",
        model(steering_gain, drive_lag, steering_lag, mass, friction),
        observe,
        navigation.OBSERVATION_NAMES,
        control_period=navigation.PERIOD,
        reset=reset,
        reward=reward,
        episode_length=episode_length,
        prior=navigation.kinematic_prior(),
        expert_cost=navigation.expert_cost,
        success=navigation.success,
        engine=engine,
    )


make_course = course.with_course(make, "course_mjx")


def model(
    steering_gain: float = 0.488,
    drive_lag: float = 0.1,
    steering_lag: float = 0.1,
    mass: float = 1.0,
    friction: float = 1.0,
) -> mujoco.MjModel:
    """The MuJoCo model of the car; arguments as for `make`.

    Raises:
      UsageError: a lag is negative, or a factor is out of range.
    """
    if min(drive_lag, steering_lag) < 0:
        raise UsageError("navigation_mjx has lags of 0 s or more, not less.")
    text = (
        importlib.resources.files("planil_jax.envs").joinpath("car.xml").read_text("utf-8")
    )
    car = mjcf.load(text, mass, friction)
    servo = car.actuator("steer")
    servo.gainprm[0] = -servo.biasprm[1] * steering_gain  # its stiffness times the angle
    servo.dynprm[0] = steering_lag
    car.actuator("throttle").dynprm[0] = drive_lag
    return car


def observe(data: mjx.Data) -> jax.Array:
    """The observation `[7]` of `navigation`, of the chassis frame on the rear axle."""
    w, x, y, z = data.qpos[3:7]
    forward = jnp.stack(
        [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)]
    )  # [3] the body's x axis in the world
    left = jnp.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)])
    heading = jnp.arctan2(forward[1], forward[0])
    velocity = data.qvel[:3]
    return jnp.stack(
        [
            data.qpos[0],
            data.qpos[1],
            jnp.cos(heading),
            jnp.sin(heading),
            forward @ velocity,
            left @ velocity,
            data.qvel[5],
        ]
    )
