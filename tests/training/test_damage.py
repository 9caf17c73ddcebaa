"""Files of a run that were cut or changed are noticed, and cost nothing that is sound."""

import json
import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.base import TrainState, UsageError, UserError
from planil_jax.training import checkpoint, files, lock, report, rundir

pytestmark = pytest.mark.fast
CONFIG = json.dumps({"version": 2, "seed": 0})


def state(fill: float) -> TrainState:
    return TrainState(
        agent={"params": jnp.full((2, 3), fill, jnp.float32)},
        env=jnp.zeros((2, 4), jnp.uint8),
        carry=(),
        key=jax.random.split(jax.random.key(0), 2),
    )


@pytest.fixture
def checkpoints(tmp_path):
    """Two good checkpoints, of steps 1 and 2, filled with their steps."""
    for step in (1, 2):
        checkpoint.save(
            tmp_path, state(step), step=step, round_=step, score=step, keep_last=9
        )
    return tmp_path


def restored(directory) -> tuple[int, float]:
    found = checkpoint.restore_latest(directory, state(0.0))
    assert found is not None
    return found.step, float(found.state.agent["params"][0, 0])


# ---------------------------------------------------------------------------- checkpoints


def test_any_flipped_bit_of_a_manifest_is_noticed(checkpoints):
    path = checkpoints / f"{2:012d}"
    manifest = path / "checkpoint.json"
    good = manifest.read_bytes()
    checkpoint._read_manifest(path)
    for bit in range(8 * len(good)):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        manifest.write_bytes(changed)
        with pytest.raises(checkpoint._DamagedError):
            checkpoint._read_manifest(path)


@pytest.mark.parametrize(
    "content", [b"", b"5", b"[" * 100_000, b"\xff\xfe", b"null", b'{"format": 99}']
)
def test_a_damaged_checkpoint_ends_neither_resuming_nor_saving_nor_the_best(
    checkpoints, content
):
    (checkpoints / f"{2:012d}" / "checkpoint.json").write_bytes(content)
    assert restored(checkpoints) == (1, 1.0)
    best = checkpoint.restore_params(checkpoints, state(0.0).agent["params"], "best")
    assert best.step == 1
    assert f"{1:012d} is kept" in checkpoint.newest(checkpoints)
    checkpoint.save(checkpoints, state(3.0), step=3, round_=3)
    assert restored(checkpoints) == (3, 3.0)


def test_a_checkpoint_under_the_name_of_another_is_damaged(checkpoints):
    (checkpoints / f"{2:012d}").rename(checkpoints / f"{7:012d}")
    assert restored(checkpoints) == (1, 1.0)


def test_a_file_in_place_of_a_checkpoint_is_passed_over(checkpoints):
    (checkpoints / f"{9:012d}").write_text("a file")
    (checkpoints / "17").mkdir()
    (checkpoints / ".unfinished-file").write_text("a file")
    assert checkpoint.steps(checkpoints) == [1, 2]
    assert restored(checkpoints) == (2, 2.0)
    assert not (checkpoints / ".unfinished-file").exists()


def test_a_damaged_checkpoint_that_is_asked_for_is_refused_with_those_there_are(
    checkpoints,
):
    (checkpoints / f"{2:012d}" / "checkpoint.json").unlink()
    with pytest.raises(UserError, match="is damaged.*Ask for one of 1."):
        checkpoint.restore_params(checkpoints, state(0.0).agent["params"], 2)


def test_a_checkpoint_that_a_training_removes_while_it_is_read_is_not_damaged(
    checkpoints, monkeypatch
):
    """While one is read, the training saves the next and removes those before."""
    read, saves = checkpoint._read, [3]

    def read_late(path, *args):
        if saves:
            step = saves.pop(0)
            checkpoint.save(
                checkpoints, state(step), step=step, round_=step, keep_last=1, keep_best=0
            )
        return read(path, *args)

    monkeypatch.setattr(checkpoint, "_read", read_late)
    params = state(0.0).agent["params"]
    found = checkpoint.restore_params(checkpoints, params)
    assert found.step == 3 and float(found.state[0, 0]) == 3.0 and found.notices == ()
    saves[:] = [4]
    with pytest.raises(UserError, match="no checkpoint 3 is in .*or one of 4"):
        checkpoint.restore_params(checkpoints, params, 3)
    saves[:] = [5, 6]
    with pytest.raises(UserError, match="5 was removed while it was read, as one before"):
        checkpoint.restore_params(checkpoints, params)


