"""Reads an `.npz` without pickles: arrays of all episodes, one after another.

obs      [Σ(L + 1), O]     one row more than transitions in each episode
lengths  [N]               transitions of each episode
acts     [Σ L, U]          or [Σ L], the numbers of choices; absent: observations only
rews     [Σ L]             absent: rewards are unknown
terminal [N]               absent: no episode ended for good
"""

import zipfile
from typing import Any

import numpy as np

from planil_jax.base import EnvSpec, UsageError
from planil_jax.data.demo_file import Episode


def read(source: str, spec: EnvSpec, count: int) -> list[Episode]:
    """The first `count` episodes of a file.

    Actions are clipped to the bounds of the environment.

    Raises:
      UsageError: the file is no such .npz, or does not fit the environment.
    """
    arrays = _load(source)
    lengths = arrays["lengths"].astype(int)
    if count > len(lengths):
        raise UsageError(f"{source} has {len(lengths)} episodes, not {count}.")
    if "acts" in arrays:
        arrays["acts"] = _one_hot(source, arrays["acts"], spec)
    _check_shapes(source, arrays, lengths, spec)
    ends = np.cumsum(lengths)
    return [
        _episode(arrays, n, slice(ends[n] - lengths[n], ends[n]), spec)
        for n in range(count)
    ]


def _episode(arrays: dict[str, np.ndarray], n: int, steps: slice, spec: EnvSpec) -> Episode:
    """Episode n, whose transitions are these steps of all."""
    actions = None
    if "acts" in arrays:
        actions = arrays["acts"][steps].clip(spec.action_low, spec.action_high)
        actions = actions.astype(np.float32)
    return Episode(
        obs=arrays["obs"][steps.start + n : steps.stop + n + 1].astype(np.float32),
        actions=actions,
        rewards=arrays["rews"][steps] if "rews" in arrays else None,
        terminal=bool(arrays["terminal"][n]) if "terminal" in arrays else False,
    )


def _check_shapes(
    source: str, arrays: dict[str, np.ndarray], lengths: np.ndarray, spec: EnvSpec
) -> None:
    steps, count = int(lengths.sum()), len(lengths)
    expected: dict[str, Any] = {
        "obs": (steps + count, spec.observation_size),
        "acts": (steps, spec.action_size),
        "rews": (steps,),
        "terminal": (count,),
    }
    for name, shape in expected.items():
        if name in arrays and arrays[name].shape != shape:
            raise UsageError(
                f"{source}: {name} is {arrays[name].shape}, where its lengths and "
                f"{spec.name} want {shape}."
            )


def _one_hot(source: str, actions: np.ndarray, spec: EnvSpec) -> np.ndarray:
    """Numbers of choices `[T]` as one-hot vectors `[T, U]`; other actions as they are."""
    if not (spec.discrete and actions.ndim == 1):
        return actions
    numbers = np.arange(spec.action_size)
    if not np.isin(actions, numbers).all():
        raise UsageError(
            f"{source}: acts are {actions.min()} to {actions.max()}, where {spec.name} "
            f"numbers its {spec.action_size} choices from 0."
        )
    return actions[:, None] == numbers


def _load(source: str) -> dict[str, np.ndarray]:
    try:
        with np.load(source, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{source} is no readable .npz without pickles: {error}."
        ) from None
    for name in ("obs", "lengths"):
        if name not in arrays:
            raise UsageError(
                f"{source} lacks {name!r}; it holds {', '.join(arrays) or 'nothing'}."
            )
    return arrays
