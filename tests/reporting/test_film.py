"""Films; tests/envs/test_mujoco_renderer.py films an episode, where there is OpenGL."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from planil_jax.base import UsageError, UserError
from planil_jax.reporting import film


def test_a_film_takes_as_long_as_its_episode(tmp_path):
    path = str(tmp_path / "new" / "film.gif")
    frames = np.arange(10, dtype=np.uint8)[:, None, None, None] * 20
    film.save(path, np.broadcast_to(frames, (10, 8, 8, 3)), period=0.02)
    with Image.open(path) as saved:  # every second of 50 frames a second is saved
        assert (saved.n_frames, saved.size, saved.info["duration"]) == (5, (8, 8), 40)
        saved.seek(3)
        np.testing.assert_array_equal(np.asarray(saved.convert("RGB")), 6 * 20)


def test_a_film_of_another_format_is_refused(tmp_path):
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(UsageError, match="must end in .gif or .mp4"):
        film.save(str(tmp_path / "film.avi"), frames, 0.1)


@pytest.mark.parametrize(
    ("ending", "module", "extra"),
    [("mp4", "imageio_ffmpeg", "video"), ("gif", "PIL", "report")],
)
def test_a_film_whose_extra_is_missing_names_the_pip_line(
    tmp_path, monkeypatch, ending, module, extra
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )
    with pytest.raises(UserError, match=rf'pip install "planil_jax\[{extra}\]"'):
        film.save(str(tmp_path / f"film.{ending}"), np.zeros((2, 8, 8, 3), np.uint8), 0.1)
    assert list(tmp_path.iterdir()) == []
