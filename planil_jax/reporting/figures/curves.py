"""Figures over time: metrics during training, and observations in an episode."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from planil_jax.reporting.figures import style
from planil_jax.reporting.figures.style import Layout


class Panel(NamedTuple):
    """One panel of the learning curves."""

    title: str
    metrics: tuple[str, ...]  # solid, then dashed
    labels: tuple[str, ...] = ()  # of the metrics, where there are several
    log: bool = False
    level: float | None = None  # height of a reference line


PANELS = (
    Panel("Return in evaluation", ("eval/return",)),
    Panel("Task reward while collecting", ("train/reward",)),
    Panel("Discriminator: accuracy", ("discriminator/accuracy",), level=0.5),
    Panel(
        "Discriminator: logit",
        ("discriminator/expert_logit", "discriminator/learner_logit"),
        ("expert", "learner"),
        level=0.0,
    ),
    Panel(
        "Value: loss",
        ("value/loss", "value/replay_loss"),
        ("fresh rollout", "replay"),
        log=True,
    ),
    Panel("Planner: temperature", ("planner/temperature",), log=True),
    Panel("Discriminator: loss", ("discriminator/loss",)),
    Panel("Value: mean", ("value/mean",)),
    Panel("Value: loss on imagined steps", ("value/imagined_loss",)),
)


@style.styled
def learning_curves(
    metrics: Mapping[str, tuple[np.ndarray, np.ndarray]],
    members: Sequence[str],
    expert: tuple[str, float] | None = None,
    layout: Layout = style.WIDE,
) -> Figure:
    """Every metric against environment steps, one line a member; the return is widest.

    Args:
      metrics: name -> steps `[P]` and values `[P, S]`, which may be nan.
      members: `[S]`, the names of the lines.
      expert: whose return to compare with, and its value.
    """
    panels = [panel for panel in PANELS if set(panel.metrics) & set(metrics)]
    known = {name for panel in panels for name in panel.metrics}
    panels += [Panel(_title(name), (name,)) for name in metrics if name not in known]
    columns = layout.columns
    returns = panels[0].metrics == ("eval/return",)
    extra = int(returns and columns > 1)  # columns more that the return spans
    cells = len(panels) + extra
    rows = math.ceil(cells / columns)
    figure = _multiples(rows, layout)
    grid = figure.add_gridspec(rows, columns)
    named = len(members) > 1 or (returns and expert is not None)
    lines = _member_lines(members) if named else []
    for i, panel in enumerate(panels):
        cell = i + (extra if i else 0)
        place = grid[0, : 1 + extra] if i == 0 else grid[cell // columns, cell % columns]
        axes = figure.add_subplot(place)
        _curves(axes, panel, metrics)
        if cell + columns >= cells:
            axes.set_xlabel("environment steps")
        if i == 0 and returns and expert is not None:
            lines += _expert_lines(axes, *expert)
    _legend(figure, lines, layout)
    return figure


def _title(name: str) -> str:
    """ "Model: fresh error" for "model/fresh_error"."""
    part, _, what = name.replace("_", " ").rpartition("/")
    return f"{part.capitalize()}: {what}" if part else what


@style.styled
def comparison(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    flat: Mapping[str, float],
    expert: float | None,
) -> Figure:
    """Mean return of each method's seeds against interactions, on a logarithmic axis.

    Args:
      curves: method -> steps `[P]` and returns `[P, S]`; the band spans the seeds.
      flat: method -> return, of methods that never interact.
      expert: the expert's return; None: it is not drawn.
    """
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for i, (method, (steps, returns)) in enumerate(curves.items()):
        colour = style.seed_colour(i)
        known = np.ma.masked_invalid(returns)  # a member that stopped has none
        axes.plot(steps, known.mean(1), color=colour, label=method)
        axes.fill_between(
            steps, known.min(1), known.max(1), color=colour, alpha=0.15, linewidth=0
        )
    for method, value in flat.items():
        axes.axhline(value, color=style.MUTED, linestyle=style.DOTTED, label=method)
    if expert is not None:
        axes.axhline(expert, color=style.INK, linestyle=style.DASHED, label="expert")
    axes.set_xscale("log")
    axes.set(xlabel="environment steps", ylabel="return")
    axes.legend()
    return figure


@style.styled
def trajectories(
    names: Sequence[str],
    learner: np.ndarray,
    demonstrations: Sequence[np.ndarray],
    period: float,
    members: Sequence[str],
    layout: Layout = style.WIDE,
) -> Figure:
    """Every observation entry over time: the learner over the demonstrations.

    Args:
      names: `[O]`, of the entries.
      learner: `[S, B, L + 1, O]`, nan after an end.
      demonstrations: `[L + 1, O]` each, nan where an entry was not recorded.
      period: seconds between two observations.
      members: `[S]`, the names of the learner's lines.
    """
    columns = min(layout.columns, len(names))
    rows = math.ceil(len(names) / columns)
    figure = _multiples(rows, layout)
    for i, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.set(title=name, xlabel="time [s]" if i >= len(names) - columns else None)
        for s, episodes in enumerate(learner):
            colour = style.seed_colour(s)
            _over_time(axes, period, episodes[..., i].T, color=colour, alpha=0.45, lw=0.9)
        for episode in demonstrations:
            _over_time(axes, period, episode[:, i], color=style.INK, ls=style.DASHED)
    label = "demonstrations"
    dashed = Line2D([], [], color=style.INK, linestyle=style.DASHED, label=label)
    _legend(figure, [dashed, *_member_lines(members)], layout)
    return figure


@style.styled
def rewards(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """The recovered reward against the task's, one panel for each sort of steps.

    Args:
      pairs: title -> recovered rewards `[B]` and the task's `[B]`.
    """
    figure = Figure(figsize=(4.2 * len(pairs), 3.8), layout="constrained")
    for axes, (title, (recovered, task)) in zip(
        np.ravel(figure.subplots(1, len(pairs))), pairs.items(), strict=True
    ):
        axes.scatter(task, recovered, s=5, alpha=0.25, color=style.BLUE, linewidths=0)
        if min(np.ptp(recovered), np.ptp(task)) > 1e-9:
            title += f": r = {np.corrcoef(recovered, task)[0, 1]:.2f}"
        axes.set_title(title)
        axes.set_xlabel("task's reward")
        axes.set_ylabel("recovered reward")
    return figure


@style.styled
def world_model_lines(
    names: Sequence[str],
    lines: Mapping[str, np.ndarray],
    period: float,
    observed_steps: int,
    layout: Layout = style.WIDE,
) -> Figure:
    """Observation entries over time, as observed and as a world model predicts them.

    Args:
      names: `[O]`, of the entries. Their units are left out.
      lines: label -> `[T, O]` as the model reads them, normalised; the first is solid.
      period: seconds a step.
      observed_steps: steps that all the predictions read; a vertical line ends them.
    """
    columns = min(layout.columns, len(names))
    rows = math.ceil(len(names) / columns)
    figure = _multiples(rows, layout)
    dashes: tuple[Any, ...] = ("-", style.DOTTED, style.DASHED, (0, (6, 1, 1, 1)))
    styles: list[dict[str, Any]] = [
        {"color": style.INK if i == 0 else style.seed_colour(i - 1), "ls": dashes[i % 4]}
        for i in range(len(lines))
    ]
    last_read: dict[str, Any] = {"color": style.MUTED, "lw": 0.9, "ls": style.DOTTED}
    for entry, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, entry + 1)
        axes.set_title(name.partition(" [")[0])
        axes.set_xlabel("time [s]" if entry >= len(names) - columns else "")
        axes.axvline(period * (observed_steps - 1), **last_read)
        for values, how in zip(lines.values(), styles, strict=True):
            _over_time(axes, period, values[:, entry], **how)
    legend = [
        Line2D([], [], label=title, **how) for title, how in zip(lines, styles, strict=True)
    ]
    legend.append(Line2D([], [], label="last observation read", **last_read))
    _legend(figure, legend, layout)
    return figure


@style.styled
def gradient_norms(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Norms of policy gradients against the horizon, one line for each kind of model.

    Args:
      rows: "through" (the model), "horizon", "median" and "high" (the 95th percentile).
    """
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for index, way in enumerate(dict.fromkeys(row["through"] for row in rows)):
        of_way = [row for row in rows if row["through"] == way]
        horizons = [row["horizon"] for row in of_way]
        colour, dashes = style.seed_colour(index), ("-", style.DASHED)[index % 2]
        median, high = ([row[name] for row in of_way] for name in ("median", "high"))
        axes.plot(horizons, median, color=colour, linestyle=dashes, marker="o", label=way)
        axes.fill_between(horizons, median, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="horizon [steps]",
        ylabel="norm of the policy's gradient",
        title="median over starts, and the 95th percentile above it",
    )
    axes.legend(title="through")
    return figure


