"""The campaign's judgement, and a handful of its injuries on a small run."""

import functools
import json
import random
import shutil

import pytest

from benchmarks import faults, faults_bench, faults_cases, faults_settings
from benchmarks.faults_bench import Ended

RIGHT = {"arrays": {"step": 8, "params": "a"}, "metrics": {"8": "1"}}
WRONG = {"arrays": {"step": 8, "params": "b"}, "metrics": {"8": "1"}}
NOTICE = "checkpoint 000000000008 is damaged and was passed over."
ERROR = "error: config.json is damaged.\n"


def judged(status, err, found=RIGHT, names=("000000000008",)) -> str:
    return faults_bench.judge(Ended(status, "", err), found, [RIGHT], names)["outcome"]


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        ((0, "device: cpu\n"), "equal"),
        ((0, NOTICE), "sentence"),
        ((0, "continuing from 000000000008."), "equal"),  # says nothing of damage
        ((2, f"device: cpu\n{ERROR}"), "sentence"),
        ((1, ERROR), "sentence"),
        ((0, "", WRONG), "differs"),
        ((0, NOTICE, WRONG), "differs"),  # a notice excuses no wrong number
        ((0, "", {}), "differs"),
        ((1, "Traceback (most recent call last):\nValueError"), "traceback"),
        ((1, "error: unexpected ValueError; please report it."), "unexpected"),
        ((1, ERROR + "and one more"), "unexpected"),
        ((1, ERROR + ERROR), "unexpected"),
        ((1, "ERROR:absl:a thread\n" + ERROR), "unexpected"),
        ((-9, ""), "unexpected"),
        ((None, ""), "unexpected"),
    ],
)
def test_an_end_is_judged_by_its_code_its_words_and_its_numbers(ended, outcome):
    assert judged(*ended) == outcome


def test_a_line_of_metrics_may_be_missing_after_a_notice_and_never_be_wrong():
    gap, wrong = RIGHT | {"metrics": {}}, RIGHT | {"metrics": {"8": "2"}}
    names = ("metrics.jsonl",)
    assert judged(0, "", gap, names) == "differs"
    assert judged(0, "line 1 of metrics.jsonl is damaged.", gap, names) == "sentence"
    assert judged(0, "line 1 of metrics.jsonl is damaged.", wrong, names) == "differs"


def test_the_worst_of_several_outcomes_counts():
    outcomes = [{"outcome": name} for name in ("sentence", "differs", "equal")]
    assert faults_bench.worst(*outcomes) == {"outcome": "differs"}


def test_the_table_counts_each_kind():
    kinds = [("kill", "equal"), ("kill", "differs"), ("file", "sentence")]
    text = faults.table([{"kind": kind, "outcome": outcome} for kind, outcome in kinds])
    rows = [line.split() for line in text.splitlines()[1:]]
    assert rows == [
        ["kill", "2", "1", "0", "1"],
        ["file", "1", "0", "1", "0"],
        ["all", "3", "1", "1", "1"],
    ]


def test_what_happens_to_a_process_is_drawn_from_the_seed_and_the_name(tmp_path):
    def moments(seed):
        bench = faults_bench.Bench(tmp_path, seed)
        return [case.run.args[-1] for case in faults_cases.KINDS["kill"](bench)]

    assert moments(0) == moments(0) != moments(1)
    assert len(moments(0)) >= 50 and all(0 <= moment < 1 for moment in moments(0))


@pytest.mark.parametrize("how", faults_cases.INJURIES)
def test_an_injury_changes_the_file(tmp_path, how):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    faults_cases.INJURIES[how](path, random.Random(0))
    if how == "read-only":
        assert not path.stat().st_mode & 0o222
    else:
        assert not path.is_file() or path.read_bytes() != bytes(range(100))


# -------------------------------------------------------------------------- on a small run


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A campaign, without its processes: what a Bench asks for is called here."""
    made = faults_bench.Bench(tmp_path_factory.mktemp("faults"), 0)
    made._cache = lambda: "--compile_cache="
    return made


@functools.cache
def trained(bench, epochs):
    """The directory of a run of bc, and its numbers."""
    logdir = bench.workdir / str(epochs)
    ended = faults_bench.call(bench.train("bc", logdir, epochs))
    assert ended.status == 0, ended.err
    return logdir, faults_bench.numbers(logdir)


def resumed(bench, injure, names) -> dict:
    logdir = bench.workdir / "injured"
    shutil.rmtree(logdir, ignore_errors=True)
    shutil.copytree(trained(bench, 2)[0], logdir)
    injure(logdir)
    ended = faults_bench.call(bench.resume(logdir, 3))
    return faults_bench.judge(
        ended, faults_bench.numbers(logdir), [trained(bench, 3)[1]], names
    )


def last(logdir):
    return max((logdir / "checkpoints").iterdir())


def test_a_run_that_is_resumed_is_equal(bench):
    assert resumed(bench, lambda logdir: None, ("run",))["outcome"] == "equal"


def test_wrong_metrics_in_silence_differ(bench):
    def injure(logdir):
        path = logdir / "metrics.jsonl"
        first, *rest = path.read_text().splitlines()
        line = json.loads(first)
        line["metrics"] = {name: [0.125, 0.125] for name in line["metrics"]}
        path.write_text("\n".join([json.dumps(line), *rest]) + "\n")

    assert resumed(bench, injure, ())["outcome"] == "differs"


@pytest.mark.parametrize("how", ["one bit flipped", "cut", "removed"])
def test_an_injured_checkpoint_is_told_and_the_run_goes_on(bench, how):
    def injure(logdir):
        path = last(logdir) / "arrays" / "_METADATA"
        faults_cases.INJURIES[how](path, random.Random(0))

    outcome = resumed(bench, injure, (f"{2 * 8:012d}",))
    assert (outcome["outcome"], outcome["status"]) == ("sentence", 0), outcome


def test_a_file_that_cannot_grow_is_one_sentence(bench):
    logdir = bench.workdir / "limited"
    ended = faults_bench.call(bench.train("bc", logdir, 2), file_size=400)
    assert faults_bench.judge(ended, {}, [RIGHT])["outcome"] == "sentence", ended


def test_a_directory_that_vanishes_while_training_ends_without_a_traceback(bench):
    logdir = bench.workdir / "vanishing"
    ended = faults_bench.call(
        bench.train("bc", logdir, 2), after=[1, "vanish", str(logdir)]
    )
    assert ended.status in (0, 1) and "Traceback" not in ended.err, ended


def test_every_method_of_the_campaign_has_small_settings():
    for method in faults_settings.METHODS:
        assert faults_settings.get_config(method)["loop"]["num_envs"] == 2
