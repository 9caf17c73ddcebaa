"""What the campaign works with: commands, processes, and what is right.

Starting a process takes seconds, so that one `Worker` runs most commands of `planil`, one
after another. `Bench` holds it, and the undisturbed runs that others are compared with.
`judge` says how a command ended.
"""

import contextlib
import fcntl
import functools
import gc
import hashlib
import importlib
import json
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
from absl import flags

from benchmarks import faults_settings
from planil_jax import envs
from planil_jax.cli import app
from planil_jax.data import demos
from planil_jax.training import checkpoint, report, rundir

ROOT = Path(__file__).parents[1]
EPOCHS = 6  # of an undisturbed run
LIMIT = 240.0  # seconds after which a command hangs
OUTCOMES = ("equal", "sentence", "differs", "traceback", "unexpected")  # the worst is last
# Root is held to permissions, as a user is, if it has no such capability.
_AS_USER = ["setpriv", "--bounding-set=-dac_override"]
_TRACEBACK = "Traceback (most recent call last)"
_LOGGED = re.compile(r"^([EWF]\d{4} |(ERROR|WARNING|CRITICAL)\b)", re.MULTILINE)
_ENVIRONMENT = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true", "PYTHONPATH": str(ROOT)}

Outcome = dict[str, Any]  # outcome, status, words
Found = dict[str, Any]  # part of what a command made -> its content


class Ended(NamedTuple):
    """How a command ended."""

    status: int | None  # exit code; below 0: the signal that it died of; None: it hung
    out: str
    err: str


# ------------------------------------------------------------------------------- outcomes


def judge(
    ended: Ended, found: Found, wanted: Sequence[Found], names: Sequence[str] = ()
) -> Outcome:
    """How a command ended: one of OUTCOMES, with its exit code and its words.

    Args:
      found: what it made; read only if it succeeded.
      wanted: what it should have made, and then what it may make after a notice.
      names: what a notice names: the injured file, or its checkpoint.
    """
    lines = ended.err.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    notices = [
        line
        for line in lines
        if any(name in line for name in names)
        and not line.startswith(("continuing from ", "evaluating ", "drawing "))
    ]
    said = errors or notices or lines[-1:]

    def outcome(which: str, *words: str) -> Outcome:
        return {"outcome": which, "status": ended.status, "words": " | ".join(words)}

    if ended.status is None:
        return outcome("unexpected", f"it did not end within {LIMIT:g} s", *lines[-1:])
    if _TRACEBACK in ended.out + ended.err:
        return outcome("traceback", lines[-1])
    if ended.status in (1, 2):
        one = len(errors) == 1 and errors[0] == lines[-1] and not _LOGGED.search(ended.err)
        right = one and "unexpected" not in errors[0]
        return outcome("sentence" if right else "unexpected", *said)
    if ended.status or _LOGGED.search(ended.err):
        return outcome("unexpected", f"exit code {ended.status}", *said)
    if wrong := _wrong(found, wanted[0]):
        if notices and any(_acceptable(found, other) for other in wanted):
            return outcome("sentence", *notices)
        return outcome("differs", wrong, *notices)
    return outcome("sentence" if notices else "equal", *notices)


def worst(*outcomes: Outcome) -> Outcome:
    """The worst of the outcomes of a case."""
    return max(outcomes, key=lambda outcome: OUTCOMES.index(outcome["outcome"]))


def _wrong(found: Found, wanted: Found) -> str:
    """What is first found to be wrong; "" where all is as wanted."""
    for part, content in wanted.items():
        if found.get(part) != content:
            if not isinstance(content, dict) or not isinstance(found.get(part), dict):
                return f"{part} differs"
            keys = content | found[part]
            first = next(k for k in keys if content.get(k) != found[part].get(k))
            return f"{part} differs at {first}"
    return ""


def _acceptable(found: Found, wanted: Found) -> bool:
    """Whether all is right but what a notice can speak of: lines that went, or a page."""
    rest = {k: v for k, v in wanted.items() if k not in ("metrics", "page")}
    lines = found.get("metrics", {}).items() <= wanted.get("metrics", {}).items()
    return lines and not _wrong(found, rest)


