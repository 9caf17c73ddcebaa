import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.models import simulator

# Options that are not the defaults: the model is of *this* environment.
OPTIONS = {
    "navigation": {"steering_gain": 0.3, "slip": 0.1},
    "pendulum": {},
    "point_mass": {"action_bound": 0.4},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_perfect_model_goes_where_the_environment_goes(name):
    env = envs.make(name, **OPTIONS[name])
    model = simulator.make(env)
    params = model.init(jax.random.key(0))

    @jax.jit
    def both(key, actions):
        def real(state, action):
            state = env.step(state, action)[0]
            return state, state.obs

        def imagined(z, action):
            z = model.step(params, z, action, jax.random.key(9))
            return z, model.observe(params, z)

        state = env.reset(key)
        state = env.step(state, actions[0])[0]  # a plan may begin within an episode
        start = model.start(params, state)
        first = model.observe(params, start)
        return (
            jnp.concatenate([state.obs[None], jax.lax.scan(real, state, actions)[1]]),
            jnp.concatenate([first[None], jax.lax.scan(imagined, start, actions)[1]]),
        )

    actions = np.random.default_rng(0).uniform(-1, 1, (15, env.spec.action_size))
    for seed in range(2):
        real, imagined = both(jax.random.key(seed), jnp.float32(actions))
        np.testing.assert_allclose(imagined, real, rtol=1e-5, atol=1e-6)
        assert np.ptp(real, axis=0).max() > 0.1  # it moved


def test_a_prior_is_chosen_where_there_is_one():
    env = envs.make("navigation")
    assert simulator.prior_or_physics(env) is env.prior


def test_the_physics_are_chosen_where_there_is_no_prior():
    env = envs.make("point_mass")
    assert env.prior is None
    model = simulator.prior_or_physics(env)
    state = env.reset(jax.random.key(0))
    action = jnp.array([0.5, -1.0])
    z = model.step((), model.start((), state), action, jax.random.key(1))
    np.testing.assert_array_equal(model.observe((), z), env.step(state, action)[1].next_obs)
