"""What is right: the numbers of a run that nothing disturbed, or one true sentence."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.faults_process import LIMIT, Ended
from planil_jax.training import checkpoint, report, rundir

EQUAL, SENTENCE, OTHER = OUTCOMES = ("equal", "sentence", "other")  # the worst is last
_TRACEBACK = "Traceback (most recent call last)"
_LOGGED = re.compile(r"^([EWF]\d{4} |(ERROR|WARNING|CRITICAL)\b)", re.MULTILINE)
_NO_NOTICE = ("continuing from ", "evaluating ", "drawing ", "wrote ")

Found = dict[str, Any]  # part of what a command made -> its content


class Outcome(NamedTuple):
    """How a case ended."""

    outcome: str  # one of OUTCOMES
    words: str  # what was said of it


def judge(
    ended: Ended, found: Found, wanted: Sequence[Found], names: Sequence[str] = ()
) -> Outcome:
    """How a command ended.

    Args:
      found: what it made; it counts if the command succeeded.
      wanted: what it should have made, and then what it may make after a notice.
      names: what a notice names: the injured file, or its checkpoint.
    """
    lines = ended.err.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    notices = [
        line
        for line in lines
        if any(name in line for name in names) and not line.startswith(_NO_NOTICE)
    ]
    if ended.status is None:
        return Outcome(OTHER, f"it did not end within {LIMIT:g} s: {lines[-1:]}")
    if _TRACEBACK in ended.out + ended.err:
        return Outcome(OTHER, f"a traceback: {lines[-1]}")
    logged = _LOGGED.search(ended.err)
    if ended.status in (1, 2) and lines and errors == lines[-1:] and not logged:
        return Outcome(OTHER if "unexpected" in errors[0] else SENTENCE, errors[0])
    if ended.status or logged:
        return Outcome(OTHER, f"exit code {ended.status}: {errors or lines[-1:]}")
    said, wrong = " | ".join(notices), _wrong(found, wanted[0])
    if not wrong:
        return Outcome(SENTENCE if notices else EQUAL, said)
    if notices and any(_acceptable(found, other) for other in wanted):
        return Outcome(SENTENCE, said)
    return Outcome(OTHER, f"{wrong} {said}".strip())


def worst(*outcomes: Outcome) -> Outcome:
    """The worst of the outcomes of a case."""
    return max(outcomes, key=lambda found: OUTCOMES.index(found.outcome))


def _wrong(found: Found, wanted: Found) -> str:
    """What is first found to be wrong; "" where all is as wanted."""
    for part, content in wanted.items():
        there = found.get(part)
        if there != content:
            if not isinstance(content, dict) or not isinstance(there, dict):
                return f"{part} differs"
            keys = content | there
            first = next(key for key in keys if content.get(key) != there.get(key))
            return f"{part} differs at {first}"
    return ""


def _acceptable(found: Found, wanted: Found) -> bool:
    """Whether all is right but what a notice can speak of: lines that went, or a page."""
    rest = {k: v for k, v in wanted.items() if k not in ("metrics", "page")}
    lines = found.get("metrics", {}).items() <= wanted.get("metrics", {}).items()
    return lines and not _wrong(found, rest)


def numbers(logdir: Path) -> Found:
    """The numbers of a run: the arrays of its last checkpoint, and metrics by step.

    Seconds are left out. What cannot be read is an entry that equals no other.
    """
    import orbax.checkpoint as ocp  # here, as it takes long to import

    found: Found = {"arrays": {}, "metrics": {}}
    try:
        step = checkpoint.steps(logdir / rundir.CHECKPOINTS)[-1]
        last = logdir / rundir.CHECKPOINTS / f"{step:012d}"
        with ocp.PyTreeCheckpointer() as checkpointer:
            arrays = checkpointer.restore(last.absolute() / "arrays")
        found["arrays"] = {"step": step} | {
            name: hashlib.sha256(np.asarray(array).tobytes()).hexdigest()[:16]
            for name, array in arrays.items()
        }
        for line in (logdir / report.METRICS_FILE).read_text().splitlines():
            read = json.loads(line)
            found["metrics"][str(read["step"])] = json.dumps(read["metrics"])
    except Exception as error:  # whatever Orbax says of what is not there
        found["metrics"]["unreadable"] = repr(error)[:200]
    return found
