"""The figure of how far learners went from their demonstrations while they learned."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from planil_jax.reporting.figures import style

TITLES = {
    "distance": "Distance to the demonstrations [standard deviations]",
    "out_of_support": "Share of steps out of support",
}


@style.styled
def coverage(found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """The results of `evaluation.coverage` over steps: seeds thin, their mean thick.

    Args:
      found: results by run; each run has a colour.
    """
    names = dict.fromkeys(name for result in found.values() for name in result["parts"])
    panels = [name for name in names if "percentile" not in name]
    figure = Figure(figsize=(4.6 * len(panels), 3.6), layout="constrained")
    for axes, name in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
        for i, (run, result) in enumerate(found.items()):
            label, colour = f"{result['method']} ({run})", style.seed_colour(i)
            _lines(axes, result["steps"], result["parts"].get(name), colour, label)
        if name == "distance":
            _thresholds(axes, found)
        axes.set(title=TITLES.get(name, name), xlabel="environment steps", ylim=(0, None))
    figure.axes[0].legend()
    return figure


def _thresholds(axes: Axes, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Where "out_of_support" begins; one line for all runs on the same demonstrations."""
    thresholds = {result["threshold"] for result in found.values()} - {None}
    label = "between demonstrations, 99th percentile"
    for threshold in thresholds:
        axes.axhline(
            threshold, color=style.INK, linestyle=style.DASHED, lw=0.9, label=label
        )
        label = ""


def _lines(axes: Axes, steps: list[int], seeds: Any, colour: str, label: str) -> None:
    """Values `[S][PARTS]` over steps `[PARTS]`; None draws nothing."""
    if seeds is None or seeds[0][0] is None:
        return
    values = np.array(seeds, np.float64)
    axes.plot(steps, values.T, color=colour, lw=0.8, alpha=0.45)
    axes.plot(steps, values.mean(axis=0), color=colour, lw=2.2, label=label)
