"""Scores and predicted paths of plans, compared with steps of the environment."""

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
    """Scores of a plan by the steps of an environment."""
    scores = []
    for action in actions:
        state, transition = env.step(state, action)
        scores.append(step_score(transition.obs, action, transition.next_obs))
    return np.array([*scores, final_score(state.obs)])


def score(dynamics, state, actions):
    key = jax.random.key(1)
    scores = foresight.score_plan(
        dynamics, (), state, key, HORIZON, step_score, final_score
    )
    return scores(actions)


def test_the_scores_of_a_plan_are_those_of_its_steps_and_of_its_last_state():
    env = envs.make("point_mass")
    state = env.reset(jax.random.key(0))
    actions = jax.random.uniform(jax.random.key(2), (HORIZON, 2), minval=-1.0)
    scores = score(simulator.make(env), state, actions)
    assert scores.shape == (HORIZON + 1,)
    np.testing.assert_allclose(scores, by_hand(env, state, actions), rtol=1e-5)


def test_without_a_final_score_only_the_steps_are_scored():
    env = envs.make("point_mass")
    state, actions = env.reset(jax.random.key(0)), jnp.ones((HORIZON, 2))
    args = (simulator.make(env), (), state, jax.random.key(1), HORIZON, step_score)
    scores = foresight.score_plan(*args)(actions)
    np.testing.assert_allclose(scores, by_hand(env, state, actions)[:-1], rtol=1e-5)


def test_scores_by_several_members_are_the_mean_over_the_members():
    models = [envs.make("navigation", steering_gain=gain) for gain in (0.3, 0.6)]
    state = models[0].reset(jax.random.key(0))
    actions = jnp.tile(jnp.array([0.7, 0.5]), (HORIZON, 1))
    scores = score(simulator.members(models), state, actions)
    by_member = [by_hand(model, state, actions) for model in models]
    assert not np.allclose(*by_member)
    np.testing.assert_allclose(scores, np.mean(by_member, axis=0), rtol=1e-4)


def test_a_predicted_path_is_that_of_the_model_or_the_mean_of_its_members():
    models = [envs.make("navigation", steering_gain=gain) for gain in (0.3, 0.6)]
    state = models[0].reset(jax.random.key(0))
    actions = jnp.tile(jnp.array([0.7, 0.5]), (HORIZON, 1))

    def path(dynamics):
        return foresight.imagine(dynamics, (), state, jax.random.key(1), actions)

    by_member = []
    for model in models:
        model_state, path_obs = state, [state.obs]
        for action in actions:
            model_state = model.step(model_state, action)[0]
            path_obs.append(model_state.obs)
        by_member.append(np.array(path_obs))
    np.testing.assert_allclose(path(simulator.make(models[1])), by_member[1], rtol=1e-5)
    both = path(simulator.members(models))
    np.testing.assert_allclose(both, np.mean(by_member, axis=0), rtol=1e-4, atol=1e-6)
