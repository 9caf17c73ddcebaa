"""Disturbs runs in every way that was thought of, and says how each ends.

    python -m benchmarks.faults --minutes=40 --out=results/benchmarks/faults.json
    python -m benchmarks.faults --only=kill,file --minutes=10

Kills and signals at random moments, full disks, injured files of a run, directories that
move or vanish, two processes at once, clocks that are set, and changed files of others.
Each kind is a line of the table:

    equal      all numbers are, bit for bit, those of a run that nothing disturbed
    sentence   it ended in one sentence, or said what was wrong and went on right
    other      wrong numbers without a word, a traceback, several lines, or no end

The work stops after so many minutes, and goes on where it is started again with the same
--workdir and --seed. --workdir/cases_SEED.jsonl has every case with its words.
"""

import json
import os
import shlex
import shutil
import sys
import time
from collections import Counter
from typing import Any

from absl import flags

from benchmarks import (
    faults_bench,
    faults_files,
    faults_judge,
    faults_settings,
    faults_trainings,
    timing,
)
from planil_jax.base import UsageError, UserError
from planil_jax.cli import app
from planil_jax.evaluation import results

FLAGS = flags.FLAGS
CASES = {
    "kill": faults_trainings.kills,
    "signal": faults_trainings.signals,
    "disk": faults_trainings.disks,
    "place": faults_trainings.places,
    "clock": faults_trainings.clocks,
    "twice": faults_trainings.twice,
    "file": faults_files.files,
    "mutation": faults_files.mutations,
}
MEANING = (
    "Equal: all numbers are, bit for bit, those of a run that nothing disturbed. Sentence: "
    "it ended in one sentence, or said what was wrong and went on right. Other: wrong "
    "numbers without a word, a traceback, several lines, or no end."
)
Lines = list[dict[str, Any]]  # of the judged cases


def define_flags() -> None:
    """Not on import: other benchmarks have flags of the same names."""
    flags.DEFINE_float("minutes", 40.0, "Time to work.", lower_bound=0.0)
    flags.DEFINE_list("only", [], f"Which cases: {', '.join(CASES)}.")
    flags.DEFINE_string("workdir", "runs/faults", "Keeps finished cases, to go on.")
    flags.DEFINE_integer("seed", 0, "Which cases are drawn.", lower_bound=0)
    flags.DEFINE_string("out", None, "File of results to write, .json.")


def main() -> None:
    which = FLAGS.only or list(CASES)
    if unknown := [name for name in which if name not in CASES]:
        raise UsageError(f"--only has no {unknown[0]!r}. There are: {', '.join(CASES)}.")
    timing.writable(FLAGS.out)
    bench = faults_bench.Bench(FLAGS.workdir, FLAGS.seed)
    judged = work(bench, plan(bench, which), 60.0 * FLAGS.minutes)
    print(table(judged))
    if FLAGS.out and judged:
        print(results.write(FLAGS.out, content(judged)))
    if others := [line for line in judged if line["outcome"] == faults_judge.OTHER]:
        raise UserError(f"{len(others)} of {len(judged)} ended otherwise.")


def plan(bench: faults_bench.Bench, which: list[str]) -> list[faults_bench.Case]:
    """All cases of some entries of CASES, in turn: the first of them are of all kinds."""
    listed = [list(CASES[name](bench)) for name in which]
    placed = [((n + 0.5) / len(of), case) for of in listed for n, case in enumerate(of)]
    return [case for _, case in sorted(placed, key=lambda item: item[0])]


def work(
    bench: faults_bench.Bench, cases: list[faults_bench.Case], seconds: float
) -> Lines:
    """Does the cases that were not judged before; a line for each that is judged."""
    until = time.monotonic() + seconds
    path = bench.workdir / f"cases_{bench.seed}.jsonl"
    judged = list(map(json.loads, path.read_text().splitlines())) if path.exists() else []
    left = {case.name for case in cases} - {line["case"] for line in judged}
    for case in cases:
        if case.name not in left or time.monotonic() > until:
            continue
        ended = case.run(bench)
        several = ended if isinstance(ended, list) else [(case.kind, case.name, ended)]
        lines = [
            {"case": case.name, "kind": kind, "name": name} | outcome._asdict()
            for kind, name, outcome in several
        ]
        with open(path, "a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        left.remove(case.name)
        judged += lines
        others = [line for line in lines if line["outcome"] == faults_judge.OTHER]
        for line in others or lines[:1]:
            timing.say(f"{line['name']}: {line['outcome']} {line['words'][:160]}")
    if left:
        timing.say(f"{len(left)} of {len(cases)} cases are left: start it again to go on.")
    planned = {case.name for case in cases}
    return [line for line in judged if line["case"] in planned]


def counted(judged: Lines) -> dict[str, dict[str, int]]:
    """How many cases of each kind there were, and how many had each outcome."""
    many = Counter((line["kind"], line["outcome"]) for line in judged)
    rows = {}
    for kind in sorted({line["kind"] for line in judged}):
        row = {outcome: many[kind, outcome] for outcome in faults_judge.OUTCOMES}
        rows[kind] = {"cases": sum(row.values())} | row
    return rows


def table(judged: Lines) -> str:
    """A line a kind, and one for all."""
    rows = counted(judged) | counted([line | {"kind": "all"} for line in judged])
    lines = ["".join(["kind of fault".ljust(34), *(f"{name:>10}" for name in rows["all"])])]
    for kind, row in rows.items():
        lines.append(
            "".join([kind.ljust(34), *(f"{number:10}" for number in row.values())])
        )
    return "\n".join(lines)


def content(judged: Lines) -> dict[str, Any]:
    """A file of results: the table, and those that ended otherwise in words."""
    rows = counted(judged)
    others = [
        f"{line['name']}: {line['words']}."
        for line in judged
        if line["outcome"] == faults_judge.OTHER
    ]
    return results.new(
        "campaign",
        shlex.join(["python", "-m", "benchmarks.faults", *sys.argv[1:]]),
        {"seed": FLAGS.seed, "sizes": faults_settings.SIZES},
        cases=[{"name": kind} for kind in rows],
        outcomes=list(rows.values()),
        note=" ".join([MEANING, *others]),
    )


def be_a_user() -> None:
    """Root is held to permissions, as a user is, without a capability that it has."""
    if os.geteuid() == 0 and "FAULTS_AS_USER" not in os.environ and shutil.which("setpriv"):
        os.environ["FAULTS_AS_USER"] = "1"
        os.execvp("setpriv", ["setpriv", "--bounding-set=-dac_override", *sys.orig_argv])


if __name__ == "__main__":
    be_a_user()
    define_flags()
    app.run(main)
