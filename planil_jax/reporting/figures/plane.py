"""Figures of the plane: maps, paths from a field of starts, and a drive with its plans.

Demonstrations are dark, the learner is vermilion, the goal green.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from planil_jax.reporting.figures import style
from planil_jax.reporting.figures.style import Layout
from planil_jax.reporting.views import Drive, Scene, square


@style.styled
def landscape(
    scene: Scene,
    x: np.ndarray,
    y: np.ndarray,
    values: np.ndarray,
    paths: np.ndarray,
    label: str,
    signed: bool,
    members: Sequence[str],
    layout: Layout = style.WIDE,
) -> Figure:
    """A learned function over the plane under the paths, one panel for each member.

    Args:
      values: `[S, G, G]`, rows along y.
      paths: `[S, B, T, 2]` of the learner, metres.
      signed: whether the colours diverge at zero.
      members: `[S]`, the titles of the panels.
    """
    figure, panels = _panels(members, scene.bounds, layout)
    low, high = np.nanpercentile(values, [1, 99.5])
    levels = MaxNLocator(20).tick_values(low, max(high, low + 1e-6))
    norm: Normalize = Normalize(low, high)
    if signed:
        norm = TwoSlopeNorm(0.0, min(low, -1e-3), max(high, 1e-3))
    for axes, surface, of_seed in zip(panels, values, paths, strict=True):
        filled = axes.contourf(
            x,
            y,
            surface,
            levels,
            cmap=style.REWARD_COLOURS if signed else style.VALUE_COLOURS,
            norm=norm,
            extend="both",
        )
        filled.set_rasterized(True)
        axes.contour(x, y, surface, levels[::2], colors="white", linewidths=0.5, alpha=0.7)
        _demonstrations(axes, scene, style.INK, alpha=0.85, linewidth=1.1)
        _lines(axes, of_seed, style.VERMILION, alpha=0.75, linewidth=1.0)
        _goal(axes, scene)
    beside = layout.columns > 1
    bar = figure.colorbar(
        filled,
        ax=panels,
        location="right" if beside else "bottom",
        shrink=0.8,
        aspect=30,
        pad=0.015,
        ticks=MaxNLocator(6 if beside else 4),
    )
    bar.set_label(label)
    bar.outline.set_visible(False)
    return figure


@style.styled
def field(
    scene: Scene,
    paths: np.ndarray,
    reached: np.ndarray,
    side: float,
    members: Sequence[str],
    layout: Layout = style.WIDE,
) -> Figure:
    """Starts all over a field, by whether the goal was reached; a panel for each member.

    Args:
      paths: `[S, B, T, 2]`, metres.
      reached: `[S, B]` bool.
      side: of the field, metres.
      members: `[S]`, for the titles of the panels.
    """
    half = 0.54 * side
    figure, panels = _panels(members, (-half, half, -half, half), layout)
    for axes, of_seed, arrived in zip(panels, paths, reached, strict=True):
        for success, colour, marker in (
            (True, style.BLUE, "o"),
            (False, style.VERMILION, "X"),
        ):
            chosen = of_seed[arrived == success]
            _lines(axes, chosen, colour, alpha=0.28, linewidth=0.7)
            axes.scatter(
                chosen[:, 0, 0],
                chosen[:, 0, 1],
                s=16 if success else 30,
                c=colour,
                marker=marker,
                linewidths=0.5,
                edgecolors="white",
                zorder=4,
            )
        _demonstrations(axes, scene, style.INK, alpha=0.9, linewidth=1.6)
        _goal(axes, scene)
    for axes, name, arrived in zip(panels, members, reached, strict=True):
        axes.set_title(f"{name}: {arrived.sum()} of {arrived.size} arrive")
    return figure


@style.styled
def plans_still(
    scene: Scene,
    drive: Drive,
    frames: Sequence[int] | None = None,
    layout: Layout = style.WIDE,
) -> Figure:
    """A drive with its sampled plans: the whole of it, and up to four steps from near.

    Args:
      frames: up to four control steps; None: four, spread over the way to the goal.
    """
    chosen = list(frames or _moments(scene, drive, 4))
    beside = layout.columns > 1  # the whole, or else above the four
    height = 0.51 * layout.width if beside else 2.1 * layout.width
    figure = Figure(figsize=(layout.width, height), layout="constrained")
    grid = figure.add_gridspec(*((2, 4) if beside else (4, 2)))
    row, column = (0, 2) if beside else (2, 0)  # where the four begin
    whole = figure.add_subplot(grid[:2, :2])
    near = [
        figure.add_subplot(grid[row + i // 2, column + i % 2]) for i in range(len(chosen))
    ]
    for axes in (whole, *near):
        _bare(axes)
        _demonstrations(axes, scene, style.MUTED, alpha=0.45, linewidth=1.0)
        _goal(axes, scene)
    left, right, bottom, top = square(
        np.concatenate([drive.path, *scene.demonstrations]), margin=0.1
    )
    whole.set(xlim=(left, right), ylim=(bottom, top), xlabel="x [m]", ylabel="y [m]")
    whole.plot(*drive.path.T, color=style.BLUE, linewidth=1.4, zorder=2)
    for number, (t, axes) in enumerate(zip(chosen, near, strict=False), 1):
        _plans(whole, drive, t, number=number)
        axes.plot(*drive.path[: t + 1].T, color=style.BLUE, linewidth=2.0, zorder=2)
        _plans(axes, drive, t, number=None)
        middle = drive.mean[t].mean(axis=0)
        half = 0.62 * max(np.ptp(drive.plans[t].reshape(-1, 2), axis=0).max(), 1.0)
        axes.set(
            xlim=(middle[0] - half, middle[0] + half),
            ylim=(middle[1] - half, middle[1] + half),
            xticks=[],
            yticks=[],
            title=f"{number} · step {t}",
        )
        axes.spines[:].set_visible(True)
    return figure


def underlay(value: np.ndarray) -> np.ndarray:
    """A map `[G, G]` of the value as a pale image `[G, G, 4]` in [0, 1], y upwards."""
    low, high = np.nanpercentile(value, [1, 99.5])
    share = np.clip((value - low) / max(high - low, 1e-6), 0, 1)
    return 0.45 * style.VALUE_COLOURS(share[::-1]) + 0.55


# --------------------------------------------------------------------------------- helpers


def _panels(
    titles: Sequence[str], bounds: tuple[float, float, float, float], layout: Layout
) -> tuple[Figure, list[Axes]]:
    """A figure of square maps, one for each title."""
    count = len(titles)
    columns = min(2 if count == 4 else count, layout.columns)
    rows = math.ceil(count / columns)
    width = layout.width if columns > 1 else min(layout.width, 6.4)
    beside = 1.1 if layout.columns > 1 else 0.8  # the scales, inches
    height = rows * ((width - beside) / columns + 0.7)
    figure = Figure(figsize=(width, height), layout="compressed")
    panels = []
    for i, title in enumerate(titles):
        axes = figure.add_subplot(rows, columns, i + 1)
        _bare(axes)
        axes.set(xlim=bounds[:2], ylim=bounds[2:], title=title)
        axes.set_xlabel("x [m]" if i >= count - columns else "")
        axes.set_ylabel("y [m]" if i % columns == 0 else "")
        panels.append(axes)
    return figure, panels


def _bare(axes: Axes) -> None:
    axes.set_aspect("equal")
    axes.tick_params(length=2.5)
    axes.spines[:].set_visible(False)


def _demonstrations(axes: Axes, scene: Scene, colour: str, **how: float) -> None:
    lines = LineCollection(scene.demonstrations, colors=colour, zorder=3, **how)
    axes.add_collection(lines, autolim=False)


def _lines(axes: Axes, paths: np.ndarray, colour: str, **how: float) -> None:
    """Paths `[B, T, 2]`."""
    lines = LineCollection(list(paths), colors=colour, zorder=2.5, **how)
    lines.set_rasterized(True)
    axes.add_collection(lines, autolim=False)


def _goal(axes: Axes, scene: Scene) -> None:
    if scene.goal is not None:
        x, y, radius = scene.goal
        axes.add_patch(Circle((x, y), radius, fill=False, ec=style.GREEN, lw=1.8, zorder=5))
        axes.plot(
            x, y, "P", color=style.GREEN, markersize=5, markeredgecolor="white", zorder=5
        )


def _plans(axes: Axes, drive: Drive, t: int, number: int | None) -> None:
    """The plans of step t by weight, their mean, and the car."""
    share = drive.weights[t] / drive.weights[t].max()
    order = np.argsort(share)
    alphas = 0.2 + 0.75 * share[order] ** 0.4
    lines = LineCollection(
        list(drive.plans[t][order]),
        colors=style.VERMILION,
        alpha=alphas,
        linewidths=0.8,
        zorder=4,
    )
    axes.add_collection(lines, autolim=False)
    axes.plot(*drive.mean[t].T, color=style.INK, linewidth=2.2, zorder=6)
    x, y = drive.path[t]
    axes.plot(x, y, "o", color=style.BLUE, markeredgecolor="white", markersize=7, zorder=7)
    if number is not None:
        axes.annotate(
            str(number),
            (x, y),
            (-9, 7),
            textcoords="offset points",
            ha="center",
            fontweight="bold",
            path_effects=style.HALO,
            zorder=8,
        )


def _moments(scene: Scene, drive: Drive, count: int) -> list[int]:
    """Control steps spread over the way to the goal, or over all of the drive."""
    last = len(drive.plans) - 1
    if scene.goal is not None:
        x, y, radius = scene.goal
        at_goal = np.hypot(*(drive.path[:-1] - (x, y)).T) < radius
        last = int(np.argmax(at_goal)) if at_goal.any() else last
    return np.linspace(0.1 * last, 0.9 * last, count).round().astype(int).tolist()
