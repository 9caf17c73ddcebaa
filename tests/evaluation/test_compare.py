import dataclasses
import json

import numpy as np
import pytest

from experiments.configs import compare_pendulum
from planil_jax import config, envs, experiment, registry
from planil_jax.agents import adversarial, bc, ppo
from planil_jax.base import UsageError, UserError
from planil_jax.data import demos
from planil_jax.envs import registry as env_registry
from planil_jax.evaluation import collect, compare, statistics


def test_interactions_are_counted_to_the_first_evaluation_that_suffices():
    steps = np.array([100, 200, 300])
    returns = np.array([[90.0, 10.0, 96.0], [95.0, 20.0, 50.0], [99.0, 30.0, 99.0]])
    assert compare.interactions(steps, returns, 100.0) == [200, None, 100]


def test_of_costs_five_per_cent_more_suffice():
    returns = np.array([[-211.0], [-210.0]])
    assert compare.interactions(np.array([1, 2]), returns, -200.0) == [2]


def test_a_share_is_the_quotient_of_gains_and_falls_with_costs():
    np.testing.assert_allclose(statistics.share(np.array([50.0, 120.0]), 100.0), [0.5, 1.2])
    np.testing.assert_allclose(statistics.share(np.array([-100.0, -200.0]), -100.0), [1, 0])


def test_a_task_that_is_no_config_file_is_refused():
    with pytest.raises(UsageError, match="no task experiments/configs/nowhere.py"):
        compare._settings(compare.Comparison(), "nowhere", "mpail")


@pytest.mark.parametrize("task", ["navigation", "navigation_mjx", "course"])
@pytest.mark.parametrize("method", ["mpail", "irl_mpc", "gaifo", "gail", "airl", "bc"])
def test_every_task_says_how_every_method_is_set(task, method):
    settings = compare._settings(compare.Comparison(seeds=2), task, method)
    assert settings.method == method and settings.environment == task
    assert settings.seeds == 2
    assert isinstance(settings.agent, type(registry.method(method).config))


def test_settings_may_follow_the_name_of_a_method():
    told = "gaifo:agent.learning_rate=2e-4,loop.num_envs=1,agent.form=gail"
    plan = compare.Comparison(seeds=2)
    held = compare._settings(plan, "navigation", told)
    plain = compare._settings(plan, "navigation", "gaifo")
    assert (held.agent.learning_rate, held.loop.num_envs, held.agent.form) == (
        2e-4,
        1,
        "gail",
    )
    agent = dataclasses.replace(plain.agent, learning_rate=2e-4, form="gail")
    assert held == dataclasses.replace(plain, agent=agent, loop=held.loop)


@pytest.mark.parametrize("which", compare_pendulum.METHODS)
def test_every_method_of_the_ablations_is_known(which):
    plan = config.from_config_dict(compare_pendulum.get_config(which), compare.Comparison())
    for method in plan.methods:
        held = compare._settings(plan, "pendulum", method)
        assert held.environment.partition(":")[0] == "pendulum"
        told = method.partition("=")[2]
        assert which != "few" or held.episodes == int(told)
        assert which != "tremble" or held.environment == told


def test_settings_that_follow_a_name_are_checked():
    for told, sentence in [
        (
            "gaifo:agent.learning_rates=1",
            "no field agent.learning_rates. Did you mean learning_rate",
        ),
        ("gaifo:agent.learning_rate=fast", "agent.learning_rate must be float, not 'fast'"),
        ("gaifo:agent=1", "agent must be a group of fields"),
    ]:
        with pytest.raises(UsageError, match=sentence):
            compare._settings(compare.Comparison(), "navigation", told)


def test_modules_of_the_user_are_imported_before_what_they_register(tmp_path, monkeypatch):
    (tmp_path / "my_own_tasks.py").write_text(
        "from planil_jax import envs\nfrom planil_jax.envs import point_mass\n"
        "envs.register('my_own/task', point_mass.make)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_MAKERS", dict(env_registry._MAKERS))
    told = {"imports": ("my_own_tasks",), "environment": "my_own/task"}
    assert experiment.from_config_dict(told).environment == "my_own/task"
    assert envs.make("my_own/task").spec.name == "point_mass"
    with pytest.raises(UsageError, match="imports names the module 'nowhere_at_all'"):
        experiment.from_config_dict({"imports": ("nowhere_at_all",)})


