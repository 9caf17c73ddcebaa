"""Reads a log in CSV: a line of names, then a line a row.

The columns are separated by commas, semicolons or tabs. Times are numbers, or dates as
ISO 8601 writes them, "2026-03-01T12:00:00.05".
"""

import csv
from pathlib import Path

import numpy as np

from planil_jax.base import EnvSpec, UsageError, UserError, printable
from planil_jax.data import archive
from planil_jax.data.formats import table
from planil_jax.data.formats.recording import Options, Source

SUFFIXES = (".csv", ".tsv", ".txt")
_SEPARATORS = ",;\t"
_MEMORY = 20  # bytes of memory that are needed for one of the file, about
_TRUTHS = {"true": "1", "false": "0"}


def read(path: Path, options: Options, spec: EnvSpec | None, shown: str) -> Source:
    """The episodes of a log.

    Args:
      shown: the source as messages name it.
    """
    return table.source(_Csv(path, shown), "a CSV log", shown, options, spec)


class _Csv:
    """A `table.Table`; lines count from 1, and the first holds the names."""

    def __init__(self, path: Path, shown: str):
        self.shown = shown
        size = path.stat().st_size
        if size * _MEMORY > (free := archive.free_memory()):
            raise UserError(
                f"{shown} wants about {size * _MEMORY / 1e9:.3g} GB of memory, of which "
                f"{free / 1e9:.3g} GB are free: write it as parquet, or split it."
            )
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                head = file.readline()
                separator = max(_SEPARATORS, key=head.count)
                file.seek(0)
                lines = csv.reader(file, delimiter=separator, strict=True)
                self.labels = [name.strip() for name in next(lines, [])]
                self._check_names()
                self._lines: list[int] = []  # of each row
                cells: list[list[str]] = []
                for line in lines:
                    if line:
                        self._lines.append(lines.line_num)
                        cells.append(self._checked(line))
        except UnicodeDecodeError as error:
            raise UsageError(f"{shown} is no text in UTF-8: write it so.") from error
        except csv.Error as error:
            raise UsageError(
                f"{shown} is no sound CSV ({error}): write it anew."
            ) from error
        self._columns = dict(zip(self.labels, zip(*cells, strict=True), strict=False))

    def numbers(self, label: str) -> np.ndarray:
        cells = self._cells(label)
        try:
            return np.array([float(cell) if cell else np.nan for cell in cells])
        except ValueError:
            pass
        found = np.empty(len(cells))
        for n, cell in enumerate(cells):
            try:
                found[n] = float(_TRUTHS.get(cell.strip().lower(), cell or "nan"))
            except ValueError:
                raise self._no_number(label, n, cell) from None
        return found

    def texts(self, label: str) -> np.ndarray:
        return np.array(self._cells(label), str)

    def stamps(self, label: str, seconds: float) -> np.ndarray:
        cells = self._cells(label)
        if not cells or _is_number(cells[0]):
            numbers = self.numbers(label)
            if cells and all(cell.strip("-").isdecimal() for cell in cells):
                # Nanoseconds since 1970 are more than a float64 holds.
                whole = np.array([int(cell) - int(cells[0]) for cell in cells], float)
                return whole * seconds
            return numbers * seconds
        try:
            stamps = np.array([np.datetime64(cell.strip().rstrip("Z")) for cell in cells])
        except ValueError as error:
            raise UsageError(
                f"{self.shown}: {printable(label)!r} has times that are neither numbers "
                f"nor ISO 8601 ({printable(str(error))}): write seconds."
            ) from None
        return (stamps - stamps[0]) / np.timedelta64(1, "ns") * 1e-9

    def _cells(self, label: str) -> tuple[str, ...]:
        return self._columns.get(label, ())

    def _check_names(self) -> None:
        if not self.labels or all(map(_is_number, self.labels)):
            raise UsageError(
                f"{self.shown} has no names in its first line: write those of the "
                "columns there."
            )
        for n, name in enumerate(self.labels):
            if not name or self.labels.index(name) != n:
                what = f"the name {printable(name)!r} twice" if name else "no name"
                raise UsageError(
                    f"{self.shown}: column {n} has {what}: give each column its own."
                )

    def _checked(self, line: list[str]) -> list[str]:
        if len(line) != len(self.labels):
            raise UsageError(
                f"{self.shown}, line {self._lines[-1]}, has {len(line)} cells and "
                f"{len(self.labels)} columns have names: mend the line, or copy the "
                "file again."
            )
        return line

    def _no_number(self, label: str, row: int, cell: str) -> UsageError:
        return UsageError(
            f"{self.shown}, line {self._lines[row]}: {printable(label)!r} is "
            f"{printable(cell, 40)!r}, where a number is wanted: mend the line, or leave "
            "the column out with names= (--map)."
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
