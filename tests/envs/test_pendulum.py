import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.base import EnvState
from planil_jax.envs import pendulum

ENV = pendulum.make()


def states(angles, speeds) -> EnvState:
    """Pendulums `[B]`."""
    angles, speeds = jnp.asarray(angles, jnp.float32), jnp.asarray(speeds, jnp.float32)
    obs = jnp.stack([jnp.cos(angles), jnp.sin(angles), speeds], axis=-1)
    time = jnp.zeros(angles.shape, jnp.int32)
    return EnvState(sim=pendulum.Pendulum(angles, speeds), obs=obs, time=time)


@jax.jit
def roll(start, torques):
    """Pendulums `[4]` under torques `[200, 4]`: the states and transitions `[200, 4]`."""

    def step(now, torque):
        next_state, transition = jax.vmap(ENV.step)(now, torque[:, None])
        return next_state, (next_state, transition)

    return jax.lax.scan(step, start, torques)[1]


def swing(angles, speeds, torque=0.0):
    """States and transitions `[200, B]` of up to four pendulums, as numpy."""
    spare = [0.0] * (4 - len(angles))
    start = states([*angles, *spare], [*speeds, *spare])
    swung = roll(start, jnp.full((200, 4), torque, jnp.float32))
    return jax.tree.map(lambda leaf: np.array(leaf)[:, : len(angles)], swung)


def energy(sim) -> np.ndarray:
    """½ θ̇² + 15 cos θ, which nothing but torque and the step of the integrator changes."""
    angle, speed = np.float64(sim.angle), np.float64(sim.speed)
    return 0.5 * speed**2 + 15.0 * np.cos(angle)


def test_a_step_agrees_with_a_plain_loop():
    rng = np.random.default_rng(0)
    angles, speeds = rng.uniform(-9, 9, 200), rng.uniform(-8, 8, 200)
    torques = rng.uniform(-4, 4, (200, 1))  # also outside the bounds
    next_state, transitions = jax.jit(jax.vmap(ENV.step))(
        states(angles, speeds), jnp.asarray(torques, jnp.float32)
    )
    next_state, transitions = jax.tree.map(np.array, (next_state, transitions))
    for i, (angle, speed, torque) in enumerate(
        zip(angles, speeds, torques[:, 0], strict=True)
    ):
        torque = min(max(torque, -2.0), 2.0)
        wrapped = math.atan2(math.sin(angle), math.cos(angle))
        reward = -(wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2)
        speed += 0.05 * (15.0 * math.sin(angle) + 3.0 * torque)
        speed = min(max(speed, -8.0), 8.0)
        angle += 0.05 * speed
        obs = [math.cos(angle), math.sin(angle), speed]
        np.testing.assert_allclose(next_state.obs[i], obs, atol=1e-5)
        np.testing.assert_allclose(transitions.next_obs[i], obs, atol=1e-5)
        np.testing.assert_allclose(transitions.reward[i], reward, rtol=1e-4)


def test_a_free_pendulum_keeps_its_energy():
    angles = np.array([math.pi - 0.2, math.pi / 2, 0.3])
    path, _ = swing(angles, [0.0] * 3)
    # A semi-implicit step of 0.05 s makes the energy swing, but not wander: by less than
    # half of dt ω² θ_max θ̇_max at any time, and in the mean of the last 5 s by far less.
    start = 15.0 * np.cos(angles)
    energies = energy(path.sim)
    assert (np.abs(energies - start[None]) < [0.15, 5.0, 5.0]).all()
    np.testing.assert_allclose(energies[100:].mean(0), start, atol=0.6)


def test_a_small_free_swing_takes_two_pi_over_root_15_seconds():
    path, _ = swing([math.pi + 0.05], [0.0])
    away = path.sim.angle[:, 0] - math.pi
    upwards = np.flatnonzero((away[:-1] < 0) & (away[1:] >= 0))
    period = 0.05 * (upwards[-1] - upwards[0]) / (len(upwards) - 1)
    np.testing.assert_allclose(period, 2 * math.pi / math.sqrt(15.0), rtol=0.03)


def test_upright_at_rest_is_an_equilibrium_with_reward_0():
    path, transitions = swing([0.0], [0.0])
    np.testing.assert_array_equal(path.obs, np.tile([1.0, 0.0, 0.0], (200, 1, 1)))
    np.testing.assert_array_equal(transitions.reward, 0.0)


@pytest.mark.parametrize("torque", [2.0, -2.0])
def test_full_torque_cannot_lift_the_pendulum_directly(torque):
    # The swing ends where 15 (1 - cos φ) = 6 φ, at φ = 0.83 from the bottom.
    path, _ = swing([math.pi], [0.0], torque)
    away = np.abs(path.sim.angle - math.pi).max()
    np.testing.assert_allclose(away, 0.83, atol=0.06)


def test_the_expert_cost_is_the_task_s_cost_of_the_state_after_the_step():
    obs = states([-2.0], [3.0]).obs[0]
    cost = pendulum.expert_cost(None, jnp.array([1.5]), obs)
    np.testing.assert_allclose(cost, 4.0 + 0.9 + 0.00225, rtol=1e-5)


def test_episodes_start_at_any_angle_and_slowly():
    start = jax.jit(jax.vmap(ENV.reset))(jax.random.split(jax.random.key(0), 500))
    for values, bound in ((start.sim.angle, math.pi), (start.sim.speed, 1.0)):
        assert -bound <= values.min() < -0.95 * bound
        assert 0.95 * bound < values.max() <= bound


def test_an_episode_is_truncated_at_its_length_and_never_terminal():
    _, transitions = swing([1.0], [0.0])
    np.testing.assert_array_equal(transitions.truncated[:, 0], [False] * 199 + [True])
    assert not transitions.terminal.any()


def test_the_observation_has_a_name_per_entry():
    assert ENV.reset(jax.random.key(0)).obs.shape == (ENV.spec.observation_size,) == (3,)
