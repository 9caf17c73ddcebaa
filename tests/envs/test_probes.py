import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.envs import probes

ACTION = jnp.zeros((1,))


def play(env, steps: int):
    state, transitions = env.reset(jax.random.key(0)), []
    for _ in range(steps):
        state, transition = env.step(state, ACTION)
        transitions.append(transition)
    return jax.tree.map(lambda *leaves: np.array(leaves), *transitions)


def test_the_coin_falls_on_both_sides_equally():
    env = probes.one_step()
    keys = jax.random.split(jax.random.key(0), 1000)
    coins = np.array(jax.jit(jax.vmap(env.reset))(keys).obs)
    assert set(np.unique(coins)) == {-1.0, 1.0}
    assert abs(coins.mean()) < 0.16  # five standard deviations


@pytest.mark.parametrize("seed", range(4))
def test_the_reward_is_the_coin_and_the_episode_ends_at_once(seed):
    env = probes.one_step()
    start = env.reset(jax.random.key(seed))
    _, transition = env.step(start, ACTION)
    assert transition.reward == start.obs[0] == transition.obs[0]
    assert transition.terminal and not transition.truncated


def test_a_countdown_has_reward_1_per_step_and_its_last_step_is_terminal():
    played = play(probes.countdown(4), 4)
    np.testing.assert_array_equal(played.obs[:, 0], [4, 3, 2, 1])
    np.testing.assert_array_equal(played.next_obs[:, 0], [3, 2, 1, 0])
    np.testing.assert_array_equal(played.reward, 1.0)
    np.testing.assert_array_equal(played.terminal, [False, False, False, True])
    assert not played.truncated.any()


def test_an_endless_countdown_is_truncated_where_the_other_is_terminal():
    played = play(probes.countdown(4, endless=True), 4)
    np.testing.assert_array_equal(played.truncated, [False, False, False, True])
    assert not played.terminal.any()


@pytest.mark.parametrize("env", [probes.one_step(), probes.countdown(4)])
def test_a_probe_has_a_name_per_observation_entry(env):
    assert env.reset(jax.random.key(0)).obs.shape == (env.spec.observation_size,)
