"""Prints what a file holds: demonstrations or an expert (.npz), or results (.json).

    planil inspect demos/navigation.npz
    planil inspect demos/navigation.npz --html=demos.html --replay
    planil inspect experiments/experts/pendulum.npz
    planil inspect results/navigation/mpail_200k.json

Of demonstrations it prints the card, the episodes and the range of each entry; of an expert
the card and its weights' shapes; of results the command, the commit and the figures, and
why they may not lie in results/. Of demonstrations, --html draws trajectories, ranges,
steps, actions against their bounds, and how alike the episodes are. --replay tells what
their actions return from other starts, whatever is observed.
"""

from pathlib import Path

from absl import flags

from planil_jax import registry
from planil_jax.base import UsageError
from planil_jax.data import demos, expert_file
from planil_jax.data.dataset import Demos
from planil_jax.evaluation import blind_replay, results
from planil_jax.precision import require_float32
from planil_jax.reporting import demo_page

FLAGS = flags.FLAGS
COMPUTE = False
POSITIONAL = "demos"


def define_flags() -> None:
    flags.DEFINE_string("demos", None, "File, .npz or .json; or as an argument.")
    flags.DEFINE_string("html", None, "Page of demonstrations to write, such as d.html.")
    flags.DEFINE_bool("replay", False, "Replay the actions of demonstrations blindly.")
    flags.DEFINE_string("env", None, "Where they are replayed; else as their card says.")


def main() -> None:
    if FLAGS.demos is None:
        raise UsageError(f"--demos is required: {FLAGS['demos'].help}")
    of_demos = not FLAGS.demos.endswith(".json") and not expert_file.is_one(FLAGS.demos)
    if not of_demos and (FLAGS.html or FLAGS.replay):
        raise UsageError(
            f"--html and --replay are of demonstrations, not of {FLAGS.demos}."
        )
    if FLAGS.demos.endswith(".json"):
        print(results.describe(FLAGS.demos))
    elif not of_demos:
        print(expert_file.describe(FLAGS.demos))
    else:
        print(demos.describe(FLAGS.demos))
        replayed = _replay() if FLAGS.replay else ""
        if replayed:
            print(f"\n{replayed}")
        if FLAGS.html:
            args = Demos.load(FLAGS.demos), FLAGS.html, Path(FLAGS.demos).name, replayed
            print(f"wrote {demo_page.write(*args)}; open it in a browser")


def _replay() -> str:
    require_float32()
    held = Demos.load(FLAGS.demos)
    env = registry.make_env(FLAGS.env or held.card.environment)
    return str(blind_replay.blind_replay(held, env, demos.load(FLAGS.demos, env.spec)))
