"""Files of results: what a command measured, and how to measure it again.

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

Version 1 is what commands wrote before: `command`, `commit`, `versions`, `hardware`,
`configuration`, `seeds` and `figures`, which are as they were written.

A value of NULLABLE may be null where `why`, beside it, says why under the same name. A
commit is 40 hexadecimal digits: changes that were not committed ("+") and a commit that is
not known ("") are refused. So are numbers that are not finite.
"""

import json
import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from planil_jax.base import UsageError
from planil_jax.training import rundir

VERSIONS = (1, 2)
DIGITS = 7  # of a number that is written; float32 has no more
_AGAIN = "write it again with its command"
_CLEAN = "run the command again in a clone at one commit, with nothing changed"
_TRIALS = "say how many trials, 0 for none (--tuning_trials; tuned.trials of a comparison)"
_ABSENT = "or say why there is none (--absent=NAME:WHY)"
_COUNT = "whole number from 0 on"
_DURATION = "number of seconds"

# Field -> what it is, and what to do where it is missing.
Fields = dict[str, tuple[str, str]]
COMMON: Fields = {
    "command": ("text", _AGAIN),
    "commit": ("text", _CLEAN),
    "versions": ("object", _AGAIN),
    "hardware": ("object", _AGAIN),
    "configuration": ("object", _AGAIN),
}
FIRST: Fields = COMMON | {"seeds": ("list", _AGAIN), "figures": ("object", _AGAIN)}
HARDWARE: Fields = {"device": ("text", _AGAIN), "processor": ("text", _AGAIN)}
SECONDS: Fields = {"wall": (_DURATION, _AGAIN), "processor": (_DURATION, _AGAIN)}
RUN: Fields = {
    "task": ("text", _AGAIN),
    "method": ("text", _AGAIN),
    "commit": ("text", _CLEAN),
    "seconds": ("object", "train it again: processor seconds were not counted then"),
    "configuration": ("object", _AGAIN),
    "demonstrations": ("object", _AGAIN),
    "seeds": ("list", _AGAIN),
    "tuning": ("object", _TRIALS),
    "curves": ("object", "train with evaluations on the way, run.evaluate_every"),
    "evaluation": ("object", _AGAIN),
    "demonstrator": ("object", f"name its run (--demonstrator), {_ABSENT}"),
    "random": ("object", _AGAIN),
    "bc": ("object", f"name a converged run (--bc), or compare with bc, {_ABSENT}"),
}
DEMONSTRATIONS: Fields = {
    "digest": ("text", _AGAIN),
    "episodes": (_COUNT, _AGAIN),
    "steps": (_COUNT, _AGAIN),
    "mean_return": ("number", "say why they have none (--absent=mean_return:WHY)"),
    "expert": ("text", "say in their card who made them"),
}
TUNING: Fields = {
    "trials": (_COUNT, _TRIALS),
    "settings": ("text", "say what was tried (--tuned; tuned.settings of a comparison)"),
    "on": ("text", "say on which seeds, starts and demonstrations (--tuned_on; tuned.on)"),
}
EVALUATION: Fields = {
    "environment": ("text", _AGAIN),
    "step": (_COUNT, _AGAIN),
    "returns": ("list", _AGAIN),
}
RETURNS: Fields = {"policy": ("text", _AGAIN), "returns": ("list", _AGAIN)}
BENCHMARK: Fields = {
    "work": ("text", _AGAIN),
    "rivals": ("list", _AGAIN),
    "ratios": ("list", _AGAIN),
    "repetitions": ("list", _AGAIN),
    "rows": ("list", _AGAIN),
}
OF_KIND: Mapping[str, Fields] = {
    "learning": {"runs": ("list", _AGAIN)},
    "benchmark": BENCHMARK,
    "campaign": {"cases": ("list", _AGAIN), "outcomes": ("list", _AGAIN)},
}
NULLABLE = ("demonstrations", "mean_return", "demonstrator", "bc")
FIGURES = ("rows", "evaluation", "tasks", "runs")  # one of them is in files of version 1


# --------------------------------------------------------------------------------- writing


