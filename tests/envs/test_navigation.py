import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.base import EnvState, UsageError
from planil_jax.envs import navigation

WHEELBASE = 0.325


def state(**values) -> EnvState:
    """At rest at the origin along x, unless values are given; the observation agrees."""
    fields = ("x", "y", "heading", "speed", "drift", "yaw_rate", "steering")
    car = navigation.Car(**{name: jnp.float32(values.get(name, 0.0)) for name in fields})
    obs = [car.x, car.y, math.cos(car.heading), math.sin(car.heading)]
    obs = jnp.array([*obs, car.speed, car.drift, car.yaw_rate], jnp.float32)
    return EnvState(sim=car, obs=obs, time=jnp.zeros((), jnp.int32))


# Three kinds of cars and one length of roll, so that three programs are compiled.
NEUTRAL = {"drive_lag": 0.0, "steering_lag": 0.0, "understeer": 0.0, "slip": 0.0}
OTHER = {"understeer": 0.1, "slip": 0.05, "episode_length": 3}


@functools.cache
def roller(**options):
    """A jitted (state, actions [T, 2]) -> (states [T], transitions [T])."""
    env = navigation.make(**options)

    def roll(start, actions):
        def step(now, action):
            next_state, transition = env.step(now, action)
            return next_state, (next_state, transition)

        return jax.lax.scan(step, start, actions)[1]

    return jax.jit(roll)


def drive(actions, start=None, **options):
    """States and transitions `[T]` as numpy, of `actions` `[T, 2]` with T up to 80."""
    padded = np.zeros((80, 2), np.float32)
    padded[: len(actions)] = actions
    driven = roller(**options)(start or state(), padded)
    return jax.tree.map(lambda leaf: np.array(leaf)[: len(actions)], driven)


def hold(throttle: float, steer: float, steps: int, **options):
    return drive([[throttle, steer]] * steps, **options)


def prior_path(actions, **values):
    """The prior's cars from the start on, with leaves `[T + 1]` as numpy."""
    prior = navigation.kinematic_prior()
    z = prior.start((), state(**values))
    path = [z]
    for action in actions:
        z = prior.step((), z, jnp.asarray(action, jnp.float32), jax.random.key(0))
        path.append(z)
    return jax.tree.map(lambda *leaves: np.array(leaves), *path)


# ------------------------------------------------------------------------------- real car


@pytest.mark.parametrize("throttle", [0.25, 1.0])
def test_speed_follows_the_throttle_by_an_exact_first_order_lag(throttle):
    states, _ = hold(throttle, 0.0, 12)
    times = 0.1 * np.arange(1, 13)
    expected = 3.0 * throttle * (1 - np.exp(-times / 0.2))
    np.testing.assert_allclose(states.sim.speed, expected, rtol=1e-5)


@pytest.mark.parametrize("steer", [-1.0, 0.5])
def test_the_front_wheels_follow_the_steer_by_an_exact_first_order_lag(steer):
    states, _ = hold(0.5, steer, 12)
    times = 0.1 * np.arange(1, 13)
    expected = 0.488 * steer * (1 - np.exp(-times / 0.1))
    np.testing.assert_allclose(states.sim.steering, expected, rtol=1e-5)


def test_without_lags_speed_and_wheels_reach_their_targets_at_once():
    states, _ = hold(0.7, -0.5, 1, **NEUTRAL)
    np.testing.assert_allclose(states.sim.speed, [2.1], rtol=1e-6)
    np.testing.assert_allclose(states.sim.steering, [-0.244], rtol=1e-6)


def test_a_car_that_steers_straight_drives_along_its_line():
    states, _ = drive([[1.0, 0.0]] * 40, state(heading=math.atan2(3.0, 4.0)))
    # Each substep of 0.02 s moves by the speed at its end.
    speeds = 3.0 * (1 - np.exp(-0.02 * np.arange(1, 201) / 0.2))
    travelled = np.cumsum(0.02 * speeds)[4::5]
    np.testing.assert_allclose(states.sim.x, 0.8 * travelled, rtol=1e-4)
    np.testing.assert_allclose(states.sim.y, 0.6 * travelled, rtol=1e-4)
    np.testing.assert_array_equal(states.sim.drift, 0.0)


@pytest.mark.parametrize(("options", "factor"), [(NEUTRAL, 1.0), ({}, 1.27), (OTHER, 1.9)])
def test_understeer_divides_the_steady_yaw_rate_by_one_plus_k_v_squared(options, factor):
    states, _ = hold(1.0, 1.0, 80, **options)  # forty lags: steady at 3 m/s
    neutral = 3.0 * math.tan(0.488) / WHEELBASE
    np.testing.assert_allclose(states.sim.yaw_rate[-1], neutral / factor, rtol=1e-4)


