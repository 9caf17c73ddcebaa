"""Films of an episode, drawn by MuJoCo's renderer; for environments that are MuJoCo models.

Frames need OpenGL. A .gif needs Pillow, which comes with the extra "report"; an .mp4 needs
the extra "video".
"""

import importlib.util
import io
from pathlib import Path

import jax
import numpy as np

from planil_jax.base import UsageError, missing_extra
from planil_jax.envs import mujoco_renderer, scenes
from planil_jax.evaluation import expert_policies
from planil_jax.training import files, run

FORMATS = (".gif", ".mp4")
_RATE = 30.0  # frames a second, at most


def film(
    expert: expert_policies.ExpertPolicy, view: scenes.View, episode: int = 0
) -> tuple[np.ndarray, float]:
    """An episode of evaluation as frames, and its duration.

    Args:
      episode: its number among the episodes of evaluation, from 0.

    Returns:
      Frames uint8 `[L + 1, H, W, 3]`, and seconds.

    Raises:
      UsageError: the environment is no MuJoCo model, or has no such camera.
      UserError: there is no OpenGL here.
    """
    spec = expert.env.spec
    render_spec = mujoco_renderer.render_spec(spec.name, view)
    mujoco_renderer.require_opengl(render_spec)
    keys = jax.random.split(jax.random.key(run.EVALUATION_SEED), episode + 1)
    steps, alive = expert_policies.rollout(expert, keys[-1:], render_spec)
    length = int(np.sum(alive))
    positions = np.concatenate([steps.obs[0, :1], steps.next_obs[0, :length]])
    (frames,) = mujoco_renderer.draw(render_spec, [positions])
    return frames, length * spec.control_period


def save(path: str, frames: np.ndarray, period: float) -> None:
    """Writes a film that takes as long as the episode took.

    Args:
      path: ends in one of FORMATS.
      frames: uint8 `[T, H, W, 3]`; a film shows 30 a second at most.
      period: seconds between two frames.

    Raises:
      UsageError: the path has another ending.
      UserError: the extra that writes such films is not installed.
    """
    require_format(path)
    stride = max(1, round(1 / (_RATE * period)))
    chosen, seconds = frames[::stride], stride * period
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(path, chosen, seconds)
    except OSError as error:  # of a full disk these writers do not say which file it was
        raise OSError(error.errno, error.strerror or str(error), path) from error


def _write(path: str, frames: np.ndarray, seconds: float) -> None:
    if path.endswith(".mp4"):
        import imageio.v3

        imageio.v3.imwrite(path, frames, fps=1 / seconds, macro_block_size=2)
        return
    from PIL import Image

    drawn = io.BytesIO()
    first, *others = [Image.fromarray(frame) for frame in frames]
    options = {"append_images": others, "duration": 1000 * seconds, "loop": 0}
    first.save(drawn, format="gif", save_all=True, **options)
    files.write(Path(path), drawn.getvalue())


def require_format(path: str) -> None:
    """Refuses a film that cannot be written here.

    Raises:
      UsageError: the path has another ending than FORMATS.
      UserError: the extra that writes such films is not installed.
    """
    if not path.endswith(FORMATS):
        raise UsageError(f"{path}: a film (--out) must end in {' or '.join(FORMATS)}.")
    if path.endswith(".mp4") and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise missing_extra("writing an .mp4", "imageio with ffmpeg", "video")
    if path.endswith(".gif") and importlib.util.find_spec("PIL") is None:
        raise missing_extra("writing a .gif", "Pillow", "report")
