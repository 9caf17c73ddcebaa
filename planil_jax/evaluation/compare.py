"""Compares methods on a task: trains and evaluates every one of them.

All methods get the same demonstrations, and are evaluated from the same starts as the
expert. An interrupted comparison continues where it was.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from planil_jax import config, envs, experiment, launch, runs, sweep
from planil_jax.base import UsageError
from planil_jax.evaluation import collect, evaluate, learning, results, statistics
from planil_jax.training import files

ENOUGH = 0.95  # share of the expert's return that counts as having learned the task
RESULT = "result.json"  # in the directory of each run
_FORM = {"step": int, "plan": str}  # of what decides whether it is of today


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Tasks, methods, and how they are evaluated."""

    # Environments that have recipes, "navigation", or config files, "mine/task.py".
    tasks: tuple[str, ...] = ("navigation",)
    # Methods; each may be a variant, "mpail2/small", and change settings:
    # "bc:agent.batch=64".
    methods: tuple[str, ...] = ("mpail", "gaifo", "gail", "bc")
    seed: config.Seed = 0  # the first seed
    seeds: config.Count = 5  # seeds of every method, trained side by side
    demonstrations: config.Count = 4  # episodes of the scripted expert, without --demos
    demonstrations_seed: config.Seed = 1  # seed of the scripted expert
    demonstrate: str | None = None  # environment of the demonstrations; None: the task's
    # observation entries in demonstrations; empty: all
    observed: tuple[config.Natural, ...] = ()
    actions: bool = True  # whether demonstrations hold actions
    deploy: str | None = None  # environment of the evaluation; None: the task's
    expert: bool = True  # whether the scripted expert is evaluated as well
    # run whose first seed demonstrated, or an expert's file, .npz, evaluated from the same
    # starts; None: the script
    demonstrator: str | None = None
    tuned: learning.Tuning = learning.Tuning()  # before this comparison, of every method
    absent: tuple[str, ...] = ()  # why a value of the results is not there: "bc:WHY"
    episodes: config.Count = 64  # episodes of each seed's last evaluation
    # side of a field of starts, metres; None: no field
    field: config.Positive | None = None
    starts: config.Count = 128  # starts on the field


def names(tasks: Sequence[str]) -> dict[str, str]:
    """What each task is called in the results: a config file by its stem.

    Raises:
      UsageError: two tasks have one name, and would share a directory.
    """
    found = {task: Path(task).stem if task.endswith(".py") else task for task in tasks}
    for task, name in found.items():
        if list(found.values()).count(name) > 1:
            raise UsageError(
                f"two tasks are called {name}, {task} and another: compare them apart."
            )
    return found


def settings(
    plan: Comparison,
    task: str,
    settings_of: Callable[[str, str], experiment.Experiment],
) -> dict[str, experiment.Experiment]:
    """The experiment of every method of a plan on a task, by the name that the plan has.

    Args:
      settings_of: (task, method) -> its experiment, before the plan changes it.

    Raises:
      UsageError: settings that follow a method's name are wrong; or as `settings_of` does.
    """
    chosen = {}
    for written in plan.methods:
        method, _, changes = written.partition(":")
        changed = experiment.override(settings_of(task, method), changes)
        chosen[written] = dataclasses.replace(changed, seed=plan.seed, seeds=plan.seeds)
    return chosen


