"""The file format of demonstrations: an `.npz` without pickles, episodes one after another.

    obs      [Σ(L + 1), O] float32     one row more than transitions in each episode,
             or [Σ(L + 1), H, W, 3] uint8: pictures, a single frame each
    actions  [Σ L, U] float32          absent: observations only
    rewards  [Σ L] float32             absent, or for reports; no imitator ever reads them
    length   [N] int32                 transitions of each episode
    terminal [N] bool                  the episode ended for good, rather than by time
    card     [] str                    JSON: the `Card`, with "format" and "version"

Messages count episodes, steps and entries from 0.
"""

import dataclasses
import difflib
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import struct

from planil_jax import __version__, config
from planil_jax.base import UsageError

FORMAT = "planil_jax demonstrations"
VERSION = 2  # 1 had no pictures
AGAIN = "record it again with `planil collect`"  # the usual mend

_REQUIRED = ("obs", "length", "terminal", "card")
_OPTIONAL = ("actions", "rewards")
_LAYOUT = {  # name -> (rank, kinds of dtype)
    "obs": (2, "fiu"),  # or _PICTURES
    "actions": (2, "fiu"),
    "rewards": (1, "fiu"),
    "length": (1, "iu"),
    "terminal": (1, "b"),
}
_PICTURES = 4, np.uint8  # rank and dtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """Where demonstrations come from."""

    environment: str = ""
    control_period: float = 0.0  # seconds
    observation_names: tuple[str, ...] = ()  # [O], the recorded entries
    image: tuple[int, ...] = ()  # [H, W, 3] of a frame; (): entries are recorded
    action_low: tuple[float, ...] = ()  # [U]
    action_high: tuple[float, ...] = ()  # [U]
    expert: str = ""  # who demonstrated
    returns: tuple[float, ...] = ()  # [N]; `save` fills it in where there are rewards
    note: str = ""
    made_by: str = f"planil_jax {__version__}"


@struct.dataclass
class Episode:
    """One recorded episode, on the host."""

    obs: np.ndarray  # [L + 1, O] float32, or [L + 1, H, W, 3] uint8
    actions: np.ndarray | None = None  # [L, U] float32; None: observations only
    rewards: np.ndarray | None = None  # [L] float32; None: unknown
    terminal: bool = False  # ended for good, rather than by time

    @property
    def length(self) -> int:
        """Transitions."""
        return len(self.obs) - 1


