import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.base import EnvState, UsageError
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


def test_an_environment_with_a_prior_is_planned_with_its_prior():
    env = envs.make("navigation")
    assert simulator.prior_or_physics(env) is env.prior


def test_an_environment_without_a_prior_is_planned_with_its_physics():
    env = envs.make("point_mass")
    assert env.prior is None
    model = simulator.prior_or_physics(env)
    state = env.reset(jax.random.key(0))
    action = jnp.array([0.5, -1.0])
    z = model.step((), model.start((), state), action, jax.random.key(1))
    np.testing.assert_array_equal(model.observe((), z), env.step(state, action)[1].next_obs)


# ---------------------------------------------------------------- models of other physics


def predict(model, env, seed: int, steps: int = 4, action: float = 0.7):
    """Observations `[T, ...]` that a model predicts from the start of an episode."""

    def imagine(key, actions):
        z = model.start((), env.reset(key))

        def step(z, action):
            z = model.step((), z, action, jax.random.key(9))
            return z, model.observe((), z)

        return jax.lax.scan(step, z, actions)[1]

    actions = jnp.full((steps, env.spec.action_size), action)
    return np.array(jax.jit(imagine)(jax.random.key(seed), actions))


def simulate(env, start, steps: int = 4, action: float = 0.7):
    """Observations `[T, O]` of an environment from one of its states."""
    actions = jnp.full((steps, env.spec.action_size), action)
    return np.array(
        jax.jit(lambda s: jax.lax.scan(env.step, s, actions)[1])(start).next_obs
    )


@pytest.mark.parametrize("seed", range(2))
def test_a_model_with_other_parameters_starts_from_the_real_state(seed):
    env, other = envs.make("navigation"), envs.make("navigation", steering_gain=0.2)
    predicted = predict(simulator.make(other), env, seed)
    start = env.reset(jax.random.key(seed))
    np.testing.assert_allclose(predicted, simulate(other, start), rtol=1e-5, atol=1e-6)
    assert abs(predicted - simulate(env, start)).max() > 0.01


AROUND = {"action_delay": 1, "tremble": 0.5, "observation_noise": 0.3}
WITHIN = {"action_repeat": 2, "observe": "0+2+3"}


@pytest.mark.parametrize("within", [{}, WITHIN])
def test_a_model_starts_from_the_inner_state_that_has_its_structure(within):
    env = envs.make("point_mass", **within, **AROUND)
    model = envs.make("point_mass", action_bound=0.4, **within)
    predicted = predict(simulator.make(model), env, 3)
    # Wrappers do not change the starts, so the inner state is the reset of the model.
    expected = simulate(model, model.reset(jax.random.key(3)))
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("real", "model"),
    [({}, {"action_repeat": 2}), ({"action_repeat": 2, "observe": "0"}, {"observe": "0"})],
)
def test_a_model_with_wrappers_that_the_environment_lacks_is_refused(real, model):
    env, other = envs.make("point_mass", **real), envs.make("point_mass", **model)
    with pytest.raises(UsageError, match="a model of 'point_mass' cannot start here"):
        predict(simulator.make(other), env, 0)


@pytest.mark.parametrize("wrapping", [{}, {"observation_noise": 0.1}])
def test_each_member_predicts_what_it_predicts_alone(wrapping):
    env = envs.make("navigation", **wrapping)
    gains = (0.2, 0.488, 0.7)
    models = [envs.make("navigation", steering_gain=gain, **wrapping) for gain in gains]
    predicted = predict(simulator.members(models), env, 1)
    assert predicted.shape == (4, 3, 7)
    for member, model in enumerate(models):
        alone = predict(simulator.make(model), env, 1)
        np.testing.assert_allclose(predicted[:, member], alone, rtol=1e-5, atol=1e-6)
    assert np.ptp(predicted[-1, :, 2:4], axis=0).max() > 0.01


def test_members_can_be_batched_over_environments_and_plans():
    env = envs.make("pendulum")
    model = simulator.members([env, env])
    states = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 3))
    actions = jnp.linspace(-1.0, 1.0, 5)[:, None]

    def plan(state, action):
        z = model.start((), state)
        return model.observe((), model.step((), z, action, jax.random.key(0)))

    obs = jax.jit(jax.vmap(jax.vmap(plan, (None, 0)), (0, None)))(states, actions)
    assert obs.shape == (3, 5, 2, 3)
    expected = env.step(jax.tree.map(lambda leaf: leaf[1], states), actions[4])[0].obs
    for member in range(2):
        np.testing.assert_allclose(obs[1, 4, member], expected, rtol=1e-5, atol=1e-6)


def test_an_ensemble_without_members_is_refused():
    with pytest.raises(UsageError, match="at least one"):
        simulator.members([])


def test_brax_physics_with_another_mass_start_from_the_real_state():
    """Brax's spring states carry the links' masses; the model must replace them."""
    name, key = "brax/inverted_pendulum/spring", jax.random.key(0)
    env, heavy = envs.make(name), envs.make(name, mass=2.0)
    wrapped = envs.make(name, observation_noise=0.1)
    push = jnp.ones((1,))

    def steps(key):
        predicted = simulator.members([env, heavy])
        z = predicted.start((), wrapped.reset(key))
        obs = predicted.observe((), predicted.step((), z, push, key))
        return obs, [model.step(model.reset(key), push)[0].obs for model in (env, heavy)]

    obs, expected = jax.jit(steps)(key)
    np.testing.assert_allclose(obs, np.stack(expected), rtol=1e-4, atol=1e-6)
    assert abs(obs[1, 2]) < 0.7 * abs(obs[0, 2])  # the cart's speed


@pytest.mark.parametrize("name", ["pendulum", "point_mass"])
def test_physics_start_from_an_observation_that_determines_the_state(name):
    """One step from there is one step from the state itself."""
    env = envs.make(name)
    model = simulator.make(env)
    action = jnp.asarray(env.spec.action_high) / 2

    def both(key):
        state = env.reset(key)
        z = model.step((), model.recover((), state.obs), action, key)
        return model.observe((), z), env.step(state, action)[1].next_obs

    obs, expected = jax.jit(jax.vmap(both))(jax.random.split(jax.random.key(0), 16))
    np.testing.assert_allclose(obs, expected, atol=1e-5)


def test_an_observation_does_not_determine_the_state_of_a_wrapper():
    for option in ("tremble=0.1", "action_delay=1", "action_repeat=2", "pixels=16"):
        assert envs.make(f"pendulum:{option}").recover is None


def test_a_model_starts_from_the_observation_if_the_state_has_another_structure():
    real = envs.make("navigation:observation_noise=0.1")
    state = real.reset(jax.random.key(0))
    other_engine = EnvState(sim=jnp.zeros((3,)), obs=state.obs, time=state.time)
    model = simulator.make(envs.make("navigation"))
    obs = model.observe((), model.start((), other_engine))
    np.testing.assert_allclose(obs, state.obs, atol=0.4)  # a unit vector has no noise
    exact = jnp.array([0, 1, 4, 5, 6])
    np.testing.assert_allclose(obs[exact], state.obs[exact])
