"""How far from its demonstrations a learner went while it learned, and its violations.

All steps in the replay of a run's checkpoint are read, oldest first. The measures are taken
over ten equal parts of them, and over all:

    distance    d(o) = min_e ‖(o - e) / σ‖ to the nearest demonstrated observation e; σ is
                the standard deviation of the demonstrations by entry (1 where it is 0)
    out_of_support  share of steps with d(o) above a threshold: the 99th percentile of the
                distances between demonstrations, each of an episode to the other episodes
    constraint_violations  share of steps at which a named entry is outside its limits

Observations must be numbers.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from planil_jax import experiment, runs
from planil_jax.base import Demonstrations, UsageError, did_you_mean
from planil_jax.data import replay
from planil_jax.training import checkpoint, rundir

RESULT = "coverage.json"
PARTS = 10
_CHUNK = 1024  # points whose distances are computed at a time

Limits = Mapping[str, tuple[float, float]]  # entry's name -> lowest, highest


class Visits(NamedTuple):
    """The observations of all members of a run, oldest first."""

    obs: np.ndarray  # [S, K, E, O]
    step: int  # environment steps of each member until the last of them


class Support(NamedTuple):
    """The demonstrations, in units of their standard deviation."""

    points: np.ndarray  # [D, O'] of the observed entries
    observed: tuple[int, ...]  # [O']
    centre: np.ndarray  # [O']
    scale: np.ndarray  # [O']
    # The 99th percentile of the distances between episodes; nan: there is one episode.
    threshold: float


def measure(trained: runs.Run, limits: Limits) -> dict[str, Any]:
    """How far the members of a run went: `[S][PARTS]` under "parts", `[S]` under "all".

    Raises:
      UsageError: the method has no demonstrations or keeps no replay, or the environment
        shows pictures.
    """
    visits, support = load_visits(trained), support_of(trained.demos)
    names = trained.env.spec.observation_names
    _, count, num_envs, _ = visits.obs.shape
    parts = [part for part in np.array_split(np.arange(count), PARTS) if len(part)]
    first = visits.step - count * num_envs
    members = [_of_member(obs, parts, names, support, limits) for obs in visits.obs]
    return {
        "method": trained.experiment.method,
        "environment": trained.experiment.environment,
        "step": visits.step,
        "replay_steps": count * num_envs,
        "steps": [first + num_envs * (int(part[-1]) + 1) for part in parts],
        "threshold": None if math.isnan(support.threshold) else support.threshold,
        "limits": {name: list(limit) for name, limit in limits.items()},
        "parts": {
            name: [by_part[name] for by_part, _ in members] for name in members[0][0]
        },
        "all": {name: [whole[name] for _, whole in members] for name in members[0][1]},
    }


def parse_limits(
    lines: Sequence[str], names: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Limits from texts such as "angle [rad]=-1:1"; either number may be empty.

    Args:
      names: of the observation entries.

    Raises:
      UsageError: a text is not of that form, or names no observation entry.
    """
    limits = {}
    for line in lines:
        name, equals, numbers = line.rpartition("=")
        low, colon, high = numbers.partition(":")
        try:
            limit = float(low or "-inf"), float(high or "inf")
        except ValueError:
            colon = ""
        if not (equals and colon and limit[0] <= limit[1]):
            raise UsageError(
                f"limits {line!r} (--limits): write NAME=LOW:HIGH, such as "
                "'speed [rad/s]=-6:6'."
            )
        if name not in names:
            raise UsageError(
                f"limits {line!r} (--limits): no observation entry is named {name!r}."
                f"{did_you_mean(name, names)} There are: {', '.join(names)}."
            )
        limits[name] = limit
    return limits


# ------------------------------------------------------------------------------ the replay


def load_visits(trained: runs.Run) -> Visits:
    """Reads the observations in the replay of a run's checkpoint.

    Raises:
      UsageError: as for `measure`.
    """
    method = trained.experiment.method
    if not experiment.needs(trained.experiment).demonstrations:
        raise UsageError(f"{method} has no demonstrations from which to measure.")
    if trained.env.spec.image:
        raise UsageError(
            f"{trained.directory} learned from pictures, between which no distance says "
            "much: give runs in an environment that shows numbers."
        )

    def init(settings):
        return trained.make_agent(trained.env, settings).init(jax.random.key(0))

    members = jax.tree.leaves(trained.params)[0].shape[0]
    state = jax.eval_shape(jax.vmap(init, axis_size=members), trained.settings)
    names = [field.name for field in dataclasses.fields(state)]
    replays = [name for name in names if isinstance(getattr(state, name), replay.Replay)]
    if not replays:
        raise UsageError(f"{method} keeps no replay of its steps.")
    restored = checkpoint.restore_params(
        trained.directory / rundir.CHECKPOINTS,
        getattr(state, replays[0]),
        trained.step,
        f"agent.{replays[0]}",
    ).state
    return Visits(in_order(restored), trained.step)


