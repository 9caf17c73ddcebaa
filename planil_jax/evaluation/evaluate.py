"""Evaluates a run: beside its expert from the same starts, and out of distribution."""

import contextlib
import dataclasses
import errno
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from planil_jax import envs, experiment, runs, sweep
from planil_jax.base import UsageError
from planil_jax.evaluation import (
    expert_policies,
    member_episodes,
    out_of_distribution,
    statistics,
)
from planil_jax.training import files, run

RESULT = "evaluation.json"
_SUMMARY = {"mean": float, "low": float, "high": float}
_FORM = {  # of what reports read
    "step": int,
    "seeds": int,
    "members": [str],
    "in_distribution": {
        "return": _SUMMARY,
        "expert_return?": float,
        "share_of_expert?": _SUMMARY,
        "shares?": [float],
        "cross_track_m?": {"mean": float, "largest": float},
    },
    "fields": [
        {"side_m": float, "starts": int, "successes": [float], "mean_success": float}
    ],
}
SPEED = "forward speed [m/s]"  # the observation entry


def in_env(trained: runs.Run, environment: str) -> runs.Run:
    """The run in another environment than it was trained in, such as the real robot's.

    Raises:
      UsageError: its observations, actions or control period differ.
    """
    environment = experiment.on_engine(environment, trained.experiment.engine)
    env = envs.make(environment)
    here, there = trained.env.spec, env.spec
    for what in ("observation_names", "action_low", "action_high", "control_period"):
        if getattr(here, what) != getattr(there, what):
            raise UsageError(
                f"environment {environment!r} (--env): its {what} are "
                f"{getattr(there, what)}, but the run was trained in {here.name} with "
                f"{getattr(here, what)}."
            )
    settings = dataclasses.replace(trained.experiment, environment=environment)
    return trained._replace(experiment=settings, env=env)


def evaluate(
    trained: runs.Run,
    episodes: int,
    fields: list[float],
    starts: int,
    expert: bool = True,
) -> dict[str, Any]:
    """Evaluates a run, writes evaluation.json into its directory, and returns the content.

    The paths on a field are written beside it, for the report. Where the directory cannot
    be written, a warning says so first, and the content is returned all the same.

    Args:
      episodes: of every member, from the starts of the task.
      fields: sides of square fields of starts, metres.
      starts: on each field.
      expert: whether the scripted expert is evaluated from the same starts.

    Raises:
      UsageError: a number is out of its range, or the environment has no field of starts.
    """
    for name, count in {"episodes": episodes, "starts": starts}.items():
        if count < 1:
            raise UsageError(f"{name} must be at least 1, not {count}.")
    for side in fields:
        out_of_distribution.require_side(side)
    kept = is_kept(trained)
    found: dict[str, Any] = {
        "environment": trained.experiment.environment,
        "override": trained.override,
        "step": trained.step,
        "seeds": trained.experiment.seeds,
        "members": sweep.labels(trained.experiment),
        "stopped": runs.stops(trained),
        "in_distribution": in_distribution(trained, episodes, expert),
        "fields": [],
    }
    for side in fields:
        summary, paths = out_of_distribution.on_field(trained, side, starts)
        if kept:
            with _keeping():
                out_of_distribution.save_paths(trained.directory, side, paths)
        found["fields"].append(summary)
    if kept:
        save(trained, found)
    return found


def is_kept(trained: runs.Run) -> bool:
    """Whether results can be written into the directory of the run; a warning if not."""
    path = trained.directory / RESULT
    reason = files.unwritable(path)
    if reason:
        files.warn(
            f"{path} cannot be written ({reason}): this evaluation is not kept there."
        )
    return not reason


def save(trained: runs.Run, found: dict[str, Any]) -> None:
    """Writes an evaluation into the directory of its run, or warns that it cannot."""
    with _keeping():
        sealed = files.seal(json.dumps(found, indent=1))
        files.write(trained.directory / RESULT, f"{sealed}\n")


