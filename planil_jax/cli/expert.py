"""Trains an expert on the task's reward, and writes its demonstrations with their card.

    planil expert --method=ppo --env=pendulum --logdir=runs/pendulum_expert \\
        --out=demos/pendulum.npz --episodes=4

With --weights it writes a small file of the expert itself, of which `planil collect
--expert=FILE` records demonstrations at any time. An interrupted training continues from
its last checkpoint.
"""

import shlex
import sys

from absl import flags

from planil_jax import experiment, launch, runs
from planil_jax.base import UsageError
from planil_jax.cli import settings
from planil_jax.data import expert_file
from planil_jax.evaluation import collect, saved_experts
from planil_jax.training import files
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
    flags.DEFINE_string("out", None, "Demonstrations to write, such as demos.npz.")
    flags.DEFINE_string("weights", None, "File of the expert itself to write, .npz.")
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
    if not (FLAGS.out or FLAGS.weights):
        raise UsageError(
            "give --out, a file of demonstrations to write, or --weights, of the expert."
        )
    for name in ("out", "weights"):
        path = FLAGS[name].value
        if path and not path.endswith(".npz"):
            raise UsageError(f"{path} (--{name}): this file must end in .npz.")
        files.require_writable(path, f"--{name}")
    asked = settings.read(METHOD, ENV, FLAG_OF)
    if experiment.needs(asked).demonstrations:
        raise UsageError(
            f"{asked.method} imitates and cannot become an expert; use one of "
            f"{experiment.engines()}."
        )
    launch.launch(asked, logdir=FLAGS.logdir, resume=True)
    trained = runs.load(FLAGS.logdir, FLAGS.which, trust_imports=True)
    if FLAGS.weights:
        command = shlex.join(["planil", "expert", *sys.argv[1:]])
        saved_experts.save(trained, FLAGS.weights, command=command)
        print(f"wrote {expert_file.summary(FLAGS.weights)}")
    if FLAGS.out:
        args = (FLAGS.out, FLAGS.episodes, FLAGS.seed, FLAGS.actions)
        collect.from_run(trained, *args, unlearned=FLAGS.unlearned, report=Report())
        print(f"wrote {collect.summary(FLAGS.out)}")
