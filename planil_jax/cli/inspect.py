"""Prints what a file of demonstrations (.npz) or of results (.json) holds.

    planil inspect demos/navigation.npz
    planil inspect results/navigation/mpail_200k.json

Of demonstrations it prints the card, the episodes and the range of each entry. Of results
it prints the command, the commit and the figures, and why they may not lie in results/.
"""

from absl import flags

from planil_jax.base import UsageError
from planil_jax.data import demos
from planil_jax.evaluation import results

FLAGS = flags.FLAGS
COMPUTE = False
POSITIONAL = "demos"


def define_flags() -> None:
    flags.DEFINE_string("demos", None, "File, .npz or .json; or as an argument.")


def main() -> None:
    if FLAGS.demos is None:
        raise UsageError(f"--demos is required: {FLAGS['demos'].help}")
    describe = results.describe if FLAGS.demos.endswith(".json") else demos.describe
    print(describe(FLAGS.demos))
