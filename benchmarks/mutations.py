"""Changed files, each read as a user would read it: every end is right, or one sentence.

    python -m benchmarks.mutations --count=3000 --seed=0

A case takes a sound file (demonstrations, a source of `planil convert`, the configuration
of a run, a checkpoint's manifest or an expert), changes one thing in it, and reads it. The
number of a case and the seed decide the change, so that any case can be repeated alone.

What a change may lead to is known when it is made:

    ANY    the file says something else now: what is read may differ
    SAME   what is read is what was written, or the file is refused
    NEVER  the file is refused
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import re
import resource
import shutil
import struct
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from planil_jax import config, envs, experiment, runs
from planil_jax.base import EnvState, TrainState, UserError
from planil_jax.cli import app
from planil_jax.data import demos, expert_file, formats
from planil_jax.data.dataset import Demos
from planil_jax.evaluation import collect
from planil_jax.training import checkpoint

ANY, SAME, NEVER = "any", "same", "never"

EQUAL = "accepted, equal"
OTHER = "accepted, as the file says"
REFUSED = "refused in a sentence"
SILENT = "accepted, silently wrong"
UNEXPECTED = "unexpected"
VERDICTS = (EQUAL, OTHER, REFUSED, SILENT, UNEXPECTED)

SECONDS = 5.0  # that reading may take
MEMORY = 1_000_000_000  # further bytes that reading may take
_LONGEST = 2000  # characters of a sentence
_BOMB = 3 << 30  # bytes that a bomb declares and holds

FLAGS = flags.FLAGS


class Case(NamedTuple):
    """One changed file."""

    number: int
    kind: str  # such as "demonstrations"
    change: str  # such as "array: strings"


class Outcome(NamedTuple):
    """What became of it."""

    verdict: str  # one of VERDICTS
    said: str  # the sentence, or what is wrong
    seconds: float


class Base(NamedTuple):
    """A sound file."""

    kind: str
    path: Path
    content: bytes
    read: Callable[[], Any]  # what the file holds
    show: Callable[[], str]  # what a user is shown of it


class Changed(NamedTuple):
    """A file after a change, and what it may lead to."""

    content: bytes
    allowed: str


Change = Callable[[np.random.Generator, Base], Changed]


def run(count: int, seed: int, first: int = 0) -> tuple[list[Case], list[Outcome]]:
    """Changes and reads `count` files.

    Args:
      seed: of all cases.
      first: the number of the first case.
    """
    cases, outcomes = [], []
    with tempfile.TemporaryDirectory() as directory:
        kinds = _kinds(Path(directory))
        sound = [[_read(base)[0] for base in bases] for bases in kinds.values()]
        for number in range(first, first + count):
            at, turn = number % len(kinds), number // len(kinds)
            kind = list(kinds)[at]
            changes = _changes(kind)
            order = np.random.default_rng([seed, at, turn // len(changes)])
            name = list(changes)[order.permutation(len(changes))[turn % len(changes)]]
            rng = np.random.default_rng([seed, number])
            which = rng.integers(len(kinds[kind]))
            base = kinds[kind][which]
            cases.append(Case(number, kind, name))
            outcomes.append(_outcome(base, changes[name](rng, base), sound[at][which]))
    return cases, outcomes


def table(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """How many cases of each kind had each verdict."""
    counts = {case.kind: dict.fromkeys(VERDICTS, 0) for case in cases}
    for case, outcome in zip(cases, outcomes, strict=True):
        counts[case.kind][outcome.verdict] += 1
    return counts


def faults(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each case that ended neither right nor in a sentence."""
    return [
        f"{case.number} {case.kind}, {case.change}: {outcome.verdict}: "
        f"{outcome.said[:160]!r}"
        for case, outcome in zip(cases, outcomes, strict=True)
        if outcome.verdict in (SILENT, UNEXPECTED)
    ]


def main() -> None:
    began = time.monotonic()
    cases, outcomes = run(FLAGS.count, FLAGS.seed, FLAGS.first)
    print(*faults(cases, outcomes), sep="\n")
    for kind, counts in table(cases, outcomes).items():
        ends = (f"{many} {verdict}" for verdict, many in counts.items() if many)
        print(f"{kind}: {'; '.join(ends)}")
    print(f"{len(cases)} changed files in {time.monotonic() - began:.0f} s")


