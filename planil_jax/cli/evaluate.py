"""Evaluates a run: beside its expert from the same starts, and out of distribution.

    planil evaluate --run=runs/nav --field=40
    planil evaluate --run=runs/nav --bc=runs/nav_bc --tuning_trials=0 --out=nav.json

Writes evaluation.json, which the report shows, into the run's directory. With --out it
also evaluates random actions, the demonstrator and BC, and writes a file of results.
"""

import sys

from absl import flags

from planil_jax import runs
from planil_jax.base import UsageError
from planil_jax.cli import result_file
from planil_jax.evaluation import evaluate, rewards

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this command; not on import, as others import this module."""
    flags.DEFINE_string(
        "run", None, "The --logdir of a training, such as runs/nav.", required=True
    )
    flags.DEFINE_string("which", "last", "Checkpoint: last, best, or a step.")
    flags.DEFINE_string("env", "", "Another environment of the same kind to evaluate in.")
    flags.DEFINE_multi_string("set", [], "Another setting: agent.planning.enabled=False.")
    flags.DEFINE_integer("episodes", 64, "Episodes in distribution.", lower_bound=1)
    flags.DEFINE_list("field", [], "Sides of fields of starts, metres: 40 or 40,80.")
    flags.DEFINE_integer("starts", 128, "Starts on each field.", lower_bound=1)
    flags.DEFINE_bool("rewards", False, "Correlate the recovered reward with the task's.")
    result_file.define_flags()
    flags.adopt_module_key_flags(result_file)


def main() -> None:
    fields, override = _sides(FLAGS.field), ",".join(FLAGS.set)
    asked = result_file.read()
    trained = runs.load(FLAGS.run, FLAGS.which, override, trust_imports=FLAGS.trust_imports)
    trained = evaluate.in_env(trained, FLAGS.env) if FLAGS.env else trained
    print(f"evaluating {FLAGS.run} at step {trained.step} …", file=sys.stderr)
    found = evaluate.evaluate(trained, FLAGS.episodes, fields, FLAGS.starts)
    print(evaluate.table(found))
    if FLAGS.rewards:
        from planil_jax.reporting import pictures  # here: other evaluations draw nothing

        found["rewards"], pairs = rewards.compare(trained, FLAGS.episodes)
        print(rewards.table(found["rewards"]))
        if evaluate.is_kept(trained):
            evaluate.save(trained, found)
            print(f"wrote {pictures.rewards(trained.directory, pairs)}")
    if FLAGS.out:
        print("evaluating the references …", file=sys.stderr)
        print(result_file.write(trained, found, asked))


def _sides(texts: list[str]) -> list[float]:
    try:
        return [float(text) for text in texts]
    except ValueError:
        text = f"--field={','.join(texts)}: must be metres, such as 40 or 40,80."
        raise UsageError(text) from None
