"""Rows with time stamps: gaps, and resampling to the control period.

Observations are interpolated linearly, angles ([rad], [deg]) along the shorter way, and
pictures are the nearest. An action is held until the next row, so an action of the result
is the mean over its step, weighted by time. Rewards of other steps are unknown.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from planil_jax.base import UsageError
from planil_jax.data.formats import select
from planil_jax.data.formats.recording import Options, Recording

_TOLERANCE = (
    0.01  # of a period: rows that lie so close to their times are taken as they are
)
_USUAL = 2.0  # gaps are longer than so many usual intervals
_TURN = {"rad": 2 * math.pi, "deg": 360.0}


def stamped(recording: Recording, options: Options) -> Recording:
    """With time stamps where the time between its rows is known."""
    if recording.times is not None or options.period is None:
        return recording
    times = np.arange(recording.rows) * options.period
    return dataclasses.replace(recording, times=times)


def check(recording: Recording, where: str) -> None:
    """Refuses time stamps that do not increase.

    Raises:
      UsageError: they do not; it names the row.
    """
    times = recording.times
    if times is None:
        return
    for bad, what, mend in (
        (~np.isfinite(times), "no time", "leave the row out"),
        (np.diff(times, prepend=-np.inf) < 0, "before the last", "sort the rows by time"),
        (np.diff(times, prepend=-np.inf) == 0, "there twice", "keep one of the two rows"),
    ):
        if bad.any():
            row = int(np.argmax(bad))
            raise UsageError(
                f"{where}, row {row}: its time stamp, {times[row]:.9g} s, is {what}: "
                f"{mend}."
            )


def parts(
    recording: Recording, period: float | None, options: Options, where: str
) -> Iterator[Recording]:
    """What lies between the gaps of a recording, as episodes.

    Args:
      period: of the environment, seconds.

    Raises:
      UsageError: there is a gap, and gaps do not separate episodes.
    """
    times = recording.times
    if times is None or len(times) < 2:
        yield recording
        return
    intervals = np.diff(times)
    longest = options.max_gap or _USUAL * max(float(np.median(intervals)), period or 0.0)
    gaps = np.flatnonzero(intervals > longest)
    if len(gaps) and not options.split_gaps:
        row = int(gaps[0])
        raise UsageError(
            f"{where}: nothing was recorded for {intervals[row]:.4g} s after row {row}, "
            f"where {longest:.4g} s are allowed: let gaps separate episodes with "
            "split_gaps=True (--split_gaps), or allow them with max_gap (--max_gap)."
        )
    edges = [0, *(gaps + 1).tolist(), len(times)]
    for k, (start, stop) in enumerate(zip(edges, edges[1:], strict=False)):
        name = f"{recording.name}, part {k}" if len(gaps) else recording.name
        yield between(recording, start, stop, name)


def between(recording: Recording, start: int, stop: int, name: str) -> Recording:
    """Rows of a recording as an episode; its last action leads out of it."""
    rows = slice(start, stop)
    last = stop == recording.rows
    return Recording(
        name=name,
        obs={key: column[rows] for key, column in recording.obs.items()},
        actions={key: column[rows] for key, column in recording.actions.items()},
        rewards=None if recording.rewards is None else recording.rewards[rows],
        terminal=recording.terminal and last,
        times=None if recording.times is None else recording.times[rows],
    )


def resampled(recording: Recording, period: float) -> Recording:
    """A recording with a row every `period` seconds, from its first.

    It has one action less than rows, or none. What remains at the end, less than a period,
    is left out.
    """
    times = recording.times
    assert times is not None
    steps = int((times[-1] - times[0]) / period + _TOLERANCE)
    grid = times[0] + period * np.arange(steps + 1)  # [steps + 1]
    grid[-1] = min(grid[-1], times[-1])
    whole = times[-1] - grid[-1] <= _TOLERANCE * period
    return Recording(
        name=recording.name,
        obs={key: _at(grid, times, key, rows) for key, rows in recording.obs.items()},
        actions={
            key: _means(grid, times, column) for key, column in recording.actions.items()
        },
        terminal=recording.terminal and whole,
        times=grid,
    )


def fits(times: np.ndarray, period: float) -> bool:
    """Whether there is a row every `period` seconds, but for jitter."""
    ideal = times[0] + period * np.arange(len(times))
    return bool(np.all(np.abs(times - ideal) <= _TOLERANCE * period))


def _at(grid: np.ndarray, times: np.ndarray, key: str, rows: np.ndarray) -> np.ndarray:
    if rows.ndim > 1:
        later = np.searchsorted(times, grid).clip(1, len(times) - 1)
        nearer = grid - times[later - 1] <= times[later] - grid
        return rows[np.where(nearer, later - 1, later)]
    turn = _TURN.get(select.unit(key))
    spread = np.ptp(rows) if np.isfinite(rows).all() else math.inf
    if turn is None or spread > turn * (1 + 1e-6):  # no angle, or it counts its turns
        return np.interp(grid, times, rows)
    along = np.interp(grid, times, np.unwrap(rows, period=turn))
    # Back to where it was kept: [-180°, 180°], or [0°, 360°].
    low = -turn / 2 if rows.min() < 0 or rows.max() <= turn / 2 else 0.0
    inside = (along >= low) & (along <= low + turn)
    return np.where(inside, along, low + np.mod(along - low, turn))


def _means(grid: np.ndarray, times: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Means of what is held between rows, `[steps]`, over the steps of the grid."""
    held = column[: len(times) - 1].astype(np.float64)
    total = np.concatenate([[0.0], np.cumsum(held * np.diff(times))])
    return np.diff(np.interp(grid, times, total)) / np.diff(grid)
