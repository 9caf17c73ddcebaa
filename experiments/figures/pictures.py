"""Figures of what was seen: frames over time."""

import numpy as np
from matplotlib.figure import Figure

from experiments.figures import style

_SIDE = 0.95  # inches of a frame


@style.styled
def strips(frames: np.ndarray, seconds: np.ndarray, first_seed: int) -> Figure:
    """Rows of frames `[1 + S, K, H, W, 3]`: a demonstration, and an episode of each seed.

    Args:
      seconds: `[K]`, when the frames were seen.
    """
    rows, columns = frames.shape[:2]
    size = (_SIDE * columns + 1.2, _SIDE * rows + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    labels = ["demonstration", *(f"seed {first_seed + n}" for n in range(rows - 1))]
    for label, strip, line in zip(labels, frames, axes, strict=True):
        for frame, ax in zip(strip, line, strict=True):
            ax.imshow(frame)
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for second, ax in zip(seconds, axes[0], strict=True):
        ax.set_title(f"{second:.1f} s")
    return figure
