"""Files of results: what a command measured, and how to measure it again.

`new` makes the content of a file, `write` writes it, `read` reads it back and `check`
refuses what is no result. `results_schema` says what a file holds.
"""

import json
import math
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from planil_jax.base import UsageError
from planil_jax.evaluation.results_schema import (
    AGAIN,
    NULLABLE,
    check,
    check_commits,
    check_fields,
)
from planil_jax.training import files, rundir

DIGITS = 7  # of a number that is written; float32 has no more


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
        files.write(path, text)
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
        check_fields(content, path)
        lines += [f"  {line}" for line in _figures(content)]
        check_commits(content, path)
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
        raise UsageError(f"{path} is not a file of results: {error}; {AGAIN}.") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} is not a file of results, an object: {AGAIN}.")
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
