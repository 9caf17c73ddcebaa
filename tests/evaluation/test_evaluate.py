import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import envs, experiment, runs
from planil_jax.base import Subtasks, TrainState, UsageError, UserError
from planil_jax.data import demos
from planil_jax.envs import pixels, wrappers
from planil_jax.evaluation import evaluate, member_episodes, out_of_distribution
from planil_jax.nets import latent
from planil_jax.training import checkpoint, report, rundir
from tests.evaluation.fixed_run import fixed_run


def test_a_run_is_evaluated_in_another_environment_with_its_parameters(tmp_path):
    trained = fixed_run("navigation:episode_length=5", [[1.0, 0.0], [0.5, 0.0]], tmp_path)
    there = evaluate.in_env(trained, "navigation:episode_length=9,drive_lag=0")
    assert there.env.spec.episode_length == 9
    keys = jax.random.split(jax.random.key(0), 3)
    paths = member_episodes.rollout(there, there.env, keys).obs
    assert paths.shape == (2, 3, 10, 7)
    np.testing.assert_allclose(paths[0, :, -1, 4], 3.0, atol=1e-5)  # full throttle, no lag
    np.testing.assert_allclose(paths[1, :, -1, 4], 1.5, atol=1e-5)


def test_an_environment_that_observes_otherwise_is_refused_by_name(tmp_path):
    trained = fixed_run("navigation", [[1.0, 0.0]], tmp_path)
    with pytest.raises(
        UsageError, match=r"'pendulum' \(--env\): its observation_names are"
    ):
        evaluate.in_env(trained, "pendulum")


def test_a_run_is_evaluated_with_overridden_settings(tmp_path):
    """An untrained TD-MPC2 with the planning of its run, and with its policy alone."""
    name = "pendulum:episode_length=5"
    network = latent.Config(latent=16, encoder=(8,), hidden=(8,), critics=3)
    agent = experiment.for_method("tdmpc2").agent
    planner = dataclasses.replace(agent.planner, horizon=1, iterations=1)
    replay = dataclasses.replace(agent.replay, capacity=5)
    agent = dataclasses.replace(agent, network=network, planner=planner, replay=replay)
    settings = experiment.for_method("tdmpc2", environment=name, agent=agent)
    rundir.open_run(tmp_path, experiment.to_json(settings), False, ())
    env = envs.make(name)
    key = jax.random.key(0)
    state = experiment.make_agent(settings, env, demos.none(env.spec)).init(key)
    one = jax.tree.map(lambda leaf: leaf[None], state)
    whole = TrainState(agent=one, env=(), carry=(), key=key[None])
    checkpoint.save(tmp_path / rundir.CHECKPOINTS, whole, step=5, round_=1)

    planning = runs.load(tmp_path)
    by_policy = runs.load(tmp_path, override="agent.planning.enabled=False")
    assert planning.experiment.agent.planning.enabled
    assert not by_policy.experiment.agent.planning.enabled
    returns = []
    for trained, override in ((planning, ""), (by_policy, "agent.planning.enabled=False")):
        found = evaluate.evaluate(trained, episodes=2, fields=[], starts=1, expert=False)
        assert found["override"] == override
        assert found == evaluate.read(tmp_path)
        returns.append(found["in_distribution"]["returns"])
    assert returns[0] != returns[1]
    with pytest.raises(UserError, match="does not fit this configuration: agent.params"):
        runs.load(tmp_path, override="agent.network.latent=24")
    with pytest.raises(UsageError, match="no field agent.planing. Did you mean planning"):
        runs.load(tmp_path, override="agent.planing=1")


def test_a_run_without_evaluations_during_training_has_an_empty_curve(tmp_path):
    trained = fixed_run("navigation", [[1.0, 0.0]], tmp_path)
    line = {"step": 5, "seconds": 2.0, "metrics": {"train/reward": [1.0]}}
    (tmp_path / report.METRICS_FILE).write_text(json.dumps(line) + "\n")
    for name in ("config.json", "versions.json"):
        (tmp_path / name).write_text("{}")
    found = runs.provenance(trained)
    assert found["steps"] == found["returns"] == [] and found["seconds"] == 2.0


