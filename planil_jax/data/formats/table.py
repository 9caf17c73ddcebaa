"""A log: a table with a row a moment, of whatever file, as episodes.

Columns are found by their names: those of the environment's entries, and those that
`Options` names for time stamps, actions, rewards, ends and episodes. Others are not read.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from planil_jax.base import EnvSpec, UsageError, printable
from planil_jax.data.formats import select
from planil_jax.data.formats.recording import Options, Recording, Source, listed

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


class Table(Protocol):
    """A table; a column may come as several, "state.0", "state.1"."""

    @property
    def labels(self) -> Sequence[str]:
        """The names of the columns."""

    def numbers(self, label: str) -> np.ndarray:
        """A column of numbers, `[rows]`, NaN where there is none."""

    def texts(self, label: str) -> np.ndarray:
        """A column of whatever, `[rows]`, to be compared alone."""

    def stamps(self, label: str, seconds: float) -> np.ndarray:
        """A column of times, `[rows]` seconds; numbers are in units of `seconds`."""


def source(
    table: Table, kind: str, shown: str, options: Options, spec: EnvSpec | None
) -> Source:
    """The episodes of a table.

    Raises:
      UsageError: a column that is wanted is not there, or the rows of an episode are not
        together.
    """
    one = _one_column(table, shown)
    roles = {
        role: one(name)
        for role in ("time", "split_by", "rewards", "terminal")
        if (name := getattr(options, role))
    }
    actions = [
        label
        for name in options.actions
        for label in select.expand(table.labels, name, shown)
    ]
    free = [name for name in table.labels if name not in {*roles.values(), *actions}]
    chosen = [pair[0] for pair in select.pairs(free, options.names, spec, shown)]
    obs = {label: table.numbers(label) for label in chosen}
    taken = {label: table.numbers(label) for label in actions}
    times = _times(table, roles.get("time"), options)
    received = table.numbers(roles["rewards"]) if "rewards" in roles else None
    ends = table.numbers(roles["terminal"]) if "terminal" in roles else None
    rows = len(next(iter(obs.values())))
    bounds, names = _episodes(table, roles.get("split_by"), rows, shown)

    def load(n: int) -> Recording:
        cut = slice(*bounds[n])
        steps = slice(cut.start, max(cut.start, cut.stop - 1))
        return Recording(
            name=names[n],
            obs={label: column[cut] for label, column in obs.items()},
            actions={label: column[steps] for label, column in taken.items()},
            rewards=None if received is None else received[steps],
            terminal=bool(ends is not None and np.any(ends[cut][-1:] > 0)),
            times=None if times is None else times[cut],
        )

    used = {*roles.values(), *actions, *chosen}
    unread = [label for label in table.labels if label not in used]
    notes = [f"left unread: {listed(unread)}."] if unread else []
    if actions:
        notes.append(
            "the action in the last row of an episode, which ends there, is left out."
        )
    return Source(shown, kind, len(bounds), load, notes=notes)


def _one_column(table: Table, shown: str) -> Callable[[str], str]:
    return lambda name: select.expand(table.labels, name, shown, single=True)[0]


def _times(table: Table, label: str | None, options: Options) -> np.ndarray | None:
    if label is None:
        return None
    unit = select.unit(label)
    return table.stamps(label, _SECONDS.get(unit, _SECONDS[options.time_unit]))


def _episodes(
    table: Table, label: str | None, rows: int, shown: str
) -> tuple[list[tuple[int, int]], list[str]]:
    """First and last row of each episode, and their names."""
    if label is None:
        return [(0, rows)], ["the log"]
    keys = table.texts(label)
    starts = [0, *(np.flatnonzero(keys[1:] != keys[:-1]) + 1).tolist()] if rows else []
    bounds = list(zip(starts, [*starts[1:], rows], strict=False)) if rows else []
    seen: set[str] = set()
    for start, _ in bounds:
        if (key := str(keys[start])) in seen:
            raise UsageError(
                f"{shown}, row {start}: {label} is {printable(key)} again, after other "
                f"episodes: sort the rows by {label}."
            )
        seen.add(key)
    return bounds, [f"{label} {printable(str(keys[start]))}" for start, _ in bounds]
