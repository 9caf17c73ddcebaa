"""Demonstrations of a trained expert, made once a session."""

import jax
import pytest

from experiments import collect, experiment, runs, train
from experiments.configs import expert as configs
from planil_jax import envs
from planil_jax.base import Demonstrations
from planil_jax.data import demos as demonstrations
from planil_jax.training import run

EPISODES = 20  # of an evaluation


@pytest.fixture(scope="session")
def pendulum_expert(tmp_path_factory) -> tuple[Demonstrations, float]:
    """Four episodes of SAC on pendulum, and its return from the evaluation's starts."""
    directory, env = tmp_path_factory.mktemp("pendulum"), envs.make("pendulum")
    settings = experiment.freeze(configs.get_config("pendulum"))
    train.train(settings, None, str(directory / "run"), resume=True)
    trained = runs.load(directory / "run")
    path = str(directory / "pendulum.npz")
    collect.from_run(trained, path, 4, seed=1, actions=True)
    starts = jax.random.split(jax.random.key(run.EVALUATION_SEED), EPISODES)
    params = jax.tree.map(lambda leaf: leaf[0], trained.params)
    agent = trained.make_agent(env, {})
    reached = jax.jit(lambda keys: run.mean_return(agent, env, keys, params))(starts)
    return demonstrations.load(path, env.spec), float(reached)
