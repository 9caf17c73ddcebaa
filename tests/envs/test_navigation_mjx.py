"""The sprung car on MJX; one program serves most tests, since compiling takes long."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.base import Environment, EnvState, UsageError
from planil_jax.envs import navigation, navigation_mjx

STEPS = 40
# The constant action of every car of the batch; the last one is outside the bounds.
ACTIONS = ((0.0, 0.5), (1.0, 0.0), (0.67, 1.0), (0.67, -1.0), (1.0, 1.0), (1.8, 0.0))
REST, STRAIGHT, LEFT, RIGHT, HARD, OUTSIDE = range(6)
SUSPENSIONS = slice(None), slice(None), np.array([7, 9, 11, 14])


class Drive(NamedTuple):
    """What every car did under its constant action."""

    obs: np.ndarray  # [T, car, 7]
    qpos: np.ndarray  # [T, car, 17]
    reward: np.ndarray  # [T, car]
    ends: tuple[np.ndarray, np.ndarray]  # terminal and truncated, both [T, car]
    env: Environment
    start: jax.Array  # [car, 7]


@pytest.fixture(scope="module")
def drive() -> Drive:
    env = envs.make("navigation_mjx", episode_length=STEPS, engine="mjx")

    def roll(keys):
        states = jax.vmap(env.reset)(keys)

        def step(states, _):
            states, transition = jax.vmap(env.step)(states, jnp.array(ACTIONS, jnp.float32))
            ends = (transition.terminal, transition.truncated)
            return states, (states.obs, states.sim.qpos, transition.reward, ends)

        return states.obs, jax.lax.scan(step, states, length=STEPS)[1]

    keys = jnp.stack([jax.random.key(3)] * len(ACTIONS))  # one start for all
    start, rows = jax.jit(roll)(keys)
    return Drive(*jax.tree.map(np.array, rows), env, start)


def roll_and_pitch(drive):
    """Largest tilt of every car, radians: the angle of its z axis from the vertical."""
    _, x, y, _ = np.moveaxis(drive.qpos[..., 3:7], -1, 0)
    return np.arccos(np.clip(1 - 2 * (x * x + y * y), -1, 1)).max(axis=0)


def test_a_car_at_zero_throttle_does_not_move(drive):
    moved = drive.obs[:, REST, :2] - drive.start[REST, :2]
    assert np.abs(moved).max() < 1e-3
    assert np.abs(drive.obs[:, REST, 4:]).max() < 0.01


def test_at_full_throttle_it_reaches_nearly_three_metres_a_second_within_a_second(drive):
    speed = drive.obs[:, STRAIGHT, 4]
    assert 2.0 < speed[4] < 2.9 < speed[9] < 3.05
    assert np.abs(drive.obs[:, STRAIGHT, 5]).max() < 0.01


def test_it_drives_along_its_heading(drive):
    travelled = drive.obs[-1, STRAIGHT, :2] - drive.start[STRAIGHT, :2]
    assert np.linalg.norm(travelled) > 10.0
    direction = travelled / np.linalg.norm(travelled)
    np.testing.assert_allclose(direction, drive.start[STRAIGHT, 2:4], atol=1e-2)


def test_its_steady_circle_is_a_little_wider_than_the_kinematic_one(drive):
    last = drive.obs[-10:, LEFT]
    radius = last[:, 4].mean() / last[:, 6].mean()
    kinematic = 0.325 / math.tan(0.488)  # 0.61 m
    assert kinematic < radius < 1.1 * kinematic


def test_left_and_right_mirror_each_other(drive):
    """As far as the tyres' friction pyramid lets them at a heading between its axes."""
    left, right = drive.obs[:, LEFT, 4:], drive.obs[:, RIGHT, 4:]
    np.testing.assert_allclose(left * [1, -1, -1], right, atol=0.2)
    steady = (left * [1, -1, -1])[-10:].mean(axis=0)
    np.testing.assert_allclose(steady, right[-10:].mean(axis=0), rtol=0.02, atol=0.005)
    assert left[-1, 2] > 2.0  # and positive steer is to the left


