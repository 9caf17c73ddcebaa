"""Checkpoints: a whole TrainState `[S]` on disk, written whole or not at all.

    directory/000000012800/arrays/           the leaves, by Orbax
                           checkpoint.json   format, step, round, score, leaves, checksums,
                                             members that stopped
    directory/.unfinished-*                  left by a killed save; the next removes it

A checkpoint is written under a temporary name and then renamed, so that it is always whole.
Checksums, also of checkpoint.json itself, reveal later damage; then the one before is read.
Nothing is ever unpickled.
"""

import contextlib
import errno
import functools
import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from planil_jax import __version__
from planil_jax.base import TrainState, UsageError, UserError, printable
from planil_jax.training import files, memory

FORMAT = 2  # 1 had no seal
PARAMS = "agent.params"  # path of the acting parameters in a TrainState
_MANIFEST = "checkpoint.json"
_ARRAYS = "arrays"
_UNFINISHED = ".unfinished-"
# Bytes of a chunk, which is compressed at once, and of a file, which is kept until it is
# written. A replay of 600 MB and one of 1.2 GB cost 60 MB more while they are saved.
_CHUNK, _FILE = 4 << 20, 16 << 20
_OVERHEAD = 1 << 18  # bytes at most that Orbax's own files take beside the arrays
_FORM = {
    "step": int,
    "round": int,
    "score": (float, None),
    "leaves": {},
    "files": {},
    "stopped?": [{"member": int, "step": int, "part": str, "kept": int}],
}


class Stopped(NamedTuple):
    """A member that became not finite."""

    member: int  # its index among the S
    step: int  # after the epoch in which it did
    part: str  # what was not finite, "value"
    kept: int  # the step whose parameters it keeps


class Restored(NamedTuple):
    """A restored state, and where it comes from."""

    state: Any  # as the template: a TrainState, or acting parameters
    step: int  # environment steps of each seed so far
    round: int  # rounds so far
    path: Path
    notices: tuple[str, ...]  # a sentence for each newer checkpoint that was passed over
    stopped: tuple[Stopped, ...] = ()


class _DamagedError(Exception):
    """The checkpoint cannot be read; another may."""


# --------------------------------------------------------------------------------- saving


def save(
    directory: str | Path,
    state: TrainState,
    *,
    step: int,
    round_: int,
    score: float | None = None,
    stopped: Sequence[Stopped] = (),
    keep_last: int = 2,
    keep_best: int = 2,
) -> Path:
    """Writes one checkpoint and drops those that need not be kept.

    Args:
      state: `[S]`; must not have been donated yet.
      step: environment steps of each seed so far; names the checkpoint. Later ones, left
        from before the run was resumed at an earlier step, are dropped.
      round_: rounds so far.
      score: of the whole sweep, higher is better; None: it was not evaluated.
      stopped: members of which only the acting parameters mean anything.
      keep_last: newest checkpoints to keep.
      keep_best: checkpoints to keep for their score.

    Raises:
      UserError: the disk is full, or not writable.
    """
    directory = Path(directory).absolute()
    place = directory / f"{step:012d}"
    unfinished = directory / f"{_UNFINISHED}{place.name}"
    manifest = {
        "format": FORMAT,
        "planil_jax": __version__,
        "step": step,
        "round": round_,
        "score": score if score is not None and math.isfinite(score) else None,
        "stopped": [one._asdict() for one in stopped],
    }
    try:
        clean(directory)
        directory.mkdir(exist_ok=True)  # without parents: a run that was removed stays so
        unfinished.mkdir()
        _require_room(directory, memory.size(state) + _OVERHEAD)
        _write(unfinished, manifest, state)
        _remove(place)
        os.rename(unfinished, place)
        _sync(directory)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(error, Exception) and (reason := _disk_error(error)):
            named = getattr(error, "filename", None) or unfinished / _ARRAYS
            file = str(named).replace(str(unfinished), str(place))
            raise UserError(
                f"{reason}: {file} could not be written, and no checkpoint could be saved; "
                f"{newest(directory)}."
            ) from error
        raise
    _prune(directory, step, keep_last, keep_best)
    return place


