"""The report of a run: one HTML page of what it learned, which needs no network.

Learning curves, the headline of its evaluation, what its method can show (plans, value,
reward, world model), and its configuration. What a method can show is asked of
`runs.shows`.
"""

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from planil_jax import config, experiment, runs
from planil_jax.base import UsageError
from planil_jax.evaluation import evaluate, out_of_distribution, statistics
from planil_jax.reporting import commands, page, pictures, sections, views
from planil_jax.training import files, rundir
from planil_jax.training import report as training_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT_FILE = "report.html"
PLANS_FILE = "plans.png"  # the still picture of a drive, beside the report
_EVALUATE = "planil_jax.load(directory, env=...).evaluate()"  # where no command can


class _Report(NamedTuple):
    html: str
    plans: "Figure | None"  # None: the method plans nothing on the plane


def render(trained: runs.Run, seed_index: int = 0) -> str:
    """The report of a run as HTML, for a notebook; nothing is written.

    Args:
      seed_index: which of the run's seeds drives, from 0.

    Raises:
      UsageError: there is no such seed.
    """
    return _compose(trained, seed_index).html


def write(trained: runs.Run, seed_index: int = 0) -> Path:
    """Writes the report of a run into its directory, and returns the path.

    Args:
      seed_index: which of the run's seeds drives, from 0.

    Raises:
      UserError: there is no such seed, or the file cannot be written.
    """
    path = trained.directory / REPORT_FILE
    files.require_writable(path, "the report")
    report = _compose(trained, seed_index)
    if report.plans:
        pictures.save(report.plans, trained.directory / PLANS_FILE, dpi=90)
    page.save(path, report.html)
    return path


def _compose(trained: runs.Run, seed_index: int) -> _Report:
    seeds = trained.experiment.seeds
    if not 0 <= seed_index < seeds:
        raise UsageError(
            f"seed_index={seed_index} (--seed_index): the run has seeds 0 to {seeds - 1}."
        )
    evaluation = evaluate.read(trained.directory)
    versions = rundir.saved_versions(trained.directory)
    parts = [
        _header(trained, versions),
        *map(page.text, runs.stops(trained)),
        _headline(trained, evaluation),
        sections.curves(trained, evaluation),
        sections.world_model(trained),
    ]
    still = None
    if trained.env.spec.image:
        parts.append(sections.frame_strips(trained))
    else:
        episode_sections, still = sections.episodes(trained, seed_index)
        parts += episode_sections
    if views.is_planar(trained) and _has_field(trained):
        parts.append(sections.fields(trained, evaluation))
    parts.append(_configuration(trained, versions))
    return _Report(page.assemble(_title(trained), filter(None, parts)), still)


# -------------------------------------------------------------------------------- sections


def _title(trained: runs.Run) -> str:
    return f"{trained.experiment.method.upper()} on {trained.experiment.environment}"


def _header(trained: runs.Run, versions: dict[str, Any]) -> str:
    settings = trained.experiment
    last = settings.seed + settings.seeds - 1
    seeds = f"seed {last}" if settings.seeds == 1 else f"seeds {settings.seed}–{last}"
    steps = f"{trained.step:,} environment steps each".replace(",", " ")
    content = "observations only" if trained.demos.actions is None else "with actions"
    demonstrations = f"{trained.demos.obs.shape[0]} demonstrations, {content}"
    if not experiment.needs(settings).demonstrations:
        demonstrations = "no demonstrations"
    facts = [
        seeds,
        steps,
        demonstrations,
        _date(trained.directory),
        f"device {versions.get('device', 'unknown')}",
        f"planil_jax {versions.get('planil_jax', '?')}, jax {versions.get('jax', '?')}",
    ]
    if versions.get("commit"):
        changed = " and changes" if versions["commit"].endswith("+") else ""
        facts.append(f"commit {versions['commit'][:10]}{changed}")
    return page.header(_title(trained), facts, commands.train(trained))


def _headline(trained: runs.Run, evaluation: dict[str, Any]) -> str:
    if not evaluation:
        return page.text(
            "This run has not been evaluated yet. Evaluate it, and the next report shows "
            "here how it compares with its expert:"
        ) + page.command(commands.evaluate(trained) or _EVALUATE)
    stale = ""
    if evaluation["step"] != trained.step:
        stale = page.text(
            f"These numbers are of step {evaluation['step']}; the rest of this page is of "
            f"step {trained.step}."
        )
    return page.tiles(_tiles(evaluation)) + stale


def _tiles(evaluation: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The numbers of an evaluation: (number, name, details)."""
    inside, tiles = evaluation["in_distribution"], []
    members = len(evaluation["members"])
    over = f", mean of {members} members" if members > evaluation["seeds"] else ""
    has_shares = {"share_of_expert", "shares"} <= inside.keys()
    if has_shares and inside.get("expert_return", 0.0) > 0:
        shares = _summary(inside["share_of_expert"])
        share = statistics.Summary(*(100 * value for value in shares))
        more = f"mean of each seed: {_percentages(inside['shares'])}"
        if share.low < share.high:
            more = f"95% interval {share.low:.0f}–{share.high:.0f}%; {more}"
        tiles.append((f"{share.mean:.0f}%", f"of the expert's return{over}", more))
    else:
        mean = _summary(inside["return"])
        known = mean.low < mean.high
        more = f"95% interval {mean.low:.1f} to {mean.high:.1f}" if known else "one seed"
        tiles.append((f"{mean.mean:.1f}", f"return{over}", more))
    for field in evaluation["fields"]:
        seeds = _percentages(field["successes"])
        more = f"from {field['starts']} starts; each seed: {seeds}"
        what = f"arrive from a {field['side_m']:g} m field"
        tiles.append((f"{100 * field['mean_success']:.0f}%", what, more))
    if "cross_track_m" in inside:
        error = inside["cross_track_m"]
        more = f"mean over all episodes; {error['largest']:.2f} m at most"
        tiles.append((f"{error['mean']:.2f} m", "off the nearest demonstration", more))
    return tiles


def _summary(values: dict[str, float]) -> statistics.Summary:
    return statistics.Summary(values["mean"], values["low"], values["high"])


def _percentages(shares: list[float]) -> str:
    return ", ".join(f"{100 * share:.0f}" for share in shares)


def _configuration(trained: runs.Run, versions: dict[str, Any]) -> str:
    return page.section(
        "How it was made",
        *_more_commands(trained),
        page.table(
            "Configuration; fields that differ from the defaults are highlighted",
            _leaves(trained.experiment),
        ),
        page.table(
            "Versions", [(name, str(value), False) for name, value in versions.items()]
        ),
    )


def _more_commands(trained: runs.Run) -> list[str]:
    resume, evaluate = commands.resume(trained), commands.evaluate(trained)
    if resume is None or evaluate is None:
        return [
            page.text(
                "The environment of this run was an object, which no command can name. "
                "In Python, `planil_jax.train(..., resume=True)` continues the run, and "
                f"`{_EVALUATE}` evaluates it."
            )
        ]
    return [
        page.text("The command at the top trains this run once more. This continues it:"),
        page.command(resume),
        page.text("This evaluates it:"),
        page.command(evaluate),
    ]


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


def _has_field(trained: runs.Run) -> bool:
    return out_of_distribution.has_field(trained.experiment.environment)


def _date(directory: Path) -> str:
    """When the run last wrote metrics."""
    path = directory / training_report.METRICS_FILE
    seconds = (path if path.exists() else directory).stat().st_mtime
    return f"{datetime.datetime.fromtimestamp(seconds):%-d %B %Y, %H:%M}"
