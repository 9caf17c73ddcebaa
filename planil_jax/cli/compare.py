"""Compares methods on tasks: trains and evaluates every one, in one directory.

    planil compare --config=experiments/configs/compare_navigation.py --logdir=runs/compare

A task is an environment that has recipes, "navigation", or a config file, "mine/task.py".
More settings may follow a method's name: "gaifo:loop.num_envs=1". An interrupted comparison
continues where it was.
"""

import functools
import shlex
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from planil_jax import config, experiment, recipes
from planil_jax.base import UsageError
from planil_jax.cli import app
from planil_jax.compose import compose
from planil_jax.evaluation import compare
from planil_jax.reporting import pictures
from planil_jax.training import files

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this command; not on import, as others import this module."""
    config_flags.DEFINE_config_file("config")
    flags.DEFINE_string(
        "logdir", None, "Directory of all the runs, such as runs/compare.", required=True
    )
    flags.DEFINE_string("demos", None, "Demonstrations, .npz, of the one task.")
    flags.DEFINE_string("out", None, "File of results to write, .json.")


def main() -> None:
    files.require_writable(FLAGS.out, "--out")
    files.require_writable(Path(FLAGS.logdir) / "comparison.json", "--logdir")
    plan = config.from_config_dict(FLAGS.config, compare.Comparison())
    logdir, found, say = Path(FLAGS.logdir), {}, functools.partial(print, file=sys.stderr)
    if FLAGS.demos and len(plan.tasks) > 1:
        raise UsageError("--demos is of one task; this comparison has several.")
    # Settings of all tasks first: a wrong one is refused before anything is trained.
    settings = {
        name: compare.settings(plan, task, settings_of)
        for task, name in compare.names(plan.tasks).items()
    }
    for name, chosen in settings.items():
        directory = logdir / name
        found[name] = compare.compare(plan, name, chosen, directory, FLAGS.demos, say)
        pictures.comparison(directory, plan, found[name])
    command = shlex.join(["planil", "compare", *sys.argv[1:]])
    text, notes = compare.save(logdir, plan, found, command, FLAGS.out)
    print(text, *notes, sep="\n")
    print(f"wrote comparison.md and pictures into {logdir}")


def settings_of(task: str, method: str) -> experiment.Experiment:
    """The experiment of a method on a task, an environment or a config file."""
    if task.endswith(".py"):
        return experiment.from_config_dict(app.load_config(f"{task}:{method}"))
    if not recipes.methods(task):
        raise UsageError(
            f"no task {task!r}: a task is an environment that has recipes, such as "
            "navigation, or a config file, FILE.py."
        )
    chosen, notes = compose(method, task)
    print(*notes, sep="\n", file=sys.stderr)
    return chosen
