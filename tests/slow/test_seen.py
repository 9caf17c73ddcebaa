"""CMIL swings up from pictures of 64 × 64 pixels, where cloning does not; 20 minutes on a
busy core.

Ten demonstrations of an expert that was trained on numbers. The world model sees one frame
at a time and remembers; cloning sees three, by the same tiles. Returns are means over the
same 20 starts as the expert's, of the last parameters.
"""

import dataclasses

import jax
import numpy as np
import pytest

from planil_jax import envs, experiment
from planil_jax.compose import compose
from planil_jax.data import demos as demonstrations
from planil_jax.evaluation import collect, expert_policies
from planil_jax.recipes import sizes
from planil_jax.training import run

ENVIRONMENT = "pendulum:pixels=64,frames=1"  # of the world model
EPISODES, SEEDS = 20, 2


@pytest.fixture(scope="module")
def demos(pendulum_run, tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("seen") / "seen.npz")
    collect.from_run(pendulum_run, path, 10, 1, True, environment=ENVIRONMENT)
    return path


def learned(method: str, environment: str, demos: str, **agent) -> np.ndarray:
    """Returns `[S]` after the configuration's steps."""
    settings, _ = compose(method, environment)
    changed = dataclasses.replace(settings.agent, **agent)
    settings = dataclasses.replace(settings, agent=changed)
    env = envs.make(environment)
    held = demonstrations.load(demos, env.spec)
    agent = experiment.make_agent(settings, env, held)
    config = dataclasses.replace(
        settings.run, evaluate_every=None, evaluation_episodes=EPISODES, seeds_by="map"
    )
    *_, last = run.train(agent, env, settings.loop, config, held, (0, SEEDS))
    assert last.step == config.total_steps
    return np.asarray(last.metrics["eval/return"])


def test_cmil_swings_up_with_every_seed_where_cloning_does_not(pendulum_return, demos):
    env = envs.make("pendulum")
    starts = jax.random.split(jax.random.key(run.EVALUATION_SEED), EPISODES)
    random = expert_policies.make_random(env)
    floor = float(jax.jit(lambda keys: run.mean_return(random, env, keys, ()))(starts))
    assert pendulum_return - floor > 900

    def loss(returns: np.ndarray) -> np.ndarray:
        return (pendulum_return - returns) / (pendulum_return - floor)

    cmil = learned("cmil", ENVIRONMENT, demos)
    assert loss(cmil).max() < 0.1
    cloned = learned("bc", "pendulum:pixels=64", demos, encoder_conv=sizes.tiles())
    assert loss(cloned).mean() > 2 * max(loss(cmil).mean(), 0.1)
