"""How far from its demonstrations a learner went while learning, and what limits it broke.

    python -m experiments.coverage --runs=runs/cmil,runs/vmail --picture=visited.png \\
        --limits="speed [rad/s]=-6:6" --out=visited.json

Reads every step that the replay of a run's checkpoint holds, oldest first, and tells of ten
equal parts of them and of all:

    distance    d(o) = min_e ‖(o - e) / σ‖ to the nearest demonstrated observation e, with σ
                the demonstrations' deviation by entry (1 where they never vary)
    out_of_support  share of d(o) above the 99th percentile of the demonstrations' own, each of
                an episode measured to the other episodes
    constraint_violations  share of steps at which a named entry is outside its limits

Writes visited.json into each run's directory. Observations must be numbers.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from planil_jax import experiment, runs
from planil_jax.base import Demonstrations, UsageError, did_you_mean
from planil_jax.data import replay
from planil_jax.reporting import figures
from planil_jax.training import checkpoint, rundir

FLAGS = flags.FLAGS

RESULT = "visited.json"
PARTS = 10
_CHUNK = 1024  # points whose distances to all demonstrated ones are held at a time

Limits = Mapping[str, tuple[float, float]]  # entry's name -> lowest, highest


class Visits(NamedTuple):
    """What members of a run saw, oldest first."""

    obs: np.ndarray  # [S, K, E, O]
    step: int  # environment steps of each member until the last of them


class Support(NamedTuple):
    """What was demonstrated, in units of its deviation."""

    points: np.ndarray  # [D, O'] of the entries that are held
    observed: tuple[int, ...]  # [O']
    centre: np.ndarray  # [O']
    scale: np.ndarray  # [O']
    far: float  # the 99th percentile of its own distances; nan: there is one episode


def define_flags() -> None:
    """Not on import: other binaries import this one."""
    flags.DEFINE_list("runs", None, "Run directories: a,b.", required=True)
    flags.DEFINE_string("which", "last", "Checkpoint: last, best, or a step.")
    flags.DEFINE_multi_string(
        "limits", [], "Of an observation entry: NAME=LOW:HIGH; either may be empty."
    )
    flags.DEFINE_string("out", "", "Also write what is found of all runs here, .json.")
    flags.DEFINE_string("picture", "", "Draw it here, .png.")


def main() -> None:
    found, records = {}, {}
    for directory in FLAGS.runs:
        trained = runs.load(directory, FLAGS.which)
        limits = parsed(FLAGS.limits, trained.env.spec.observation_names)
        found[directory] = of(trained, limits)
        (trained.directory / RESULT).write_text(json.dumps(found[directory]) + "\n")
        print(table(directory, found[directory]))
        if FLAGS.out:
            records[directory] = {"visited": found[directory]} | runs.record(trained)
    if FLAGS.out:
        command = " ".join(["python -m experiments.coverage", *sys.argv[1:]])
        kept = {"command": command, "runs": records}
        Path(FLAGS.out).write_text(json.dumps(kept, indent=1) + "\n")
    if FLAGS.picture:
        figures.visited(found).savefig(FLAGS.picture, dpi=110)
        print(f"wrote {FLAGS.picture}")


def of(trained: runs.Run, limits: Limits) -> dict[str, Any]:
    """What the members of a run visited, `[S][PARTS]` and `[S]` each.

    Raises:
      UsageError: it imitates nothing, sees pictures, or holds no replay.
    """
    visits, support = load(trained), support_of(trained.demos)
    names = trained.env.spec.observation_names
    _, count, num_envs, _ = visits.obs.shape
    parts = [part for part in np.array_split(np.arange(count), PARTS) if len(part)]
    first = visits.step - count * num_envs
    members = [_of_member(obs, parts, names, support, limits) for obs in visits.obs]
    return {
        "method": trained.experiment.method,
        "environment": trained.experiment.environment,
        "step": visits.step,
        "held": count * num_envs,
        "steps": [first + num_envs * (int(part[-1]) + 1) for part in parts],
        "far": None if math.isnan(support.far) else support.far,
        "limits": {name: list(between) for name, between in limits.items()},
        "parts": {name: [each[0][name] for each in members] for name in members[0][0]},
        "all": {name: [each[1][name] for each in members] for name in members[0][1]},
    }


def parsed(lines: Sequence[str], names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Limits of "angle [rad]=-1:1" and the like.

    Raises:
      UsageError: one is not of that form, or of no entry that is observed.
    """
    limits = {}
    for line in lines:
        name, equals, between = line.rpartition("=")
        low, colon, high = between.partition(":")
        try:
            limit = float(low or "-inf"), float(high or "inf")
        except ValueError:
            colon = ""
        if not (equals and colon and limit[0] <= limit[1]):
            raise UsageError(
                f"--limits={line}: write NAME=LOW:HIGH, such as 'speed [rad/s]=-6:6'."
            )
        if name not in names:
            raise UsageError(
                f"--limits={line}: nothing observed is named {name!r}."
                f"{did_you_mean(name, names)} There are: {', '.join(names)}."
            )
        limits[name] = limit
    return limits


# --------------------------------------------------------------------------------- visited


