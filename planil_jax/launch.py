"""Training from an experiment to a run directory, without flags.

The API and the commands share it:

    read the demonstrations | make the agent | open the directory | train to the end
"""

import contextlib
import dataclasses
import functools
import shlex
from collections.abc import Iterator
from pathlib import Path

from planil_jax import config, experiment, runs, sweep
from planil_jax.base import Agent, Demonstrations, Environment, UsageError, UserError
from planil_jax.data import demos
from planil_jax.precision import require_float32
from planil_jax.training import files, run, rundir, signals
from planil_jax.training.report import Report

# Fields that may change where a run is resumed.
FREE = ("run.total_steps", "run.keep_last", "run.keep_best")


def launch(
    settings: experiment.Experiment,
    env: Environment | None = None,
    demos_path: str | Path | None = None,
    demonstrations: Demonstrations | None = None,
    *,
    logdir: str | Path | None,
    resume: bool = False,
    report: Report | None = None,
) -> None:
    """Trains to the end, or from where the run in `logdir` was left.

    Args:
      settings: the experiment; its `demonstrations` is filled in here.
      env: None: the one that `settings.environment` names.
      demos_path: a file of demonstrations, which is copied into `logdir`. None: the
        copy that the run has.
      demonstrations: what `demos_path` holds, where the caller has read it already.
      logdir: directory of the run. None: nothing is kept.
      resume: whether a run that is in `logdir` continues.
      report: receives sentences and metrics; None: the console and the files of `logdir`.
        It is closed at the end.

    Nothing of `logdir` is made or changed before training starts: all refusals come first.

    Raises:
      signals.Stopped, signals.Interrupted: a signal; it is said how to go on.
      UsageError: a setting is wrong; the demonstrations are missing, do not fit, or are not
        those that the run began with; or `logdir` holds another run or one that is not to
        be resumed, or another process trains there.
      UserError: as for `training.run.train`.
    """
    float32 = require_float32()
    config.check(settings)
    logdir, demos_path = _path(logdir), _path(demos_path)
    settings = with_engine(settings, logdir)
    env = env or experiment.make_env(settings)
    settings = _record_engine(settings, env)
    source = None
    notices = [float32] if float32 else []
    if experiment.needs(settings).demonstrations:
        source, demonstrations = _read_demos(
            settings, env, demos_path, demonstrations, logdir
        )
        if source is not None:
            notices += demos.origin_warnings(source, env.spec)
            digest = runs.digest(source)
            settings = dataclasses.replace(settings, demonstrations=digest)
    else:
        demonstrations = demos.none(env.spec)
        if demos_path is not None:
            notices.append(f"note: {settings.method} uses no demonstrations.")
    swept = sweep.settings(settings)

    def make_agent(values: run.Settings) -> Agent:
        member = sweep.apply_overrides(settings, values)
        return experiment.make_agent(member, env, demonstrations)

    agent = make_agent if swept else make_agent({})
    notices += experiment.config_warnings(settings, env)
    with contextlib.ExitStack() as stack:
        begin = _nothing
        if logdir is not None:
            text = experiment.to_json(settings)
            opened = stack.enter_context(rundir.opened(logdir, text, resume, FREE))
            begin = functools.partial(
                _begin, opened, source, logdir, settings.demonstrations
            )
            notices = opened.notices + notices
        report = stack.enter_context(report or Report(logdir, sweep.labels(settings)))
        report.before_start(begin)
        for notice in notices:
            report.say(notice)
        again = _again(logdir, resume)
        begun = logdir is None or (logdir / rundir.CONFIG).exists()
        first = again if begun else "the same command begins it again"
        hearing = stack.enter_context(_stoppable(report, first))
        for _ in run.train(
            agent,
            env,
            settings.loop,
            settings.run,
            demonstrations,
            (settings.seed, settings.seeds),
            None if logdir is None else logdir / rundir.CHECKPOINTS,
            report,
            swept,
            again,
        ):
            hearing.patient = True  # a signal between two epochs waits for the next


def _again(logdir: Path | None, resume: bool) -> str:
    """Half a sentence about how a training goes on that was stopped."""
    if logdir is None:
        return "as it has no logdir, nothing continues it"
    if resume:  # also of commands that always resume
        return "the same command continues it"
    command = f"planil train --logdir={shlex.quote(str(logdir))} --resume"
    return f"`{command}` (in Python the same call with resume=True) continues it"


@contextlib.contextmanager
def _stoppable(report: Report, again: str) -> Iterator[signals.Hearing]:
    """A signal ends the block, and the report says so."""
    try:
        with signals.heard(f"nothing had to be saved; {again}") as hearing:
            yield hearing
    except (signals.Stopped, signals.Interrupted) as stop:
        if stop.sentence:
            report.say(stop.sentence)
            stop.sentence = ""
        raise


def with_engine(
    settings: experiment.Experiment, logdir: str | Path | None
) -> experiment.Experiment:
    """The experiment on the engine of the run in `logdir`, unless it asks for another."""
    logdir = _path(logdir)
    if settings.engine != "auto" or logdir is None:
        return settings
    if not (logdir / rundir.CONFIG).exists():
        return settings
    recorded = rundir.saved_config(logdir).get("engine", settings.engine)
    return experiment.with_value(settings, "engine", recorded)


def _record_engine(
    settings: experiment.Experiment, env: Environment
) -> experiment.Experiment:
    """The experiment with the engine that its environment has."""
    if env.engine is None:
        return settings
    experiment.require_engine(settings, env)
    return experiment.with_value(settings, "engine", env.engine)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path).expanduser()


def _read_demos(
    settings: experiment.Experiment,
    env: Environment,
    source: Path | None,
    demonstrations: Demonstrations | None,
    logdir: Path | None,
) -> tuple[Path | None, Demonstrations]:
    """The file of the demonstrations, if there is one, and what it holds."""
    if source is None and logdir is not None:
        kept = logdir / runs.DEMONSTRATIONS
        source = kept if kept.exists() else None
        if source is not None and (logdir / rundir.CONFIG).exists():
            runs.require_same_demos(kept, rundir.saved_config(logdir))
    if demonstrations is None:
        if source is None:
            raise UsageError(
                f"{settings.method} imitates, but demonstrations are missing: pass demos "
                "(--demos), a file that `planil collect` wrote, or one of your own."
            )
        demonstrations = demos.load(source, env.spec, settings.episodes)
    elif source is None and logdir is not None:
        raise UsageError(
            "demonstrations that a run keeps come from a file: save them, and pass its "
            "path as demos_path."
        )
    return source, demonstrations


def _nothing() -> None:
    """What is done before a run starts of which nothing is kept."""


def _begin(opened: rundir.Opened, source: Path | None, logdir: Path, digest: str) -> None:
    """Makes the directory, and keeps the demonstrations there for later."""
    kept = logdir / runs.DEMONSTRATIONS
    keeps = source is not None and source.resolve() != kept.resolve()
    of_a_run = any((logdir / name).exists() for name in (rundir.CONFIG, rundir.CHECKPOINTS))
    if keeps and kept.exists() and not of_a_run:
        raise UserError(
            f"{kept} is there and of no run: move it, or choose another logdir."
        )
    opened.begin()
    if source is None or not keeps:
        return
    data = source.read_bytes()
    if runs.digest_of(data) != digest:
        raise UserError(f"{source} changed while training was prepared: start again.")
    files.write(kept, data)
