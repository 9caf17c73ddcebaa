"""A lock on a directory, which dies with its process: who trains there is alone.

logdir/.lock    "PID HOST" of the holder; gone when it lets go
"""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from planil_jax.base import UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FILE = ".lock"


@contextlib.contextmanager
def held(directory: Path) -> Iterator[list[str]]:
    """Locks a directory, which must exist, and yields notices for the user.

    Where the system or the file system has no locks, a notice says so.

    Raises:
      UsageError: another process holds it.
      OSError: the directory cannot be written.
    """
    path = directory / _FILE
    handle = None if fcntl is None else _locked(path)
    if handle is None:
        yield [
            f"note: {directory} cannot be locked on this system; see to it that no second "
            "process trains there."
        ]
        return
    try:
        with contextlib.suppress(OSError):  # such as a full disk: others are not told who
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()} {platform.node()}\n".encode())
        yield []
    finally:
        with contextlib.suppress(OSError):  # such as a directory that was removed
            if _is(path, handle):
                path.unlink()
        os.close(handle)


def _locked(path: Path) -> int | None:
    """The open file, locked; None: the file system has no locks."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise UsageError(
                f"another process{_holder(path)} trains in {path.parent}: let it end, "
                "stop it, or choose another logdir."
            ) from None
        except OSError:
            path.unlink(missing_ok=True)
            os.close(handle)
            return None
        if _is(path, handle):
            return handle
        os.close(handle)  # the holder before removed the file meanwhile


def _is(path: Path, handle: int) -> bool:
    """Whether the path still leads to the file that is open."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except OSError:
        return False


def _holder(path: Path) -> str:
    """ " 1234 on HOST", or "" where the file does not tell."""
    try:
        number, host = path.read_text().split()
        return f" ({int(number)} on {host})"
    except (OSError, ValueError):
        return ""
