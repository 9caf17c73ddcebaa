"""Compares methods on tasks: trains and evaluates every one, in one directory.

    planil compare --config=experiments/configs/compare_navigation.py --logdir=runs/compare

A task is a file of experiments/configs. More settings may follow a method's name:
"gaifo:loop.num_envs=1". An interrupted comparison continues where it was.
"""

import dataclasses
import functools
import importlib
import shlex
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from planil_jax import config, experiment
from planil_jax.base import UsageError
from planil_jax.evaluation import compare
from planil_jax.reporting import pictures

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this command; not on import, as others import this module."""
    config_flags.DEFINE_config_file("config")
    flags.DEFINE_string("logdir", None, "Directory of all the runs.", required=True)
    flags.DEFINE_string("demos", None, "Demonstrations, .npz, of the one task.")
    flags.DEFINE_string("out", None, "Also write comparison.json here.")


def main() -> None:
    plan = config.from_config_dict(FLAGS.config, compare.Comparison())
    logdir, found, say = Path(FLAGS.logdir), {}, functools.partial(print, file=sys.stderr)
    if FLAGS.demos and len(plan.tasks) > 1:
        raise UsageError("--demos is of one task; this comparison has several.")
    for task in plan.tasks:
        directory, chosen = logdir / task, settings(plan, task)
        found[task] = compare.compare(plan, task, chosen, directory, FLAGS.demos, say)
        pictures.comparison(directory, plan, found[task])
    command = f"planil compare {shlex.join(sys.argv[1:])}"
    print(compare.save(logdir, plan, found, command, FLAGS.out))
    print(f"wrote comparison.json, comparison.md and pictures into {logdir}")


def settings(plan: compare.Comparison, task: str) -> dict[str, experiment.Experiment]:
    """The experiment of every method of a plan on a task."""
    try:
        module = importlib.import_module(f"experiments.configs.{task}")
    except ModuleNotFoundError:
        raise UsageError(f"there is no task experiments/configs/{task}.py.") from None
    chosen = {}
    for method, (name, _, text) in ((m, m.partition(":")) for m in plan.methods):
        recipe = experiment.from_config_dict(module.get_config(name))
        recipe = experiment.override(recipe, text)
        chosen[method] = dataclasses.replace(recipe, seed=plan.seed, seeds=plan.seeds)
    return chosen
