"""Figures of demonstrations: their paths, ranges, steps and likeness."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from planil_jax.reporting.figures import style
from planil_jax.reporting.figures.style import Layout

_PANELS = 24  # at most
_POINTS = 4000  # of a line's panel, at most, that are drawn as vectors


@style.styled
def paths(
    names: Sequence[str],
    episodes: Sequence[np.ndarray],
    period: float,
    bounds: tuple[Sequence[float], Sequence[float]] | None = None,
    layout: Layout = style.WIDE,
) -> Figure:
    """Each entry over time, a line an episode.

    Args:
      names: `[K]` of the entries; of more than 24 the first 24 are drawn.
      episodes: `[L, K]` each.
      period: seconds between rows.
      bounds: `[K]` lower and upper, drawn as dashed lines; None: there are none.
    """
    names = names[:_PANELS]
    columns = min(layout.columns, len(names))
    rows = math.ceil(len(names) / columns)
    height = 2.4 if layout.columns > 1 else 1.9
    figure = Figure(figsize=(layout.width, height * rows + 0.4), layout="constrained")
    faint = 0.9 if len(episodes) < 6 else 0.45
    many = sum(map(len, episodes)) > _POINTS  # as a vector drawing it would be large
    for i, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.set(title=name, xlabel="time [s]" if i >= len(names) - columns else None)
        for n, episode in enumerate(episodes):
            # A single row, such as a pair's action, is a point.
            marker = "." if len(episode) < 3 else ""
            axes.plot(
                period * np.arange(len(episode)),
                episode[:, i],
                color=style.seed_colour(n),
                alpha=faint,
                lw=0.9,
                marker=marker,
                rasterized=many,
            )
        for bound in (side[i] for side in bounds or ()):
            axes.axhline(bound, color=style.INK, lw=0.9, ls=style.DASHED)
    return figure


@style.styled
def steps(
    names: Sequence[str], episodes: Sequence[np.ndarray], layout: Layout = style.WIDE
) -> Figure:
    """The largest change between two rows, of each episode and entry, as a share of spread.

    A jump that stands out is a gap, a reset or a wrapped angle.

    Args:
      names: `[O]`.
      episodes: `[L + 1, O]` each.
    """
    together = np.concatenate(episodes)
    spread = np.maximum(together.max(0) - together.min(0), 1e-12)
    jumps = [np.abs(np.diff(episode, axis=0)).max(0) / spread for episode in episodes]
    return _grid(np.array(jumps).T, "episode", names, "largest step / range", layout)


@style.styled
def likeness(distances: np.ndarray, layout: Layout = style.WIDE) -> Figure:
    """How far apart episodes are, `[N, N]`; 0: they are the same."""
    count = len(distances)
    labels = [str(n) for n in range(count)]
    return _grid(distances, "episode", labels, "distance", layout)


def _grid(
    values: np.ndarray, xlabel: str, rows: Sequence[str], what: str, layout: Layout
) -> Figure:
    """A matrix `[R, N]` in colours, with a scale beside it."""
    height = min(6.0, 1.3 + 0.22 * len(values))
    figure = Figure(figsize=(min(layout.width, 6.4), height), layout="constrained")
    axes: Axes = figure.add_subplot()
    top = max(float(values.max(initial=0.0)), 1e-12)
    image = axes.imshow(values, aspect="auto", cmap=style.VALUE_COLOURS, vmin=0, vmax=top)
    axes.set(xlabel=xlabel)
    axes.grid(False)
    if len(rows) <= _PANELS:
        axes.set_yticks(range(len(rows)), rows)
    if values.size <= 100:
        for (row, column), value in np.ndenumerate(values):
            axes.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=7.5)
    figure.colorbar(image, ax=axes, label=what)
    return figure
