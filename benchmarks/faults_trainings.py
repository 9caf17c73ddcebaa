"""Trainings that are disturbed, and then tried again.

The seed and a case's name decide the moment of a signal.
"""

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults_bench import EPOCHS, MORE, Bench, Case
from benchmarks.faults_judge import EQUAL, OTHER, Outcome, judge, numbers, worst
from benchmarks.faults_process import Ended, Process, protect
from benchmarks.faults_settings import METHODS
from planil_jax.training import report, rundir

# Where a process is struck: when that begins, and how long it lasts, as a share of the
# undisturbed process.
PHASES: dict[str, tuple[Callable[[Process, Path], bool], float]] = {
    "at any time": (lambda process, logdir: True, 1.0),
    "compiling": (lambda process, logdir: "compiling training" in process.err(), 1.0),
    "saving": (
        lambda process, logdir: any(logdir.glob(f"{rundir.CHECKPOINTS}/.unfinished-*")),
        0.02,
    ),
    "training": (lambda process, logdir: (logdir / report.METRICS_FILE).exists(), 0.3),
    "evaluating": (lambda process, logdir: "evaluating" in process.err(), 0.4),
}


def _finish(bench: Bench, method: str, logdir: Path, argv: Sequence[str], first: Outcome):
    """Tries a command again; the worse of how it ended at first and how it ends now."""
    ended = bench.call(argv)
    if argv[0] == "train":
        table = bench.call(bench.argv("evaluate", logdir)).out
    else:
        table = ended.out
    found = numbers(logdir) | {"table": table}
    return worst(first, judge(ended, found, [bench.undisturbed(method)[1]]))


# ---------------------------------------------------------------------- kills and signals


def kills(bench: Bench) -> Iterator[Case]:
    """At random moments of every phase of every method."""
    for n in range(60):
        method, phase = METHODS[1:][n % 4], list(PHASES)[n % 5]
        yield _strike(bench, f"kill {phase}", n, method, phase, signal.SIGKILL)


