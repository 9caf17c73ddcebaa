"""Experiments: what they refuse, and what they are made of."""

import dataclasses

import jax
import numpy as np
import pytest

from planil_jax import envs, experiment, registry
from planil_jax.base import UsageError
from planil_jax.data import dataset, demos
from planil_jax.envs import registry as env_registry

pytestmark = pytest.mark.fast


def test_a_biased_reward_warns_where_episodes_can_end():
    env = envs.make("probe/countdown")
    settings = experiment.for_method("gaifo", environment="probe/countdown")
    assert experiment.config_warnings(settings, env) == []  # the logit is neutral
    agent = dataclasses.replace(settings.agent, reward="gail_pos")
    (warning,) = experiment.config_warnings(dataclasses.replace(settings, agent=agent), env)
    assert "agent.reward=gail_pos" in warning and "staying alive" in warning
    endless = envs.make("navigation")
    assert (
        experiment.config_warnings(dataclasses.replace(settings, agent=agent), endless)
        == []
    )


def test_a_model_can_be_another_one_or_several():
    env = envs.make("navigation")
    one = experiment.for_method("mpail", model=("navigation:steering_gain=0.3",))
    many = dataclasses.replace(one, model=("navigation", "navigation:slip=0.3"))
    for settings, shape in ((one, (7,)), (many, (2, 7))):
        model = experiment.make_model(settings, env)
        state = env.reset(jax.random.key(0))
        assert model.observe((), model.start((), state)).shape == shape


def test_a_method_that_reads_vectors_refuses_pictures():
    settings = experiment.for_method("gaifo", environment="pendulum:pixels=64")
    env = envs.make(settings.environment)
    with pytest.raises(UsageError, match="^gaifo reads vectors, but pendulum:pixels=64 sh"):
        experiment.make_agent(settings, env, demos.none(env.spec))


@pytest.mark.parametrize("method", registry.methods())
def test_a_method_that_acts_continuously_refuses_choices(method):
    """All except those whose needs say that they can."""
    settings = experiment.for_method(method, environment="pendulum:choices=5")
    env = envs.make(settings.environment)
    if method in ("mail", "bc"):
        assert registry.method(method).needs(registry.method(method).config).discrete
        return
    with pytest.raises(UsageError) as caught:
        experiment.make_agent(settings, env, demos.none(env.spec))
    assert str(caught.value) == (
        f"{method} acts continuously, but pendulum:choices=5 takes one of 5 choices: leave "
        "its option choices out, or choose one of mail, bc."
    )


def test_a_model_that_takes_other_actions_is_refused():
    env = envs.make("pendulum:choices=5")
    settings = experiment.for_method(
        "mail", environment="pendulum:choices=5", model=("pendulum",)
    )
    message = (
        "^model pendulum takes 1 continuous number, but pendulum:choices=5 takes one of 5"
    )
    with pytest.raises(UsageError, match=message):
        experiment.make_model(settings, env)


def test_modules_of_the_user_are_imported_before_what_they_register(tmp_path, monkeypatch):
    (tmp_path / "my_tasks.py").write_text(
        "from planil_jax import envs\nfrom planil_jax.envs import point_mass\n"
        "envs.register('mine/task', point_mass.make)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(env_registry, "_MAKERS", dict(env_registry._MAKERS))
    settings = {"imports": ("my_tasks",), "environment": "mine/task"}
    assert experiment.from_config_dict(settings).environment == "mine/task"
    assert envs.make("mine/task").spec.name == "point_mass"
    with pytest.raises(UsageError, match="imports names the module 'nowhere_at_all'"):
        experiment.from_config_dict({"imports": ("nowhere_at_all",)})


def test_an_unknown_method_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="no method 'gaif'. Did you mean gaifo"):
        experiment.for_method("gaif")


def test_a_method_that_needs_actions_refuses_demonstrations_without(tmp_path):
    env, path = envs.make("point_mass"), tmp_path / "demos.npz"
    dataset.Demos.from_arrays(np.zeros((2, 6, 4))).completed(env.spec).save(path)
    settings = experiment.for_method("gail", environment="point_mass")
    with pytest.raises(UsageError, match="gail imitates actions, but"):
        experiment.make_agent(settings, env, demos.load(path, env.spec))


def test_airl_refuses_demonstrations_of_some_entries_alone(tmp_path):
    env, path = envs.make("point_mass"), tmp_path / "demos.npz"
    some = dataset.Demos.from_arrays(
        np.zeros((2, 6, 2)),
        np.zeros((2, 5, 2)),
        observation_names=env.spec.observation_names[:2],
    )
    some.completed(env.spec).save(path)
    settings = experiment.for_method("airl", environment="point_mass")
    with pytest.raises(UsageError, match="airl needs whole observations, but"):
        experiment.make_agent(settings, env, demos.load(path, env.spec))
