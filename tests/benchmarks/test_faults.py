"""The campaign's judgement, and a few of its cases on a small run."""

import io
import random
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
from absl import flags

from benchmarks import (
    faults,
    faults_bench,
    faults_files,
    faults_judge,
    faults_process,
    faults_settings,
    faults_trainings,
)
from benchmarks.faults_judge import EQUAL, OTHER, SENTENCE, Outcome
from benchmarks.faults_process import Ended
from planil_jax.training import report

RIGHT = {"arrays": {"step": 8, "params": "a"}, "metrics": {"8": "1"}}
WRONG = {"arrays": {"step": 8, "params": "b"}, "metrics": {"8": "1"}}
NOTICE = "checkpoint 000000000008 is damaged and was passed over."
ERROR = "error: config.json is damaged.\n"


def judged(status, err, found=RIGHT, names=("000000000008",)) -> str:
    return faults_judge.judge(Ended(status, "", err), found, [RIGHT], names).outcome


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        ((0, "device: cpu\n"), EQUAL),
        ((0, NOTICE), SENTENCE),
        ((0, "continuing from 000000000008."), EQUAL),  # says nothing of damage
        ((2, f"device: cpu\n{ERROR}"), SENTENCE),
        ((1, ERROR), SENTENCE),
        ((0, "", WRONG), OTHER),
        ((0, NOTICE, WRONG), OTHER),  # a notice excuses no wrong number
        ((0, "", {}), OTHER),
        ((1, "Traceback (most recent call last):\nValueError"), OTHER),
        ((1, "error: unexpected ValueError; please report it."), OTHER),
        ((1, ""), OTHER),
        ((1, ERROR + "and one more"), OTHER),
        ((1, ERROR + ERROR), OTHER),
        ((1, "ERROR:absl:a thread\n" + ERROR), OTHER),
        ((-9, ""), OTHER),
        ((None, ""), OTHER),
    ],
)
def test_an_end_is_judged_by_its_code_its_words_and_its_numbers(ended, outcome):
    assert judged(*ended) == outcome


def test_a_line_of_metrics_may_be_missing_after_a_notice_and_never_be_wrong():
    gap, wrong = RIGHT | {"metrics": {}}, RIGHT | {"metrics": {"8": "2"}}
    names = ("metrics.jsonl",)
    assert judged(0, "", gap, names) == OTHER
    assert judged(0, "line 1 of metrics.jsonl is damaged.", gap, names) == SENTENCE
    assert judged(0, "line 1 of metrics.jsonl is damaged.", wrong, names) == OTHER


def test_the_worst_of_several_outcomes_counts():
    outcomes = [Outcome(name, "") for name in (SENTENCE, OTHER, EQUAL)]
    assert faults_judge.worst(*outcomes) == Outcome(OTHER, "")


def test_the_table_counts_each_kind():
    kinds = [("kill", EQUAL), ("kill", OTHER), ("file", SENTENCE)]
    text = faults.table([{"kind": kind, "outcome": outcome} for kind, outcome in kinds])
    rows = [line.split() for line in text.splitlines()[1:]]
    assert rows == [
        ["file", "1", "0", "1", "0"],
        ["kill", "2", "1", "0", "1"],
        ["all", "3", "1", "1", "1"],
    ]


def test_the_moments_of_kills_are_drawn_from_the_seed(tmp_path):
    def moments(seed):
        bench = faults_bench.Bench(tmp_path, seed)
        return [case.run.args[-1] for case in faults_trainings.kills(bench)]

    assert moments(0) == moments(0) != moments(1)
    assert len(moments(0)) >= 50 and all(0 <= moment < 1 for moment in moments(0))


@pytest.mark.parametrize("how", faults_files.INJURIES)
def test_an_injury_changes_the_file(tmp_path, how):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    faults_files.INJURIES[how](path, random.Random(0))
    if how == "read-only":
        assert not path.stat().st_mode & 0o222
    else:
        assert not path.is_file() or path.read_bytes() != bytes(range(100))


def test_a_case_that_was_judged_is_not_run_again(tmp_path):
    bench, ran = faults_bench.Bench(tmp_path, 0), []

    def case(name):
        return faults_bench.Case(
            "kind", name, lambda _: ran.append(name) or Outcome(EQUAL, "")
        )

    assert len(faults.work(bench, [case("a")], 60.0)) == 1
    assert len(faults.work(bench, [case("a"), case("b")], 60.0)) == 2
    assert ran == ["a", "b"]


def test_every_method_of_the_campaign_has_small_settings():
    for method in faults_settings.METHODS:
        assert faults_settings.get_config(method)["loop"]["num_envs"] == 2


# ------------------------------------------------------------------- cases on a small run


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A campaign without its processes: commands are called here."""
    made = faults_bench.Bench(tmp_path_factory.mktemp("faults"), 0)
    made.call, made.cache = call, "--compile_cache="
    return made


def call(argv, after=(), file_size=None) -> Ended:
    before, out, err, status = set(flags.FLAGS), io.StringIO(), io.StringIO(), None
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", [])
        patch.setattr(report.Report, "epoch", report.Report.epoch)  # as it was, afterwards
        try:
            faults_process.run(argv, after, file_size)
        except SystemExit as left:
            status = left.code
    for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)
    flags.FLAGS.unparse_flags()
    return Ended(status, out.getvalue(), err.getvalue())


def found(bench, cases, name) -> Outcome:
    return next(case for case in cases(bench) if name in case.name).run(bench)


@pytest.mark.parametrize(
    ("cases", "name", "outcome"),
    [
        (faults_files.files, "000048/checkpoint.json, one bit flipped", SENTENCE),
        (faults_files.files, "metrics.jsonl, other bytes, resume", SENTENCE),
        (faults_trainings.places, "bc, vanish after epoch 1", SENTENCE),
    ],
)
def test_a_case_ends_right(bench, cases, name, outcome):
    assert found(bench, cases, name).outcome == outcome


def test_wrong_numbers_in_silence_are_found_out(bench, monkeypatch):
    real = faults_files.numbers
    wrong = {"metrics": {"8": "0"}}
    monkeypatch.setattr(faults_files, "numbers", lambda logdir: real(logdir) | wrong)
    name = "versions.json, read-only, resume"
    assert found(bench, faults_files.files, name).outcome == OTHER
