"""Prints what a file holds: demonstrations or an expert (.npz), or results (.json).

    planil inspect demos/navigation.npz
    planil inspect experiments/experts/pendulum.npz
    planil inspect results/navigation/mpail_200k.json

Of demonstrations it prints the card, the episodes and the range of each entry; of an expert
the card and its weights' shapes; of results the command, the commit and the figures, and
why they may not lie in results/.
"""

from absl import flags

from planil_jax.base import UsageError
from planil_jax.data import demos, expert_file
from planil_jax.evaluation import results

FLAGS = flags.FLAGS
COMPUTE = False
POSITIONAL = "demos"


def define_flags() -> None:
    flags.DEFINE_string("demos", None, "File, .npz or .json; or as an argument.")


def main() -> None:
    if FLAGS.demos is None:
        raise UsageError(f"--demos is required: {FLAGS['demos'].help}")
    if FLAGS.demos.endswith(".json"):
        print(results.describe(FLAGS.demos))
    elif expert_file.is_one(FLAGS.demos):
        print(expert_file.describe(FLAGS.demos))
    else:
        print(demos.describe(FLAGS.demos))