@pytest.mark.parametrize("steer", [-0.6, 0.6])
@pytest.mark.parametrize(("options", "slip"), [(NEUTRAL, 0.0), ({}, 0.03), (OTHER, 0.05)])
def test_the_tail_drifts_outwards_in_a_steady_turn_by_slip_times_acceleration(
    options, slip, steer
):
    states, _ = hold(1.0, steer, 80, **options)
    acceleration = 3.0 * states.sim.yaw_rate[-1]
    assert acceleration * steer > 0
    np.testing.assert_allclose(states.sim.drift[-1], -slip * acceleration, rtol=1e-3)


def test_the_real_car_agrees_with_a_plain_loop_in_double_precision():
    rng = np.random.default_rng(0)
    actions = np.stack([rng.uniform(0, 1, 40), rng.uniform(-1, 1, 40)], axis=1)
    states, _ = drive(actions, state(x=1.0, y=-2.0, heading=0.3))
    x, y, heading, speed, drift, steering = 1.0, -2.0, 0.3, 0.0, 0.0, 0.0
    rows = []
    for throttle, steer in actions:
        for _ in range(5):
            speed += (3.0 * throttle - speed) * (1 - math.exp(-0.02 / 0.2))
            steering += (0.488 * steer - steering) * (1 - math.exp(-0.02 / 0.1))
            yaw_rate = speed * math.tan(steering) / (WHEELBASE * (1 + 0.03 * speed**2))
            drift += (-0.03 * speed * yaw_rate - drift) * (1 - math.exp(-0.02 / 0.1))
            heading += 0.02 * yaw_rate
            x += 0.02 * (speed * math.cos(heading) - drift * math.sin(heading))
            y += 0.02 * (speed * math.sin(heading) + drift * math.cos(heading))
        rows.append([x, y, math.cos(heading), math.sin(heading), speed, drift, yaw_rate])
    np.testing.assert_allclose(states.obs, rows, atol=2e-4)


def test_actions_outside_their_bounds_act_like_the_bounds():
    outside, transition = drive([[2.0, -3.0], [-1.0, 5.0]])
    at_bounds, _ = drive([[1.0, -1.0], [0.0, 1.0]])
    np.testing.assert_array_equal(outside.obs, at_bounds.obs)
    np.testing.assert_array_equal(transition.action, [[2.0, -3.0], [-1.0, 5.0]])


# ------------------------------------------------------------------------------ the task


@pytest.mark.parametrize(
    ("start", "side", "turn"), [("box", 1.0, 0.5), ("field", 40.0, math.pi)]
)
def test_starts_are_at_rest_and_fill_their_range(start, side, turn):
    env = navigation.make(start=start)
    states = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(1), 500))
    states = jax.tree.map(np.array, states)
    # Among 500 uniform draws the extremes come within 5 % of the ends (chance of a miss
    # 0.975^500 = 3e-6).
    for values, half in ((states.sim.x, side / 2), (states.sim.y, side / 2)):
        assert -half <= values.min() < -0.95 * half and 0.95 * half < values.max() <= half
    heading = states.sim.heading
    assert -turn <= heading.min() < -0.95 * turn and 0.95 * turn < heading.max() <= turn
    for still in (states.sim.speed, states.sim.drift, states.sim.yaw_rate, states.time):
        np.testing.assert_array_equal(still, 0)


def test_the_side_of_the_field_is_an_option():
    small, large = (
        navigation.make(start="field", field=side).reset(jax.random.key(0))
        for side in (10.0, 40.0)
    )
    np.testing.assert_allclose(4 * small.obs[:2], large.obs[:2], rtol=1e-6)
    assert (np.abs(large.obs[:2]) > 0.1).all()


def test_the_observation_has_a_name_per_entry_and_describes_the_car():
    env = navigation.make()
    start = env.reset(jax.random.key(0))
    assert start.obs.shape == (env.spec.observation_size,) == (7,)
    assert len(set(env.spec.observation_names)) == 7
    car = start.sim
    expected = [car.x, car.y, np.cos(car.heading), np.sin(car.heading), 0, 0, 0]
    np.testing.assert_allclose(start.obs, expected, rtol=1e-6)


def test_an_episode_is_truncated_at_its_length_and_never_terminal():
    _, transitions = hold(1.0, 0.2, 5, **OTHER)
    np.testing.assert_array_equal(transitions.truncated, [False, False, True, True, True])
    assert not transitions.terminal.any()
    assert navigation.make(episode_length=3).spec.episode_length == 3


@pytest.mark.parametrize(
    ("y", "reward"), [(10.0, 14.1421), (4.0, 8.1421), (-10.0, -5.8579)]
)
def test_the_reward_is_root_200_minus_the_metres_to_the_goal(y, reward):
    _, transitions = drive([[0.0, 0.0]], state(x=10.0, y=y))
    np.testing.assert_allclose(transitions.reward, [reward], atol=1e-4)


def test_the_reward_is_that_of_the_state_after_the_step():
    _, transitions = drive([[1.0, 0.0]], state(x=9.0, y=10.0, speed=3.0))
    np.testing.assert_allclose(transitions.next_obs[0, 0], 9.3, rtol=1e-5)
    np.testing.assert_allclose(transitions.reward, [14.1421 - 0.7], atol=1e-4)


