"""Settings that are tried side by side: "agent.learning_rate=1e-4,1e-3", a grid of them.

Every setting is a number of the experiment's agent. The members of a run are all seeds with
the first settings of the grid, then all seeds with the second, and so on.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np

from planil_jax import config
from planil_jax.base import UsageError, did_you_mean
from planil_jax.experiment import Experiment


def settings(experiment: Experiment) -> dict[str, np.ndarray]:
    """`[P]` of each swept field, over the grid; empty where nothing is swept.

    Raises:
      UsageError: a sweep is not of the form agent.field=number,number, not of a number, or
        of one that its field does not take; or a field is swept twice, or a value, as far
        as its name tells.
    """
    axes: dict[str, list[float]] = {}
    for line in experiment.sweep:
        path, _, written = line.partition("=")
        try:
            values = [float(value) for value in written.split(",")]
        except ValueError:
            raise UsageError(
                f"sweep {line}: write it as agent.FIELD=NUMBER,NUMBER, such as "
                "agent.learning_rate=1e-4,1e-3."
            ) from None
        if path in axes:
            raise UsageError(
                f"sweep {line}: {path} is swept already; give all its values at once, "
                f"{path}={','.join(f'{value:g}' for value in axes[path] + values)}."
            )
        _check(experiment, path, line)
        shown = [f"{value:g}" for value in values]
        for text in shown:
            if shown.count(text) > 1:
                raise UsageError(
                    f"sweep {line}: two of its values are {text}: give each one once."
                )
        for value in values:
            config.check(apply_overrides(experiment, {path: value}))
        axes[path] = values
    grid = list(itertools.product(*axes.values()))
    columns = zip(*grid, strict=True)
    return {path: np.array(column) for path, column in zip(axes, columns, strict=True)}


def apply_overrides(experiment: Experiment, values: dict[str, Any]) -> Experiment:
    """The experiment with these values, numbers or traced arrays, in their fields."""
    for path, value in values.items():
        experiment = _replaced(experiment, path.split("."), value)
    return experiment


def labels(experiment: Experiment) -> list[str]:
    """The name of each member, `[S]`: "seed 3, agent.learning_rate=0.001"."""
    grid = settings(experiment)
    points = len(next(iter(grid.values()), [None]))
    settings_of = [
        "".join(f", {path}={column[point]:g}" for path, column in grid.items())
        for point in range(points)
    ]
    seeds = range(experiment.seed, experiment.seed + experiment.seeds)
    return [f"seed {seed}{text}" for text in settings_of for seed in seeds]


def _replaced(node: Any, fields: list[str], value: Any) -> Any:
    first, *rest = fields
    new = _replaced(getattr(node, first), rest, value) if rest else value
    return dataclasses.replace(node, **{first: new})


def _check(experiment: Experiment, path: str, line: str) -> None:
    """Refuses a path that leads to no number of the agent."""
    node: Any = experiment
    for depth, name in enumerate(path.split(".")):
        known = (
            [field.name for field in dataclasses.fields(node)]
            if dataclasses.is_dataclass(node)
            else []
        )
        if name not in known or (depth == 0 and name != "agent"):
            hint = did_you_mean(name, known if depth else ["agent"])
            raise UsageError(f"sweep {line}: there is no {path}.{hint}")
        node = getattr(node, name)
    if not isinstance(node, float):
        raise UsageError(
            f"sweep {line}: {path} is {node!r}, and only numbers with a fraction can be "
            "tried side by side; train other settings in separate runs."
        )
