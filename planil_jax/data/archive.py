"""Reads the arrays of an `.npz` that anybody may have made.

Nothing is believed before it is checked, and nothing is ever unpickled: the zip's directory
is held against the size of the file, an array's header against the size of its member, its
type against the types that the caller wants, and its size against the free memory.
"""

import io
import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import numpy as np
import psutil

from planil_jax.base import UsageError, UserError, printable

# Kinds of dtypes that a caller may want, as numpy names them.
NUMBERS, WHOLE, TRUTHS, TEXT = "fiu", "iu", "b", "U"
_WORDS = {NUMBERS: "numbers", WHOLE: "whole numbers", TRUTHS: "bools", TEXT: "text"}

_NEVER_LOADED = "(pickled objects are never loaded, because loading them can run code)"
_FOREIGN = {  # the first bytes of files that are taken for an .npz
    b"\x93NUMPY": ", but a single array (.npy)",
    b"\x89HDF": ", but an HDF5 file, which `planil convert` reads",
}
_MEMBERS = 10_000  # at most
_NAME = 200  # characters, at most
_RATIO = 1032  # at most: deflate packs no better
_HEADER = 10_000  # bytes of an array's header, at most
_HEADERS = {  # version -> the form of its length, and who reads it
    b"\x01\x00": ("<H", np.lib.format.read_array_header_1_0),
    b"\x02\x00": ("<I", np.lib.format.read_array_header_2_0),
}
_BLOCK = 1 << 24  # bytes that are unpacked at once
_GROUP = Path("/sys/fs/cgroup")  # where a container or a batch system limits a process
# What zipfile and numpy make of damage.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)

Choose = Callable[[tuple[str, ...]], Mapping[str, str]]


def read(path: Path, choose: Choose, mend: str) -> dict[str, np.ndarray]:
    """Some arrays of an archive, in the byte order of this machine.

    Args:
      choose: the names in the archive -> those that are wanted, with the kinds of their
        dtypes, such as {"obs": NUMBERS}; others stay unread. It may raise UsageError.
      mend: what to do about an unsound file, such as "copy it again".

    Raises:
      UsageError: it is no sound archive, or an array is of another kind.
      UserError: an array needs more memory than there is.
    """
    try:
        with open(path, "rb") as file:
            _require_zip(file.read(8), path, mend)
            size = file.seek(0, io.SEEK_END)
            with zipfile.ZipFile(file) as archive:
                members = _members(archive, path, size, mend)
                return {
                    name: _array(archive, members[name], name, kinds, path, mend)
                    for name, kinds in choose(tuple(members)).items()
                }
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except _DAMAGE as error:
        reason = printable(str(error) or type(error).__name__)
        raise UsageError(f"{path} is damaged or cut short ({reason}): {mend}.") from error


def listed(names: tuple[str, ...]) -> str:
    """Names in an archive for a sentence, "obs, acts"."""
    shown = ", ".join(map(printable, names[:20]))
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown or "nothing"


