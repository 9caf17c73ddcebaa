"""The reports of a run: lines on the console, `metrics.jsonl`, and TensorBoard.

    logdir/metrics.jsonl       {"step": 320, "seconds": 1.2, "processor_seconds": 2.1,
                                "metrics": {"value/loss": [S]}, "crc32": "9d0a2b1c"}
    logdir/tensorboard/seed 3/ the metrics, a directory for each member, named by its label

There is one line of JSON an epoch. Seconds are those of training, without compiling, and
go on where a run is resumed. A number that is not finite is written as null and read as
nan. A last line that was cut, by a kill or because it is being written, is left out. A line
that is damaged otherwise is left out and reported.
"""

import bisect
import contextlib
import errno
import json
import math
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tqdm import tqdm

from planil_jax.base import UserError
from planil_jax.training import files

METRICS_FILE = "metrics.jsonl"
DAMAGED_FILE = "metrics.jsonl.damaged"  # as it was, where lines of it were left out
EVENTS = "tensorboard"  # the directory of the event files; made with the first of them
_PERIOD = 10.0  # seconds between lines where there is no terminal, and between flushes
_SHOWN = ("eval/return", "train/reward")  # the first one present goes to the console

_Metrics = dict[str, np.ndarray]
_Seconds = tuple[float, float]  # wall clock, processor
_LINE = {"step": int, "seconds?": float, "processor_seconds?": float, "metrics": {}}
_VALUES = [(float, None)]


