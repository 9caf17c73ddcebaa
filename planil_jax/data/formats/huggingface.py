"""Reads trajectories in a Hugging Face dataset, as `imitation` saves them, by pyarrow.

A directory of `state.json`, `dataset_info.json` and the Arrow files that the state names.
A row is an episode:

obs       lists [L + 1, O]
acts      lists [L, U] or [L]
rews      [L], maybe
terminal  bool
infos     texts, which are left unread: they may hold pickled objects

Source: A. Gleave et al. 2022, imitation, arXiv 2211.11972; imitation.data.serialize.save.
"""

from pathlib import Path
from typing import Any

import numpy as np

from planil_jax.base import EnvSpec, UsageError, UserError, printable
from planil_jax.config import parse_json
from planil_jax.data import archive
from planil_jax.data.formats import parquet, recording
from planil_jax.data.formats.recording import Options, Recording, Source, listed

_STATE = "state.json"
_WANTED = ("obs", "acts", "rews", "terminal")


def in_directory(directory: Path) -> bool:
    return (directory / _STATE).is_file()


def read(path: Path, options: Options, spec: EnvSpec | None, shown: str) -> Source:
    """The episodes of a dataset.

    Args:
      shown: the source as messages name it.
    """
    batches = [batch for file in _files(path, shown) for batch in _batches(file)]
    names = batches[0].schema.names if batches else []
    if batches and "obs" not in names:
        raise UsageError(
            f"{shown} lacks the column 'obs'; it has {listed(names)}: write it by "
            "imitation.data.serialize.save, or as a parquet log."
        )
    places = [(batch, row) for batch in batches for row in range(batch.num_rows)]

    def load(n: int) -> Recording:
        batch, row = places[n]

        def part(name: str) -> np.ndarray | None:
            if name not in batch.schema.names:
                return None
            scalar, where = batch.column(name)[row], f"{shown}: {name} of episode {n}"
            if not scalar.is_valid:
                raise UsageError(f"{where} is empty: leave the episode out.")
            if not hasattr(scalar, "values"):
                raise UsageError(f"{where} is no list, but {scalar.type}: write it anew.")
            return parquet.array(scalar.values, where)

        with parquet.errors(shown):
            obs, acts, rews = part("obs"), part("acts"), part("rews")
            terminal = (
                batch.column("terminal")[row].as_py() if "terminal" in names else False
            )
        assert obs is not None
        return Recording(
            name=f"episode {n}",
            obs=recording.columns("obs", obs),
            actions={} if acts is None else recording.columns("acts", acts),
            rewards=rews,
            terminal=bool(terminal),
        )

    unread = [name for name in names if name not in _WANTED]
    notes = [f"left unread: {listed(unread)}."] if unread else []
    kind = "a Hugging Face dataset"
    return Source(shown, kind, len(places), load, ordered=True, notes=notes)


def _files(directory: Path, shown: str) -> list[Path]:
    """The Arrow files of a dataset, in its order."""
    try:
        state = parse_json((directory / _STATE).read_text(encoding="utf-8"))
        names = [entry["filename"] for entry in state["_data_files"]]
        indices = state.get("_indices_files") or state.get("_indices_data_files")
    except (ValueError, TypeError, KeyError, UsageError, AttributeError) as error:
        raise UsageError(
            f"{shown}: {_STATE} names no data files: write it by Dataset.save_to_disk."
        ) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise UsageError(
                f"{shown}: {_STATE} names the file {printable(str(name))!r}, which is not "
                "in the directory: copy it again."
            )
        if not (directory / name).is_file():
            raise UsageError(f"{shown} lacks its file {name}: copy the whole dataset.")
    if indices:
        raise UsageError(f"{shown} is a selection of rows: flatten_indices() it, and save.")
    return [directory / name for name in names]


def _batches(path: Path) -> list[Any]:
    if path.stat().st_size > archive.free_memory() // 2:
        raise UserError(f"{path} is larger than half the free memory: take a smaller one.")
    with parquet.errors(str(path)):
        import pyarrow
        import pyarrow.ipc

        with pyarrow.OSFile(str(path)) as file, pyarrow.ipc.open_stream(file) as stream:
            batches = list(stream)
        for batch in batches:
            batch.validate(full=True)  # offsets that lie would end the process
            batch.schema.names  # noqa: B018  which may be no text
        return batches
