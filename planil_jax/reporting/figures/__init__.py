"""The figures of a report: functions from arrays to a matplotlib Figure."""

from planil_jax.base import missing_extra

try:
    import matplotlib  # noqa: F401  says whether the extra is installed
except ModuleNotFoundError as error:
    raise missing_extra("drawing figures", "matplotlib", "report") from error

from planil_jax.reporting.figures.coverage import coverage
from planil_jax.reporting.figures.curves import (
    comparison,
    gradient_norms,
    learning_curves,
    rewards,
    trajectories,
    world_model_lines,
)
from planil_jax.reporting.figures.demonstrations import likeness as demonstration_likeness
from planil_jax.reporting.figures.demonstrations import paths as demonstration_paths
from planil_jax.reporting.figures.demonstrations import steps as demonstration_steps
from planil_jax.reporting.figures.frames import frame_strips, world_model_frames
from planil_jax.reporting.figures.plane import field, landscape, plans_still, underlay
from planil_jax.reporting.figures.style import NARROW, WIDE, Layout

__all__ = [
    "NARROW",
    "WIDE",
    "Layout",
    "comparison",
    "coverage",
    "demonstration_likeness",
    "demonstration_paths",
    "demonstration_steps",
    "field",
    "frame_strips",
    "gradient_norms",
    "landscape",
    "learning_curves",
    "plans_still",
    "rewards",
    "trajectories",
    "underlay",
    "world_model_frames",
    "world_model_lines",
]
