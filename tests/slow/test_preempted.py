"""A training that is stopped again and again ends bit-equal with one that is not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from planil_jax.training import report, rundir

ROOT = Path(__file__).parents[2]
SETTINGS = (
    "--method=bc --env=point_mass --demos=demos.npz --total_steps=40000 "
    "--set loop.num_envs=2 --set loop.rounds=1 --set run.evaluation_episodes=2 "
    "--set run.checkpoint_every=None"
).split()
STEP = f"{40_000:012d}"
MODULE = [sys.executable, "-m", "planil_jax.cli.planil"]


def heard():
    """A shell's `&` may have let this process ignore signals."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def in_folder(folder, *argv, **environment):
    done = subprocess.run(
        argv,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        preexec_fn=heard,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def arrays(logdir: Path) -> dict[str, np.ndarray]:
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(logdir / rundir.CHECKPOINTS / STEP / "arrays")


def test_a_training_under_signals_ends_bit_equal_with_an_undisturbed_one(tmp_path):
    collect = ("collect", "--env=point_mass", "--episodes=4", "--actions")
    in_folder(tmp_path, *MODULE, *collect, "--out=demos.npz")
    in_folder(tmp_path, *MODULE, "train", "--logdir=whole", *SETTINGS)
    script = ("bash", ROOT / "examples/preempted.sh", "stopped", *SETTINGS)
    said = in_folder(tmp_path, *script, PLANIL=" ".join(MODULE), EVERY="8")
    stops = said.count("; resume=True (--resume) continues.")
    assert stops >= 2, said
    assert said.count("; resuming") >= stops
    whole, stopped = arrays(tmp_path / "whole"), arrays(tmp_path / "stopped")
    assert whole.keys() == stopped.keys()
    for name in whole:
        assert whole[name].tobytes() == stopped[name].tobytes(), name
    lines = [
        [
            (line["step"], line["metrics"])
            for line in map(json.loads, (tmp_path / run / report.METRICS_FILE).open())
        ]
        for run in ("whole", "stopped")
    ]
    assert lines[0] == lines[1]
