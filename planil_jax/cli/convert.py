"""Converts demonstrations of others, arrays of all episodes one after another.

    planil convert --source=hopper.npz --env=gym/Hopper --episodes=4 --out=demos/hopper.npz

The source is an .npz of `obs` [sum of (L + 1), O], `lengths` [N] and, where known, `acts`
[sum of L, U] (of choices their numbers [sum of L]), `rews` [sum of L] and `terminal` [N].
`indices` [N - 1] may take the place of `lengths`: where the later episodes start in `acts`.
Other arrays are left unread, and nothing is ever unpickled. Actions beyond the bounds of
the environment are refused, unless --clip is given.
"""

from absl import flags

from planil_jax import envs
from planil_jax.data import formats
from planil_jax.evaluation import collect
from planil_jax.training import files

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
    flags.DEFINE_bool("clip", False, "Clip actions that are beyond their bounds.")
    flags.DEFINE_bool("skip_empty", False, "Leave out episodes without transitions.")


def main() -> None:
    files.require_writable(FLAGS.out, "--out")
    spec = envs.make(FLAGS.env).spec
    _, notes = formats.convert(
        FLAGS.source,
        FLAGS.env,
        spec,
        FLAGS.out,
        FLAGS.episodes,
        clip=FLAGS.clip,
        skip_empty=FLAGS.skip_empty,
    )
    for note in notes:
        print(f"note: {note}")
    print(f"wrote {collect.summary(FLAGS.out)}")
