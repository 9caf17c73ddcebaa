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
not known ("") are refused.
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
_KINDS: dict[str, Any] = {"text": str, "number": (int, float), "object": dict, "list": list}

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
SECONDS: Fields = {"wall": ("number", _AGAIN), "processor": ("number", _AGAIN)}
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
    "episodes": ("number", _AGAIN),
    "steps": ("number", _AGAIN),
    "mean_return": ("number", "say why they have none (--absent=mean_return:WHY)"),
    "expert": ("text", "say in their card who made them"),
}
TUNING: Fields = {
    "trials": ("number", _TRIALS),
    "settings": ("text", "say what was tried (--tuned; tuned.settings of a comparison)"),
    "on": ("text", "say on which seeds, starts and demonstrations (--tuned_on; tuned.on)"),
}
EVALUATION: Fields = {
    "environment": ("text", _AGAIN),
    "step": ("number", _AGAIN),
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
      UsageError: the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dumps(content), encoding="utf-8")
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
        return platform.processor()
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
    except ValueError as error:
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
    version = content.get("version")
    if version not in VERSIONS:
        raise UsageError(
            f"{path}: version is {version!r}, and results have 1 or 2: {_AGAIN}."
        )
    if version == 1:
        known: Fields = FIRST
        optional = {"version", "note"}
    else:
        kind = content.get("kind", "")
        if kind not in OF_KIND:
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
    if version == 2:
        _require(content["seconds"], SECONDS, path, "seconds.")
        _CHECKS[content["kind"]](content, path)


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
        wrong = not isinstance(value, _KINDS[kind]) or isinstance(value, bool)
        if wrong or value == "" and name != "commit":
            raise UsageError(f"{path}: {where}{name} is no {kind}: {mend}.")


def _learning(content: Mapping[str, Any], path: str | Path) -> None:
    runs = content["runs"]
    if not runs:
        raise UsageError(f"{path}: runs is empty: {_AGAIN}.")
    for n, run in enumerate(runs):
        where = f"runs[{n}]."
        _require(run, RUN, path, where)
        for name, fields in (
            ("seconds", SECONDS),
            ("demonstrations", DEMONSTRATIONS),
            ("tuning", TUNING),
            ("evaluation", EVALUATION),
            ("demonstrator", RETURNS),
            ("random", RETURNS),
            ("bc", RETURNS),
        ):
            if run[name] is not None:
                _require(run[name], fields, path, f"{where}{name}.")
        if not run["curves"]:
            raise UsageError(f"{path}: {where}curves is empty: {RUN['curves'][1]}.")
        _require_returns(run, path, where)


def _require_returns(run: Mapping[str, Any], path: str | Path, where: str) -> None:
    """Refuses returns that are not of every seed, or not from the same starts."""
    returns = run["evaluation"]["returns"]
    if len(returns) != len(run["seeds"]):
        raise UsageError(
            f"{path}: {where}evaluation.returns has {len(returns)} rows for "
            f"{len(run['seeds'])} seeds: {_AGAIN}."
        )
    starts = len(returns[0]) if returns and isinstance(returns[0], list) else 0
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
            if not all(isinstance(value, int | float) for value in row):
                raise UsageError(
                    f"{path}: {where}{name}.returns holds what is no number: {_AGAIN}."
                )


def _benchmark(content: Mapping[str, Any], path: str | Path) -> None:
    rows, repetitions = content["rows"], content["repetitions"]
    if not rows or len(repetitions) != len(rows):
        raise UsageError(
            f"{path}: repetitions has {len(repetitions)} entries for {len(rows)} rows: "
            f"{_AGAIN}."
        )
    for ratio in content["ratios"]:
        if not all(isinstance(row, dict) and ratio in row for row in rows):
            raise UsageError(f"{path}: rows lack the ratio {ratio}: {_AGAIN}.")


def _campaign(content: Mapping[str, Any], path: str | Path) -> None:
    cases, outcomes = content["cases"], content["outcomes"]
    if not cases or len(cases) != len(outcomes):
        raise UsageError(
            f"{path}: outcomes has {len(outcomes)} entries for {len(cases)} cases: "
            f"{_AGAIN}."
        )
    for n, case in enumerate(cases):
        _require(case, {"name": ("text", _AGAIN)}, path, f"cases[{n}].")


_CHECKS: Mapping[str, Callable[[Mapping[str, Any], str | Path], None]] = {
    "learning": _learning,
    "benchmark": _benchmark,
    "campaign": _campaign,
}


def _check_commits(content: Mapping[str, Any], path: str | Path) -> None:
    """Refuses a commit that is not clean, and trainings of several commits in one file."""
    _require_commit(content["commit"], path, "commit")
    parts = "runs" if "runs" in content else "cases"
    trained = [part.get("commit") for part in content.get(parts, ())]
    for n, part in enumerate(content.get(parts, ())):
        for where, inner in (("", part), *((f"{k}.", part.get(k)) for k in NULLABLE)):
            if isinstance(inner, dict) and "commit" in inner:
                _require_commit(inner["commit"], path, f"{parts}[{n}].{where}commit")
    if len(set(trained)) > 1:
        raise UsageError(
            f"{path}: {parts} are of {len(set(trained))} commits: train them all at one."
        )


def _require_commit(commit: str, path: str | Path, where: str) -> None:
    if not commit:
        raise UsageError(f"{path}: {where} is empty: {_CLEAN}.")
    if commit.endswith("+"):
        raise UsageError(
            f"{path}: {where} is {commit[:10]} with changes not committed: {_CLEAN}."
        )
    if not re.fullmatch("[0-9a-f]{40}", commit):
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
