"""What a user of the library calls; the commands are a skin over these functions.

demos = collect("navigation", episodes=4)
run = train("mpail", env="navigation", demos=demos, seeds=3, logdir="runs/nav")
print(run.evaluate(episodes=64))
run.report("nav.html")
action = run.policy()(observation)
run = load("runs/nav")
"""

import contextlib
import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from planil_jax import config, envs, experiment, launch, registry, runs
from planil_jax import sweep as sweeps
from planil_jax.agents import scripted
from planil_jax.base import Environment, UsageError
from planil_jax.compose import compose
from planil_jax.data import formats
from planil_jax.data.dataset import Demos
from planil_jax.deploy.policy import Policy
from planil_jax.evaluation import collect as collecting
from planil_jax.evaluation import evaluate as evaluating
from planil_jax.evaluation import saved_experts, statistics
from planil_jax.precision import require_float32
from planil_jax.training import files
from planil_jax.training import report as training_report

# Fields of the experiment that are arguments of `train`.
_ARGUMENT_OF = {
    "seed": "seed",
    "seeds": "seeds",
    "sweep": "sweep",
    "method": "method",
    "environment": "env",
    "demonstrations": "demos",
    "module": "method",
    "imports": "method",
}


class Run:
    """A trained run: its directory, to evaluate, to report and to act."""

    def __init__(self, trained: runs.Run):
        self._trained = trained

    @property
    def directory(self) -> Path:
        """Where it lies."""
        return self._trained.directory

    @property
    def settings(self) -> experiment.Experiment:
        """Its whole configuration; `settings.agent` is the method's."""
        return self._trained.experiment

    @property
    def env(self) -> Environment:
        """Its environment."""
        return self._trained.env

    @property
    def step(self) -> int:
        """Environment steps of each seed so far."""
        return self._trained.step

    @functools.cached_property
    def demos(self) -> Demos:
        """The demonstrations that it learned from.

        Raises:
          UsageError: its method learns without.
        """
        return Demos.load(self.directory / runs.DEMONSTRATIONS)

    def metrics(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Metrics by name: steps `[P]` and values `[P, S]` of the members."""
        return training_report.read_metrics(self.directory)

    def evaluate(
        self,
        episodes: int = 64,
        *,
        fields: Sequence[float] = (),
        starts: int = 128,
        expert: bool = True,
    ) -> "Evaluation":
        """Episodes of every seed from the same starts, and of the expert beside them.

        Writes evaluation.json into the run's directory.

        Args:
          episodes: of each seed.
          fields: sides of square fields of starts in metres, out of distribution.
          starts: episodes on each field.
          expert: whether the scripted expert drives from the same starts too.
        """
        config.checked(episodes, config.Count, "episodes")
        config.checked(starts, config.Count, "starts")
        fields = config.checked(fields, tuple[float, ...], "fields")
        found = evaluating.evaluate(
            self._trained, episodes, list(fields), starts, expert=expert
        )
        return Evaluation(found)

    def report(self, path: str | Path | None = None, *, seed_index: int = 0) -> "Page":
        """A page with curves, paths, maps and plans; it needs the extra `report`.

        Args:
          path: of the .html file; None: report.html in the run's directory.
          seed_index: the seed whose plans are drawn.
        """
        from planil_jax.reporting import report  # it needs matplotlib

        if path is not None:
            path = _path(path, "path", "nav.html")
            files.require_writable(path, "path")
        written = report.write(self._trained, seed_index)
        if path is None:
            return Page(written)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, written.read_bytes())
        return Page(path)

    def policy(self, seed: int | str = 0, *, sampling_seed: int = 0) -> Policy:
        """A member, ready to act on observations.

        Args:
          seed: index of the member; or "best", the one with the highest return in the last
            evaluation while training.
          sampling_seed: of what the agent samples when it acts.

        Raises:
          UsageError: there is no such member, or training was never evaluated.
        """
        if seed == "best":
            seed = self._best()
        if not isinstance(seed, int | np.integer) or isinstance(seed, bool):
            raise UsageError(f"seed is the index of a member or 'best', not {seed!r}.")
        if sentence := runs.stops_by_member(self._trained).get(int(seed)):
            files.warn(sentence)
        return Policy(self._trained, int(seed), sampling_seed)

    def save_expert(self, path: str | Path, *, seed: int = 0) -> None:
        """Writes a small file of a member alone, for `collect(expert=path)`.

        Args:
          path: the file, .npz.
          seed: index of the member.

        Raises:
          UsageError: the run's method imitates, or there is no such member.
        """
        saved_experts.save(self._trained, Path(path).expanduser(), seed)

    def _best(self) -> int:
        _, returns = self.metrics().get("eval/return", (None, np.zeros((0, 0))))
        if len(returns) == 0:
            raise UsageError(
                f"{self.directory} was never evaluated while it was trained, so that none "
                "of its seeds is known to be the best: give its index."
            )
        if np.isnan(returns[-1]).all():
            raise UsageError(
                f"the last evaluation of {self.directory} found no return that is finite, "
                "so that none of its seeds is known to be the best: give its index."
            )
        return int(np.nanargmax(returns[-1]))

    def __repr__(self) -> str:
        settings = self.settings
        return (
            f"Run({settings.method} on {settings.environment}, {settings.seeds} seeds, "
            f"step {self.step}, {self.directory})"
        )


class Evaluation(dict):
    """What an evaluation found, as evaluation.json holds it; printed, it is a table."""

    def __str__(self) -> str:
        return evaluating.table(self)

    __repr__ = __str__


class Page:
    """A report that was written; in a notebook it shows itself."""

    def __init__(self, path: Path):
        self.path = path

    def _repr_html_(self) -> str:
        from planil_jax.reporting import page

        return page.inline(self.path.read_text(encoding="utf-8"))

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Page({self.path})"


def train(
    method: Any = "mpail",
    env: str | Environment | None = None,
    *,
    demos: Demos | str | Path | None = None,
    seeds: int = 1,
    seed: int = 0,
    total_steps: int | None = None,
    logdir: str | Path | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    sweep: str | Sequence[str] = (),
    recipe: bool = True,
) -> Run:
    """Trains a method, all seeds in one compiled program, and returns the run.

    Args:
      method: a name of `methods()`, maybe with a variant that has a recipe in the
        environment, "mpail2/small"; or the settings of one: `mpail.Config(...)`.
      env: a name of `environments()`, maybe with options, or an Environment.
      demos: demonstrations, or their file; None where the method learns without.
      seeds: how many, trained side by side.
      seed: the first.
      total_steps: environment steps of each seed; None: as the recipe or the default says.
      logdir: directory of the run; None: a new one below runs/.
      resume: whether a run that is there continues, bit for bit as if it had not stopped.
      settings: other values by the paths of their fields: {"planner.horizon": 12,
        "loop.num_envs": 4}; other paths are fields of the method.
      sweep: numbers to try side by side, "agent.learning_rate=1e-4,1e-3".
      recipe: whether settings that were tuned for the method in this environment are the
        defaults, if there are any.

    Raises:
      UsageError: something does not fit; one sentence that names it and the mend.
      UserError: training cannot go on; earlier checkpoints are kept.
    """
    if env is None:
        raise UsageError(
            'say in which environment: train("mpail", env="navigation", ...); '
            "environments() lists the names."
        )
    name = env if isinstance(env, str) else envs.hold(env)
    if logdir is not None:
        logdir = _path(logdir, "logdir", "runs/nav")
    chosen, notes = compose(method, name, recipe)
    chosen = _with_settings(chosen, settings)
    sweep = (sweep,) if isinstance(sweep, str) else sweep
    arguments = {"seed": seed, "seeds": seeds, "sweep": sweep}
    for field, value in arguments.items():
        chosen = experiment.with_value(chosen, field, value)
    if total_steps is not None:
        config.checked(total_steps, config.Count, "total_steps")
        chosen = experiment.with_value(chosen, "run.total_steps", total_steps)
    directory = _directory(logdir, chosen)
    chosen = launch.with_engine(chosen, directory)
    environment = experiment.make_env(chosen)
    with _file_of(demos, environment) as path, _report(directory, chosen) as report:
        for note in notes:
            report.say(note)
        launch.launch(
            chosen,
            environment,
            path,
            logdir=directory,
            resume=resume,
            report=report,
        )
    return Run(runs.load(directory, trust_imports=True))


def load(
    directory: str | Path,
    *,
    which: str | int = "last",
    env: Environment | None = None,
    trust_imports: bool = False,
) -> Run:
    """A run that was trained before, by whomever.

    Args:
      which: the checkpoint: "last", "best" or a step.
      env: the environment of a run whose environment was an object.
      trust_imports: whether modules that the run names may be imported; they run code.

    Raises:
      UsageError: there is no run, or it needs an environment or trust.
    """
    require_float32()
    path = _path(directory, "directory", "runs/nav")
    return Run(runs.load(path, which, env=env, trust_imports=trust_imports))


def load_demos(
    source: str | Path,
    env: str | Environment | None = None,
    *,
    episodes: int | None = None,
    names: Mapping[str, str] | Sequence[str] = (),
    actions: Sequence[str] = (),
    time: str = "",
    time_unit: formats.TimeUnit = "s",
    period: float | None = None,
    split_by: str = "",
    rewards: str = "",
    terminal: str = "",
    max_gap: float | None = None,
    split_gaps: bool = False,
    every: int = 1,
    clip: bool = False,
    skip_empty: bool = False,
    drop_invalid: bool = False,
) -> Demos:
    """Demonstrations of a file or a directory, of this package or of others.

    Read are this package's own files; Minari, robomimic, LeRobot (v2, v3) and Hugging Face
    datasets, the last as `imitation` saves them; arrays in .npz or HDF5 as of D4RL and
    `imitation`; and logs in CSV or parquet. Nothing is ever unpickled. What was changed or
    left out is printed, and stands in the card's note.

    Args:
      source: the file or directory.
      env: what they are for: a name, maybe with options, or an Environment. Its names,
        bounds and control period are taken. None: none of these is known yet, and no row is
        resampled.
      episodes: how many of the first; None: all.
      names: which of their columns is which entry of an observation, {"px": "x [m]"}; some
        entries may be absent. Or arrays whose columns, one after another, are all entries
        in the environment's order, ("pos", "vel"). (): by equal names, or in order.
      actions: columns or arrays that are the action, in its order; (): as the layout says.
      time: column of a log with the time of each row; rows are resampled to the control
        period, observations linearly (angles by the shorter way), actions as means.
      time_unit: of `time`, where its name does not say it in brackets.
      period: seconds between rows that have no time.
      split_by: column of a log whose changes separate episodes.
      rewards: column of a log.
      terminal: column of a log; its last row says whether an episode ended for good.
      max_gap: seconds between rows, at most; None: twice the usual.
      split_gaps: whether longer gaps separate episodes; else they are refused.
      every: keeps every how manieth pair, each as an episode of one step.
      clip: whether actions beyond their bounds are clipped, rather than refused.
      skip_empty: whether episodes without transitions are left out, rather than refused.
      drop_invalid: whether episodes that do not fit are left out, rather than refused.

    Raises:
      UsageError: there is no such source, or it does not fit; one sentence that names the
        source, the episode and the mend.
      UserError: a library that reads such files is not installed.
    """
    chosen: Mapping[str, str] | tuple[str, ...]
    if isinstance(names, Mapping):
        chosen = names
    else:
        chosen = (names,) if isinstance(names, str) else tuple(names)
        config.checked(chosen, tuple[str, ...], "names")
    flags = {"split_gaps": split_gaps, "clip": clip, "skip_empty": skip_empty}
    for name, flag in (flags | {"drop_invalid": drop_invalid}).items():
        config.checked(flag, bool, name)
    for name, seconds in (("period", period), ("max_gap", max_gap)):
        if seconds is not None:
            config.checked(seconds, config.Positive, name)
    options = formats.Options(
        names=chosen,
        actions=(actions,) if isinstance(actions, str) else tuple(actions),
        time=time,
        time_unit=config.checked(time_unit, formats.TimeUnit, "time_unit"),
        period=period,
        split_by=split_by,
        rewards=rewards,
        terminal=terminal,
        max_gap=max_gap,
        split_gaps=split_gaps,
        every=config.checked(every, config.Count, "every"),
        clip=clip,
        skip_empty=skip_empty,
        drop_invalid=drop_invalid,
    )
    if episodes is not None:
        config.checked(episodes, config.Count, "episodes")
    path = _path(source, "source", "demos.npz")
    plain = env is None and episodes is None and options == formats.Options()
    if plain and path.suffix == ".npz" and (not path.exists() or formats.is_ours(path)):
        return Demos.load(path)
    spec = None
    if env is not None:
        spec = registry.make_env(env if isinstance(env, str) else envs.hold(env)).spec
    found, card, notes = formats.read(str(path), spec, episodes, options)
    report = training_report.Report()
    for note in notes:
        report.say(f"note: {note}")
    return Demos(tuple(found), card)


def collect(
    env: str | Environment | None = None,
    episodes: int = 4,
    *,
    seed: int = 1,
    actions: bool = False,
    out: str | Path | None = None,
    run: Run | None = None,
    expert: scripted.Config | str | Path | None = None,
) -> Demos:
    """Demonstrations of an environment's scripted expert, or of a trained run.

    The scripted expert is the environment's script, or MPPI on its `expert_cost`, or
    else on its reward.

    Args:
      env: a name, maybe with options, or an Environment; None: where `run` or the file
        `expert` was trained, or else navigation.
      episodes: how many.
      seed: of the starts and of the expert's sampling.
      actions: whether they hold actions; else observations only.
      out: a file that they are written to as well, .npz.
      run: whose first seed demonstrates; None: the scripted expert.
      expert: settings of the scripted planner, or a file of a trained expert, which
        `Run.save_expert` wrote; None: the settings chosen for the environment.

    Raises:
      UsageError: an argument is wrong; one sentence that names it.
      UserError: the expert is no better than random actions.
    """
    require_float32()
    config.checked(episodes, config.Count, "episodes")
    config.checked(seed, config.Seed, "seed")
    config.checked(run, Run | None, "run")
    trained = run._trained if run else None
    if isinstance(expert, str | Path):
        if run is not None:
            raise UsageError("run and expert each name who demonstrates: pass one of them.")
        trained, expert = saved_experts.load(Path(expert).expanduser()), None
    if expert is not None:
        config.checked(expert, scripted.Config, "expert")
        config.check(expert, "expert.")
    if out is not None:
        out = _path(out, "out", "demos.npz")
    name = env if isinstance(env, str | None) else envs.hold(env)
    with tempfile.TemporaryDirectory() as folder:
        args = str(out or Path(folder) / "demos.npz"), episodes, seed, actions
        report = training_report.Report()
        if trained is None:
            name = name or "navigation"
            collecting.collect(name, *args, settings=expert, report=report)
        else:
            collecting.from_run(trained, *args, name, report=report)
        return Demos.load(args[0])


def evaluate(run: Run | str | Path, episodes: int = 64, **options: Any) -> Evaluation:
    """As `Run.evaluate`, of a run or its directory."""
    return (run if isinstance(run, Run) else load(run)).evaluate(episodes, **options)


def compare(
    methods: Sequence[str],
    env: str | Environment,
    *,
    demos: Demos | str | Path | None = None,
    seeds: int = 3,
    seed: int = 0,
    episodes: int = 64,
    logdir: str | Path = "runs/compare",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> "Comparison":
    """Trains methods on the same demonstrations and evaluates them from the same starts.

    A comparison that was interrupted continues. `planil compare` does more: several tasks,
    transfer, demonstrations of its own, a record with provenance.

    Args:
      methods: names, maybe with a variant: "mpail2/small".
      env: as for `train`.
      demos: as for `train`; every method learns from them.
      seeds: of each method.
      seed: the first.
      episodes: of each seed in the evaluation.
      logdir: a directory for each method lies below it.
      settings: other values by method, as for `train`.

    Raises:
      UsageError: as for `train`, or `settings` names a method that is not compared.
    """
    config.checked(methods, tuple[str, ...], "methods")
    settings = _mapping(settings, '{"mpail": {"batch": 64}}')
    unknown = [name for name in settings if name not in methods]
    if unknown:
        raise UsageError(f"settings names {unknown[0]!r}, which is not among the methods.")
    logdir = _path(logdir, "logdir", "runs/compare")
    found = Comparison()
    name = env if isinstance(env, str) else envs.hold(env)
    for method in methods:  # a wrong one is refused before anything is trained
        _with_settings(compose(method, name)[0], settings.get(method))
    for method in methods:
        directory = logdir / method.replace("/", "_")
        run = train(
            method,
            env,
            demos=demos,
            seeds=seeds,
            seed=seed,
            logdir=directory,
            resume=directory.exists(),
            settings=settings.get(method),
        )
        found[method] = run.evaluate(episodes)
    return found


class Comparison(dict):
    """Evaluations by method; printed, it is a table."""

    def __str__(self) -> str:
        seeds = next((found["seeds"] for found in self.values()), 1)
        title = statistics.title(seeds)
        rows = [("method", f"return, {title}", f"share of the expert, {title}")]
        for method, found in self.items():
            inside = found["in_distribution"]
            cells = [inside.get(name) for name in ("return", "share_of_expert")]
            written = [str(statistics.Summary(**cell)) if cell else "-" for cell in cells]
            rows.append((method, written[0], written[1]))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    __repr__ = __str__


# -------------------------------------------------------------------------------- helpers


def _with_settings(
    chosen: experiment.Experiment, settings: Mapping[str, Any] | None
) -> experiment.Experiment:
    """The experiment with `settings` of `train`."""
    for field, value in _mapping(settings, '{"planner.horizon": 12}').items():
        if not isinstance(field, str):
            raise UsageError(
                f"settings names {field!r}: a field is named by its path, such as "
                '"planner.horizon".'
            )
        if field in _ARGUMENT_OF:
            argument = _ARGUMENT_OF[field]
            raise UsageError(
                f"settings names {field!r}: pass {argument}= to train instead."
            )
        chosen = experiment.with_value(chosen, field, value)
    return chosen


def _mapping(settings: Any, example: str) -> Mapping[str, Any]:
    if not isinstance(settings, Mapping | None):
        raise UsageError(f"settings must be a mapping such as {example}, not {settings!r}.")
    return settings or {}


def _path(path: Any, name: str, example: str) -> Path:
    if not isinstance(path, str | Path):
        raise UsageError(f"{name} must be a path, such as {example!r}, not {path!r}.")
    return Path(path).expanduser()


def _directory(logdir: Path | None, chosen: experiment.Experiment) -> Path:
    """The run's directory: `logdir`, or runs/<method>_<environment> with a number."""
    if logdir is not None:
        return logdir
    stem = f"{chosen.method}_{chosen.environment.partition(':')[0].replace('/', '_')}"
    folder, number = Path("runs") / stem, 2
    while folder.exists():
        folder, number = Path("runs") / f"{stem}_{number}", number + 1
    return folder


@contextlib.contextmanager
def _file_of(demos: Demos | str | Path | None, env: Environment) -> Iterator[Path | None]:
    """A file that holds the demonstrations."""
    if isinstance(demos, Demos):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "demos.npz"
            demos.completed(env.spec).save(path)
            yield path
    elif demos is None or isinstance(demos, str | Path):
        yield None if demos is None else Path(demos).expanduser()
    else:
        raise UsageError(
            f"demos must be Demos or a file, not {type(demos).__name__}: "
            "Demos.from_arrays(obs, ...) makes them of arrays."
        )


def _report(directory: Path, chosen: experiment.Experiment) -> training_report.Report:
    return training_report.Report(directory, sweeps.labels(chosen))
