"""A run directory read back: configuration, environment, agent and acting parameters."""

import dataclasses
import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from planil_jax import envs, experiment, registry, sweep
from planil_jax.base import (
    Agent,
    Demonstrations,
    Environment,
    Params,
    Shows,
    UsageError,
    printable,
)
from planil_jax.data import demos
from planil_jax.training import checkpoint, files, report, run, rundir, seeds

DEMONSTRATIONS = "demonstrations.npz"


class Run(NamedTuple):
    """One run, ready to act."""

    directory: Path
    experiment: experiment.Experiment
    env: Environment
    # (environment, settings of a member) -> its agent, there
    make_agent: Callable[[Environment, run.Settings], Agent]
    demos: Demonstrations
    params: Params  # [S] acting parameters of each member
    settings: run.Settings  # [S] of what a sweep tries, by the paths of fields
    step: int  # environment steps of each seed when they were saved
    override: str = ""  # settings that are not those of its training
    stopped: tuple[checkpoint.Stopped, ...] = ()  # members that became not finite


def load(
    directory: str | Path,
    which: str | int = "last",
    override: str = "",
    env: Environment | None = None,
    trust_imports: bool = False,
) -> Run:
    """Reads a run. A damaged checkpoint is passed over, with a warning.

    Args:
      which: "last", "best" or the step of a checkpoint.
      override: settings that replace the saved ones, see `experiment.override`.
      env: its environment, where that was an object and not a name.
      trust_imports: whether modules that its configuration names may be imported; they run
        code.

    Raises:
      UsageError: there is no run in the directory, its configuration is damaged, its
        demonstrations are not those that it learned from, it needs an environment or trust
        that is not given, or `override` names no setting.
      UserError: there is no such checkpoint, or it holds parameters of other shapes.
    """
    directory = Path(directory)
    settings = experiment.override(load_experiment(directory, trust_imports), override)
    if env is not None:
        settings = dataclasses.replace(settings, environment=envs.hold(env))
    elif settings.environment.startswith(envs.OBJECT):
        if not envs.holds(settings.environment):
            raise UsageError(
                f"the environment of {directory} was an object, "
                f"{settings.environment.removeprefix(envs.OBJECT)}: give it again, "
                "load(directory, env=...)."
            )
    settings = dataclasses.replace(
        settings, environment=experiment.on_engine(settings.environment, settings.engine)
    )
    env = experiment.make_env(settings)
    experiment.require_engine(settings, env)
    demonstrations = demos.none(env.spec)
    if experiment.needs(settings).demonstrations:
        path = directory / DEMONSTRATIONS
        if path.exists():
            require_same_demos(path, rundir.saved_config(directory))
        demonstrations = demos.load(path, env.spec, settings.episodes)
    keys, values = run.members((settings.seed, settings.seeds), sweep.settings(settings))

    def make_agent(env: Environment, values: run.Settings) -> Agent:
        member = sweep.apply_overrides(settings, values)
        return experiment.make_agent(member, env, demonstrations)

    def params_of(key, values):
        return make_agent(env, values).init(key).params

    template = jax.eval_shape(jax.vmap(params_of), keys, values)
    restored = checkpoint.restore_params(
        directory / rundir.CHECKPOINTS,
        template,
        int(which) if str(which).isdigit() else which,
    )
    for notice in (*rundir.config_notices(directory), *restored.notices):
        files.warn(notice)
    return Run(
        directory=directory,
        experiment=settings,
        env=env,
        make_agent=make_agent,
        demos=demonstrations,
        params=restored.state,
        settings=values,
        step=restored.step,
        override=override,
        stopped=restored.stopped,
    )


def load_experiment(
    directory: str | Path, trust_imports: bool = False
) -> experiment.Experiment:
    """The configuration of a run.

    Raises:
      UsageError: there is no run in the directory, or it wants to import modules.
    """
    path = Path(directory) / "config.json"
    if not path.exists():
        raise UsageError(
            f"{directory} holds no run (no config.json); give the logdir of a training."
        )
    settings = rundir.saved_config(directory)
    try:
        _check_imports(Path(directory), experiment.modules(settings), trust_imports)
        return experiment.from_config_dict(settings)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _check_imports(directory: Path, modules: tuple[str, ...], trust: bool) -> None:
    """Refuses to run a stranger's code: by default any, and always what lies in the run."""
    if not modules:
        return
    names = " and ".join(f"'{printable(str(module))}'" for module in modules)
    if not trust:
        raise UsageError(
            f"{directory} wants to import {names}, which runs their code: allow it with "
            "trust_imports=True (--trust_imports) if you trust whoever made the run."
        )
    for module in modules:
        found = importlib.util.find_spec(str(module).partition(".")[0])
        folders = found and found.submodule_search_locations
        paths = [found and found.origin, *(folders or ())]
        below = [path for path in paths if path and _within(Path(path), directory)]
        if below:
            raise UsageError(
                f"{directory} wants to import {module!r} from {below[0]}, inside the run "
                "itself, which is never done: install the module elsewhere."
            )


