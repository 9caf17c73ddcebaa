"""Converts demonstrations of others, arrays of all episodes one after another.

    planil convert --source=hopper.npz --env=gym/Hopper --episodes=4 --out=demos/hopper.npz

The source is an .npz without pickles of `obs` [sum of (L + 1), O], `lengths` [N] and, where
known, `acts` [sum of L, U] (of choices their numbers [sum of L]), `rews` [sum of L] and
`terminal` [N].
"""

from absl import flags

from planil_jax import envs
from planil_jax.data import formats
from planil_jax.evaluation import collect

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this command; not on import, as others import this module."""
    flags.DEFINE_string(
        "source", None, "File to convert, such as theirs.npz.", required=True
    )
    flags.DEFINE_string(
        "env", None, "Environment of the episodes, such as gym/Hopper.", required=True
    )
    flags.DEFINE_string("out", None, "File to write, such as demos.npz.", required=True)
    flags.DEFINE_integer("episodes", 4, "How many of the first episodes.", lower_bound=1)


def main() -> None:
    spec = envs.make(FLAGS.env).spec
    formats.convert(FLAGS.source, FLAGS.env, spec, FLAGS.out, FLAGS.episodes)
    print(f"wrote {collect.summary(FLAGS.out)}")