def compare(
    plan: Comparison,
    task: str,
    settings: Mapping[str, experiment.Experiment],
    directory: Path,
    demos_path: str | Path | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Trains and evaluates every method on a task, and returns its result by method.

    Args:
      task: its name, for progress.
      settings: the experiment of each method, on the same environment.
      directory: of all the runs, one for each method.
      demos_path: a file of demonstrations; None: the scripted expert records them.
      say: receives lines of progress.

    Raises:
      UsageError: a method's settings are wrong, or it is not for its environment; nothing
        is recorded then.
    """
    results.absent(plan.absent)
    for method_settings in settings.values():
        config.check(method_settings)
        sweep.settings(method_settings)
        experiment.require_env(method_settings, envs.make(method_settings.environment))
    source = Path(demos_path) if demos_path else directory / runs.DEMONSTRATIONS
    if not demos_path and not source.exists():
        directory.mkdir(parents=True, exist_ok=True)
        environment = next(iter(settings.values())).environment
        say(f"{task}: recording {plan.demonstrations} demonstrations …")
        collect.collect(
            plan.demonstrate or environment,
            str(source),
            plan.demonstrations,
            plan.demonstrations_seed,
            plan.actions,
            observed=plan.observed,
        )
    references = functools.cache(functools.partial(_references, plan))
    found = {}
    for method, method_settings in settings.items():
        say(f"--- {task}: {method}")
        logdir = directory / method
        launch.launch(method_settings, demos_path=source, logdir=logdir, resume=True)
        trained = runs.load(logdir, trust_imports=True)
        found[method] = _result(plan, trained, references, say)
    return found


def _result(
    plan: Comparison,
    trained: runs.Run,
    references: Callable[[str, bool], dict[str, Any]],
    say: Callable[[str], object],
) -> dict[str, Any]:
    """The result of a run: evaluated once, and read from its file after that."""
    path = trained.directory / RESULT
    if path.exists():
        try:
            found = files.read(path, _FORM, "it is evaluated again", sealed=True)
        except files.DamagedError as error:
            say(str(error))
            found = dict.fromkeys(_FORM)
        if found["step"] == trained.step and found["plan"] == config.to_json(plan):
            return found
    say(f"evaluating {trained.directory} at step {trained.step} …")
    fields = [plan.field] if plan.field else []
    deployed = evaluate.in_env(trained, plan.deploy) if plan.deploy else trained
    evaluation = evaluate.evaluate(
        deployed, plan.episodes, fields, plan.starts, plan.expert
    )
    result: dict[str, Any] = {
        "plan": config.to_json(plan),
        "step": trained.step,
        "num_envs": trained.experiment.loop.num_envs,
        "evaluation": evaluation,
    } | runs.provenance(trained)
    environment = deployed.experiment.environment
    scripted = learning.by_script(result["demonstrations"])
    result["references"] = references(environment, scripted)
    if experiment.needs(trained.experiment).interacts and plan.expert:
        settings = trained.experiment
        expert = evaluate.returns_of_expert(
            settings.environment, settings.run.evaluation_episodes
        ).mean()
        result["expert_return_while_training"] = float(expert)
        result["interactions"] = interactions(
            np.array(result["steps"]), np.array(result["returns"]), expert
        )
    files.write(path, files.seal(json.dumps(result)) + "\n")
    return result


def _references(plan: Comparison, environment: str, scripted: bool) -> dict[str, Any]:
    """Demonstrator and random actions, from the starts of the evaluation."""
    demonstrator = None
    if plan.demonstrator is not None:
        demonstrator = learning.load_demonstrator(plan.demonstrator)
    return learning.references(environment, plan.episodes, demonstrator, scripted=scripted)


def interactions(steps: np.ndarray, returns: np.ndarray, expert: float) -> list[int | None]:
    """Environment steps after which each seed first had 95% of the expert's return.

    Args:
      steps: `[P]`, of the evaluations during training.
      returns: `[P, S]`.

    Returns:
      A number for each seed; None: it never had.
    """
    enough = statistics.share(returns, expert) >= ENOUGH
    return [int(steps[np.argmax(column)]) if column.any() else None for column in enough.T]


def interacts(result: Mapping[str, Any]) -> bool:
    """Whether the method of a result learns from what it does in the environment."""
    return experiment.needs(experiment.from_config_dict(result["config"])).interacts


# ------------------------------------------------------------------------------------ text


def table(task: str, plan: Comparison, found: dict[str, Any]) -> str:
    """The results of all methods on a task, as Markdown."""
    first = next(iter(found.values()))["evaluation"]["in_distribution"]
    expert = f"; expert {first['expert_return']:.1f}" if "expert_return" in first else ""
    lines = [
        f"**{task}**, {plan.seeds} seeds, last checkpoint; "
        f"{statistics.title(plan.seeds)}{expert}",
        "",
        "| method | return | share of the expert | steps to 95%: each seed | arrive from "
        "the field: mean, worst seed | off the demonstrations: mean, largest [m] | speed "
        "[m/s] | steps | seconds, all seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_cells(*row))} |" for row in found.items()]
    return "\n".join(lines)


def _cells(method: str, result: dict[str, Any]) -> list[str]:
    """One row of the table."""
    inside = result["evaluation"]["in_distribution"]
    share, error = inside.get("share_of_expert"), inside.get("cross_track_m")
    speeds, counts = inside.get("speed_m_per_s"), result.get("interactions")
    arrived = "–"
    if result["evaluation"]["fields"]:
        successes = result["evaluation"]["fields"][0]["successes"]
        arrived = f"{100 * np.mean(successes):.1f}%, {100 * min(successes):.1f}%"
    steps_needed = "–" if interacts(result) else "none needed"
    if counts:
        steps_needed = ", ".join("never" if n is None else str(n) for n in counts)
    return [
        method,
        str(statistics.Summary(**inside["return"])),
        str(statistics.Summary(**share)) if share else "–",
        steps_needed,
        arrived,
        f"{error['mean']:.2f}, {error['largest']:.2f}" if error else "–",
        f"{np.mean(speeds):.2f}" if speeds else "–",
        str(result["step"]) if interacts(result) else "0",
        "–" if result["seconds"] is None else f"{result['seconds']:.0f}",
    ]


def save(
    directory: Path,
    plan: Comparison,
    found: dict[str, dict[str, Any]],
    command: str,
    also: str | Path | None = None,
) -> tuple[str, list[str]]:
    """Writes comparison.json and comparison.md.

    Args:
      found: results by task, then by method.
      command: that made them.
      also: a second file for the JSON.

    Returns:
      The tables, and a sentence about each file of results.
    """
    content = results.new(
        "learning",
        command,
        json.loads(config.to_json(plan)),
        runs=[
            _entry(plan, task, method, of_task)
            for task, of_task in found.items()
            for method in of_task
        ],
    )
    text = "\n\n".join(table(task, plan, of_task) for task, of_task in found.items())
    files.write(directory / "comparison.md", f"{text}\n")
    paths = [directory / "comparison.json", *([Path(also)] if also else [])]
    return text, [results.write(path, content) for path in paths]


def _returns(result: Mapping[str, Any]) -> list[list[float]]:
    """Of every seed and episode, `[S][B]`."""
    return result["evaluation"]["in_distribution"]["episode_returns"]


def _entry(
    plan: Comparison, task: str, method: str, found: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """A method's part of the results, with the cloning that learned from the same."""
    result, absent = found[method], results.absent(plan.absent)
    settings = result["config"]
    clones = [
        {"policy": name, "returns": _returns(other)}
        for name, other in found.items()
        if other["config"]["method"] == "bc"
        and other["demonstrations"] == result["demonstrations"]
        and other["config"]["environment"] == settings["environment"]
    ]
    others = dict(result["references"]) | {"bc": clones[0] if clones else None}
    if not plan.actions:
        absent = {"bc": learning.NO_ACTIONS} | absent
    row = learning.entry(task, method, result, others, plan.tuned, absent)
    if "interactions" in result:
        row["evaluation"]["interactions_to_95_percent"] = result["interactions"]
    return row
