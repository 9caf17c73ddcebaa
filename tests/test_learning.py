"""Learning from end to end, as a user would: collect, train, evaluate."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import navigation
from planil_jax import experiment, launch, runs
from planil_jax.evaluation import collect, evaluate, out_of_distribution

pytestmark = pytest.mark.optimised
STEPS = 800  # environment steps; more seeds are a slow test's


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> runs.Run:
    """MPAIL after 800 steps on 4 observation-only demonstrations of navigation."""
    directory = tmp_path_factory.mktemp("learning")
    path = str(directory / "navigation.npz")
    collect.collect("navigation", path, 4, seed=1, actions=False)
    settings = experiment.from_config_dict(navigation.get_config("mpail"))
    limits = dataclasses.replace(
        settings.run, total_steps=STEPS, evaluation_episodes=0, checkpoint_every=100
    )
    settings = dataclasses.replace(settings, run=limits)
    launch.launch(settings, demos_path=path, logdir=directory / "run", resume=False)
    return runs.load(directory / "run")


@pytest.fixture(scope="module")
def shares(trained) -> np.ndarray:
    """Shares of the expert's return from the same 8 starts, `[2]`: before and after."""
    keys = jax.random.split(jax.random.key(0), 1)
    agent = trained.make_agent(trained.env, {})
    untrained = jax.vmap(lambda key: agent.init(key).params)(keys)
    both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), untrained, trained.params)
    found = evaluate.in_distribution(trained._replace(params=both), episodes=8)
    return np.array(found["shares"])


def test_mpail_drives_like_the_expert_after_800_steps(trained, shares):
    assert trained.step == STEPS
    assert shares[1] >= 0.9


def test_the_untrained_planner_does_not(shares):
    assert shares[0] <= 0.5


def test_a_trained_run_finds_its_way_from_where_no_demonstration_was(trained):
    """Most starts on 40 × 40 m; the claim, after 50,000 steps, is a slow test's."""
    found, _ = out_of_distribution.on_field(trained, side=40.0, starts=16)
    assert np.mean(found["successes"]) >= 0.75
