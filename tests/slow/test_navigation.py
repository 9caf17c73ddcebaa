"""The claim for navigation, 5 seeds; about a quarter of an hour on two cores."""

import pytest

from planil_jax import experiment, launch, runs
from planil_jax.evaluation import collect, evaluate, out_of_distribution
from planil_jax.training import report, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> runs.Run:
    """MPAIL after 200,000 steps of 5 seeds, evaluated every 16,000."""
    directory = tmp_path_factory.mktemp("navigation")
    path = str(directory / "navigation.npz")
    collect.collect("navigation", path, 4, seed=1, actions=False)
    settings = experiment.Experiment(seeds=5, run=run.Config(total_steps=200_000))
    launch.launch(settings, demos_path=path, logdir=directory / "run", resume=False)
    return runs.load(directory / "run")


def test_every_seed_keeps_95_percent_of_the_expert_from_50000_steps_on(trained):
    steps, returns = report.read_metrics(trained.directory)["eval/return"]
    expert = evaluate.in_distribution(trained, run.Config().evaluation_episodes)
    late = returns[steps >= 48_000]
    assert late.min() >= 0.95 * expert["expert_return"]


@pytest.mark.parametrize(("side", "share"), [(40.0, 0.97), (80.0, 0.90)])
def test_every_seed_arrives_from_far_out_of_distribution(trained, side, share):
    found, _ = out_of_distribution.on_field(trained, side, starts=128)
    assert min(found["successes"]) >= share
