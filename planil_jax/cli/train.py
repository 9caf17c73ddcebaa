"""Trains an imitator from demonstrations.

    planil train --method=mpail --env=navigation --demos=demos/navigation.npz \\
        --seeds=3 --total_steps=20000 --logdir=runs/nav --set agent.planner.horizon=12
    planil train --logdir=runs/nav --resume
    planil train --method=gaifo --env=navigation --demos=demos/navigation.npz \\
        --logdir=runs/rates --sweep=agent.learning_rate=1e-4,1e-3

`planil collect` makes demonstrations. In a checkout, `python -m experiments.train` is the
same, and experiments/configs holds config files.
"""

import importlib.util
import shlex
from pathlib import Path

from absl import flags

from planil_jax import experiment, launch, runs
from planil_jax.cli import settings
from planil_jax.training import report

FLAGS = flags.FLAGS
METHOD, ENV = "mpail", "navigation"  # the defaults
# Fields of the experiment that have a flag.
FLAG_OF = {"seed": "seed", "seeds": "seeds", "sweep": "sweep", "demonstrations": "demos"}


def define_flags() -> None:
    settings.define_flags()
    flags.adopt_module_key_flags(settings)
    flags.DEFINE_string("demos", None, "Demonstrations, .npz; a resumed run has them.")
    flags.DEFINE_string(
        "logdir", None, "Directory of the run, such as runs/nav.", required=True
    )
    flags.DEFINE_integer("seed", None, "The first seed; 0 unless the config says which.")
    flags.DEFINE_integer("seeds", None, "Seeds, trained side by side; 1 likewise.")
    flags.DEFINE_multi_string(
        "sweep", None, "Numbers to try side by side: agent.learning_rate=1e-4,1e-3."
    )
    flags.DEFINE_bool("resume", False, "Continue the run in --logdir, as it was set.")


def help_settings(given, load) -> experiment.Experiment:
    """The experiment whose fields `--help` lists."""
    return settings.help_settings(given, load, METHOD, ENV)


def main() -> None:
    if FLAGS.resume and not settings.named():
        asked = settings.changed(
            runs.load_experiment(FLAGS.logdir, FLAGS.trust_imports), FLAG_OF
        )
    else:
        asked = settings.read(METHOD, ENV, FLAG_OF)
    asked = settings.with_flags(
        asked,
        seed=FLAGS.seed,
        seeds=FLAGS.seeds,
        sweep=None if FLAGS.sweep is None else tuple(FLAGS.sweep),
    )
    launch.launch(asked, demos_path=FLAGS.demos, logdir=FLAGS.logdir, resume=FLAGS.resume)
    if (events := Path(FLAGS.logdir).expanduser() / report.EVENTS).exists():
        missing = importlib.util.find_spec("tensorboard") is None
        install = "  (pip install tensorboard)" if missing else ""
        print(f"curves: tensorboard --logdir={shlex.quote(str(events))}{install}")
