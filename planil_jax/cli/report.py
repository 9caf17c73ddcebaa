"""Writes report.html: what a run learned, in one file that needs no network.

    planil report --run=runs/nav

Learning curves, the evaluation where `planil evaluate` made one, and what the method can
show: its plans at every step, maps of its value and reward, rollouts of its world model.
`#frame=40` after the address of the page opens the episode at step 40.
"""

import sys

from absl import flags

from planil_jax import runs
from planil_jax.reporting import report

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this command; not on import, as others import this module."""
    flags.DEFINE_string(
        "run", None, "The --logdir of a training, such as runs/nav.", required=True
    )
    flags.DEFINE_string("which", "last", "Checkpoint: last, best, or a step.")
    flags.DEFINE_integer("seed_index", 0, "Which of the run's seeds acts.", lower_bound=0)


def main() -> None:
    trained = runs.load(FLAGS.run, FLAGS.which, trust_imports=FLAGS.trust_imports)
    print(f"drawing the report of {FLAGS.run} …", file=sys.stderr)
    print(f"wrote {report.write(trained, FLAGS.seed_index)}; open it in a browser")