class Report:
    """Receives a run's sentences and metrics. A class, as it holds files and a clock."""

    def __init__(
        self,
        logdir: str | Path | None = None,
        labels: Sequence[str] | None = None,
        console: bool = True,
    ):
        """Nothing is written before `start`.

        Args:
          logdir: of the files; None: none.
          labels: `[S]`, the names of the members, see `sweep.labels`; None: "seed 0",
            "seed 1", and so on.
          console: whether to write on stderr.
        """
        self._console = _Console() if console else None
        self._files: list[_Lines | _TensorBoard] = []
        self._before_start: Callable[[], None] = lambda: None
        if logdir is not None:
            self._files = [_Lines(Path(logdir)), _TensorBoard(Path(logdir), labels)]
        self._began = 0.0, 0.0  # when training began, of both clocks

    def say(self, sentence: str) -> None:
        """Writes one sentence."""
        if self._console:
            self._console.say(sentence)

    @contextlib.contextmanager
    def timed(self, doing: str, done: str) -> Iterator[None]:
        """Shows how long the block has been going on.

        Args:
          doing: what happens in it, "compiling training".
          done: the same when it has happened, "compiled training".
        """
        if not self._console:
            yield
            return
        with self._console.timed(doing, done):
            yield

    def compiling(self, what: str) -> contextlib.AbstractContextManager[None]:
        """Shows how long the block, a compilation, has been going on."""
        return self.timed(f"compiling {what}", f"compiled {what}")

    def last_step(self, step: int, total: int, epoch: int) -> None:
        """Says where training ends, if that is after the total, for lack of a whole epoch.

        Args:
          step: where it starts.
          total: steps that it was asked for.
          epoch: steps of an epoch; training ends with the epoch that reaches the total.
        """
        last = -(-total // epoch) * epoch
        if step < total < last:
            self.say(
                f"training ends at step {last} of {total}: whole epochs of {epoch} steps."
            )

    def before_start(self, do: Callable[[], None]) -> None:
        """Has something done once training is ready to start, before a file is written."""
        self._before_start = do

    def start(self, step: int, total: int) -> None:
        """Training starts after `step`; lines of later steps are dropped.

        Args:
          total: steps that training was asked for.

        Raises:
          UserError: the disk is full, or not writable; or as what is done before.
        """
        self._before_start()
        spent = [file.start(step, self.say) for file in self._files]
        seconds, processor = max(spent, default=(0.0, 0.0))
        self._began = time.monotonic() - seconds, time.process_time() - processor
        if self._console:
            self._console.start(step, total)

    def epoch(self, step: int, metrics: _Metrics) -> None:
        """Writes the metrics `[S]` of the epoch that ended at `step`.

        Raises:
          UserError: the disk is full, or not writable.
        """
        wall, processor = self._began
        seconds = time.monotonic() - wall, time.process_time() - processor
        for file in self._files:
            file.epoch(step, seconds, metrics)
        if self._console:
            self._console.epoch(step, metrics)

    def close(self) -> None:
        """Closes the files."""
        for file in self._files:
            file.close()
        if self._console:
            self._console.close()

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        # The error that is being raised matters more than one in closing.
        with contextlib.suppress(UserError) if error else contextlib.nullcontext():
            self.close()


def read_metrics(logdir: str | Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The metrics of a run by name: steps `[P]` and values `[P, S]`.

    Damaged lines are left out, with a warning.
    """
    found: dict[str, tuple[list[int], list[list[float]]]] = {}
    for line in _read_with_warning(logdir):
        for name, values in line["metrics"].items():
            steps, rows = found.setdefault(name, ([], []))
            steps.append(line["step"])
            rows.append([math.nan if value is None else value for value in values])
    return {
        name: (np.array(steps), np.array(rows)) for name, (steps, rows) in found.items()
    }


def read_seconds(logdir: str | Path) -> tuple[float | None, float | None]:
    """Seconds of training so far, and of the processor; None where they are not known."""
    lines = _read_with_warning(logdir)
    last: dict[str, Any] = lines[-1] if lines else {}
    return last.get("seconds"), last.get("processor_seconds")


def _read_with_warning(logdir: str | Path) -> list[dict[str, Any]]:
    path = Path(logdir) / METRICS_FILE
    try:
        found = _read_lines(path)
    except OSError as error:
        files.warn(f"{path} cannot be read ({error.strerror}) and is left out.")
        return []
    if found.damage:
        files.warn(f"{path}: {found.damage}.")
    return found.lines


# --------------------------------------------------------------------------------- files


class _Lines:
    """`metrics.jsonl`."""

    def __init__(self, logdir: Path):
        self._path = logdir / METRICS_FILE

    def start(self, step: int, say: Callable[[str], None]) -> _Seconds:
        """Drops later and damaged lines, and says so; returns the seconds so far."""
        with _disk(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            kept, damage = _read_lines(self._path, step)
            if damage:
                original = _free(self._path.with_name(DAMAGED_FILE))
                files.write(original, self._path.read_bytes())
                say(f"{self._path}: {damage}; the file as it was is kept as {original}.")
            files.write(self._path, "".join(map(_written, kept)))
        last = kept[-1] if kept else {"step": 0}
        if not damage and last["step"] < step:
            say(
                f"{self._path} has no lines after step {last['step']}: its curves have a "
                f"gap until step {step}, where training continues."
            )
        return last.get("seconds", 0.0), last.get("processor_seconds", 0.0)

    def epoch(self, step: int, seconds: _Seconds, metrics: _Metrics) -> None:
        plain = {
            name: [value if math.isfinite(value) else None for value in _floats(values)]
            for name, values in metrics.items()
        }
        wall, processor = (round(value, 3) for value in seconds)
        spent = {"seconds": wall, "processor_seconds": processor}
        line = {"step": step, **spent, "metrics": plain}
        with _disk(self._path), open(self._path, "a", opener=_existing) as file:
            file.write(_written(line))

    def close(self) -> None:
        pass


class _TensorBoard:
    """Event files, written at once: the thread of tensorboardX hangs on a full disk."""

    def __init__(self, logdir: Path, labels: Sequence[str] | None):
        self._path = logdir / EVENTS
        self._labels = labels
        self._start = 0
        self._flushed = 0.0
        self._writers: list[EventsWriter] = []

    def start(self, step: int, say: Callable[[str], None]) -> _Seconds:
        del say
        self._start = step
        return 0.0, 0.0

    def epoch(self, step: int, seconds: _Seconds, metrics: _Metrics) -> None:
        del seconds
        with _disk(self._path):
            if not self._writers:
                count = len(next(iter(metrics.values()), ()))
                labels = self._labels or [f"seed {seed}" for seed in range(count)]
                self._writers = [self._open(label) for label in labels]
            for member, writer in enumerate(self._writers):
                values = [
                    Summary.Value(tag=name, simple_value=float(per_seed[member]))
                    for name, per_seed in metrics.items()
                    if math.isfinite(per_seed[member])  # else there is a gap
                ]
                summary = Summary(value=values)
                writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
            if time.monotonic() - self._flushed > _PERIOD:
                self._flush()

    def close(self) -> None:
        with _disk(self._path):
            self._flush()
            for writer in self._writers:
                writer.close()
        self._writers = []

    def _open(self, label: str) -> EventsWriter:
        directory = self._path / label
        directory.mkdir(parents=True, exist_ok=True)
        writer = EventsWriter(str(directory / "events"), f".{os.getpid()}.{self._start}")
        # TensorBoard drops, from earlier files, the steps from here on.
        session = SessionLog(status=SessionLog.START)
        event = Event(wall_time=time.time(), step=self._start + 1, session_log=session)
        writer.write_event(event)
        return writer

    def _flush(self) -> None:
        for writer in self._writers:
            writer.flush()
        self._flushed = time.monotonic()


def _existing(path: str, mode: int) -> int:
    """Opens a file that is there: a run that was moved or removed is not begun anew."""
    return os.open(path, mode & ~os.O_CREAT)


def _floats(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.ravel(values)]


class _Found(NamedTuple):
    """What lines hold."""

    lines: list[dict[str, Any]]
    damage: str  # half a sentence about the lines that were left out; "": none was


def _read_lines(path: Path, until: int | None = None) -> _Found:
    """The lines of a file that are sound; none where there is no file.

    Steps must increase: as many lines as can be are kept so. A last line that was cut is no
    damage.

    Args:
      until: the last step that is wanted; None: all are.

    Raises:
      OSError: the file cannot be read.
    """
    try:
        *whole, rest = files.content(path).split(b"\n")
    except FileNotFoundError:
        return _Found([], "")
    lines, wrong = {}, {}
    for number, data in enumerate([*whole, *([rest] if rest else [])], start=1):
        try:
            lines[number] = _parse(data)
        except ValueError as error:
            if number <= len(whole):
                wrong[number] = str(error)
    widths = Counter(width for line in lines.values() for width in _widths(line))
    usual = {width for width, _ in widths.most_common(1)}
    for number in [n for n, line in lines.items() if not _widths(line) <= usual]:
        del lines[number]
        wrong[number] = "it is of another number of members"
    wanted = [n for n in lines if until is None or lines[n]["step"] <= until]
    kept = [wanted[i] for i in _longest_rise([lines[n]["step"] for n in wanted])]
    for number in set(wanted) - set(kept):
        wrong[number] = f"step {lines[number]['step']} is out of order"
    return _Found([lines[number] for number in kept], _described(wrong))


def _parse(data: bytes) -> dict[str, Any]:
    """A line; ValueError says why it is none."""
    line = files.parse(data, _LINE)
    names = dict.fromkeys(line["metrics"], _VALUES)
    if problem := files.mismatch(line["metrics"], names):
        raise ValueError(problem)
    if line["step"] < 0 or len(_widths(line)) > 1:
        raise ValueError("it is no line of metrics")
    _written(line)  # it raises, too, where a number is not finite
    return line


def _written(line: dict[str, Any]) -> str:
    """A line as it stands in the file."""
    return files.seal(json.dumps(line, allow_nan=False)) + "\n"


def _widths(line: dict[str, Any]) -> set[int]:
    return {len(values) for values in line["metrics"].values()}


def _longest_rise(steps: list[int]) -> list[int]:
    """Indices of as many steps as can be that increase strictly; at par the earlier."""
    starts: list[int] = []  # minus the highest step that a rise of each length starts with
    first: list[int] = []  # the index of that step
    after: dict[int, int | None] = {}  # for each index, the one that follows it
    for i in reversed(range(len(steps))):
        length = bisect.bisect_left(starts, -steps[i])
        after[i] = first[length - 1] if length else None
        starts[length : length + 1], first[length : length + 1] = [-steps[i]], [i]
    rise: list[int] = []
    at = first[-1] if first else None
    while at is not None:
        rise.append(at)
        at = after[at]
    return rise


def _described(wrong: dict[int, str]) -> str:
    """Which lines are left out, and why the first of them is."""
    if not wrong:
        return ""
    first, *others = sorted(wrong)
    more = f", and {len(others)} more," if others else ""
    return f"line {first}{more} was left out ({wrong[first]})"


def _free(path: Path) -> Path:
    """The path, or with a number where something is there already."""
    number, found = 2, path
    while os.path.lexists(found):
        number, found = number + 1, path.with_name(f"{path.name}{number}")
    return found


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turns an error of the disk into one sentence."""
    try:
        yield
    except OSError as error:
        if not path.parent.exists():
            raise UserError(
                f"{path.parent} was moved or removed while it was trained in: put it back, "
                "and resume=True (--resume) continues from its last checkpoint."
            ) from error
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else error.strerror or str(error)
        raise UserError(
            f"{reason}: {path} could not be written; the checkpoints are kept, and "
            "resume=True (--resume) continues from the last."
        ) from error


# ------------------------------------------------------------------------------- console


class _Console:
    """stderr: a bar on a terminal, else a line now and then.

    Where nobody reads it any more, training goes on without a word.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty() or "ipykernel" in sys.modules  # a notebook
        self._bar: tqdm | None = None
        self._total = 0
        self._first = (0.0, 0)  # when training started, and after which step
        self._last_line = -math.inf

    def say(self, sentence: str) -> None:
        with contextlib.suppress(OSError):
            tqdm.write(sentence, file=sys.stderr)

    @contextlib.contextmanager
    def timed(self, doing: str, done: str) -> Iterator[None]:
        began = time.monotonic()
        finished = threading.Event()

        def tick() -> None:
            while not finished.wait(1.0):
                self._print(f"\r{doing}… {time.monotonic() - began:.0f} s")

        ticking = threading.Thread(target=tick, daemon=True)
        if self._terminal:
            self._print(f"{doing}…")
            ticking.start()
        else:
            self.say(f"{doing}…")
        try:
            yield
        finally:
            finished.set()
            if self._terminal:
                ticking.join()
                self._print("\r")
        self.say(f"{done} in {time.monotonic() - began:.1f} s")

    def start(self, step: int, total: int) -> None:
        self._total = total
        self._first = (time.monotonic(), step)
        if self._terminal:
            form = "{percentage:3.0f}%|{bar:20}| {postfix}"
            self._bar = tqdm(total=total, initial=step, bar_format=form, file=sys.stderr)

    def epoch(self, step: int, metrics: _Metrics) -> None:
        line = self._line(step, metrics)
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.set_postfix_str(line, refresh=False)
                self._bar.update(min(step, self._total) - self._bar.n)
                self._bar.refresh()
        elif time.monotonic() - self._last_line >= _PERIOD or step >= self._total:
            self._last_line = time.monotonic()
            self.say(line)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):
            print(text, end="", file=sys.stderr, flush=True)

    def _line(self, step: int, metrics: _Metrics) -> str:
        """ "step 3200 of 50000 · 8412 steps/s · return -12.3 (-14 to -11) · 2 min left"."""
        began, first = self._first
        seeds = len(next(iter(metrics.values()), (0,)))
        rate = (step - first) / max(time.monotonic() - began, 1e-9)  # of each seed
        words = [f"step {step} of {self._total}", f"{rate * seeds:.3g} steps/s"]
        name = next((name for name in _SHOWN if name in metrics), None)
        if name is not None:
            words.append(f"{name} {_mean_and_range(metrics[name])}")
        if step < self._total:
            words.append(f"{_duration((self._total - step) / max(rate, 1e-9))} left")
        return " · ".join(words)


def _mean_and_range(values: np.ndarray) -> str:
    values = values[np.isfinite(values)]  # those of members that stopped are not
    if len(values) == 0:
        return "unknown"
    if len(values) == 1:
        return f"{values[0]:.4g}"
    return f"{np.mean(values):.4g} ({np.min(values):.4g} to {np.max(values):.4g})"


def _duration(seconds: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
