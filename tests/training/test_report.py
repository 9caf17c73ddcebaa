import errno
import io
import json
import math
import shutil
import sys
import time

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import RecordWriter

from planil_jax.base import UserError
from planil_jax.training import report


def write(logdir, steps, start=0, **options):
    """Reports one epoch a step: "a/b" is the step of seed 0, and one less of seed 1."""
    with report.Report(logdir, console=False, **options) as writer:
        writer.start(start, 1000)
        for step in steps:
            writer.epoch(step, {"a/b": np.array([step, step - 1], np.float32)})


def events(logdir, label):
    """TensorBoard's events: 8 bytes of length, 4 of checksum, data, 4 of checksum."""
    found = []
    for path in sorted((logdir / "tensorboard" / label).iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


# --------------------------------------------------------------------------------- lines


def test_metrics_are_read_back_as_they_were_written(tmp_path):
    tenth = np.float32(0.1)
    with report.Report(tmp_path, console=False) as writer:
        writer.start(0, 20)
        writer.epoch(10, {"a/b": np.array([tenth, 2.0], np.float32)})
        writer.epoch(20, {"a/b": np.array([3.0, 4.0]), "eval/return": np.array([5, 6])})
    metrics = report.read_metrics(tmp_path)
    assert metrics.keys() == {"a/b", "eval/return"}
    steps, values = metrics["a/b"]
    assert steps.tolist() == [10, 20]
    assert values.astype(np.float32).tolist() == [[tenth, 2.0], [3.0, 4.0]]
    assert metrics["eval/return"][0].tolist() == [20]
    assert metrics["eval/return"][1].tolist() == [[5, 6]]


def test_a_line_is_strict_json_even_where_numbers_are_not_finite(tmp_path):
    with report.Report(tmp_path, console=False) as writer:
        writer.start(0, 10)
        writer.epoch(10, {"a": np.array([math.nan, math.inf, 1.0])})

    def refuse(constant):
        raise AssertionError(constant)

    (line,) = (tmp_path / report.METRICS_FILE).read_text().splitlines()
    parsed = json.loads(line, parse_constant=refuse)
    assert parsed["metrics"] == {"a": [None, None, 1.0]}
    assert parsed["step"] == 10
    assert parsed.keys() == {"step", "seconds", "processor_seconds", "metrics", "crc32"}
    np.testing.assert_array_equal(
        report.read_metrics(tmp_path)["a"][1], [[math.nan, math.nan, 1.0]]
    )


def test_every_epoch_is_on_the_disk_before_the_next(tmp_path):
    writer = report.Report(tmp_path, console=False)
    writer.start(0, 20)
    for step in (10, 20):
        writer.epoch(step, {"a": np.array([1.0])})
        assert report.read_metrics(tmp_path)["a"][0][-1] == step


def test_lines_after_the_resumed_step_are_dropped(tmp_path):
    write(tmp_path, [10, 20, 30])
    write(tmp_path, [30, 40], start=20)
    assert report.read_metrics(tmp_path)["a/b"][0].tolist() == [10, 20, 30, 40]


def test_a_line_that_was_cut_short_is_dropped(tmp_path):
    write(tmp_path, [10, 20])
    with open(tmp_path / report.METRICS_FILE, "a") as file:
        file.write('{"step": 30, "sec')
    assert report.read_metrics(tmp_path)["a/b"][0].tolist() == [10, 20]
    write(tmp_path, [30], start=20)
    assert report.read_metrics(tmp_path)["a/b"][0].tolist() == [10, 20, 30]


def test_seconds_go_on_where_a_resumed_run_stopped(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(report.time, "process_time", lambda: 2 * clock[0])
    writer = report.Report(tmp_path, console=False)
    writer.start(0, 20)
    clock[0] += 7.0
    writer.epoch(10, {"a": np.array([1.0])})
    clock[0] = 5.0  # another boot
    writer = report.Report(tmp_path, console=False)
    writer.start(10, 20)
    clock[0] += 2.0
    writer.epoch(20, {"a": np.array([1.0])})
    lines = (tmp_path / report.METRICS_FILE).read_text().splitlines()
    assert [json.loads(line)["seconds"] for line in lines] == [7.0, 9.0]
    assert [json.loads(line)["processor_seconds"] for line in lines] == [14.0, 18.0]


def test_metrics_of_a_directory_without_a_run_are_none(tmp_path):
    assert report.read_metrics(tmp_path) == {}


# --------------------------------------------------------------------------- tensorboard


def test_tensorboard_has_a_directory_for_each_member_by_its_label(tmp_path):
    write(tmp_path, [10, 20], labels=["seed 5, agent.rate=0.1", "seed 5, agent.rate=0.2"])
    assert {path.name for path in (tmp_path / "tensorboard").iterdir()} == {
        "seed 5, agent.rate=0.1",
        "seed 5, agent.rate=0.2",
    }
    scalars = [
        (event.step, value.tag, value.simple_value)
        for event in events(tmp_path, "seed 5, agent.rate=0.2")
        for value in event.summary.value
    ]
    assert scalars == [(10, "a/b", 9.0), (20, "a/b", 19.0)]


def test_tensorboard_restarts_at_the_step_after_the_resumed_one(tmp_path):
    write(tmp_path, [10, 20, 30])
    write(tmp_path, [30], start=20)
    starts = [
        event.step for event in events(tmp_path, "seed 0") if event.HasField("session_log")
    ]
    assert starts == [1, 21]


# ------------------------------------------------------------------------------ full disk


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    writer = report.Report(tmp_path, console=False)
    writer.start(0, 10)
    monkeypatch.setattr(RecordWriter, "write", full)
    with pytest.raises(UserError, match="the disk is full.*tensorboard"):
        writer.epoch(10, {"a": np.array([1.0])})


def test_a_disk_that_fills_up_before_the_start_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(report.os, "replace", full)
    with pytest.raises(UserError, match="the disk is full.*metrics.jsonl"):
        report.Report(tmp_path, console=False).start(0, 10)


# -------------------------------------------------------------------------------- console


def test_a_directory_that_is_removed_while_training_is_not_begun_anew(tmp_path):
    logdir = tmp_path / "run"
    with pytest.raises(UserError, match="run was moved or removed while it was trained in"):
        with report.Report(logdir, console=False) as made:
            made.start(0, 8)
            shutil.rmtree(logdir)
            made.epoch(4, {"loss": np.zeros(1)})
    assert not logdir.exists()


def test_without_a_terminal_the_first_and_the_last_epoch_get_a_line(capsys):
    writer = report.Report()
    writer.start(0, 400)
    for step in (100, 200, 300, 400):
        writer.epoch(step, {"eval/return": np.array([-1.0, -3.0])})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" · ")[0] for line in lines] == [
        "step 100 of 400",
        "step 400 of 400",
    ]
    assert all("eval/return -2 (-3 to -1)" in line for line in lines)
    assert "left" in lines[0] and "left" not in lines[1]