def test_subtasks_are_evaluated_under_any_wrapper(tmp_path):
    """The first is done in one state only, before the end; the last never."""
    trained = fixed_run("navigation", [[1.0, 0.0], [0.0, 0.0]], tmp_path)
    plain = evaluate.in_distribution(trained, 3, expert=False)
    assert "subtasks" not in plain

    def done(state):
        inner = wrappers.innermost(state)
        return jnp.array([inner.time == 7, inner.obs[4] > 0.5, False])

    env = trained.env._replace(subtasks=Subtasks(("once", "moves", "never"), done))
    assert pixels.wrap(env, 16).subtasks is env.subtasks
    masked = trained._replace(env=wrappers.mask(env, (0, 1)))
    found = evaluate.in_distribution(masked, 3, expert=False)
    assert found["returns"] == plain["returns"]
    assert found["subtasks"] == {"once": [1, 1], "moves": [1, 0], "never": [0, 0]}


@pytest.mark.parametrize("side", [0.0, -40.0, float("nan"), float("inf")])
def test_a_side_that_is_no_length_is_refused_before_any_computation(tmp_path, side):
    trained = fixed_run("navigation", [[1.0, 0.0]], tmp_path)
    with pytest.raises(UsageError, match="is metres above 0, not"):
        evaluate.evaluate(trained, 1, [40.0, side], 1)
    assert list(tmp_path.iterdir()) == []


def test_a_count_below_1_is_refused(tmp_path):
    trained = fixed_run("navigation", [[1.0, 0.0]], tmp_path)
    with pytest.raises(UsageError, match="episodes must be at least 1, not 0"):
        evaluate.evaluate(trained, 0, [], 1)
    with pytest.raises(UsageError, match="starts must be at least 1, not -1"):
        evaluate.evaluate(trained, 1, [40.0], -1)


def test_the_paths_on_a_field_are_kept_for_the_report(tmp_path):
    trained = fixed_run("navigation", [[1.0, 0.0], [0.5, 0.0]], tmp_path)
    found = evaluate.evaluate(trained, 1, [20.0], 3, expert=False)
    (field,) = found["fields"]
    stored = out_of_distribution.load_paths(tmp_path, 20.0)
    assert stored.paths.shape[:2] == (2, 3) and stored.paths.shape[-1] == 2
    np.testing.assert_allclose(stored.reached.mean(1), field["successes"])
    assert out_of_distribution.load_paths(tmp_path, 30.0) is None
    with pytest.raises(UsageError, match="'pendulum' has no field of starts"):
        out_of_distribution.make_field("pendulum", 40.0, 10)


def test_an_evaluation_says_which_members_stopped(tmp_path):
    trained = fixed_run("navigation:episode_length=5", [[1.0, 0.0], [0.5, 0.0]], tmp_path)
    stopped = checkpoint.Stopped(member=1, step=40, part="value", kept=20)
    found = evaluate.evaluate(trained._replace(stopped=(stopped,)), 2, [], 1, expert=False)
    assert evaluate.table(found).endswith(
        "seed 1 became not finite at step 40 in value and stopped; its parameters are "
        "those of step 20."
    )
    assert "stopped" not in evaluate.table(evaluate.evaluate(trained, 2, [], 1, False))


def breaking(env, seed_0_only: bool = False):
    """An environment whose third step of an episode gives an observation that is nan."""

    def step(state, action):
        after, transition = env.step(state, action)
        broken = (state.time == 2) & (not seed_0_only or action[0] == 1.0)
        obs = jnp.where(broken, jnp.nan, transition.next_obs)
        return dataclasses.replace(after, obs=obs), transition.replace(next_obs=obs)

    return env._replace(step=step)


def test_the_return_of_an_episode_that_breaks_is_unknown_and_its_member_is_seen(tmp_path):
    name = "navigation:episode_length=5"
    trained = fixed_run(name, [[1.0, 0.0], [0.5, 0.0]], tmp_path)
    trained = trained._replace(env=breaking(trained.env, seed_0_only=True))
    found = evaluate.evaluate(trained, 2, [], 1, expert=False)
    returns = found["in_distribution"]["returns"]
    assert np.isnan(returns[0]) and np.isfinite(returns[1])
    assert np.isnan(found["in_distribution"]["return"]["mean"])
    assert " nan " in evaluate.table(found)
    assert np.isnan(evaluate.read(tmp_path)["in_distribution"]["returns"][0])