# --------------------------------------------------------------------------------- helpers


def _curves(
    axes: Axes, panel: Panel, metrics: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    """One panel of the learning curves."""
    dashes: tuple[Any, ...] = ("-", style.DASHED, style.DOTTED)
    drawn = [name for name in panel.metrics if name in metrics]
    for name, dash in zip(panel.metrics, dashes, strict=False):
        if name not in metrics:
            continue
        steps, values = metrics[name]
        marker = "o" if len(steps) <= 25 else None
        for i, line in enumerate(values.T):
            axes.plot(
                steps,
                line,
                color=style.seed_colour(i),
                linestyle=dash,
                marker=marker,
                ms=2.6,
            )
    axes.set_title(panel.title)
    finite = np.concatenate([metrics[name][1].ravel() for name in drawn])
    finite = finite[np.isfinite(finite)]
    if panel.log and finite.size and 0 < 10 * finite.min() < finite.max():
        axes.set_yscale("log")
    if panel.level is not None:
        axes.axhline(panel.level, color=style.MUTED, linewidth=0.8, linestyle=":")
    if len(drawn) > 1:
        lines = [
            Line2D([], [], color=style.MUTED, linestyle=dash, label=label)
            for label, dash in zip(panel.labels, dashes, strict=False)
        ]
        axes.legend(  # beside the title, where there are no curves
            handles=lines,
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=len(lines),
            fontsize=8.5,
            handlelength=1.5,
            handletextpad=0.4,
            columnspacing=0.9,
            borderaxespad=0.1,
        )
    axes.set_xlim(0, 1.02 * max(steps.max() for steps, _ in metrics.values()))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 30, 1.5k, 2M


def _expert_lines(axes: Axes, who: str, value: float) -> list[Line2D]:
    """The expert's return, and 95% of it where the return is positive; for the legend."""
    lines = [axes.axhline(value, color=style.INK, linewidth=0.9, zorder=1, label=who)]
    if value > 0:
        how: dict[str, Any] = {"color": style.INK, "lw": 0.9, "ls": style.DASHED}
        lines.append(axes.axhline(0.95 * value, zorder=1, label="95% of that", **how))
    axes.margins(y=0.12)
    return lines


def _over_time(axes: Axes, period: float, values: np.ndarray, **how: Any) -> None:
    """Values `[T]` or `[T, B]`."""
    axes.plot(period * np.arange(len(values)), values, **how)


def _multiples(rows: int, layout: Layout) -> Figure:
    """A figure for small multiples, with space between the rows."""
    engine = ConstrainedLayoutEngine(h_pad=0.1, hspace=0.04)
    height = 2.4 if layout.columns > 1 else 1.9
    return Figure(figsize=(layout.width, height * rows + 0.4), layout=engine)


def _member_lines(members: Sequence[str]) -> list[Line2D]:
    """A line of the legend for each member, or for each colour if there are fewer."""
    return [
        Line2D([], [], color=style.seed_colour(i), label=name)
        for i, name in enumerate(members[: len(style.SEED_COLOURS)])
    ]


def _legend(figure: Figure, lines: Sequence[Line2D], layout: Layout) -> None:
    """A legend above all panels, in as many columns as fit."""
    if lines:
        widths = [0.6 + 0.075 * len(str(line.get_label())) for line in lines]  # inches
        columns = max(1, int(layout.width / max(widths)))
        if sum(widths) <= layout.width:
            columns = len(lines)
        figure.legend(handles=lines, loc="outside upper left", ncols=columns)
