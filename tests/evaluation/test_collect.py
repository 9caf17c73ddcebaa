"""Demonstrations that are recorded, and experts that are refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.base import UsageError, UserError
from planil_jax.data import demos
from planil_jax.evaluation import collect, expert_policies
from tests.evaluation.fixed_run import fixed_run


def test_a_continuous_expert_demonstrates_choices_by_the_nearest(tmp_path):
    """A torque of 1.2 is the fourth of -2, -1, 0, 1 and 2."""
    trained = fixed_run("pendulum:episode_length=5", [[1.2]], tmp_path)
    path = str(tmp_path / "chosen.npz")
    name = "pendulum:choices=5,episode_length=5"
    args = (trained, path, 2, 1, True)
    collect.from_run(*args, environment=name, unlearned=True)
    loaded = demos.load(path, envs.make(name).spec)
    np.testing.assert_array_equal(loaded.actions, np.tile(np.eye(5)[3], (2, 5, 1)))
    with pytest.raises(UsageError, match="has other observation names than 'pendulum', wh"):
        collect.from_run(*args, environment="pendulum:choices=5,observe=0+1")


def test_an_expert_that_never_learned_is_refused_unless_accepted(tmp_path):
    env = envs.make("point_mass")
    agent = expert_policies.make_random(env)
    random_expert = expert_policies.ExpertPolicy(env, agent, (), "chance")
    path = str(tmp_path / "demos.npz")
    with pytest.raises(UserError, match="never learned; train it longer, or .*--unlearned"):
        collect.record(random_expert, path, 2, 1, actions=True)
    card = collect.record(random_expert, path, 2, 1, True, unlearned=True)
    assert card.expert == "chance" and len(card.returns) == 2


def test_demonstrations_can_hold_some_entries_alone(tmp_path):
    path = str(tmp_path / "demos.npz")
    collect.collect("point_mass", path, 2, seed=1, actions=False, observed=(0, 3))
    loaded = demos.load(path, envs.make("point_mass").spec)
    assert loaded.observed == (0, 3)
    with pytest.raises(UsageError, match="observes entries 0 to 3, no 9"):
        collect.collect("point_mass", path, 2, seed=1, actions=False, observed=(9,))


def test_the_summary_counts_episodes_whose_rewards_are_unknown(tmp_path):
    path = str(tmp_path / "demos.npz")
    obs = np.zeros((3, 2), np.float32)
    episode = demos.Episode(obs, actions=None, rewards=None, terminal=False)
    card = demos.Card(
        environment="mine",
        control_period=0.1,
        observation_names=("a", "b"),
        action_low=(0.0,),
        action_high=(1.0,),
    )
    demos.save(path, [episode] * 2, card)
    expected = f"{path}: 2 episodes of mine, observations only, returns unknown"
    assert collect.summary(path) == expected


def test_an_episode_with_a_step_that_is_not_finite_is_not_recorded(tmp_path):
    env = envs.make("point_mass")

    def step(state, action):
        after, transition = env.step(state, action)
        obs = jnp.where(state.time == 2, jnp.nan, after.obs)
        return after.replace(obs=obs), transition.replace(next_obs=obs)

    broken = env._replace(step=step)
    agent = expert_policies.make_random(broken)
    expert = expert_policies.ExpertPolicy(broken, agent, (), "chance")
    path = tmp_path / "demos.npz"
    with pytest.raises(
        UserError, match="step 2 of episode 0 of chance in point_mass was no"
    ):
        collect.record(expert, str(path), 2, 1, actions=True, unlearned=True)
    assert not path.exists()