def load(trained: runs.Run) -> Visits:
    """What the replay of a run's checkpoint holds."""
    method = trained.experiment.method
    if not experiment.needs(trained.experiment).demonstrations:
        raise UsageError(f"{method} has no demonstrations from which to measure.")
    if trained.env.spec.image:
        raise UsageError(
            f"{trained.directory} learned from pictures, between which no distance says "
            "much: give runs in an environment that shows numbers."
        )

    def init(own):
        return trained.make_agent(trained.env, own).init(jax.random.key(0))

    state = jax.eval_shape(jax.vmap(init, axis_size=_members(trained)), trained.settings)
    fields = [field.name for field in dataclasses.fields(state)]
    held = [name for name in fields if isinstance(getattr(state, name), replay.Replay)]
    if not held:
        raise UsageError(f"{method} keeps no replay of what it visited.")
    restored = checkpoint.restore_params(
        trained.directory / rundir.CHECKPOINTS,
        getattr(state, held[0]),
        trained.step,
        f"agent.{held[0]}",
    ).state
    return Visits(in_order(restored), trained.step)


def in_order(held: replay.Replay) -> np.ndarray:
    """Observations of a replay `[S]`, oldest first, `[S, K, E, O]`."""
    obs, cursor, size = map(np.asarray, (held.steps["obs"], held.cursor, held.size))
    oldest = np.where(size < obs.shape[1], 0, cursor)
    return np.stack(
        [
            np.roll(ring, -start, axis=0)[:count]
            for ring, start, count in zip(obs, oldest, size, strict=True)
        ]
    )


def _members(trained: runs.Run) -> int:
    return jax.tree.leaves(trained.params)[0].shape[0]


def _of_member(
    obs: np.ndarray,
    parts: Sequence[np.ndarray],
    names: Sequence[str],
    support: Support,
    limits: Limits,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """By part, and of all, of what one member saw `[K, E, O]`."""
    distance = nearest(scaled(obs.reshape(-1, obs.shape[-1]), support), support.points)
    distance = distance.reshape(obs.shape[:2])  # [K, E]
    constraint_violations = {
        name: (obs[..., names.index(name)] < low) | (obs[..., names.index(name)] > high)
        for name, (low, high) in limits.items()
    }

    def told(rows: np.ndarray) -> dict[str, float | None]:
        of_rows = distance[rows]
        out_of_support = (
            None if math.isnan(support.far) else float(np.mean(of_rows > support.far))
        )
        return {
            "distance": float(np.mean(of_rows)),
            "distance, 95th percentile": float(np.percentile(of_rows, 95)),
            "out_of_support": out_of_support,
        } | {
            f"constraint_violations: {name}": float(np.mean(each[rows]))
            for name, each in constraint_violations.items()
        }

    each = [told(part) for part in parts]
    by_part = {name: [part[name] for part in each] for name in each[0]}
    return by_part, told(np.arange(len(distance)))


# ---------------------------------------------------------------------------- demonstrated


def support_of(demos: Demonstrations) -> Support:
    """What was demonstrated, and how far its episodes lie from each other."""
    obs, lengths = jax.device_get((demos.obs, demos.length))
    held = obs[..., list(demos.observed)].astype(np.float64)  # [N, L + 1, O']
    episodes = [held[n, : length + 1] for n, length in enumerate(lengths)]
    every = np.concatenate(episodes)
    deviation = every.std(axis=0)
    support = Support(
        points=every,
        observed=demos.observed,
        centre=every.mean(axis=0),
        scale=np.where(deviation > 1e-6, deviation, 1.0),
        far=math.nan,
    )
    episodes = [(each - support.centre) / support.scale for each in episodes]
    own = [
        nearest(each, np.concatenate(episodes[:n] + episodes[n + 1 :]))
        for n, each in enumerate(episodes)
        if len(episodes) > 1
    ]
    far = float(np.percentile(np.concatenate(own), 99)) if own else math.nan
    return support._replace(points=np.concatenate(episodes), far=far)


def scaled(obs: np.ndarray, support: Support) -> np.ndarray:
    """Observations `[B, O]` as the support is, `[B, O']`."""
    return (obs[:, list(support.observed)] - support.centre) / support.scale


def nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance of each of the points `[B, O]` to the nearest of others `[D, O]`, `[B]`."""
    lengths = np.sum(others**2, axis=1)
    least = [
        np.sum(some**2, axis=1) + np.min(lengths - 2 * some @ others.T, axis=1)
        for some in (points[at : at + _CHUNK] for at in range(0, len(points), _CHUNK))
    ]
    return np.sqrt(np.maximum(np.concatenate(least), 0.0))


def table(directory: str, found: Mapping[str, Any]) -> str:
    """What was found of a run, for reading: a row a part, with the means of its seeds."""
    names, seeds = list(found["parts"]), len(found["all"]["distance"])
    lines = [
        f"{directory}: {found['method']} on {found['environment']}, {seeds} seeds, the "
        f"last {found['held']} of {found['step']} steps",
        f"{'up to step':>12}   {'   '.join(names)}",
    ]

    def row(title: str, values: Sequence[float | None]) -> None:
        cells = ["–" if value is None else f"{value:.3f}" for value in values]
        pairs = zip(names, cells, strict=True)
        wide = "   ".join(cell.rjust(len(name)) for name, cell in pairs)
        lines.append(f"{title:>12}   {wide}")

    for part, step in enumerate(found["steps"]):
        by_seed = ([seed[part] for seed in found["parts"][name]] for name in names)
        row(str(step), [_mean(each) for each in by_seed])
    row("all", [_mean(found["all"][name]) for name in names])
    for seed in range(seeds):
        row(f"all, no. {seed + 1}", [found["all"][name][seed] for name in names])
    if found["far"] is not None:
        lines.append(f"  beyond: further than {found['far']:.3f}")
    return "\n".join(lines)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
