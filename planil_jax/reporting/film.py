"""Films an episode, drawn by MuJoCo's renderer: of a run, or of a scripted expert.

    python -m experiments.film --run=runs/hopper --out=hopper.gif
    python -m experiments.film --env=kitchen --out=kitchen.gif --camera=front --size=240

For environments that are MuJoCo models. Needs OpenGL, of the platform that MUJOCO_GL names,
or else EGL; an .mp4 needs the extra "video".
"""

from pathlib import Path

import jax
import numpy as np
from absl import flags
from PIL import Image

from planil_jax import runs
from planil_jax.base import UsageError
from planil_jax.envs import scenes
from planil_jax.evaluation import expert_policies
from planil_jax.reporting import renderer
from planil_jax.training import run

FLAGS = flags.FLAGS

FORMATS = (".gif", ".mp4")
_RATE = 30.0  # frames a second, at most


def define_flags() -> None:
    """Not on import: other binaries import this one."""
    flags.DEFINE_string("run", None, "The --logdir of a training whose first seed drives.")
    flags.DEFINE_string("which", "last", "Checkpoint: last, best, or a step.")
    flags.DEFINE_string("env", None, "Environment to drive in; or that of --run.")
    flags.DEFINE_string("out", None, "Film to write, .gif or .mp4.", required=True)
    flags.DEFINE_string("camera", "", "A camera of the model; empty: the first.")
    flags.DEFINE_integer("size", 240, "Pixels along a side.", lower_bound=1)
    flags.DEFINE_integer("episode", 0, "Which episode of evaluation.", lower_bound=0)


def main() -> None:
    _require_format(FLAGS.out)
    if FLAGS.run:
        driver = expert_policies.first_member(runs.load(FLAGS.run, FLAGS.which), FLAGS.env)
    elif FLAGS.env:
        driver = expert_policies.scripted(expert_policies.unseen(FLAGS.env))
    else:
        raise UsageError("give --run, for a trained driver, or --env, for a scripted one.")
    view = scenes.View(height=FLAGS.size, width=FLAGS.size, camera=FLAGS.camera)
    frames, seconds = filmed(driver, view, FLAGS.episode)
    save(FLAGS.out, frames, driver.env.spec.control_period)
    print(f"wrote {FLAGS.out}: {len(frames)} steps, {seconds:.1f} s, by {driver.name}")


def filmed(
    driver: expert_policies.Driver, view: scenes.View, episode: int = 0
) -> tuple[np.ndarray, float]:
    """Frames uint8 `[L + 1, H, W, 3]` of an episode of evaluation, and how long it took.

    Raises:
      UserError: the environment is no MuJoCo model, or there is no OpenGL here.
    """
    spec = driver.env.spec
    sight = renderer.sight(spec.name, view)
    renderer.require(sight)
    print(f"compiling and driving an episode of {spec.name} …", flush=True)
    keys = jax.random.split(jax.random.key(run.EVALUATION_SEED), episode + 1)
    told, alive = expert_policies.drive(driver, keys[-1:], sight)
    length = int(np.sum(alive))
    positions = np.concatenate([told.obs[0, :1], told.next_obs[0, :length]])
    (frames,) = renderer.draw(sight, [positions])
    return frames, length * spec.control_period


def save(path: str, frames: np.ndarray, period: float) -> None:
    """Writes a film that takes as long as the episode took.

    Args:
      frames: uint8 `[T, H, W, 3]`; above 30 a second some are left out.
      period: seconds between two of them.

    Raises:
      UsageError: the path ends otherwise than in one of FORMATS, or is an .mp4 and the
        extra "video" is missing.
    """
    _require_format(path)
    stride = max(1, round(1 / (_RATE * period)))
    shown, lasting = frames[::stride], stride * period
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if path.endswith(".mp4"):
        import imageio.v3

        imageio.v3.imwrite(path, shown, fps=1 / lasting, macro_block_size=2)
        return
    first, *others = [Image.fromarray(frame) for frame in shown]
    first.save(path, save_all=True, append_images=others, duration=1000 * lasting, loop=0)


def _require_format(path: str) -> None:
    if not path.endswith(FORMATS):
        raise UsageError(f"--out={path} must end in {' or '.join(FORMATS)}.")
    if path.endswith(".mp4"):
        try:
            import imageio_ffmpeg  # noqa: F401  says whether the extra is there
        except ImportError:
            raise UsageError(
                f"--out={path} needs the extra that writes films: pip install "
                "'planil_jax[video]'; or write a .gif."
            ) from None
