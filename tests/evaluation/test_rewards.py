"""The recovered reward compared with the task's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import envs, experiment, runs
from planil_jax.agents import mpail
from planil_jax.base import Agent, Shows, Task, UsageError
from planil_jax.data import demos
from planil_jax.envs import navigation
from planil_jax.evaluation import rewards
from planil_jax.models import simulator
from planil_jax.reporting import pictures
from planil_jax.training import loop
from tests.evaluation.fixed_run import fixed_run


def test_rewards_are_compared_for_every_seed_and_kind_of_steps(tmp_path):
    """MPAIL's untrained discriminator: a correlation for every seed and kind of steps."""
    environment = "navigation:episode_length=5"
    env = envs.make(environment)
    settings = experiment.for_method("mpail", environment=environment, seeds=2)
    replay = dataclasses.replace(settings.agent.replay, capacity=1)
    agent_config = dataclasses.replace(settings.agent, replay=replay)
    observed = tuple(range(env.spec.observation_size))
    dynamics = simulator.prior_or_physics(env)
    task = Task.of(env.spec, dynamics=dynamics, observed=observed)
    agent = mpail.make(task, agent_config)
    keys = jax.random.split(jax.random.key(0), 2)
    params = jax.vmap(lambda key: agent.init(key).params)(keys)
    none = demos.none(env.spec)
    fixed = agent._replace(
        carry=lambda: (),
        act=lambda params, carry, state, key, explore: (jnp.array([1.0, 0.1]), carry),
    )
    trained = runs.Run(tmp_path, settings, env, lambda *_: fixed, none, params, {}, 0)
    found, pairs = rewards.compare(trained, 3)
    assert all(len(found[sort]) == 2 for sort in rewards.SORTS)
    assert [title for title in pairs] == [rewards.SORTS[sort] for sort in rewards.PICTURED]
    for sort in rewards.PICTURED:
        recovered, task = (np.float64(side) for side in pairs[rewards.SORTS[sort]])
        recovered, task = recovered - recovered.mean(), task - task.mean()
        pearson = (recovered @ task) / np.sqrt((recovered @ recovered) * (task @ task))
        np.testing.assert_allclose(found[sort][0], pearson, atol=1e-4)
        assert len(recovered) == {"policy": 15, "graded": 75, "graded_episodes": 15}[sort]
    assert pictures.rewards(tmp_path, pairs).stat().st_size > 1000
    assert "both" in rewards.table(found)


def test_the_task_s_reward_agrees_with_itself_and_its_negative_disagrees(
    tmp_path, monkeypatch
):
    """Members recover it, its negative, and a constant, of which nothing can be said."""
    trained = fixed_run(
        "navigation:episode_length=5", [[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], tmp_path
    )

    def reward(params, obs, action, next_obs):
        return 3.0 - 2.0 * params[0] * navigation.distance_to_goal(next_obs)

    monkeypatch.setattr(runs, "shows", lambda trained: Shows(reward=reward))
    found, _ = rewards.compare(trained, 3)
    for sort in rewards.SORTS:
        *both, constant = found[sort]
        np.testing.assert_allclose(both, [1.0, -1.0], atol=1e-4)
        assert constant is None
    assert "none" in rewards.table(found)


def test_a_policy_of_graded_quality_is_random_at_its_share_of_steps():
    """With a share of 0 all actions are the agent's, with a share of 1 none is."""
    env = envs.make("navigation")
    action = jnp.array([0.25, -0.5])
    agent = Agent(
        init=lambda key: (),
        carry=lambda: jnp.zeros(()),
        act=lambda params, carry, state, key, explore: (params, carry + 1),
        update=lambda state, *_: (state, {}),
    )
    keys = jax.random.split(jax.random.key(0), 16)

    @jax.jit
    def rollout(share):
        return loop.evaluate(
            rewards.with_random_actions(agent, env, share), env, action, keys
        )[0]

    plain, _ = jax.jit(lambda: loop.evaluate(agent, env, action, keys))()
    np.testing.assert_allclose(rollout(0.0).obs, plain.obs, atol=1e-5)
    unchanged = {
        share: np.mean(np.all(rollout(share).action == action, -1))
        for share in rewards.RANDOM_SHARES
    }
    assert unchanged[0.0] == 1.0 and unchanged[1.0] == 0.0
    assert unchanged == pytest.approx({share: 1 - share for share in unchanged}, abs=0.03)
    low, high = np.array(env.spec.action_low), np.array(env.spec.action_high)
    random = np.asarray(rollout(1.0).action).reshape(-1, 2)
    np.testing.assert_allclose(random.min(0), low, atol=0.02)
    np.testing.assert_allclose(random.max(0), high, atol=0.02)


def test_a_method_that_recovers_no_reward_is_refused(tmp_path):
    trained = fixed_run("navigation", [[1.0, 0.0]], tmp_path)
    settings = experiment.for_method("bc", environment="navigation")
    with pytest.raises(
        UsageError, match="^bc recovers no reward to compare with the task's: leave out"
    ):
        rewards.compare(trained._replace(experiment=settings), 2)
