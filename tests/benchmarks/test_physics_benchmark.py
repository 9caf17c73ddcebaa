"""The numpy MPPI pays what the environment pays."""

import jax
import numpy as np
import pytest

from benchmarks import physics, timing
from planil_jax import envs

pytest.importorskip("gymnasium")


def test_the_rival_s_returns_are_those_of_the_environment_up_to_the_first_end():
    env = envs.make("gym/Hopper", engine="c")
    start = jax.jit(env.reset)(jax.random.key(0))
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (4, 40, 3)).astype(np.float32)
    steps = jax.jit(jax.vmap(lambda a: jax.lax.scan(step(env), start, a)[1]))(actions)
    after, transition = steps
    found = physics.returns(
        np.full(4, start.sim.qpos[0]), np.array(after), actions, env.spec.control_period
    )
    ended = np.cumsum(np.array(transition.terminal), axis=1) - transition.terminal > 0
    assert ended.any()
    expected = np.sum(np.where(ended, 0.0, transition.reward), axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-2)


def step(env):
    def once(state, action):
        state, transition = env.step(state, action)
        whole = jax.numpy.concatenate([state.sim.qpos, state.sim.qvel])
        return state, (whole, transition)

    return once


def test_both_planners_plan():
    assert physics.of_numpy()().shape == (3,)
    action, _ = physics.of_product("c")[0]()
    assert action.shape == (3,) and np.isfinite(np.array(action)).all()


def test_durations_are_of_the_clock_that_is_given():
    ticks = iter(range(100))
    found = timing.in_turn({"a": lambda: None}, 0.0, clock=lambda: next(ticks))
    assert found["a"].tolist() == [1.0] * 5
