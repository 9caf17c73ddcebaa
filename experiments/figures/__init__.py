"""The figures of a report: functions from arrays to a matplotlib Figure."""

from experiments.figures.curves import (
    comparison,
    gradient_norms,
    learning_curves,
    rewards,
    trajectories,
)
from experiments.figures.pictures import strips
from experiments.figures.plane import field, landscape, plans_still, underlay

__all__ = [
    "comparison",
    "field",
    "gradient_norms",
    "landscape",
    "learning_curves",
    "plans_still",
    "rewards",
    "strips",
    "trajectories",
    "underlay",
]
