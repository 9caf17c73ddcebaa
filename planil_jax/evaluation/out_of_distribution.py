"""Evaluation out of distribution: starts anywhere on a square field around the task.

The demonstrations cover a small part of the field. The measure is the share of starts from
which the goal is reached in time.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax import envs, runs
from planil_jax.base import Environment, UsageError
from planil_jax.data import demo_file
from planil_jax.evaluation import member_episodes, statistics
from planil_jax.training import files

FIELD_SEED = 0x0DD
SLOWEST = 1.4  # metres a second; at this speed the farthest start still arrives in time
_STRIDE = 4  # control steps between two stored points of a path


class FieldPaths(NamedTuple):
    """Where every member went from every start of a field."""

    paths: np.ndarray  # [S, B, T, 2] float32, metres
    reached: np.ndarray  # [S, B] bool: the goal was reached in time


def make_field(environment: str, side: float, episode_length: int) -> Environment:
    """The task with starts anywhere on a square field.

    Args:
      environment: name of the task.
      side: of the field, metres.
      episode_length: control steps, enough to reach the goal from the farthest start.

    Raises:
      UsageError: the environment has no field of starts, or no success.
    """
    try:
        env = envs.make(
            environment, start="field", field=side, episode_length=episode_length
        )
        if env.success is None:
            raise UsageError(f"environment {environment!r} has no success.")
        return env
    except UsageError:
        raise UsageError(
            f"environment {environment!r} has no field of starts (its make function lacks "
            "the options start, field and episode_length, or it has no success): leave out "
            "fields (--field)."
        ) from None


def has_field(environment: str) -> bool:
    """Whether the environment can start anywhere on a field."""
    try:
        make_field(environment, 40.0, 1)
    except UsageError:
        return False
    return True


def on_field(
    trained: runs.Run, side: float, starts: int
) -> tuple[dict[str, Any], FieldPaths]:
    """From which share of starts on a square field the goal is reached in time.

    Args:
      side: of the field, metres.

    Raises:
      UsageError: the side is not above 0, or as for `make_field`.
    """
    require_side(side)
    seconds = (side / math.sqrt(2) + math.hypot(10, 10)) / SLOWEST
    length = math.ceil(seconds / trained.env.spec.control_period)
    env = make_field(trained.experiment.environment, side, length)
    keys = jax.random.split(jax.random.key(FIELD_SEED), starts)
    obs = member_episodes.rollout(trained, env, keys).obs  # [S, B, L + 1, O]
    assert env.success is not None  # as make_field checks
    success = jax.vmap(jax.vmap(jax.vmap(env.success)))(jnp.asarray(obs))
    reached = np.any(np.asarray(success), axis=2)  # [S, B]
    found = {
        "side_m": side,
        "starts": starts,
        "seconds": seconds,
        "successes": reached.mean(1).tolist(),
        "success": statistics.summary(reached)._asdict(),
        "mean_success": float(reached.mean()),
    }
    return found, FieldPaths(obs[..., ::_STRIDE, :2].astype(np.float32), reached)


def require_side(side: float) -> None:
    """Refuses a side of a field that is no length.

    Raises:
      UsageError: it is not a finite number above 0.
    """
    if not (math.isfinite(side) and side > 0):
        raise UsageError(f"the side of a field (--field) is metres above 0, not {side:g}.")


def paths_file(directory: Path, side: float) -> Path:
    """The file of a run's directory that holds the paths on a field."""
    return directory / f"field_{side:g}.npz"


def save_paths(directory: Path, side: float, paths: FieldPaths) -> None:
    """Writes the paths on a field into a run's directory."""
    demo_file.write(paths_file(directory, side), paths._asdict())


def load_paths(directory: Path, side: float) -> FieldPaths | None:
    """Reads what `save_paths` wrote; None: no file, or a damaged one, with a warning."""
    path = paths_file(directory, side)
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            paths, reached = file["paths"], file["reached"]
        if paths.ndim != 4 or paths.shape[:2] != reached.shape:
            raise ValueError("its arrays do not fit each other")
    except Exception as error:  # numpy raises many kinds about a damaged archive
        files.warn(f"{path} is damaged ({error}): evaluate the run again.")
        return None
    return FieldPaths(paths, reached)
