"""Latent planners and cloning train on pictures, from a file to a report; two minutes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import pendulum_seen
from planil_jax import experiment, launch, runs
from planil_jax.evaluation import collect
from planil_jax.nets import conv
from planil_jax.reporting import report
from planil_jax.training import loop, run

NAME = "pendulum:pixels=40,frames=2,episode_length=12"
ENCODER = conv.Config(filters=4)
LOOP = loop.Config(num_envs=1, steps=6, rounds=3, resets=2)


def settings(method: str) -> experiment.Experiment:
    agent = experiment.from_config_dict(pendulum_seen.get_config(method)).agent
    if method == "bc":
        agent = dataclasses.replace(agent, encoder_conv=ENCODER, gradient_steps=20, batch=8)
    else:
        agent = dataclasses.replace(
            agent,
            network=dataclasses.replace(agent.network, encoder_conv=ENCODER),
            replay=dataclasses.replace(agent.replay, batch=4, capacity=20),
            seed_steps=6,
        )
    length = LOOP.steps_per_epoch
    return experiment.for_method(
        method,
        environment=NAME,
        agent=agent,
        loop=LOOP,
        run=run.Config(total_steps=2 * length, evaluation_episodes=1),
    )


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("pictures") / "images.npz")
    collect.collect(NAME, path, 2, seed=1, actions=True, unlearned=True)
    return path


@pytest.mark.parametrize("method", ["iqmpc", "mpail2", "bc"])
def test_a_method_of_images_trains_and_reports(method, demos, tmp_path):
    launch.launch(settings(method), demos_path=demos, logdir=tmp_path / "run", resume=False)
    trained = runs.load(tmp_path / "run")
    assert trained.step == 2 * LOOP.steps_per_epoch
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(trained.params)]
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    page = report.write(trained).read_text()
    assert "Frames over time" in page
    if method == "bc":
        return
    agent = trained.make_agent(trained.env, {})
    replay = agent.init(jax.random.key(0)).replay
    assert replay.steps["obs"].shape == (20, 1, 40, 40, 3)
    assert replay.steps["obs"].dtype == jnp.uint8
