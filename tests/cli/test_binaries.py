"""The binaries as a user meets them: mistakes take one line, and a killed run goes on."""

import dataclasses
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from planil_jax import config, envs, experiment, launch, runs
from planil_jax.base import UsageError
from planil_jax.cli import app
from planil_jax.data import demos
from planil_jax.training import checkpoint, loop, report, rundir, seeds

ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = experiment.Experiment()
TINY = ["--config=experiments/configs/navigation.py"] + [
    f"--config.{field}={value}"
    for field, value in {
        "loop.num_envs": 2,
        "loop.steps": 5,
        "loop.rounds": 1,
        "loop.resets": 2,
        "agent.planner.samples": 4,
        "agent.planner.horizon": 2,
        "agent.planner.iterations": 1,
        "agent.discriminator_steps": 2,
        "agent.value_steps": 2,
        "agent.batch": 8,
        "agent.imagination.value_batch": 8,
        "agent.replay.capacity": 50,
        "run.evaluation_episodes": 1,
        "run.evaluate_every": None,
        "run.checkpoint_every": 1,
    }.items()
]
QUICK = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}  # compiles in half the time
EPOCH = 2 * 5  # environment steps, of which each is saved


def record(directory: pathlib.Path) -> pathlib.Path:
    """Demonstrations of navigation: straight on, twice."""
    spec = envs.make("navigation").spec
    obs = np.zeros((21, 7), np.float32)
    obs[:, 0], obs[:, 2], obs[:, 4] = np.arange(21) * 0.2, 1.0, 2.0
    card = demos.Card(
        environment="navigation",
        control_period=spec.control_period,
        observation_names=spec.observation_names,
        action_low=spec.action_low,
        action_high=spec.action_high,
    )
    path = directory / "straight.npz"
    demos.save(path, [demos.Episode(obs, None, None, terminal=False)] * 2, card)
    return path


@pytest.fixture
def recorded(tmp_path) -> pathlib.Path:
    return record(tmp_path)


# A binary without arguments that gets as far as opening the device has read its command
# line, and is stopped there.
TOGETHER = """
import contextlib, io, json, runpy, sys, traceback
from absl import flags
from planil_jax.cli import app

def begin(choice):
    print("begins")
    sys.exit(0)

def left_with(name):
    sys.modules.pop(name, None)  # another binary may have imported it
    try:
        runpy.run_module(name, run_name="__main__")
    except SystemExit as left:
        return left.code
    except BaseException:
        traceback.print_exc()
        return 1

open_device, found = app._open_device, []
for sys.argv in json.loads(sys.argv[1]):
    name, *arguments = sys.argv
    app._open_device = open_device if arguments else begin
    before, out, err = set(flags.FLAGS), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = left_with(name)
    found.append((status, out.getvalue(), err.getvalue()))
    for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)
    flags.FLAGS.unparse_flags()
print(json.dumps(found))
"""


class Ended(NamedTuple):
    """How a command line ended."""

    status: int
    out: str
    err: str


