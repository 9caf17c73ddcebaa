"""A training that is stopped again and again ends bit-equal with one that is not."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from planil_jax.training import checkpoint, report, rundir

ROOT = Path(__file__).parents[2]
SETTINGS = (
    "--method=bc --env=point_mass --demos=demos.npz --total_steps=60000 "
    "--set loop.num_envs=2 --set loop.rounds=2 --set run.evaluation_episodes=2 "
    "--set run.checkpoint_every=None"
).split()
MODULE = [sys.executable, "-m", "planil_jax.cli.planil"]
SCRIPT = ["bash", str(ROOT / "examples/preempted.sh"), "--logdir=stopped", *SETTINGS]
# To the shell alone, as Slurm's --signal=B:USR1, or to all; while it compiles, or trains.
TURNS = [
    ("USR1", "shell", "compiles"),
    ("USR1", "shell", "trains"),
    ("TERM", "all", "trains"),
    ("HUP", "shell", "trains"),
    ("USR2", "all", "trains"),
    ("TERM", "shell", "trains"),
]


def heard():
    """A shell's `&` may have let this process ignore signals."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def start(folder, *argv, **environment):
    return subprocess.Popen(
        argv,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heard,
        start_new_session=True,
    )


def run(folder, *argv):
    _, said = (process := start(folder, *argv)).communicate(timeout=500)
    assert process.returncode == 0, said


def size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def stop(folder, name: str, whom: str, when: str, seconds: float) -> str:
    """Runs the script, sends it a signal, and returns what was said."""
    metrics = folder / "stopped" / report.METRICS_FILE
    before = size(metrics)
    process = start(folder, *SCRIPT, PLANIL=" ".join(MODULE))
    said = ""
    while "compiling training" not in said:
        said += process.stderr.readline()
    while when == "trains" and size(metrics) <= before:
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(seconds)
    number = signal.Signals[f"SIG{name}"]
    (os.killpg if whom == "all" else os.kill)(process.pid, number)
    _, rest = process.communicate(timeout=500)
    assert process.returncode == 128 + number, said + rest
    return said + rest


def arrays(logdir: Path) -> dict[str, np.ndarray]:
    last = checkpoint.steps(logdir / rundir.CHECKPOINTS)[-1]
    with warnings.catch_warnings(), ocp.PyTreeCheckpointer() as checkpointer:
        warnings.simplefilter("ignore")  # the devices are the same
        return checkpointer.restore(logdir / rundir.CHECKPOINTS / f"{last:012d}" / "arrays")


def metrics(logdir: Path) -> list:
    lines = map(json.loads, (logdir / report.METRICS_FILE).open())
    return [(line["step"], line["metrics"]) for line in lines]


def test_a_training_under_signals_ends_bit_equal_with_an_undisturbed_one(tmp_path):
    collect = ("collect", "--env=point_mass", "--episodes=4", "--actions")
    run(tmp_path, *MODULE, *collect, "--out=demos.npz")
    run(tmp_path, *MODULE, "train", "--logdir=whole", *SETTINGS)
    moments = random.Random(0)
    for name, whom, when in TURNS:
        said = stop(tmp_path, name, whom, when, moments.uniform(0, 0.5))
        words = f"SIG{name} stopped training after step " if when == "trains" else "at once"
        assert words in said and "the same command continues it." in said, said
        assert "Traceback" not in said
    assert len(metrics(tmp_path / "stopped")) < len(metrics(tmp_path / "whole"))
    last = start(tmp_path, *SCRIPT, PLANIL=" ".join(MODULE))
    _, said = last.communicate(timeout=500)
    assert last.returncode == 0, said
    whole, stopped = arrays(tmp_path / "whole"), arrays(tmp_path / "stopped")
    assert whole.keys() == stopped.keys()
    for name in whole:
        assert np.asarray(whole[name]).tobytes() == np.asarray(stopped[name]).tobytes()
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "stopped")
