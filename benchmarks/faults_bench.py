"""The working directory of a campaign: commands, and runs that nothing disturbed."""

import functools
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import faults_process, faults_settings
from benchmarks.faults_judge import Found, Outcome, numbers
from benchmarks.faults_process import Ended, Process
from planil_jax import envs
from planil_jax.data.dataset import Demos

EPOCHS = 6  # of an undisturbed run
MORE = EPOCHS + 2  # of one that is resumed


class Bench:
    """Runs commands of `planil`. A class, as it holds files and processes."""

    def __init__(self, workdir: str | Path, seed: int):
        self.workdir, self.seed = Path(workdir).absolute(), seed
        self.case = self.workdir / "case"  # of the case at hand; the same path for all
        self.cache = f"--compile_cache={self.workdir / 'xla'}"
        self.words = self.workdir / "words"
        self.words.mkdir(parents=True, exist_ok=True)
        self._demos = self.workdir / "demos.npz"
        if not self._demos.exists():  # random walks
            rng = np.random.default_rng(0)
            obs = np.cumsum(rng.normal(0, 0.1, (3, 9, 4)), axis=1).astype(np.float32)
            actions = rng.uniform(-1, 1, (3, 8, 2)).astype(np.float32)
            spec = envs.make(faults_settings.ENVIRONMENT).spec
            Demos.from_arrays(obs, actions).completed(spec).save(self._demos)

    def train(self, method: str, logdir: Path, epochs: int = EPOCHS) -> list[str]:
        """The whole command of a training."""
        settings = f"--config={faults_settings.__file__}:{method}"
        return [*self.argv("resume", logdir, epochs), settings, f"--demos={self._demos}"]

    def argv(self, command: str, logdir: Path, epochs: int = MORE) -> list[str]:
        """A command on a run that is there."""
        steps = epochs * faults_settings.LOOP.steps_per_epoch
        return {
            "resume": ["train", f"--logdir={logdir}", "--resume", f"--total_steps={steps}"],
            "evaluate": ["evaluate", f"--run={logdir}", "--episodes=2"],
            "report": ["report", f"--run={logdir}"],
            "inspect": ["inspect", str(logdir / "demonstrations.npz")],
        }[command] + [self.cache]

    def start(self, argv: Sequence[str], *disturbance: Any) -> Process:
        """Starts `planil`, with the arguments of `faults_process.run`."""
        return Process(self.words, faults_process.run, argv, *disturbance)

    def call(self, argv: Sequence[str], *disturbance: Any) -> Ended:
        """Runs `planil` to its end."""
        return self.start(argv, *disturbance).end()

    def must(self, argv: Sequence[str]) -> Ended:
        """Runs `planil` where nothing disturbs it."""
        ended = self.call(argv)
        assert ended.status == 0, ended.err
        return ended

    def fresh(self, source: Path | None = None) -> Path:
        """The directory of a run at the path of every case: none yet, or a copy."""
        if self.case.exists():
            faults_process.protect(self.case, wanted=False)
            shutil.rmtree(self.case)
        self.case.mkdir()
        logdir = self.case / "run"
        if source is not None:
            shutil.copytree(source, logdir)
        return logdir

    @functools.cache  # noqa: B019
    def undisturbed(self, method: str, epochs: int = EPOCHS) -> tuple[Path, Found]:
        """A run that nothing disturbed, and its numbers, kept for later."""
        logdir = self.workdir / f"undisturbed/{method}_{epochs}"
        kept = logdir.with_suffix(".json")
        if not kept.exists():
            shutil.rmtree(logdir, ignore_errors=True)
            self.must(self.train(method, logdir, epochs))
            table = self.must(self.argv("evaluate", logdir)).out
            kept.write_text(json.dumps(numbers(logdir) | {"table": table}))
        return logdir, json.loads(kept.read_text())

    @functools.cache  # noqa: B019
    def seconds(self, method: str) -> float:
        """How long a training takes that nothing disturbs, once its programs are kept."""
        self.undisturbed(method)
        logdir, began = self.fresh(), time.monotonic()
        self.must(self.train(method, logdir))
        return time.monotonic() - began

    def trained(self, method: str, epochs: int = EPOCHS) -> list[Found]:
        """What `judge` wants of a training: the undisturbed one's numbers."""
        found = self.undisturbed(method, epochs)[1]
        return [{part: found[part] for part in ("arrays", "metrics")}]


class Case(NamedTuple):
    """A fault, or several at once."""

    kind: str  # a line of the table
    name: str
    run: Callable[[Bench], Outcome | list[tuple[str, str, Outcome]]]  # or kind, name, …
