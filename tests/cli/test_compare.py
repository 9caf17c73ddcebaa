"""The settings that a comparison takes from the recipes of its tasks."""

import dataclasses

import pytest

from experiments.configs import compare_pendulum
from planil_jax import config, experiment, registry
from planil_jax.base import UsageError
from planil_jax.cli import compare as command
from planil_jax.evaluation import compare


def chosen(task: str, method: str, **fields) -> experiment.Experiment:
    plan = compare.Comparison(methods=(method,), **fields)
    return command.settings(plan, task)[method]


def test_a_task_without_a_config_file_is_refused():
    with pytest.raises(UsageError, match="no task experiments/configs/nowhere.py"):
        chosen("nowhere", "mpail")


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
    for method, settings in command.settings(plan, "pendulum").items():
        assert settings.environment.partition(":")[0] == "pendulum"
        value = method.partition("=")[2]
        assert which != "few" or settings.episodes == int(value)
        assert which != "tremble" or settings.environment == value


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
