"""Ways to change a file, for `benchmarks.mutations`: bytes, JSON, arrays, headers, zips.

A change takes a sound file and returns other bytes, and what they may lead to:

    ANY    the file says something else now: what is read may differ
    SAME   what is read is what was written, or the file is refused
    NEVER  the file is refused
"""

import functools
import io
import json
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from planil_jax.training import files

ANY, SAME, NEVER = "any", "same", "never"
BOMB = 3 << 29  # bytes that a bomb unpacks to
TEXTS = ("configuration", "manifest")  # kinds that are JSON; others are archives of arrays


class Base(NamedTuple):
    """A sound file."""

    kind: str
    path: Path
    content: bytes
    read: Callable[[], Any]  # what the file holds
    show: Callable[[], str]  # what a user is shown of it
    named: Path  # what a refusal names: the file, or the checkpoint that it belongs to

    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays, where it is an archive."""
        with np.load(io.BytesIO(self.content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}


Rng: TypeAlias = np.random.Generator
Changed: TypeAlias = tuple[bytes, str]  # the file, and what it may lead to
Change: TypeAlias = Callable[[Rng, Base], Changed]


def of_kind(kind: str) -> dict[str, Change]:
    """The changes that suit a kind of file, by name."""
    named: dict[str, Change]
    named = {f"bytes: {name}": partial(_by_bytes, change) for name, change in BYTES.items()}
    if kind != "source":
        named |= {
            f"json: {name}": partial(_by_json, change) for name, change in JSON.items()
        }
    if kind in TEXTS:
        return named
    named |= {
        f"array: {name}": partial(_by_array, *change) for name, change in ARRAYS.items()
    }
    named |= {f"number: {name}": change for name, change in NUMBERS.items()}
    named |= {
        f"header: {name}": partial(_by_header, *change) for name, change in HEADERS.items()
    }
    return named | {f"zip: {name}": change for name, change in ZIPS.items()}


def pick(rng: Rng, items: Sequence[Any]) -> Any:
    """One of them."""
    return items[int(rng.integers(len(items)))]


# ---------------------------------------------------------------------------------- bytes


def _by_bytes(change: Callable[[Rng, bytes], bytes], rng: Rng, base: Base) -> Changed:
    # People may edit a configuration; the others have checksums.
    return change(rng, base.content), ANY if base.kind == "configuration" else SAME


def _instead(new: Callable[[Rng, bytes], bytes]) -> Callable[[Rng, bytes], bytes]:
    """Puts others in the place of up to 39 bytes."""

    def changed(rng: Rng, content: bytes) -> bytes:
        start = int(rng.integers(len(content)))
        stop = start + int(rng.integers(1, 40))
        return content[:start] + new(rng, content[start:stop]) + content[stop:]

    return changed


_flipped = _instead(lambda rng, old: bytes([old[0] ^ 1 << int(rng.integers(8))]) + old[1:])
BYTES: dict[str, Callable[[Rng, bytes], bytes]] = {
    "a bit flipped": _flipped,
    "another bit flipped": _flipped,
    "a third bit flipped": _flipped,
    "some inserted": _instead(lambda rng, old: rng.bytes(len(old)) + old),
    "some dropped": _instead(lambda rng, old: b""),
    "some repeated": _instead(lambda rng, old: old * 2),
    "zeros": _instead(lambda rng, old: bytes(len(old))),
    "ones": _instead(lambda rng, old: b"\xff" * len(old)),
    "cut": lambda rng, content: content[: int(rng.integers(len(content)))],
    "nothing left": lambda rng, content: b"",
    "garbage before": lambda rng, content: rng.bytes(20) + content,
    "garbage after": lambda rng, content: content + rng.bytes(20),
}

# ----------------------------------------------------------------------------------- JSON

_ODD = (
    *("null", "true", "-1", "0", "1.5", "[]", "{}", '""', '"text"', "[[1], 2]"),
    *("1" + "0" * 30, "1" + "0" * 400, "1" + "0" * 5000, "1e999", "NaN", "-Infinity"),
    *('"\\u001b[31mred\\u001b[0m"', '"\\u202egpj.exe"', '"two\\nlines"', '"\\ud800"'),
    *('"\\u0000"', json.dumps("x" * 100_000), "[" * 50 + "]" * 50, "[" * 990 + "]" * 990),
    '["a", "\\u001b]0;title\\u0007"]',
)


def _by_json(
    change: Callable[[Rng, dict], tuple[str, str]], rng: Rng, base: Base
) -> Changed:
    if base.kind not in TEXTS:
        arrays = base.arrays()
        name = pick(rng, [name for name in ("card", "settings") if name in arrays])
        text, allowed = change(rng, json.loads(arrays[name].item()))
        return _zipped(_members(arrays | {name: np.array(text)})), allowed
    whole = json.loads(base.content)
    had_seal = whole.pop("crc32", None) is not None
    text, allowed = change(rng, whole)
    if had_seal and rng.integers(2):  # by someone who knows how
        text = files.seal(text)
    elif had_seal and allowed == ANY:
        allowed = SAME
    return text.encode(), allowed


def _paths(nested: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all fields in nested dictionaries and lists."""
    pairs = nested.items() if isinstance(nested, dict) else enumerate(nested)
    for name, item in pairs:
        yield (*path, name)
        if isinstance(item, dict | list):
            yield from _paths(item, (*path, name))


