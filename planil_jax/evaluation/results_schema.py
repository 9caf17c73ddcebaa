"""The schema of files of results, and its check.

A file is JSON, `results/<area>/<name>.json`, and has one of two versions.

Version 2 is what commands write. All have `version`, `kind`, `command`, `commit`,
`versions`, `hardware`, `configuration` and `seconds` {wall, processor}, the command's own.
By kind:

    learning   runs, a list; each has
                 task, method, configuration, seeds [S]
                 commit          of its training
                 seconds         of its training, {wall, processor}
                 demonstrations  {digest, episodes, steps, mean_return, expert}
                 tuning          {trials, settings, on}
                 curves          {name: {steps [P], values [P, S]}}
                 evaluation      {environment, step, returns [S, B], …}
               and from the same B starts
                 demonstrator, random  {policy, returns [B]}
                 bc                    {policy, returns [S', B]}
               (with the commit of its training, if a run is the policy)
    benchmark  work, rivals, ratios (columns of rows), repetitions (one a row), rows, and
               maybe extra, what the rows were computed with
    campaign   cases (each with a name, and the commit of its training if there was one),
               outcomes (one a case)

Each may have a note, a text that its table is shown with.

Version 1 is what commands wrote before: `command`, `commit`, `versions`, `hardware`,
`configuration`, `seeds` and `figures`, which are as they were written.

A value of NULLABLE may be null where `why`, beside it, says why under the same name. A
commit is 40 hexadecimal digits: changes that were not committed ("+") and a commit that is
not known ("") are refused. So are numbers that are not finite.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from planil_jax.base import UsageError

VERSIONS = (1, 2)
AGAIN = "write it again with its command"
_CLEAN = "run the command again in a clone at one commit, with nothing changed"
_TRIALS = "say how many trials, 0 for none (--tuning_trials; tuned.trials of a comparison)"
_ABSENT = "or say why there is none (--absent=NAME:WHY)"
_COUNT = "whole number from 0 on"
_DURATION = "number of seconds"

# Field -> what it is, and what to do where it is missing.
Fields = dict[str, tuple[str, str]]
COMMON: Fields = {
    "command": ("text", AGAIN),
    "commit": ("text", _CLEAN),
    "versions": ("object", AGAIN),
    "hardware": ("object", AGAIN),
    "configuration": ("object", AGAIN),
}
FIRST: Fields = COMMON | {"seeds": ("list", AGAIN), "figures": ("object", AGAIN)}
HARDWARE: Fields = {"device": ("text", AGAIN), "processor": ("text", AGAIN)}
SECONDS: Fields = {"wall": (_DURATION, AGAIN), "processor": (_DURATION, AGAIN)}
RUN: Fields = {
    "task": ("text", AGAIN),
    "method": ("text", AGAIN),
    "commit": ("text", _CLEAN),
    "seconds": ("object", "train it again: processor seconds were not counted then"),
    "configuration": ("object", AGAIN),
    "demonstrations": ("object", AGAIN),
    "seeds": ("list", AGAIN),
    "tuning": ("object", _TRIALS),
    "curves": ("object", "train with evaluations on the way, run.evaluate_every"),
    "evaluation": ("object", AGAIN),
    "demonstrator": ("object", f"name its run (--demonstrator), {_ABSENT}"),
    "random": ("object", AGAIN),
    "bc": ("object", f"name a converged run (--bc), or compare with bc, {_ABSENT}"),
}
DEMONSTRATIONS: Fields = {
    "digest": ("text", AGAIN),
    "episodes": (_COUNT, AGAIN),
    "steps": (_COUNT, AGAIN),
    "mean_return": ("number", "say why they have none (--absent=mean_return:WHY)"),
    "expert": ("text", "say in their card who made them"),
}
TUNING: Fields = {
    "trials": (_COUNT, _TRIALS),
    "settings": ("text", "say what was tried (--tuned; tuned.settings of a comparison)"),
    "on": ("text", "say on which seeds, starts and demonstrations (--tuned_on; tuned.on)"),
}
EVALUATION: Fields = {
    "environment": ("text", AGAIN),
    "step": (_COUNT, AGAIN),
    "returns": ("list", AGAIN),
}
RETURNS: Fields = {"policy": ("text", AGAIN), "returns": ("list", AGAIN)}
BENCHMARK: Fields = {
    "work": ("text", AGAIN),
    "rivals": ("list", AGAIN),
    "ratios": ("list", AGAIN),
    "repetitions": ("list", AGAIN),
    "rows": ("list", AGAIN),
}
OF_KIND: Mapping[str, Fields] = {
    "learning": {"runs": ("list", AGAIN)},
    "benchmark": BENCHMARK,
    "campaign": {"cases": ("list", AGAIN), "outcomes": ("list", AGAIN)},
}
NULLABLE = ("demonstrations", "mean_return", "demonstrator", "bc")
FIGURES = ("rows", "evaluation", "tasks", "runs")  # one of them is in files of version 1


def check(content: Mapping[str, Any], path: str | Path) -> None:
    """Refuses content that is no result, in one sentence with file, field and mend.

    Args:
      path: of the file, for the sentence.

    Raises:
      UsageError: a field is missing, of another kind or unknown; a commit is not clean; or
        numbers of seeds, starts or rows differ.
    """
    check_fields(content, path)
    check_commits(content, path)


def check_fields(content: Mapping[str, Any], path: str | Path) -> None:
    """Refuses fields that are missing, of another kind or unknown, and unequal numbers."""
    version, kind = content.get("version"), content.get("kind", "")
    if type(version) is not int or version not in VERSIONS:
        raise UsageError(
            f"{path}: version is {version!r}, and results have 1 or 2: {AGAIN}."
        )
    if version == 1:
        known: Fields = FIRST
        optional = {"version", "note"}
    else:
        if not isinstance(kind, str) or kind not in OF_KIND:
            raise UsageError(
                f"{path}: kind is {kind!r}, and results are {', '.join(OF_KIND)}: {AGAIN}."
            )
        known = COMMON | {"seconds": ("object", AGAIN)} | OF_KIND[kind]
        optional = {"version", "kind", "date", "extra", "note"}
    unknown = sorted(set(content) - set(known) - optional)
    if unknown:
        raise UsageError(
            f"{path}: field {unknown[0]} is not of version {version}: {AGAIN}."
        )
    _require(content, known, path)
    # Some files of version 1 name no processor.
    _require({"processor": "unknown"} | content["hardware"], HARDWARE, path, "hardware.")
    if not content["versions"]:
        raise UsageError(f"{path}: versions is empty: {AGAIN}.")
    if version == 1:
        _first(content, path)
        return
    _require(content["seconds"], SECONDS, path, "seconds.")
    _CHECKS[kind](content, path)


def _require(
    values: Mapping[str, Any], fields: Fields, path: str | Path, where: str = ""
) -> None:
    """Refuses values that lack one of the fields, or have it of another kind."""
    if not isinstance(values, Mapping):
        raise UsageError(f"{path}: {where.rstrip('.')} is no object: {AGAIN}.")
    reasons = values.get("why")
    for name, (kind, mend) in fields.items():
        value = values.get(name)
        if value is None:
            why = reasons.get(name) if isinstance(reasons, Mapping) else None
            if name in NULLABLE and isinstance(why, str) and why.strip():
                continue
            raise UsageError(f"{path}: {where}{name} is missing: {mend}.")
        if not _is(kind, value) and (name, value) != ("commit", ""):
            raise UsageError(f"{path}: {where}{name} is no {kind}: {mend}.")


def _is(kind: str, value: Any) -> bool:
    """Whether a value is a "number", a "text", …"""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    finite = number and math.isfinite(value)
    return {
        "text": isinstance(value, str) and bool(value.strip()),
        "object": isinstance(value, Mapping),
        "list": isinstance(value, list),
        "number": finite,
        _COUNT: finite and value >= 0 and value == int(value),
        _DURATION: finite and value >= 0,
    }[kind]


def _require_all(kind: str, values: Sequence[Any], path: str | Path, where: str) -> None:
    """Refuses a list of which an entry is of another kind."""
    for n, value in enumerate(values):
        if not _is(kind, value):
            raise UsageError(f"{path}: {where}[{n}] is no {kind}: {AGAIN}.")


def _first(content: Mapping[str, Any], path: str | Path) -> None:
    """Version 1: its figures are as they were written, of one of a few forms."""
    _require_all(_COUNT, content["seeds"], path, "seeds")
    figures = content["figures"]
    if not any(figures.get(name) for name in FIGURES):
        raise UsageError(f"{path}: figures holds none of {', '.join(FIGURES)}: {AGAIN}.")
    rows = figures.get("rows", [])
    _require({"rows": rows}, {"rows": ("list", AGAIN)}, path, "figures.")
    _require_all("object", rows, path, "figures.rows")


def _learning(content: Mapping[str, Any], path: str | Path) -> None:
    runs = content["runs"]
    if not runs:
        raise UsageError(f"{path}: runs is empty: {AGAIN}.")
    for n, run in enumerate(runs):
        where = f"runs[{n}]."
        _require(run, RUN, path, where)
        for name, fields in (
            ("seconds", SECONDS),
            ("configuration", {"method": ("text", AGAIN)}),
            ("demonstrations", DEMONSTRATIONS),
            ("tuning", TUNING),
            ("evaluation", EVALUATION),
            ("demonstrator", RETURNS),
            ("random", RETURNS),
            ("bc", RETURNS),
        ):
            if run[name] is not None:
                _require(run[name], fields, path, f"{where}{name}.")
        _require_reasons(run, path, where)
        _require_seeds(run["seeds"], path, where)
        _require_returns(run, path, where)
        _require_curves(run, path, where)


def _require_reasons(run: Mapping[str, Any], path: str | Path, where: str) -> None:
    """Refuses reasons, where there are any, that are no texts by name."""
    reasons = run.get("why", {})
    if not (_is("object", reasons) and all(_is("text", why) for why in reasons.values())):
        raise UsageError(f"{path}: {where}why is no object of texts: {AGAIN}.")


def _require_seeds(seeds: Sequence[Any], path: str | Path, where: str) -> None:
    """Refuses seeds that are none, or one of which comes twice."""
    if not seeds:
        raise UsageError(f"{path}: {where}seeds is empty: {AGAIN}.")
    _require_all(_COUNT, seeds, path, f"{where}seeds")
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"{path}: {where}seeds has a seed twice: {AGAIN}.")


def _require_curves(run: Mapping[str, Any], path: str | Path, where: str) -> None:
    """Refuses curves that are none, or not of every seed; a value may be null."""
    if not run["curves"]:
        raise UsageError(f"{path}: {where}curves is empty: {RUN['curves'][1]}.")
    seeds = len(run["seeds"])
    for name, curve in run["curves"].items():
        here = f"{where}curves.{name}"
        wanted: Fields = {"steps": ("list", AGAIN), "values": ("list", AGAIN)}
        _require(curve, wanted, path, f"{here}.")
        steps, values = curve["steps"], curve["values"]
        if not steps or len(steps) != len(values):
            raise UsageError(
                f"{path}: {here} has {len(values)} values for {len(steps)} steps: {AGAIN}."
            )
        _require_all(_COUNT, steps, path, f"{here}.steps")
        for n, row in enumerate(values):
            if not isinstance(row, list) or len(row) != seeds:
                raise UsageError(
                    f"{path}: {here}.values[{n}] is not of the {seeds} seeds: {AGAIN}."
                )
            known = [value for value in row if value is not None]
            _require_all("number", known, path, f"{here}.values[{n}]")


def _require_returns(run: Mapping[str, Any], path: str | Path, where: str) -> None:
    """Refuses returns that are not of every seed, or not from the same starts."""
    returns = run["evaluation"]["returns"]
    if len(returns) != len(run["seeds"]):
        raise UsageError(
            f"{path}: {where}evaluation.returns has {len(returns)} rows for "
            f"{len(run['seeds'])} seeds: {AGAIN}."
        )
    if run["bc"] and not run["bc"]["returns"]:
        raise UsageError(f"{path}: {where}bc.returns is empty: {AGAIN}.")
    starts = len(returns[0]) if isinstance(returns[0], list) else 0
    for name, rows in (
        ("evaluation", returns),
        ("demonstrator", run["demonstrator"] and [run["demonstrator"]["returns"]]),
        ("random", [run["random"]["returns"]]),
        ("bc", run["bc"] and run["bc"]["returns"]),
    ):
        for row in rows or ():
            if not (isinstance(row, list) and 0 < len(row) == starts):
                raise UsageError(
                    f"{path}: {where}{name}.returns is not of the same {starts} starts: "
                    f"{AGAIN}."
                )
            if not all(_is("number", value) for value in row):
                raise UsageError(
                    f"{path}: {where}{name}.returns holds what is no number: {AGAIN}."
                )


def _benchmark(content: Mapping[str, Any], path: str | Path) -> None:
    rows, repetitions = content["rows"], content["repetitions"]
    ratios, rivals = content["ratios"], content["rivals"]
    if not rows or len(repetitions) != len(rows):
        raise UsageError(
            f"{path}: repetitions has {len(repetitions)} entries for {len(rows)} rows: "
            f"{AGAIN}."
        )
    if len(ratios) != len(rivals):
        raise UsageError(
            f"{path}: rivals has {len(rivals)} entries for {len(ratios)} ratios: {AGAIN}."
        )
    _require_all("object", rows, path, "rows")
    _require_all(_COUNT, repetitions, path, "repetitions")
    _require_all("text", ratios, path, "ratios")
    _require_all("text", rivals, path, "rivals")
    for ratio in ratios:
        if not all(ratio in row for row in rows):
            raise UsageError(f"{path}: rows lack the ratio {ratio}: {AGAIN}.")
        for n, row in enumerate(rows):
            if row[ratio] is not None and not _is("number", row[ratio]):
                raise UsageError(f"{path}: rows[{n}].{ratio} is no number: {AGAIN}.")


def _campaign(content: Mapping[str, Any], path: str | Path) -> None:
    cases, outcomes = content["cases"], content["outcomes"]
    if not cases or len(cases) != len(outcomes):
        raise UsageError(
            f"{path}: outcomes has {len(outcomes)} entries for {len(cases)} cases: {AGAIN}."
        )
    for n, case in enumerate(cases):
        _require(case, {"name": ("text", AGAIN)}, path, f"cases[{n}].")
    _require_all("object", outcomes, path, "outcomes")


_CHECKS: Mapping[str, Callable[[Mapping[str, Any], str | Path], None]] = {
    "learning": _learning,
    "benchmark": _benchmark,
    "campaign": _campaign,
}


def check_commits(content: Mapping[str, Any], path: str | Path) -> None:
    """Refuses a commit that is not clean, and trainings of several commits in one file."""
    _require_commit(content["commit"], path, "commit")
    parts = "runs" if "runs" in content else "cases"
    trained = set()
    for n, part in enumerate(content.get(parts, ())):
        for where, inner in (("", part), *((f"{k}.", part.get(k)) for k in NULLABLE)):
            if isinstance(inner, dict) and "commit" in inner:
                _require_commit(inner["commit"], path, f"{parts}[{n}].{where}commit")
        trained |= {part["commit"]} if "commit" in part else set()
    if len(trained) > 1:
        raise UsageError(
            f"{path}: {parts} are of {len(trained)} commits: train them all at one."
        )


def _require_commit(commit: Any, path: str | Path, where: str) -> None:
    if commit == "":
        raise UsageError(f"{path}: {where} is empty: {_CLEAN}.")
    if isinstance(commit, str) and commit.endswith("+"):
        raise UsageError(
            f"{path}: {where} is {commit[:10]} with changes not committed: {_CLEAN}."
        )
    if not (isinstance(commit, str) and re.fullmatch("[0-9a-f]{40}", commit)):
        raise UsageError(
            f"{path}: {where} is {commit!r}, no commit of 40 digits: {_CLEAN}."
        )