def _within(path: Path, directory: Path) -> bool:
    """As the path is written, and as links lead."""
    written = Path(os.path.abspath(path)), Path(os.path.abspath(directory))
    return any(
        inner.is_relative_to(outer)
        for inner, outer in (written, (path.resolve(), directory.resolve()))
    )


def provenance(trained: Run) -> dict[str, Any]:
    """Where a result comes from: curves, seconds, demonstrations, configuration, versions.

    `steps` and `returns` are the curve of evaluations during training, empty where there
    were none. Seconds are None where metrics.jsonl does not tell them.
    """
    metrics = report.read_metrics(trained.directory)
    steps, returns = metrics.get("eval/return", (np.zeros(0), np.zeros(0)))
    seconds, processor_seconds = report.read_seconds(trained.directory)
    return {
        "steps": steps.tolist(),
        "returns": returns.tolist(),
        "curves": _curves(metrics),
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "demonstrations": demonstrations(trained),
        "config": json.loads((trained.directory / rundir.CONFIG).read_text()),
        "versions": rundir.saved_versions(trained.directory),
    }


def _curves(metrics: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Returns and rewards during training; losses, where there are neither."""
    chosen = [name for name in metrics if name in ("eval/return", "train/reward")]
    chosen = chosen or [name for name in metrics if name.endswith("/loss")]
    return {
        name: {"steps": metrics[name][0].tolist(), "values": metrics[name][1].tolist()}
        for name in chosen
    }


def demonstrations(trained: Run) -> dict[str, Any] | None:
    """What a run learned from; None: without demonstrations."""
    path = trained.directory / DEMONSTRATIONS
    if not (path.exists() and experiment.needs(trained.experiment).demonstrations):
        return None
    episodes, card = demos.read(path)
    count = trained.experiment.episodes or len(episodes)
    returns = [value for value in card.returns[:count] if value is not None]
    known = len(returns) == count
    return {
        "digest": digest(path),
        "episodes": count,
        "steps": sum(episode.length for episode in episodes[:count]),
        "mean_return": float(np.mean(returns)) if known else None,
        "expert": card.expert,
    }


def require_same_demos(path: Path, saved: Mapping[str, Any]) -> None:
    """Refuses demonstrations that are not those of the configuration of their run.

    Raises:
      UsageError: their fingerprint is another.
    """
    recorded = saved.get("demonstrations", "")
    if recorded and digest(path) != recorded:
        raise UsageError(
            f"{path} is not the file that this run learned from: its fingerprint is "
            f"{digest(path)}, and {rundir.CONFIG} says {recorded}; put that file back."
        )


def digest(path: str | Path) -> str:
    """A short fingerprint of a file."""
    return digest_of(Path(path).read_bytes())


def digest_of(data: bytes) -> str:
    """The fingerprint of a file with these bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def shows(trained: Run, values: run.Settings | None = None) -> Shows:
    """What a report can show of the agent of a run, or of a member of its sweep."""
    member = sweep.apply_overrides(trained.experiment, values or {})
    task = experiment.make_task(member, trained.env, trained.demos)
    return registry.method(member.method).shows(task, member.agent)


def stops(trained: Run) -> list[str]:
    """A sentence about each member that stopped in training."""
    return list(stops_by_member(trained).values())


def stops_by_member(trained: Run) -> dict[int, str]:
    """The same, by the index of the member."""
    labels = sweep.labels(trained.experiment)
    return {
        one.member: f"{labels[one.member]} became not finite at step {one.step} in "
        f"{one.part} and stopped; its parameters are those of step {one.kept}."
        for one in trained.stopped
    }


def over_seeds(function: Callable[..., Any], trained: Run) -> Any:
    """`function(params, settings)` of each member in turn, compiled once; `[S, …]`."""
    every = seeds.over(function, "map", None, mapped=2)
    return jax.device_get(jax.jit(every)(trained.params, trained.settings))
