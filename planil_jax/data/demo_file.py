"""The file format of demonstrations: an `.npz` without pickles, episodes one after another.

    obs      [Σ(L + 1), O] float32     one row more than transitions in each episode,
             or [Σ(L + 1), H, W, 3] uint8: pictures, a single frame each
    actions  [Σ L, U] float32          absent: observations only
    rewards  [Σ L] float32             absent, or for reports; no imitator ever reads them;
                                       where one is not finite, the return is unknown
    length   [N] int32                 transitions of each episode
    terminal [N] bool                  the episode ended for good, rather than by time
    card     [] str                    JSON: the `Card`, with "format" and "version"

Messages count episodes, steps and entries from 0.
"""

import contextlib
import dataclasses
import difflib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from flax import struct

from planil_jax import __version__, config
from planil_jax.base import UsageError, printable
from planil_jax.data import archive

FORMAT = "planil_jax demonstrations"
VERSION = 2  # 1 had no pictures
AGAIN = "record it again with `planil collect`"  # the usual mend

_REQUIRED = ("obs", "length", "terminal", "card")
_OPTIONAL = ("actions", "rewards")
_LAYOUT = {  # name -> (rank, kinds of dtype)
    "obs": (2, archive.NUMBERS),  # or _PICTURES
    "actions": (2, archive.NUMBERS),
    "rewards": (1, archive.NUMBERS),
    "length": (1, archive.WHOLE),
    "terminal": (1, archive.TRUTHS),
    "card": (0, archive.TEXT),
}
_PICTURES = 4, np.uint8  # rank and dtype
_TEXT, _NAME = 1000, 200  # characters of a text and of a name in a card, at most
# Rounding to float32 may change an entry by this share of its spread. A spread below the
# second share of its size is noise.
_ROUNDING, _NOISE = 0.01, 1e-9


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
    # [N]; `save` fills it in where there are rewards. None: unknown
    returns: tuple[float | None, ...] = ()
    note: str = ""
    made_by: str = f"planil_jax {__version__}"

    @property
    def known_returns(self) -> tuple[float, ...]:
        """Returns without those that are unknown, at most `[N]`."""
        return tuple(value for value in self.returns if value is not None)


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
      UsageError: the episodes do not fit the card, hold observations or actions that are
        not finite, or observations that float32 cannot hold; or the path is a directory.
      OSError: the file cannot be written; an older file there is unharmed.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a directory: name a file in it, {path / 'demos.npz'}.")
    rewards = [episode.rewards for episode in episodes if episode.rewards is not None]
    if rewards:
        card = dataclasses.replace(card, returns=tuple(map(episode_return, rewards)))
    check(path, episodes, card)
    if not card.image:
        names = card.observation_names
        refuse_rounding([episode.obs for episode in episodes], f"{path}: obs", names)
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
            with np.errstate(over="ignore"):  # of rewards, whose return is unknown then
                arrays[name] = np.concatenate(parts, dtype=np.float32)
    write(path, arrays)


def read(path: str | Path, rewards: bool = True) -> tuple[list[Episode], Card]:
    """The episodes and the card of a file, checked.

    Args:
      rewards: whether they are read; no method that learns needs them.

    Raises:
      UsageError: there is no such file, or it is not a sound file of demonstrations.
      UserError: it needs more memory than there is.
    """
    path = Path(path)
    unread = () if rewards else ("rewards",)
    arrays = _arrays(path, tuple(name for name in _LAYOUT if name not in unread))
    card = _card(path, arrays["card"])
    episodes = _split(path, arrays, card)
    check(path, episodes, card)
    if card.returns and "rewards" in arrays:
        known = [bool(np.isfinite(np.asarray(e.rewards)).all()) for e in episodes]
        pairs = zip(card.returns, known, strict=True)
        returns = tuple(value if sound else None for value, sound in pairs)
        card = dataclasses.replace(card, returns=returns)
    return episodes, card


def episode_return(rewards: np.ndarray) -> float | None:
    """The sum of an episode's rewards; None where it is not finite, so unknown."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(np.sum(rewards.astype(np.float32)))
    return total if np.isfinite(total) else None


def refuse_rounding(arrays: Sequence[np.ndarray], where: str, names: Sequence[str]) -> None:
    """Refuses entries `[rows, O]` whose changes are lost where they become float32.

    Args:
      arrays: of all episodes, in the precision that they came in.
      where: file and name of the array.
      names: of the O entries; empty: messages give their index.

    Raises:
      UsageError: rounding is large against an entry's own spread.
    """
    if all(np.can_cast(array.dtype, np.float32) for array in arrays):
        return
    with np.errstate(all="ignore"):  # what is not finite is refused elsewhere
        array = np.concatenate(arrays).astype(np.float64)
        error = np.abs(array.astype(np.float32) - array).max(0)  # [O]
        spread = array.max(0) - array.min(0)
        noise = _NOISE * np.abs(array).max(0)
        lost = (error > _ROUNDING * spread) & (spread > noise) & np.isfinite(error)
    for entry in np.flatnonzero(lost).tolist():
        name = repr(names[entry]) if names else entry
        raise UsageError(
            f"{where}, entry {name}: float32 rounds by up to {error[entry]:.2g}, and all "
            f"values lie within {spread[entry]:.2g} of {array[0, entry]:.8g}: subtract an "
            "origin, such as the first value, or give float32 if the loss does not matter."
        )


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
    """Writes arrays, whole or not at all; the directories above are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file that is written beside and renamed: the old or the new one is always whole.

    Raises:
      OSError: the file cannot be written, with its path; an older one is unharmed.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        # A write to a full disk does not say which file it was.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


