import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import reference
from planil_jax.agents import scripted
from planil_jax.base import Plan
from planil_jax.envs import navigation
from planil_jax.planners import mppi

HORIZON, TEMPERATURE = 6, 0.3


def state_of(x, y, heading):
    env = navigation.make()
    state = env.reset(jax.random.key(0))
    obs = jnp.array([x, y, np.cos(heading), np.sin(heading), 1.0, 0.0, 0.0], jnp.float32)
    return state.replace(obs=obs)


@pytest.mark.parametrize("heading", [0.3, -2.0])
def test_the_reference_and_the_planner_agree_on_a_plan_from_the_same_noise(heading):
    env = navigation.make()
    config = mppi.Config(samples=16, horizon=HORIZON, iterations=1, antithetic=False)
    expert = scripted.make(
        env, env.prior, scripted.Config(planner=config, temperature=TEMPERATURE)
    )
    mean = jnp.linspace(0.2, 0.8, 2 * HORIZON).reshape(HORIZON, 2)
    carry = Plan(mean=mean, std=jnp.full_like(mean, 0.5))
    state, key = state_of(1.0, 2.0, heading), jax.random.key(3)
    action, plan = jax.jit(expert.act, static_argnums=4)((), carry, state, key, False)

    plan_key, _ = jax.random.split(key)  # as scripted and mppi split it
    search_key, _ = jax.random.split(plan_key)
    (sample_key,) = jax.random.split(search_key, 1)
    noise = jax.random.normal(sample_key, (HORIZON, 2, 16))  # [H, U, K]
    improve = jax.jit(reference.improve)
    expected = improve(state.obs, mean, jnp.moveaxis(noise, -1, 0), TEMPERATURE)
    np.testing.assert_allclose(action, expected[0], atol=1e-4)
    np.testing.assert_allclose(plan.mean[:-1], expected[1:], atol=1e-4)


@pytest.mark.parametrize(("x", "side"), [(10.0, 1.0), (30.0, -1.0)])
def test_the_reference_steers_towards_the_goal(x, side):
    # The goal (10, 10) lies to the left of (10, 0) heading along x, and to the right of
    # (30, 20) heading along -y.
    obs = state_of(x, 0.0 if side > 0 else 20.0, 0.0 if side > 0 else -np.pi / 2).obs
    plan = jax.jit(reference.plan, static_argnums=(3, 4, 5))
    action, mean = plan(obs, jnp.zeros((HORIZON, 2)), jax.random.key(0), 512, 3, 0.1)
    assert action[0] > 0.3 and side * (action[1] + mean[0, 1]) > 0.1