def new(
    kind: str, command: str, configuration: Mapping[str, Any], **fields: Any
) -> dict[str, Any]:
    """The content of a file of version 2.

    Args:
      kind: a key of OF_KIND.
      command: that makes the file.
      configuration: of the command.
      fields: those of the kind.
    """
    versions = rundir.versions()
    commit, device, devices = map(versions.pop, ("commit", "device", "devices"))
    content = {
        "version": 2,
        "kind": kind,
        "command": command,
        "commit": commit,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions,
        "hardware": hardware(device, devices),
        "configuration": configuration,
        "seconds": {
            "wall": time.time() - psutil.Process().create_time(),
            "processor": time.process_time(),
        },
    }
    return plain(content | fields)


def write(path: str | Path, content: Mapping[str, Any]) -> str:
    """Writes a file of results, and returns a sentence about it for the user.

    A file that `check` refuses is written all the same, and the sentence says why it may
    not lie in results/.

    Raises:
      UsageError: the file cannot be written, or a number is not finite.
    """
    path = Path(path)
    try:
        text = dumps(content)
    except ValueError:
        raise UsageError(f"{path} (--out): a number in it is not finite.") from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} (--out) cannot be written: {error.strerror}.") from error
    try:
        check(content, path)
    except UsageError as error:
        return f"wrote {path}, which does not belong in results/: {error}"
    return f"wrote {path}"


def dumps(content: Any) -> str:
    """JSON with one indentation and the order of keys; innermost lists take one line.

    Raises:
      ValueError: a number is not finite.
    """
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    strings = r'"(?:[^"\\]|\\.)*"'
    innermost = rf"{strings}|\[(?:[^\[\]{{}}\"]|{strings})*\]"

    def on_one_line(found: re.Match) -> str:
        if found[0].startswith('"'):
            return found[0]
        return re.sub(rf"({strings})|\s+", lambda part: part[1] or " ", found[0])

    return re.sub(innermost, on_one_line, text) + "\n"


def plain(value: Any) -> Any:
    """Values as JSON has them: numbers of seven digits, and null for what is not finite."""
    match value:
        case np.ndarray() | np.generic():
            return plain(value.tolist())
        case float():
            return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
        case list() | tuple():
            return [plain(item) for item in value]
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
    return value


def hardware(device: str, devices: int) -> dict[str, Any]:
    """The machine of this process.

    Args:
      device: kind of JAX's devices.
      devices: how many of them.
    """
    return {
        "device": device,
        "devices": devices,
        "processor": processor(),
        "cores": cores(),
        "memory_gb": psutil.virtual_memory().total / 1e9,
        "load_average": psutil.getloadavg()[0],
    }


