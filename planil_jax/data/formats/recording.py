"""What a reader makes of a source: episodes as the source holds them, in named columns."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from planil_jax.base import UsageError, printable

TimeUnit = Literal["s", "ms", "us", "ns"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a source is read; every field is an argument of `pj.load_demos`."""

    # Their columns -> names of the environment; or arrays whose columns together are the
    # environment's entries in its order; (): by equal names, or in order.
    names: Mapping[str, str] | tuple[str, ...] = ()
    actions: tuple[str, ...] = ()  # columns or arrays, in the order of an action's entries
    time: str = ""  # the column of time stamps of a table
    time_unit: TimeUnit = "s"  # of time stamps that do not say theirs
    period: float | None = None  # seconds between rows without time stamps
    split_by: str = ""  # the column of a table whose changes separate episodes
    rewards: str = ""  # the column of a table
    terminal: str = ""  # the column of a table: true where an episode ends for good
    max_gap: float | None = None  # seconds between rows, at most; None: twice the usual
    split_gaps: bool = False  # whether longer gaps separate episodes, or are refused
    every: int = 1  # every how manieth pair is kept, as an episode of a single step
    clip: bool = False  # whether actions beyond their bounds are clipped
    skip_empty: bool = False  # whether episodes without transitions are left out
    drop_invalid: bool = False  # whether episodes that would be refused are left out


@dataclass(frozen=True)
class Recording:
    """An episode as its source holds it."""

    name: str  # as messages name it: "demo_3"
    obs: Mapping[str, np.ndarray]  # column -> [rows]; pictures [rows, H, W, 3] uint8
    # column -> [rows] or [rows - 1]: what the last of `rows` leads to is not there
    actions: Mapping[str, np.ndarray] = field(default_factory=dict)
    rewards: np.ndarray | None = None  # as many as actions
    terminal: bool = False
    times: np.ndarray | None = None  # [rows] seconds
    unread: Sequence[str] = ()  # what else is there, such as texts

    @property
    def rows(self) -> int:
        return len(next(iter(self.obs.values())))


@dataclass(frozen=True)
class Source:
    """A file or directory of episodes that are read one at a time."""

    path: str
    kind: str  # of its layout, for the card
    count: int
    load: Callable[[int], Recording]  # it may raise UsageError
    ordered: bool = False  # columns have no names but an order, that of the environment
    notes: Sequence[str] = ()


def columns(
    key: str, array: np.ndarray, names: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """An array `[rows, ...]` as columns: "key", or "key.0", "key.1" and so on.

    Args:
      names: of the columns, in place of numbers.
    """
    if array.ndim == 1 or array.ndim == 4 and array.dtype == np.uint8:
        return {key: array}
    flat = array.reshape(len(array), math.prod(array.shape[1:]))
    if flat.shape[1] == 1 and not names:
        return {key: flat[:, 0]}
    inner = names if len(names) == flat.shape[1] else range(flat.shape[1])
    return {f"{key}.{name}": flat[:, i] for i, name in enumerate(inner)}


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names that came from a file, for a sentence: "a, b and 3 more"."""
    shown = ", ".join(printable(name) for name in names[:most])
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{shown}{more}" if names else "nothing"


def joined(
    obs: np.ndarray,
    following: np.ndarray,
    where: str,
    what: str,
    mend: str = "leave it out with drop_invalid=True (--drop_invalid)",
) -> np.ndarray:
    """Observations `[L, ...]` and what followed each of them, as one array `[L + 1, ...]`.

    Args:
      where: of messages, source and episode.
      what: the name of `following`.

    Raises:
      UsageError: what followed a row is not the next row.
    """
    if obs.shape != following.shape:
        raise UsageError(
            f"{where}: {what} is {following.shape} and the observations are {obs.shape}: "
            "write the file anew."
        )
    if (breaks := discontinuous(obs, following)).any():
        row = int(np.argmax(breaks))
        raise UsageError(
            f"{where}: {what} of row {row} is not the observation of row {row + 1}, as "
            f"where an episode ends that the source does not tell of: {mend}."
        )
    return np.concatenate([obs, following[-1:]])


def discontinuous(obs: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Whether what followed a row is not the next row, `[L - 1]`."""
    entries = tuple(range(1, obs.ndim))
    known = ~np.isnan(obs[1:]).any(entries)  # NaN is refused later
    same = np.isclose(obs[1:], following[:-1], 1e-5, 1e-6).all(entries)
    return known & ~same
