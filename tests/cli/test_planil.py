"""The command `planil` as a user meets it, in this process."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags

from planil_jax import config, envs, experiment, recipes, registry, runs
from planil_jax.cli import app, planil
from planil_jax.compose import compose
from planil_jax.data import demos
from planil_jax.training import report, rundir

FLAGS = flags.FLAGS
ROOT = Path(__file__).parents[2]
CONFIG = """
from planil_jax import config, experiment

def get_config(method="bc"):
    return config.to_config_dict(experiment.for_method(method, environment="point_mass"))
"""


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs `planil`: exit code, output, errors; removes its flags again."""
    monkeypatch.setattr(app, "_open_device", lambda choice: "device: none")
    monkeypatch.setattr(app, "_widen_vectors", lambda: None)
    monkeypatch.setattr(app, "_quieten", lambda: None)
    monkeypatch.setattr(app, "_keep_compiled", lambda directory: None)
    before = set(FLAGS)

    def planil_(*arguments):
        monkeypatch.setattr(sys, "argv", ["planil", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            planil.main()
        for name in set(FLAGS) - before:
            delattr(FLAGS, name)
        FLAGS.unparse_flags()
        output = capsys.readouterr()
        return exit_.value.code, output.out, output.err

    return planil_


@pytest.fixture
def refused(run):
    """Runs `planil`, which refuses in one sentence; that sentence."""

    def refused_(*arguments) -> str:
        status, out, err = run(*arguments)
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert (status, out, len(lines)) == (2, "", 1), err
        assert err.splitlines()[-1] == lines[0]
        return lines[0]

    return refused_


@pytest.fixture
def recorded(tmp_path) -> Path:
    """Demonstrations of the point mass: two episodes of five steps at rest."""
    spec = envs.make("point_mass").spec
    card = demos.Card(
        environment="point_mass",
        control_period=spec.control_period,
        observation_names=spec.observation_names,
        action_low=spec.action_low,
        action_high=spec.action_high,
    )
    obs = np.zeros((6, spec.observation_size), np.float32)
    actions = np.zeros((5, spec.action_size), np.float32)
    path = tmp_path / "rest.npz"
    demos.save(path, [demos.Episode(obs, actions, None, terminal=False)] * 2, card)
    return path


@pytest.fixture
def config_file(tmp_path) -> Path:
    path = tmp_path / "settings.py"
    path.write_text(CONFIG)
    return path


# ---------------------------------------------------------------------------- the lists


def test_bare_it_lists_every_command_of_the_package_with_its_first_line(run):
    status, out, err = run()
    assert (status, err) == (0, "")
    shared = {"__init__", "app", "planil", "result_file", "settings"}
    there = {path.stem for path in Path(planil.__file__).parent.glob("*.py")} - shared
    assert there <= set(planil.COMMANDS)
    for command in there:
        (line,) = re.findall(rf"^  {command} +(.+)$", out, re.MULTILINE)
        assert line.endswith(".")


def test_an_unknown_command_is_refused_with_the_nearest(refused):
    assert refused("trian") == (
        "error: no command 'trian'. Did you mean train? `planil` lists them."
    )


def test_the_list_of_commands_costs_no_jax():
    listed = "import sys; from planil_jax.cli import planil; planil.listing(); "
    done = subprocess.run(
        [sys.executable, "-c", listed + "print('jax' in sys.modules)"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize(
    ("command", "names"),
    [("methods", registry.methods), ("envs", registry.environments)],
)
def test_methods_and_environments_are_listed_one_a_line(run, command, names):
    status, out, err = run(command)
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(names())
    assert all(len(line.split(maxsplit=1)) == 2 for line in out.splitlines()), out


# ------------------------------------------------------------------------------ the help


@pytest.mark.parametrize("method", ["mpail", "bc"])
def test_the_help_of_train_shows_every_field_s_value_kind_and_meaning(run, method):
    status, out, _ = run("train", f"--method={method}", "--help")
    assert status == 0
    settings, _ = compose(method, "navigation")
    lines = out.splitlines()
    assert all(len(line) <= 92 for line in lines)
    for field in config.describe(settings):
        if field.path in ("method", "seed", "seeds", "sweep", "demonstrations"):
            continue  # these have flags
        value = repr(field.default) if field.default == "" else field.default
        head = re.escape(f"  {field.path}={value}")
        match = re.search(rf"^{head}(.*\n(?:      .*\n?)*)", out, re.MULTILINE)
        assert match, field
        printed = " ".join(match[1].split())
        assert printed == " ".join(f"{field.kind} {field.meaning}".split())


def test_the_help_of_train_with_a_config_file_shows_the_fields_of_its_method(
    run, config_file
):
    _, out, _ = run("train", f"--config={config_file}", "--help")
    assert "Fields of bc in point_mass" in out and "  agent.weight_decay=0.0001" in out


# ---------------------------------------------------------------------------- the settings


def test_flags_override_the_recipe_or_the_defaults_and_set_overrides_flags(
    run, tmp_path, recorded, monkeypatch
):
    asked = []
    monkeypatch.setattr("planil_jax.launch.launch", lambda it, **_: asked.append(it))
    default = experiment.for_method("bc", environment="point_mass")
    names = ("--method=bc", "--env=point_mass", f"--logdir={tmp_path}/run")
    _, _, err = run("train", *names, "--total_steps=7", "--seeds=3", "--seed=5")
    assert "settings: the defaults of bc; there is no recipe for it in point_mass" in err
    assert asked[-1].run.total_steps == 7
    assert (asked[-1].seed, asked[-1].seeds) == (5, 3)
    assert asked[-1].agent == default.agent

    loop = config.set_path(default.loop, "steps", 11)
    tuned = {"loop": loop, "agent": config.set_path(default.agent, "batch", 4)}
    recipe = recipes.Recipe("point_mass", "bc", tuned)
    monkeypatch.setattr(recipes, "find", lambda method, env: recipe)
    changes = ("--set=agent.batch=9", "--set", "agent.policy.network.hidden=(8, 8)")
    _, _, err = run("train", *names, *changes)
    assert "settings: the recipe of bc in point_mass" in err
    assert (asked[-1].loop.steps, asked[-1].agent.batch) == (11, 9)
    assert asked[-1].agent.policy.network.hidden == (8, 8)


def test_a_config_file_replaces_the_recipe_and_set_overrides_it(
    run, tmp_path, config_file, monkeypatch
):
    asked = []
    monkeypatch.setattr("planil_jax.launch.launch", lambda it, **_: asked.append(it))
    file = (f"--config={config_file}", f"--logdir={tmp_path}/run")
    run("train", *file, "--config.agent.batch=3", "--set=agent.gradient_steps=2")
    assert (asked[-1].agent.batch, asked[-1].agent.gradient_steps) == (3, 2)
    assert (asked[-1].method, asked[-1].environment) == ("bc", "point_mass")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--method=mpail", "--set=agent.planner.samples=-8"],
            "agent.planner.samples must be at least 1, not -8.",
        ),
        (["--set=agent.batch"], "'agent.batch' is not of the form PATH=VALUE."),
        (["--set=agent.bach=8"], "no field agent.bach. Did you mean batch?"),
        (["--set=loop.rounds=0"], "loop.rounds must be at least 1, not 0."),
        (["--set=loop.num_envs=0"], "loop.num_envs must be at least 1, not 0."),
        (["--set=run.keep_last=-1"], "run.keep_last must be at least 1, not -1."),
        (["--set=run.seeds_by=pmap"], "run.seeds_by is one of 'vmap', 'map', not 'pmap'."),
        (["--set=seeds=3"], "--set seeds has a flag of its own: --seeds."),
        (["--set=method=gail"], "--set method has a flag of its own: --method."),
        (["--total_steps=0"], "run.total_steps must be at least 1, not 0."),
        (["--seeds=0"], "seeds must be at least 1, not 0."),
        (["--seed=-1"], "seed must be from 0 to 2147483647, not -1."),
        ([f"--seed={2**32}"], f"seed must be from 0 to 2147483647, not {2**32}."),
        ([f"--seed={2**63}"], f"seed must be from 0 to 2147483647, not {2**63}."),
        (["--method=bcc"], "no method 'bcc'."),
        (["--env=pointmass"], "no environment 'pointmass'."),
        (["--config.seeds=3"], "--config.seeds has a flag of its own: --seeds."),
        (["--config.demonstrations=a"], "--config.demonstrations has a flag of its own: "),
        (["--config.agent.batch=3"], "needs a config file: add --config=FILE before it."),
        (["--config={config}", "--method=gail"], "the config file is of bc"),
        (["--config={config}", "--config.seeds=2"], "--config.seeds has a flag of its own"),
        (["--config={config}", "--config.seed=2"], "a flag of its own: --seed."),
        (["--config={config}", "--config.sweep=a"], "a flag of its own: --sweep."),
        (["--config={config}", "--config.demonstrations=a"], "of its own: --demos."),
        (
            ["--sweep=agent.learning_rate=1e-3", "--sweep=agent.learning_rate=1e-2"],
            "agent.learning_rate is swept already; give all its values at once",
        ),
        (
            ["--method=mpail", "--sweep=agent.planner.max_delta=1,-1"],
            "agent.planner.max_delta must be above 0, not -1.",
        ),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_sentence_and_leaves_nothing(
    refused, tmp_path, recorded, config_file, arguments, sentence
):
    logdir = tmp_path / "run"
    files = (f"--demos={recorded}", f"--logdir={logdir}")
    names = ["--method=bc", "--env=point_mass"] if "{config}" not in arguments[0] else []
    command = [text.replace("{config}", str(config_file)) for text in arguments]
    assert sentence in refused("train", *files, *names, *command)
    assert not logdir.exists()


# ------------------------------------------------------------------------------ a whole run


def test_a_run_needs_no_config_file_and_resumes_as_it_was_set(
    run, refused, tmp_path, recorded, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    tiny = ["loop.num_envs=1", "loop.steps=1", "loop.rounds=2", "agent.gradient_steps=1"]
    tiny += ["agent.policy.network.hidden=(4,)", "run.evaluation_episodes=0"]
    settings = [f"--set={text}" for text in tiny]
    names = ["--method=bc", "--env=point_mass", "--demos=~/rest.npz", "--logdir=~/run"]
    rates = "--sweep=agent.learning_rate=1e-3,1e-2"
    status, out, err = run("train", *names, *settings, "--total_steps=3", "--seed=4", rates)
    assert status == 0, err
    ends = "training ends at step 4 of 3: whole epochs of 2 steps."
    assert err.count(ends) == 1 and err.index(ends) < err.index("compiling training")
    assert f"tensorboard --logdir={tmp_path / 'run' / 'tensorboard'}" in out
    logdir = tmp_path / "run"
    assert list(json.loads((logdir / "config.json").read_text()))[0] == "version"
    assert {path.name for path in (logdir / "tensorboard").iterdir()} == {
        "seed 4, agent.learning_rate=0.001",
        "seed 4, agent.learning_rate=0.01",
    }

    message = refused("train", *names, *settings, "--total_steps=3", "--seed=4", rates)
    assert "holds a run already; pass resume=True (--resume) to continue it" in message
    wrong = "--set=agent.gradient_steps=2"
    message = refused("train", "--logdir=~/run", "--resume", wrong)
    assert "another configuration: agent.gradient_steps is 1 there, 2 here" in message
    status, _, err = run("train", "--logdir=~/run", "--resume", "--total_steps=6")
    assert status == 0, err
    steps, _ = report.read_metrics(logdir)["train/reward"]
    assert steps.tolist() == [2, 4, 6]
    assert runs.load_experiment(logdir).run.total_steps == 6

    saved = json.loads(rundir.read_config(logdir))
    del saved["version"]
    (logdir / "config.json").write_text(json.dumps(saved))
    message = refused("train", "--logdir=~/run", "--resume")
    assert "was written by an older version of planil_jax and cannot be read" in message


def test_a_missing_logdir_is_asked_for_with_an_example(refused):
    assert refused("train") == (
        "error: --logdir is required: Directory of the run, such as runs/nav."
    )


def test_recording_says_what_it_does_and_how_long_it_takes(run, tmp_path):
    out = tmp_path / "demos.npz"
    status, printed, err = run("collect", "--env=point_mass", f"--out={out}")
    assert status == 0 and printed.startswith(f"wrote {out}: 4 episodes")
    *_, compiling, compiled, recording, recorded = err.splitlines()
    assert (compiling, recording) == (
        "compiling the expert…",
        "recording 4 episodes in point_mass…",
    )
    assert re.fullmatch(r"compiled the expert in \d+\.\d s", compiled)
    assert re.fullmatch(r"recorded 4 episodes in point_mass in \d+\.\d s", recorded)


def test_resuming_a_directory_without_a_run_is_refused(refused, tmp_path):
    message = refused("train", f"--logdir={tmp_path}/none", "--resume")
    assert "holds no run" in message and not (tmp_path / "none").exists()


# ---------------------------------------------------------------------------------- inspect


@pytest.mark.parametrize("form", ["{}", "--demos={}", "{} --debug"])
def test_inspect_takes_its_file_with_a_flag_or_without(run, recorded, form):
    status, out, err = run("inspect", *form.format(recorded).split())
    assert (status, err) == (0, "") and "point_mass" in out


def test_inspect_refuses_no_file_and_two(refused, recorded):
    assert refused("inspect").startswith("error: --demos is required: ")
    assert "unexpected argument 'more.npz'" in refused("inspect", recorded, "more.npz")


def test_inspect_shows_a_file_of_results(run, refused, tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"version": 2, "kind": "benchmark", "command": "a command"}')
    status, out, err = run("inspect", path)
    assert (status, err) == (0, "") and "a command" in out
    assert f"refused: {path}: commit is missing" in out
    path.write_text("[]")
    assert "is not a file of results" in refused("inspect", path)


# --------------------------------------------------------------------------------- results


def test_evaluate_writes_results_beside_their_references(run, recorded, tmp_path):
    """Cloning of somebody who stood still; nobody can be asked to stand there again."""
    logdir, out = tmp_path / "bc", tmp_path / "area" / "x.json"
    sizes = ("gradient_steps=2", "batch=4", "policy.network.hidden=(4,)")
    settings = [f"--set=agent.{size}" for size in sizes]
    where = ("--method=bc", "--env=point_mass", f"--demos={recorded}", f"--logdir={logdir}")
    assert run("train", *where, *settings, "--total_steps=1")[0] == 0
    args = ("evaluate", f"--run={logdir}", "--episodes=2", f"--out={out}")
    said = ("--tuning_trials=0", "--absent=demonstrator:it stood still once")
    status, printed, _ = run(*args, *said)
    assert status == 0 and f"wrote {out}" in printed
    (row,) = json.loads(out.read_text())["runs"]
    assert row["why"] == {"demonstrator": "it stood still once"}
    assert np.shape(row["bc"]["returns"]) == np.shape(row["evaluation"]["returns"])
    assert len(row["random"]["returns"]) == 2


def test_no_output_replaces_its_source_or_a_file_of_a_run(refused, recorded, tmp_path):
    source = "--env=point_mass", f"--out={recorded}"
    assert "is the source" in refused("convert", str(recorded), *source)
    for name in ("config.json", "demonstrations.npz"):
        (tmp_path / name).write_text("{}")
    out = f"--out={tmp_path / 'demonstrations.npz'}"
    assert "is a file of a run" in refused("convert", str(recorded), source[0], out)


def test_a_reason_without_a_name_is_refused(refused, tmp_path):
    out = f"--out={tmp_path / 'x.json'}"
    message = refused("evaluate", f"--run={tmp_path}", "--absent=slow", out)
    assert "--absent=slow: write NAME:WHY" in message
    message = refused("evaluate", f"--run={tmp_path}", f"--bc={tmp_path}")
    assert "--bc is for a file of results" in message


# ---------------------------------------------------------------------------------- experts


def test_an_expert_is_written_inspected_and_demonstrates_again(run, refused, tmp_path):
    weights, out = tmp_path / "expert.npz", tmp_path / "again.npz"
    small = {
        "loop.num_envs": 2,
        "loop.steps": 5,
        "loop.rounds": 1,
        "run.evaluation_episodes": 0,
        "agent.gradient_steps": 1,
        "agent.policy.network.hidden": (8,),
        "agent.critic.hidden": (8,),
    }
    status, said, err = run(
        "expert",
        "--method=sac",
        "--env=pendulum:episode_length=5",
        f"--logdir={tmp_path / 'run'}",
        f"--weights={weights}",
        "--total_steps=10",
        *(f"--set={path}={value}" for path, value in small.items()),
    )
    assert status == 0, err
    assert said.startswith(f"wrote {weights}: sac in pendulum:episode_length=5 after 10 st")
    status, page, err = run("inspect", weights)
    assert (status, err) == (0, "")
    assert "command         planil expert --method=sac" in page
    assert "weights.params" in page and "float32 [3, 8]" in page
    again = ["collect", f"--expert={weights}", f"--out={out}", "--episodes=2"]
    status, said, err = run(*again, "--unlearned")
    assert status == 0, err
    assert said.startswith(f"wrote {out}: 2 episodes of pendulum, observations only")
    assert "observation names than" in refused(*again, "--env=pendulum:observe=0+1")
    assert "each name who acts" in refused(*again, "--run=runs/expert")
    assert "no expert's file nowhere.npz" in refused(
        "collect", "--expert=nowhere.npz", f"--out={out}"
    )


def test_an_expert_that_nothing_is_written_of_is_refused(refused, tmp_path):
    message = refused("expert", f"--logdir={tmp_path / 'run'}")
    assert message.startswith("error: give --out, a file of demonstrations to write, or --")
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------- precision


def test_64_bits_are_switched_off_with_a_line(run, refused, tmp_path):
    jax.config.update("jax_enable_x64", True)
    try:
        _, _, err = run("train", f"--logdir={tmp_path}", "--method=bcc")
        assert not jax.config.jax_enable_x64
    finally:
        jax.config.update("jax_enable_x64", False)
    assert err.startswith(
        "planil_jax computes in float32: JAX_ENABLE_X64 is switched off.\n"
    )
