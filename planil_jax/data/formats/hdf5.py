"""An HDF5 file that anybody may have made, read by h5py.

Nothing is believed before it is checked: a link that leaves the file is not followed, an
array is of numbers, is whole, and fits the free memory.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from planil_jax.base import UsageError, UserError, missing_extra, printable
from planil_jax.data import archive

MAGIC = b"\x89HDF\r\n\x1a\n"
SUFFIXES = (".hdf5", ".h5", ".hdf")
_MEND = "copy it again, or write it anew"
_DEPTH = 4  # of groups within groups


def is_one(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC or path.suffix in SUFFIXES


class File:
    """An open file; groups and arrays by their paths."""

    def __init__(self, path: Path, shown: str):
        self.path = path
        self.shown = shown  # as messages name it

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """The root group.

        Raises:
          UsageError: it is no sound HDF5 file.
          UserError: h5py is not installed.
        """
        try:
            import h5py
        except ModuleNotFoundError as error:
            raise missing_extra(f"reading {self.shown}", "h5py", "hdf5") from error
        try:
            with h5py.File(self.path, "r") as root:
                yield root
        except UserError:
            raise
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = printable(str(error).strip("'\""), 120)
            raise UsageError(
                f"{self.shown} is damaged or cut short ({reason}): {_MEND}."
            ) from error

    def child(self, group: Any, name: str) -> Any:
        """A group or an array in a group; None: there is none of the name."""
        import h5py

        if name not in group:
            return None
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise UsageError(
                f"{self.shown}: {_place(group, name)} is a link, and links are not "
                "followed: write its data into the file, such as with h5repack."
            )
        return group[name]

    def groups(self, group: Any, prefix: str) -> list[str]:
        """Names of the groups in a group that begin so, "demo_2" before "demo_10"."""
        names = [name for name in group if name.startswith(prefix)]
        names = [name for name in names if hasattr(self.child(group, name), "keys")]
        return sorted(names, key=lambda name: (_number(name), name))

    def array(self, group: Any, name: str, kinds: str = "fiub") -> np.ndarray | None:
        """An array in a group, checked; None: there is none."""
        found = self.child(group, name)
        return None if found is None else self._read(found, _place(group, name), kinds)

    def arrays(
        self, group: Any, name: str, unread: list[str] | None = None, depth: int = 0
    ) -> dict[str, np.ndarray]:
        """The arrays of numbers of a group, "a/b" those within groups; or one array.

        Args:
          unread: what is of other types is added to it.
        """
        unread = [] if unread is None else unread
        found = self.child(group, name)
        if found is None:
            return {}
        if not hasattr(found, "keys"):
            return {name: self._read(found, _place(group, name))}
        if depth > _DEPTH:
            raise UsageError(f"{self.shown}: {_place(group, name)} lies too deep: {_MEND}.")
        arrays: dict[str, np.ndarray] = {}
        for key in found:
            child = self.child(found, key)
            if hasattr(child, "keys"):
                inner = self.arrays(found, key, unread, depth + 1)
                arrays |= {f"{key}/{name}": array for name, array in inner.items()}
            elif not hasattr(child, "dtype"):
                raise UsageError(
                    f"{self.shown}: {_place(found, key)} is no array: {_MEND}."
                )
            elif child.dtype.kind in "fiub":
                arrays[key] = self._read(child, _place(found, key))
            else:
                unread.append(key)
        return arrays

    def _read(self, dataset: Any, place: str, kinds: str = "fiub") -> np.ndarray:
        where = f"{self.shown}: {place}"
        if getattr(dataset, "shape", None) is None:
            raise UsageError(f"{where} is no array: {_MEND}.")
        if dataset.dtype.kind not in kinds:
            raise UsageError(
                f"{where} is of type {dataset.dtype}, where numbers are wanted: {_MEND}."
            )
        if dataset.external or dataset.is_virtual:
            raise UsageError(
                f"{where} has its numbers in other files, which are not read: write them "
                "into this one, such as with h5repack."
            )
        if dataset.nbytes > (free := archive.free_memory()) // 2:
            raise UserError(
                f"{where} wants {dataset.nbytes / 1e9:.3g} GB of memory, of which "
                f"{free / 1e9:.3g} GB are free: take a smaller file, or a machine with "
                "more memory."
            )
        if dataset.nbytes and not _whole(dataset):
            raise UsageError(
                f"{where} claims a shape of {dataset.shape}, but not all of it was "
                f"written: {_MEND}."
            )
        return dataset[()]


def _whole(dataset: Any) -> bool:
    """Whether all of an array is in the file; HDF5 gives 0 for what is not."""
    if dataset.chunks is None:
        return dataset.id.get_storage_size() >= dataset.nbytes
    chunks = math.prod(
        -(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)
    )
    return dataset.id.get_num_chunks() == chunks


def _place(group: Any, name: str) -> str:
    return printable(f"{group.name.strip('/')}/{name}".strip("/"))


def _number(name: str) -> int:
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else -1
