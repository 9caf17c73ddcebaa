"""Films an episode of a run, or of a scripted expert, drawn by MuJoCo's renderer.

    planil film --env=kitchen --out=kitchen.gif --camera=front --size=240

With --run, the first seed of a training acts. For environments that are MuJoCo models. It
needs OpenGL, of the platform that MUJOCO_GL names, or else EGL. An .mp4 needs the extra
"video".
"""

import sys

from absl import flags

from planil_jax import runs
from planil_jax.base import UsageError
from planil_jax.envs import scenes
from planil_jax.evaluation import expert_policies
from planil_jax.reporting import film
from planil_jax.training import files

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this command; not on import, as others import this module."""
    flags.DEFINE_string("run", None, "The --logdir of a training whose first seed acts.")
    flags.DEFINE_string("which", "last", "Checkpoint: last, best, or a step.")
    flags.DEFINE_string("env", None, "Environment to act in; or that of --run.")
    flags.DEFINE_string(
        "out", None, "Film to write, such as nav.gif or nav.mp4.", required=True
    )
    flags.DEFINE_string("camera", "", "A camera of the model; empty: the first.")
    flags.DEFINE_integer("size", 240, "Pixels along a side.", lower_bound=1)
    flags.DEFINE_integer("episode", 0, "Which episode of evaluation.", lower_bound=0)


def main() -> None:
    film.require_format(FLAGS.out)
    files.require_writable(FLAGS.out, "--out")
    if FLAGS.run:
        trained = runs.load(FLAGS.run, FLAGS.which, trust_imports=FLAGS.trust_imports)
        expert = expert_policies.from_run(trained, FLAGS.env)
    elif FLAGS.env:
        environment = expert_policies.without_pixels(FLAGS.env)
        expert = expert_policies.scripted_expert(environment)
    else:
        raise UsageError("give --run, for a trained policy, or --env, for a scripted one.")
    view = scenes.View(height=FLAGS.size, width=FLAGS.size, camera=FLAGS.camera)
    spec = expert.env.spec
    print(f"filming an episode of {spec.name} …", file=sys.stderr)
    frames, seconds = film.film(expert, view, FLAGS.episode)
    film.save(FLAGS.out, frames, spec.control_period)
    print(f"wrote {FLAGS.out}: {len(frames)} steps, {seconds:.1f} s, by {expert.name}")