def numbers(logdir: Path) -> Found:
    """The numbers of a run: the arrays of its last checkpoint, and metrics by step.

    Seconds are left out. What cannot be read is an entry that equals no other.
    """
    found: Found = {"arrays": {}, "metrics": {}}
    steps = checkpoint.steps(logdir / rundir.CHECKPOINTS)
    try:
        import orbax.checkpoint as ocp

        last = logdir / rundir.CHECKPOINTS / f"{steps[-1]:012d}"
        with ocp.PyTreeCheckpointer() as checkpointer:
            arrays = checkpointer.restore(last.absolute() / "arrays")
        found["arrays"] = {"step": steps[-1]} | {
            name: hashlib.sha256(np.asarray(array).tobytes()).hexdigest()[:16]
            for name, array in arrays.items()
        }
        for line in (logdir / report.METRICS_FILE).read_text().splitlines():
            read = json.loads(line)
            found["metrics"][str(read["step"])] = json.dumps(read["metrics"])
    except Exception as error:
        found["unreadable"] = repr(error)[:200]
        found["metrics"]["unreadable"] = repr(error)[:200]
    return found


# ----------------------------------------------------------------------- in one process


def call(
    argv: Sequence[str], after: Sequence[Any] | None = None, file_size: int | None = None
) -> Ended:
    """Runs `planil` in this process.

    Args:
      after: the epoch after which something happens, and an entry of HAPPENINGS with its
        arguments.
      file_size: bytes that a file may have; None: as many as it wants.
    """
    module = importlib.import_module(f"planil_jax.cli.{argv[0]}")
    before, status = set(flags.FLAGS), 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "argv", ["planil", *argv[1:]]))
        out = stack.enter_context(_captured("stdout"))
        err = stack.enter_context(_captured("stderr"))
        if after is not None:
            stack.enter_context(_after(after[0], stack, *after[1:]))
        if file_size is not None:
            stack.enter_context(_limited(file_size))
        try:
            app.run_command(module)
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 1
        except BaseException as error:
            status = 1
            print(f"{_TRACEBACK}: {error!r}", file=sys.stderr)
    for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)
    flags.FLAGS.unparse_flags()
    return Ended(status, out[0], err[0])


@contextlib.contextmanager
def _captured(name: str) -> Iterator[list[str]]:
    """What the process writes on stdout or stderr, C++ included; there on leaving.

    Through a pipe, which no limit of the disk holds for.
    """
    texts: list[str] = []
    stream, number = getattr(sys, name), {"stdout": 1, "stderr": 2}[name]
    stream.flush()
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)
    kept = os.dup(number)
    os.dup2(write, number)
    try:
        with os.fdopen(write, "w") as file, mock.patch.object(sys, name, file):
            yield texts
    finally:
        os.dup2(kept, number)
        os.close(kept)
        os.set_blocking(read, False)
        with os.fdopen(read, "rb") as pipe:
            texts.append((pipe.read() or b"").decode(errors="replace"))