def clean(directory: str | Path) -> None:
    """Removes the files of killed saves. Only the run that saves there may call it."""
    for path in Path(directory).glob(_UNFINISHED + "*"):
        _delete(path)


def steps(directory: str | Path) -> list[int]:
    """The steps of the checkpoints that are there, oldest first."""
    names = [path.name for path in Path(directory).glob("*") if path.is_dir()]
    numbers = [int(name) for name in names if name.isdecimal()]
    return sorted({step for step in numbers if _place("", step).name in names})


def newest(directory: str | Path | None) -> str:
    """Half a sentence about the checkpoint that a failure leaves."""
    for step in reversed(steps(directory) if directory else []):
        place = _place(directory or "", step)
        with contextlib.suppress(_DamagedError, UserError):
            _read_manifest(place)
            return f"the last good checkpoint {place} is kept"
    return "there is no checkpoint yet"


def _write(path: Path, manifest: dict[str, Any], state: TrainState) -> None:
    import orbax.checkpoint as ocp  # here: a quarter of the time that a command starts in

    leaves = dict(_named_leaves(state))
    arrays = {name: _plain(leaf) for name, leaf in leaves.items() if leaf.size}
    # Of arrays of numpy, or in one chunk, Orbax makes copies before it writes.
    chunks = dict.fromkeys(arrays, ocp.SaveArgs(chunk_byte_size=_CHUNK))
    args = ocp.args.PyTreeSave(arrays, save_args=chunks, ocdbt_target_data_file_size=_FILE)
    with _quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(path / _ARRAYS, args)
    manifest = manifest | {
        "leaves": {name: _describe(leaf) for name, leaf in leaves.items()},
        "files": _checksums(path),
    }
    files.write(path / _MANIFEST, files.seal(json.dumps(manifest, indent=1)) + "\n")


def _prune(directory: Path, step: int, keep_last: int, keep_best: int) -> None:
    finished = [there for there in steps(directory) if there <= step]
    scores = {there: _score(directory / f"{there:012d}") for there in finished}
    scored = [there for there in finished if scores[there] is not None]
    best = sorted(scored, key=lambda there: (scores[there], there))
    keep = {
        step,
        *finished[-max(keep_last, 1) :],
        *best[len(best) - min(keep_best, len(best)) :],
    }
    for there in set(steps(directory)) - keep:
        _remove(directory / f"{there:012d}")


def _remove(path: Path) -> None:
    """Takes a checkpoint out of sight before its files go, one by one."""
    if path.exists():
        hidden = path.with_name(f"{_UNFINISHED}removed-{path.name}")
        os.rename(path, hidden)
        _delete(hidden)


def _delete(path: Path) -> None:
    """Deletes a directory as far as it can be, or what lies in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    """Makes a rename outlive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    with contextlib.suppress(OSError):  # some network file systems cannot
        os.fsync(handle)
    os.close(handle)


def _require_room(directory: Path, wanted: int) -> None:
    """Finds a full disk before Orbax does, whose threads complain of it one by one."""
    free = shutil.disk_usage(directory).free
    if wanted > free:
        message = f"{memory.human(wanted)} are wanted, {memory.human(free)} are free"
        raise OSError(errno.ENOSPC, message)


def _disk_error(error: Exception) -> str:
    """The beginning of a sentence about the disk; "" for errors of another kind."""
    number = error.errno if isinstance(error, OSError) else None
    text = str(error)

    def means(*codes: int) -> bool:
        # Orbax wraps the errors of TensorStore, which have no number.
        return number in codes or any(os.strerror(code) in text for code in codes)

    if means(errno.ENOSPC, errno.EDQUOT):
        why = f" ({error.strerror})" if isinstance(error, OSError) else ""
        return f"the disk is full{why}"
    if means(errno.EFBIG):
        return "a file may not become so large here (ulimit -f)"
    return (error.strerror or text) if isinstance(error, OSError) else ""


