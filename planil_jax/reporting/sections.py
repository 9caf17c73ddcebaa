"""The sections of a report that hold figures; each is HTML, or "" where there is nothing.

What a section shows follows from what the method can show, `runs.shows`, and from the task.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from planil_jax import experiment, runs, sweep
from planil_jax.data import demos
from planil_jax.evaluation import out_of_distribution
from planil_jax.reporting import commands, figures, page, views, world_model_rollouts
from planil_jax.training import files
from planil_jax.training import report as training_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SEEDS = 6  # the most seeds on maps
_ROLLOUTS = 8  # episodes of each seed
_FRAMES = 10  # frames of an episode, of a task of pictures
_INVALID = "train/invalid_steps"
_BESIDE = "The learner beside its demonstrations"


def curves(trained: runs.Run, evaluation: dict[str, Any]) -> str:
    """Learning curves."""
    metrics = training_report.read_metrics(trained.directory)
    if not np.nansum(metrics.get(_INVALID, ((), 0.0))[1]):
        metrics.pop(_INVALID, None)  # there were none
    if not metrics:
        there = "no metrics yet" if trained.step == 0 else "lost its metrics"
        if trained.step:
            files.warn(f"{trained.directory} has {there}: the report has no curves.")
        return page.section("Learning", page.text(f"This run has {there}."))
    last = max(steps[-1] for steps, _ in metrics.values())
    gap = ""
    if last < trained.step:
        lost = f"metrics end at step {last}, before the checkpoint of step {trained.step}"
        files.warn(f"{trained.directory / training_report.METRICS_FILE}: {lost}.")
        gap = page.text(f"The {lost}; later ones were lost.")
    expert = _expert_return(trained, evaluation)
    draw = functools.partial(figures.learning_curves, metrics, _members(trained), expert)
    of = "member of the sweep" if trained.experiment.sweep else "seed"
    caption = f"One line for each {of}, against environment steps."
    if expert and "eval/return" in metrics:
        caption += f" The return should rise to that of the {expert[0]}, the black line."
    if "discriminator/accuracy" in metrics:
        caption += (
            " The discriminator's accuracy should fall towards 0.5 as the learner's steps "
            "become like the expert's."
        )
    if "discriminator/expert_logit" in metrics:
        caption += " Its two logits should meet."
    return page.section(
        "Learning", gap, _figure(draw, caption, "Learning curves of every metric")
    )


def _expert_return(
    trained: runs.Run, evaluation: dict[str, Any]
) -> tuple[str, float] | None:
    """A return to compare with, and whose: the expert's from the same starts, at best."""
    if "expert_return" in evaluation.get("in_distribution", {}):
        return "expert", evaluation["in_distribution"]["expert_return"]
    if not experiment.needs(trained.experiment).demonstrations:
        return None
    returns = demos.read(trained.directory / runs.DEMONSTRATIONS)[1].known_returns
    return ("demonstrations", float(np.mean(returns))) if returns else None


# ------------------------------------------------------------------------------- episodes


def episodes(trained: runs.Run, seed_index: int) -> tuple[list[str], "Figure | None"]:
    """What the learner does: a drive with its plans, maps, or observations over time.

    Returns:
      The sections, and the still picture of the drive where there is one.
    """
    paths, shows = views.rollouts(trained, _ROLLOUTS), runs.shows(trained)
    if not (views.is_planar(trained) and (shows.value or shows.reward or shows.plans)):
        return [_trajectories(trained, paths)], None
    scene = views.scene(trained)
    landscape = views.landscape(trained, scene)
    maps = _maps(trained, scene, landscape, paths)
    if shows.plans is None:
        return [_trajectories(trained, paths), maps], None
    drive, still = _drive(trained, scene, landscape, seed_index)
    return [drive, maps], still


def _drive(
    trained: runs.Run, scene: views.Scene, landscape: views.Landscape, seed_index: int
) -> tuple[str, "Figure"]:
    driven, shows = views.drive(trained, seed_index), runs.shows(trained)
    seed, underlay = trained.experiment.seed + seed_index, None
    if landscape.value is not None:
        underlay = page.picture(figures.underlay(landscape.value[seed_index]))
    scores = [
        *(["the recovered reward along the way"] if shows.reward else []),
        *(["the learned value at their end"] if shows.value else []),
    ]
    weighed = f" and weighs them by {' and '.join(scores)}" if scores else ""
    draw = functools.partial(figures.plans_still, scene, driven)
    section = page.section(
        "An episode and its plans",
        page.player(
            views.animation(trained, scene, driven, underlay),
            f"The first evaluation episode of seed {seed}. "
            "At every control step the planner samples plans, predicts their paths with "
            f"its model{weighed}. Where the effective number of plans is small, the "
            "planner is sure. Space plays and pauses, the arrows step, f zooms out and in.",
        ),
        _figure(
            draw,
            "The same episode as a still: the whole path, and four of its steps from near. "
            "Plans of more weight are darker. The black line is their weighted mean; its "
            "first action is taken, and then the planner plans again.",
            "An episode with its sampled plans at four steps",
        ),
    )
    return section, draw()


def _maps(
    trained: runs.Run, scene: views.Scene, landscape: views.Landscape, paths: np.ndarray
) -> str:
    limited = f" The first {_SEEDS} seeds are shown." if len(paths) > _SEEDS else ""
    maps = []
    if landscape.value is not None:
        maps.append(
            _map(
                trained,
                scene,
                landscape,
                paths,
                "value",
                "The learned value at every point, when moving towards the goal at "
                f"{views.SPEED:g} m/s. Dark: the demonstrations; vermilion: the learner's "
                "episodes; green: the goal. A good map rises towards the goal from "
                f"everywhere, not from the demonstrations alone.{limited}",
            )
        )
    if landscape.reward is not None:
        maps.append(
            _map(
                trained,
                scene,
                landscape,
                paths,
                "reward",
                "The recovered reward of one such step. Blue is positive, orange is "
                f"negative, white is 0.{limited}",
            )
        )
    return page.section("Value and reward on the plane", *maps) if maps else ""


