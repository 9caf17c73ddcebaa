"""The figures of a report: functions from arrays to a matplotlib Figure."""

from planil_jax.reporting.figures.curves import (
    comparison,
    dream,
    gradient_norms,
    learning_curves,
    rewards,
    trajectories,
)
from planil_jax.reporting.figures.pictures import dream as dreamt_frames
from planil_jax.reporting.figures.pictures import strips
from planil_jax.reporting.figures.plane import field, landscape, plans_still, underlay
from planil_jax.reporting.figures.visits import visited

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