def run_together(*commands: tuple) -> list[Ended]:
    """Runs command lines in one process, so that JAX is imported once."""
    lines = json.dumps([[*map(str, command)] for command in commands])
    process = subprocess.run(
        [sys.executable, "-c", TOGETHER, lines],
        cwd=ROOT,
        env=QUICK,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return [Ended(*each) for each in json.loads(process.stdout.splitlines()[-1])]


def assert_one_line(ended: Ended) -> str:
    """The one line about an error, after those about the device and the settings."""
    before = ("device: ", "settings: ")
    lines = [line for line in ended.err.splitlines() if not line.startswith(before)]
    assert ended.status == 2 and ended.out == "", ended
    assert len(lines) == 1 and lines[0].startswith("error: "), ended.err
    return lines[0]


def refusal(function, *args, **kwargs) -> str:
    """What a user reads instead of a traceback."""
    with pytest.raises(UsageError) as caught:
        function(*args, **kwargs)
    told, status = app.explain(caught.value)
    assert status == 2 and "\n" not in told
    return told


def launch_refusal(settings, demos_path, logdir, resume=False) -> str:
    return refusal(
        launch.launch, settings, demos_path=demos_path, logdir=logdir, resume=resume
    )


# ----------------------------------------------------------------------- without arguments

BINARIES = sorted(
    f"{path.parent.name}.{path.stem}"
    for folder in ("experiments", "benchmarks")
    for path in (ROOT / folder).glob("*.py")
    if re.search(r"^if __name__ == ", path.read_text(), re.MULTILINE)
)


class Answers(NamedTuple):
    """What binaries answer, by name without arguments, or to a mistake."""

    bare: dict[str, Ended]
    misspelt_flag: Ended
    misspelt_field: Ended
    truncated: Ended
    no_run: Ended
    help: Ended
    directory: pathlib.Path


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> Answers:
    directory = tmp_path_factory.mktemp("answers")
    (directory / "nothing").mkdir()
    path = record(directory)
    path.write_bytes(path.read_bytes()[:-100])
    train = "experiments.train"
    *bare, misspelt_flag, misspelt_field, truncated, no_run, help_ = run_together(
        *((name,) for name in BINARIES),
        ("experiments.inspect", "--demo=x.npz"),
        (train, *TINY, "--config.agent.planner.horizn=3", "--logdir=x"),
        (train, f"--demos={path}", f"--logdir={directory}/run"),
        ("experiments.evaluate", f"--run={directory}/nothing"),
        ("experiments.demo", "--help"),
    )
    return Answers(
        dict(zip(BINARIES, bare, strict=True)),
        misspelt_flag,
        misspelt_field,
        truncated,
        no_run,
        help_,
        directory,
    )


def test_the_binaries_are_found():
    assert {"experiments.train", "experiments.demo", "benchmarks.env"} <= {*BINARIES}


@pytest.mark.parametrize("name", BINARIES)
def test_a_binary_without_arguments_begins_or_names_the_flag_that_it_needs(answers, name):
    status, out, err = answers.bare[name]
    if status == 0:
        assert (out, err) == ("begins\n", "")
    else:
        assert (status, out) == (2, ""), err
        assert re.fullmatch(r"error: --\w+ is required: [^\n]+\.\n", err), err


# ------------------------------------------------------------------------------- mistakes


def apply_overrides(monkeypatch, *arguments: str) -> experiment.Experiment:
    """The experiment that a command line of the real config file asks for."""
    file = str(ROOT / "experiments/configs/default.py")
    values, argv = flags.FlagValues(), ["train", f"--config={file}", *arguments]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    monkeypatch.setattr(sys, "argv", argv)
    app.parse(argv, values)
    return config.from_config_dict(values.config, SETTINGS)


def test_the_config_file_is_the_experiment_and_takes_overrides(monkeypatch):
    assert apply_overrides(monkeypatch) == SETTINGS
    changed = apply_overrides(
        monkeypatch, "--config.agent.planner.horizon=6", "--config.agent.reward=prob"
    )
    planner = dataclasses.replace(SETTINGS.agent.planner, horizon=6)
    agent = dataclasses.replace(SETTINGS.agent, planner=planner, reward="prob")
    assert changed == dataclasses.replace(SETTINGS, agent=agent)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "agent.planner.horizn=3",
            "--config.agent.planner has no field 'horizn'. Did you mean horizon?",
        ),
        (
            "agent.planer.horizon=3",
            "--config.agent has no field 'planer'. Did you mean planner?",
        ),
        (
            "agent.planner.horizon=ten",
            "--config.agent.planner.horizon=ten: must be an integer.",
        ),
        (
            "agent.planner.horizon=6.5",
            "--config.agent.planner.horizon=6.5: must be an integer.",
        ),
    ],
)
def test_a_wrong_override_is_refused_by_its_path(monkeypatch, override, told):
    assert told in refusal(apply_overrides, monkeypatch, f"--config.{override}")


def test_a_misspelt_flag_takes_one_line_and_nothing_else(answers):
    sentence = "error: no flag --demo. Did you mean --demos? Try --help.\n"
    assert answers.misspelt_flag == (2, "", sentence)


def test_a_misspelt_field_of_train_takes_one_line(answers):
    told = assert_one_line(answers.misspelt_field)
    assert "--config.agent.planner has no field 'horizn'. Did you mean horizon?" in told


def test_truncated_demonstrations_take_one_line_and_leave_nothing(answers):
    path = answers.directory / "straight.npz"
    assert str(path) in assert_one_line(answers.truncated)
    assert not (answers.directory / "run").exists()


def test_evaluating_what_is_no_run_takes_one_line(answers):
    directory = answers.directory / "nothing"
    assert f"{directory} holds no run" in assert_one_line(answers.no_run)
    assert list(directory.iterdir()) == []


def test_the_demo_shows_its_help(answers):
    """It imports all other binaries, and so their flags."""
    status, out, err = answers.help
    assert status == 0 and err == "", err
    assert out.startswith("The whole story in minutes")
    assert "--logdir\n" in out and "--seeds\n" in out


