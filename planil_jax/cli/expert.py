"""Trains an expert on the task's reward, and writes its demonstrations with their card.

    planil expert --method=ppo --env=pendulum --logdir=runs/pendulum_expert \\
        --out=demos/pendulum.npz --episodes=4

An interrupted training continues from its last checkpoint.
"""

from absl import flags

from planil_jax import experiment, launch, runs
from planil_jax.base import UsageError
from planil_jax.cli import settings
from planil_jax.evaluation import collect
from planil_jax.training.report import Report

FLAGS = flags.FLAGS
METHOD, ENV = "ppo", "pendulum"  # the defaults
FLAG_OF = {"demonstrations": "out"}


def define_flags() -> None:
    settings.define_flags()
    flags.adopt_module_key_flags(settings)
    flags.DEFINE_string(
        "logdir", None, "Directory of the training, such as runs/expert.", required=True
    )
    flags.DEFINE_string(
        "out", None, "Demonstrations to write, such as demos.npz.", required=True
    )
    flags.DEFINE_string(
        "which", "last", "Checkpoint that demonstrates: last, best, or a step."
    )
    flags.DEFINE_integer("episodes", 4, "Episodes to demonstrate.", lower_bound=1)
    flags.DEFINE_integer("seed", 1, "Seed of the demonstrations' starts.")
    flags.DEFINE_bool("actions", True, "Write actions too; --noactions: not.")
    flags.DEFINE_bool("unlearned", False, "Take an expert no better than random.")


def help_settings(given, load) -> experiment.Experiment:
    """The experiment whose fields `--help` lists."""
    return settings.help_settings(given, load, METHOD, ENV)


def main() -> None:
    asked = settings.read(METHOD, ENV, FLAG_OF)
    if experiment.needs(asked).demonstrations:
        raise UsageError(
            f"{asked.method} imitates and cannot become an expert; use one of "
            f"{experiment.engines()}."
        )
    launch.launch(asked, logdir=FLAGS.logdir, resume=True)
    collect.from_run(
        runs.load(FLAGS.logdir, FLAGS.which, trust_imports=True),
        FLAGS.out,
        FLAGS.episodes,
        FLAGS.seed,
        FLAGS.actions,
        unlearned=FLAGS.unlearned,
        report=Report(),
    )
    print(f"wrote {collect.summary(FLAGS.out)}")
