"""Compares methods on tasks: trains and evaluates every one, in one directory.

    python -m experiments.compare --config=experiments/configs/compare_navigation.py \\
        --logdir=runs/compare

A task is a file of experiments/configs, which says how each method is set there, and may
know variants of a method by names of their own. Settings may follow a method's name,
"gaifo:agent.learning_rate=1e-3,loop.num_envs=1", so that a comparison can be of settings. All
methods of a task see the same demonstrations and are evaluated from the same starts as the
expert. An interrupted comparison continues where it was. Writes comparison.json, the table
comparison.md, and pictures beside them.
"""

import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import config_flags

from planil_jax import config, experiment, launch, runs
from planil_jax.base import UsageError
from planil_jax.evaluation import collect, evaluate, statistics
from planil_jax.reporting import figures, views

FLAGS = flags.FLAGS

ENOUGH = 0.95  # of the expert's return


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    tasks: tuple[str, ...] = ("navigation",)  # files of experiments/configs
    methods: tuple[str, ...] = ("mpail", "gaifo", "gail", "bc")
    seed: int = 0  # the first
    seeds: int = 5
    demonstrations: int = 4  # of the scripted expert, unless --demos says which
    demonstrations_seed: int = 1
    demonstrate: str = ""  # environment of the demonstrations; empty: the task's own
    observed: tuple[int, ...] = ()  # of the observation, in demonstrations; empty: all
    actions: bool = True  # whether demonstrations hold actions
    deploy: str = ""  # environment to be evaluated in; empty: the task's own
    expert: bool = True  # whether the scripted expert is evaluated as well
    episodes: int = 64  # of each seed's last evaluation
    field: float = 0.0  # side of the field of starts, metres; 0: none
    starts: int = 128  # on the field


def define_flags() -> None:
    """Not on import: other binaries import this one."""
    config_flags.DEFINE_config_file("config")
    flags.DEFINE_string("logdir", None, "Directory of all the runs.", required=True)
    flags.DEFINE_string("demos", None, "Demonstrations, .npz, of the one task.")
    flags.DEFINE_string("out", "", "Also write comparison.json here.")


def main() -> None:
    plan = config.from_config_dict(FLAGS.config, Comparison())
    if FLAGS.demos and len(plan.tasks) > 1:
        raise UsageError("--demos is of one task; this comparison has several.")
    logdir = Path(FLAGS.logdir)
    found = {task: compare(plan, task, logdir / task, FLAGS.demos) for task in plan.tasks}
    kept = {
        "command": " ".join(["python -m experiments.compare", *sys.argv[1:]]),
        "comparison": json.loads(config.to_json(plan)),
        "tasks": found,
    }
    text = "\n\n".join(table(task, plan, rows) for task, rows in found.items())
    (logdir / "comparison.md").write_text(text + "\n")
    for path in [str(logdir / "comparison.json"), FLAGS.out]:
        if path:
            Path(path).write_text(compact(kept) + "\n")
    print(text)
    print(f"wrote {logdir}/comparison.json, comparison.md and pictures")


def compare(
    plan: Comparison, task: str, directory: Path, demos_path: str | None
) -> dict[str, Any]:
    """All methods on a task: what each reached, by method."""
    source = Path(demos_path) if demos_path else directory / runs.DEMONSTRATIONS
    settings = {method: _settings(plan, task, method) for method in plan.methods}
    environment = settings[plan.methods[0]].environment
    if not source.exists():
        directory.mkdir(parents=True, exist_ok=True)
        collect.collect(
            plan.demonstrate or environment,
            str(source),
            plan.demonstrations,
            plan.demonstrations_seed,
            plan.actions,
            observed=plan.observed,
        )
    found, trained = {}, {}
    for method, experiment_ in settings.items():
        print(f"--- {task}: {method}", flush=True)
        logdir = directory / method
        launch.launch(experiment_, demos_path=source, logdir=logdir, resume=True)
        trained[method] = runs.load(logdir)
        found[method] = _evaluated(plan, trained[method])
    _draw(plan, directory, trained, found)
    return found


def _settings(plan: Comparison, task: str, method: str) -> experiment.Experiment:
    try:
        module = importlib.import_module(f"experiments.configs.{task}")
    except ModuleNotFoundError:
        raise UsageError(f"there is no task experiments/configs/{task}.py.") from None
    name, _, text = method.partition(":")
    settings = experiment.override(
        experiment.from_config_dict(module.get_config(name)), text
    )
    return dataclasses.replace(settings, seed=plan.seed, seeds=plan.seeds)


