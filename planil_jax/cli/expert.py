"""Trains an expert on a task's own reward, and writes its demonstrations with their card.

    python -m experiments.expert --config=experiments/configs/expert.py:pendulum \\
        --logdir=runs/pendulum_expert --out=demos/pendulum.npz --episodes=4

An interrupted training continues where it was.
"""

from absl import flags
from ml_collections import config_flags

from planil_jax import experiment, launch, runs
from planil_jax.base import UsageError
from planil_jax.evaluation import collect

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Not on import: other binaries import this one."""
    config_flags.DEFINE_config_file("config")
    flags.DEFINE_string("logdir", None, "Directory of the training.", required=True)
    flags.DEFINE_string("out", None, "Demonstrations to write, .npz.", required=True)
    flags.DEFINE_string(
        "which", "last", "Checkpoint that demonstrates: last, best, or a step."
    )
    flags.DEFINE_integer("episodes", 4, "Episodes to demonstrate.", lower_bound=1)
    flags.DEFINE_integer("seed", 1, "Seed of the demonstrations' starts.")
    flags.DEFINE_bool("actions", True, "Write actions too; --noactions: not.")
    flags.DEFINE_bool("unlearned", False, "Take an expert no better than random.")


def main() -> None:
    settings = experiment.from_config_dict(FLAGS.config)
    if experiment.needs(settings).demonstrations:
        raise UsageError(
            f"{settings.method} imitates and cannot become an expert; use one of "
            f"{', '.join(experiment.engines())}."
        )
    launch.launch(settings, logdir=FLAGS.logdir, resume=True)
    collect.from_run(
        runs.load(FLAGS.logdir, FLAGS.which),
        FLAGS.out,
        FLAGS.episodes,
        FLAGS.seed,
        FLAGS.actions,
        unlearned=FLAGS.unlearned,
    )
    print(f"wrote {collect.summary(FLAGS.out)}")