def _field(rng: Rng, whole: dict, kinds: type = object) -> tuple[Any, Any]:
    """A part of an object, and the name of a field in it, or its index in a list."""
    paths = [path for path in _paths(whole) if isinstance(path[-1], kinds)]
    *above, name = pick(rng, paths)
    return functools.reduce(lambda node, key: node[key], above, whole), name


def _retyped(rng: Rng, whole: dict) -> tuple[str, str]:
    part, name = _field(rng, whole)
    part[name] = "HERE IT STANDS"
    return json.dumps(whole).replace('"HERE IT STANDS"', pick(rng, _ODD)), ANY


def _removed(rng: Rng, whole: dict) -> tuple[str, str]:
    part, name = _field(rng, whole)
    del part[name]
    return json.dumps(whole), ANY


def _renamed(rng: Rng, whole: dict) -> tuple[str, str]:
    part, name = _field(rng, whole, str)
    part[f"{name}x"] = part.pop(name)
    return json.dumps(whole), SAME


def _further(name: str) -> Callable[[Rng, dict], tuple[str, str]]:
    return lambda rng, whole: (json.dumps(whole | {name: 1}), SAME)


def _repeated(value: Callable[[Rng], str], name: str = "") -> Any:
    """One more field at the end, or one that is there already."""

    def changed(rng: Rng, whole: dict) -> tuple[str, str]:
        key = json.dumps(name or pick(rng, list(whole)))
        return f"{json.dumps(whole)[:-1]}, {key}: {value(rng)}}}", NEVER

    return changed


def _text(text: str) -> Callable[[Rng, dict], tuple[str, str]]:
    return lambda rng, whole: (text, NEVER)


JSON: dict[str, Callable[[Rng, dict], tuple[str, str]]] = {
    "another type": _retyped,
    "another value": _retyped,
    "an odd value": _retyped,
    "an odder value": _retyped,
    "a field removed": _removed,
    "a field renamed": _renamed,
    "a field twice": _repeated(lambda rng: pick(rng, _ODD[:10])),
    "a field too many": _further("more"),
    "escape codes in a name": _further("\x1b[2J\x1b[31mred"),
    "turned letters in a name": _further("\u202ecod.exe"),
    "two lines in a name": _further("one\ntwo"),
    "a long name": _further("x" * 100_000),
    "deep lists": _repeated(lambda rng: "[" * 100_000 + "]" * 100_000, "deep"),
    "lists alone": _text("[" * 100_000),
    "a list": _text("[1, 2]"),
    "a number": _text("3"),
    "null": _text("null"),
    "an empty text": _text(""),
    "a bracket": _text("{"),
}

# --------------------------------------------------------------------------------- arrays


def _members(arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {f"{name}.npy": _npy(array) for name, array in arrays.items()}


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def _zipped(
    members: dict[str, bytes] | Iterable[tuple[str, bytes]],
    zip64: bool = False,
    comment: bytes = b"",
) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # two members of one name
        archive.comment = comment
        for name, content in members.items() if isinstance(members, dict) else members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=zip64) as member:
                member.write(content)
    return file.getvalue()