def test_at_full_throttle_and_steer_it_slides_but_does_not_flip(drive):
    tilt = roll_and_pitch(drive)
    assert 0.01 < tilt[LEFT] < 0.1
    assert 0.01 < tilt[HARD] < 0.2
    radius = drive.obs[-20:, HARD, 4].mean() / drive.obs[-20:, HARD, 6].mean()
    assert radius > 1.2 * 0.325 / math.tan(0.488)


def test_its_springs_give_by_millimetres(drive):
    given = np.abs(drive.qpos[SUSPENSIONS]).max(axis=(0, 2))
    assert given[REST] < 1e-3
    assert 2e-3 < given[STRAIGHT] < 2e-2  # it squats as it pulls away
    assert 2e-3 < given[HARD] < 2e-2


def test_actions_outside_their_bounds_act_like_the_bounds(drive):
    np.testing.assert_array_equal(drive.obs[:, OUTSIDE], drive.obs[:, STRAIGHT])


def test_reward_end_and_observation_are_those_of_navigation(drive):
    distance = np.hypot(10 - drive.obs[..., 0], 10 - drive.obs[..., 1])
    np.testing.assert_allclose(drive.reward, math.sqrt(200) - distance, atol=1e-4)
    terminal, truncated = drive.ends
    assert not terminal.any()
    assert truncated[-1].all() and not truncated[:-1].any()
    spec, other = drive.env.spec, navigation.make(episode_length=STEPS).spec
    assert spec == other._replace(name="navigation_mjx")
    np.testing.assert_allclose(np.hypot(drive.obs[..., 2], drive.obs[..., 3]), 1, rtol=1e-5)


def test_the_observation_is_the_derivative_of_the_pose(drive):
    """Body velocities, turned by the heading and integrated, give back the path."""
    for car in (STRAIGHT, LEFT):
        x, y, cos, sin, forward, left, yaw_rate = drive.obs[:, car].T
        dx, dy = forward * cos - left * sin, forward * sin + left * cos
        heading = np.unwrap(np.arctan2(sin, cos))
        for path, rate in ((x, dx), (y, dy), (heading, yaw_rate)):
            moved = 0.1 * (rate[1:] + rate[:-1]) / 2  # trapezoids
            np.testing.assert_allclose(np.diff(path), moved, atol=0.02)


def test_a_start_is_that_of_navigation_with_the_same_key(drive):
    box = navigation.make().reset(jax.random.key(3))
    np.testing.assert_allclose(drive.start[0], box.obs, atol=1e-5)
    field = {"start": "field", "field": 30.0}
    reset = jax.jit(envs.make("navigation_mjx", **field).reset)
    anywhere = navigation.make(**field).reset(jax.random.key(5))
    np.testing.assert_allclose(reset(jax.random.key(5)).obs, anywhere.obs, atol=1e-5)


def test_reset_and_step_agree_in_shapes_and_dtypes(drive):
    reset = jax.eval_shape(drive.env.reset, jax.random.key(0))
    action = jax.ShapeDtypeStruct((2,), jnp.float32)
    stepped = jax.eval_shape(drive.env.step, reset, action)[0]
    assert jax.tree.map(repr, reset) == jax.tree.map(repr, stepped)
    leaves = jax.tree.leaves(reset)
    assert not any(leaf.weak_type for leaf in leaves)
    assert sum(leaf.size for leaf in leaves) < 100  # small, where a whole Data is thousands


def test_in_c_the_car_comes_to_the_same_speeds_and_turns_as_on_mjx(drive):
    """While the motor changes its speed they differ; see the Departures of the module."""
    env = envs.make("navigation_mjx", episode_length=STEPS, engine="c")

    def roll(keys):
        def step(states, _):
            states, _ = jax.vmap(env.step)(states, jnp.array(ACTIONS, jnp.float32))
            return states, states.obs

        return jax.lax.scan(step, jax.vmap(env.reset)(keys), length=STEPS)[1]

    obs = jax.jit(roll)(jnp.stack([jax.random.key(3)] * len(ACTIONS)))
    in_c, on_mjx = (np.array(rows)[-10:, :, 4:] for rows in (obs, drive.obs))
    cars = [REST, STRAIGHT, LEFT, RIGHT, OUTSIDE]
    difference = in_c[:, cars].mean(axis=0) - on_mjx[:, cars].mean(axis=0)
    assert np.abs(difference).max() < 0.02
    first = np.abs(np.array(obs)[0, :, 4] - drive.obs[0, :, 4])
    assert first[REST] < 1e-3 and first.max() < 0.1