def _evaluated(plan: Comparison, trained: runs.Run) -> dict[str, Any]:
    """What a run reached; evaluated once, and read after that."""
    path = trained.directory / "reached.json"
    if path.exists():
        held = json.loads(path.read_text())
        if held["step"] == trained.step and held["plan"] == config.to_json(plan):
            return held
    fields = [plan.field] if plan.field else []
    deployed = evaluate.in_env(trained, plan.deploy) if plan.deploy else trained
    found = evaluate.evaluate(deployed, plan.episodes, fields, plan.starts, plan.expert)
    held = {
        "plan": config.to_json(plan),
        "step": trained.step,
        "num_envs": trained.experiment.loop.num_envs,
        "evaluation": found,
    } | runs.record(trained)
    if experiment.needs(trained.experiment).interacts and plan.expert:
        settings = trained.experiment
        expert = evaluate.returns_of_expert(
            settings.environment, settings.run.evaluation_episodes
        ).mean()
        held["expert_return_while_training"] = float(expert)
        held["interactions"] = interactions(
            np.array(held["steps"]), np.array(held["returns"]), expert
        )
    path.write_text(json.dumps(held) + "\n")
    return held


def interactions(steps: np.ndarray, returns: np.ndarray, expert: float) -> list[int | None]:
    """Environment steps after which each seed first had 95% of the expert's return.

    Args:
      steps: `[P]`; returns: `[P, S]`, of evaluations on the way.

    Returns:
      One a seed; None: it never had.
    """
    enough = statistics.share(returns, expert) >= ENOUGH
    return [int(steps[np.argmax(column)]) if column.any() else None for column in enough.T]


def table(task: str, plan: Comparison, found: dict[str, Any]) -> str:
    """What every method reached, as Markdown."""
    first = next(iter(found.values()))["evaluation"]["in_distribution"]
    expert = f"; expert {first['expert_return']:.1f}" if "expert_return" in first else ""
    lines = [
        f"**{task}**, {plan.seeds} seeds, last checkpoint; "
        f"interquartile mean [95%]{expert}",
        "",
        "| method | return | share of the expert | steps to 95%: each seed | arrive from "
        "the field: mean, worst seed | off the demonstrations: mean, largest [m] | speed "
        "[m/s] | steps | seconds, all seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method, held in found.items():
        inside = held["evaluation"]["in_distribution"]
        share = inside.get("share_of_expert")
        reached = held.get("interactions")
        arrived = "–"
        if held["evaluation"]["fields"]:
            each = held["evaluation"]["fields"][0]["successes"]
            arrived = f"{100 * np.mean(each):.1f}%, {100 * min(each):.1f}%"
        error, speeds = inside.get("cross_track_m"), inside.get("speed_m_per_s")
        interacts = _interacts(held)
        counts = "–" if interacts else "none needed"
        if reached:
            counts = ", ".join("never" if n is None else str(n) for n in reached)
        cells = [
            method,
            str(statistics.Summary(**inside["return"])),
            str(statistics.Summary(**share)) if share else "–",
            counts,
            arrived,
            f"{error['mean']:.2f}, {error['largest']:.2f}" if error else "–",
            f"{np.mean(speeds):.2f}" if speeds else "–",
            str(held["step"]) if interacts else "0",
            f"{held['seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _interacts(held: dict[str, Any]) -> bool:
    """Whether the method of a run that is written down learns from what it does."""
    return experiment.needs(experiment.from_config_dict(held["config"])).interacts


def compact(record: Any) -> str:
    """A record as JSON, numbers to five digits and lists of numbers on one line."""
    text = json.dumps(_rounded(record), indent=1)
    return re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), text)


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return float(f"{value:.5g}")
        case list():
            return [_rounded(item) for item in value]
        case dict():
            return {k: _rounded(item) for k, item in value.items() if k != "plan"}
    return value


def _draw(
    plan: Comparison,
    directory: Path,
    trained: dict[str, runs.Run],
    found: dict[str, Any],
) -> None:
    curves = {
        method: (np.array(held["steps"]), np.array(held["returns"]))
        for method, held in found.items()
        if _interacts(held)
    }
    flat = {
        method: float(np.mean(held["evaluation"]["in_distribution"]["returns"]))
        for method, held in found.items()
        if not _interacts(held)
    }
    expert = next(
        (
            held["expert_return_while_training"]
            for held in found.values()
            if "interactions" in held
        ),
        None,
    )
    drawn = figures.comparison(curves, flat, expert)
    drawn.savefig(directory / "returns.png", dpi=110)
    if not plan.field:
        return
    paths, reached = [], []
    for each in trained.values():
        with np.load(each.directory / f"field_{plan.field:g}.npz") as file:
            paths.append(file["paths"][0])
            reached.append(file["reached"][0])
    scene = views.scene(next(iter(trained.values())))
    drawn = figures.field(
        scene, np.array(paths), np.array(reached), plan.field, titles=list(trained)
    )
    drawn.savefig(directory / "field.png", dpi=80)
