"""Prints what a demonstrations file holds: its card, its episodes, the range of each entry.

python -m experiments.inspect --demos=demos/navigation.npz
"""

from absl import flags

from planil_jax.data import demos

FLAGS = flags.FLAGS
flags.DEFINE_string("demos", None, "Demonstrations file (.npz).", required=True)


def main() -> None:
    print(demos.describe(FLAGS.demos))