@contextlib.contextmanager
def _keeping() -> Iterator[None]:
    """Where a file cannot be written, a warning says so; what it holds is not lost."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else error.strerror
        files.warn(f"{error.filename} could not be written ({why}) and is not kept.")


def read(directory: Path) -> dict[str, Any]:
    """The evaluation of a run; {} where there is none, or a damaged one, with a warning."""
    mend = "the report goes on without it; evaluate the run again"
    return files.read_if_sound(directory / RESULT, _FORM, mend)


def in_distribution(
    trained: runs.Run, episodes: int, expert: bool = True
) -> dict[str, Any]:
    """Returns of learner and expert from the same starts; distance to demonstrations."""
    env = trained.env
    keys = jax.random.split(jax.random.key(run.EVALUATION_SEED), episodes)
    driven = member_episodes.rollout(trained, env, keys)
    found = {
        "episodes": episodes,
        "returns": driven.returns.mean(1).tolist(),
        "return": statistics.summary(driven.returns)._asdict(),
        "episode_returns": driven.returns.tolist(),  # [S, B]
    }
    if env.subtasks is not None:
        shares = driven.subtasks_done.mean(1).T.tolist()
        found["subtasks"] = dict(zip(env.subtasks.names, shares, strict=True))
    if expert and env.expert_cost is not None:
        expert_returns = returns_of_expert(trained.experiment.environment, episodes)
        shares = statistics.share(driven.returns, expert_returns.mean())  # [S, B]
        found["expert_return"] = float(expert_returns.mean())
        found["share_of_expert"] = statistics.summary(shares)._asdict()
        found["shares"] = shares.mean(1).tolist()
    if env.spec.observation_names[:2] == ("x [m]", "y [m]"):
        errors = _cross_track(trained, driven.obs[..., :2])  # [S, B (L + 1)]
        found["cross_track_m"] = {
            "mean": float(errors.mean()),
            "largest": float(errors.max()),
            "mean_by_seed": errors.mean(1).tolist(),
            "largest_by_seed": errors.max(1).tolist(),
        }
    if SPEED in env.spec.observation_names:
        speeds = driven.obs[..., env.spec.observation_names.index(SPEED)]
        found["speed_m_per_s"] = speeds.mean((1, 2)).tolist()
    return found


@functools.cache
def returns_of_expert(environment: str, episodes: int) -> np.ndarray:
    """Returns `[B]` of the scripted expert from the starts of the evaluation."""
    expert = expert_policies.scripted_expert(environment)
    keys = jax.random.split(jax.random.key(run.EVALUATION_SEED), episodes)
    steps, alive = expert_policies.rollout(expert, keys)
    return np.sum(steps.reward * alive, axis=1)


def _cross_track(trained: runs.Run, paths: np.ndarray) -> np.ndarray:
    """Metres from paths `[S, B, L, 2]` to the nearest demonstration, `[S, B L]`."""
    demos = trained.demos
    references = [
        np.asarray(demos.obs[n, : int(demos.length[n]) + 1, :2])
        for n in range(demos.obs.shape[0])
    ]
    points = paths.reshape(-1, 2)
    distances = [statistics.cross_track(points, path) for path in references]
    return np.min(distances, axis=0).reshape(len(paths), -1)


# ---------------------------------------------------------------------------------- tables


def table(found: dict[str, Any]) -> str:
    """The evaluation as text."""
    if len(found["members"]) > found["seeds"]:
        return _sweep_table(found)
    inside = found["in_distribution"]
    title = statistics.title(found["seeds"])
    several = found["seeds"] > 1
    each = f"{found['seeds']} seeds; each seed, then {title}" if several else "one seed"
    lines = [f"step {found['step']}, {each}"]
    rows = [("return", inside["returns"], inside["return"])]
    if "shares" in inside:
        rows.append(("share of the expert", inside["shares"], inside["share_of_expert"]))
    for field in found["fields"]:
        name = f"arrived, {field['side_m']:g} m field"
        rows.append((name, field["successes"], field["success"]))
    for name, values, summary in rows:
        lines.append(f"  {name:22} {_row(values)}   {statistics.Summary(**summary)}")
    for name, shares in inside.get("subtasks", {}).items():
        lines.append(f"  {name + ', done in':22} {_row(shares)}")
    if "expert_return" in inside:
        lines.append(f"  expert's return        {inside['expert_return']:8.3f}")
    if "cross_track_m" in inside:
        error = inside["cross_track_m"]
        lines.append(
            f"  off the nearest demonstration: {error['mean']:.2f} m on average, "
            f"{error['largest']:.2f} m at most"
        )
    if "speed_m_per_s" in inside:
        lines.append(f"  mean speed, m/s        {_row(inside['speed_m_per_s'])}")
    return "\n".join([*lines, *found.get("stopped", [])])


def _row(values: list[float]) -> str:
    return " ".join(f"{value:8.3f}" for value in values)


def _sweep_table(found: dict[str, Any]) -> str:
    """The evaluation of a sweep: a row for each of its settings."""
    seeds, inside = found["seeds"], found["in_distribution"]
    columns = {"return": inside["returns"], "share of the expert": inside.get("shares")}
    for field in found["fields"]:
        columns[f"arrived, {field['side_m']:g} m"] = field["successes"]
    by_point = {
        name: np.reshape(values, (-1, seeds)) for name, values in columns.items() if values
    }
    title = statistics.title(seeds)
    lines = [f"step {found['step']}, {seeds} seeds of each; {title}"]
    for point, label in enumerate(found["members"][::seeds]):
        summaries = "   ".join(
            f"{name} {statistics.summary(values[point])}"
            for name, values in by_point.items()
        )
        lines.append(f"  {label.split(', ', 1)[-1]:30} {summaries}")
    return "\n".join([*lines, *found.get("stopped", [])])