# -------------------------------------------------------------------------------- reading


def _outcome(base: Base, changed: Changed, sound: str) -> Outcome:
    """Reads a changed file, and says what became of it."""
    base.path.write_bytes(changed.content)
    began = time.monotonic()
    try:
        with _little_memory(), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            found, shown = _read(base)
    except UserError as error:
        verdict, said = REFUSED, str(error)
        if problem := _unfit(said):
            verdict, said = UNEXPECTED, f"{problem}: {said}"
    except Exception as error:  # whatever it is, it is reported
        verdict, said = UNEXPECTED, f"{type(error).__name__}: {error}"[:300]
    else:
        lines = shown.splitlines()
        if warned:
            verdict, said = UNEXPECTED, f"warned: {warned[0].message}"
        elif problem := next(filter(None, map(_unfit, lines)), ""):
            verdict, said = UNEXPECTED, f"shows {problem}"
        elif changed.allowed == NEVER:
            verdict, said = SILENT, "was accepted"
        elif found == sound:
            verdict, said = EQUAL, ""
        else:
            verdict, said = (OTHER if changed.allowed == ANY else SILENT), "reads otherwise"
    finally:
        base.path.write_bytes(base.content)
    seconds = time.monotonic() - began
    if seconds > SECONDS:
        verdict, said = UNEXPECTED, f"took {seconds:.1f} s: {said}"
    return Outcome(verdict, said, seconds)


def _read(base: Base) -> tuple[str, str]:
    """A fingerprint of what a file holds, and what is shown of it."""
    return hashlib.sha256(repr(_plain(base.read())).encode()).hexdigest(), base.show()


def _unfit(sentence: str) -> str:
    """What is wrong with a sentence; "": nothing."""
    if not sentence.isprintable():
        return "control characters"
    if len(sentence) > _LONGEST:
        return f"{len(sentence)} characters"
    return "an invitation to unpickle" if "allow_pickle" in sentence else ""


