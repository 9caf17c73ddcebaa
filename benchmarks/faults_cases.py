"""The cases of the campaign. Each prepares a run, disturbs it, and tries to finish it.

What comes of it is judged against the undisturbed run (`faults_bench.judge`). The seed and
a case's name decide all that is drawn for it.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults_bench import (
    EPOCHS,
    LIMIT,
    Bench,
    Ended,
    Found,
    Outcome,
    Process,
    judge,
    protect,
    worst,
)
from benchmarks.faults_settings import METHODS
from planil_jax.evaluation import evaluate
from planil_jax.training import report, rundir

MORE = EPOCHS + 2  # epochs of a run that is resumed
MUTATIONS, CHUNK = 3000, 250
_DAY = 86_400.0


class Case(NamedTuple):
    """One fault."""

    kind: str
    group: str  # of the table of results
    name: str
    # its outcome; of several faults at once, their (group, name, outcome)
    run: Callable[[Bench], Outcome | list[tuple[str, str, Outcome]]]


def plan(bench: Bench, kinds: list[str]) -> list[Case]:
    """All cases of some kinds, in turn, so that the first of them are of all kinds."""
    placed = []
    for kind in kinds:
        cases = list(KINDS[kind](bench))
        placed += [((n + 0.5) / len(cases), case) for n, case in enumerate(cases)]
    return [case for _, case in sorted(placed, key=lambda item: item[0])]


def _finish(bench: Bench, method: str, logdir: Path, again: Ended) -> Outcome:
    """How a training ended that was tried again, by all its numbers and an evaluation."""
    wanted = bench.undisturbed(method)[2]
    found = bench.numbers(logdir)
    if again.status == 0:
        found["table"] = bench.call(bench.evaluate(logdir)).out
    return judge(again, found, [wanted])


# ---------------------------------------------------------------------- kills and signals

# Where a process is struck: when that begins, and how long it lasts, as a share of the
# undisturbed process.
PHASES: dict[str, tuple[Callable[[Process, Path], bool], float]] = {
    "any time": (lambda process, logdir: "device: " in process.err(), 1.0),
    "compiling": (lambda process, logdir: "compiling training" in process.err(), 0.4),
    "saving": (
        lambda process, logdir: any(logdir.glob(f"{rundir.CHECKPOINTS}/.unfinished-*")),
        0.02,
    ),
    "training": (lambda process, logdir: (logdir / report.METRICS_FILE).exists(), 0.3),
    "evaluating": (lambda process, logdir: "evaluating" in process.err(), 0.4),
}


def _kills(bench: Bench) -> Iterator[Case]:
    for n in range(60):
        method = METHODS[n % len(METHODS)]
        phase = list(PHASES)[(n + n // len(PHASES)) % len(PHASES)]
        yield _strike(bench, "kill", n, method, phase, signal.SIGKILL)


def _signals(bench: Bench) -> Iterator[Case]:
    numbers = ("SIGTERM", "SIGHUP", "SIGINT", "SIGUSR1", "SIGUSR2")
    for n in range(20):
        phase = ("training", "any time", "training", "compiling")[n // len(numbers)]
        number = signal.Signals[numbers[n % len(numbers)]]
        yield _strike(bench, "signal", n, METHODS[n % 2], phase, number)


def _strike(bench, kind: str, n: int, method: str, phase: str, number: signal.Signals):
    what = phase if number == signal.SIGKILL else f"{number.name}, {phase}"
    name = f"{kind} {n}: {method}, {what}"
    group = f"{kind}: {method if kind == 'kill' else number.name}, {phase}"
    moment = random.Random(f"{bench.seed} {name}").random()
    return Case(kind, group, name, partial(_struck, method, phase, number, moment))


def _struck(
    method: str, phase: str, number: signal.Signals, moment: float, bench: Bench
) -> Outcome:
    """A process gets a signal; then its command runs again."""
    source, seconds, wanted = bench.undisturbed(method)
    evaluates = phase == "evaluating"
    logdir = bench.fresh(source if evaluates else None)
    argv = bench.evaluate(logdir) if evaluates else bench.train(method, logdir)
    begun, share = PHASES[phase]
    process = bench.start(argv)
    process.wait_for(lambda: begun(process, logdir))
    time.sleep(moment * share * seconds)
    process.send(number)
    first = process.end()
    lines = logdir / report.METRICS_FILE
    epochs = len(lines.read_text().splitlines()) if lines.exists() else 0
    again = bench.call(argv)
    if evaluates:
        return judge(again, {"table": again.out}, [{"table": wanted["table"]}])
    outcome = _finish(bench, method, logdir, again)
    if number != signal.SIGKILL:
        outcome = worst(outcome, _of_signal(first, number, 0 < epochs < EPOCHS))
    return outcome


def _of_signal(first: Ended, number: signal.Signals, trains: bool) -> Outcome:
    """A process that trains says that it was stopped; before and after it may just die."""
    if first.status is None or "Traceback" in first.err:
        return judge(first, {}, [{}])
    died = first.status < 0 and trains
    words = f"died of {number.name} without a word" if died else ""
    which = "unexpected" if died else "equal"
    return {"outcome": which, "status": first.status, "words": words}


# ---------------------------------------------------------------------------------- disks


def _disks(bench: Bench) -> Iterator[Case]:
    limits = [int(300 * 1.9**n) for n in range(10)]
    for n, limit in enumerate(limits):
        name, method = f"files of at most {limit} bytes", METHODS[n % 2]
        yield Case("disk", "disk: a limit of files", name, partial(_limited, method, limit))
    for n, pages in enumerate((2, 8, 12, 20, 32, 44, 60, 80)):
        name, method = f"a disk of {4 * pages} kB", METHODS[n % 2]
        yield Case("disk", "disk: full", name, partial(_full, method, pages))


def _limited(method: str, limit: int, bench: Bench) -> Outcome:
    """A training whose files cannot grow; then it may go on."""
    logdir = bench.fresh()
    argv = bench.train(method, logdir)
    first = bench.call(argv, file_size=limit)
    done = judge(first, bench.numbers(logdir), [_trained(bench, method)])
    return worst(done, _finish(bench, method, logdir, bench.call(argv)))


def _full(method: str, pages: int, bench: Bench) -> Outcome:
    """A training on a disk of its own that becomes full; then there is room."""
    logdir, disk = bench.fresh(), bench.workdir / "disk"
    disk.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={4096 * pages}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        return _limited(method, 4096 * pages, bench)  # who may not mount has a limit
    try:
        small = disk / "run"
        argv = bench.train(method, small)
        first = bench.call(argv)
        done = judge(first, bench.numbers(small), [_trained(bench, method)])
        shutil.copytree(small, logdir) if small.exists() else logdir.mkdir()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    again = bench.call(bench.train(method, logdir))
    return worst(done, _finish(bench, method, logdir, again))


def _trained(bench: Bench, method: str, epochs: int = EPOCHS) -> Found:
    """The numbers of an undisturbed training alone."""
    found = bench.undisturbed(method, epochs)[2]
    return {part: found[part] for part in ("arrays", "metrics")}


# ------------------------------------------------------------------------- places, clocks


def _places(bench: Bench) -> Iterator[Case]:
    for method in METHODS[:2]:
        yield Case("place", "place: moved", f"{method}, moved", partial(_moved, method))
        for epoch in (1, 3, EPOCHS - 1):
            for what in ("vanish", "move", "protect"):
                name = f"{method}, after epoch {epoch}: {what}"
                run = partial(_lost, method, epoch, what)
                yield Case("place", f"place: {what} while training", name, run)
    for command in ("resume", "evaluate", "report"):
        run = partial(_injured, None, "protected", command)
        yield Case("place", "place: read-only", f"read-only, {command}", run)


def _moved(method: str, bench: Bench) -> Outcome:
    """A finished run goes on at another place."""
    logdir = bench.fresh(bench.undisturbed(method)[0])
    other = logdir.with_name("elsewhere")
    os.rename(logdir, other)
    ended = bench.call(bench.resume(other, MORE))
    return judge(ended, bench.numbers(other), [_trained(bench, method, MORE)])


def _lost(method: str, epoch: int, what: str, bench: Bench) -> Outcome:
    """The directory of a training changes under it; then it goes on where it was left."""
    logdir = bench.fresh()
    other = logdir.with_name("elsewhere")
    places = [str(logdir)] + [str(other)] * (what == "move")
    first = bench.call(bench.train(method, logdir), after=[epoch, what, *places])
    done = judge(first, bench.numbers(logdir), [_trained(bench, method)])
    protect(bench.case, wanted=False)
    place = other if what == "move" else logdir
    again = bench.call(bench.train(method, place))
    return worst(done, _finish(bench, method, place, again))


def _clocks(bench: Bench) -> Iterator[Case]:
    for clock, seconds in (
        ("time", -_DAY),
        ("time", -60 * 365 * _DAY),
        ("time", 100 * 365 * _DAY),
        ("monotonic", -_DAY),
        ("process_time", -_DAY),
    ):
        name = f"{clock} changes by {seconds:.0f} s"
        yield Case("clock", f"clock: {clock}", name, partial(_clocked, clock, seconds))


def _clocked(clock: str, seconds: float, bench: Bench) -> Outcome:
    logdir = bench.fresh()
    argv = bench.train("bc", logdir)
    first = bench.call(argv, after=[2, "clock", clock, seconds])
    done = judge(first, bench.numbers(logdir), [_trained(bench, "bc")])
    return worst(done, _finish(bench, "bc", logdir, bench.call(argv)))


def _twice(bench: Bench) -> Iterator[Case]:
    for n in range(4):
        run = partial(_two, METHODS[n % 2], n // 2)
        yield Case("twice", "two processes at once", f"two at once {n}", run)


def _two(method: str, seconds: int, bench: Bench) -> Outcome:
    """Two processes go on with one run; at the end it is as if there had been one."""
    logdir = bench.fresh(bench.undisturbed(method)[0])
    argv = bench.resume(logdir, MORE)
    first = bench.start(argv)
    time.sleep(seconds)
    second = bench.start(argv)
    ends = [first.end(), second.end()]
    wanted = [_trained(bench, method, MORE)]
    found = bench.numbers(logdir)
    again = bench.call(argv)
    last = judge(again, bench.numbers(logdir), wanted)
    return worst(*(judge(ended, found, wanted) for ended in ends), last)


# ---------------------------------------------------------------------------------- files


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _cut(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def _other(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(path.stat().st_size))


def _folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


INJURIES: dict[str, Callable[[Path, random.Random], object]] = {
    "one bit flipped": _flip,
    "cut": _cut,
    "emptied": lambda path, rng: os.truncate(path, 0),
    "other bytes": _other,
    "removed": lambda path, rng: path.unlink(),
    "a directory": _folder,
    "read-only": lambda path, rng: path.chmod(0o444),
}


def _files(bench: Bench) -> Iterator[Case]:
    """Every file of a finished run, injured in every way, read by every command."""
    run = bench.undisturbed("bc")[0]
    files = sorted(p for p in run.rglob("*") if p.is_file() and p.stat().st_size)
    cases = []
    for path in files:
        for how in INJURIES:
            for command in COMMANDS:
                if command == "inspect" and path.suffix != ".npz":
                    continue
                file = str(path.relative_to(run))
                name = f"{file}, {how}, {command}"
                group = f"file: {_group(path.relative_to(run))}, {command}"
                do = partial(_injured, file, how, command)
                cases.append(Case("file", group, name, do))
    random.Random(bench.seed).shuffle(cases)
    yield from cases


def _group(path: Path) -> str:
    first = path.parts[0]
    if first == rundir.CHECKPOINTS:
        return f"a checkpoint's {path.name if len(path.parts) == 3 else 'arrays'}"
    return first


def _injured(file: str | None, how: str, command: str, bench: Bench) -> Outcome:
    """A command on a finished run of which a file is injured, or all is read-only."""
    wanted = _references(bench)[command]
    logdir = bench.fresh(bench.undisturbed("bc")[0])
    names: tuple[str, ...] = (str(logdir),)
    if file is None:
        protect(logdir)
    else:
        path, parts = logdir / file, Path(file).parts
        at = path.stat().st_mtime
        INJURIES[how](path, random.Random(f"{bench.seed} {file} {how}"))
        if path.exists():
            os.utime(path, (at, at))  # the report has the date of the metrics
        names = parts[1:2] if parts[0] == rundir.CHECKPOINTS else (path.name,)
        names += (path.name,) if parts[0] == rundir.CHECKPOINTS else ()
    ended = bench.call(COMMANDS[command](bench, logdir))
    found = _made(bench, command, logdir, ended) if ended.status == 0 else {}
    return judge(ended, found, wanted, names)


COMMANDS: dict[str, Callable[[Bench, Path], list[str]]] = {
    "resume": lambda bench, logdir: bench.resume(logdir, MORE),
    "evaluate": lambda bench, logdir: bench.evaluate(logdir),
    "report": lambda bench, logdir: bench.report(logdir),
    "inspect": lambda bench, logdir: ["inspect", str(logdir / "demonstrations.npz")],
}


def _made(bench: Bench, command: str, logdir: Path, ended: Ended) -> Found:
    """What a command made."""
    if command == "resume":
        found = bench.numbers(logdir)
        return {part: found[part] for part in ("arrays", "metrics")}
    if command == "report":
        return {"page": (logdir / "report.html").read_text()}
    found = {"table": ended.out}
    if command == "evaluate":
        with contextlib.suppress(OSError):  # a read-only run keeps the old one
            found["file"] = (logdir / evaluate.RESULT).read_text()
    return found


def _references(bench: Bench) -> dict[str, list[Found]]:
    """What each command makes of an uninjured run; then of its older checkpoints."""
    if not hasattr(bench, "references"):
        source = bench.undisturbed("bc")[0]
        steps = sorted(p.name for p in (source / rundir.CHECKPOINTS).iterdir())[::-1]
        found: dict[str, list[Found]] = {"resume": [_trained(bench, "bc", MORE)]}
        for command in ("evaluate", "report", "inspect"):
            found[command] = []
            for step in steps[: 1 if command == "inspect" else None]:
                which = [] if command == "inspect" else [f"--which={int(step)}"]
                logdir = bench.fresh(source)
                ended = bench.call([*COMMANDS[command](bench, logdir), *which])
                assert ended.status == 0, ended.err
                found[command].append(_made(bench, command, logdir, ended))
        bench.references = found  # type: ignore[attr-defined]
    return bench.references  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------ mutations

# A verdict of benchmarks.mutations -> an outcome.
VERDICTS = {
    "accepted, equal": "equal",
    "accepted, as the file says": "equal",
    "refused in a sentence": "sentence",
    "accepted, silently wrong": "differs",
    "unexpected": "unexpected",
}


def _mutations(bench: Bench) -> Iterator[Case]:
    for first in range(0, MUTATIONS, CHUNK):
        name = f"mutations {first} to {first + CHUNK - 1}"
        yield Case("mutation", "mutations", name, partial(_mutated, first))


def _mutated(first: int, bench: Bench) -> Outcome | list[tuple[str, str, Outcome]]:
    """Changed demonstrations, sources and configurations, read as a user reads them."""
    answer = bench.ask("mutations", CHUNK, bench.seed, first)
    if isinstance(answer, Ended):
        words = answer.err or f"it did not end within {10 * LIMIT:g} s"
        return {"outcome": "unexpected", "status": answer.status, "words": words}
    return [
        (
            f"mutation: {kind}",
            f"mutation {number}: {kind}, {change}",
            {"outcome": VERDICTS[verdict], "status": None, "words": said[:200]},
        )
        for (number, kind, change), (verdict, said, _) in zip(*answer, strict=True)
    ]


KINDS: dict[str, Callable[[Bench], Iterator[Case]]] = {
    "kill": _kills,
    "signal": _signals,
    "disk": _disks,
    "place": _places,
    "clock": _clocks,
    "twice": _twice,
    "file": _files,
    "mutation": _mutations,
}
