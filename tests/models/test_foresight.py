import jax
import jax.numpy as jnp
import numpy as np

from planil_jax import envs
from planil_jax.models import foresight, simulator

HORIZON = 5


def step_score(obs, action, next_obs):
    return jnp.sum(obs * next_obs, axis=-1) + jnp.sum(action)


def final_score(obs):
    return 10.0 * jnp.sum(obs, axis=-1)


def by_hand(env, state, actions):
    """Scores of one environment, step by step."""
    scores = []
    for action in actions:
        following, transition = env.step(state, action)
        scores.append(step_score(transition.obs, action, transition.next_obs))
        state = following
    return np.array([*scores, final_score(state.obs)])


def foreseen(dynamics, state, actions):
    key = jax.random.key(1)
    scores = foresight.score_plan(
        dynamics, (), state, key, HORIZON, step_score, final_score
    )
    return scores(actions)


def test_scores_are_those_of_the_steps_and_of_the_end():
    env = envs.make("point_mass")
    state = env.reset(jax.random.key(0))
    actions = jax.random.uniform(jax.random.key(2), (HORIZON, 2), minval=-1.0)
    told = foreseen(simulator.make(env), state, actions)
    assert told.shape == (HORIZON + 1,)
    np.testing.assert_allclose(told, by_hand(env, state, actions), rtol=1e-5)


def test_without_a_final_score_there_are_the_steps_alone():
    env = envs.make("point_mass")
    state, actions = env.reset(jax.random.key(0)), jnp.ones((HORIZON, 2))
    args = (simulator.make(env), (), state, jax.random.key(1), HORIZON, step_score)
    told = foresight.score_plan(*args)(actions)
    np.testing.assert_allclose(told, by_hand(env, state, actions)[:-1], rtol=1e-5)


def test_scores_of_members_are_the_mean_of_each_members():
    models = [envs.make("navigation", steering_gain=gain) for gain in (0.3, 0.6)]
    state = models[0].reset(jax.random.key(0))
    actions = jnp.tile(jnp.array([0.7, 0.5]), (HORIZON, 1))
    told = foreseen(simulator.members(models), state, actions)
    each = [by_hand(model, state, actions) for model in models]
    assert not np.allclose(*each)
    np.testing.assert_allclose(told, np.mean(each, axis=0), rtol=1e-4)


def test_a_path_goes_through_what_is_observed_and_of_members_through_their_mean():
    models = [envs.make("navigation", steering_gain=gain) for gain in (0.3, 0.6)]
    state = models[0].reset(jax.random.key(0))
    actions = jnp.tile(jnp.array([0.7, 0.5]), (HORIZON, 1))

    def path(dynamics):
        return foresight.imagine(dynamics, (), state, jax.random.key(1), actions)

    each = []
    for model in models:
        here, seen = state, [state.obs]
        for action in actions:
            here = model.step(here, action)[0]
            seen.append(here.obs)
        each.append(np.array(seen))
    np.testing.assert_allclose(path(simulator.make(models[1])), each[1], rtol=1e-5)
    both = path(simulator.members(models))
    np.testing.assert_allclose(both, np.mean(each, axis=0), rtol=1e-4, atol=1e-6)
