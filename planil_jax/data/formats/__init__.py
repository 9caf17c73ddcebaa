"""Demonstrations in the formats of others; one reader a file."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from planil_jax.base import EnvSpec, UsageError
from planil_jax.data import archive, demo_file
from planil_jax.data.demo_file import Card, Episode
from planil_jax.data.formats import (
    arrays,
    csv_log,
    d4rl,
    fit,
    hdf5,
    huggingface,
    lerobot,
    minari,
    ours,
    parquet,
    robomimic,
)
from planil_jax.data.formats.recording import Options, Source, TimeUnit

__all__ = ["Options", "TimeUnit", "convert", "is_ours", "read", "source_of"]

# (path, options, spec, the source as messages name it) -> its episodes
Reader = Callable[[Path, Options, EnvSpec | None, str], Source]

_DEFAULTS = Options()
_LAYOUTS = (
    "an .npz or HDF5 of arrays, a Minari, robomimic, LeRobot or Hugging Face dataset, or a "
    "log in CSV or parquet"
)
_REMOTE = (
    "; remote datasets are not fetched: download it first, such as with `minari download` "
    "or `hf download --repo-type dataset`, and name its directory"
)


def convert(
    source: str,
    environment: str,
    spec: EnvSpec,
    path: str,
    count: int | None,
    options: Options = _DEFAULTS,
) -> tuple[Card, list[str]]:
    """Writes the first `count` episodes of a file of others as demonstrations.

    Args:
      source: a file or a directory; see the readers of this package.
      environment: its name, for the card.
      spec: of that environment.
      path: the file to write, .npz.
      count: how many episodes; None: all.
      options: how the source is read.

    Returns:
      The card, and a sentence for all that was changed or left unread.

    Raises:
      UsageError: the source is no such file, or does not fit the environment.
    """
    episodes, card, notes = read(source, spec, count, options)
    demo_file.save(path, episodes, dataclasses.replace(card, environment=environment))
    return demo_file.read_card(path), notes


def read(
    source: str, spec: EnvSpec | None, count: int | None, options: Options
) -> tuple[list[Episode], Card, list[str]]:
    """The first episodes of a source, their card, and what is to be said; see `fit`."""
    found = fit.demonstrations(source_of(source, options, spec), spec, count, options)
    if spec is None and is_ours(source):  # its card says what it needs no environment for
        episodes, card, notes = found
        own = demo_file.read_card(source)
        card = dataclasses.replace(own, returns=card.returns, note=card.note)
        return episodes, card, notes
    return found


def is_ours(source: str | Path) -> bool:
    """Whether a source is a file of demonstrations that this package wrote."""
    path = Path(source).expanduser()
    return path.suffix == ".npz" and path.is_file() and ours.is_one(_names(path))


def source_of(source: str, options: Options, spec: EnvSpec | None) -> Source:
    """The reader of a source, by what the source holds.

    Raises:
      UsageError: there is none, or it is not laid out in a way that is known.
    """
    path = Path(source).expanduser()
    try:
        return _reader(path, source)(path, options, spec, source)
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror or error}.") from error


def _reader(path: Path, source: str) -> Reader:
    """What reads a file or a directory."""
    if path.is_dir():
        return _reader_of_directory(path, source)
    if not path.exists():
        remote = _REMOTE if not path.suffix and not path.is_absolute() else ""
        raise UsageError(f"there is no file or directory {source}{remote}.")
    if path.suffix.lower() in csv_log.SUFFIXES:
        return csv_log.read
    if path.suffix.lower() in parquet.SUFFIXES:
        return parquet.read
    if hdf5.is_one(path):
        return _reader_of_hdf5(path, source)
    names = _names(path)
    for reader in (ours, d4rl):
        if reader.is_one(names):
            return reader.read
    return arrays.read


def _reader_of_directory(path: Path, source: str) -> Reader:
    for reader in (minari, lerobot, huggingface):
        if reader.in_directory(path):
            return reader.read
    if (path / "data" / "metadata.json").is_file():
        raise UsageError(
            f"{source} is a Minari dataset in Arrow, which is not read: create it with "
            'data_format="hdf5".'
        )
    raise UsageError(f"{source} is no dataset that is known: name {_LAYOUTS}.")


def _reader_of_hdf5(path: Path, source: str) -> Reader:
    with hdf5.File(path, source).opened() as root:
        names = list(root)
        for reader in (robomimic, minari, d4rl):
            if reader.is_one(root):
                return reader.read
    raise UsageError(
        f"{source} holds {archive.listed(tuple(names))}, and is laid out neither as of "
        "Minari (episode_0/observations), nor as of robomimic (data/demo_0/obs), nor as of "
        "D4RL (observations, actions, terminals): write it as one of them."
    )


def _names(path: Path) -> tuple[str, ...]:
    """Names of the arrays in an .npz."""
    found: list[str] = []

    def choose(names: tuple[str, ...]) -> dict[str, str]:
        found.extend(names)
        return {}

    archive.read(path, choose, "copy it again, or write it as plain arrays")
    return tuple(found)