# ------------------------------------------------------------------------------ restoring


def restore_latest(directory: str | Path, template: TrainState) -> Restored | None:
    """Reads the newest checkpoint that is whole; None: there is no checkpoint.

    Args:
      template: `[S]`, arrays or ShapeDtypeStructs; leaves are put where theirs are.

    Raises:
      UserError: none is whole, or one is of another format or does not fit the template.
    """
    clean(directory)
    return _restore(directory, lambda: steps(directory)[::-1], template, "")


def restore_params(
    directory: str | Path,
    template: Any,
    which: str | int = "last",
    part: str = PARAMS,
) -> Restored:
    """Reads the acting parameters `[S]`, or another part, and nothing else.

    Args:
      template: acting parameters `[S]`, or the other part, as in `restore_latest`.
      which: "last", "best" (the highest score), or a step.
      part: its path in a TrainState, such as "agent.replay".

    Raises:
      UserError: there is no such checkpoint, or as for `restore_latest`.
    """
    candidates = functools.partial(_candidates, directory, which)
    restored = _restore(directory, candidates, template, part)
    assert restored is not None
    return restored


def _candidates(directory: str | Path, which: str | int) -> list[int]:
    """The steps of the checkpoints that may be read, the first choice first."""
    there = steps(directory)
    if not there:
        raise UsageError(f"there is no checkpoint in {directory}.")
    if which == "last":
        return there[::-1]
    if which == "best":
        scores = {step: _score(_place(directory, step)) for step in there}
        scored = [step for step in there if scores[step] is not None]
        if not scored:
            raise UsageError(f"no checkpoint in {directory} was evaluated; ask for 'last'.")
        return sorted(scored, key=lambda step: (scores[step], step), reverse=True)
    if which in there:
        return [int(which)]
    raise UsageError(
        f"no checkpoint {which!r} is in {directory}; ask for 'last', 'best' or one "
        f"of {_listed(there)}."
    )