def signals(bench: Bench) -> Iterator[Case]:
    """Those that ask a process to stop."""
    names = ("SIGTERM", "SIGHUP", "SIGINT", "SIGUSR1", "SIGUSR2")
    phases = ("training", "at any time", "training", "compiling")
    for n in range(20):
        name, phase = names[n % 5], phases[n // 5]
        yield _strike(bench, name, n, METHODS[n % 2], phase, signal.Signals[name])


def _strike(bench: Bench, kind: str, n: int, method: str, phase: str, number: int) -> Case:
    name = f"{kind} {n}: {method}, {phase}"
    moment = random.Random(f"{bench.seed} {name}").random()
    return Case(kind, name, partial(_struck, method, phase, number, moment))


def _struck(method: str, phase: str, number: int, moment: float, bench: Bench) -> Outcome:
    """A process gets a signal; then its command runs again."""
    seconds = bench.seconds(method)
    if phase == "evaluating":
        logdir = bench.fresh(bench.undisturbed(method)[0])
        argv = bench.argv("evaluate", logdir)
    else:
        logdir = bench.fresh()
        argv = bench.train(method, logdir)
    if phase == "compiling":  # all anew: what is compiled when it is struck is kept there
        argv.append(f"--compile_cache={bench.case / 'xla'}")
    begun, share = PHASES[phase]
    process = bench.start(argv)
    process.send(number, lambda: begun(process, logdir), moment * share * seconds)
    first = process.end()
    lines = logdir / report.METRICS_FILE
    trains = lines.exists() and 0 < len(lines.read_text().splitlines()) < EPOCHS
    return _finish(bench, method, logdir, argv, _stopped(first, number, trains))


def _stopped(first: Ended, number: int, trains: bool) -> Outcome:
    """A process that trains says that it was stopped; before and after it may just die."""
    if first.status is None or "Traceback" in first.err:
        return judge(first, {}, [{}])
    if first.status == -number != -signal.SIGKILL and trains:
        return Outcome(OTHER, "it died of the signal without a word")
    return Outcome(EQUAL, "")


# ------------------------------------------------------------------ disks, places, clocks


def disks(bench: Bench) -> Iterator[Case]:
    """That become full, or let no file grow."""
    for n, pages in enumerate((1, 2, 3, 6, 8, 12, 16, 20, 32, 44, 60, 80)):
        run = partial(_full, METHODS[n % 2], pages)
        yield Case("full disk", f"a disk of {4 * pages} kB", run)
    for n, limit in enumerate((4200, 5000, 6100, 6264, 8000, 11_386)):
        run = partial(_disturbed, METHODS[n % 2], (), limit)
        yield Case("limit of files", f"files of at most {limit} bytes", run)


def places(bench: Bench) -> Iterator[Case]:
    """The directory of a training changes under it."""
    for what in ("vanish", "move", "protect"):
        for n, epoch in enumerate((1, 1, 3, 3, EPOCHS - 1, EPOCHS - 1)):
            more = [str(bench.case / "elsewhere")] if what == "move" else []
            after = [epoch, what, str(bench.case / "run"), *more]
            name = f"{METHODS[n % 2]}, {what} after epoch {epoch}"
            run = partial(_disturbed, METHODS[n % 2], after, None)
            yield Case(f"{what} while training", name, run)


def clocks(bench: Bench) -> Iterator[Case]:
    """Set while a training goes on."""
    times = [("time", days) for days in (-1, -60 * 365, 100 * 365)]
    for clock, days in (*times, ("monotonic", -1), ("process_time", -1)):
        after = [2, "set the clock", clock, 86_400.0 * days]
        name = f"time.{clock} changes by {days} days"
        yield Case("set clock", name, partial(_disturbed, "bc", after, None))


def _disturbed(method: str, after: Any, file_size: int | None, bench: Bench) -> Outcome:
    """A training is disturbed; then it may go on."""
    logdir, elsewhere = bench.fresh(), bench.case / "elsewhere"
    ended = bench.call(bench.train(method, logdir), after, file_size)
    first = judge(ended, numbers(logdir), bench.trained(method))
    protect(bench.case, wanted=False)
    place = elsewhere if elsewhere.exists() else logdir
    return _finish(bench, method, place, bench.train(method, place), first)


def _full(method: str, pages: int, bench: Bench) -> Outcome:
    """A training on a disk of its own that becomes full; then there is room."""
    logdir, disk = bench.fresh(), bench.workdir / "disk"
    disk.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={4096 * pages}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:  # who may not has a limit
        return _disturbed(method, (), 4096 + 100 * pages, bench)
    try:
        ended = bench.call(bench.train(method, disk / "run"))
        first = judge(ended, numbers(disk / "run"), bench.trained(method))
        if (disk / "run").exists():
            shutil.copytree(disk / "run", logdir)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    return _finish(bench, method, logdir, bench.train(method, logdir), first)


# ---------------------------------------------------------------------------- two at once


def twice(bench: Bench) -> Iterator[Case]:
    """Two processes go on with one run."""
    for n in range(6):
        yield Case("two at once", f"two at once {n}", partial(_two, METHODS[n % 2], n // 2))


def _two(method: str, seconds: int, bench: Bench) -> Outcome:
    """At the end it is as if there had been one."""
    logdir = bench.fresh(bench.undisturbed(method)[0])
    argv, wanted = bench.argv("resume", logdir), bench.trained(method, MORE)
    processes = [bench.start(argv)]
    time.sleep(seconds)
    processes.append(bench.start(argv))
    ends, found = [process.end() for process in processes], numbers(logdir)
    if all(ended.status for ended in ends):
        return Outcome(OTHER, f"neither came to its end: {ends[1].err}")
    return worst(*(judge(ended, found, wanted) for ended in ends))
