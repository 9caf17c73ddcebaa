"""Disturbs runs in every way that was thought of, and says how each ends.

    python -m benchmarks.faults --minutes=40 --out=results/benchmarks/faults.json
    python -m benchmarks.faults --only=kill,file --minutes=10

Kills and signals at random moments, full disks, injured files of a run, directories that
move or vanish, two processes at once, clocks that are set, and changed files of others.
Each kind is a line of the table:

    equal      all numbers are, bit for bit, those of a run that nothing disturbed
    sentence   it ended in one sentence, or said what was wrong and went on right
    other      wrong numbers without a word, a traceback, several lines, or no end

The work stops after so many minutes. Started again with the same --workdir and --seed it
goes on. --workdir/cases.jsonl has every case with its words. The file of results counts
them in groups, and lists those that ended otherwise.
"""

import importlib.util
import json
import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import faults_bench, faults_cases, faults_settings, timing
from planil_jax.base import UsageError, UserError
from planil_jax.cli import app
from planil_jax.evaluation import results

FLAGS = flags.FLAGS
RIGHT = ("equal", "sentence")


def define_flags() -> None:
    """Not on import: other benchmarks have flags of the same names."""
    flags.DEFINE_float("minutes", 40.0, "Time to work.", lower_bound=0.0)
    flags.DEFINE_list("only", [], f"Kinds of cases: {', '.join(faults_cases.KINDS)}.")
    flags.DEFINE_string("workdir", "runs/faults", "Keeps finished cases, to go on.")
    flags.DEFINE_integer("seed", 0, "Which cases are drawn.", lower_bound=0)
    flags.DEFINE_string("out", None, "File of results to write, .json.")


def main() -> None:
    kinds = FLAGS.only or list(faults_cases.KINDS)
    if unknown := [kind for kind in kinds if kind not in faults_cases.KINDS]:
        known = ", ".join(faults_cases.KINDS)
        raise UsageError(f"--only has no kind {unknown[0]!r}. There are: {known}.")
    if "mutation" in kinds and not importlib.util.find_spec("benchmarks.mutations"):
        timing.say("note: there is no benchmarks.mutations, so that no file is changed.")
        kinds = [kind for kind in kinds if kind != "mutation"]
    timing.writable(FLAGS.out)
    bench = faults_bench.Bench(FLAGS.workdir, FLAGS.seed)
    try:
        planned, found = work(bench, kinds, 60.0 * FLAGS.minutes)
    finally:
        bench.close()
    print(table(found))
    if planned > len({line["case"] for line in found}):
        print(f"of {planned} cases; start again with the same --workdir to go on")
    if FLAGS.out and found:
        print(results.write(FLAGS.out, content(found)))
    if others := [line for line in found if line["outcome"] not in RIGHT]:
        raise UserError(f"{len(others)} of {len(found)} ended otherwise.")


def work(
    bench: faults_bench.Bench, kinds: list[str], seconds: float
) -> tuple[int, list[dict[str, Any]]]:
    """Does the cases that were not done before; how many there are, and all done."""
    until = time.monotonic() + seconds
    path = Path(bench.workdir / f"cases_{bench.seed}.jsonl")
    done = (
        [json.loads(line) for line in path.read_text().splitlines()]
        if path.exists()
        else []
    )
    names = {line["case"] for line in done}
    cases = faults_cases.plan(bench, kinds)
    for case in cases:
        if case.name in names:
            continue
        if time.monotonic() > until:
            break
        ended = case.run(bench)
        several = ended if isinstance(ended, list) else [(case.group, case.name, ended)]
        of_case = {"kind": case.kind, "case": case.name}
        lines = [
            of_case | {"group": group, "name": name} | outcome
            for group, name, outcome in several
        ]
        with open(path, "a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        done += lines
        wrong = [line for line in lines if line["outcome"] not in RIGHT]
        for line in wrong or lines[:1]:
            timing.say(f"{line['name']}: {line['outcome']} {line['words'][:120]}")
    return len(cases), [line for line in done if line["kind"] in kinds]


def table(found: list[dict[str, Any]]) -> str:
    """A line a kind."""
    head = f"{'kind':10}{'cases':>8}{'equal':>8}{'sentence':>10}{'other':>8}"
    lines = [head]
    for kind in [*dict.fromkeys(line["kind"] for line in found), "all"]:
        of_kind = [line for line in found if kind in (line["kind"], "all")]
        count = Counter(line["outcome"] for line in of_kind)
        other = len(of_kind) - count["equal"] - count["sentence"]
        lines.append(
            f"{kind:10}{len(of_kind):8}{count['equal']:8}{count['sentence']:10}{other:8}"
        )
    return "\n".join(lines)


def content(found: list[dict[str, Any]]) -> dict[str, Any]:
    """A file of results: how many cases of each group had each outcome."""
    groups: dict[str, Counter] = {}
    for line in found:
        groups.setdefault(line["group"], Counter())[line["outcome"]] += 1
    groups = dict(sorted(groups.items()))
    kept = ("name", "outcome", "status", "words")
    return results.new(
        "campaign",
        shlex.join(["python", "-m", "benchmarks.faults", *sys.argv[1:]]),
        {"seed": FLAGS.seed, "sizes": faults_settings.SIZES},
        cases=[{"name": name} for name in groups],
        outcomes=[
            {"cases": count.total()}
            | {outcome: count[outcome] for outcome in faults_bench.OUTCOMES}
            for count in groups.values()
        ],
        extra={
            "otherwise": [
                {name: line[name] for name in kept}
                for line in found
                if line["outcome"] not in RIGHT
            ]
        },
    )


if __name__ == "__main__":
    define_flags()
    app.run(main)