def test_speed_counts_the_steps_of_all_seeds_since_the_start(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: clock[0])
    writer = report.Report()
    writer.start(100, 1100)
    clock[0] = 10.0
    writer.epoch(200, {"train/reward": np.array([1.0, 1.0, 1.0])})
    line = capsys.readouterr().err
    assert "30 steps/s" in line  # 100 steps of 3 seeds in 10 s
    assert "90 s left" in line  # 900 steps at 10 a second


def test_a_terminal_sees_how_long_compilation_takes(capsys, monkeypatch):
    monkeypatch.setattr(report.sys.stderr, "isatty", lambda: True, raising=False)
    writer = report.Report()
    with writer.compiling("training"):
        time.sleep(1.2)
    written = capsys.readouterr().err
    assert "\rcompiling training… 1 s" in written
    assert "compiled training in 1." in written


def test_a_terminal_sees_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(report.sys.stderr, "isatty", lambda: True, raising=False)
    with report.Report() as writer:
        writer.start(0, 200)
        writer.epoch(100, {"eval/return": np.array([-1.0])})
        writer.say("a sentence.")
    written = capsys.readouterr().err
    assert " 50%|" in written and "eval/return -1" in written
    assert "\na sentence.\n" in written.replace("\r", "\n")


def test_training_goes_on_where_nobody_reads_its_words_any_more(tmp_path, monkeypatch):
    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Broken())
    with report.Report(tmp_path) as told:
        with told.compiling("training"):
            told.start(0, 2)
        told.epoch(1, {"a": np.array([1.0])})
        told.say("a sentence")
    np.testing.assert_array_equal(report.read_metrics(tmp_path)["a"][0], [1])


def test_a_silent_report_says_nothing_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    writer = report.Report(console=False)
    with writer.compiling("training"):
        writer.start(0, 1)
    writer.epoch(1, {"a": np.array([1.0])})
    writer.say("a sentence")
    writer.close()
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_exceeds_its_total_says_so(capsys):
    writer = report.Report()
    writer.last_step(0, 50_000, epoch=6_400)
    assert "step 51200 of 50000: whole epochs of 6400 steps." in capsys.readouterr().err
    writer.last_step(0, 51_200, epoch=6_400)
    writer.last_step(51_200, 50_000, epoch=6_400)  # a run that has reached its total
    assert "whole epochs" not in capsys.readouterr().err
