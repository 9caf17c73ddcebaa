"""Prints what a file of demonstrations, or of a trained expert, holds.

    planil inspect demos/navigation.npz
    planil inspect experiments/experts/pendulum.npz

Of demonstrations it prints the card, the episodes and the range of each entry; of an expert
the card and its weights' shapes.
"""

from absl import flags

from planil_jax.base import UsageError
from planil_jax.data import demos, expert_file

FLAGS = flags.FLAGS
COMPUTE = False
POSITIONAL = "demos"


def define_flags() -> None:
    flags.DEFINE_string("demos", None, "File, .npz; or as an argument.")


def main() -> None:
    if FLAGS.demos is None:
        raise UsageError(f"--demos is required: {FLAGS['demos'].help}")
    is_expert = expert_file.is_one(FLAGS.demos)
    print((expert_file if is_expert else demos).describe(FLAGS.demos))
