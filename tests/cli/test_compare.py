"""The settings that a comparison takes from the recipes of its tasks."""

import dataclasses

import pytest

from experiments.configs import compare_pendulum
from experiments.configs.ablations import pendulum as ablations
from planil_jax import config, experiment, registry
from planil_jax.base import UsageError
from planil_jax.cli import compare as command
from planil_jax.evaluation import compare


def chosen(task: str, method: str, **fields) -> experiment.Experiment:
    plan = compare.Comparison(methods=(method,), **fields)
    return compare.settings(plan, task, command.settings_of)[method]


def test_a_task_that_is_neither_an_environment_nor_a_config_file_is_refused():
    with pytest.raises(UsageError, match="no task 'nowhere': a task is an environment"):
        chosen("nowhere", "mpail")
    with pytest.raises(UsageError, match="no config file 'nowhere.py'"):
        chosen("nowhere.py", "mpail")


@pytest.mark.parametrize("task", ["navigation", "navigation_mjx", "course"])
@pytest.mark.parametrize("method", ["mpail", "irl_mpc", "gaifo", "gail", "airl", "bc"])
def test_every_task_has_settings_for_every_method(task, method):
    settings = chosen(task, method, seeds=2)
    assert settings.method == method and settings.environment == task
    assert settings.seeds == 2
    assert isinstance(settings.agent, type(registry.method(method).config))


def test_settings_may_follow_the_name_of_a_method():
    method = "gaifo:agent.learning_rate=2e-4,loop.num_envs=1,agent.form=gail"
    changed = chosen("navigation", method, seeds=2)
    plain = chosen("navigation", "gaifo", seeds=2)
    assert (changed.agent.learning_rate, changed.loop.num_envs, changed.agent.form) == (
        2e-4,
        1,
        "gail",
    )
    agent = dataclasses.replace(plain.agent, learning_rate=2e-4, form="gail")
    assert changed == dataclasses.replace(plain, agent=agent, loop=changed.loop)


@pytest.mark.parametrize("which", compare_pendulum.METHODS)
def test_every_method_of_the_ablations_is_known(which):
    plan = config.from_config_dict(compare_pendulum.get_config(which), compare.Comparison())
    (task,) = plan.tasks
    found = compare.settings(plan, task, command.settings_of)
    assert tuple(found) == plan.methods
    for written, settings in found.items():
        method, _, change = written.partition(":")
        field, _, value = change.partition("=")
        assert field == {"parts": "", "few": "episodes", "tremble": "environment"}[which]
        changed = {"episodes": int(value)} if which == "few" else {}
        changed |= {"environment": value} if which == "tremble" else {}
        plain = experiment.from_config_dict(ablations.get_config(method))
        assert settings == dataclasses.replace(plain, seeds=3, **changed)


def test_settings_that_follow_a_name_are_checked():
    for method, sentence in [
        (
            "gaifo:agent.learning_rates=1",
            "no field agent.learning_rates. Did you mean learning_rate",
        ),
        ("gaifo:agent.learning_rate=fast", "agent.learning_rate must be float, not 'fast'"),
        ("gaifo:agent=1", "agent must be a group of fields"),
    ]:
        with pytest.raises(UsageError, match=sentence):
            chosen("navigation", method)


def test_a_comparison_says_which_settings_each_method_has(capsys):
    chosen("navigation", "gaifo")
    chosen("navigation", "cmil")
    assert capsys.readouterr().err.splitlines() == [
        "settings: the recipe of gaifo in navigation",
        "settings: the defaults of cmil; there is no recipe for it in navigation",
    ]


def test_a_task_may_be_a_recipe_s_variant_or_a_config_file(tmp_path):
    small = chosen("gym/Hopper", "mpail2/small")
    assert (small.method, small.loop.num_envs) == ("mpail2", 8)
    file = tmp_path / "mine.py"
    file.write_text(
        "from planil_jax import config, experiment\n"
        "def get_config(method):\n"
        "    mine = experiment.for_method(method, environment='point_mass')\n"
        "    return config.to_config_dict(mine)\n"
    )
    assert chosen(str(file), "bc").environment == "point_mass"
    assert compare.names(["navigation", str(file)]) == {
        "navigation": "navigation",
        str(file): "mine",
    }
    with pytest.raises(UsageError, match="two tasks are called mine"):
        compare.names([str(file), "other/mine.py"])
