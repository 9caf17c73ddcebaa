"""How figures look: colours, line styles, and the settings of matplotlib.

Hue never carries information alone.
Colours: Okabe & Ito 2008, Color Universal Design.
"""

from typing import Any, NamedTuple

import matplotlib
from matplotlib import patheffects
from matplotlib.colors import LinearSegmentedColormap

SEED_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"),
    *("#56B4E9", "#332288", "#882255", "#999933", "#8C6D31"),
)
BLUE, VERMILION, GREEN = SEED_COLOURS[:3]
INK, MUTED = "#1b1f24", "#667080"

VALUE_COLOURS = LinearSegmentedColormap.from_list(
    "value", ["#fdfdfe", "#e2ecf4", "#bcd5e8", "#8fbbdb", "#5f9fcc"]
)
REWARD_COLOURS = LinearSegmentedColormap.from_list(
    "reward", ["#cf7a3c", "#ecc4a4", "#fafafa", "#a9cbe3", "#3d86b8"]
)
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#aab1bb",
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.titlesize": 10.5,
    "figure.facecolor": "white",
    "font.size": 9.5,
    "grid.color": "#edf0f3",
    "grid.linewidth": 0.7,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "planil_jax",
    "text.color": INK,
    "xtick.color": "#aab1bb",
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.color": "#aab1bb",
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": 8.5,
}
styled = matplotlib.rc_context(STYLE)
DASHED, DOTTED = (0, (4, 2)), (0, (1, 1.5))
HALO = [patheffects.withStroke(linewidth=3.0, foreground="white")]


class Layout(NamedTuple):
    """The sheet that a figure is drawn on; letters are as large on each."""

    width: float  # inches
    columns: int  # of panels, at most
    frames: int  # in a row of pictures, at most


WIDE = Layout(width=10.4, columns=3, frames=10)
NARROW = Layout(width=3.75, columns=1, frames=4)  # a phone


def seed_colour(index: int) -> str:
    """The colour of the i-th member of a run; colours repeat."""
    return SEED_COLOURS[index % len(SEED_COLOURS)]
