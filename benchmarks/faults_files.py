"""Files that are injured, or changed, and then read."""

import contextlib
import functools
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.faults_bench import MORE, Bench, Case
from benchmarks.faults_judge import EQUAL, OTHER, SENTENCE, Found, Outcome, judge, numbers
from benchmarks.faults_process import Ended, Process, protect
from planil_jax.evaluation import evaluate
from planil_jax.training import rundir

COMMANDS = ("resume", "evaluate", "report")
MUTATIONS, CHUNK = 3000, 250
# The verdicts of benchmarks.mutations that are right; the others are OTHER.
RIGHT = {
    "accepted, equal": EQUAL,
    "accepted, as the file says": EQUAL,
    "refused in a sentence": SENTENCE,
}


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


INJURIES: dict[str, Callable[[Path, random.Random], object]] = {
    "one bit flipped": _flip,
    "cut": lambda path, rng: os.truncate(path, rng.randrange(path.stat().st_size)),
    "emptied": lambda path, rng: os.truncate(path, 0),
    "other bytes": lambda path, rng: path.write_bytes(rng.randbytes(path.stat().st_size)),
    "removed": lambda path, rng: path.unlink(),
    "a directory": _folder,
    "read-only": lambda path, rng: path.chmod(0o444),
}


def files(bench: Bench) -> Iterator[Case]:
    """Every file of a finished run, injured in every way.

    Those of checkpoints, which are many, are read by the commands in turn, and each of the
    others by each command.
    """
    source = bench.undisturbed("bc")[0]
    cases = [("", "all read-only", command) for command in COMMANDS]
    for n, path in enumerate(sorted(p for p in source.rglob("*") if p.is_file())):
        file = str(path.relative_to(source))
        for m, how in enumerate(INJURIES):
            commands = list(COMMANDS) + ["inspect"] * (path.suffix == ".npz")
            if file.startswith(rundir.CHECKPOINTS):
                commands = [COMMANDS[(n + m) % 3]]
            if (file, how) == (evaluate.RESULT, "removed"):
                commands.remove("report")  # it is of a run that was never evaluated
            cases += [(file, how, command) for command in commands]
    random.Random(bench.seed).shuffle(cases)
    for file, how, command in cases:
        name = f"{file}, {how}, {command}"
        yield Case(
            f"injured file, {command}",
            name,
            functools.partial(_injured, file, how, command),
        )


def _injured(file: str, how: str, command: str, bench: Bench) -> Outcome:
    """A command on a finished run of which a file is injured, or all is read-only."""
    wanted = _wanted(bench, command)
    logdir = bench.fresh(bench.undisturbed("bc")[0])
    names = [str(logdir)]
    if not file:
        protect(logdir)
    else:
        path, first, *rest = logdir / file, *Path(file).parts
        at = path.stat().st_mtime
        INJURIES[how](path, random.Random(f"{bench.seed} {file} {how}"))
        if path.exists():
            os.utime(path, (at, at))  # the report has the date of the metrics
        names = [path.name, *(rest[:1] if first == rundir.CHECKPOINTS else [])]
    ended = bench.call(bench.argv(command, logdir))
    found = {} if ended.status else _made(command, logdir, ended)
    return judge(ended, found, wanted, names)


def _made(command: str, logdir: Path, ended: Ended) -> Found:
    """What a command made."""
    if command == "resume":
        return numbers(logdir)
    if command == "report":
        return {"page": (logdir / "report.html").read_text()}
    found = {"table": ended.out}
    if command == "evaluate":
        with contextlib.suppress(OSError):  # a read-only run keeps the old one
            found["file"] = (logdir / evaluate.RESULT).read_text()
    return found


@functools.cache
def _wanted(bench: Bench, command: str) -> list[Found]:
    """What a command makes of an uninjured run; then of its older checkpoints."""
    if command == "resume":
        return bench.trained("bc", MORE)
    source, found = bench.undisturbed("bc")[0], []
    steps = sorted(int(p.name) for p in (source / rundir.CHECKPOINTS).iterdir())[::-1]
    for which in [[]] if command == "inspect" else [[f"--which={step}"] for step in steps]:
        logdir = bench.fresh(source)
        ended = bench.must([*bench.argv(command, logdir), *which])
        found.append(_made(command, logdir, ended))
    return found


# ------------------------------------------------------------------------------ mutations


def mutations(bench: Bench) -> Iterator[Case]:
    """Demonstrations, sources, configurations and manifests that are changed."""
    for first in range(0, MUTATIONS, CHUNK):
        name = f"mutations {first} to {first + CHUNK - 1}"
        yield Case("changed file", name, functools.partial(_mutated, first))


def _mutated(first: int, bench: Bench) -> Outcome | list[tuple[str, str, Outcome]]:
    path = bench.fresh().with_name("mutations.json")
    ended = Process(bench.words, _mutate, CHUNK, bench.seed, first, path).end(3000.0)
    if ended.status != 0:
        return Outcome(OTHER, f"exit code {ended.status}: {ended.err[-200:]}")
    return [
        (
            f"changed {kind}",
            f"{number}: {kind}, {change}",
            Outcome(RIGHT.get(verdict, OTHER), said),
        )
        for (number, kind, change), (verdict, said, _) in json.loads(path.read_text())
    ]


def _mutate(count: int, seed: int, first: int, path: Path) -> None:
    from benchmarks import mutations  # here: it imports half of the package

    path.write_text(json.dumps(list(zip(*mutations.run(count, seed, first), strict=True))))
