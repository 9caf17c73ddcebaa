"""Signals stop a training after its epoch, or at once where nothing would be saved."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
import toy

from planil_jax.training import checkpoint, report, signals

NUMBERS = [getattr(signal, name) for name in signals.NAMES]
RARELY = dataclasses.replace(toy.RUN, checkpoint_every=None)


@pytest.fixture(autouse=True)
def default():
    """A process that a shell starts in the background ignores SIGINT; the tests need it."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in NUMBERS}
    yield
    after = {signal.signal(number, handler) for number, handler in before.items()}
    assert after == {signal.SIG_DFL}


class Report(report.Report):
    """Keeps what is said, and does something before the metrics of step 48 are written."""

    def __init__(self, do):
        super().__init__(console=False)
        self.do, self.said = do, []

    def say(self, sentence):
        self.said.append(sentence)

    def epoch(self, step, metrics):
        if step == 48:
            self.do()


def last(epochs):
    """The bytes of the last state."""
    for _, state, _ in epochs:
        leaves = jax.tree.map(checkpoint._plain, jax.tree.leaves(state))
    return [np.asarray(leaf).tobytes() for leaf in leaves]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_lets_the_epoch_end_saves_it_and_says_how_to_go_on(tmp_path, number):
    told = Report(lambda: signal.raise_signal(number))
    kind = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    with pytest.raises(kind) as stopped:
        list(toy.train(config=RARELY, directory=tmp_path, report=told, again="resume it"))
    assert stopped.value.code == 128 + number
    assert checkpoint.steps(tmp_path) == [48]
    assert told.said[-1] == (
        f"{signals.name(number)} stopped training after step 48, which is saved as "
        f"{tmp_path}/000000000048; resume it."
    )
    assert last(toy.train(directory=tmp_path)) == last(toy.train())


def test_a_second_signal_acts_at_once(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(signals.Stopped) as stopped:
        list(toy.train(config=RARELY, directory=tmp_path, report=Report(twice)))
    assert stopped.value.code == 143
    assert "SIGTERM acts at once: what came after the last" in stopped.value.sentence
    assert checkpoint.steps(tmp_path) == []


def test_a_signal_that_comes_again_at_once_is_one_but_for_ctrl_c():
    with pytest.raises(signals.Stopped), signals.patient() as hearing:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert hearing.caught == [signal.SIGTERM] * 2
        waited = True
    assert waited
    with pytest.raises(signals.Interrupted), signals.patient():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second did not act at once")


def test_a_signal_acts_at_once_where_nothing_is_trained():
    with pytest.raises(signals.Stopped) as stopped, signals.heard("nothing is lost"):
        signal.raise_signal(signal.SIGHUP)
        raise AssertionError("the signal was not heard")
    assert stopped.value.code == 129
    assert stopped.value.sentence == "SIGHUP acts at once: nothing is lost."


def test_a_signal_between_two_epochs_waits_for_the_end_of_the_block():
    with pytest.raises(signals.Stopped), signals.heard() as hearing:
        with signals.patient():
            pass
        assert not hearing.patient
        hearing.patient = True
        signal.raise_signal(signal.SIGUSR2)
        with signals.patient() as inner:
            assert inner.caught == [signal.SIGUSR2]
        waited = True
    assert waited


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals.patient() as hearing:
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert hearing.caught == []
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_where_a_system_has_no_such_signal_the_others_are_heard(monkeypatch):
    monkeypatch.delattr(signal, "SIGHUP")
    monkeypatch.delattr(signal, "SIGUSR1")
    with pytest.raises(signals.Stopped), signals.heard():
        signal.raise_signal(signal.SIGTERM)


def test_other_threads_than_the_main_one_hear_nothing():
    found = []

    def listen():
        with signals.heard() as hearing:
            found.append((signal.getsignal(signal.SIGTERM), hearing.caught))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [(signal.SIG_DFL, [])]


# hashlib computes for seconds without Python, as compiled programs do.
DEAF = """
import hashlib, os, signal, sys, threading, time
from planil_jax.training import signals
for number in signals.NAMES:
    signal.signal(getattr(signal, number), signal.SIG_DFL)
def send():
    for number in {sent}:
        time.sleep(0.2)
        os.kill(os.getpid(), number)
data = bytes(1 << 20)
with signals.{block}("{words}"):
    threading.Thread(target=send).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", {rounds})
    time.sleep(0.01)
print("came to an end")
"""


def deaf(block: str, sent: list[int], rounds: int = 200_000_000):
    code = DEAF.format(block=block, sent=sent, rounds=rounds, words="so it is")
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ)


@pytest.mark.parametrize(
    ("block", "sent"), [("heard", [10]), ("patient", [2, 2]), ("patient", [10, 15])]
)
def test_a_signal_acts_at_once_also_while_python_does_not_run(block, sent):
    ended = deaf(block, sent)
    assert ended.returncode == 128 + sent[-1]
    name = signals.name(sent[-1])
    assert (ended.stdout, ended.stderr) == ("", f"{name} acts at once: so it is.\n")


def test_the_first_signal_waits_while_python_does_not_run():
    ended = deaf("patient", [15], 3_000_000)
    assert ended.returncode == 143
    assert (ended.stdout, ended.stderr) == ("", "")


@pytest.mark.filterwarnings("ignore:os.fork")
def test_a_forked_child_dies_of_a_signal_and_its_parent_hears_nothing():
    with signals.patient() as hearing:
        if not (child := os.fork()):
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM
    assert hearing.caught == [] and hearing._arrived.total == 0