def _plain(value: Any) -> Any:
    """A value as something whose `repr` is the value, arrays and all."""
    if isinstance(value, np.ndarray | jax.Array):
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        return str(value.dtype), value.shape, np.asarray(value).tobytes()
    if isinstance(value, dict):
        return {name: _plain(value[name]) for name in sorted(value)}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def _little_memory() -> Iterator[None]:
    """Lets this process take `MEMORY` more, where the system can tell and limit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        yield
        return
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# ---------------------------------------------------------------------------- sound files


def _kinds(directory: Path) -> dict[str, list[Base]]:
    return {
        "demonstrations": list(_demonstrations(directory)),
        "source": list(_sources(directory)),
        "configuration": list(_configurations(directory)),
        "expert": list(_experts(directory)),
        "manifest": list(_manifests(directory)),
    }


def _demonstrations(directory: Path) -> Iterator[Base]:
    spec = envs.make("point_mass").spec
    rng = np.random.default_rng(0)
    card = demos.Card(
        environment="point_mass",
        control_period=spec.control_period,
        observation_names=spec.observation_names,
        action_low=spec.action_low,
        action_high=spec.action_high,
        expert="by hand",
    )
    whole = [
        demos.Episode(
            obs=rng.normal(size=(length + 1, spec.observation_size)).astype(np.float32),
            actions=rng.uniform(-0.5, 0.5, (length, spec.action_size)).astype(np.float32),
            rewards=rng.normal(size=length).astype(np.float32),
            terminal=bool(length == 3),
        )
        for length in (3, 5)
    ]
    thin = [dataclasses.replace(episode, actions=None, rewards=None) for episode in whole]
    seen = [
        dataclasses.replace(
            episode, obs=rng.integers(0, 255, (len(episode.obs), 4, 4, 3), np.uint8)
        )
        for episode in thin
    ]
    pictured = demos.Card(environment="arm", control_period=0.1, image=(4, 4, 3))
    of_arrays: list[tuple[str, Any, demos.Card, Callable[[Path], Any]]] = [
        ("actions.npz", whole, card, demos.read),
        ("trained.npz", whole, card, lambda path: demos.load(path, spec)),
        ("thin.npz", thin, card, Demos.load),
        ("pictures.npz", seen, pictured, demos.read),
    ]
    for name, episodes, its_card, read in of_arrays:
        path = directory / name
        demos.save(path, episodes, its_card)
        yield Base(
            "demonstrations",
            path,
            path.read_bytes(),
            functools.partial(_fields, read, path),
            functools.partial(demos.describe, path),
        )


def _fields(read: Callable[[Path], Any], path: Path) -> Any:
    """What a reader of demonstrations returns, as dictionaries and lists."""
    found = read(path)
    if isinstance(found, tuple):
        episodes, card = found
        return [vars(episode) for episode in episodes], vars(card)
    if isinstance(found, Demos):
        return [vars(episode) for episode in found.episodes], vars(found.card)
    return vars(found)


def _sources(directory: Path) -> Iterator[Base]:
    spec = envs.make("point_mass").spec
    rng = np.random.default_rng(1)
    lengths = np.array([3, 5])
    arrays = {
        "obs": rng.normal(size=(lengths.sum() + 2, spec.observation_size)),
        "lengths": lengths,
        "acts": rng.uniform(-0.5, 0.5, (lengths.sum(), spec.action_size)),
        "rews": rng.normal(size=lengths.sum()),
        "terminal": np.array([True, False]),
    }
    out = str(directory / "converted.npz")
    for name, chosen in (("theirs.npz", list(arrays)), ("bare.npz", ["obs", "lengths"])):
        path = directory / name
        np.savez(path, **{key: arrays[key] for key in chosen})  # type: ignore[arg-type]

        def read(path: Path = path) -> Any:
            formats.convert(str(path), "point_mass", spec, out, 2)
            return _fields(demos.read, Path(out))

        yield Base(
            "source",
            path,
            path.read_bytes(),
            read,
            # The name of a source is part of what its demonstrations say.
            functools.partial(collect.summary, out),
        )


def _configurations(directory: Path) -> Iterator[Base]:
    for method in ("mpail", "bc"):
        path = directory / method / "config.json"
        path.parent.mkdir()
        settings = experiment.for_method(method, environment="point_mass")
        plain = {"version": config.VERSION} | json.loads(config.to_json(settings))
        path.write_text(json.dumps(plain, indent=2))

        def read(path: Path = path) -> Any:
            return repr(runs.load_experiment(path.parent))

        yield Base("configuration", path, path.read_bytes(), read, str)


def _experts(directory: Path) -> Iterator[Base]:
    path = directory / "expert.npz"
    weights = {
        "weights.params.bias": np.arange(3, dtype=np.float32),
        "weights.params.kernel": np.ones((2, 3), np.float32),
        "weights.count": np.array(3, np.int32),
    }
    settings: dict[str, Any] = {
        "environment": "pendulum",
        "method": "sac",
        "model": [],
        "agent": {},
    }
    card = expert_file.Card(
        observation_names=("x [m]", "v [m/s]"),
        action_low=(-1.0,),
        action_high=(1.0,),
        control_period=0.1,
        returns=(1.0, 2.0),
    )
    settings = {"version": config.VERSION} | settings
    expert_file.save(path, expert_file.Expert(weights, settings, card))

    def read() -> Any:
        weights, settings, card = expert_file.read(path)
        return [weights, settings, vars(card), expert_file.is_one(path)]

    show = functools.partial(expert_file.describe, path)
    yield Base("expert", path, path.read_bytes(), read, show)


def _manifests(directory: Path) -> Iterator[Base]:
    checkpoints = directory / "checkpoints"
    state = TrainState(
        agent={"params": {"weight": jnp.arange(6.0).reshape(1, 6)}},
        env=EnvState(sim=(), obs=jnp.ones((1, 2, 3)), time=jnp.zeros((1, 2), jnp.int32)),
        carry=(),
        key=jax.random.split(jax.random.key(0), 1),
    )
    place = checkpoint.save(checkpoints, state, step=40, round_=2, score=1.5)
    kept = directory / "kept"
    shutil.copytree(place, kept)
    path = place / "checkpoint.json"
    notices: list[str] = []

    def read() -> Any:
        restored = checkpoint.restore_latest(checkpoints, state)
        if restored is None:
            raise UserError("there is no checkpoint.")
        notices[:] = restored.notices
        return [restored.step, restored.round, jax.tree.leaves(restored.state)]

    yield Base("manifest", path, path.read_bytes(), read, lambda: "\n".join(notices))


# ------------------------------------------------------------------------ changes: bytes


def _changes(kind: str) -> dict[str, Change]:
    """The changes that suit a kind of file, by name."""
    named = {f"bytes: {name}": _of_bytes(change) for name, change in _BYTES.items()}
    # A byte of a text is as often hit in its content as in its layout.
    named |= {f"json: {name}": _of_json(change) for name, change in _JSON.items()}
    if kind in ("configuration", "manifest"):
        return named
    if kind == "source":
        named = {name: change for name, change in named.items() if "json" not in name}
    named |= {f"array: {name}": _of_array(*change) for name, change in _ARRAYS.items()}
    named |= {f"number: {name}": change for name, change in _NUMBERS.items()}
    named |= {f"header: {name}": _of_header(*change) for name, change in _HEADERS.items()}
    return named | {f"zip: {name}": change for name, change in _ZIP.items()}


def _span(rng: np.random.Generator, content: bytes) -> tuple[int, int]:
    start = int(rng.integers(len(content)))
    return start, min(len(content), start + int(rng.integers(1, 40)))


def _flip(rng: np.random.Generator, content: bytes) -> bytes:
    at, bit = int(rng.integers(len(content))), int(rng.integers(8))
    return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]


def _cut(rng: np.random.Generator, content: bytes) -> bytes:
    return content[: int(rng.integers(len(content)))]


def _insert(rng: np.random.Generator, content: bytes) -> bytes:
    start, stop = _span(rng, content)
    return content[:start] + rng.bytes(stop - start) + content[start:]


def _drop(rng: np.random.Generator, content: bytes) -> bytes:
    start, stop = _span(rng, content)
    return content[:start] + content[stop:]


def _repeat(rng: np.random.Generator, content: bytes) -> bytes:
    start, stop = _span(rng, content)
    return content[:stop] + content[start:]


def _fill(byte: bytes) -> Callable[[np.random.Generator, bytes], bytes]:
    def filled(rng: np.random.Generator, content: bytes) -> bytes:
        start, stop = _span(rng, content)
        return content[:start] + byte * (stop - start) + content[stop:]

    return filled


_BYTES: dict[str, Callable[[np.random.Generator, bytes], bytes]] = {
    "a bit flipped": _flip,
    "another bit flipped": _flip,
    "a third bit flipped": _flip,
    "cut": _cut,
    "some inserted": _insert,
    "some dropped": _drop,
    "some repeated": _repeat,
    "zeros": _fill(b"\0"),
    "ones": _fill(b"\xff"),
    "nothing left": lambda rng, content: b"",
    "garbage before": lambda rng, content: rng.bytes(20) + content,
    "garbage after": lambda rng, content: content + rng.bytes(20),
}


def _of_bytes(change: Callable[[np.random.Generator, bytes], bytes]) -> Change:
    def changed(rng: np.random.Generator, base: Base) -> Changed:
        # A configuration is a text that people may edit; the others are checked by sums.
        allowed = ANY if base.kind == "configuration" else SAME
        return Changed(change(rng, base.content), allowed)

    return changed


# ------------------------------------------------------------------------- changes: JSON

_ODD = (
    *("null", "true", "-1", "0", "1.5", "[]", "{}", '""', '"text"', "[[1], 2]"),
    *("1" + "0" * 30, "1" + "0" * 400, "1" + "0" * 5000, "1e999", "NaN", "-Infinity"),
    *('"\\u001b[31mred\\u001b[0m"', '"\\u202egpj.exe"', '"two\\nlines"', '"\\ud800"'),
    *('"\\u0000"', json.dumps("x" * 100_000), "[" * 50 + "]" * 50, "[" * 990 + "]" * 990),
    '["a", "\\u001b]0;title\\u0007"]',
)


def _fields_of(nested: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all fields in nested dictionaries and lists."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(nested, dict):
        items = nested.items()
    elif isinstance(nested, list):
        items = enumerate(nested)
    for name, item in items:
        yield (*path, name)
        yield from _fields_of(item, (*path, name))


def _some_field(
    rng: np.random.Generator, text: str, named: bool = False
) -> tuple[Any, Any, Any]:
    """A JSON object, a part of it, and the name of a field in that part."""
    whole = json.loads(text)
    paths = [path for path in _fields_of(whole) if not named or isinstance(path[-1], str)]
    *above, name = paths[rng.integers(len(paths))]
    part = functools.reduce(lambda node, key: node[key], above, whole)
    return whole, part, name


def _retype(rng: np.random.Generator, text: str) -> tuple[str, str]:
    whole, part, name = _some_field(rng, text)
    part[name] = "HERE IT STANDS"
    odd = _ODD[rng.integers(len(_ODD))]
    return json.dumps(whole).replace('"HERE IT STANDS"', odd), ANY


def _without(rng: np.random.Generator, text: str) -> tuple[str, str]:
    whole, part, name = _some_field(rng, text)
    del part[name]
    return json.dumps(whole), ANY


def _renamed(rng: np.random.Generator, text: str) -> tuple[str, str]:
    whole, part, name = _some_field(rng, text, named=True)
    part[f"{name}x"] = part.pop(name)
    return json.dumps(whole), SAME


def _twice(rng: np.random.Generator, text: str) -> tuple[str, str]:
    """A field given twice, with another value the second time."""
    whole = json.loads(text)
    name = list(whole)[rng.integers(len(whole))]
    odd = _ODD[rng.integers(10)]
    return f"{json.dumps(whole)[:-1]}, {json.dumps(name)}: {odd}}}", SAME


def _named(name: str) -> Callable[[np.random.Generator, str], tuple[str, str]]:
    def added(rng: np.random.Generator, text: str) -> tuple[str, str]:
        return json.dumps(json.loads(text) | {name: 1}), SAME

    return added


def _text(text: str) -> Callable[[np.random.Generator, str], tuple[str, str]]:
    return lambda rng, _: (text, NEVER)


def _deep(rng: np.random.Generator, text: str) -> tuple[str, str]:
    whole = json.dumps(json.loads(text))
    return f'{whole[:-1]}, "deep": {"[" * 100_000}{"]" * 100_000}}}', NEVER


_JSON: dict[str, Callable[[np.random.Generator, str], tuple[str, str]]] = {
    "another type": _retype,
    "another value": _retype,
    "an odd value": _retype,
    "an odder value": _retype,
    "a field removed": _without,
    "a field renamed": _renamed,
    "a field twice": _twice,
    "a field too many": _named("more"),
    "escape codes in a name": _named("\x1b[2J\x1b[31mred"),
    "turned letters in a name": _named("\u202ecod.exe"),
    "two lines in a name": _named("one\ntwo"),
    "a long name": _named("x" * 100_000),
    "deep lists": _deep,
    "lists alone": _text("[" * 100_000),
    "a list": _text("[1, 2]"),
    "a number": _text("3"),
    "null": _text("null"),
    "an empty text": _text(""),
    "a bracket": _text("{"),
}


def _of_json(change: Callable[[np.random.Generator, str], tuple[str, str]]) -> Change:
    def changed(rng: np.random.Generator, base: Base) -> Changed:
        if base.kind in ("configuration", "manifest"):
            text, allowed = change(rng, base.content.decode())
            if base.kind == "manifest" and allowed == ANY:
                allowed = SAME  # it has a checksum
            return Changed(text.encode("utf-8", "surrogatepass"), allowed)
        arrays = _arrays(base)
        texts = [name for name in ("card", "settings") if name in arrays]
        name = texts[rng.integers(len(texts))]
        text, allowed = change(rng, arrays[name].item())
        return Changed(_zipped(_members(arrays | {name: np.array(text)})), allowed)

    return changed


# ------------------------------------------------------------------------ changes: arrays


def _arrays(base: Base) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(base.content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def _raw_npy(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """An array as its header is written."""
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header.encode("latin1") + data


def _header(array: np.ndarray, **changes: Any) -> str:
    fields = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": array.shape,
    } | changes
    return f"{fields!r}\n"


def _members(arrays: dict[str, np.ndarray]) -> list[tuple[str, bytes]]:
    return [(f"{name}.npy", _npy(array)) for name, array in arrays.items()]


def _zipped(
    members: Iterable[tuple[str, bytes]], zip64: bool = False, comment: bytes = b""
) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # two members of one name
        archive.comment = comment
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=zip64) as member:
                member.write(content)
    return file.getvalue()


def _numeric(arrays: dict[str, np.ndarray]) -> list[str]:
    return [name for name, array in arrays.items() if array.dtype.kind in "fiub"]


def _pick(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def _of_array(change: Callable[[np.ndarray], np.ndarray], allowed: str) -> Change:
    def changed(rng: np.random.Generator, base: Base) -> Changed:
        arrays = _arrays(base)
        name = _pick(rng, _numeric(arrays))
        after = change(arrays[name])
        equal = after.dtype == arrays[name].dtype and after.shape == arrays[name].shape
        return Changed(
            _zipped(_members(arrays | {name: after})), SAME if equal else allowed
        )

    return changed


def _structured(array: np.ndarray) -> np.ndarray:
    made = np.zeros(array.shape, [("value", array.dtype), ("more", np.int8)])
    made["value"] = array
    return made


_ARRAYS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
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


# A value that no float array of these may hold, but rewards, which nobody learns from.
def _with_number(value: float, rewards: str = ANY) -> Change:
    def changed(rng: np.random.Generator, base: Base) -> Changed:
        arrays = _arrays(base)
        names = [name for name in arrays if arrays[name].dtype.kind == "f"]
        if not names:
            return Changed(base.content, SAME)
        name = _pick(rng, names)
        array = arrays[name].astype(np.float64)
        array.flat[rng.integers(array.size)] = value
        content = _zipped(_members(arrays | {name: array}))
        return Changed(content, rewards if name in ("rewards", "rews") else NEVER)

    return changed


def _with_lengths(*values: Any) -> Change:
    def changed(rng: np.random.Generator, base: Base) -> Changed:
        arrays = _arrays(base)
        name = next((name for name in ("length", "lengths") if name in arrays), None)
        if name is None:
            return Changed(base.content, SAME)
        return Changed(_zipped(_members(arrays | {name: np.array(values)})), NEVER)

    return changed


def _far_actions(rng: np.random.Generator, base: Base) -> Changed:
    arrays = _arrays(base)
    if "acts" not in arrays:
        return Changed(base.content, SAME)
    far = arrays | {"acts": arrays["acts"] * 50}
    return Changed(_zipped(_members(far)), NEVER)


_NUMBERS: dict[str, Change] = {
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
    "actions in degrees": _far_actions,
}


# ----------------------------------------------------------------------- changes: headers


def _of_header(change: Callable[[np.ndarray], bytes], allowed: str) -> Change:
    def changed(rng: np.random.Generator, base: Base) -> Changed:
        arrays = _arrays(base)
        name = _pick(rng, list(arrays))
        members = dict(_members(arrays)) | {f"{name}.npy": change(arrays[name])}
        return Changed(_zipped(members.items()), allowed)

    return changed


def _shaped(*shape: Any) -> Callable[[np.ndarray], bytes]:
    return lambda a: _raw_npy(_header(a, shape=shape), a.tobytes())


def _described(descr: Any) -> Callable[[np.ndarray], bytes]:
    return lambda a: _raw_npy(_header(a, descr=descr), a.tobytes())


_HEADERS: dict[str, tuple[Callable[[np.ndarray], bytes], str]] = {
    "10^12 rows": (_shaped(10**12), NEVER),
    "2^62 rows": (_shaped(2**62, 2), NEVER),
    "10^40 rows": (_shaped(10**40), NEVER),
    "a size that overflows to 0": (_shaped(2**32, 2**32), NEVER),
    "rows below 0": (_shaped(-1), NEVER),
    "a shape of truths": (_shaped(True, True), NEVER),
    "a shape of 70 axes": (_shaped(*[1] * 70), NEVER),
    "pickled objects": (_described("|O"), NEVER),
    "an unknown type": (_described("<f3"), NEVER),
    "a nested type": (_described([("a", [("b", "<f4")], (3,))]), NEVER),
    "a type with a title": (_described([(("\x1b[31m", "a"), "<f4")]), NEVER),
    "no dictionary": (lambda a: _raw_npy("[1, 2]\n", a.tobytes()), NEVER),
    "code": (lambda a: _raw_npy("__import__('os')\n", a.tobytes()), NEVER),
    "a deep header": (lambda a: _raw_npy("(" * 5000 + "\n", a.tobytes()), NEVER),
    "a long header": (
        lambda a: _raw_npy(_header(a) + " " * 100_000, a.tobytes(), (2, 0)),
        SAME,
    ),
    "a header of 4 GB": (
        lambda a: b"\x93NUMPY\x02\x00" + b"\xff" * 4 + _header(a).encode(),
        NEVER,
    ),
    "version 2": (lambda a: _raw_npy(_header(a), a.tobytes(), (2, 0)), SAME),
    "version 3": (lambda a: _raw_npy(_header(a), a.tobytes(), (3, 0)), SAME),
    "version 9": (lambda a: _raw_npy(_header(a), a.tobytes(), (9, 0)), NEVER),
    "of Python 2": (
        lambda a: _raw_npy(re.sub(r"(\d)([,)])", r"\1L\2", _header(a)), a.tobytes()),
        SAME,
    ),
    "no data": (lambda a: _raw_npy(_header(a)), NEVER),
    "data cut": (lambda a: _npy(a)[:-1], NEVER),
    "data too long": (lambda a: _npy(a) + b"\0", SAME),
    "no magic": (lambda a: a.tobytes(), NEVER),
    "nothing": (lambda a: b"", NEVER),
}


# --------------------------------------------------------------------------- changes: zip

_LOCAL, _CENTRAL = b"PK\x03\x04", b"PK\x01\x02"


def _patched(
    content: bytes, local: int, central: int, form: str, value: Callable[[int], int]
) -> bytes:
    """A zip with a field of its first member changed, in both of its headers."""
    changed = bytearray(content)
    for magic, offset in ((_LOCAL, local), (_CENTRAL, central)):
        at = content.index(magic) + offset
        struct.pack_into(form, changed, at, value(struct.unpack_from(form, content, at)[0]))
    return bytes(changed)


def _of_field(local: int, central: int, form: str, value: Callable[[int], int]) -> Change:
    def changed(rng: np.random.Generator, base: Base) -> Changed:
        members = _members(_arrays(base))
        members = [members[at] for at in rng.permutation(len(members))]
        return Changed(_patched(_zipped(members), local, central, form, value), NEVER)

    return changed


def _with(allowed: str, *more: tuple[str, bytes]) -> Change:
    """A zip with further members."""

    def changed(rng: np.random.Generator, base: Base) -> Changed:
        return Changed(_zipped([*_members(_arrays(base)), *more]), allowed)

    return changed


def _given_twice(rng: np.random.Generator, base: Base) -> Changed:
    arrays = _arrays(base)
    name = _pick(rng, _numeric(arrays))
    again = (f"{name}.npy", _npy(np.zeros_like(arrays[name])))
    return Changed(_zipped([*_members(arrays), again]), NEVER)


def _lost(rename: Callable[[str], str] | None, allowed: str) -> Change:
    """A zip without one of its members, or with another name for it."""

    def changed(rng: np.random.Generator, base: Base) -> Changed:
        members = _members(_arrays(base))
        name, content = members.pop(rng.integers(len(members)))
        kept = [(rename(name), content)] if rename else []
        # A source may hold what is not ours; it is said that this was not read.
        foreign = allowed == SAME and base.kind == "source"
        return Changed(_zipped(members + kept), ANY if foreign else allowed)

    return changed


@functools.cache
def _zeros() -> tuple[bytes, int]:
    """`_BOMB` zeros, deflated, and their CRC-32."""
    block = bytes(1 << 24)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflate.compress(block)
    deflate.flush(zlib.Z_FULL_FLUSH)
    one = deflate.compress(block) + deflate.flush(zlib.Z_FULL_FLUSH)
    return one * (_BOMB // len(block)), 0


def _bomb(rng: np.random.Generator, base: Base) -> Changed:
    """A member of a few MB that holds zeros of some GB, as one of the arrays."""
    arrays = _arrays(base)
    name = _pick(rng, _numeric(arrays))
    array = arrays.pop(name)
    rows = _BOMB // array.dtype.itemsize
    header = _raw_npy(_header(array, shape=(rows,)))
    data = header + bytes(8)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(header) + deflate.flush(zlib.Z_FULL_FLUSH) + _zeros()[0]
    size = len(header) + _BOMB
    rest = _zipped([*_members(arrays), (f"{name}.npy", data)])
    # The last member, stored by hand in place of the small one.
    local = rest.rindex(_LOCAL)
    central = rest.index(_CENTRAL)
    last = rest.rindex(_CENTRAL)
    head = bytearray(rest[local : local + 30] + f"{name}.npy".encode())
    struct.pack_into("<H", head, 28, 0)
    entry = bytearray(rest[last : rest.index(b"PK\x05\x06")])
    for part, at in ((head, 14), (entry, 16)):
        struct.pack_into("<III", part, at, 0, len(packed), size)
    directory = rest[central:last] + bytes(entry)
    end = bytearray(rest[rest.index(b"PK\x05\x06") :])
    body = rest[:local] + bytes(head) + packed
    struct.pack_into("<II", end, 12, len(directory), len(body))
    return Changed(body + directory + bytes(end), NEVER)


def _again(
    allowed: str, zip64: bool = False, comment: bytes = b"", suffix: bytes = b""
) -> Change:
    def changed(rng: np.random.Generator, base: Base) -> Changed:
        content = _zipped(_members(_arrays(base)), zip64, comment)
        return Changed(content + suffix, allowed)

    return changed


def _alone(content: bytes) -> Change:
    return lambda rng, base: Changed(content, NEVER)


_SMALL = np.arange(3.0)
_ZIP: dict[str, Change] = {
    "a member lost": _lost(None, ANY),
    "a member of another name": _lost(lambda name: f"x{name}", SAME),
    "a path as a name": _lost(lambda name: f"../../{name}", SAME),
    "a member that is no .npy": _lost(lambda name: name[:-4], SAME),
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
    "another member": _with(SAME, ("more.npy", _npy(_SMALL))),
    "a pickle beside": _with(SAME, ("infos.npy", _raw_npy(_header(_SMALL, descr="|O")))),
    "escape codes in a name": _with(SAME, ("\x1b[2J\x1b[31mred.npy", _npy(_SMALL))),
    "turned letters in a name": _with(SAME, ("\u202eyp.npy", _npy(_SMALL))),
    "two lines in a name": _with(SAME, ("one\ntwo.npy", _npy(_SMALL))),
    "a long name": _with(SAME, ("x" * 60_000 + ".npy", _npy(_SMALL))),
    "5000 members more": _with(SAME, *((f"{n}.npy", b"") for n in range(5000))),
    "a folder": _with(SAME, ("folder/", b"")),
    "of 64 bits": _again(SAME, zip64=True),
    "a comment": _again(SAME, comment=b"\x1b[31mred"),
    "two archives": _again(SAME, suffix=_zipped([("obs.npy", _npy(_SMALL))])),
    "an empty archive": _alone(_zipped([])),
    "a single array": _alone(_npy(_SMALL)),
    "a pickle": _alone(b"\x80\x04]\x94."),
    "HDF5": _alone(b"\x89HDF\r\n\x1a\n" + bytes(600)),
    "a text": _alone(b"x,y\n1,2\n"),
}


if __name__ == "__main__":
    flags.DEFINE_integer("count", 3000, "How many files.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the changes.")
    flags.DEFINE_integer("first", 0, "Number of the first case.", lower_bound=0)
    app.run(main)
