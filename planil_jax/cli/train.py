"""Trains an imitator from demonstrations.

    python -m experiments.train --config=experiments/configs/navigation.py:mpail \\
        --demos=demos/navigation.npz --seeds=3 --logdir=runs/nav
    python -m experiments.train --logdir=runs/nav --seeds=3 --resume
    python -m experiments.train --config=experiments/configs/navigation.py:gaifo \\
        --demos=demos/navigation.npz --logdir=runs/rates --sweep=agent.learning_rate=1e-4,1e-3
"""

import dataclasses

from absl import flags
from ml_collections import config_flags

from planil_jax import experiment, launch

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Not on import: other binaries import this one."""
    config_flags.DEFINE_config_file("config")
    flags.DEFINE_string("demos", None, "Demonstrations, .npz; a resumed run has them.")
    flags.DEFINE_string("logdir", None, "Directory of the run.", required=True)
    flags.DEFINE_integer("seed", 0, "The first seed.", lower_bound=0)
    flags.DEFINE_integer("seeds", 1, "Seeds, trained side by side.", lower_bound=1)
    flags.DEFINE_multi_string(
        "sweep", [], "Numbers to try side by side: agent.learning_rate=1e-4,1e-3."
    )
    flags.DEFINE_bool("resume", False, "Continue the run in --logdir.")


def main() -> None:
    settings = dataclasses.replace(
        experiment.from_config_dict(FLAGS.config),
        seed=FLAGS.seed,
        seeds=FLAGS.seeds,
        sweep=tuple(FLAGS.sweep),
    )
    launch.launch(
        settings, demos_path=FLAGS.demos, logdir=FLAGS.logdir, resume=FLAGS.resume
    )
