"""Figures of where learners went while they learned."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from planil_jax.reporting.figures import style

TITLES = {
    "distance": "Distance to what was demonstrated [deviations]",
    "out_of_support": "Share farther than demonstrations from each other",
}


@style.styled
def visited(found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """What `experiments.coverage` found, over steps: each seed thin, their mean thick.

    Args:
      found: by run; a colour for each.
    """
    told_of = dict.fromkeys(name for told in found.values() for name in told["parts"])
    panels = [name for name in told_of if "percentile" not in name]
    figure = Figure(figsize=(4.6 * len(panels), 3.6), layout="constrained")
    for axes, name in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
        for i, (run, told) in enumerate(found.items()):
            label = f"{told['method']} ({run})"
            _lines(
                axes, told["steps"], told["parts"].get(name), style.seed_colour(i), label
            )
        if name == "distance":
            _far(axes, found)
        axes.set(title=TITLES.get(name, name), xlabel="environment steps", ylim=(0, None))
    figure.axes[0].legend()
    return figure


def _far(axes: Axes, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Where "out_of_support" begins; one line for runs that learned from the same."""
    known = {told["far"] for told in found.values() if told["far"] is not None}
    label = "demonstrations from each other, 99th percentile"
    for far in known:
        axes.axhline(far, color=style.INK, linestyle=style.DASHED, lw=0.9, label=label)
        label = ""


def _lines(axes: Axes, steps: list[int], seeds: Any, colour: str, label: str) -> None:
    """Values `[S][PARTS]` over steps `[PARTS]`; None: there is nothing to draw."""
    if seeds is None or seeds[0][0] is None:
        return
    values = np.array(seeds, np.float64)
    axes.plot(steps, values.T, color=colour, lw=0.8, alpha=0.45)
    axes.plot(steps, values.mean(axis=0), color=colour, lw=2.2, label=label)
