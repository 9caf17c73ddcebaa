"""Parquet files that anybody may have made, read by pyarrow; and a log in one.

A column of lists of equal lengths, or of a struct, comes as several: "state.0", "state.1".
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from planil_jax.base import EnvSpec, UsageError, UserError, missing_extra, printable
from planil_jax.data import archive
from planil_jax.data.formats import recording, table
from planil_jax.data.formats.recording import Options, Source

SUFFIXES = (".parquet", ".pq")
MEND = "copy it again, or write it anew"


@contextlib.contextmanager
def errors(shown: str) -> Iterator[Any]:
    """pyarrow; what it raises becomes a sentence.

    Raises:
      UserError: pyarrow is not installed.
      UsageError: what is read is damaged.
    """
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise missing_extra(f"reading {shown}", "pyarrow", "tables") from error
    try:
        yield pyarrow
    except UserError:
        raise
    except (pyarrow.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        reason = printable(str(error).splitlines()[0] if str(error) else repr(error), 120)
        raise UsageError(f"{shown} is damaged or cut short ({reason}): {MEND}.") from error


def load(path: Path, shown: str, columns: Sequence[str] | None = None) -> Any:
    """A pyarrow Table of some of a file's columns, or all."""
    with errors(shown):
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(path) as file:
            size = sum(
                file.metadata.row_group(n).total_byte_size
                for n in range(file.metadata.num_row_groups)
            )
            if size > (free := archive.free_memory()) // 2:
                raise UserError(
                    f"{shown} wants {size / 1e9:.3g} GB of memory, of which "
                    f"{free / 1e9:.3g} GB are free: take a smaller file, or a machine with "
                    "more memory."
                )
            names = file.schema_arrow.names
            wanted = (
                None if columns is None else [name for name in columns if name in names]
            )
            found = file.read(columns=wanted, use_threads=False)
        found.validate(full=True)
        return found


def array(column: Any, where: str) -> np.ndarray:
    """A pyarrow column as `[rows]`, or `[rows, k]` where it holds lists of equal lengths.

    Raises:
      UsageError: it holds no numbers, or lists of several lengths.
    """
    import pyarrow

    chunk = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    if isinstance(chunk, pyarrow.ChunkedArray):
        empty = pyarrow.array([], chunk.type)
        chunk = pyarrow.concat_arrays(chunk.chunks) if chunk.num_chunks else empty
    shape: list[int] = [len(chunk)]
    while _is_list(chunk.type):
        if chunk.null_count:
            row = int(np.argmax(chunk.is_null().to_numpy(zero_copy_only=False)))
            raise UsageError(f"{where}, row {row}, is empty: leave the row out.")
        lengths = np.unique(chunk.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            raise UsageError(
                f"{where} holds lists of {int(lengths[0])} to {int(lengths[-1])} numbers, "
                "where equal lengths are wanted: write it anew."
            )
        size = int(lengths[0]) if len(lengths) else 0
        shape.append(size)
        chunk = chunk.flatten()
    kind = chunk.type
    if not (
        pyarrow.types.is_integer(kind)
        or pyarrow.types.is_floating(kind)
        or pyarrow.types.is_boolean(kind)
    ):
        raise UsageError(
            f"{where} is of type {kind}, where numbers are wanted: leave it out."
        )
    if chunk.null_count:
        chunk = chunk.cast(pyarrow.float64())
    return chunk.to_numpy(zero_copy_only=False).reshape(shape)


def _is_list(kind: Any) -> bool:
    import pyarrow

    types = pyarrow.types
    return (
        types.is_list(kind) or types.is_fixed_size_list(kind) or types.is_large_list(kind)
    )


# ------------------------------------------------------------------------------------ logs


def read(path: Path, options: Options, spec: EnvSpec | None, shown: str) -> Source:
    """The episodes of a log.

    Args:
      shown: the source as messages name it.
    """
    return table.source(_Parquet(path, shown), "a parquet log", shown, options, spec)


class _Parquet:
    """A `table.Table`."""

    def __init__(self, path: Path, shown: str):
        self.shown = shown
        self._table = load(path, shown)
        with errors(shown):
            self._parts: Mapping[str, tuple[str, int | None]] = self._columns()
        self.labels = list(self._parts)

    def numbers(self, label: str) -> np.ndarray:
        name, part = self._parts[label]
        where = f"{self.shown}: {printable(name)!r}"
        with errors(self.shown):
            found = array(self._table.column(name), where)
        return found if part is None else found.reshape(len(found), -1)[:, part]

    def texts(self, label: str) -> np.ndarray:
        name, _ = self._parts[label]
        with errors(self.shown):
            return np.array(list(map(str, self._table.column(name).to_pylist())), str)

    def stamps(self, label: str, seconds: float) -> np.ndarray:
        import pyarrow

        column = self._table.column(self._parts[label][0])
        if not pyarrow.types.is_timestamp(column.type):
            numbers = self.numbers(label)
            if numbers.dtype.kind in "iu" and len(numbers):
                numbers = numbers - numbers[0]  # more than a float64 holds, maybe
            return numbers * seconds
        with errors(self.shown):
            if column.null_count:
                raise UsageError(
                    f"{self.shown}: {label!r} lacks times: leave such rows out."
                )
            whole = column.cast(pyarrow.timestamp("ns")).cast(pyarrow.int64()).to_numpy()
        return (whole - whole[:1]) * 1e-9

    def _columns(self) -> dict[str, tuple[str, int | None]]:
        parts: dict[str, tuple[str, int | None]] = {}
        for name in self._table.column_names:
            column = self._table.column(name)
            if _is_list(column.type) and len(column):
                first = np.asarray(column[0].as_py() or [])
                inner = recording.columns(name, first.reshape(1, -1)) if first.size else {}
                parts |= {label: (name, n) for n, label in enumerate(inner)}
            else:
                parts[name] = (name, None)
        return parts