def in_order(replays: replay.Replay) -> np.ndarray:
    """Observations of replays `[S]`, oldest first, `[S, K, E, O]`."""
    obs, cursor, size = map(
        np.asarray, (replays.steps["obs"], replays.cursor, replays.size)
    )
    oldest = np.where(size < obs.shape[1], 0, cursor)
    return np.stack(
        [
            np.roll(ring, -start, axis=0)[:count]
            for ring, start, count in zip(obs, oldest, size, strict=True)
        ]
    )


def _of_member(
    obs: np.ndarray,
    parts: Sequence[np.ndarray],
    names: Sequence[str],
    support: Support,
    limits: Limits,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The measures of one member's observations `[K, E, O]`, by part and over all steps."""
    distance = nearest(scaled(obs.reshape(-1, obs.shape[-1]), support), support.points)
    distance = distance.reshape(obs.shape[:2])  # [K, E]
    violations = {
        name: (obs[..., names.index(name)] < low) | (obs[..., names.index(name)] > high)
        for name, (low, high) in limits.items()
    }

    def measures(rows: np.ndarray) -> dict[str, float | None]:
        outside = None
        if not math.isnan(support.threshold):
            outside = float(np.mean(distance[rows] > support.threshold))
        return {
            "distance": float(np.mean(distance[rows])),
            "distance, 95th percentile": float(np.percentile(distance[rows], 95)),
            "out_of_support": outside,
        } | {
            f"constraint_violations: {name}": float(np.mean(violated[rows]))
            for name, violated in violations.items()
        }

    of_parts = [measures(part) for part in parts]
    by_part = {name: [part[name] for part in of_parts] for name in of_parts[0]}
    return by_part, measures(np.arange(len(distance)))


# ------------------------------------------------------------------------- demonstrations


def support_of(demos: Demonstrations) -> Support:
    """The demonstrations as points, and how far their episodes lie from each other."""
    obs, lengths = jax.device_get((demos.obs, demos.length))
    observed = obs[..., list(demos.observed)].astype(np.float64)  # [N, L + 1, O']
    episodes = [observed[n, : length + 1] for n, length in enumerate(lengths)]
    points = np.concatenate(episodes)
    deviation = points.std(axis=0)
    centre, scale = points.mean(axis=0), np.where(deviation > 1e-6, deviation, 1.0)
    episodes = [(episode - centre) / scale for episode in episodes]
    distances = [
        nearest(episode, np.concatenate(episodes[:n] + episodes[n + 1 :]))
        for n, episode in enumerate(episodes)
        if len(episodes) > 1
    ]
    return Support(
        points=np.concatenate(episodes),
        observed=demos.observed,
        centre=centre,
        scale=scale,
        threshold=float(np.percentile(np.concatenate(distances), 99))
        if distances
        else math.nan,
    )


def scaled(obs: np.ndarray, support: Support) -> np.ndarray:
    """Observations `[B, O]` in the units of the support, `[B, O']`."""
    return (obs[:, list(support.observed)] - support.centre) / support.scale


def nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance of each point `[B, O]` to the nearest of the others `[D, O]`, `[B]`."""
    squares = np.sum(others**2, axis=1)
    chunks = (points[at : at + _CHUNK] for at in range(0, len(points), _CHUNK))
    least = [
        np.sum(chunk**2, axis=1) + np.min(squares - 2 * chunk @ others.T, axis=1)
        for chunk in chunks
    ]
    return np.sqrt(np.maximum(np.concatenate(least), 0.0))


def table(directory: str, found: Mapping[str, Any]) -> str:
    """The measures of a run as text: a row for each part, averaged over seeds."""
    names, seeds = list(found["parts"]), len(found["all"]["distance"])
    lines = [
        f"{directory}: {found['method']} on {found['environment']}, {seeds} seeds, the "
        f"last {found['replay_steps']} of {found['step']} steps",
        f"{'up to step':>12}   {'   '.join(names)}",
    ]

    def row(title: str, values: Sequence[float | None]) -> None:
        cells = ["–" if value is None else f"{value:.3f}" for value in values]
        pairs = zip(names, cells, strict=True)
        wide = "   ".join(cell.rjust(len(name)) for name, cell in pairs)
        lines.append(f"{title:>12}   {wide}")

    for part, step in enumerate(found["steps"]):
        by_seed = ([seed[part] for seed in found["parts"][name]] for name in names)
        row(str(step), [_mean(values) for values in by_seed])
    row("all", [_mean(found["all"][name]) for name in names])
    for seed in range(seeds):
        row(f"all, no. {seed + 1}", [found["all"][name][seed] for name in names])
    if found["threshold"] is not None:
        lines.append(f"  out of support: farther than {found['threshold']:.3f}")
    return "\n".join(lines)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
