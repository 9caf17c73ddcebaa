import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.envs import point_mass


def roll(env, actions):
    """A start, and the transitions `[T]` of `actions` `[T, 2]` from there, as numpy."""
    start = env.reset(jax.random.key(3))
    actions = jnp.asarray(actions, jnp.float32)
    scan = jax.jit(lambda start, actions: jax.lax.scan(env.step, start, actions))
    return start, jax.tree.map(np.array, scan(start, actions)[1])


@pytest.mark.parametrize("bound", [1.0, 0.3])
def test_an_episode_agrees_with_a_plain_loop(bound):
    env = point_mass.make(episode_length=30, action_bound=bound)
    actions = np.random.default_rng(0).uniform(-2, 2, (30, 2)).astype(np.float32)
    start, transitions = roll(env, actions)
    position, velocity = np.float64(start.obs[:2]), np.zeros(2)
    for t, action in enumerate(actions):
        push = np.clip(action, -bound, bound)
        reward = -(position @ position + 0.1 * push @ push)
        np.testing.assert_allclose(
            transitions.obs[t], np.concatenate([position, velocity]), atol=1e-5
        )
        velocity = velocity + 0.1 * push
        position = position + 0.1 * velocity
        np.testing.assert_allclose(
            transitions.next_obs[t], np.concatenate([position, velocity]), atol=1e-5
        )
        np.testing.assert_allclose(transitions.reward[t], reward, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(transitions.action[t], action)


def test_a_constant_push_moves_the_point_by_dt_squared_n_times_n_plus_one_halves():
    start, transitions = roll(point_mass.make(), [[1.0, -0.5]] * 20)
    moved = transitions.next_obs[:, :2] - start.obs[:2]
    n = np.arange(1, 21)
    expected = np.outer(0.01 * n * (n + 1) / 2, [1.0, -0.5])
    np.testing.assert_allclose(moved, expected, atol=1e-5)


def test_an_episode_is_truncated_at_its_length_and_never_terminal():
    env = point_mass.make(episode_length=4)
    _, transitions = roll(env, np.zeros((6, 2)))
    np.testing.assert_array_equal(transitions.truncated, [False] * 3 + [True] * 3)
    assert not transitions.terminal.any()


def test_starts_are_at_rest_and_fill_the_square():
    env = point_mass.make()
    keys = jax.random.split(jax.random.key(0), 500)
    obs = np.array(jax.jit(jax.vmap(env.reset))(keys).obs)
    assert (obs[:, :2].min(0) < -0.95).all() and (obs[:, :2].max(0) > 0.95).all()
    assert (np.abs(obs[:, :2]) <= 1.0).all()
    np.testing.assert_array_equal(obs[:, 2:], 0.0)


def test_the_expert_cost_is_of_the_position_after_the_step_and_of_the_action():
    next_obs = jnp.array([3.0, -2.0, 9.0, 9.0])
    cost = point_mass.expert_cost(None, jnp.array([1.0, 2.0]), next_obs)
    np.testing.assert_allclose(cost, 13.0 + 0.5, rtol=1e-6)


def test_the_specification_has_the_sizes_and_the_bound():
    spec = point_mass.make(episode_length=7, action_bound=0.5).spec
    assert (spec.observation_size, spec.action_size, spec.episode_length) == (4, 2, 7)
    assert (spec.action_low, spec.action_high) == ((-0.5, -0.5), (0.5, 0.5))