def test_an_unknown_method_is_told_what_there_is():
    with pytest.raises(UsageError, match="no method 'gaif'. Did you mean gaifo"):
        experiment.for_method("gaif")


def test_a_method_that_needs_actions_refuses_demonstrations_without(tmp_path):
    path = str(tmp_path / "held.npz")
    collect.collect("point_mass", path, 2, seed=1, actions=False)
    settings = experiment.for_method("gail", environment="point_mass")
    env = envs.make("point_mass")
    with pytest.raises(UsageError, match="gail imitates actions, but"):
        experiment.make_agent(settings, env, demos.load(path, env.spec))


def test_airl_refuses_demonstrations_of_some_entries_alone(tmp_path):
    path = str(tmp_path / "held.npz")
    collect.collect("point_mass", path, 2, seed=1, actions=True, observed=(0, 1))
    settings = experiment.for_method("airl", environment="point_mass")
    env = envs.make("point_mass")
    with pytest.raises(UsageError, match="airl needs whole observations, but"):
        experiment.make_agent(settings, env, demos.load(path, env.spec))


def test_an_expert_that_never_learned_is_refused_unless_told(tmp_path):
    env = envs.make("point_mass")
    by_chance = experiment.make_random(env)
    path = str(tmp_path / "held.npz")
    with pytest.raises(UserError, match="never learned; train it longer, or .*--unlearned"):
        collect.record(env, by_chance, (), "chance", path, 2, 1, actions=True)
    card = collect.record(env, by_chance, (), "chance", path, 2, 1, True, unlearned=True)
    assert card.expert == "chance" and len(card.returns) == 2


def test_demonstrations_can_hold_some_entries_alone(tmp_path):
    path = str(tmp_path / "held.npz")
    collect.collect("point_mass", path, 2, seed=1, actions=False, observed=(0, 3))
    held = demos.load(path, envs.make("point_mass").spec)
    assert held.observed == (0, 3)
    with pytest.raises(UsageError, match="observes entries 0 to 3, no 9"):
        collect.collect("point_mass", path, 2, seed=1, actions=False, observed=(9,))


AGENTS = {
    "gaifo": adversarial.Config(
        learner=ppo.Config(epochs=1, minibatches=2), gradient_steps=2, batch=8
    ),
    "bc": bc.Config(gradient_steps=2, batch=8),
}
TINY = {
    "loop": experiment.training_loop.Config(num_envs=2, steps=4, rounds=1, resets=2),
    "run": experiment.training_run.Config(
        total_steps=16, evaluate_every=1, evaluation_episodes=2, checkpoint_every=1
    ),
}


def test_a_comparison_trains_evaluates_and_draws_and_goes_on_where_it_was(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(
        compare,
        "_settings",
        lambda plan, task, method: experiment.for_method(
            method, environment="point_mass", seeds=plan.seeds, agent=AGENTS[method], **TINY
        ),
    )
    plan = compare.Comparison(methods=("gaifo", "bc"), seeds=2, episodes=2)
    found = compare.compare(plan, "tiny", tmp_path / "tiny", None)
    assert list(found) == ["gaifo", "bc"]
    assert found["gaifo"]["steps"] == [8, 16] and found["gaifo"]["step"] == 16
    assert len(found["gaifo"]["interactions"]) == 2 and "interactions" not in found["bc"]
    assert (tmp_path / "tiny/returns.png").stat().st_size > 1000
    text = compare.table("tiny", plan, found)
    assert text.count("\n| gaifo |") == 1 and "none needed" in text
    capsys.readouterr()
    again = compare.compare(plan, "tiny", tmp_path / "tiny", None)
    assert "compiling" not in capsys.readouterr().out.replace("compiling and driving", "")
    assert json.dumps(again, sort_keys=True) == json.dumps(found, sort_keys=True)
