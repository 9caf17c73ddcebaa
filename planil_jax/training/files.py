"""Files of a run directory: written whole or not at all, and checked when they are read.

    {"step": 320, "metrics": {}, "crc32": "9d0a2b1c"}

A file of JSON, or a line of one, may be *sealed*: its last entry is the checksum of all
that stands before it. A seal that does not hold is damage. A file that is not sealed, of an
older version or written by hand, is taken where its types are right.
"""

import errno
import json
import os
import re
import warnings
import zlib
from pathlib import Path
from typing import Any

from planil_jax import config
from planil_jax.base import UsageError
from planil_jax.data import demo_file

# What a value of JSON must be: float (also a whole number, nan or inf), int, str or object
# (anything); [form] for a list of any length; (form, None) where it may be null; or a
# mapping of names to forms, where "name?" may be missing and others may be there.
Form = Any
_SEAL = re.compile(rb'(?s)(.*), "crc32": "([0-9a-f]{8})"\}\n?')
_LARGEST = 2**63  # of whole numbers
OF_A_RUN = (  # what no other file may replace
    *("config.json", "versions.json", "metrics.jsonl", "evaluation.json"),
    "demonstrations.npz",
)


class DamagedError(UsageError):
    """A file cannot be read, or does not hold what it should."""


class DamageWarning(UserWarning):
    """One sentence about a damaged file without which the work goes on."""


def warn(sentence: str) -> None:
    """Tells the caller of the library, or the user of a command, about damage."""
    warnings.warn(sentence, DamageWarning, stacklevel=3)


def write(path: Path, content: str | bytes) -> None:
    """Writes a file beside and renames it: the old one or the new one is always whole.

    Raises:
      OSError: the file cannot be written, with its path; an older one is unharmed.
    """
    with demo_file.whole(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def unwritable(path: str | Path) -> str:
    """Why a file cannot be written there, "Permission denied"; "": nothing is in its way.

    Nothing is made. A directory that is missing could be made.
    """
    path = Path(path).absolute()
    nearest = next(place for place in path.parents if os.path.lexists(place))
    if path.is_dir():
        return os.strerror(errno.EISDIR)
    if not nearest.is_dir():
        return os.strerror(errno.ENOTDIR)
    if not os.access(nearest, os.W_OK | os.X_OK):
        return os.strerror(errno.EACCES)
    return ""


def require_writable(path: str | Path | None, argument: str) -> None:
    """Refuses, before any work, a file that could not be written after it.

    Args:
      path: None or empty: no file is asked for.
      argument: what asks for it, such as "--out".

    Raises:
      UsageError: it could not.
    """
    if path and (reason := unwritable(path)):
        raise UsageError(f"{path} ({argument}) cannot be written: {reason}.")
    if (
        path
        and Path(path).name in OF_A_RUN
        and Path(path).with_name("config.json").exists()
    ):
        raise UsageError(f"{path} ({argument}) is a file of a run: choose another.")


def read(path: Path, form: Form, mend: str, sealed: bool = False) -> dict[str, Any]:
    """The JSON of a file.

    Args:
      form: what it must hold.
      mend: the end of the sentence about a damaged file.
      sealed: whether it must have a seal.

    Raises:
      DamagedError: the file cannot be read, its seal does not hold, or it holds no JSON of
        that form.
    """
    try:
        return parse(content(path), form, sealed)
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
    except ValueError as error:
        reason = f"is damaged ({error})"
    raise DamagedError(f"{path} {reason}: {mend}.")


def content(path: Path) -> bytes:
    """The bytes of a file, never of a pipe or a device, which might not end.

    Raises:
      OSError: it cannot be read.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is a pipe or a device", str(path))
    return path.read_bytes()


def read_if_sound(path: Path, form: Form, mend: str) -> dict[str, Any]:
    """The JSON of a file; {} where there is none, or a damaged one, with a warning."""
    if not os.path.lexists(path):
        return {}
    try:
        return read(path, form, mend)
    except DamagedError as error:
        warn(str(error))
        return {}


def parse(data: bytes, form: Form, sealed: bool = False) -> dict[str, Any]:
    """The JSON of bytes, without the seal.

    Args:
      form: what it must hold.
      sealed: whether it must have a seal.

    Raises:
      ValueError: why not.
    """
    seal = _SEAL.fullmatch(data)
    if seal and _checksum(seal[1]) != seal[2].decode():
        raise ValueError("it has changed since it was written")
    if sealed and not seal:
        raise ValueError("it has no checksum, or was cut short")
    try:
        content = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except UnicodeDecodeError:
        raise ValueError("it holds bytes that are no text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON, or was cut short: {error}") from None
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    if content.pop("crc32", None) is not None and not seal:
        raise ValueError("its checksum is not as it was written")
    if problem := mismatch(content, form):
        raise ValueError(problem)
    return content


def seal(text: str) -> str:
    """The text of a JSON object, which is not empty, with its checksum as last entry."""
    body = text.rstrip().removesuffix("}").rstrip()
    return f'{body}, "crc32": "{_checksum(body.encode())}"}}'


def mismatch(value: Any, form: Form, name: str = "it") -> str:
    """How a value differs from a form, "step is no whole number"; "": it does not."""
    if isinstance(form, tuple):
        return "" if value is None else mismatch(value, form[0], name)
    if isinstance(form, list):
        if not isinstance(value, list):
            return f"{name} is no list"
        found = (mismatch(item, form[0], f"{name}[{i}]") for i, item in enumerate(value))
        return next(filter(None, found), "")
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return f"{name} is no object"
        missing = [key for key in form if not key.endswith("?") and key not in value]
        if missing:
            return f"{missing[0]} is missing"
        wanted = {key.removesuffix("?"): inner for key, inner in form.items()}
        found = (mismatch(value[key], wanted[key], key) for key in wanted if key in value)
        return next(filter(None, found), "")
    if form is object:
        return ""
    if form is str:
        return "" if isinstance(value, str) else f"{name} is no text"
    whole = type(value) is int and abs(value) < _LARGEST
    if form is int:
        return "" if whole else f"{name} is no whole number"
    return "" if whole or isinstance(value, float) else f"{name} is no number"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if (twice := config.repeated(pairs)) is not None:
        raise ValueError(f"it gives {twice} twice")
    return dict(pairs)


def _checksum(data: bytes) -> str:
    return f"{zlib.crc32(data):08x}"