# -------------------------------------------------------------------------------- metrics


def lines(directory, steps=(10, 20, 30, 40)) -> list[bytes]:
    with report.Report(directory, console=False) as writer:
        writer.start(0, 100)
        for step in steps:
            writer.epoch(step, {"a": np.array([step, 2.0 * step])})
    return (directory / report.METRICS_FILE).read_bytes().splitlines(keepends=True)


class Telling(report.Report):
    """Keeps what it says."""

    def __init__(self, logdir):
        super().__init__(logdir, console=False)
        self.said: list[str] = []

    def say(self, sentence):
        self.said.append(sentence)


@pytest.mark.parametrize(
    "bad",
    [
        b"5\n",
        b"not JSON\n",
        b"\x00\xff\xfe\n",
        b"{}\n",
        b"[" * 100_000 + b"\n",
        b'{"step": "20", "metrics": {}}\n',
        b'{"step": 20, "metrics": {"a": [1, "b"]}}\n',
        b'{"step": 20, "metrics": {"a": [1, 2, 3]}}\n',
        b'{"step": 20, "metrics": {"a": [1, NaN]}}\n',
        b'{"step": 90, "metrics": {"a": [1, 2]}}\n',
        b'{"step": 5, "metrics": {"a": [1, 2]}}\n',
    ],
)
def test_a_bad_line_in_the_middle_is_reported_and_costs_no_other(tmp_path, bad):
    path = tmp_path / report.METRICS_FILE
    first, second, third, fourth = lines(tmp_path)
    damaged = b"".join([first, bad, third, fourth])
    path.write_bytes(damaged)
    with pytest.warns(files.DamageWarning, match="line 2 was left out"):
        assert report.read_metrics(tmp_path)["a"][0].tolist() == [10, 30, 40]
    writer = Telling(tmp_path)
    writer.start(30, 100)
    if b"90" not in bad:  # which is a later line, as far as one can know
        (told,) = writer.said
        assert "line 2 was left out" in told and "metrics.jsonl.damaged" in told
        assert (tmp_path / report.DAMAGED_FILE).read_bytes() == damaged
    assert path.read_bytes() == first + third


def test_every_flipped_bit_of_metrics_is_reported_or_changes_nothing(tmp_path):
    good = b"".join(lines(tmp_path, (10, 20, 30)))
    wanted = report.read_metrics(tmp_path)["a"]
    path = tmp_path / report.METRICS_FILE
    for bit in range(0, 8 * len(good), 3):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        writer = Telling(tmp_path)
        writer._files = writer._files[:1]
        writer.start(30, 100)
        if not writer.said:
            found = report.read_metrics(tmp_path)["a"]
            np.testing.assert_array_equal(found[0], wanted[0])
            np.testing.assert_array_equal(found[1], wanted[1])


def test_metrics_that_were_lost_are_told(tmp_path):
    first, *_ = lines(tmp_path)
    (tmp_path / report.METRICS_FILE).write_bytes(first)
    writer = Telling(tmp_path)
    writer.start(30, 100)
    assert "no lines after step 10: its curves have a gap until step 30" in writer.said[0]


def test_seconds_are_those_of_the_last_whole_line(tmp_path):
    written = lines(tmp_path)
    path = tmp_path / report.METRICS_FILE
    path.write_bytes(b"".join(written)[:-9])
    third = json.loads(written[2])
    wanted = third["seconds"], third["processor_seconds"]
    assert report.read_seconds(tmp_path) == wanted
    path.unlink()
    assert report.read_seconds(tmp_path) == (None, None)


def test_as_many_steps_as_can_be_are_kept_in_order():
    for steps, kept in [
        ([], []),
        ([10, 90, 20, 30], [10, 20, 30]),
        ([10, 20, 1, 30, 40], [10, 20, 30, 40]),
        ([1, 2, 2, 3], [1, 2, 3]),
    ]:
        assert [steps[i] for i in report._longest_rise(steps)] == kept


# ------------------------------------------------------------------------------ directory


def begun(directory):
    rundir.open_run(directory, CONFIG, resume=False)
    (directory / report.METRICS_FILE).write_text('{"step": 5, "metrics": {}}\n')


