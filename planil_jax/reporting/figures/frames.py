"""Figures of pictures: frames over time."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from planil_jax.reporting.figures import style
from planil_jax.reporting.figures.style import Layout


@style.styled
def frame_strips(
    frames: np.ndarray,
    seconds: np.ndarray,
    members: Sequence[str],
    layout: Layout = style.WIDE,
) -> Figure:
    """Rows of frames `[1 + S, K, H, W, 3]`: a demonstration, and an episode of each member.

    Args:
      seconds: `[K]`, the times of the frames.
      members: `[S]`, their names.
    """
    return _rows(["demonstration", *members], frames, seconds, layout)


@style.styled
def world_model_frames(
    rows: Mapping[str, np.ndarray], seconds: np.ndarray, layout: Layout = style.WIDE
) -> Figure:
    """Frames `[K, H, W, 3]` as observed and as a world model predicts them, by name."""
    return _rows(list(rows), np.stack(list(rows.values())), seconds, layout)


def _rows(
    labels: Sequence[str], frames: np.ndarray, seconds: np.ndarray, layout: Layout
) -> Figure:
    """As many of the frames as fit side by side, spread over all of them."""
    beside = layout.columns > 1  # the labels, or else above their rows
    count = min(frames.shape[1], layout.frames)
    shown = np.linspace(0, frames.shape[1] - 1, count).round().astype(int)
    side = (layout.width - 1.2 * beside) / layout.frames  # of a frame, inches
    size = (layout.width, (side + 0.25 * (not beside)) * len(frames) + 0.35)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(frames), count, squeeze=False)
    for label, strip, line in zip(labels, frames[:, shown], axes, strict=True):
        for frame, ax in zip(strip, line, strict=True):
            ax.imshow(frame)
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
        if beside:
            line[0].set_ylabel(label, rotation=0, ha="right", va="center")
        else:
            line[0].set_title(label, pad=4)
    for second, ax in zip(seconds[shown], axes[-1], strict=True):
        ax.set_xlabel(f"{second:.1f} s")
    return figure
