"""The directory of a run: its configuration and its provenance.

logdir/config.json     the whole configuration of the experiment
       versions.json   packages, device and commit; the fingerprint of config.json
       checkpoints/    by training.checkpoint
       metrics.jsonl   and tensorboard/, by training.report
"""

import contextlib
import errno
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax

import planil_jax
from planil_jax import config
from planil_jax.base import UsageError
from planil_jax.training import checkpoint, files, lock, report

CHECKPOINTS = "checkpoints"
CONFIG = "config.json"
_VERSIONS = "versions.json"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_LISTED = 3  # that a message lists
_MEND = (
    "put a copy of it back, or delete it and give the whole command of the training once "
    "more, with resume=True (--resume)"
)


class Opened(NamedTuple):
    """A directory that a run may have; nothing of it is changed yet."""

    notices: list[str]  # for the user, one sentence each
    begin: Callable[[], None]  # makes it and writes configuration and versions


@contextlib.contextmanager
def opened(
    logdir: str | Path, config_json: str, resume: bool, free: tuple[str, ...] = ()
) -> Iterator[Opened]:
    """Checks that a run can begin in a directory, or the one there be continued.

    The directory is locked against other trainings until the end of the block: at once
    where it exists, else when the run begins.

    Args:
      config_json: the configuration as a JSON object, with its version.
      resume: whether a run that is there is to be continued.
      free: fields that may differ from those of the run, such as "run.total_steps".

    Raises:
      UsageError: the directory holds another run, or this one without `resume`, another
        process trains in it, or it cannot be made. Nothing is changed then.
    """
    logdir = Path(logdir)
    with contextlib.ExitStack() as stack:
        notices: list[str] = []
        with _writable(logdir):
            _require_place(logdir)
            was_there = logdir.is_dir()
            if was_there:
                notices += stack.enter_context(lock.held(logdir))
        notices += _check(logdir, config_json, resume, free)

        def begin() -> None:
            with _writable(logdir):
                logdir.mkdir(parents=True, exist_ok=True)
                if not was_there:
                    stack.enter_context(lock.held(logdir))
                    if _has_begun(logdir):
                        raise UsageError(
                            f"another process began a run in {logdir} meanwhile: choose "
                            "another logdir, or pass resume=True (--resume)."
                        )
                made = versions() | {"config": _digest(config_json.encode())}
                sealed = files.seal(json.dumps(made, indent=2))
                files.write(logdir / _VERSIONS, f"{sealed}\n")
                files.write(logdir / CONFIG, config_json)

        yield Opened(notices, begin)


def open_run(
    logdir: str | Path, config_json: str, resume: bool, free: tuple[str, ...] = ()
) -> list[str]:
    """Begins a run at once; returns notices. Arguments and errors are those of `opened`."""
    with opened(logdir, config_json, resume, free) as directory:
        directory.begin()
    return directory.notices


def read_config(logdir: str | Path) -> str:
    """The configuration of the run, as JSON.

    Raises:
      UsageError: there is no run.
    """
    try:
        return files.content(Path(logdir) / CONFIG).decode()
    except (OSError, ValueError):
        raise UsageError(f"there is no run in {logdir}: it has no {CONFIG}.") from None


def saved_config(logdir: str | Path) -> dict[str, Any]:
    """The configuration of the run, as nested dicts.

    Raises:
      UsageError: it cannot be read, or is of another version.
    """
    path = Path(logdir) / CONFIG
    saved = files.read(path, {}, _MEND)
    config.require_version(saved, str(path))
    if "environment" in saved:
        saved.setdefault("engine", "mjx")  # the only one when it began
    return saved


def saved_versions(logdir: str | Path) -> dict[str, Any]:
    """What `versions` was where the run began; without a commit, "", where it is lost."""
    path = Path(logdir) / _VERSIONS
    if not os.path.lexists(path):
        files.warn(f"{path} is missing: commit, packages and device are not known.")
    read = files.read_if_sound(path, {"commit?": str}, "the report goes on without it")
    return {"commit": ""} | read


def config_notices(logdir: str | Path) -> list[str]:
    """A notice where config.json is not as it was written."""
    path, form = Path(logdir) / CONFIG, {"config": str}
    with contextlib.suppress(files.DamagedError, OSError):
        recorded = files.read(path.with_name(_VERSIONS), form, "")["config"]
        if recorded != _digest(path.read_bytes()):
            return [
                f"{path} has changed since it was written, by {_VERSIONS} beside it: if "
                "you did not change it, put a copy of it back."
            ]
    return []