def free_memory() -> int:
    """Free bytes of this machine, or of what limits this process."""
    available = psutil.virtual_memory().available
    try:
        limit = int((_GROUP / "memory.max").read_text())
        used = int((_GROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no such limit, or "max"
        return available
    return min(available, limit - used)


# ------------------------------------------------------------------------ the directory


def _require_zip(start: bytes, path: Path, mend: str) -> None:
    if not start:
        raise EOFError("it is empty")
    if not start.startswith(b"PK"):
        kind = next((kind for magic, kind in _FOREIGN.items() if magic in start), "")
        raise UsageError(
            f"{path} is not an .npz archive of plain arrays{kind} {_NEVER_LOADED}: {mend}."
        )


def _members(
    archive: zipfile.ZipFile, path: Path, size: int, mend: str
) -> dict[str, zipfile.ZipInfo]:
    """The members by the names of their arrays, checked."""
    infos = archive.infolist()
    if len(infos) > _MEMBERS:
        raise UsageError(
            f"{path} holds {len(infos)} arrays, and at most {_MEMBERS} are read: {mend}."
        )
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removesuffix(".npy")
        complaint = "is there twice" if name in members else _complaint(info, size)
        if complaint:
            raise UsageError(f"{path}: {printable(name)} {complaint}: {mend}.")
        archive.open(info).close()  # compares the directory with the member's own header
        members[name] = info
    return members


def _complaint(info: zipfile.ZipInfo, size: int) -> str:
    """What is wrong with an entry of a directory; "": nothing.

    Args:
      size: bytes of the whole file.
    """
    name = info.orig_filename
    if not name.isprintable() or len(name) > _NAME:
        return f"is no name of at most {_NAME} printable characters"
    if info.flag_bits & 1:
        return "is encrypted, and files with a password are not read"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is packed by method {info.compress_type}, which numpy never uses"
    ratio = _RATIO if info.compress_type == zipfile.ZIP_DEFLATED else 1
    if info.compress_size > size or info.file_size > ratio * info.compress_size:
        return "claims to be larger than the file can hold"
    return ""


# ----------------------------------------------------------------------------- an array


def _array(
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    name: str,
    kinds: str,
    path: Path,
    mend: str,
) -> np.ndarray:
    with archive.open(info) as member:
        shape, by_columns, dtype = _header(member, name)
        _require_kind(shape, dtype, kinds, f"{path}: {printable(name)}", mend)
        size = math.prod(shape) * dtype.itemsize
        whole = all(type(rows) is int and rows >= 0 for rows in shape)
        if not whole or member.tell() + size != info.file_size:
            raise ValueError(f"{printable(name)} has not as many bytes as its shape says")
        array = _filled(member, size, f"{path}: {printable(name)}")
    array = array.view(dtype) if size else np.zeros(math.prod(shape), dtype)
    if dtype.kind == TRUTHS and (array.view(np.uint8) > 1).any():
        raise ValueError(f"{printable(name)} holds what is no bool")
    array = array.astype(dtype.newbyteorder("="), copy=False)
    if dtype.kind == TEXT and size and array.view(np.uint32).max() > 0x10FFFF:
        raise ValueError(f"{printable(name)} holds what is no character")
    return array.reshape(shape, order="F" if by_columns else "C")


def _header(member: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type of the array in a member."""
    start = member.read(8)
    form, parse = _HEADERS.get(start[6:], ("", None))
    if parse is None or not start.startswith(np.lib.format.MAGIC_PREFIX):
        raise ValueError(f"{printable(name)} is no array")
    length = member.read(struct.calcsize(form))
    (size,) = struct.unpack(form, length)
    if size > _HEADER:
        raise ValueError(f"{printable(name)} has a header of {size} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers as Python 2 wrote them
            return parse(io.BytesIO(length + member.read(size)))
    except Exception as error:  # numpy parses Python, which fails in many ways
        raise ValueError(f"{printable(name)} has no sound header") from error


def _require_kind(
    shape: tuple[int, ...], dtype: np.dtype, kinds: str, where: str, mend: str
) -> None:
    if dtype.hasobject:
        raise UsageError(f"{where} is an array of objects {_NEVER_LOADED}: {mend}.")
    if dtype.kind not in kinds:
        raise UsageError(
            f"{where} has shape {printable(str(shape))} and type {printable(str(dtype))}, "
            f"where {_WORDS.get(kinds, 'numbers')} are wanted; {mend}."
        )


def _filled(member: IO[bytes], size: int, where: str) -> np.ndarray:
    """The rest of a member, `[size]` uint8; zipfile compares its checksum at the end."""
    # Half is left for what is made of the array.
    if size > (free := free_memory()) // 2:
        raise UserError(_too_large(where, size, free))
    try:
        array, filled = np.empty(size, np.uint8), 0
        while block := member.read(_BLOCK):
            array[filled : filled + len(block)] = np.frombuffer(block, np.uint8)
            filled += len(block)
    except MemoryError:
        raise UserError(_too_large(where, size, free)) from None
    if filled < size:  # its stream ends before its size
        raise EOFError(f"{filled} of {size} bytes")
    return array


def _too_large(where: str, size: int, free: int) -> str:
    return (
        f"{where} wants {size / 1e9:.3g} GB of memory, of which {free / 1e9:.3g} GB are "
        "free: take a smaller file, or a machine with more memory."
    )
