"""Records demonstrations of an environment's scripted expert, or of a trained run.

    planil collect --env=navigation --out=demos/navigation.npz --episodes=4

With --run, the first seed of a training acts, in --env or where it was trained:

    planil collect --run=runs/expert --env=pendulum:pixels=64 --actions \\
        --out=demos/pendulum_pixels.npz

It may then read the state behind the pictures. With --renderer=mujoco MuJoCo's own renderer
draws them, with meshes and shadows. An expert no better than random actions is refused.
"""

from absl import flags

from planil_jax import runs
from planil_jax.base import UsageError
from planil_jax.evaluation import collect
from planil_jax.training.report import Report

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this command; not on import, as others import this module."""
    flags.DEFINE_string("env", None, "Environment to demonstrate; or that of --run.")
    flags.DEFINE_string("run", None, "The --logdir of a training whose first seed acts.")
    flags.DEFINE_string("which", "last", "Checkpoint of --run: last, best, or a step.")
    flags.DEFINE_string("out", None, "File to write, such as demos.npz.", required=True)
    flags.DEFINE_integer("episodes", 4, "Episodes to record.", lower_bound=1)
    flags.DEFINE_integer("seed", 1, "Seed of starts and of the expert's sampling.")
    flags.DEFINE_bool("actions", False, "Write actions too, not observations only.")
    flags.DEFINE_list("observed", [], "Observation entries to write: 0,1,4; empty: all.")
    flags.DEFINE_bool("unlearned", False, "Accept an expert no better than random.")
    flags.DEFINE_enum(
        "renderer", collect.RAY_CASTER, collect.RENDERERS, "What draws pictures."
    )


def main() -> None:
    if FLAGS.env is None and FLAGS.run is None:
        raise UsageError("give --env, for a scripted expert, or --run, for a trained one.")
    if FLAGS.run is None and FLAGS.which != "last":
        raise UsageError(f"--which={FLAGS.which} is of a --run, and there is none.")
    if not all(entry.isdigit() for entry in FLAGS.observed):
        text = ",".join(FLAGS.observed)
        raise UsageError(f"--observed={text}: must be whole numbers from 0 on.")
    args = (FLAGS.out, FLAGS.episodes, FLAGS.seed, FLAGS.actions)
    options = {"unlearned": FLAGS.unlearned, "renderer": FLAGS.renderer}
    options |= {"observed": tuple(map(int, FLAGS.observed)), "report": Report()}
    if FLAGS.run:
        trained = runs.load(FLAGS.run, FLAGS.which, trust_imports=FLAGS.trust_imports)
        collect.from_run(trained, *args, FLAGS.env, **options)
    else:
        collect.collect(FLAGS.env, *args, **options)
    print(f"wrote {collect.summary(FLAGS.out)}")
