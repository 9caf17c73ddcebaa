"""Commands of `planil` in processes of their own, which can be disturbed.

A server imports what the commands import, and is forked for each of them, since importing
takes longer than all the rest. It computes nothing itself.
"""

import itertools
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from planil_jax.cli import planil
from planil_jax.training import report

LIMIT = 240.0  # seconds after which a command hangs
_COUNT = itertools.count()
_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["planil_jax.cli.train", "planil_jax.cli.evaluate", "planil_jax.cli.report"]
    + ["benchmarks.faults_settings", "orbax.checkpoint", "matplotlib.pyplot"]
)


class Ended(NamedTuple):
    """How a process ended."""

    status: int | None  # exit code; below 0: the signal that it died of; None: it hung
    out: str
    err: str


class Process:
    """A function of a module in a process of its own."""

    def __init__(self, folder: Path, work: Callable[..., Any], *args: Any):
        """Starts it; what it writes is kept in the folder."""
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"  # the server has it from here
        self._words = [folder / f"{next(_COUNT)}.{stream}" for stream in ("out", "err")]
        for path in self._words:
            path.write_text("")
        self._process = _FORKS.Process(target=_child, args=(self._words, work, args))
        self._process.start()

    def err(self) -> str:
        """What it wrote on stderr so far."""
        return self._words[1].read_text(errors="replace")

    def send(self, number: int, when: Callable[[], bool], seconds: float) -> None:
        """Sends a signal some seconds after something is so, if it has not ended before."""
        until = time.monotonic() + LIMIT
        while self._process.is_alive() and time.monotonic() < until and not when():
            time.sleep(0.001)
        self._process.join(seconds)
        if self._process.is_alive():
            os.kill(self._process.pid or 0, number)

    def end(self, seconds: float = LIMIT) -> Ended:
        """Waits for its end."""
        self._process.join(seconds)
        status = self._process.exitcode
        if status is None:
            self._process.kill()
            self._process.join()
        return Ended(status, self._words[0].read_text(errors="replace"), self.err())


def run(argv: Sequence[str], after: Sequence = (), file_size: int | None = None) -> None:
    """Runs a command, in a process of its own.

    Args:
      after: the epoch after which something happens, and an entry of HAPPENINGS with its
        arguments.
      file_size: bytes that a file may have; None: as many as it wants.
    """
    if after:
        _after(*after)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    sys.argv = ["planil", *argv]
    planil.main()


def _child(words: Sequence[Path], work: Callable[..., Any], args: Sequence[Any]) -> None:
    for number, path in enumerate(words, start=1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a shell's `nohup` and `&` ignore them
    signal.signal(signal.SIGINT, signal.default_int_handler)
    work(*args)


def _after(epoch: int, what: str, *args: Any) -> None:
    """Has something happen once the metrics of an epoch are written."""
    real, epochs = report.Report.epoch, itertools.count(1)

    def then(self, step, metrics):
        real(self, step, metrics)
        if next(epochs) == epoch:
            HAPPENINGS[what](*args)

    report.Report.epoch = then  # type: ignore[method-assign]


def _set_clock(clock: str, seconds: float) -> None:
    real = getattr(time, clock)
    setattr(time, clock, lambda: real() + seconds)


def protect(path: str | Path, wanted: bool = True) -> None:
    """Takes the permission to write from all below, or gives it back."""
    mode = 0o444 if wanted else 0o644
    for place in (Path(path), *Path(path).rglob("*")):
        place.chmod(mode | 0o111 if place.is_dir() else mode)


HAPPENINGS: dict[str, Callable[..., Any]] = {
    "vanish": shutil.rmtree,
    "move": os.rename,
    "protect": protect,
    "set the clock": _set_clock,
}
