"""Reads demonstrations in HDF5 as robomimic keeps them.

data/demo_0                attributes: num_samples L
data/demo_0/obs/NAME       [L, k], or pictures [L, H, W, 3] uint8
data/demo_0/next_obs/NAME  [L, k], maybe: what the last action led to
data/demo_0/actions        [L, U]
data/demo_0/rewards        [L], maybe
data/demo_0/dones          [L]: 1 where the task was solved, or where the episode ended

`dones` of a task that never ends early mark success, and are no end for good.

Source: https://robomimic.github.io/docs/datasets/overview.html (2021 to 2025).
"""

from pathlib import Path

import numpy as np

from planil_jax.base import EnvSpec, UsageError
from planil_jax.data.formats import hdf5, recording
from planil_jax.data.formats.recording import Options, Recording, Source


def is_one(root) -> bool:
    """Whether an open HDF5 file is laid out so."""
    return "data" in root and any(name.startswith("demo") for name in root["data"])


def read(path: Path, options: Options, spec: EnvSpec | None, shown: str) -> Source:
    """The demonstrations of a file.

    Args:
      shown: the source as messages name it.
    """
    file = hdf5.File(path, shown)
    with file.opened() as root:
        data = file.child(root, "data")
        names = file.groups(data, "demo")
        first = file.child(data, names[0]) if names else {}
        alone = "obs" in first and len(file.child(first, "obs")) == 1

    def load(n: int) -> Recording:
        with file.opened() as root:
            return _recording(file, file.child(root, "data"), names[n], spec, shown)

    return Source(shown, "robomimic's HDF5", len(names), load, ordered=alone)


def _recording(
    file: hdf5.File, data, name: str, spec: EnvSpec | None, shown: str
) -> Recording:
    group = file.child(data, name)
    unread: list[str] = []
    obs = file.arrays(group, "obs", unread)
    if not obs:
        raise UsageError(
            f"{shown}: {name} has no observations: extract them first, by robomimic's "
            "dataset_states_to_obs.py."
        )
    told, counts = group.attrs.get("num_samples"), {len(array) for array in obs.values()}
    if told is not None and {int(told)} != counts:
        raise UsageError(
            f"{shown}: {name} says that it has {int(told)} samples, and has "
            f"{', '.join(map(str, sorted(counts)))}: copy the file again, or leave the "
            "episode out with drop_invalid=True (--drop_invalid)."
        )
    following = file.arrays(group, "next_obs")
    whole = set(obs) <= set(following)
    columns: dict[str, np.ndarray] = {}
    for key, array in obs.items():
        if whole:
            array = recording.joined(
                array, following[key], f"{shown}: {name}", f"next_obs/{key}"
            )
        columns |= recording.columns(key, array)
    dones = file.array(group, "dones")
    rewards = file.array(group, "rewards")
    ended = dones is not None and bool(np.any(dones[-1:])) and whole
    return Recording(
        name=name,
        obs=columns,
        actions={
            label: column
            for key, array in file.arrays(group, "actions").items()
            for label, column in recording.columns(key, array).items()
        },
        rewards=None if rewards is None else rewards.reshape(len(rewards)),
        terminal=ended and (spec is None or spec.terminates),
        unread=unread,
    )
