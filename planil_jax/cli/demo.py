"""The whole story in minutes: demonstrate, train, evaluate, report.

    planil demo --logdir=runs/demo

Collects 4 observation-only demonstrations of the navigation task, trains MPAIL on them with
3 seeds side by side, evaluates it against the expert and on a 40 × 40 m field of starts,
and writes report.html. A demo that was interrupted continues where it was.
"""

import dataclasses
from pathlib import Path

from absl import flags

from planil_jax import experiment, launch, runs
from planil_jax.evaluation import collect, evaluate
from planil_jax.reporting import report
from planil_jax.training.report import Report

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("logdir", "runs/demo", "Directory of the run.")
    flags.DEFINE_integer("seeds", 3, "Seeds, trained side by side.", lower_bound=1)


def main() -> None:
    logdir = Path(FLAGS.logdir)
    demonstrations = logdir / runs.DEMONSTRATIONS
    if not demonstrations.exists():
        args = "navigation", str(demonstrations), 4, 1, False
        card = collect.collect(*args, report=Report())
        print(
            f"4 demonstrations, returns {', '.join(f'{r:.0f}' for r in card.known_returns)}"
        )
    settings = dataclasses.replace(experiment.Experiment(), seeds=FLAGS.seeds)
    launch.launch(settings, logdir=logdir, resume=True)
    trained = runs.load(logdir)
    print(evaluate.table(evaluate.evaluate(trained, 32, [40.0], 64)))
    page = report.write(trained)
    print(f"wrote {page}; open it in a browser")