def processor() -> str:
    """The name of the processor, as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((text.split(": ")[1] for text in lines if "model name" in text), "unknown")


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# --------------------------------------------------------------------------------- reading


def read(path: str | Path) -> dict[str, Any]:
    """The content of a file of results that is as it should be.

    Raises:
      UsageError: it cannot be read, or as for `check`.
    """
    content = _parsed(Path(path))
    check(content, path)
    return content


def read_all(directory: str | Path) -> dict[str, dict[str, Any]]:
    """The files of a directory, `<area>/<name>.json`, by their paths from it, sorted.

    Raises:
      UsageError: one lies elsewhere than in an area, or as for `read`.
    """
    root, found = Path(directory), {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root).as_posix()
        if name.count("/") != 1 or path.suffix != ".json":
            raise UsageError(
                f"{path} is no file of results: name it {directory}/AREA/NAME.json, or "
                "move it to docs/."
            )
        found[name] = read(path)
    return found


def describe(path: str | Path) -> str:
    """A file of results in a few lines, also one that `check` refuses."""
    content = _parsed(Path(path))
    lines = [str(path)]
    facts = {
        "version": f"{content.get('version')}, {content.get('kind') or 'no kind'}",
        "command": content.get("command"),
        "commit": content.get("commit") or "none",
        "hardware": _one_line(content.get("hardware")),
        "seconds": _one_line(content.get("seconds")),
    }
    lines += [f"  {name:<10} {fact}" for name, fact in facts.items() if fact]
    try:
        _check_fields(content, path)
        lines += [f"  {line}" for line in _figures(content)]
        _check_commits(content, path)
    except UsageError as error:
        lines.append(f"  refused: {error}")
    return "\n".join(lines)


def _parsed(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"it holds {constant}, which JSON has not")

    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a file of results: {error}; {_AGAIN}.") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} is not a file of results, an object: {_AGAIN}.")
    return content


def _one_line(values: Any) -> str:
    if not isinstance(values, dict):
        return ""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _figures(content: Mapping[str, Any]) -> Iterator[str]:
    """What was found, a line each."""
    for run in content.get("runs") or ():
        means = [f"{np.mean(seed):.4g}" for seed in run["evaluation"]["returns"]]
        yield f"{run['method']} on {run['task']}: return of each seed {', '.join(means)}"
    for row in content.get("rows") or ():
        yield _one_line({k: v for k, v in row.items() if not isinstance(v, dict | list)})
    pairs = zip(content.get("cases") or (), content.get("outcomes") or (), strict=False)
    for case, outcome in pairs:
        yield f"{case['name']}: {_one_line({k: v for k, v in outcome.items()})[:200]}"
    if content.get("version") == 1:
        yield f"figures    {', '.join(map(str, content.get('figures') or ()))}"


# ---------------------------------------------------------------------------------- checks


def check(content: Mapping[str, Any], path: str | Path) -> None:
    """Refuses content that is no result, in one sentence with file, field and mend.

    Args:
      path: of the file, for the sentence.

    Raises:
      UsageError: a field is missing, of another kind or unknown; a commit is not clean; or
        numbers of seeds, starts or rows differ.
    """
    _check_fields(content, path)
    _check_commits(content, path)


def _check_fields(content: Mapping[str, Any], path: str | Path) -> None:
    version, kind = content.get("version"), content.get("kind", "")
    if type(version) is not int or version not in VERSIONS:
        raise UsageError(
            f"{path}: version is {version!r}, and results have 1 or 2: {_AGAIN}."
        )
    if version == 1:
        known: Fields = FIRST
        optional = {"version", "note"}
    else:
        if not isinstance(kind, str) or kind not in OF_KIND:
            raise UsageError(
                f"{path}: kind is {kind!r}, and results are {', '.join(OF_KIND)}: {_AGAIN}."
            )
        known = COMMON | {"seconds": ("object", _AGAIN)} | OF_KIND[kind]
        optional = {"version", "kind", "date", "extra"}
    unknown = sorted(set(content) - set(known) - optional)
    if unknown:
        raise UsageError(
            f"{path}: field {unknown[0]} is not of version {version}: {_AGAIN}."
        )
    _require(content, known, path)
    # Some files of version 1 name no processor.
    _require({"processor": "unknown"} | content["hardware"], HARDWARE, path, "hardware.")
    if not content["versions"]:
        raise UsageError(f"{path}: versions is empty: {_AGAIN}.")
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
        raise UsageError(f"{path}: {where.rstrip('.')} is no object: {_AGAIN}.")
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
            raise UsageError(f"{path}: {where}[{n}] is no {kind}: {_AGAIN}.")


def _first(content: Mapping[str, Any], path: str | Path) -> None:
    """Version 1: its figures are as they were written, of one of a few forms."""
    _require_all(_COUNT, content["seeds"], path, "seeds")
    figures = content["figures"]
    if not any(figures.get(name) for name in FIGURES):
        raise UsageError(f"{path}: figures holds none of {', '.join(FIGURES)}: {_AGAIN}.")
    rows = figures.get("rows", [])
    _require({"rows": rows}, {"rows": ("list", _AGAIN)}, path, "figures.")
    _require_all("object", rows, path, "figures.rows")


def _learning(content: Mapping[str, Any], path: str | Path) -> None:
    runs = content["runs"]
    if not runs:
        raise UsageError(f"{path}: runs is empty: {_AGAIN}.")
    for n, run in enumerate(runs):
        where = f"runs[{n}]."
        _require(run, RUN, path, where)
        for name, fields in (
            ("seconds", SECONDS),
            ("configuration", {"method": ("text", _AGAIN)}),
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
        raise UsageError(f"{path}: {where}why is no object of texts: {_AGAIN}.")


def _require_seeds(seeds: Sequence[Any], path: str | Path, where: str) -> None:
    """Refuses seeds that are none, or one of which comes twice."""
    if not seeds:
        raise UsageError(f"{path}: {where}seeds is empty: {_AGAIN}.")
    _require_all(_COUNT, seeds, path, f"{where}seeds")
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"{path}: {where}seeds has a seed twice: {_AGAIN}.")


def _require_curves(run: Mapping[str, Any], path: str | Path, where: str) -> None:
    """Refuses curves that are none, or not of every seed; a value may be null."""
    if not run["curves"]:
        raise UsageError(f"{path}: {where}curves is empty: {RUN['curves'][1]}.")
    seeds = len(run["seeds"])
    for name, curve in run["curves"].items():
        here = f"{where}curves.{name}"
        wanted: Fields = {"steps": ("list", _AGAIN), "values": ("list", _AGAIN)}
        _require(curve, wanted, path, f"{here}.")
        steps, values = curve["steps"], curve["values"]
        if not steps or len(steps) != len(values):
            raise UsageError(
                f"{path}: {here} has {len(values)} values for {len(steps)} steps: {_AGAIN}."
            )
        _require_all(_COUNT, steps, path, f"{here}.steps")
        for n, row in enumerate(values):
            if not isinstance(row, list) or len(row) != seeds:
                raise UsageError(
                    f"{path}: {here}.values[{n}] is not of the {seeds} seeds: {_AGAIN}."
                )
            known = [value for value in row if value is not None]
            _require_all("number", known, path, f"{here}.values[{n}]")


def _require_returns(run: Mapping[str, Any], path: str | Path, where: str) -> None:
    """Refuses returns that are not of every seed, or not from the same starts."""
    returns = run["evaluation"]["returns"]
    if len(returns) != len(run["seeds"]):
        raise UsageError(
            f"{path}: {where}evaluation.returns has {len(returns)} rows for "
            f"{len(run['seeds'])} seeds: {_AGAIN}."
        )
    if run["bc"] and not run["bc"]["returns"]:
        raise UsageError(f"{path}: {where}bc.returns is empty: {_AGAIN}.")
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
                    f"{_AGAIN}."
                )
            if not all(_is("number", value) for value in row):
                raise UsageError(
                    f"{path}: {where}{name}.returns holds what is no number: {_AGAIN}."
                )


def _benchmark(content: Mapping[str, Any], path: str | Path) -> None:
    rows, repetitions = content["rows"], content["repetitions"]
    ratios, rivals = content["ratios"], content["rivals"]
    if not rows or len(repetitions) != len(rows):
        raise UsageError(
            f"{path}: repetitions has {len(repetitions)} entries for {len(rows)} rows: "
            f"{_AGAIN}."
        )
    if len(ratios) != len(rivals):
        raise UsageError(
            f"{path}: rivals has {len(rivals)} entries for {len(ratios)} ratios: {_AGAIN}."
        )
    _require_all("object", rows, path, "rows")
    _require_all(_COUNT, repetitions, path, "repetitions")
    _require_all("text", ratios, path, "ratios")
    _require_all("text", rivals, path, "rivals")
    for ratio in ratios:
        if not all(ratio in row for row in rows):
            raise UsageError(f"{path}: rows lack the ratio {ratio}: {_AGAIN}.")
        for n, row in enumerate(rows):
            if row[ratio] is not None and not _is("number", row[ratio]):
                raise UsageError(f"{path}: rows[{n}].{ratio} is no number: {_AGAIN}.")


def _campaign(content: Mapping[str, Any], path: str | Path) -> None:
    cases, outcomes = content["cases"], content["outcomes"]
    if not cases or len(cases) != len(outcomes):
        raise UsageError(
            f"{path}: outcomes has {len(outcomes)} entries for {len(cases)} cases: "
            f"{_AGAIN}."
        )
    for n, case in enumerate(cases):
        _require(case, {"name": ("text", _AGAIN)}, path, f"cases[{n}].")
    _require_all("object", outcomes, path, "outcomes")


_CHECKS: Mapping[str, Callable[[Mapping[str, Any], str | Path], None]] = {
    "learning": _learning,
    "benchmark": _benchmark,
    "campaign": _campaign,
}


def _check_commits(content: Mapping[str, Any], path: str | Path) -> None:
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


def absent(texts: Sequence[str]) -> dict[str, str]:
    """The reasons of --absent=NAME:WHY, by name.

    Raises:
      UsageError: a name is none that may be absent, or there is no reason.
    """
    found = {}
    for text in texts:
        name, _, why = text.partition(":")
        if name not in NULLABLE or not why.strip():
            raise UsageError(
                f"--absent={text}: write NAME:WHY, where NAME is one of "
                f"{', '.join(NULLABLE)}."
            )
        found[name] = why.strip()
    return found
