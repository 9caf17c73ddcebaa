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
from typing import Any

import numpy as np

from planil_jax.base import EnvSpec, UsageError
from planil_jax.data import archive, demo_file
from planil_jax.data.demo_file import Episode

_KINDS = {
    "obs": archive.NUMBERS,
    "lengths": archive.WHOLE,
    "indices": archive.WHOLE,
    "acts": archive.NUMBERS,
    "rews": archive.NUMBERS,
    "terminal": archive.TRUTHS,
}
_MEND = "copy it again, or write it as plain arrays"


def read(
    source: str, spec: EnvSpec, count: int, *, clip: bool = False, skip_empty: bool = False
) -> tuple[list[Episode], list[str]]:
    """The first `count` episodes of a file, and a sentence for all that was changed.

    Actions may exceed the bounds of the environment by rounding, and are clipped then.

    Args:
      clip: whether actions further beyond the bounds are clipped, too.
      skip_empty: whether episodes without transitions are left out.

    Raises:
      UsageError: the file is no such .npz, or does not fit the environment.
    """
    arrays, notes = _load(source)
    lengths = _lengths(source, arrays)
    if "acts" in arrays:
        arrays["acts"] = _one_hot(source, arrays["acts"], spec)
    _check_shapes(source, arrays, lengths, spec)
    chosen = np.flatnonzero(lengths) if skip_empty else np.arange(len(lengths))
    if count > len(chosen):
        raise UsageError(f"{source} has {len(chosen)} episodes, not {count}.")
    chosen = chosen[:count]
    if not lengths[chosen].all():
        empty = chosen[lengths[chosen] == 0][0]
        raise UsageError(
            f"{source}: episode {empty} has no transitions: leave such episodes out with "
            "skip_empty=True (--skip_empty)."
        )
    if skipped := int(chosen[-1]) + 1 - count:
        notes.append(f"episodes without transitions, left out: {skipped}.")
    ends = np.cumsum(lengths)
    parts = [(int(n), slice(ends[n] - lengths[n], ends[n])) for n in chosen]
    obs = [arrays["obs"][steps.start + n : steps.stop + n + 1] for n, steps in parts]
    demo_file.refuse_rounding(obs, f"{source}: obs", spec.observation_names)
    if "acts" in arrays:
        notes += _check_actions(source, arrays["acts"], parts, spec, clip)
    return [_episode(arrays, n, steps, spec) for n, steps in parts], notes


def _episode(arrays: dict[str, np.ndarray], n: int, steps: slice, spec: EnvSpec) -> Episode:
    """Episode n, whose transitions are these steps of all."""
    actions = None
    if "acts" in arrays:
        actions = arrays["acts"][steps].clip(spec.action_low, spec.action_high)
        actions = actions.astype(np.float32)
    with np.errstate(over="ignore"):  # what overflows becomes inf, and is refused later
        obs = arrays["obs"][steps.start + n : steps.stop + n + 1].astype(np.float32)
    return Episode(
        obs=obs,
        actions=actions,
        rewards=arrays["rews"][steps] if "rews" in arrays else None,
        terminal=bool(arrays["terminal"][n]) if "terminal" in arrays else False,
    )


def _check_actions(
    source: str,
    actions: np.ndarray,
    parts: list[tuple[int, slice]],
    spec: EnvSpec,
    clip: bool,
) -> list[str]:
    """Refuses actions that are not finite, or beyond their bounds; says how many are."""
    low, high = np.array(spec.action_low), np.array(spec.action_high)
    slack = 1e-6 + 1e-5 * (high - low)
    beyond = total = 0
    for n, steps in parts:
        taken = actions[steps]
        outside = ~((taken >= low - slack) & (taken <= high + slack))
        refused = ~np.isfinite(taken) if clip else outside
        for step, entry in np.argwhere(refused)[:1]:
            value, bounds = taken[step, entry], f"[{low[entry]:g}, {high[entry]:g}]"
            complaint, mend = (
                f"outside {spec.name}'s bounds {bounds}",
                ("scale the actions, or clip them with clip=True (--clip)"),
            )
            if not np.isfinite(value):
                complaint, mend = "not finite", "leave the episode out of the source"
            raise UsageError(
                f"{source}: acts of episode {n}, step {step}, entry {entry}: {value:g} is "
                f"{complaint}: {mend}."
            )
        beyond, total = beyond + int(outside.sum()), total + outside.size
    if not beyond:
        return []
    return [f"{beyond} of {total} numbers of actions were clipped to their bounds."]


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
    return (actions[:, None] == numbers).astype(np.float32)


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