def test_an_unknown_environment_is_refused_with_those_there_are(tmp_path, recorded):
    settings = dataclasses.replace(SETTINGS, environment="navigatoin")
    told = launch_refusal(settings, recorded, tmp_path / "run")
    assert "no environment 'navigatoin'. Did you mean navigation" in told
    assert all(name in told for name in envs.names())


def test_missing_demonstrations_are_asked_for_and_leave_nothing(tmp_path):
    logdir = tmp_path / "run"
    assert "demonstrations are missing" in launch_refusal(SETTINGS, None, logdir)
    path = tmp_path / "none.npz"
    assert str(path) in launch_refusal(SETTINGS, path, logdir)
    assert not logdir.exists()


def test_a_run_is_continued_only_by_its_own_configuration_and_when_asked(
    tmp_path, recorded
):
    logdir = tmp_path / "run"
    settings = dataclasses.replace(SETTINGS, demonstrations=runs.digest(recorded))
    rundir.open_run(logdir, experiment.to_json(settings), resume=False)
    (logdir / report.METRICS_FILE).write_text('{"step": 1, "metrics": {}}\n')
    before = {path: path.read_bytes() for path in logdir.iterdir()}

    told = launch_refusal(SETTINGS, recorded, logdir)
    assert f"{logdir} holds a run already; pass resume=True (--resume)" in told
    other = dataclasses.replace(SETTINGS, seeds=2)
    told = launch_refusal(other, recorded, logdir, resume=True)
    assert "another configuration: seeds is 1 there, 2 here" in told
    with np.load(recorded) as arrays:
        np.savez(recorded, **{**arrays, "obs": arrays["obs"] + np.float32(0.5)})
    told = launch_refusal(SETTINGS, recorded, logdir, resume=True)
    assert "another configuration: demonstrations is" in told
    assert {path: path.read_bytes() for path in logdir.iterdir()} == before


# ------------------------------------------------------------------------------- resuming


def saved(logdir: pathlib.Path) -> tuple[int, dict[str, bytes]]:
    """The step of a run's last checkpoint, and all that it holds."""
    settings = runs.load_experiment(logdir)
    env = envs.make(settings.environment)
    demonstrations = demos.load(logdir / runs.DEMONSTRATIONS, env.spec)
    agent = experiment.make_agent(settings, env, demonstrations)
    init = functools.partial(loop.init, agent, env, settings.loop)
    keys = seeds.keys(settings.seed, settings.seeds)
    template = jax.eval_shape(jax.vmap(init), keys)
    restored = checkpoint.restore_latest(logdir / rundir.CHECKPOINTS, template)
    assert restored is not None and restored.notices == ()

    def plain(leaf) -> bytes:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.array(jax.random.key_data(leaf) if is_key else leaf).tobytes()

    leaves = jax.tree_util.tree_flatten_with_path(restored.state)[0]
    return restored.step, {jax.tree_util.keystr(path): plain(x) for path, x in leaves}


def test_a_run_killed_in_the_middle_and_resumed_ends_as_one_that_was_not(
    tmp_path, recorded
):
    """Bit for bit, and so do its metrics. Killed by -9 after its second checkpoint."""
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    shared = [*TINY, f"--compile_cache={tmp_path}/xla", f"--demos={recorded}"]
    forever = [f"--logdir={killed}", "--config.run.total_steps=1000000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.train", *shared, *forever],
        cwd=ROOT,
        env=QUICK,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        waited_until = time.monotonic() + 300
        while len(checkpoint.steps(killed / rundir.CHECKPOINTS)) < 2:
            assert process.poll() is None and time.monotonic() < waited_until
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    step = checkpoint.steps(killed / rundir.CHECKPOINTS)[-1]
    total = f"--config.run.total_steps={step + 2 * EPOCH}"

    train = "experiments.train", *shared, total
    resumed, finished = run_together(
        (*train, f"--logdir={killed}", "--resume"), (*train, f"--logdir={straight}")
    )
    assert resumed.status == 0, resumed.err
    assert f"continuing from {killed}/checkpoints/{step:012d}" in resumed.err
    assert finished.status == 0, finished.err

    last = saved(killed)
    assert last == saved(straight)
    assert last[0] == step + 2 * EPOCH
    told, wanted = report.read_metrics(killed), report.read_metrics(straight)
    assert told.keys() == wanted.keys()
    for name in wanted:
        for found, expected in zip(told[name], wanted[name], strict=True):
            np.testing.assert_array_equal(found, expected)
