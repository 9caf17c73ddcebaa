"""Prints what a demonstrations file holds: its card, its episodes, the range of each entry.

planil inspect demos/navigation.npz
"""

from absl import flags

from planil_jax.base import UsageError
from planil_jax.data import demos

FLAGS = flags.FLAGS
COMPUTE = False
POSITIONAL = "demos"


def define_flags() -> None:
    flags.DEFINE_string("demos", None, "Demonstrations file (.npz); or as an argument.")


def main() -> None:
    if FLAGS.demos is None:
        raise UsageError(f"--demos is required: {FLAGS['demos'].help}")
    print(demos.describe(FLAGS.demos))