# -------------------------------------------------------------------------------- reading


def _arrays(path: Path, wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The wanted arrays of a file that is ours at first sight."""
    if path.is_dir():
        raise UsageError(f"{path} is a directory: name a file in it.{_files_in(path)}")
    if not path.exists():
        near = _files_in(path.parent, path.name)
        raise UsageError(
            f"no demonstrations file {path}.{near} Make one with `planil collect`."
        )

    def choose(names: tuple[str, ...]) -> Mapping[str, str]:
        if not set(_REQUIRED) <= set(names):
            raise _foreign(path, names)
        if strange := tuple(name for name in names if name not in _LAYOUT):
            raise UsageError(
                f"{path} holds {archive.listed(strange)}, which planil_jax never writes; "
                f"{AGAIN}."
            )
        return {name: _LAYOUT[name][1] for name in wanted if name in names}

    return archive.read(path, choose, f"copy it again, or {AGAIN}")


def _foreign(path: Path, names: tuple[str, ...]) -> UsageError:
    return UsageError(
        f"{path} is not a planil_jax demonstrations file: it holds "
        f"{archive.listed(names)}, where {', '.join(_REQUIRED)} and maybe "
        f"{', '.join(_OPTIONAL)} are wanted; `planil convert` reads others."
    )


def _files_in(directory: Path, name: str = "") -> str:
    files = sorted(file.name for file in directory.glob("*.npz"))
    near = difflib.get_close_matches(name, files, 1)
    hint = f" Did you mean {directory / near[0]}?" if near else ""
    return f"{hint} There are: {', '.join(files)}." if files else hint


def _card(path: Path, array: np.ndarray) -> Card:
    fields = card_fields(array)
    form, version = fields.pop("format", None), fields.pop("version", None)
    if form != FORMAT or type(version) is not int:
        raise UsageError(f"{path}: its card does not say {FORMAT!r}; {AGAIN}.")
    return sound_card(path, fields, version, VERSION, Card())


def card_fields(array: np.ndarray) -> dict[str, Any]:
    """What the text of a card says; empty where it is none."""
    try:
        return config.parse_json(array.item())
    except (ValueError, TypeError, UsageError):
        return {}


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
        card = config.from_config_dict(fields, default)
    except UsageError as error:
        raise UsageError(f"{path}: its card is unsound: {error}") from None
    check_texts(path, vars(card))
    return card


def check_texts(path: str | Path, fields: Mapping[str, Any]) -> None:
    """Refuses texts, alone or in tuples, that cannot be shown on a line.

    Raises:
      UsageError: one of them is not printable, or too long.
    """
    for field, value in fields.items():
        texts = value if isinstance(value, tuple) else (value,)
        longest = _NAME if isinstance(value, tuple) else _TEXT
        for text in texts:
            if isinstance(text, str) and not (text.isprintable() and len(text) <= longest):
                raise UsageError(
                    f"{path}: {field} of its card, '{printable(text)}', is no text of at "
                    f"most {longest} printable characters; {AGAIN}."
                )


def _split(path: Path, arrays: dict[str, np.ndarray], card: Card) -> list[Episode]:
    """Cuts a file's arrays into episodes."""
    _check_layout(path, arrays)
    if not _pictures(arrays["obs"]):
        names = card.observation_names
        names = names if len(names) == arrays["obs"].shape[1] else ()
        refuse_rounding([arrays["obs"]], f"{path}: obs", names)
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
    # Beyond the rows there are, lengths might overflow where they are added.
    length = arrays["length"].clip(max=len(arrays["obs"])).astype(np.int64)
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
    """Refuses episodes that do not fit their card, or whose numbers are not finite."""
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
            if array is not None and name != "rewards" and not _pictures(array):
                where, observed = f"{path}: {name} of episode {n}", names * (name == "obs")
                refuse_numbers(~np.isfinite(array), array, where, "not finite", observed)


def _check_card(path: str | Path, card: Card, episodes: int) -> None:
    check_texts(path, vars(card))
    names = card.observation_names
    bounds = zip(card.action_low, card.action_high, strict=False)
    mistakes = {
        "names an observation entry twice": len(set(names)) < len(names),
        "gives a frame's size other than [H, W, 3]": bool(card.image)
        and (len(card.image), card.image[-1]) != (3, 3),
        "describes both entries and pictures": bool(card.image and names),
        "gives an action one bound of two": len(card.action_low) != len(card.action_high),
        "gives an action a lower bound that is not below its upper one": any(
            low >= high for low, high in bounds
        ),
        "has a control period that is not above 0 s, or not finite": not (
            0 < card.control_period < math.inf
        ),
        "has a bound of an action that is not a number": any(
            math.isnan(bound) for bound in (*card.action_low, *card.action_high)
        ),
        "has not one return an episode": len(card.returns) not in (0, episodes),
    }
    for mistake, made in mistakes.items():
        if made:
            raise UsageError(f"{path}: its card {mistake}; {AGAIN}.")
