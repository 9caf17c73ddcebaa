"""Signals that stop a training: its epoch ends and is saved, and one says how to go on.

    with signals.heard("resume=True continues it"):  # a whole command: they act at once
        compile
        with signals.patient() as hearing:         # an epoch: the first one waits
            train; save if hearing.caught

SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 are heard, as far as the system has them and
they are not ignored, as `nohup` has it. The exit code is 128 + the signal's number. The
second signal acts at once. Python sees no signal while compiled code runs; then a thread,
which does, ends the process after a second. A signal that comes again within a second is
one: batch systems signal a script and its children, and the script may forward it. Of
Ctrl-C every one counts.
"""

import contextlib
import functools
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
_GRACE = 1.0  # seconds that Python has for a signal that acts at once
_KEPT = "earlier checkpoints and files are kept"


def name(number: int) -> str:
    """ "SIGTERM" of 15."""
    return signal.Signals(number).name


class Stopped(SystemExit):
    """A signal ends the process, with 128 + its number.

    The sentence says so; it is empty once it was said.
    """

    def __init__(self, number: int, sentence: str = ""):
        super().__init__(128 + number)
        self.sentence = sentence


class Interrupted(KeyboardInterrupt):
    """The same of Ctrl-C, SIGINT."""

    code = 128 + signal.SIGINT

    def __init__(self, sentence: str = ""):
        super().__init__(sentence)
        self.sentence = sentence


def raise_stopped(number: int, sentence: str = "") -> NoReturn:
    """Raises `Interrupted` for SIGINT, and `Stopped` for others."""
    if number == signal.SIGINT:
        raise Interrupted(sentence)
    raise Stopped(number, sentence)


class Hearing:
    """What was heard. A class, as it holds handlers and a thread."""

    def __init__(self) -> None:
        self.words = _KEPT  # the end of the sentence about a signal that acts at once
        self.patient = False  # whether the first signal waits
        self.caught: list[int] = []  # numbers, the first one first
        self._counted = _Count()
        self._arrived = _Count()  # by the thread; Python joins signals of a kind
        self._acting = threading.Event()  # Python raises, or the signals are given back
        self._handlers: dict[int, Any] = {}  # those before
        self._writer: socket.socket | None = None
        self._outer_writer = -1

    @contextlib.contextmanager
    def set(self, words: str, patient: bool) -> Iterator[None]:
        """What holds in the block."""
        before = self.words, self.patient
        self.words, self.patient = words, patient
        try:
            yield
        finally:
            self.words, self.patient = before

    def sentence(self, number: int) -> str:
        """What is said where a signal acts at once."""
        return f"{name(number)} acts at once: {self.words}."

    def listen(self) -> None:
        """Takes the signals over."""
        _forget_in_children()
        reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._outer_writer = signal.set_wakeup_fd(
            self._writer.fileno(), warn_on_full_buffer=False
        )
        for known in NAMES:
            number = getattr(signal, known, None)  # Windows lacks some
            if number and signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._handlers[number] = signal.signal(number, self._hear)
        watch = functools.partial(self._watch, reader, frozenset(self._handlers))
        threading.Thread(target=watch, daemon=True).start()

    def leave(self) -> None:
        """Gives the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._acting.set()
        if self._writer is not None:
            signal.set_wakeup_fd(self._outer_writer)
            self._writer.close()

    def raise_caught(self) -> None:
        """Ends the process, if a signal waits."""
        if self.caught:
            raise_stopped(self.caught[0], self.sentence(self.caught[0]))

    def _hear(self, number: int, frame: Any) -> None:
        self.caught.append(number)
        if self.patient and max(self._counted.add(number), self._arrived.total) == 1:
            return
        self._acting.set()
        raise_stopped(number, self.sentence(number))

    def _watch(self, reader: socket.socket, numbers: frozenset[int]) -> None:
        """Ends the process where a signal acts at once and Python does not come to it.

        Not where somebody sits before a prompt or a notebook, which would end with it, and
        not of the first Ctrl-C, of which a script may have to clean up.
        """
        with reader:
            while data := reader.recv(1):
                number = data[0]
                if number not in numbers:
                    continue
                waits = self.patient or number == signal.SIGINT
                if self._arrived.add(number) == 1 and waits or hasattr(sys, "ps1"):
                    continue
                if not self._acting.wait(_GRACE):
                    os.write(2, f"{self.sentence(number)}\n".encode())
                    os._exit(128 + number)


class _Count:
    """Counts signals, and those of a kind within a second once."""

    def __init__(self) -> None:
        self.total, self._last = 0, (0, -math.inf)

    def add(self, number: int) -> int:
        (before, since), now = self._last, time.monotonic()
        if number != before or now - since > _GRACE or number == signal.SIGINT:
            self.total += 1
        self._last = number, now
        return self.total


_hearing: Hearing | None = None  # signals are the process's, so that there is one


@contextlib.contextmanager
def heard(words: str = _KEPT) -> Iterator[Hearing]:
    """Signals act at once in the block, by `Stopped` or `Interrupted`.

    Args:
      words: the end of the sentence that is said then.
    """
    with _listening() as hearing, hearing.set(words, False):
        yield hearing
        hearing.raise_caught()


@contextlib.contextmanager
def patient(words: str = _KEPT) -> Iterator[Hearing]:
    """The first signal is only noted in the block, in `caught`; the second acts at once.

    For state that is donated: an interrupted epoch leaves neither the old one nor the new.

    Args:
      words: as those of `heard`.
    """
    with _listening() as hearing, hearing.set(words, True):
        yield hearing


@contextlib.contextmanager
def _listening() -> Iterator[Hearing]:
    """The hearing of the process; it ends with the outermost block.

    Python hears signals in the main thread alone; in others nothing is heard.
    """
    global _hearing
    if threading.current_thread() is not threading.main_thread():
        yield Hearing()
        return
    if _hearing is not None:
        yield _hearing
        return
    _hearing = Hearing()
    try:
        _hearing.listen()
        yield _hearing
        _hearing.raise_caught()
    finally:
        _hearing.leave()
        _hearing = None


@functools.cache
def _forget_in_children() -> None:
    """A forked child dies of signals as others do, and does not tell its parent of them."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    global _hearing
    if _hearing is not None:
        with contextlib.suppress(ValueError):  # it is not the main thread
            _hearing.leave()
        _hearing = None