@pytest.mark.parametrize(
    "content", [b"", b"5", b"[" * 100_000, b"\xff\xfe\x00", b'{"jax": ', b"null"]
)
def test_damaged_versions_are_a_notice_and_a_damaged_configuration_is_refused(
    tmp_path, content
):
    begun(tmp_path)
    versions, settings = tmp_path / "versions.json", tmp_path / "config.json"
    versions.write_bytes(content)
    (told,) = [
        notice
        for notice in rundir.open_run(tmp_path, CONFIG, resume=True)
        if "is damaged" in notice
    ]
    assert str(versions) in told
    assert json.loads(versions.read_text())["jax"]  # it is written anew
    versions.write_bytes(content)
    with pytest.warns(files.DamageWarning, match="versions.json is damaged"):
        assert rundir.saved_versions(tmp_path) == {"commit": ""}
    settings.write_bytes(content)
    with pytest.raises(UsageError, match="config.json is damaged.*put a copy of it back"):
        rundir.open_run(tmp_path, CONFIG, resume=True)


def test_a_configuration_that_changed_is_told(tmp_path):
    begun(tmp_path)
    other = CONFIG.replace('"seed": 0', '"seed": 4')
    (tmp_path / "config.json").write_text(other)
    notices = rundir.open_run(tmp_path, other, resume=True)
    assert any("config.json has changed since it was written" in told for told in notices)
    assert not any(
        "config.json has changed" in told
        for told in rundir.open_run(tmp_path, other, resume=True)
    )


def test_a_run_that_never_ended_an_epoch_may_be_set_anew(tmp_path):
    rundir.open_run(tmp_path, CONFIG, resume=False)
    (tmp_path / report.METRICS_FILE).touch()
    other = CONFIG.replace('"seed": 0', '"seed": 4')
    (told,) = rundir.open_run(tmp_path, other, resume=False)
    assert "ended before its first epoch did" in told
    assert rundir.read_config(tmp_path) == other


def test_nothing_is_made_before_the_run_begins(tmp_path):
    logdir = tmp_path / "a" / "run"
    with rundir.opened(logdir, CONFIG, resume=False) as directory:
        assert list(tmp_path.iterdir()) == []
        directory.begin()
        assert {path.name for path in logdir.iterdir()} == {
            ".lock",
            "config.json",
            "versions.json",
        }
    assert not (logdir / ".lock").exists()


# ----------------------------------------------------------------------------------- lock


def test_a_second_training_in_a_directory_is_refused_until_the_first_ends(tmp_path):
    begun(tmp_path)
    with rundir.opened(tmp_path, CONFIG, resume=True):
        with pytest.raises(UsageError, match=rf"\({os.getpid()} on .*trains in {tmp_path}"):
            rundir.open_run(tmp_path, CONFIG, resume=True)
        rundir.open_run(tmp_path / "other", CONFIG, resume=False)
    rundir.open_run(tmp_path, CONFIG, resume=True)


def test_two_that_make_the_same_directory_do_not_both_train(tmp_path):
    logdir = tmp_path / "run"
    with (
        rundir.opened(logdir, CONFIG, resume=True) as first,
        rundir.opened(logdir, CONFIG, resume=True) as second,
    ):
        first.begin()
        with pytest.raises(UsageError, match="trains in"):
            second.begin()
    with rundir.opened(tmp_path / "late", CONFIG, resume=True) as late:
        begun(tmp_path / "late")
        with pytest.raises(UsageError, match="began a run in .* meanwhile"):
            late.begin()


def test_a_lock_dies_with_its_process(tmp_path):
    program = (
        "import pathlib, sys, time\n"
        "from planil_jax.training import lock\n"
        "with lock.held(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"{process.pid} on"), lock.held(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert (tmp_path / ".lock").exists()
    with lock.held(tmp_path) as notices:
        assert notices == []
    assert list(tmp_path.iterdir()) == []


def test_without_locks_training_goes_on_with_a_notice(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    with lock.held(tmp_path) as (told,):
        assert "cannot be locked" in told


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("name", ["config.json", "versions.json", "metrics.jsonl"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path, name):
    begun(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if name == "config.json":
            with pytest.raises(UsageError):
                rundir.saved_config(tmp_path)
        elif name == "versions.json":
            assert rundir.saved_versions(tmp_path) == {"commit": ""}
        else:
            assert report.read_metrics(tmp_path) == {}
    told = " ".join(str(one.message) for one in caught)
    assert name == "config.json" or "it is a pipe or a device" in told