def _some_array(rng: Rng, base: Base, kinds: str = "fiub") -> tuple[dict, str | None]:
    """The arrays of a file, and the name of one of these types, if there is any."""
    arrays = base.arrays()
    names = [name for name, array in arrays.items() if array.dtype.kind in kinds]
    return arrays, pick(rng, names) if names else None


def _by_array(change: Callable, allowed: str, rng: Rng, base: Base) -> Changed:
    arrays, name = _some_array(rng, base)
    after = change(arrays[name])
    equal = after.dtype == arrays[name].dtype and after.shape == arrays[name].shape
    return _zipped(_members(arrays | {name: after})), SAME if equal else allowed


def _structured(array: np.ndarray) -> np.ndarray:
    made = np.zeros(array.shape, [("value", array.dtype), ("more", np.int8)])
    made["value"] = array
    return made


ARRAYS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "strings": (lambda a: a.astype("U32"), NEVER),
    "the text False": (lambda a: np.full(a.shape, "False"), NEVER),
    "bytes": (lambda a: a.astype("S32"), NEVER),
    "complex": (lambda a: a + np.complex64(1j), NEVER),
    "dates": (lambda a: a.astype(np.int64).astype("datetime64[s]"), NEVER),
    "durations": (lambda a: a.astype(np.int64).astype("timedelta64[s]"), NEVER),
    "records": (_structured, NEVER),
    "raw bytes": (lambda a: np.zeros(a.shape, "V4"), NEVER),
    "booleans": (lambda a: a.astype(bool), NEVER),
    "half precision": (lambda a: a.astype(np.float16), ANY),
    "double precision": (lambda a: a.astype(np.float64), SAME),
    "long double": (lambda a: a.astype(np.longdouble), SAME),
    "bytes swapped": (lambda a: a.astype(a.dtype.newbyteorder(">")), SAME),
    "columns first": (np.asfortranarray, SAME),
    "small integers": (lambda a: a.astype(np.int8), ANY),
    "unsigned integers": (lambda a: a.astype(np.int64).astype(np.uint64), ANY),
    "a scalar": (lambda a: np.array(a.flat[0]), NEVER),
    "empty": (lambda a: a.reshape(-1)[:0].reshape(0, *a.shape[1:]), NEVER),
    "one axis more": (lambda a: a[None], NEVER),
    "one axis less": (lambda a: a.reshape(-1) if a.ndim > 1 else a.sum(), NEVER),
    "a row less": (lambda a: a[:-1] if a.ndim else a[None], NEVER),
    "a row more": (lambda a: np.concatenate([a, a[:1]]) if a.ndim else a[None], NEVER),
}


def _with_number(value: float) -> Change:
    """A value that no array of floats may hold, but rewards, which nobody learns from."""

    def changed(rng: Rng, base: Base) -> Changed:
        arrays, name = _some_array(rng, base, "f")
        if name is None:
            return base.content, SAME
        arrays[name] = arrays[name].astype(np.float64)
        arrays[name].flat[rng.integers(arrays[name].size)] = value
        return _zipped(_members(arrays)), ANY if name in ("rewards", "rews") else NEVER

    return changed


def _with(value: Callable[[np.ndarray], Any], *names: str) -> Change:
    """Another value of the array that has one of the names."""

    def changed(rng: Rng, base: Base) -> Changed:
        arrays = base.arrays()
        name = next((name for name in names if name in arrays), None)
        if name is None:
            return base.content, SAME
        return _zipped(_members(arrays | {name: np.array(value(arrays[name]))})), NEVER

    return changed


def _with_lengths(*values: Any) -> Change:
    return _with(lambda _: values, "length", "lengths")


NUMBERS: dict[str, Change] = {
    "nan": _with_number(np.nan),
    "infinite": _with_number(np.inf),
    "minus infinite": _with_number(-np.inf),
    "beyond single precision": _with_number(1e300),
    "lengths below 0": _with_lengths(-3, 11),
    "a length of 0": _with_lengths(0, 8),
    "lengths that overflow": _with_lengths(2**62, 2**62, 2**62, 2**62 + 6),
    "lengths beyond 63 bits": _with_lengths(np.uint64(2**64 - 8), np.uint64(16)),
    "lengths that are too great": _with_lengths(2**40, 2**40),
    "lengths in halves": _with_lengths(2.5, 5.5),
    "lengths that are nan": _with_lengths(np.nan, 8.0),
    "no lengths": _with_lengths(),
    "actions in degrees": _with(lambda actions: 50 * actions, "acts"),
}