@contextlib.contextmanager
def _limited(file_size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _after(
    epoch: int, stack: contextlib.ExitStack, what: str, *args: Any
) -> contextlib.AbstractContextManager:
    """Something happens once the metrics of an epoch are written."""
    real, count = report.Report.epoch, 0

    def counted(self, step, metrics):
        nonlocal count
        real(self, step, metrics)
        count += 1
        if count == epoch:
            HAPPENINGS[what](stack, *args)

    return mock.patch.object(report.Report, "epoch", counted)


def _set_clock(stack: contextlib.ExitStack, clock: str, seconds: float) -> None:
    real = getattr(time, clock)
    stack.enter_context(mock.patch.object(time, clock, lambda: real() + seconds))


def protect(path: str | Path, wanted: bool = True) -> None:
    """Takes the permission to write from all below, or gives it back."""
    mode = 0o444 if wanted else 0o644
    for place in (Path(path), *Path(path).rglob("*")):
        place.chmod((0o555 if wanted else 0o755) if place.is_dir() else mode)


HAPPENINGS: dict[str, Callable[..., Any]] = {
    "vanish": lambda stack, path: shutil.rmtree(path),
    "move": lambda stack, path, target: os.rename(path, target),
    "protect": lambda stack, path: protect(path),
    "clock": _set_clock,
}


def serve() -> None:
    """Answers requests, a line of JSON each, until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    operations: dict[str, Callable[..., Any]] = {
        "call": call,
        "numbers": lambda logdir: numbers(Path(logdir)),
        "mutations": _mutations,
    }
    for count, line in enumerate(sys.stdin):
        name, args, options = json.loads(line)
        print(json.dumps(operations[name](*args, **options)), file=answers, flush=True)
        if count % 20 == 19:  # otherwise every program stays in memory
            jax.clear_caches()
            gc.collect()


def _mutations(count: int, seed: int, first: int) -> list[Any]:
    mutations = importlib.import_module("benchmarks.mutations")
    return [list(map(list, listed)) for listed in mutations.run(count, seed, first)]


# -------------------------------------------------------------------------- the campaign


class Process:
    """A command in a process of its own."""

    def __init__(self, argv: Sequence[str], folder: Path, number: int):
        self._out, self._err = (folder / f"{number}.{name}" for name in ("out", "err"))
        with open(self._out, "w") as out, open(self._err, "w") as err:
            self._process = subprocess.Popen(
                [*_python(), "-m", "planil_jax.cli.planil", *argv],
                cwd=ROOT,
                env=os.environ | _ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def err(self) -> str:
        return self._err.read_text(errors="replace")

    def wait_for(self, test: Callable[[], bool]) -> None:
        """Waits until something is so, or the process ended."""
        until = time.monotonic() + LIMIT
        while self._process.poll() is None and time.monotonic() < until and not test():
            time.sleep(0.001)

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self, seconds: float = LIMIT) -> Ended:
        """Waits for its end."""
        try:
            status: int | None = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            status = None
        return Ended(status, self._out.read_text(errors="replace"), self.err())


class Bench:
    """The working directory of a campaign, its worker and its undisturbed runs."""

    def __init__(self, workdir: str | Path, seed: int):
        self.workdir, self.seed = Path(workdir).absolute(), seed
        self.case = self.workdir / "case"  # of the case at hand; the same path for all
        self._worker: subprocess.Popen | None = None
        self._started = 0
        for folder in ("undisturbed", "words"):
            (self.workdir / folder).mkdir(parents=True, exist_ok=True)
        self._demos = _record(self.workdir / "demos.npz")
        # A shell's `nohup` and `&` would let what is started here ignore these signals.
        for number in (signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, lambda *_: None)

    def close(self) -> None:
        """Ends the worker."""
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
            self._worker = None

    # What `planil` is asked for.

    def train(self, method: str, logdir: Path, epochs: int = EPOCHS) -> list[str]:
        return [
            *self.resume(logdir, epochs),
            f"--config={faults_settings.__file__}:{method}",
            f"--demos={self._demos}",
        ]

    def resume(self, logdir: Path, epochs: int = EPOCHS) -> list[str]:
        steps = epochs * faults_settings.LOOP.steps_per_epoch
        command = ["train", f"--logdir={logdir}", f"--total_steps={steps}", "--resume"]
        return [*command, self._cache()]

    def evaluate(self, logdir: Path, *more: str) -> list[str]:
        return ["evaluate", f"--run={logdir}", "--episodes=2", *more, self._cache()]

    def report(self, logdir: Path, *more: str) -> list[str]:
        return ["report", f"--run={logdir}", *more, self._cache()]

    def _cache(self) -> str:
        return f"--compile_cache={self.workdir / 'xla'}"

    # Doing it.

    def call(self, argv: Sequence[str], **disturbances: Any) -> Ended:
        """Runs `planil` in the worker."""
        answer = self.ask("call", list(argv), **disturbances)
        return answer if isinstance(answer, Ended) else Ended(*answer)

    def start(self, argv: Sequence[str]) -> Process:
        """Runs `planil` in a process of its own."""
        self._started += 1
        return Process(argv, self.workdir / "words", self._started)

    def numbers(self, logdir: Path) -> Found:
        found = self.ask("numbers", str(logdir))
        return {"unreadable": found.err} if isinstance(found, Ended) else found

    def ask(self, operation: str, *args: Any, **options: Any) -> Any:
        """An answer of the worker; or how the worker ended, which is replaced then."""
        if self._worker is None:
            with open(self.workdir / "words/worker.err", "a") as err:
                self._worker = subprocess.Popen(
                    [
                        *_python(),
                        "-c",
                        "from benchmarks import faults_bench as b; b.serve()",
                    ],
                    cwd=ROOT,
                    env=os.environ | _ENVIRONMENT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=err,
                )
        worker = self._worker
        assert worker.stdin and worker.stdout
        worker.stdin.write(json.dumps([operation, args, options]).encode() + b"\n")
        worker.stdin.flush()
        limit = LIMIT * (10 if operation == "mutations" else 1)
        if not select.select([worker.stdout], [], [], limit)[0]:
            self.close()
            return Ended(None, "", "")
        if answer := worker.stdout.readline():
            return json.loads(answer)
        status = worker.wait()
        self._worker = None
        return Ended(status, "", f"the process ended with status {status}")

    # What is right.

    def fresh(self, source: Path | None = None) -> Path:
        """The directory of a run at the path of every case: empty, or a copy."""
        if self.case.exists():
            protect(self.case, wanted=False)
            shutil.rmtree(self.case)
        self.case.mkdir()
        logdir = self.case / "run"
        if source is not None:
            shutil.copytree(source, logdir)
        return logdir

    @functools.cache  # noqa: B019
    def undisturbed(self, method: str, epochs: int = EPOCHS) -> tuple[Path, float, Found]:
        """A run that nothing disturbed, its seconds, and its numbers, kept for later."""
        place = self.workdir / "undisturbed" / f"{method}_{epochs}"
        if not (place / "found.json").exists():
            shutil.rmtree(place, ignore_errors=True)
            logdir = self.fresh()
            began = 0.0
            for _ in range(2):  # the first compiles
                logdir = self.fresh()
                process = self.start(self.train(method, logdir, epochs))
                process.wait_for(lambda: "device: " in process.err())  # noqa: B023
                began = time.monotonic()
                ended = process.end()
                assert ended.status == 0, ended.err
            seconds = time.monotonic() - began
            found = self.numbers(logdir)
            ended = self.call(self.evaluate(logdir))
            assert ended.status == 0, ended.err
            shutil.copytree(logdir, place / "run")
            found["table"] = ended.out
            (place / "found.json").write_text(json.dumps([seconds, found]))
        seconds, found = json.loads((place / "found.json").read_text())
        return place / "run", seconds, found


def _python() -> list[str]:
    held = os.geteuid() == 0 and shutil.which(_AS_USER[0])
    return [*(_AS_USER if held else []), sys.executable]


def _record(path: Path) -> Path:
    """Demonstrations of the point mass, with actions: random walks."""
    if path.exists():
        return path
    spec = envs.make(faults_settings.ENVIRONMENT).spec
    rng = np.random.default_rng(0)
    card = demos.Card(
        environment=faults_settings.ENVIRONMENT,
        control_period=spec.control_period,
        observation_names=spec.observation_names,
        action_low=spec.action_low,
        action_high=spec.action_high,
    )
    episodes = [
        demos.Episode(
            obs=np.cumsum(rng.normal(0, 0.1, (9, 4)), axis=0).astype(np.float32),
            actions=rng.uniform(-1, 1, (8, 2)).astype(np.float32),
            rewards=None,
            terminal=False,
        )
        for _ in range(3)
    ]
    demos.save(path, episodes, card)
    return path
