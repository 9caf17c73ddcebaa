import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.envs import course, navigation
from planil_jax.evaluation import expert_policies
from planil_jax.training import loop


def at(x, y, heading, speed):
    return jnp.array([x, y, np.cos(heading), np.sin(heading), speed, 0.0, 0.0])


def cost(obs):
    return float(course.expert_cost(obs, jnp.zeros(2), obs))


def test_the_course_is_closed_bends_to_both_sides_and_starts_at_the_origin_along_x():
    points = course.course()
    steps = np.diff(np.vstack([points, points[:1]]), axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    assert lengths.max() < 0.15 and 16.0 < lengths.sum() < 17.5  # metres
    headings = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
    turns = np.diff(headings)
    assert turns.min() < -0.03 and turns.max() > 0.05  # to the right, and to the left
    np.testing.assert_allclose(points[0], 0.0, atol=1e-6)
    assert abs(headings[0]) < 0.1
    tightest = (lengths[1:] / np.abs(turns)).min()
    assert tightest > navigation.WHEELBASE / np.tan(0.4)  # the prior can follow it


def test_driving_on_the_course_at_its_speed_costs_nothing():
    points = course.course()
    ahead = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    for i in range(0, len(points), 20):
        heading = np.arctan2(ahead[i, 1], ahead[i, 0])
        assert cost(at(*points[i], heading, course.SPEED)) < 1e-4


@pytest.mark.parametrize(
    ("obs", "charged"),
    [
        (at(0.0, -0.5, 0.0, 1.0), 1.0),  # half a metre beside it
        (at(0.0, 0.0, np.pi, 1.0), 2.0),  # the wrong way round
        (at(0.0, 0.0, 0.0, 3.0), 2.0),  # too fast
    ],
)
def test_distance_speed_and_heading_errors_are_charged(obs, charged):
    assert cost(obs) == pytest.approx(charged, abs=0.02)


def test_the_car_is_that_of_navigation_and_the_reward_is_one_minus_the_cost():
    env = envs.make("course:steering_gain=0.3")
    car = envs.make("navigation:steering_gain=0.3")
    assert env.spec.observation_names == car.spec.observation_names
    key, action = jax.random.key(0), jnp.array([0.5, 0.4])
    state = env.reset(key)
    next_state, transition = env.step(state, action)
    expected = car.step(car.reset(key), action)[0]
    np.testing.assert_array_equal(next_state.obs, expected.obs)
    charged = course.expert_cost(state.obs, action, next_state.obs)
    assert transition.reward == pytest.approx(1.0 - float(charged))
    assert env.spec.episode_length == 200 and env.prior is not None


def test_the_demonstrator_steers_towards_a_point_ahead_and_asks_for_its_speed():
    straight = course.pursue(at(0.0, 0.0, 0.0, course.SPEED))
    np.testing.assert_allclose(straight[0], course.SPEED / navigation.MAX_SPEED, rtol=1e-5)
    left, right = (course.pursue(at(0.0, y, 0.0, 1.0))[1] for y in (-0.2, 0.2))
    assert left > 0.2 and right < -0.2
    assert course.pursue(at(0.0, 0.0, 0.0, 0.0))[0] > straight[0]


@pytest.mark.parametrize(
    "name", ["course", "course:action_delay=1,observation_noise=0.02,steering_gain=0.44"]
)
def test_the_demonstrator_keeps_to_the_course_with_cars_that_react_late(name):
    env = envs.make(name + ",box=0.2" if ":" in name else name + ":box=0.2")
    expert = expert_policies.make_expert(name, env)
    keys = jax.random.split(jax.random.key(0), 4)
    rolled, _ = jax.jit(lambda keys: loop.evaluate(expert, env, (), keys))(keys)
    obs = np.asarray(rolled.next_obs)
    points = course.course()
    away = np.linalg.norm(obs[:, :, None, :2] - points, axis=-1).min(-1)  # [4, L]
    assert away.max() < 0.25 and away.mean() < 0.08
    assert abs(obs[:, 20:, 4].mean() - course.SPEED) < 0.1
