"""The figures of a report: functions from arrays to a matplotlib Figure."""

from experiments.figures.curves import (
    comparison,
    dream,
    gradient_norms,
    learning_curves,
    rewards,
    trajectories,
)
from experiments.figures.pictures import dream as dreamt_frames
from experiments.figures.pictures import strips
from experiments.figures.plane import field, landscape, plans_still, underlay
from experiments.figures.visits import visited

__all__ = [
    "comparison",
    "dream",
    "dreamt_frames",
    "field",
    "gradient_norms",
    "landscape",
    "learning_curves",
    "plans_still",
    "rewards",
    "strips",
    "trajectories",
    "underlay",
    "visited",
]
