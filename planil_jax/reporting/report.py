"""Writes report.html: what a run learned, to look at, in one file that needs no network.

    python -m experiments.report --run=runs/nav

Shows learning curves and, of tasks on the plane, a drive with the plans that were weighed
at every step, the learned value and reward as maps, and from where far away it arrives.
What `experiments.evaluate` found is shown where it was run before. `#frame=40` after the
address of the page opens the drive at step 40.
"""

import datetime
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from planil_jax import config, experiment, runs
from planil_jax.base import UsageError
from planil_jax.data import demos
from planil_jax.evaluation import statistics
from planil_jax.reporting import figures, page, views, world_model_rollouts
from planil_jax.training import report as training_report

FLAGS = flags.FLAGS

REPORT_FILE = "report.html"
CONFIG = "experiments/configs/default.py"
_SEEDS = 6  # shown on maps
_ROLLOUTS = 8  # of each seed, on maps
_FRAMES = 10  # of an episode, of a task of pictures
_FLAGS = ("method", "seed", "seeds", "sweep", "demonstrations")  # told by other flags


def define_flags() -> None:
    """Not on import: other binaries import this one."""
    flags.DEFINE_string("run", None, "The --logdir of a training.", required=True)
    flags.DEFINE_string("which", "last", "Checkpoint: last, best, or a step.")
    flags.DEFINE_integer("seed_index", 0, "Which of the run's seeds drives.", lower_bound=0)


def main() -> None:
    path = write(runs.load(FLAGS.run, FLAGS.which), FLAGS.seed_index)
    print(f"wrote {path}; open it in a browser")


def write(trained: runs.Run, seed_index: int = 0) -> Path:
    """Writes the report of a run into its directory.

    Args:
      seed_index: which of the run's seeds drives, from 0.

    Raises:
      UserError: there is no such seed, or the file cannot be written.
    """
    seeds = trained.experiment.seeds
    if seed_index >= seeds:
        raise UsageError(f"--seed_index={seed_index}: the run has seeds 0 to {seeds - 1}.")
    print(f"drawing the report of {trained.directory} …", flush=True)
    evaluation = _read_json(trained.directory / "evaluation.json")
    parts = [_header(trained), _headline(trained, evaluation), _curves(trained, evaluation)]
    dream = world_model_rollouts.of(trained)
    parts += [_dream(dream)] if dream else []
    if trained.env.spec.image:
        return _finish(trained, [*parts, _strips(trained)])
    paths = views.rollouts(trained, _ROLLOUTS)
    if views.is_planar(trained) and runs.shows(trained).value:
        parts += _plane(trained, evaluation, paths, seed_index)
    else:
        parts.append(_trajectories(trained, paths))
    if views.is_planar(trained) and _has_field(trained):
        parts.append(_fields(trained, evaluation, views.scene(trained)))
    return _finish(trained, parts)


def _finish(trained: runs.Run, parts: list[str]) -> Path:
    path = trained.directory / REPORT_FILE
    page.save(path, page.assemble(_title(trained), [*parts, _configuration(trained)]))
    return path


# -------------------------------------------------------------------------------- sections


def _title(trained: runs.Run) -> str:
    return f"{trained.experiment.method.upper()} on {trained.experiment.environment}"


def _header(trained: runs.Run) -> str:
    settings, versions = trained.experiment, _read_json(trained.directory / "versions.json")
    last = settings.seed + settings.seeds - 1
    seeds = f"seed {last}" if settings.seeds == 1 else f"seeds {settings.seed}–{last}"
    steps = f"{trained.step:,} environment steps each".replace(",", " ")
    held = "observations only" if trained.demos.actions is None else "with actions"
    facts = [
        seeds,
        steps,
        f"{trained.demos.obs.shape[0]} demonstrations, {held}",
        _date(trained.directory),
        f"device {versions.get('device', 'unknown')}",
        f"planil_jax {versions.get('planil_jax', '?')}, jax {versions.get('jax', '?')}",
    ]
    if versions.get("commit"):
        changed = " and changes" if versions["commit"].endswith("+") else ""
        facts.append(f"commit {versions['commit'][:10]}{changed}")
    return page.header(_title(trained), facts, command(trained))