def test_success_means_within_a_metre_and_a_half_of_the_goal():
    env = navigation.make()
    assert env.success(state(x=10.0, y=8.6).obs)
    assert not env.success(state(x=10.0, y=8.4).obs)
    assert not env.success(state().obs)


def test_the_expert_cost_is_the_distance_plus_ten_times_the_speed_error():
    cost = navigation.expert_cost(None, None, state(x=10.0, y=7.0, speed=1.5).obs)
    np.testing.assert_allclose(cost, 3.0 + 10 * 0.5, rtol=1e-6)


def test_an_unknown_option_is_refused_by_its_name():
    with pytest.raises(UsageError, match="'strt'.*start, field"):
        envs.make("navigation", strt="field")


def test_an_unknown_start_is_refused_by_its_name():
    with pytest.raises(UsageError, match="'boxx'"):
        envs.make("navigation", start="boxx")


# ------------------------------------------------------------------------------ the prior


def test_a_step_of_the_prior_is_the_one_computed_by_hand():
    # v = 1.5; ω = 1.5 tan 0.4 / 0.325 = 1.951353; ψ' = 0.195135;
    # x' = 0.15 cos ψ' = 0.147153, y' = 0.15 sin ψ' = 0.029085
    path = prior_path([[0.5, 1.0]])
    entries = [path.x, path.y, path.heading, path.speed, path.drift, path.yaw_rate]
    expected = [0.147153, 0.029085, 0.195135, 1.5, 0.0, 1.951353]
    np.testing.assert_allclose([values[1] for values in entries], expected, atol=2e-6)


@pytest.mark.parametrize(("throttle", "steer"), [(0.1, 1.0), (1.0, 1.0), (0.5, -0.4)])
def test_the_prior_turns_steadily_on_the_circle_of_a_bicycle(throttle, steer):
    path = prior_path([[throttle, steer]] * 12)
    radius = WHEELBASE / math.tan(0.4 * abs(steer))  # of a bicycle that moves all the time
    half_turn = 3.0 * throttle * 0.1 / radius / 2
    polygon = radius * half_turn / math.sin(half_turn)  # through corners a period apart
    points = path.x[1:] + 1j * path.y[1:]
    a, b, c = points[0], points[5], points[11]
    sides = abs(a - b) * abs(b - c) * abs(c - a)
    twice_area = abs(((b - a).conjugate() * (c - a)).imag)
    np.testing.assert_allclose(sides / (2 * twice_area), polygon, rtol=1e-3)
    assert (np.diff(path.heading) * steer > 0).all()  # to the left where steer is positive


def test_the_prior_starts_from_the_observation_alone():
    prior = navigation.kinematic_prior()
    observed = state(x=1.0, y=2.0, heading=-2.5, speed=1.0, drift=-0.2, yaw_rate=0.3)
    hidden = observed.replace(sim=state(x=7.0, steering=0.4).sim)
    z = prior.start((), hidden)
    np.testing.assert_allclose(prior.observe((), z), observed.obs, atol=1e-6)
    np.testing.assert_allclose(z.heading, -2.5, rtol=1e-6)
    assert z.steering == 0.0


def test_the_prior_is_the_model_of_the_environment():
    env = navigation.make()
    start = state(x=1.0, heading=0.5)
    z = env.prior.step((), env.prior.start((), start), jnp.array([1.0, 0.0]), None)
    obs = env.prior.observe((), z)
    np.testing.assert_allclose(obs[0], 1.0 + 0.3 * math.cos(0.5), rtol=1e-6)


def test_the_prior_has_neither_the_lag_nor_the_gain_of_the_real_car():
    states, _ = hold(1.0, 1.0, 1)
    path = prior_path([[1.0, 1.0]])
    assert states.sim.x[0] < 0.5 * path.x[1]  # the real car accelerates slowly
    slow, _ = hold(0.2, 1.0, 1, **NEUTRAL)  # without lags the gain remains
    ratio = slow.sim.yaw_rate[-1] / prior_path([[0.2, 1.0]]).yaw_rate[1]
    np.testing.assert_allclose(ratio, math.tan(0.488) / math.tan(0.4), rtol=1e-4)


def test_a_recovered_state_drives_like_the_original():
    env = navigation.make()
    state = env.reset(jax.random.key(3))
    for action in ([0.6, 0.3], [0.6, 0.4], [0.5, -0.2]):
        state = env.step(state, jnp.array(action))[0]
    found = env.recover(state.obs)
    for name in ("x", "y", "heading", "speed", "drift", "yaw_rate", "steering"):
        np.testing.assert_allclose(
            getattr(found.sim, name), getattr(state.sim, name), atol=1e-5, err_msg=name
        )
    action = jnp.array([0.3, 0.5])
    np.testing.assert_allclose(
        env.step(found, action)[0].obs, env.step(state, action)[0].obs, atol=1e-5
    )


def test_the_recovered_steering_of_a_standing_car_is_within_bounds():
    still = jnp.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 5.0])
    assert abs(navigation.make().recover(still).sim.steering) <= 0.488 + 1e-6
