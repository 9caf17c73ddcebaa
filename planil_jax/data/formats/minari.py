"""Reads a Minari dataset in HDF5, a directory or its `data/main_data.hdf5`.

episode_0/observations     [L + 1, O], or a group of such arrays, maybe of groups
episode_0/actions          [L, U] or [L], or a group
episode_0/rewards          [L]
episode_0/terminations     [L] bool: the last says whether the episode ended for good
episode_0/truncations      [L] bool

Source: https://minari.farama.org/content/dataset_standards (2023 to 2025).
"""

from pathlib import Path

import numpy as np

from planil_jax.base import EnvSpec, UsageError
from planil_jax.data.formats import hdf5, recording
from planil_jax.data.formats.recording import Options, Recording, Source

_PREFIX = "episode_"
_FILE = "main_data.hdf5"


def in_directory(directory: Path) -> bool:
    """Whether a dataset is there."""
    return _file(directory) is not None


def is_one(root) -> bool:
    """Whether an open HDF5 file is laid out so."""
    return any(name.startswith(_PREFIX) for name in root)


def read(path: Path, options: Options, spec: EnvSpec | None, shown: str) -> Source:
    """The episodes of a file.

    Args:
      shown: the source as messages name it.
    """
    file = hdf5.File(_file(path) or path, shown)
    with file.opened() as root:
        names = file.groups(root, _PREFIX)
        first = file.child(root, names[0]) if names else {}
        ordered = not hasattr(file.child(first, "observations") if names else None, "keys")
        told = root.attrs.get("total_episodes")
    if told is not None and int(told) != len(names):
        raise UsageError(
            f"{shown} says that it holds {int(told)} episodes, and has {len(names)}: copy "
            "it again."
        )

    def load(n: int) -> Recording:
        with file.opened() as root:
            group = file.child(root, names[n])
            unread: list[str] = []
            terminations = file.array(group, "terminations", "biu")
            rewards = file.array(group, "rewards")
            return Recording(
                name=names[n],
                obs=_columns(file.arrays(group, "observations", unread)),
                actions=_columns(file.arrays(group, "actions")),
                rewards=None if rewards is None else rewards.reshape(len(rewards)),
                terminal=bool(terminations is not None and np.any(terminations[-1:])),
                unread=unread,
            )

    return Source(shown, "a Minari dataset", len(names), load, ordered)


def _columns(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        found |= recording.columns(key, array)
    return found


def _file(directory: Path) -> Path | None:
    """The HDF5 file of a dataset's directory; None: it is none."""
    for path in (directory / "data" / _FILE, directory / _FILE):
        if path.is_file():
            return path
    return None