def command(trained: runs.Run) -> str:
    """The command line that trains this run once more."""
    settings = trained.experiment
    changes = [
        f"--config.{name}={shlex.quote(value)}"
        for name, value, changed in _leaves(settings)
        if changed and name not in _FLAGS
    ]
    words = [
        f"python -m experiments.train --config={CONFIG}:{settings.method}",
        f"--demos={shlex.quote(str(trained.directory / runs.DEMONSTRATIONS))}",
        f"--seed={settings.seed} --seeds={settings.seeds}",
        "--logdir=runs/again",
        *(f"--sweep={line}" for line in settings.sweep),
        *changes,
    ]
    return " \\\n    ".join(words)


def _headline(trained: runs.Run, evaluation: dict[str, Any]) -> str:
    if not evaluation:
        return page.text(
            f"This run has not been evaluated yet; `{_evaluation_command(trained)}` "
            "compares it with its expert, and then this report shows how it did."
        )
    stale = ""
    if evaluation["step"] != trained.step:
        stale = page.text(
            f"These numbers are of step {evaluation['step']}; what follows is of step "
            f"{trained.step}."
        )
    return page.tiles(_numbers(evaluation)) + stale


def _numbers(evaluation: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The tiles of an evaluation."""
    inside, numbers = evaluation["in_distribution"], []
    if inside.get("expert_return", 0.0) > 0:
        share = statistics.Summary(*(100 * v for v in inside["share_of_expert"].values()))
        each = ", ".join(f"{100 * value:.0f}" for value in inside["shares"])
        spread = f"IQM, 95% interval {share.low:.0f}–{share.high:.0f}%"
        more = f"{spread}; mean of each seed: {each}"
        numbers.append((f"{share.mean:.0f}%", "of the expert's return", more))
    else:
        mean = statistics.Summary(**inside["return"])
        more = f"IQM, 95% interval {mean.low:.1f} to {mean.high:.1f}"
        numbers.append((f"{mean.mean:.1f}", "return", more))
    for field in evaluation["fields"]:
        each = ", ".join(f"{100 * value:.0f}" for value in field["successes"])
        more = f"from {field['starts']} starts; each seed: {each}"
        what = f"arrive from a {field['side_m']:g} m field"
        numbers.append((f"{100 * field['mean_success']:.0f}%", what, more))
    if "cross_track_m" in inside:
        error = inside["cross_track_m"]
        more = f"mean over all episodes; {error['largest']:.2f} m at most"
        numbers.append((f"{error['mean']:.2f} m", "off the nearest demonstration", more))
    return numbers


def _curves(trained: runs.Run, evaluation: dict[str, Any]) -> str:
    metrics = training_report.read_metrics(trained.directory)
    if not metrics:
        return page.section("Learning", page.text("This run has told no metrics yet."))
    expert = _expert_return(trained, evaluation)
    drawn = figures.learning_curves(metrics, trained.experiment.seed, expert)
    caption = (
        "One line a seed, against environment steps. The return should rise to the "
        "expert's; the discriminator's accuracy should fall towards 0.5 as the learner's "
        "steps become like the expert's, and its two logits should meet."
    )
    return page.section(
        "Learning", page.figure(drawn, caption, "Learning curves of every metric")
    )


def _plane(
    trained: runs.Run, evaluation: dict[str, Any], paths: np.ndarray, seed_index: int
) -> list[str]:
    """The sections of a task on the plane."""
    scene, first = views.scene(trained), trained.experiment.seed
    learned, driven = views.landscape(trained, scene), views.drive(trained, seed_index)
    underlay = page.picture(figures.underlay(learned, seed_index))
    animation = views.animation(trained, scene, driven, underlay)
    still = figures.plans_still(scene, driven)
    still.savefig(trained.directory / "plans.png", dpi=90)
    drive = page.section(
        "A drive, and what was weighed",
        page.player(
            animation,
            f"Seed {first + seed_index} drives the first episode of evaluation. At every "
            "control step MPPI samples plans, rolls them through its model and weighs them "
            "by the learned reward along the way and the learned value at their end. Where "
            "few plans count it is sure. Space plays and pauses, the arrows step, f zooms "
            "out and in.",
        ),
        page.figure(
            still,
            "The same drive, standing still: the whole of it, and four of its steps from "
            "near. Plans that weigh more are darker; the black line is their weighted "
            "mean, of which one step is taken before it plans again.",
            "A drive with its sampled plans at four steps",
        ),
    )
    return [drive, _maps(scene, learned, paths, first)]


def _maps(
    scene: views.Scene, learned: views.Landscape, paths: np.ndarray, first: int
) -> str:
    shown = [values[:_SEEDS] for values in (learned.value, learned.reward)]
    driven = paths[:_SEEDS, ..., :2]
    value, reward = (
        figures.landscape(scene, learned.x, learned.y, values, driven, label, signed, first)
        for values, label, signed in zip(
            shown, ("value", "reward of a step"), (False, True), strict=True
        )
    )
    limited = f" The first {_SEEDS} seeds are shown." if len(paths) > _SEEDS else ""
    return page.section(
        "What was learned of the plane",
        page.figure(
            value,
            "The learned value, a negative cost-to-go, of being there and moving towards "
            f"the goal at {views.SPEED:g} m/s. Dark: the demonstrations; vermilion: the "
            "learner's episodes; green: the goal. A good map rises towards the goal from "
            f"everywhere, not from the demonstrations alone.{limited}",
            "Maps of the learned value with paths, one for each seed",
        ),
        page.figure(
            reward,
            "The learned reward, the discriminator's logit, of one such step. Blue is "
            "taken for the expert, orange for the learner, white is undecided.",
            "Maps of the learned reward with paths, one for each seed",
        ),
    )


def _fields(trained: runs.Run, evaluation: dict[str, Any], scene: views.Scene) -> str:
    drawn = []
    for field in evaluation.get("fields", []):
        side = field["side_m"]
        path = trained.directory / f"field_{side:g}.npz"
        if not path.exists():
            drawn.append(page.text(f"The paths of the {side:g} m field, {path}, are gone."))
            continue
        with np.load(path) as file:
            paths, reached = file["paths"][:_SEEDS], file["reached"][:_SEEDS]
        drawn.append(
            page.figure(
                figures.field(scene, paths, reached, side, trained.experiment.seed),
                f"Starts anywhere on {side:g} × {side:g} m, at any heading, at rest; a dot "
                "where the goal was reached in time, a cross where it was not, and the "
                "path from there. The dark lines are all that was ever demonstrated.",
                f"Paths from starts all over a {side:g} m field, one map for each seed",
            )
        )
    if not drawn:
        drawn = [
            page.text(
                "From where far away it arrives has not been measured; "
                f"`{_evaluation_command(trained)}` does."
            )
        ]
    return page.section("Out of distribution", *drawn)


def _trajectories(trained: runs.Run, paths: np.ndarray) -> str:
    spec = trained.env.spec
    drawn = figures.trajectories(
        spec.observation_names,
        paths,
        views.demonstrated(trained),
        spec.control_period,
        trained.experiment.seed,
    )
    return page.section(
        "The learner beside its demonstrations",
        page.figure(
            drawn,
            "What is observed over time: the demonstrations dashed, and "
            f"{paths.shape[1]} evaluation episodes of each seed. An imitator should keep "
            "to the band of the demonstrations, or come to it from other starts.",
            "Observations over time of learner and demonstrations",
        ),
    )


def _dream(dream: world_model_rollouts.Dream) -> str:
    lines = {
        "seen": dream.seen,
        "reconstructed": dream.reconstructed,
        "open loop": dream.open_loop,
        "imagined": dream.imagined,
    }
    if dream.names:
        drawn = figures.dream(dream.names, lines, dream.period)
    else:
        when = np.linspace(0, len(dream.seen) - 1, _FRAMES).astype(int)
        rows = {name: frames[when] for name, frames in lines.items()}
        drawn = figures.dreamt_frames(rows, when * dream.period)
    return page.section(
        "What the world model makes of an episode",
        page.figure(
            drawn,
            "The first episode of evaluation of the first seed. Reconstructed: decoded "
            "from beliefs that saw all up to there. Open loop: from beliefs that saw the "
            f"first {world_model_rollouts.SEEN} steps and after that the actions alone. Imagined: under "
            "the actions that the policy takes in its imagination. A good model's open "
            "loop stays with what was seen for as long as it plans ahead.",
            "What was seen, reconstructed, foreseen and imagined, over time",
        ),
    )


def _strips(trained: runs.Run) -> str:
    return page.section(
        "The learner beside its demonstrations",
        page.figure(
            figures.strips(*views.strips(trained, _FRAMES), trained.experiment.seed),
            "What is seen over an episode: a demonstration above, and below it the first "
            "episode of evaluation of each seed, from a start of its own.",
            "Frames over time of a demonstration and of each seed",
        ),
    )


def _configuration(trained: runs.Run) -> str:
    versions = _read_json(trained.directory / "versions.json")
    made_with = [(name, str(value), False) for name, value in versions.items()]
    return page.section(
        "How it was made",
        page.table(
            "Configuration; what differs from the defaults stands out",
            _leaves(trained.experiment),
        ),
        page.table("Versions", made_with),
    )


# --------------------------------------------------------------------------------- helpers


def _leaves(settings: experiment.Experiment) -> list[tuple[str, str, bool]]:
    """Each field of a configuration, its value, and whether that is not the default."""
    default = experiment.for_method(settings.method)
    usual = dict(config.leaves(json.loads(config.to_json(default))))
    return [
        (
            name,
            str(tuple(value)) if isinstance(value, list) else str(value),
            value != usual.get(name),
        )
        for name, value in config.leaves(json.loads(config.to_json(settings)))
    ]


def _expert_return(
    trained: runs.Run, evaluation: dict[str, Any]
) -> tuple[str, float] | None:
    """What to compare with, and its return: the expert from the same starts, at best."""
    if "expert_return" in evaluation.get("in_distribution", {}):
        return "expert", evaluation["in_distribution"]["expert_return"]
    if not experiment.needs(trained.experiment).demonstrations:
        return None
    returns = demos.read(trained.directory / runs.DEMONSTRATIONS)[1].returns
    return ("demonstrations", float(np.mean(returns))) if returns else None


def _has_field(trained: runs.Run) -> bool:
    """Whether the environment can start anywhere on a field."""
    try:
        experiment.make_field(trained.experiment.environment, 40.0, 1)
    except UsageError:
        return False
    return True


def _evaluation_command(trained: runs.Run) -> str:
    field = " --field=40" if _has_field(trained) else ""
    return f"python -m experiments.evaluate --run={trained.directory}{field}"


def _date(directory: Path) -> str:
    """When the run last told something."""
    path = directory / training_report.METRICS_FILE
    seconds = (path if path.exists() else directory).stat().st_mtime
    return f"{datetime.datetime.fromtimestamp(seconds):%-d %B %Y, %H:%M}"


def _read_json(path: Path) -> dict[str, Any]:
    """{} where there is no such file."""
    return json.loads(path.read_text()) if path.exists() else {}
