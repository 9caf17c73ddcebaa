"""Steps in which something becomes not finite: recorded, restarted, never learned from."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from planil_jax.base import Agent, Environment
from planil_jax.training import loop

CONFIG = loop.Config(num_envs=3, steps=8, rounds=2, resets=2)
BAD = 2  # the step of every episode, from 0, in which something breaks


def breaking(what: str, at: int = BAD) -> Environment:
    """The toy, in which something becomes not finite in one step of every episode.

    Args:
      what: "obs", "sim" (the state alone) or "reward".
    """
    env = toy.environment(length=6)

    def reset(key):
        return dataclasses.replace(env.reset(key), sim={"force": jnp.ones((2,))})

    def step(state, action):
        broken = state.time == at
        after, transition = env.step(state, action)
        bad = jnp.where(broken, jnp.nan, 1.0)
        sim = {"force": state.sim["force"] * (bad if what == "sim" else 1.0)}
        obs = after.obs * (bad if what == "obs" else 1.0)
        reward = transition.reward * (bad if what == "reward" else 1.0)
        after = dataclasses.replace(after, obs=obs, sim=sim)
        return after, dataclasses.replace(transition, next_obs=obs, reward=reward)

    return env._replace(reset=reset, step=step)


def collected(env: Environment, agent: Agent | None = None):
    """States, carries and the rollout `[T, E]` of one round, as numpy."""
    agent = agent or toy.agent()

    @jax.jit
    def run(key):
        start = loop.init(agent, env, CONFIG, key)
        args = (start.agent.params, start.env, start.carry, key)
        return loop.collect(agent, env, CONFIG, *args)

    return jax.tree.map(np.asarray, run(jax.random.key(0)))


def assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(leaf).all()


def test_a_reset_that_is_not_finite_starts_no_episode():
    env = toy.environment(length=2)

    def reset(key):
        state = env.reset(key)
        broken = jax.random.bernoulli(key, 0.5)
        return dataclasses.replace(state, obs=jnp.where(broken, jnp.nan, state.obs))

    many, agent = dataclasses.replace(CONFIG, resets=16), toy.agent()
    start = loop.init(agent, env, many, jax.random.key(0))
    args = start.agent.params, start.env, start.carry, jax.random.key(1)
    breaks = env._replace(reset=reset)
    states, _, rollout = loop.collect(agent, breaks, many, *args)
    assert rollout.valid.all() and rollout.truncated.any()
    assert_finite((states.obs, rollout.obs))


@pytest.mark.parametrize("what", ["obs", "sim"])
def test_a_step_that_breaks_ends_its_episode_as_truncated_and_stays_finite(what):
    states, carry, rollout = collected(breaking(what))
    bad = np.broadcast_to((np.arange(8) % 3 == BAD)[:, None], (8, 3))  # each third step
    np.testing.assert_array_equal(rollout.valid, ~bad)
    np.testing.assert_array_equal(rollout.truncated, bad)
    assert not rollout.terminal.any()
    np.testing.assert_array_equal(rollout.next_obs[bad], rollout.obs[bad])
    np.testing.assert_array_equal(rollout.reward[bad], 0.0)
    assert_finite((states, carry, rollout))
    np.testing.assert_array_equal(states.time, 2)  # of the third episode
    # Two copies of a sum in one program may be rounded differently.
    goes_on = np.isclose(rollout.obs[1:], rollout.next_obs[:-1], atol=1e-6).all(-1)
    np.testing.assert_array_equal(goes_on, ~bad[:-1])


def test_an_action_that_is_not_finite_is_not_done_and_its_step_is_not_valid():
    agent = toy.agent()

    def act(params, carry, state, key, explore):
        action, carry = agent.act(params, carry, state, key, explore)
        broken = state.time == BAD
        return jnp.where(broken, jnp.inf, action), jnp.where(broken, jnp.nan, carry + 1)

    _, carry, rollout = collected(toy.environment(length=6), agent._replace(act=act))
    bad = np.arange(8) % 3 == BAD
    np.testing.assert_array_equal(rollout.valid[:, 0], ~bad)
    np.testing.assert_array_equal(rollout.action[bad], 0.0)
    # Fresh where the third episode began, and then 0.9 c + 1 twice.
    np.testing.assert_allclose(carry, 1.9, rtol=1e-6)
    assert_finite(rollout)


@pytest.mark.parametrize("reads_rewards", [False, True])
def test_a_reward_that_is_not_finite_matters_only_to_who_reads_it(reads_rewards):
    agent = toy.agent()._replace(reads_rewards=reads_rewards)
    _, _, rollout = collected(breaking("reward"), agent)
    bad = ~np.isfinite(rollout.reward)
    assert rollout.valid.all() == (not reads_rewards)
    assert bad.any() == (not reads_rewards)
    np.testing.assert_array_equal(loop.usable(rollout).reward[bad], 0.0)


def test_what_is_infinite_from_the_start_breaks_no_step():
    env = toy.environment()

    def reset(key):
        return dataclasses.replace(env.reset(key), sim=jnp.array([jnp.inf, 1.0]))

    def step(state, action):
        after, transition = env.step(state, action)
        return dataclasses.replace(after, sim=state.sim), transition

    assert collected(env._replace(reset=reset, step=step))[2].valid.all()


def test_an_environment_that_begins_broken_leaves_finite_numbers_and_no_valid_step():
    env = toy.environment()

    def reset(key):
        return dataclasses.replace(env.reset(key), obs=jnp.full((2,), jnp.nan))

    _, _, rollout = collected(env._replace(reset=reset))
    assert not rollout.valid.any()
    assert_finite(rollout)
    assert_finite(loop.usable(rollout))


# ------------------------------------------------------------------------------ learning


def test_what_is_learned_from_has_a_copy_of_a_valid_step_for_each_that_is_not():
    _, _, rollout = collected(breaking("obs"))
    found = jax.tree.map(np.asarray, loop.usable(rollout))
    good = [(t, e) for t in range(8) for e in range(3) if rollout.valid[t, e]]
    rows = {rollout.obs[at].tobytes() + rollout.action[at].tobytes() for at in good}
    for t in range(8):
        for e in range(3):
            row = found.obs[t, e].tobytes() + found.action[t, e].tobytes()
            assert row in rows
            last = not rollout.valid[t, e] or (t < 7 and not rollout.valid[t + 1, e])
            assert found.truncated[t, e] == last
            if rollout.valid[t, e]:
                np.testing.assert_array_equal(found.next_obs[t, e], rollout.next_obs[t, e])
    copies = np.concatenate([found.obs, found.action], axis=-1)[~rollout.valid]
    assert len(np.unique(copies, axis=0)) == len(copies)  # not of one step alone
    np.testing.assert_array_equal(found.valid, rollout.valid)


def test_a_terminal_step_stays_one_before_a_step_that_is_not_valid():
    _, _, rollout = collected(breaking("obs"))
    terminal = np.zeros((8, 3), bool)
    terminal[1] = True
    truncated = rollout.truncated
    found = loop.usable(dataclasses.replace(rollout, terminal=terminal))
    assert found.terminal[1].all() and not found.truncated[1].any()
    np.testing.assert_array_equal(found.truncated[2], truncated[2])


def test_where_all_is_finite_the_rollout_that_is_learned_from_is_equal():
    _, _, rollout = collected(toy.environment(length=6))
    for a, b in zip(
        jax.tree.leaves(rollout), jax.tree.leaves(loop.usable(rollout)), strict=True
    ):
        assert np.asarray(b).tobytes() == a.tobytes()


@functools.cache
def epoch(what: str):
    """The metrics of an epoch, and the state after it."""
    agent, env = toy.agent(), breaking(what)
    state = loop.init(agent, env, CONFIG, jax.random.key(0))
    run = jax.jit(functools.partial(loop.epoch, agent, env, CONFIG))
    return run(toy.demonstrations(), jnp.int32(0), state)


def test_the_steps_of_an_epoch_that_are_not_valid_are_counted():
    state, metrics = epoch("obs")
    assert metrics["train/invalid_steps"] == 3 * (16 // 3)
    assert -3.0 < metrics["train/reward"] < 0.0
    assert_finite((state.agent.params, state.env, state.carry))


def test_the_mean_reward_is_that_of_valid_steps():
    _, _, rollout = collected(breaking("obs"))
    metrics = loop._collected(rollout, CONFIG)
    np.testing.assert_allclose(
        metrics["train/reward"], rollout.reward[rollout.valid].mean(), rtol=1e-6
    )


def test_a_mean_reward_that_is_not_known_is_not_invented():
    state, metrics = epoch("reward")
    assert math.isnan(metrics["train/reward"])
    assert metrics["train/invalid_steps"] == 0
    assert math.isfinite(state.agent.value["mean"])  # it averages what it was given


# ------------------------------------------------------------------------------ evaluate


@pytest.mark.parametrize("what", ["obs", "sim"])
def test_an_evaluated_episode_stops_before_the_step_that_breaks(what):
    agent, env = toy.agent(), breaking(what)
    params = jnp.eye(2)
    keys = jax.random.split(jax.random.key(1), 4)
    steps, alive = jax.jit(functools.partial(loop.evaluate, agent, env))(params, keys)
    np.testing.assert_array_equal(alive, [[True] * BAD + [False] * (5 - BAD)] * 4)
    np.testing.assert_array_equal(steps.valid, [[True, True, False, True, True]] * 4)
    assert_finite(steps)
    assert np.isnan(loop.returns(steps, alive)).all()


def test_the_return_of_an_evaluated_episode_with_an_unknown_reward_is_unknown():
    agent, keys = toy.agent(), jax.random.split(jax.random.key(1), 4)
    evaluate = jax.jit(
        lambda env_step: loop.evaluate(
            agent, breaking("reward", at=env_step), jnp.eye(2), keys
        ),
        static_argnums=0,
    )
    steps, alive = evaluate(BAD)
    assert alive.all() and np.isnan(loop.returns(steps, alive)).all()
    steps, alive = evaluate(99)  # never
    np.testing.assert_allclose(
        loop.returns(steps, alive), np.asarray(steps.reward).sum(1), rtol=1e-6
    )
