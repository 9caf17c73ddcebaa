"""Reads an `.npz` without unpickling: arrays of all episodes, one after another.

obs      [Σ(L + 1), O]     one row more than transitions in each episode
lengths  [N]               transitions of each episode
indices  [N - 1]           in place of lengths: where the later episodes start in `acts`
acts     [Σ L, U]          or [Σ L], the numbers of choices; absent: observations only
rews     [Σ L]             absent: rewards are unknown
terminal [N]               absent: no episode ended for good

Other arrays are left unread.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from planil_jax.base import EnvSpec, UsageError
from planil_jax.data import archive
from planil_jax.data.formats import recording
from planil_jax.data.formats.recording import Options, Recording, Source

_KINDS = {
    "obs": archive.NUMBERS,
    "lengths": archive.WHOLE,
    "indices": archive.WHOLE,
    "acts": archive.NUMBERS,
    "rews": archive.NUMBERS,
    "terminal": archive.TRUTHS,
}
_MEND = "copy it again, or write it as plain arrays"


def read(path: Path, options: Options, spec: EnvSpec | None, shown: str) -> Source:
    """The episodes of a file.

    Args:
      shown: the source as messages name it.

    Raises:
      UsageError: the file is no such .npz.
    """
    arrays, notes = _load(shown)
    lengths = _lengths(shown, arrays)
    _check_rows(shown, arrays, lengths)
    ends = np.cumsum(lengths)

    def load(n: int) -> Recording:
        steps = slice(int(ends[n] - lengths[n]), int(ends[n]))
        rows = arrays["obs"][steps.start + n : steps.stop + n + 1]
        acts = arrays["acts"][steps] if "acts" in arrays else None
        return Recording(
            name=f"episode {n}",
            obs=recording.columns("obs", rows),
            actions={} if acts is None else recording.columns("acts", acts),
            rewards=arrays["rews"][steps] if "rews" in arrays else None,
            terminal=bool(arrays["terminal"][n]) if "terminal" in arrays else False,
        )

    return Source(shown, "arrays", len(lengths), load, ordered=True, notes=notes)


def _check_rows(source: str, arrays: dict[str, np.ndarray], lengths: np.ndarray) -> None:
    steps, count = int(lengths.sum()), len(lengths)
    rows = {"obs": steps + count, "acts": steps, "rews": steps, "terminal": count}
    ranks = {"obs": (2, 4), "acts": (1, 2), "rews": (1,), "terminal": (1,)}
    for name, wanted in rows.items():
        shape = arrays[name].shape if name in arrays else None
        if shape is not None and (len(shape) not in ranks[name] or shape[0] != wanted):
            raise UsageError(
                f"{source}: {name} is {shape}, where its lengths want {wanted} rows: write "
                "the file anew."
            )


def _lengths(source: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Transitions of each episode, `[N]` int64, of `lengths` or of `indices`."""
    name = "lengths" if "lengths" in arrays else "indices"
    given, rows = arrays[name], len(np.atleast_1d(arrays["obs"]))
    if given.ndim != 1:
        raise UsageError(f"{source}: {name} is {given.shape}, where [N] is wanted.")
    # Beyond the rows there are, lengths might overflow where they are added.
    lengths = given.clip(max=rows).astype(np.int64)
    if name == "indices":
        steps = rows - len(given) - 1
        lengths = np.diff(np.concatenate([[0], lengths, [steps]]))
    if len(lengths) == 0 or lengths.min() < 0:
        raise UsageError(
            f"{source}: {name} must say of one episode or more how many transitions it has."
        )
    return lengths


def _load(source: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays that are wanted, and a sentence about the others."""
    notes = []

    def choose(names: tuple[str, ...]) -> Mapping[str, str]:
        has_lengths = "lengths" in names or "indices" in names
        for name, there in (("obs", "obs" in names), ("lengths", has_lengths)):
            if not there:
                raise UsageError(
                    f"{source} lacks {name!r}; it holds {archive.listed(names)}."
                )
        wanted = {name: kinds for name, kinds in _KINDS.items() if name in names}
        if "lengths" in wanted:
            wanted.pop("indices", None)
        if unread := tuple(name for name in names if name not in wanted):
            notes.append(f"left unread: {archive.listed(unread)}.")
        return wanted

    return archive.read(Path(source), choose, _MEND), notes
