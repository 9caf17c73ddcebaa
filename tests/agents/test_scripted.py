import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.agents import scripted
from planil_jax.base import UsageError
from planil_jax.models import simulator
from planil_jax.planners import mppi

CONFIG = scripted.Config(planner=mppi.Config(samples=128, horizon=10, iterations=1))


@functools.cache
def episodes(name: str, length: int, count: int = 3):
    """The environment, and episodes of the demonstrator there, transitions `[B, L]`."""
    env = envs.make(name, episode_length=length)
    model = simulator.prior_or_physics(env)
    agent = scripted.make(env, model, CONFIG)
    params = model.init(jax.random.key(0))

    def episode(key):
        reset_key, act_key = jax.random.split(key)

        def step(running, key):
            state, carry = running
            action, carry = agent.act(params, carry, state, key, False)
            state, transition = env.step(state, action)
            return (state, carry), transition

        start = (env.reset(reset_key), agent.carry())
        return jax.lax.scan(step, start, jax.random.split(act_key, length))[1]

    keys = jax.random.split(jax.random.key(1), count)
    return env, jax.tree.map(np.array, jax.jit(jax.vmap(episode))(keys))


def test_it_regulates_a_point_mass_at_less_cost_than_doing_nothing():
    """At rest where it starts, a point costs its squared distance every step."""
    env, driven = episodes("point_mass", 40)
    still = 40 * (driven.obs[:, 0, :2] ** 2).sum(-1)
    cost = (driven.next_obs[..., :2] ** 2).sum((1, 2)) + 0.1 * (driven.action**2).sum(
        (1, 2)
    )
    assert (cost < 0.7 * still).all()
    ends = np.linalg.norm(driven.next_obs[:, -1, :2], axis=-1)
    assert (ends < 0.3 * np.linalg.norm(driven.obs[:, 0, :2], axis=-1)).all()


def test_it_drives_the_car_towards_the_goal_at_its_speed():
    """In 4 s at 2 m/s it can come 8 m nearer; with a wrong model, at least 4 m."""
    env, driven = episodes("navigation", 40)
    before = np.hypot(*(10.0 - driven.obs[:, 0, :2]).T)
    after = np.hypot(*(10.0 - driven.next_obs[:, -1, :2]).T)
    assert (before - after > 4.0).all()
    np.testing.assert_allclose(driven.next_obs[:, 15:, 4].mean(), 2.0, atol=0.3)


@pytest.mark.parametrize(("name", "length"), [("point_mass", 40), ("navigation", 40)])
def test_its_actions_are_within_their_bounds(name, length):
    env, driven = episodes(name, length)
    assert (np.array(env.spec.action_low) <= driven.action).all()
    assert (driven.action <= np.array(env.spec.action_high)).all()


@pytest.mark.parametrize("kept", [True, False])
def test_a_kept_plan_is_followed_where_all_noise_is_worse(kept):
    """The best action is 0.3 in every entry. The kept plan has it and noise does not.

    Above it the cost is twice that below, else noise and its mirror average to 0.3.
    """
    env = envs.make("point_mass")._replace(
        expert_cost=lambda obs, action, after: jnp.sum(
            jnp.maximum(0.3 - action, 2 * (action - 0.3))
        )
    )
    settings = dataclasses.replace(CONFIG, temperature=1e-6, keep_plan=kept)
    agent = scripted.make(env, simulator.make(env), settings)
    carry = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.3), agent.carry())
    state, key = env.reset(jax.random.key(0)), jax.random.key(1)
    action, _ = jax.jit(lambda: agent.act((), carry, state, key, False))()
    assert (np.abs(action - 0.3).max() < 1e-6) == kept


def test_an_environment_without_an_expert_cost_is_refused_in_one_sentence():
    env = envs.make("probe/countdown")
    message = "environment 'probe/countdown' has no expert_cost .*; register .*, or plan"
    with pytest.raises(UsageError, match=message):
        scripted.make(env, simulator.make(env), CONFIG)


def test_without_an_expert_cost_its_physics_observe_the_reward_until_the_end():
    """Countdown: the reward of a step as the environment gives it, and 0 after an end."""
    env = envs.make("probe/countdown")
    physics, key = scripted.rewarding_physics(env), jax.random.key(0)
    state, action = env.reset(key), jnp.zeros((env.spec.action_size,))
    z, ended = physics.start((), state), False
    for _ in range(env.spec.episode_length + 1):
        state, transition = env.step(state, action)
        z = physics.step((), z, action, key)
        expected = 0.0 if ended else float(transition.reward)
        ended = ended or bool(transition.terminal)
        np.testing.assert_allclose(physics.observe((), z), [expected], rtol=1e-6)
        cost = scripted.negative_reward(state.obs, action, physics.observe((), z))
        np.testing.assert_allclose(cost, -expected, rtol=1e-6)
    assert ended  # so that the last step came after an end


def test_each_member_of_a_model_has_a_score():
    def cost(obs, action, next_obs):
        return jnp.sum(obs) + 2 * jnp.sum(action) + 3 * jnp.sum(next_obs)

    obs, action = jnp.array([[1.0], [2.0]]), jnp.array([0.5])
    found = scripted.negative_cost(cost, obs, action, 10 * obs)
    np.testing.assert_allclose(found, [-32.0, -63.0])
    found = scripted.negative_cost(cost, obs[0], action, 10 * obs[0])
    np.testing.assert_allclose(found, -32.0)


def test_it_learns_nothing():
    env = envs.make("point_mass")
    agent = scripted.make(env, simulator.make(env), CONFIG)
    state = jnp.arange(3.0)
    after, metrics = agent.update(state, "rollout", "demos", "key", 0)
    assert after is state and metrics == {}