def save(path: str | Path, episodes: Sequence[Episode], card: Card) -> None:
    """Writes a file whole or not at all; the directories above it are made.

    Either all episodes hold actions or none does, and likewise rewards.

    Raises:
      UsageError: the episodes do not fit the card, or hold numbers that are not finite; or
        the path is a directory.
      OSError: the file cannot be written; an older file there is unharmed.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a directory: name a file in it, {path / 'demos.npz'}.")
    rewards = [episode.rewards for episode in episodes if episode.rewards is not None]
    if rewards:
        card = dataclasses.replace(card, returns=tuple(float(np.sum(r)) for r in rewards))
    check(path, episodes, card)
    head = {"format": FORMAT, "version": VERSION}
    arrays = {
        "obs": np.concatenate(
            [episode.obs for episode in episodes],
            dtype=np.uint8 if card.image else np.float32,
        ),
        "length": np.array([episode.length for episode in episodes], np.int32),
        "terminal": np.array([episode.terminal for episode in episodes], bool),
        "card": np.array(json.dumps(head | dataclasses.asdict(card))),
    }
    for name in _OPTIONAL:
        parts = [getattr(episode, name) for episode in episodes]
        if parts[0] is not None:
            arrays[name] = np.concatenate(parts, dtype=np.float32)
    write(path, arrays)


def read(path: str | Path) -> tuple[list[Episode], Card]:
    """The episodes and the card of a file, checked.

    Raises:
      UsageError: there is no such file, or it is not a sound file of demonstrations.
    """
    path = Path(path)
    arrays = _arrays(path)
    card = _card(path, arrays["card"])
    episodes = _split(path, arrays)
    check(path, episodes, card)
    return episodes, card


def read_card(path: str | Path) -> Card:
    """The card of a file alone; raises as `read` does."""
    path = Path(path)
    return _card(path, _arrays(path, ("card",))["card"])


def refuse_numbers(
    bad: np.ndarray,
    array: np.ndarray,
    where: str,
    complaint: str,
    observed: Sequence[str] = (),
) -> None:
    """Names the first bad number of an episode's array, if there is one.

    Args:
      bad: mask of the array, `[L]` or `[L, *]`.
      array: the numbers.
      where: file, name of the array and episode.
      complaint: the end of the sentence "… is", such as "not finite".
      observed: names of the columns; empty: messages give their index.

    Raises:
      UsageError: some number is bad.
    """
    if not bad.any():
        return
    step, *column = (int(index) for index in np.argwhere(bad)[0])
    entry = f", entry {observed[column[0]] if observed else column[0]!r}" if column else ""
    value = array[(step, *column)]
    raise UsageError(f"{where}, step {step}{entry}: {value:g} is {complaint}; {AGAIN}.")


# -------------------------------------------------------------------------------- writing


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays to a temporary file, then renames it: it is always whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        # A write to a full disk does not say which file it was.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


# -------------------------------------------------------------------------------- reading


def _arrays(
    path: Path, wanted: tuple[str, ...] = _REQUIRED + _OPTIONAL
) -> dict[str, np.ndarray]:
    """The wanted arrays of a file that is ours at first sight."""
    if path.is_dir():
        raise UsageError(f"{path} is a directory: name a file in it.{_files_in(path)}")
    if not path.exists():
        near = _files_in(path.parent, path.name)
        raise UsageError(
            f"no demonstrations file {path}.{near} Make one with `planil collect`."
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not set(_REQUIRED) <= set(archive.files):
                raise _foreign(path, archive.files)
            known = [name for name in wanted if name in archive.files]
            arrays = {name: archive[name] for name in known}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise UsageError(
            f"{path} is damaged or cut short ({error}): copy it again, or {AGAIN}."
        ) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{path} is not an .npz archive of plain arrays (pickled objects are never "
            f"loaded, because loading them can run code): {AGAIN}."
        ) from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise _foreign(path, known)
    return arrays


def _foreign(path: Path, keys: Sequence[str]) -> UsageError:
    return UsageError(
        f"{path} is not a planil_jax demonstrations file: it holds "
        f"{', '.join(keys) or 'nothing'}, where {', '.join(_REQUIRED)} and maybe "
        f"{', '.join(_OPTIONAL)} are wanted; convert it with planil_jax.data.demos.save."
    )


def _files_in(directory: Path, name: str = "") -> str:
    files = sorted(file.name for file in directory.glob("*.npz"))
    near = difflib.get_close_matches(name, files, 1)
    hint = f" Did you mean {directory / near[0]}?" if near else ""
    return f"{hint} There are: {', '.join(files)}." if files else hint


def _card(path: Path, array: np.ndarray) -> Card:
    try:
        fields = json.loads(array.item())
        form, version = fields.pop("format"), fields.pop("version")
    except (ValueError, TypeError, KeyError, AttributeError):
        form, version = None, None
    if form != FORMAT or not isinstance(version, int):
        raise UsageError(f"{path}: its card does not say {FORMAT!r}; {AGAIN}.")
    return sound_card(path, fields, version, VERSION, Card())


def sound_card(
    path: Path, fields: dict[str, Any], version: int, newest: int, default: Any
) -> Any:
    """A file's card, as the record `default` is; of demonstrations, and of an expert.

    Raises:
      UsageError: the file is newer than this package, or a field is unsound.
    """
    if version > newest:
        raise UsageError(
            f"{path} has format version {version}, but this planil_jax reads up to "
            f"{newest}: install a newer one."
        )
    try:
        return config.from_config_dict(fields, default)
    except UsageError as error:
        raise UsageError(f"{path}: its card is unsound: {error}") from None


def _split(path: Path, arrays: dict[str, np.ndarray]) -> list[Episode]:
    """Cuts a file's arrays into episodes."""
    _check_layout(path, arrays)
    length = arrays["length"].astype(np.int64)  # [N]

    def cut(name: str, lengths: np.ndarray) -> Sequence[Any]:
        if name not in arrays:
            return [None] * len(lengths)
        array = arrays[name]
        with np.errstate(over="ignore"):  # numbers that overflow become inf and are refused
            array = array if _pictures(array) else array.astype(np.float32)
        return np.split(array, np.cumsum(lengths)[:-1])

    return [
        Episode(obs=obs, actions=actions, rewards=rewards, terminal=bool(terminal))
        for obs, actions, rewards, terminal in zip(
            cut("obs", length + 1),
            cut("actions", length),
            cut("rewards", length),
            arrays["terminal"],
            strict=True,
        )
    ]


