"""Pictures that stand beside the numbers of an evaluation; PNG files."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from planil_jax import runs
from planil_jax.base import UserError
from planil_jax.evaluation import compare, out_of_distribution
from planil_jax.evaluation import rewards as evaluation_rewards
from planil_jax.reporting import figures, views
from planil_jax.training import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save(figure: "Figure", path: str | Path, dpi: int = 110) -> None:
    """Writes a figure whole or not at all, in the format that the path ends in.

    Raises:
      OSError: it cannot be written, with its path.
    """
    drawn, path = io.BytesIO(), Path(path)
    figure.savefig(drawn, dpi=dpi, format=path.suffix.removeprefix(".") or "png")
    files.write(path, drawn.getvalue())


def rewards(directory: Path, pairs: Mapping[str, evaluation_rewards.Pair]) -> Path:
    """Draws rewards.png of recovered rewards beside the task's, and returns its path."""
    path = directory / "rewards.png"
    save(figures.rewards(pairs), path)
    return path


def coverage(path: str | Path, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Draws results of `evaluation.coverage.measure`, by run."""
    save(figures.coverage(found), path)


def comparison(
    directory: Path, plan: compare.Comparison, found: Mapping[str, dict[str, Any]]
) -> list[Path]:
    """Draws the results of a comparison on one task, and returns the paths.

    returns.png shows learning curves. With a field of starts, field.png shows the paths of
    the first seed of every method.

    Args:
      directory: of the task's runs.
      found: results by method.
    """
    paths = [directory / "returns.png"]
    save(_returns(found), paths[0])
    if plan.field:
        paths.append(directory / "field.png")
        save(_field(directory, plan.field, list(found)), paths[1], dpi=80)
    return paths


def _returns(found: Mapping[str, dict[str, Any]]):
    curves = {
        method: (np.array(result["steps"]), np.array(result["returns"]))
        for method, result in found.items()
        if compare.interacts(result)
    }
    flat = {
        method: float(np.mean(result["evaluation"]["in_distribution"]["returns"]))
        for method, result in found.items()
        if not compare.interacts(result)
    }
    experts = [
        result["expert_return_while_training"]
        for result in found.values()
        if "interactions" in result
    ]
    return figures.comparison(curves, flat, experts[0] if experts else None)


def _field(directory: Path, side: float, methods: list[str]):
    paths, reached = [], []
    for method in methods:
        stored = out_of_distribution.load_paths(directory / method, side)
        if stored is None:
            raise UserError(
                f"{out_of_distribution.paths_file(directory / method, side)} is lost: "
                f"remove {directory / method / compare.RESULT} to evaluate that run again."
            )
        paths.append(stored.paths[0])
        reached.append(stored.reached[0])
    scene = views.scene(runs.load(directory / methods[0], trust_imports=True))
    return figures.field(scene, np.array(paths), np.array(reached), side, methods)