def test_the_planner_has_the_kinematic_prior_of_navigation(drive):
    prior = drive.env.prior
    state = EnvState(sim=None, obs=drive.start[0], time=jnp.int32(0))
    z = prior.step((), prior.start((), state), jnp.array([1.0, 0.0]), jax.random.key(0))
    obs = prior.observe((), z)
    np.testing.assert_allclose(obs[:2], state.obs[:2] + 0.3 * state.obs[2:4], atol=1e-5)
    assert drive.env.success(obs.at[:2].set(10.5)) and not drive.env.success(obs)


def test_the_car_has_ten_joints_and_four_contacts_on_a_free_chassis():
    car = navigation_mjx.model()
    free = int(mujoco.mjtJoint.mjJNT_FREE)
    assert list(car.jnt_type).count(free) == 1 and car.njnt == 11 and car.nv == 16
    assert sum(car.body_mass) == pytest.approx(3.5)
    data = mujoco.MjData(car)
    mujoco.mj_forward(car, data)
    assert data.ncon == 4
    wheels = [car.body(f"wheel_{end}_left").id for end in ("rear", "front")]
    distance = np.diff(data.xpos[wheels], axis=0)[0]
    np.testing.assert_allclose(distance, [0.325, 0, 0], atol=1e-6)


def steady(actions, steps=300, **options):
    """Speed, mean angle of the front wheels and lagged throttle `[T, 3]`, by MuJoCo."""
    car = navigation_mjx.model(**options)
    data = mujoco.MjData(car)
    rows = []
    for _ in range(steps):
        data.ctrl[:] = actions
        mujoco.mj_step(car, data)
        angle = data.qpos[[12, 15]].mean()
        rows.append([np.linalg.norm(data.qvel[:2]), angle, data.act[0]])
    return np.array(rows)


def test_the_steering_gain_is_an_option():
    for gain in (0.488, 0.35):
        assert steady([0.3, 1.0], steering_gain=gain)[-1, 1] == pytest.approx(gain, 0.05)


def test_the_lags_are_options_in_seconds():
    period = navigation_mjx.model().opt.timestep
    for lag in (0.1, 0.4):
        target = steady([1.0, 0.0], steps=16, drive_lag=lag)[-1, 2]
        assert target == pytest.approx(1 - math.exp(-16 * period / lag), rel=1e-3)
    assert steady([1.0, 0.0], steps=1, drive_lag=0.0)[0, 2] == 1.0
    slow, quick = (steady([0.0, 1.0], 16, steering_lag=lag)[-1, 1] for lag in (0.4, 0.05))
    assert slow < 0.6 * quick


def test_a_heavier_car_gathers_speed_more_slowly_and_a_slippery_one_turns_wider():
    light, heavy = (steady([1.0, 0.0], steps=40, mass=mass)[-1, 0] for mass in (1.0, 2.0))
    assert heavy < 0.75 * light
    grip, ice = (steady([1.0, 0.0], steps=40, friction=scale)[-1, 0] for scale in (1, 0.2))
    assert ice < 0.6 * grip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": "boxx"}, "'boxx'"),
        ({"mass": 0.0}, "mass"),
        ({"friction": -1.0}, "friction"),
        ({"drive_lag": -0.1}, "lags"),
        ({"masss": 1.0}, "masss"),
    ],
)
def test_an_impossible_option_is_refused_by_its_name(options, words):
    with pytest.raises(UsageError, match=words):
        envs.make("navigation_mjx", **options)