def _map(
    trained: runs.Run,
    scene: views.Scene,
    landscape: views.Landscape,
    paths: np.ndarray,
    quantity: str,
    caption: str,
) -> str:
    """The map of "value" or "reward"."""
    draw = functools.partial(
        figures.landscape,
        scene,
        landscape.x,
        landscape.y,
        getattr(landscape, quantity)[:_SEEDS],
        paths[:_SEEDS, ..., :2],
        "reward of a step" if quantity == "reward" else quantity,
        signed=quantity == "reward",
        members=_members(trained)[:_SEEDS],
    )
    alt = f"Maps of the {quantity} with paths, one for each seed"
    return _figure(draw, caption, alt)


def _trajectories(trained: runs.Run, paths: np.ndarray) -> str:
    spec = trained.env.spec
    draw = functools.partial(
        figures.trajectories,
        spec.observation_names,
        paths,
        views.demonstrations(trained),
        spec.control_period,
        _members(trained),
    )
    return page.section(
        _BESIDE,
        _figure(
            draw,
            "Observations over time: the demonstrations dashed, and "
            f"{paths.shape[1]} evaluation episodes of each seed. An imitator should stay "
            "within the band of the demonstrations, or reach it from other starts.",
            "Observations over time of learner and demonstrations",
        ),
    )


def frame_strips(trained: runs.Run) -> str:
    """Frames of a demonstration and of each seed, of a task of pictures."""
    frames, seconds = views.frame_strips(trained, _FRAMES)
    return page.section(
        _BESIDE,
        _figure(
            functools.partial(figures.frame_strips, frames, seconds, _members(trained)),
            "Frames over an episode: a demonstration above, and below it the first "
            "evaluation episode of each seed, from another start.",
            "Frames over time of a demonstration and of each seed",
        ),
    )


# ---------------------------------------------------------------------------- world model


def world_model(trained: runs.Run) -> str:
    """What a world model reconstructs, predicts and imagines."""
    rollouts = world_model_rollouts.of(trained)
    if rollouts is None:
        return ""
    lines = {
        "observed": rollouts.observed,
        "reconstruction": rollouts.reconstruction,
        "open loop": rollouts.open_loop,
        "imagination": rollouts.imagination,
    }
    draw: Callable[..., Figure]
    normalised = ""
    if rollouts.names:
        normalised = "Entries are normalised, as the model reads them. "
        draw = functools.partial(
            figures.world_model_lines,
            rollouts.names,
            lines,
            rollouts.period,
            world_model_rollouts.OBSERVED,
        )
    else:
        at = np.linspace(0, len(rollouts.observed) - 1, _FRAMES).astype(int)
        rows = {name: frames[at] for name, frames in lines.items()}
        draw = functools.partial(figures.world_model_frames, rows, at * rollouts.period)
    return page.section(
        "Rollouts of the world model",
        _figure(
            draw,
            "The first evaluation episode of the first seed. Reconstruction: decoded from "
            "beliefs that read all observations so far. Open loop: from beliefs that read "
            f"the first {world_model_rollouts.OBSERVED} observations, and after that the "
            "actions alone. Imagination: under the actions that the policy chooses in the "
            f"model. {normalised}The open loop of a good model stays with the observations "
            f"for as long as it plans ahead. {world_model_rollouts.verdict(rollouts)}",
            "Observations, reconstruction, open loop and imagination over time",
        ),
    )


# -------------------------------------------------------------------- out of distribution


def fields(trained: runs.Run, evaluation: dict[str, Any]) -> str:
    """Paths from starts all over the fields of the evaluation."""
    scene, drawn = views.scene(trained), []
    for field in evaluation.get("fields", []):
        side = field["side_m"]
        path = out_of_distribution.paths_file(trained.directory, side)
        stored = out_of_distribution.load_paths(trained.directory, side)
        if stored is None:
            drawn.append(page.text(f"The paths on the {side:g} m field, {path}, are lost."))
            continue
        paths, reached = stored.paths[:_SEEDS], stored.reached[:_SEEDS]
        members = _members(trained)[:_SEEDS]
        drawn.append(
            _figure(
                functools.partial(figures.field, scene, paths, reached, side, members),
                f"Starts anywhere on {side:g} × {side:g} m, at any heading, at rest. A dot "
                "means that the goal was reached in time, a cross that it was not. Lines "
                "are the paths; dark lines are all the demonstrations.",
                f"Paths from starts all over a {side:g} m field, one map for each seed",
            )
        )
    if not drawn:
        drawn = [
            page.text("Starts far from the demonstrations have not been evaluated yet:"),
            page.command(commands.evaluate(trained) or ""),
        ]
    return page.section("Out of distribution", *drawn)


# --------------------------------------------------------------------------------- helpers


def _figure(draw: "Callable[..., Figure]", caption: str, alt: str) -> str:
    """A figure as a wide page shows it, and as a phone does.

    Args:
      draw: of the argument `layout`.
    """
    wide, narrow = draw(layout=figures.WIDE), draw(layout=figures.NARROW)
    return page.figure(wide, caption, alt, narrow)


def _members(trained: runs.Run) -> list[str]:
    """The names of the lines of a figure: the seeds, with what a sweep tries."""
    return sweep.labels(trained.experiment)