# ------------------------------------------------------------------------------- checking


def _check_layout(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Refuses arrays of wrong ranks, dtypes and numbers of rows."""
    for name, (rank, kinds) in _LAYOUT.items():
        array = arrays.get(name)
        if array is None or name == "obs" and _pictures(array):
            continue
        if array.ndim != rank or array.dtype.kind not in kinds:
            raise UsageError(
                f"{path}: {name} has shape {array.shape} and type {array.dtype}, which "
                f"planil_jax never writes; {AGAIN}."
            )
    length = arrays["length"].astype(np.int64)
    _check_lengths(path, length)
    count, steps = len(length), int(length.sum())
    rows = {"obs": steps + count, "terminal": count, "actions": steps, "rewards": steps}
    for name, wanted in rows.items():
        if name in arrays and len(arrays[name]) != wanted:
            raise UsageError(
                f"{path}: {name} has {len(arrays[name])} rows, but the lengths of the "
                f"{count} episodes need {wanted}; {AGAIN}."
            )


def _pictures(array: np.ndarray) -> bool:
    return (array.ndim, array.dtype) == _PICTURES


def _check_lengths(path: str | Path, lengths: Sequence[int] | np.ndarray) -> None:
    if len(lengths) == 0:
        raise UsageError(f"{path} holds no episodes; {AGAIN}.")
    if min(lengths) < 1:
        raise UsageError(
            f"{path}: episode {int(np.argmin(lengths))} has no transitions; {AGAIN}."
        )


def check(path: str | Path, episodes: Sequence[Episode], card: Card) -> None:
    """Refuses episodes that do not fit their card, or are not finite."""
    _check_lengths(path, [episode.length for episode in episodes])
    _check_card(path, card, len(episodes))
    names, first = card.observation_names, episodes[0]
    for n, episode in enumerate(episodes):
        steps = episode.length
        shapes = {
            "obs": (steps + 1, *(card.image or (len(names),))),
            "actions": None if first.actions is None else (steps, len(card.action_low)),
            "rewards": None if first.rewards is None else (steps,),
        }
        for name, wanted in shapes.items():
            array = getattr(episode, name)
            if name == "obs" and card.image and array.dtype != np.uint8:
                raise UsageError(
                    f"{path}: pictures of episode {n} are of type {array.dtype}, where "
                    f"uint8, 0 to 255, is wanted; {AGAIN}."
                )
            if (None if array is None else array.shape) != wanted:
                raise UsageError(
                    f"{path}: {name} of episode {n} has shape {np.shape(array)}, but the "
                    f"card and the other arrays want {wanted}; {AGAIN}."
                )
            if array is not None and not _pictures(array):
                where, observed = f"{path}: {name} of episode {n}", names * (name == "obs")
                refuse_numbers(~np.isfinite(array), array, where, "not finite", observed)


def _check_card(path: str | Path, card: Card, episodes: int) -> None:
    names = card.observation_names
    mistakes = {
        "names an observation entry twice": len(set(names)) < len(names),
        "gives a frame's size other than [H, W, 3]": bool(card.image)
        and (len(card.image), card.image[-1]) != (3, 3),
        "describes both entries and pictures": bool(card.image and names),
        "gives an action one bound of two": len(card.action_low) != len(card.action_high),
        "has a control period that is not above 0 s": not card.control_period > 0,
        "has not one return an episode": len(card.returns) not in (0, episodes),
    }
    for mistake, made in mistakes.items():
        if made:
            raise UsageError(f"{path}: its card {mistake}; {AGAIN}.")