def _restore(
    directory: str | Path,
    list_candidates: Callable[[], Sequence[int]],
    template: Any,
    prefix: str,
    again: bool = True,
) -> Restored | None:
    """The first of the candidates that is whole.

    Args:
      again: whether they are listed once more where one is removed while it is read, as a
        training that goes on does with those that it need not keep.
    """
    notices: list[str] = []
    candidates = list_candidates()
    for step in candidates:
        path = _place(directory, step)
        try:
            manifest = _read_manifest(path)
            _check_files(path, manifest)
            state = _read(path, manifest, template, prefix)
        except _DamagedError as damage:
            if not path.exists() and again:
                return _restore(directory, list_candidates, template, prefix, again=False)
            if not path.exists():
                raise UserError(
                    f"checkpoint {path} was removed while it was read, as one before it "
                    "was: read it again when the training that goes on there has ended."
                ) from None
            notices.append(f"checkpoint {path} is damaged ({damage}) and was passed over.")
        else:
            stopped = tuple(
                Stopped(*(one[name] for name in Stopped._fields))
                for one in manifest.get("stopped", ())
            )
            return Restored(
                state, manifest["step"], manifest["round"], path, tuple(notices), stopped
            )
    if not notices:
        return None
    others = sorted(set(steps(directory)) - set(candidates))
    if others:
        raise UserError(f"{' '.join(notices)} Ask for one of {_listed(others)}.")
    raise UserError(
        f"every checkpoint is damaged: {' '.join(notices)} Put copies back, or move "
        f"{directory} away and train from the beginning."
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, whose seal holds."""
    try:
        known = {"format": int, "planil_jax": str}
        manifest = files.parse(files.content(path / _MANIFEST), known, sealed=True)
    except (OSError, ValueError) as error:
        raise _DamagedError(f"{_MANIFEST}: {error}") from None
    if manifest["format"] != FORMAT:
        raise UserError(
            f"checkpoint {path} is of format {manifest['format']}, written by planil_jax "
            f"{printable(manifest['planil_jax'])}; this is planil_jax {__version__}, which "
            f"reads format {FORMAT}: install the version that wrote it."
        )
    if problem := files.mismatch(manifest, _FORM):
        raise _DamagedError(f"{_MANIFEST}: {problem}")
    if path.name != _place("", manifest["step"]).name:
        raise _DamagedError(f"{_MANIFEST}: it is of step {manifest['step']}")
    return manifest


def _check_files(path: Path, manifest: dict[str, Any]) -> None:
    try:
        found = _checksums(path)
    except OSError as error:
        raise _DamagedError(str(error)) from None
    for name, checksum in manifest["files"].items():
        if found.get(name) != checksum:
            what = "has changed since it was written" if name in found else "is missing"
            raise _DamagedError(f"{name} {what}")


def _read(path: Path, manifest: dict[str, Any], template: Any, prefix: str) -> Any:
    import orbax.checkpoint as ocp  # here, as above

    wanted = dict(_named_leaves(template, prefix))
    _check_fit(path, manifest["leaves"], wanted, prefix)
    stored = [name for name, leaf in wanted.items() if math.prod(leaf.shape)]
    arrays: dict[str, np.ndarray] = {}
    if stored:
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        args = ocp.args.PyTreeRestore(
            item=dict.fromkeys(stored, 0),
            restore_args=dict.fromkeys(stored, as_numpy),
            partial_restore=True,
        )
        try:
            with _quiet(), ocp.PyTreeCheckpointer() as checkpointer:
                arrays = checkpointer.restore(path / _ARRAYS, args=args)
        except MemoryError:
            raise
        except Exception as error:  # whatever Orbax says of files with good checksums
            raise _DamagedError(repr(error).splitlines()[0]) from error
    leaves = [_from_numpy(arrays.pop(name, None), leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _check_fit(path: Path, there: dict[str, str], wanted: dict, prefix: str) -> None:
    """Refuses, by name, the first leaf that the checkpoint does not hold in its shape."""
    here = {name: _describe(leaf) for name, leaf in wanted.items()}
    below = [name for name in there if name == prefix or name.startswith(f"{prefix}.")]
    for name in here | dict.fromkeys(below if prefix else there):
        if there.get(name) != here.get(name):
            written = printable(str(there.get(name, "absent")))
            raise UserError(
                f"checkpoint {path} does not fit this configuration: {printable(name)} is "
                f"{written} there, {here.get(name, 'absent')} here."
            )


# --------------------------------------------------------------------------------- leaves


def _named_leaves(tree: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yields ("agent.params.value", leaf)."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        yield ".".join(filter(None, (prefix, name))), leaf


def _describe(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _is_key(leaf: Any) -> bool:
    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _from_numpy(array: np.ndarray | None, like: Any) -> jax.Array:
    """The array as a leaf of the template's dtype, where the template's is."""
    sharding = getattr(like, "sharding", None)
    if array is None:  # of size zero, which Orbax does not write
        return jax.device_put(np.zeros(like.shape, like.dtype), sharding)
    if not _is_key(like):
        return jax.device_put(array, sharding)
    key = jax.random.wrap_key_data(jax.numpy.asarray(array), dtype=like.dtype)
    return jax.device_put(key, sharding)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbax logs the traceback of each of its threads, and then raises the error too."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _place(directory: str | Path, step: int) -> Path:
    return Path(directory).absolute() / f"{step:012d}"


def _listed(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps))


def _score(path: Path) -> float | None:
    try:
        return _read_manifest(path)["score"]
    except (_DamagedError, UserError):
        return None


def _checksums(path: Path) -> dict[str, str]:
    """Size and CRC-32 of every file below, but the manifest."""
    return {
        str(file.relative_to(path)): _checksum(file)
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != _MANIFEST
    }


def _checksum(path: Path) -> str:
    crc = size = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 24):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return f"{size} bytes, crc32 {crc:08x}"
