"""Pages of results for the documentation, made of the files in results/.

One page an area, `docs/results/<area>.md`, and a list of them. Equal files make equal
pages. `make results-docs` writes them, and a test compares them.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from planil_jax.evaluation import compare, learning, results, statistics
from planil_jax.training import files as disk

MADE = "<!-- Made by `make results-docs` of the files in results/. Do not edit. -->"
BEFORE = "Before the redesign"
_SHORT = 8  # numbers of a list that is shown in a cell

Content = Mapping[str, Any]
Table = list[dict[str, str]]  # rows, by column


def write(source: str | Path, target: str | Path) -> None:
    """Writes the pages of the files in `source` into `target`, and drops other pages there.

    Raises:
      UsageError: a file is no result, see `results.read_all`.
    """
    made, target = pages(results.read_all(source)), Path(target)
    target.mkdir(parents=True, exist_ok=True)
    for path in target.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        disk.write(target / name, text)


def pages(files: Mapping[str, Content]) -> dict[str, str]:
    """The text of every page by its name.

    Args:
      files: results by path, "navigation/mpail.json".
    """
    areas: dict[str, dict[str, Content]] = {}
    for path, content in files.items():
        areas.setdefault(path.partition("/")[0], {})[path] = content
    made = {f"{area}.md": _page(area, of_area) for area, of_area in areas.items()}
    return {"index.md": _index(areas)} | made


def _index(areas: Mapping[str, Mapping[str, Content]]) -> str:
    lines = [
        f"- [{area}]({area}.md): {len(files)} {'file' if len(files) == 1 else 'files'}"
        for area, files in areas.items()
    ]
    return _joined(
        MADE,
        "# Results",
        "Every table is made of a file that a command wrote, "
        "`results/<area>/<name>.json`. The file names the command, the commit and the "
        "machine. `planil inspect FILE` shows it.",
        "A return is the mean of a seed's episodes, and every seed is shown. Below 4 seeds "
        "the summary is their mean with a t-interval. From 4 seeds on it is the "
        "interquartile mean (IQM) with a stratified bootstrap over seeds and episodes. "
        "Intervals are of 95%.",
        "Demonstrator, random actions and BC start where the method starts. The share is "
        "1 - (demonstrator - return) / |demonstrator|. A row that does not reach 95% of "
        "the demonstrator says no, and says what was tried. p is of a one-sided "
        "Mann-Whitney test of the method's seeds against those of BC.",
        f'Older results stand under "{BEFORE}". Read their commands at their commits.',
        "\n".join(lines),
    )


def _page(area: str, files: Mapping[str, Content]) -> str:
    new = {path: file for path, file in files.items() if file["version"] == 2}
    old = {path: file for path, file in files.items() if file["version"] == 1}
    sections = [_section(path, file) for path, file in new.items()]
    if old:
        sections.append(f"## {BEFORE}")
    for path, file in old.items():
        rows = _figures(file["figures"].get("rows", ())) or list(_old_rows(file))
        sections.append(_joined(_origin(path, file, "###"), _table(rows)))
    return _joined(MADE, f"# Results: {area}", *sections)


def _section(path: str, content: Content) -> str:
    """A file of version 2."""
    origin = _origin(path, content, "##")
    match content["kind"]:
        case "learning":
            reached = [_reached(run) for run in content["runs"]]
            made = [_made(run) for run in content["runs"]]
            return _joined(origin, _table(reached), _table(made))
        case "benchmark":
            rivals = zip(content["ratios"], content["rivals"], strict=True)
            against = [f"- {_title(ratio)}: against {rival}" for ratio, rival in rivals]
            rows = _figures(content["rows"])
            return _joined(
                origin, f"Measured: {content['work']}.", "\n".join(against), _table(rows)
            )
    names = [{"case": _text(case["name"])} for case in content["cases"]]
    rows = _figures(content["outcomes"])
    both = [name | row for name, row in zip(names, rows, strict=True)]
    return _joined(origin, _table(both))


# ------------------------------------------------------------------------------------ rows


def _reached(run: Content) -> dict[str, str]:
    """What a method reached, what it was to reach, and what was tried before."""
    evaluation, bc, tuning = run["evaluation"], run["bc"], run["tuning"]
    returns = np.array(evaluation["returns"])  # [S, B]
    wanted = run["demonstrator"] and np.mean(run["demonstrator"]["returns"])
    share = None if wanted is None else statistics.share(returns.mean(), wanted)
    p = None
    if bc is not None and run["configuration"]["method"] != "bc":
        p = statistics.p_better(returns.mean(1), np.mean(bc["returns"], axis=1))
    tried = f"{tuning['trials']} trials: {tuning['settings']}; on {tuning['on']}"
    if tuning == learning.said(learning.Tuning(trials=0)):
        tried = "nothing"
    return {
        "task": _text(run["task"]),
        "method": _text(run["method"]),
        "return of each seed": _list(returns.mean(1)),
        "mean or IQM [95%]": _summary(returns),
        "demonstrator": _number(wanted),
        "random": _number(np.mean(run["random"]["returns"])),
        "BC, each seed": _list(np.mean(bc["returns"], axis=1)) if bc else "–",
        "share": _number(share),
        "95% reached": "–" if share is None else _yes(bool(share >= compare.ENOUGH)),
        "p against BC": _number(p),
        "tried before": _text(tried),
        "more": _more(evaluation),
    }


def _made(run: Content) -> dict[str, str]:
    """How a result was made."""
    shown = "–"
    if run["demonstrations"] is not None:
        shown = "{episodes}, by {expert}".format(**run["demonstrations"])
    return {
        "task": _text(run["task"]),
        "method": _text(run["method"]),
        "seeds": ", ".join(map(str, run["seeds"])),
        "episodes of each": _number(len(run["evaluation"]["returns"][0])),
        "environment steps": _number(run["evaluation"]["step"]),
        "demonstrations": _text(shown),
        "seconds of training": _number(run["seconds"]["wall"]),
        "of processors": _number(run["seconds"]["processor"]),
        "trained at": f"`{run['commit'][:10]}`",
        "not there": _text("; ".join(run.get("why", {}).values())) or "–",
    }


def _old_rows(content: Content) -> Iterator[dict[str, str]]:
    """What was learned according to a file of version 1, a row each."""
    figures = content["figures"]
    found: list[tuple[str, str, Content]] = []  # task, method, evaluation
    if "evaluation" in figures:
        settings = content["configuration"]
        method = settings.get("method", "mpail")
        task = figures["evaluation"].get("environment", settings["environment"])
        found.append((task, method, figures["evaluation"]))
    for task, methods in figures.get("tasks", {}).items():
        found += [(task, name, result["evaluation"]) for name, result in methods.items()]
    for run in figures.get("runs", {}).values():
        inside = {"returns": run["returns"][-1], "coverage": run["visited"]["all"]}
        evaluation = {"in_distribution": inside, "step": run["steps"][-1]}
        found.append((run["visited"]["environment"], run["visited"]["method"], evaluation))
    for task, method, evaluated in found:
        inside = evaluated["in_distribution"]
        returns = np.array(inside["returns"])
        yield {
            "task": _text(task),
            "method": _text(method),
            "return of each seed": _list(returns),
            "mean or IQM [95%]": _summary(returns),
            "expert": _number(inside.get("expert_return")),
            "more": _more({**evaluated, **inside}),
            "environment steps": _number(evaluated["step"]),
        }


def _more(evaluation: Content) -> str:
    """The rest of an evaluation, each value by seed."""
    parts = [
        f"arrives from {field['side_m']:g} x {field['side_m']:g} m: "
        f"{_list(field['successes'])}"
        for field in evaluation.get("fields", ())
    ]
    if "cross_track_m" in evaluation:
        error = evaluation["cross_track_m"]
        parts.append(
            f"off the demonstrations: mean {_number(error['mean'])} m, largest "
            f"{_number(error['largest'])} m"
        )
    groups = {
        name: evaluation.get(name, {}) for name in ("subtasks", "rewards", "coverage")
    }
    for group, values in groups.items():
        for name, numbers in values.items():
            if isinstance(numbers, list) and name not in ("hands", "random_shares"):
                parts.append(f"{group}, {_text(name)}: {_list(numbers)}")
    return "; ".join(parts) or "–"


def _figures(rows: Sequence[Content]) -> Table:
    """Rows with a column for every figure and every short list of figures."""
    cells = [dict(_flat(row)) for row in rows]
    columns = list(dict.fromkeys(name for row in cells for name in row))
    return [{name: row.get(name, "–") for name in columns} for row in cells]


def _flat(row: Content, above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in row.items():
        title = f"{above}{_title(name)}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{title}, ")
        elif not isinstance(value, list):
            yield title, _number(value)
        elif len(value) <= _SHORT and all(isinstance(v, int | float) for v in value):
            yield title, _list(value)


# ------------------------------------------------------------------------------------ text


def _origin(path: str, content: Content, level: str) -> str:
    """Where a file comes from."""
    hardware = content["hardware"]
    machine = hardware.get("processor", hardware["device"])
    facts = [f"Commit `{content['commit'][:10]}`", f"{_text(machine)}"]
    if "cores" in hardware:
        facts.append(f"{hardware['cores']} cores")
    if hardware["device"] not in ("cpu", machine):
        facts.append(_text(hardware["device"]))
    if content["version"] == 2:
        facts.append(f"{_number(content['seconds']['wall'])} s in all")
    note = [_text(content["note"])] if "note" in content else []
    command = re.sub(r" (?='?--)", " \\\\\n    ", content["command"])
    return _joined(
        f"{level} `results/{path}`", f"```\n{command}\n```", ", ".join(facts) + ".", *note
    )


def _table(rows: Table) -> str:
    columns = list(rows[0])
    lines = [
        columns,
        ["---"] * len(columns),
        *([row[name] for name in columns] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _joined(*blocks: str) -> str:
    """Blocks with an empty line between them; prose ends by 92 columns."""
    kept = [block.strip("\n") for block in blocks if block]
    plain = [
        block
        if block.startswith(("|", "#", "-", "<", "```")) or "\n" in block
        else textwrap.fill(block, 92, break_long_words=False, break_on_hyphens=False)
        for block in kept
    ]
    return "\n\n".join(plain) + "\n"


def _title(name: str) -> str:
    return _text(name.replace("_", " "))


def _text(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _summary(returns: np.ndarray) -> str:
    mean, low, high = statistics.summary(returns)
    if len(returns) == 1:
        return f"{_number(mean)} (one seed)"
    return f"{_number(mean)} [{_number(low)}, {_number(high)}]"


def _list(values: Any) -> str:
    return ", ".join(map(_number, values))


def _yes(value: bool) -> str:
    return "yes" if value else "**no**"


def _number(value: Any) -> str:
    """A number with three or four digits that count; other values as they are."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case str():
            return _text(value)
        case int() | np.integer():
            return f"{value:,}"
    size = abs(value)
    if size >= 1e7:
        return f"{value:.3g}"
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.3g}"