def versions() -> dict[str, Any]:
    """Everything that results depend on besides the configuration."""
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return {
        "planil_jax": planil_jax.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "device": jax.local_devices()[0].device_kind,
        "devices": jax.local_device_count(),
        "matmul_precision": str(precision or "default"),
        "xla_flags": os.getenv("XLA_FLAGS", ""),
    }


@contextlib.contextmanager
def _writable(logdir: Path) -> Iterator[None]:
    """Turns an error of the disk into one sentence."""
    try:
        yield
    except OSError as error:
        file = f" ({error.filename})" if error.filename else ""
        raise UsageError(
            f"logdir {logdir} cannot be written{file}: {error.strerror or error}."
        ) from error


def _require_place(logdir: Path) -> None:
    """Refuses a directory that cannot be made or read again, before it is made."""
    if "[" in str(logdir.absolute()):
        raise UsageError(
            f"{logdir.absolute()} has a '[', which Orbax takes for a pattern, so that "
            "checkpoints there could not be read: choose another logdir."
        )
    nearest = next(path for path in [logdir, *logdir.parents] if path.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _has_begun(logdir: Path) -> bool:
    """Whether a checkpoint or metrics are there."""
    metrics = logdir / report.METRICS_FILE
    has_metrics = metrics.exists() and metrics.stat().st_size > 0
    return has_metrics or bool(checkpoint.steps(logdir / CHECKPOINTS))


def _check(
    logdir: Path, config_json: str, resume: bool, free: tuple[str, ...]
) -> list[str]:
    """Refuses a directory that this run may not have; returns notices."""
    there, begun = (logdir / CONFIG).exists(), _has_begun(logdir)
    saved = saved_config(logdir) if there else {}
    notices = []
    if there and begun:
        _refuse_other(logdir, saved, config_json, free)
    if begun and not resume:
        raise UsageError(
            f"{logdir} holds a run already; pass resume=True (--resume) to continue it, or "
            "choose another logdir."
        )
    if there and begun:
        notices += config_notices(logdir) + _other_versions(logdir)
    elif there:
        notices.append(
            f"{logdir} holds a run that ended before its first epoch did; it is trained "
            "from the beginning, as it is set now."
        )
    elif begun:
        notices.append(
            f"{logdir / CONFIG} is gone; it is written anew. Nothing can tell whether the "
            "settings are those of before: see that all of them are given."
        )
    if resume and not checkpoint.steps(logdir / CHECKPOINTS):
        notices.append(f"{logdir} holds no checkpoint; training starts from the beginning.")
    return notices


def _refuse_other(
    logdir: Path, saved: dict[str, Any], config_json: str, free: tuple[str, ...]
) -> None:
    there = dict(config.leaves(saved))
    here = dict(config.leaves(json.loads(config_json)))
    different = [
        f"{name} is {_as_json(there, name)} there, {_as_json(here, name)} here"
        for name in there | here
        if name not in free and _as_json(there, name) != _as_json(here, name)
    ]
    if different:
        more = f"; and {len(different) - _LISTED} more" if len(different) > _LISTED else ""
        raise UsageError(
            f"{logdir} holds a run of another configuration: "
            f"{'; '.join(different[:_LISTED])}{more}. Choose another logdir, or the same "
            "configuration."
        )


def _as_json(leaves: dict[str, Any], name: str) -> str:
    return json.dumps(leaves[name]) if name in leaves else "absent"


def _other_versions(logdir: Path) -> list[str]:
    path = logdir / _VERSIONS
    if not path.exists():
        return []
    try:
        there = files.read(path, {}, "it is written anew")
    except files.DamagedError as error:
        return [str(error)]
    changed = [
        f"{name} was {there.get(name)}, is {now}"
        for name, now in versions().items()
        if there.get(name) != now
    ]
    if not changed:
        return []
    return [f"this run began under other versions: {'; '.join(changed)}."]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _commit() -> str:
    """The commit of this package, with "+" where it was changed; "" outside a checkout.

    It was changed where files of the checkout differ, or the package has further ones.
    """
    git = ["git", "-C", str(Path(planil_jax.__file__).parent)]
    tracked = [*git, "ls-files", "--error-unmatch", "__init__.py"]
    describe = [*git, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    others = [*git, "ls-files", "--others", "--exclude-standard"]
    try:
        subprocess.run(tracked, capture_output=True, check=True, timeout=10)
        described = subprocess.run(describe, capture_output=True, check=True, timeout=10)
        more = subprocess.run(others, capture_output=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    commit = described.stdout.decode().strip()
    return f"{commit.removesuffix('+')}+" if more.stdout.strip() else commit
