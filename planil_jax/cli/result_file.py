"""The flags of `evaluate` for a file of results, and the file that they ask for."""

import shlex
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import flags

from planil_jax import runs
from planil_jax.base import UsageError
from planil_jax.evaluation import learning, results
from planil_jax.training import files

FLAGS = flags.FLAGS


class Asked(NamedTuple):
    """What the flags say."""

    demonstrator: runs.Run | None
    bc: runs.Run | None
    tuning: learning.Tuning
    absent: dict[str, str]  # why values are not there


def define_flags() -> None:
    flags.DEFINE_string("out", "", "File of results to write, .json.")
    flags.DEFINE_string("demonstrator", "", "Run, or .npz, that demonstrated.")
    flags.DEFINE_string("bc", "", "Run of converged behavioural cloning, for --out.")
    flags.DEFINE_integer("tuning_trials", None, "Trials; 0: none.", lower_bound=0)
    flags.DEFINE_string("tuned", None, "What was tried in these trials.")
    flags.DEFINE_string("tuned_on", None, "Their seeds, starts and demonstrations.")
    flags.DEFINE_multi_string("absent", [], "Why a value is not there: bc:WHY.")


def read() -> Asked:
    """What the flags say; read before anything is evaluated.

    Raises:
      UsageError: a flag is wrong, names no run, or says what no file is written for.
    """
    if not FLAGS.out:
        for name in ("demonstrator", "bc", "tuning_trials", "tuned", "tuned_on", "absent"):
            if FLAGS[name].value not in ("", None, []):
                raise UsageError(f"--{name} is for a file of results: add --out.")
    elif not FLAGS.out.endswith(".json"):
        raise UsageError(f"{FLAGS.out}: a file of results (--out) must end in .json.")
    files.require_writable(FLAGS.out, "--out")
    demonstrator, bc = None, None
    if FLAGS.demonstrator:
        demonstrator = learning.load_demonstrator(FLAGS.demonstrator, FLAGS.trust_imports)
    if FLAGS.bc:
        bc = runs.load(FLAGS.bc, trust_imports=FLAGS.trust_imports)
    tuning = learning.Tuning(
        trials=FLAGS.tuning_trials, settings=FLAGS.tuned, on=FLAGS.tuned_on
    )
    return Asked(demonstrator, bc, tuning, results.absent(FLAGS.absent))


def write(trained: runs.Run, found: Mapping[str, Any], asked: Asked) -> str:
    """Evaluates the references, writes the file, and returns a sentence about it.

    Args:
      found: the evaluation of the run.
    """
    references = learning.references(
        trained.experiment.environment,
        found["in_distribution"]["episodes"],
        asked.demonstrator,
        asked.bc,
        scripted=learning.by_script(runs.demonstrations(trained)),
    )
    command = shlex.join(["planil", "evaluate", *sys.argv[1:]])
    content = learning.of_run(
        trained, found, command, references, asked.tuning, asked.absent
    )
    return results.write(FLAGS.out, content)