# -------------------------------------------------------------------------------- headers


def _by_header(change: Callable, allowed: str, rng: Rng, base: Base) -> Changed:
    arrays = base.arrays()
    name = pick(rng, list(arrays))
    return _zipped(_members(arrays) | {f"{name}.npy": change(arrays[name])}), allowed


def _raw(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """An array as its header is written."""
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header.encode("latin1") + data


def _header(array: np.ndarray, **changes: Any) -> str:
    descr = np.lib.format.dtype_to_descr(array.dtype)
    return f"{dict(descr=descr, fortran_order=False, shape=array.shape) | changes!r}\n"


def _claims(**changes: Any) -> Callable[[np.ndarray], bytes]:
    return lambda a: _raw(_header(a, **changes), a.tobytes())


def _says(header: str) -> Callable[[np.ndarray], bytes]:
    return lambda a: _raw(header, a.tobytes())


def _of_version(*version: int) -> Callable[[np.ndarray], bytes]:
    return lambda a: _raw(_header(a), a.tobytes(), version)  # type: ignore[arg-type]


def _of_python_2(a: np.ndarray) -> bytes:
    return _raw(re.sub(r"(\d)([,)])", r"\1L\2", _header(a)), a.tobytes())


HEADERS: dict[str, tuple[Callable[[np.ndarray], bytes], str]] = {
    "10^12 rows": (_claims(shape=(10**12,)), NEVER),
    "2^62 rows": (_claims(shape=(2**62, 2)), NEVER),
    "10^40 rows": (_claims(shape=(10**40,)), NEVER),
    "a size that overflows to 0": (_claims(shape=(2**32, 2**32)), NEVER),
    "rows below 0": (_claims(shape=(-1,)), NEVER),
    "a shape of truths": (_claims(shape=(True, True)), NEVER),
    "a shape of 70 axes": (_claims(shape=(1,) * 70), NEVER),
    "pickled objects": (_claims(descr="|O"), NEVER),
    "an unknown type": (_claims(descr="<f3"), NEVER),
    "a nested type": (_claims(descr=[("a", [("b", "<f4")], (3,))]), NEVER),
    "a type with a title": (_claims(descr=[(("\x1b[31m", "a"), "<f4")]), NEVER),
    "no dictionary": (_says("[1, 2]\n"), NEVER),
    "code": (_says("__import__('os')\n"), NEVER),
    "a deep header": (_says("(" * 5000 + "\n"), NEVER),
    "a long header": (lambda a: _raw(_header(a) + " " * 10**5, a.tobytes(), (2, 0)), SAME),
    "a header of 4 GB": (lambda a: b"\x93NUMPY\x02\x00" + b"\xff" * 4 + a.tobytes(), NEVER),
    "version 2": (_of_version(2, 0), SAME),
    "version 3": (_of_version(3, 0), SAME),
    "version 9": (_of_version(9, 0), NEVER),
    "of Python 2": (_of_python_2, SAME),
    "no data": (lambda a: _raw(_header(a)), NEVER),
    "data cut": (lambda a: _npy(a)[:-1], NEVER),
    "data too long": (lambda a: _npy(a) + b"\0", SAME),
    "no magic": (lambda a: a.tobytes(), NEVER),
    "nothing": (lambda a: b"", NEVER),
}

# ----------------------------------------------------------------------------------- zips


def _of_field(local: int, central: int, form: str, value: Callable[[int], int]) -> Change:
    """A field of the first member changed, in both of its headers."""

    def changed(rng: Rng, base: Base) -> Changed:
        members = list(_members(base.arrays()).items())
        content = bytearray(_zipped(members[at] for at in rng.permutation(len(members))))
        for magic, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
            at = content.index(magic) + offset
            struct.pack_into(
                form, content, at, value(*struct.unpack_from(form, content, at))
            )
        return bytes(content), NEVER

    return changed


def _beside(name: str, content: bytes) -> Change:
    """A further member."""
    return lambda rng, base: (_zipped(_members(base.arrays()) | {name: content}), SAME)


def _many(rng: Rng, base: Base) -> Changed:
    more = {f"{number}.npy": b"" for number in range(5000)}
    return _zipped(_members(base.arrays()) | more), SAME


def _given_twice(rng: Rng, base: Base) -> Changed:
    arrays, name = _some_array(rng, base)
    again = (f"{name}.npy", _npy(np.zeros_like(arrays[name])))
    return _zipped([*_members(arrays).items(), again]), NEVER


def _lost(rename: Callable[[str], str] | None) -> Change:
    """A member taken out, or given another name."""

    def changed(rng: Rng, base: Base) -> Changed:
        members = _members(base.arrays())
        name = pick(rng, list(members))
        content = members.pop(name)
        # A source may hold what is not ours; it is said that this was not read.
        allowed = ANY if rename is None or base.kind == "source" else SAME
        return _zipped(members | ({rename(name): content} if rename else {})), allowed

    return changed


def _bomb(rng: Rng, base: Base) -> Changed:
    """A member of a few MB that unpacks to zeros of some GB."""
    arrays, name = _some_array(rng, base)
    header = _raw(_header(arrays[name], shape=(BOMB // arrays[name].dtype.itemsize,)))
    file = io.BytesIO(_zipped(_members({n: arrays[n] for n in arrays if n != name})))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            member.write(header)
            for _ in range(BOMB >> 24):
                member.write(bytes(1 << 24))
    return file.getvalue(), NEVER


def _packed_so(suffix: bytes = b"", **how: Any) -> Change:
    return lambda rng, base: (_zipped(_members(base.arrays()), **how) + suffix, SAME)


def _alone(content: bytes) -> Change:
    return lambda rng, base: (content, NEVER)


_SMALL = np.arange(3.0)
ZIPS: dict[str, Change] = {
    "a member lost": _lost(None),
    "a member of another name": _lost(lambda name: f"x{name}"),
    "a path as a name": _lost(lambda name: f"../../{name}"),
    "a member that is no .npy": _lost(lambda name: name[:-4]),
    "a member twice": _given_twice,
    "encrypted": _of_field(6, 8, "<H", lambda flags: flags | 1),
    "packed by bzip2": _of_field(8, 10, "<H", lambda _: 12),
    "packed by LZMA": _of_field(8, 10, "<H", lambda _: 14),
    "packed by an unknown method": _of_field(8, 10, "<H", lambda _: 97),
    "another sum": _of_field(14, 16, "<I", lambda crc: crc ^ 1),
    "a greater size": _of_field(22, 24, "<I", lambda size: size + 1000),
    "a smaller size": _of_field(22, 24, "<I", lambda size: size - 1),
    "a size of 4 GB": _of_field(22, 24, "<I", lambda _: 2**32 - 2),
    "a packed size of 4 GB": _of_field(18, 20, "<I", lambda _: 2**32 - 2),
    "a bomb": _bomb,
    "another member": _beside("more.npy", _npy(_SMALL)),
    "a pickle beside": _beside("infos.npy", _raw(_header(_SMALL, descr="|O"))),
    "escape codes in a name": _beside("\x1b[2J\x1b[31mred.npy", _npy(_SMALL)),
    "turned letters in a name": _beside("\u202eyp.npy", _npy(_SMALL)),
    "two lines in a name": _beside("one\ntwo.npy", _npy(_SMALL)),
    "a long name": _beside("x" * 60_000 + ".npy", _npy(_SMALL)),
    "5000 members more": _many,
    "a folder": _beside("folder/", b""),
    "of 64 bits": _packed_so(zip64=True),
    "a comment": _packed_so(comment=b"\x1b[31mred"),
    "two archives": _packed_so(_zipped({"obs.npy": _npy(_SMALL)})),
    "an empty archive": _alone(_zipped({})),
    "a single array": _alone(_npy(_SMALL)),
    "a pickle": _alone(b"\x80\x04]\x94."),
    "HDF5": _alone(b"\x89HDF\r\n\x1a\n" + bytes(600)),
    "a text": _alone(b"x,y\n1,2\n"),
}
