"""Figures of pictures: frames over time."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from planil_jax.reporting.figures import style

_SIDE = 0.95  # of a frame, inches


@style.styled
def frame_strips(frames: np.ndarray, seconds: np.ndarray, first_seed: int) -> Figure:
    """Rows of frames `[1 + S, K, H, W, 3]`: a demonstration, and an episode of each seed.

    Args:
      seconds: `[K]`, the times of the frames.
    """
    labels = ["demonstration", *(f"seed {first_seed + n}" for n in range(len(frames) - 1))]
    return _rows(labels, frames, seconds)


@style.styled
def world_model_frames(rows: Mapping[str, np.ndarray], seconds: np.ndarray) -> Figure:
    """Frames `[K, H, W, 3]` as observed and as a world model predicts them, by name."""
    return _rows(list(rows), np.stack(list(rows.values())), seconds)


def _rows(labels: Sequence[str], frames: np.ndarray, seconds: np.ndarray) -> Figure:
    rows, columns = frames.shape[:2]
    size = (_SIDE * columns + 1.2, _SIDE * rows + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for label, strip, line in zip(labels, frames, axes, strict=True):
        for frame, ax in zip(strip, line, strict=True):
            ax.imshow(frame)
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for second, ax in zip(seconds, axes[0], strict=True):
        ax.set_title(f"{second:.1f} s")
    return figure
