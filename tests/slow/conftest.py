"""Optimised programs, and demonstrations of a trained expert, made once a session."""

from collections.abc import Iterator

import jax
import pytest

from experiments.configs import expert as configs
from planil_jax import experiment, launch, runs
from planil_jax.base import Demonstrations
from planil_jax.data import demos as demonstrations
from planil_jax.evaluation import collect
from planil_jax.training import run

EPISODES = 20  # of an evaluation


@pytest.fixture(scope="session", autouse=True)
def programs(compile_cache) -> Iterator[None]:
    """In the place of the other tests' `programs`: here all are optimised."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    assert not jax.config.values["jax_disable_most_optimizations"], "were not optimised"


@pytest.fixture(scope="session")
def pendulum_run(tmp_path_factory) -> runs.Run:
    """SAC on pendulum."""
    directory = tmp_path_factory.mktemp("pendulum") / "run"
    settings = experiment.from_config_dict(configs.get_config("pendulum"))
    launch.launch(settings, logdir=directory, resume=True)
    return runs.load(directory)


@pytest.fixture(scope="session")
def pendulum_return(pendulum_run) -> float:
    """Of SAC, from the evaluation's starts."""
    starts = jax.random.split(jax.random.key(run.EVALUATION_SEED), EPISODES)
    params = jax.tree.map(lambda leaf: leaf[0], pendulum_run.params)
    env = pendulum_run.env
    agent = pendulum_run.make_agent(env, {})
    mean = jax.jit(lambda keys: run.mean_return(agent, env, keys, params))
    return float(mean(starts))


@pytest.fixture(scope="session")
def pendulum_expert(
    pendulum_run, pendulum_return, tmp_path_factory
) -> tuple[Demonstrations, float]:
    """Four episodes of SAC, and its return from the evaluation's starts."""
    path = str(tmp_path_factory.mktemp("demos") / "pendulum.npz")
    collect.from_run(pendulum_run, path, 4, seed=1, actions=True)
    return demonstrations.load(path, pendulum_run.env.spec), pendulum_return
