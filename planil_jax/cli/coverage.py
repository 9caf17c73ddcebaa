"""How far from its demonstrations a learner went while it learned, and its violations.

    planil coverage --runs=runs/cmil,runs/vmail --limits="speed [rad/s]=-6:6" \\
        --picture=coverage.png --out=coverage.json

Reads the replay of each run's checkpoint; see planil_jax.evaluation.coverage for the
measures. Writes coverage.json into each run's directory.
"""

import json
import shlex
import sys

from absl import flags

from planil_jax import runs
from planil_jax.evaluation import coverage, results
from planil_jax.training import files

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this command; not on import, as others import this module."""
    flags.DEFINE_list(
        "runs", None, "Run directories, such as runs/a,runs/b.", required=True
    )
    flags.DEFINE_string("which", "last", "Checkpoint: last, best, or a step.")
    flags.DEFINE_multi_string(
        "limits", [], "Of an observation entry: NAME=LOW:HIGH; either may be empty."
    )
    flags.DEFINE_string("out", "", "File of results to write, .json.")
    flags.DEFINE_string("picture", "", "Picture of the results to draw, .png.")


def main() -> None:
    files.require_writable(FLAGS.out, "--out")
    files.require_writable(FLAGS.picture, "--picture")
    found, cases = {}, []
    for directory in FLAGS.runs:
        trained = runs.load(directory, FLAGS.which, trust_imports=FLAGS.trust_imports)
        limits = coverage.parse_limits(FLAGS.limits, trained.env.spec.observation_names)
        result = found[directory] = results.plain(coverage.measure(trained, limits))
        files.write(trained.directory / coverage.RESULT, json.dumps(result) + "\n")
        print(coverage.table(directory, result))
        if FLAGS.out:
            origin = runs.provenance(trained)
            commit = origin["versions"]["commit"]
            cases.append({"name": directory, "commit": commit} | origin)
    if FLAGS.out:
        command = shlex.join(["planil", "coverage", *sys.argv[1:]])
        asked = {"which": FLAGS.which, "limits": FLAGS.limits}
        outcomes = list(found.values())
        content = results.new("campaign", command, asked, cases=cases, outcomes=outcomes)
        print(results.write(FLAGS.out, content))
    if FLAGS.picture:
        from planil_jax.reporting import pictures  # here: without a picture none is needed

        pictures.coverage(FLAGS.picture, found)
        print(f"wrote {FLAGS.picture}")
