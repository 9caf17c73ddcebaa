"""Reads a LeRobot dataset of version 2 or 3, a directory, without torch.

meta/info.json       codebase_version, fps, total_episodes, total_frames, features
data/**/*.parquet    a row a frame: episode_index, timestamp, action, observation.*

What a feature's columns are called stands in `features`. Pictures are taken where their
decoded frames are in the rows, as lists of numbers; videos are not decoded. The last
action of an episode leads to nothing that was recorded.

Source: https://github.com/huggingface/lerobot, docs "LeRobotDataset" (2024 to 2026).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from planil_jax.base import EnvSpec, UsageError, printable
from planil_jax.config import parse_json
from planil_jax.data.formats import parquet, recording
from planil_jax.data.formats.recording import Options, Recording, Source, listed

_INFO = Path("meta") / "info.json"
_PREFIX = "observation."
_VERSIONS = ("v2", "v3")


def in_directory(directory: Path) -> bool:
    return (directory / _INFO).is_file()


def read(path: Path, options: Options, spec: EnvSpec | None, shown: str) -> Source:
    """The episodes of a dataset.

    Args:
      shown: the source as messages name it.
    """
    info = _info(path / _INFO, shown)
    features: Mapping[str, Any] = info.get("features", {})
    files = sorted((path / "data").rglob("*.parquet"))
    if not files:
        raise UsageError(f"{shown} has no data/*.parquet: copy the whole dataset.")
    wanted = [name for name in features if name.startswith(_PREFIX)]
    unread = [name for name in wanted if _dtype(features[name]) in ("video", "image")]
    wanted = [name for name in wanted if name not in unread]
    rows = _rows(files, [*wanted, "action", "next.reward", "next.done"], shown)
    index = rows.pop("episode_index", None)
    if index is None:
        raise UsageError(f"{shown}: its parquet files lack 'episode_index': copy it again.")
    _require_told(info, index, shown)
    numbers, starts = np.unique(index, return_index=True)
    bounds = [*starts.tolist(), len(index)]
    if np.any(np.diff(index) < 0):
        raise UsageError(
            f"{shown}: the rows of an episode are not together: write it anew."
        )

    def load(n: int) -> Recording:
        cut = slice(bounds[n], bounds[n + 1])
        there = {name: array[cut] for name, array in rows.items()}
        obs: dict[str, np.ndarray] = {}
        for name in wanted:
            if name in there:
                obs |= recording.columns(name, _frames(there[name]), _names(features[name]))
        actions, rewards = there.get("action"), there.get("next.reward")
        return Recording(
            name=f"episode {int(numbers[n])}",
            obs=obs,
            actions={}
            if actions is None
            else recording.columns("action", actions, _names(features.get("action"))),
            rewards=None if rewards is None else rewards.reshape(len(rewards)),
            times=there.get("timestamp"),
        )

    notes = []
    if unread:
        notes.append(
            f"left unread, because their frames are not decoded: {listed(unread)}."
        )
    return Source(shown, "a LeRobot dataset", len(numbers), load, notes=notes)


def _info(path: Path, shown: str) -> Mapping[str, Any]:
    try:
        info = parse_json(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, UsageError, json.JSONDecodeError) as error:
        raise UsageError(f"{shown}: {_INFO} is no sound JSON: copy it again.") from error
    version = str(info.get("codebase_version", "")) if isinstance(info, Mapping) else ""
    if not version.startswith(_VERSIONS) or not isinstance(info.get("features"), Mapping):
        raise UsageError(
            f"{shown}: {_INFO} says version {printable(version)!r}, where v2 or v3 and "
            "`features` are wanted: convert it by LeRobot's own scripts."
        )
    return info


def _rows(files: list[Path], wanted: list[str], shown: str) -> dict[str, np.ndarray]:
    """Columns of all files, in the order of episodes."""
    names = ["episode_index", "timestamp", *wanted]
    parts: dict[str, list[np.ndarray]] = {}
    for path in files:
        loaded = parquet.load(path, str(path), names)
        with parquet.errors(str(path)):
            for name in loaded.column_names:
                where = f"{path}: {printable(name)!r}"
                array = parquet.array(loaded.column(name), where)
                parts.setdefault(name, []).append(array)
    if len({len(arrays) for arrays in parts.values()}) > 1:
        raise UsageError(f"{shown}: its parquet files have unlike columns: copy it again.")
    try:
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}
    except ValueError as error:
        raise UsageError(
            f"{shown}: its parquet files have columns of unlike sizes: copy it again."
        ) from error


def _require_told(info: Mapping[str, Any], index: np.ndarray, shown: str) -> None:
    found = {"total_episodes": len(np.unique(index)), "total_frames": len(index)}
    for name, count in found.items():
        told = info.get(name)
        if isinstance(told, int) and told != count:
            raise UsageError(
                f"{shown}: {_INFO} says {name} {told}, and its data have {count}: copy the "
                "whole dataset."
            )


def _dtype(feature: Any) -> str:
    return str(feature.get("dtype", "")) if isinstance(feature, Mapping) else ""


def _names(feature: Any) -> tuple[str, ...]:
    """What the columns of a feature are called; (): nothing."""
    names = feature.get("names") if isinstance(feature, Mapping) else None
    if isinstance(names, Mapping):  # {"motors": [...]}
        names = next(iter(names.values()), None)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names) if len(set(names)) == len(names) else ()


def _frames(array: np.ndarray) -> np.ndarray:
    """Decoded frames `[rows, H, W, 3]` as uint8; other arrays as they are."""
    whole = array.ndim == 4 and array.shape[-1] == 3 and array.dtype.kind in "iu"
    if whole and (not array.size or (array.min() >= 0 and array.max() <= 255)):
        return array.astype(np.uint8)
    return array
