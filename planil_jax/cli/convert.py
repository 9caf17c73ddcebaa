"""Converts demonstrations of others: datasets, arrays, logs.

    planil convert hopper.npz --env=gym/Hopper --episodes=4 --out=demos/hopper.npz
    planil convert log.csv --env=point_mass --out=demos.npz --time=t --map="px=x [m]"

The source is an .npz or HDF5 of arrays, a Minari, robomimic, LeRobot or Hugging Face
dataset, or a log in CSV or parquet. Nothing is ever unpickled. Columns are found by the
names of the environment's entries, or as --map says. Rows with time stamps are resampled
to the environment's control period. Actions beyond its bounds are refused, unless --clip
is given. Whatever is changed or left out is said.
"""

import os
from typing import Any

from absl import flags

from planil_jax import registry
from planil_jax.base import UsageError
from planil_jax.data import formats
from planil_jax.evaluation import collect
from planil_jax.training import files

FLAGS = flags.FLAGS
POSITIONAL = "source"
_UNITS = ["s", "ms", "us", "ns"]
_SAME = (  # flags that are called as fields of the options
    *("time", "time_unit", "period", "split_by", "rewards", "terminal", "max_gap"),
    *("split_gaps", "every", "clip", "skip_empty", "drop_invalid"),
)


def define_flags() -> None:
    """Defines the flags of this command; not on import, as others import this module."""
    flags.DEFINE_string("source", None, "File or directory to convert; or as an argument.")
    flags.DEFINE_string(
        "env", None, "Environment of the episodes, such as gym/Hopper.", required=True
    )
    flags.DEFINE_string("out", None, "File to write, such as demos.npz.", required=True)
    flags.DEFINE_integer("episodes", None, "How many of the first; else all.", 1)
    flags.DEFINE_multi_string("map", [], "Which column is which entry: THEIRS=OURS.")
    flags.DEFINE_list("actions", [], "Columns that are the action, in its order: A,B.")
    flags.DEFINE_string("time", "", "Column of a log with the time of each row.")
    flags.DEFINE_enum("time_unit", "s", _UNITS, "Unit of --time, where it says none.")
    flags.DEFINE_float("period", None, "Seconds between rows that have no time.", 1e-9)
    flags.DEFINE_string("split_by", "", "Column of a log whose changes separate episodes.")
    flags.DEFINE_string("rewards", "", "Column of a log with the rewards.")
    flags.DEFINE_string(
        "terminal", "", "Column of a log: whether an episode ended for good."
    )
    flags.DEFINE_float(
        "max_gap", None, "Seconds between rows, at most; else twice the usual.", 1e-9
    )
    flags.DEFINE_bool("split_gaps", False, "Let gaps separate episodes.")
    flags.DEFINE_integer("every", 1, "Keep every how manieth pair, an episode each.", 1)
    flags.DEFINE_bool("clip", False, "Clip actions that are beyond their bounds.")
    flags.DEFINE_bool("skip_empty", False, "Leave out episodes without transitions.")
    flags.DEFINE_bool("drop_invalid", False, "Leave out episodes that would be refused.")


def main() -> None:
    if FLAGS.source is None:
        raise UsageError("name the source: planil convert SOURCE --env=... --out=...")
    files.require_writable(FLAGS.out, "--out")
    if os.path.realpath(FLAGS.source) == os.path.realpath(FLAGS.out):
        raise UsageError(f"{FLAGS.out} (--out) is the source: choose another file.")
    values: dict[str, Any] = {name: FLAGS[name].value for name in _SAME}
    values |= {"names": _names(FLAGS.map), "actions": tuple(FLAGS.actions)}
    options = formats.Options(**values)
    spec = registry.make_env(FLAGS.env).spec
    args = FLAGS.source, FLAGS.env, spec, FLAGS.out, FLAGS.episodes, options
    for note in formats.convert(*args)[1]:
        print(f"note: {note}")
    print(f"wrote {collect.summary(FLAGS.out)}")


def _names(pairs: list[str]) -> dict[str, str] | tuple[str, ...]:
    """Which column is which entry, or the arrays that hold all entries in order."""
    if not any("=" in pair for pair in pairs):
        return tuple(pairs)
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise UsageError(f"--map={wrong[0]}: must be THEIRS=OURS, as the others are.")
    return dict(pair.rsplit("=", 1) for pair in pairs)
