"""Reads arrays of all steps, as D4RL keeps them, from HDF5 or an `.npz`.

observations        [T, O]
next_observations   [T, O], maybe: what the last action of an episode led to
actions             [T, U]
rewards             [T], maybe
terminals           [T] bool: the episode ended for good with this step
timeouts            [T] bool, maybe: it ended by time

What follows the last end is an episode that ended by time.

Source: J. Fu et al. 2020, D4RL, arXiv 2004.07219.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from planil_jax.base import EnvSpec, UsageError
from planil_jax.data import archive
from planil_jax.data.formats import hdf5, recording
from planil_jax.data.formats.recording import Options, Recording, Source

_MEND = "let it separate episodes with split_gaps=True (--split_gaps)"
_TRUTHS = archive.TRUTHS + archive.NUMBERS
_KINDS = {
    "observations": archive.NUMBERS,
    "next_observations": archive.NUMBERS,
    "actions": archive.NUMBERS,
    "rewards": archive.NUMBERS,
    "terminals": _TRUTHS,
    "timeouts": _TRUTHS,
}


def is_one(names) -> bool:
    """Whether these are the names of its arrays."""
    return "observations" in names and ("terminals" in names or "timeouts" in names)


def read(path: Path, options: Options, spec: EnvSpec | None, shown: str) -> Source:
    """The episodes of a file.

    Args:
      shown: the source as messages name it.
    """
    unread: list[str] = []
    if path.suffix == ".npz":
        arrays = _of_archive(path, unread)
    else:
        arrays = _of_hdf5(path, shown, unread)
    steps = len(np.atleast_1d(arrays["observations"]))
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != steps:
            raise UsageError(
                f"{shown}: {name} has the shape {array.shape} and there are {steps} "
                "observations: write the file anew."
            )
    ended = np.zeros(steps, bool)
    for name in ("terminals", "timeouts"):
        if name in arrays:
            ended |= arrays[name].reshape(steps).astype(bool)
    if options.split_gaps and "next_observations" in arrays and steps:
        both = arrays["observations"], arrays["next_observations"]
        if both[0].shape == both[1].shape:  # else it is refused below
            ended[:-1] |= recording.discontinuous(*both)
    stops = np.flatnonzero(ended) + 1
    if steps and not ended[-1]:
        stops = np.append(stops, steps)
    starts = np.concatenate([[0], stops[:-1]])

    def load(n: int) -> Recording:
        rows = slice(int(starts[n]), int(stops[n]))
        name, obs = f"episode {n} (from row {rows.start})", arrays["observations"][rows]
        terminal = "terminals" in arrays and bool(np.any(arrays["terminals"][rows][-1:]))
        if "next_observations" in arrays:
            following = arrays["next_observations"][rows]
            obs = recording.joined(
                obs, following, f"{shown}: {name}", "next_observations", _MEND
            )
        rewards = arrays["rewards"][rows] if "rewards" in arrays else None
        actions = arrays["actions"][rows] if "actions" in arrays else None
        return Recording(
            name=name,
            obs=recording.columns("observations", obs),
            actions={} if actions is None else recording.columns("actions", actions),
            rewards=None if rewards is None else rewards.reshape(len(rewards)),
            terminal=terminal,
        )

    notes = [f"left unread: {recording.listed(unread)}."] if unread else []
    kind = "arrays as of D4RL"
    return Source(shown, kind, len(stops), load, ordered=True, notes=notes)


def _of_archive(path: Path, unread: list[str]) -> dict[str, np.ndarray]:
    def choose(names: tuple[str, ...]) -> Mapping[str, str]:
        unread.extend(name for name in names if name not in _KINDS)
        return {name: kinds for name, kinds in _KINDS.items() if name in names}

    return archive.read(path, choose, "copy it again, or write it as plain arrays")


def _of_hdf5(path: Path, shown: str, unread: list[str]) -> dict[str, np.ndarray]:
    file = hdf5.File(path, shown)
    with file.opened() as root:
        unread.extend(name for name in root if name not in _KINDS)
        found = {name: file.array(root, name, kinds) for name, kinds in _KINDS.items()}
    return {name: array for name, array in found.items() if array is not None}
