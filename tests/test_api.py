"""The library as a user meets it, on the point mass and with cloning, which cost little."""

import json
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

import planil_jax as pj
from planil_jax import config, experiment, registry, runs
from planil_jax.envs import registry as env_registry

ROOT = pathlib.Path(__file__).parents[1]
TINY = {
    "policy.network.hidden": (8,),
    "gradient_steps": 5,
    "batch": 16,
    "loop.num_envs": 2,
    "loop.steps": 10,
    "loop.rounds": 1,
    "run.evaluation_episodes": 2,
    "run.evaluate_every": 1,
}
OF_BC = ("policy.", "gradient_steps")
TUG = {"steps": 5} | {k: v for k, v in TINY.items() if not k.startswith(OF_BC)}


@pytest.fixture(scope="module")
def demos() -> pj.Demos:
    return pj.collect("point_mass", episodes=2, actions=True)


@pytest.fixture(scope="module")
def run(demos, tmp_path_factory) -> pj.Run:
    logdir = tmp_path_factory.mktemp("api") / "bc"
    return pj.train(
        "bc",
        env="point_mass",
        demos=demos,
        seeds=2,
        total_steps=40,
        logdir=logdir,
        settings=TINY,
    )


# -------------------------------------------------------------------------------- importing


@pytest.mark.fast
def test_importing_the_package_imports_no_jax():
    """So importing it takes little time."""
    program = "import planil_jax, sys; print(sorted({'jax', 'flax'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=ROOT)
    assert done.stdout.decode().strip() == "[]", done.stderr.decode()


@pytest.mark.fast
def test_every_public_name_is_there():
    for name in pj.__all__:
        assert getattr(pj, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        pj.trian  # noqa: B018


# ---------------------------------------------------------------------- demonstrations


@pytest.mark.fast
def test_demonstrations_of_arrays_survive_a_file(tmp_path):
    obs = [np.full((4, 4), 0.5), np.full((3, 4), 0.25)]
    actions = [np.zeros((3, 2)), np.zeros((2, 2))]
    spec = pj.make_env("point_mass").spec
    made = pj.Demos.from_arrays(obs, actions, terminal=[True, False], expert="me")
    assert repr(made).endswith(", 1 ended early)")
    with pytest.raises(pj.UsageError, match="the control period, .* save demos.completed"):
        made.save(tmp_path / "mine.npz")
    made.completed(spec).save(tmp_path / "mine.npz")
    read = pj.load_demos(tmp_path / "mine.npz")
    assert [len(episode.obs) for episode in read] == [4, 3]
    assert [episode.terminal for episode in read] == [True, False]
    np.testing.assert_array_equal(read.episodes[1].obs, obs[1].astype(np.float32))
    assert read.card.observation_names == spec.observation_names
    assert read.card.action_high == spec.action_high
    assert read.card.control_period == spec.control_period
    assert read.card.expert == "me" and len(read.returns) == 0


@pytest.mark.fast
def test_returns_are_the_sums_of_rewards():
    made = pj.Demos.from_arrays(np.zeros((2, 3, 4)), rewards=[[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(made.returns, [3.0, 7.0])


@pytest.mark.fast
@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"obs": []}, "obs must hold at least one episode"),
        ({"obs": np.zeros((3, 4))}, r"obs must hold an array \[L \+ 1, O\] an episode"),
        ({"obs": [["a", "b"]]}, "obs must"),
        ({"obs": np.ma.masked_less(np.ones((1, 3, 4)), 2)}, "obs has masked entries"),
        (
            {"obs": np.zeros((1, 3, 4)), "actions": np.zeros((1, 3, 2))},
            "actions of episode 0 has 3 steps, but obs has 3 rows",
        ),
        (
            {"obs": np.zeros((2, 3, 4)), "rewards": np.zeros((1, 2))},
            "rewards must hold 2 episodes",
        ),
        ({"obs": np.zeros((1, 3, 4)), "terminal": "no"}, "terminal must be one bool"),
        (
            {"obs": np.zeros((2, 3, 4)), "terminal": [True] * 3},
            "terminal must be one bool, or 2",
        ),
        (
            {"obs": np.zeros((1, 3, 4)), "action_low": (1,), "action_high": (-1,)},
            "action_low must be below action_high",
        ),
        ({"obs": np.zeros((1, 3, 4)), "action_low": -1}, "action_low must be a number for"),
        (
            {"obs": np.zeros((1, 3, 4)), "observation_names": "abcd"},
            "observation_names must be a sequence of names",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_sentence(arrays, sentence):
    with pytest.raises(pj.UsageError, match=sentence):
        pj.Demos.from_arrays(**arrays)


@pytest.mark.fast
def test_entries_without_names_must_be_all_of_the_environment_s():
    some = pj.Demos.from_arrays(np.zeros((1, 3, 3)))
    with pytest.raises(pj.UsageError, match="3 observation entries and point_mass has 4"):
        some.completed(pj.make_env("point_mass").spec)


# ---------------------------------------------------------------------------- training


def test_a_run_is_trained_evaluated_and_read_again(run):
    found = run.evaluate(episodes=3, expert=False)
    assert "return" in str(found) and len(found["in_distribution"]["returns"]) == 2
    again = pj.load(run.directory)
    assert repr(again) == repr(run) and again.step == 40
    assert again.settings == run.settings and len(again.demos) == 2
    steps, returns = again.metrics()["eval/return"]
    assert steps.tolist() == [20, 40] and returns.shape == (2, 2)


def test_a_policy_takes_observations_and_gives_actions_within_bounds(run):
    policy, spec = run.policy(), run.env.spec
    actions = [policy(obs) for obs in np.eye(4)]
    assert all(action.shape == (2,) for action in actions)
    assert np.all(np.abs(actions) <= np.array(spec.action_high) + 1e-6)
    policy.reset()
    np.testing.assert_array_equal(policy(np.eye(4)[0]), actions[0])
    other = run.policy(1)
    assert not np.array_equal(other(np.eye(4)[0]), actions[0])


def test_the_best_seed_is_that_of_the_last_evaluation(run):
    _, returns = run.metrics()["eval/return"]
    obs = np.full(4, 0.5)
    wanted = run.policy(int(np.argmax(returns[-1])))(obs)
    np.testing.assert_array_equal(run.policy("best")(obs), wanted)


@pytest.mark.parametrize(
    ("obs", "sentence"),
    [
        (np.zeros(3), r"has the shape \(4,\), not \(3,\)"),
        (np.array([0.0, np.nan, 0.0, 0.0]), "not finite in its entry"),
        (np.zeros(4, complex), "is of real numbers, not of complex128"),
        (["0", "0", "0", "0"], "is of real numbers, not of <U1"),
        ([[0.0], [0.0, 0.0]], "is of real numbers, not of object"),
    ],
)
def test_a_policy_refuses_what_is_no_observation(run, obs, sentence):
    with pytest.raises(pj.UsageError, match=sentence):
        run.policy()(obs)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"seed": "x"}, "seed is the index of a member or 'best', not 'x'"),
        ({"seed": 1.0}, "seed is the index of a member or 'best', not 1.0"),
        ({"seed": 2}, "the run has members 0 to 1, no 2"),
        ({"sampling_seed": "x"}, "sampling_seed must be int, not 'x'"),
        ({"sampling_seed": -1}, "sampling_seed must be from 0 to 2147483647, not -1"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(run, arguments, sentence):
    with pytest.raises(pj.UsageError, match=sentence):
        run.policy(**arguments)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda run: run.evaluate("3"), "episodes must be int, not '3'"),
        (lambda run: run.evaluate(fields=40.0), "fields must be .*, not 40.0"),
        (lambda run: run.report(3), "path must be a path, such as 'nav.html', not 3"),
        (lambda run: pj.evaluate(3), "directory must be a path, such as 'runs/nav', not 3"),
        (lambda run: pj.collect("point_mass", expert=3), "expert must be scripted.Config"),
        (lambda run: pj.collect("point_mass", run=3), "run must be Run, or None, not 3"),
        (lambda run: pj.collect("point_mass", out=3), "out must be a path, .*not 3"),
        (lambda run: pj.collect("point_mass", 2.5), "episodes must be int, not 2.5"),
        (lambda run: pj.collect("point_mass", seed="x"), "seed must be int, not 'x'"),
        (lambda run: pj.collect(3), "env must be a name or an Environment, not 3"),
        (lambda run: pj.compare("bc", "point_mass"), "methods must be .*, not 'bc'"),
        (lambda run: pj.compare(["bc"], "point_mass", logdir=3), "logdir must be a path"),
        (lambda run: pj.compare(["bc"], "point_mass", settings=3), "must be a mapping"),
        (lambda run: pj.Demos(()), "episodes must be one Episode or more"),
        (lambda run: pj.Demos(3), "episodes must be one Episode or more"),
        (lambda run: pj.Demos.load(None), "path must name a file of .*, not None"),
        (lambda run: run.demos.save(3), "path must name a file of .*, not 3"),
        (lambda run: run.demos.save(run.directory), "is a directory: name a file in it"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(run, call, sentence):
    with pytest.raises(pj.UsageError, match=sentence):
        call(run)


def test_a_planner_acts_on_observations_where_its_model_starts_from_them(tmp_path, demos):
    settings = {
        "planner.samples": 8,
        "planner.horizon": 2,
        "loop.num_envs": 1,
        "loop.steps": 4,
        "loop.rounds": 1,
        "run.evaluation_episodes": 0,
        "discriminator_steps": 1,
        "value_steps": 1,
        "batch": 8,
    }
    trained = pj.train(
        "mpail",
        env="point_mass",
        demos=demos,
        total_steps=4,
        logdir=tmp_path / "mpail",
        settings=settings,
    )
    policy = trained.policy()
    first, second = policy(np.zeros(4)), policy(np.zeros(4))
    assert first.shape == (2,) and not np.array_equal(first, second)  # the plan went on
    policy.reset()
    np.testing.assert_array_equal(policy(np.zeros(4)), first)


def test_methods_are_compared_on_the_same_demonstrations_and_continue(tmp_path, demos):
    small = TINY | {"run.total_steps": 20}
    options = {"bc": small, "ppo": {"loop.num_envs": 2, "loop.steps": 16}}
    options["ppo"] |= {"run.total_steps": 32, "loop.rounds": 1, "minibatches": 2}
    arguments = ["bc", "ppo"], "point_mass"
    keywords = {"demos": demos, "seeds": 1, "episodes": 2, "logdir": tmp_path}
    found = pj.compare(*arguments, settings=options, **keywords)
    assert list(found) == ["bc", "ppo"] and (tmp_path / "ppo/config.json").exists()
    method, *_ = str(found).splitlines()[2].split()
    assert method == "ppo" and "share of the expert" in str(found)
    again = pj.compare(*arguments, settings=options, **keywords)
    assert str(again) == str(found)
    with pytest.raises(pj.UsageError, match="'sac', which is not among the methods"):
        pj.compare(*arguments, settings={"sac": {}}, **keywords)


def test_the_settings_of_a_method_stand_for_its_name(tmp_path, demos):
    config = pj.bc.Config(gradient_steps=3, batch=8)
    trained = pj.train(
        config,
        env="point_mass",
        demos=demos,
        total_steps=1,
        logdir=tmp_path / "run",
        settings={"loop.steps": 5, "run.evaluation_episodes": 0},
    )
    assert trained.settings.method == "bc" and trained.settings.agent == config


def test_an_environment_may_be_an_object_and_is_asked_for_again(
    tmp_path, demos, monkeypatch
):
    env = pj.make_env("point_mass", episode_length=7)
    trained = pj.train(
        "bc",
        env=env,
        demos=demos,
        total_steps=20,
        logdir=tmp_path / "run",
        settings=TINY,
    )
    assert trained.env.spec.episode_length == 7
    monkeypatch.delitem(env_registry._MAKERS, "object/point_mass")  # another process
    with pytest.raises(pj.UsageError, match="was an object, point_mass: give it again"):
        pj.load(tmp_path / "run")
    again = pj.load(tmp_path / "run", env=env)
    assert again.env.spec.episode_length == 7


def test_numbers_that_are_not_finite_are_refused_by_episode_step_and_entry():
    obs = np.zeros((2, 3, 4))
    obs[1, 2, 0] = np.nan
    with pytest.raises(pj.UsageError, match="obs of episode 1, step 2, entry 'x"):
        pj.Demos.from_arrays(obs).completed(pj.make_env("point_mass").spec)


@pytest.mark.parametrize("version", [None, 1, 3, "x", True])
def test_a_run_of_another_version_is_refused(run, tmp_path, version):
    written = json.loads((run.directory / "config.json").read_text())
    written.pop("version")
    changed = written if version is None else {"version": version} | written
    (tmp_path / "config.json").write_text(json.dumps(changed))
    with pytest.raises(pj.UsageError, match="version of planil_jax and cannot be read"):
        pj.load(tmp_path)


def test_a_field_of_the_method_is_reached_in_short_where_the_experiment_has_its_name():
    settings = experiment.for_method("mail")
    changed = experiment.with_value(settings, "model.members", 3)
    assert changed.agent.model.members == 3 and changed.model == ()


def test_names_that_the_environment_does_not_observe_are_refused():
    made = pj.Demos.from_arrays(np.zeros((1, 3, 1)), observation_names=("height",))
    with pytest.raises(pj.UsageError, match="hold 'height', but point_mass observes"):
        made.completed(pj.make_env("point_mass").spec)


def test_an_environment_s_module_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(env_registry, "_MAKERS", dict(env_registry._MAKERS))
    for written, sentence in {
        "no_such_module:make": "is the module 'no_such_module', which cannot be found",
        "json.no_such_part:make": "is the module 'json.no_such_part', which cannot be fo",
        "os": "is registered as 'os': write \"package.module:function\"",
        3: "is registered as 3: give a function",
    }.items():
        with pytest.raises(pj.UsageError, match=f"environment 'nowhere' {sentence}"):
            pj.register_env("nowhere", written)
    pj.register_env("nowhere", "json:no_such_function")
    with pytest.raises(pj.UsageError, match="'json:no_such_function', which cannot be had"):
        pj.make_env("nowhere")


def test_a_run_that_is_there_is_not_overwritten(run, demos):
    with pytest.raises(pj.UsageError, match="holds a run already"):
        pj.train(
            "bc",
            env="point_mass",
            demos=demos,
            seeds=2,
            total_steps=40,
            logdir=run.directory,
            settings=TINY,
        )


@pytest.mark.fast
def test_a_logdir_that_is_no_path_is_refused():
    with pytest.raises(pj.UsageError, match="logdir must be a path, .*, not 3"):
        pj.train("bc", env="point_mass", logdir=3)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"method": "mpial", "env": "point_mass"}, "Did you mean mpail"),
        ({"method": "bc", "env": "pointmass"}, "Did you mean point_mass"),
        ({"method": "bc"}, "say in which environment"),
        ({"method": "bc", "env": "point_mass"}, "demonstrations"),
        (
            {"method": "bc", "env": "point_mass", "settings": {"gradient_stesp": 1}},
            "Did you mean gradient_steps",
        ),
        (
            {"method": "bc", "env": "point_mass", "settings": {"batch": -8}},
            "batch must be at least 1",
        ),
        (
            {"method": "bc", "env": "point_mass", "demos": np.zeros((1, 2, 4))},
            "demos must be Demos or a file",
        ),
        (
            {"method": "bc", "env": "point_mass", "settings": {"seeds": 3}},
            "settings names 'seeds': pass seeds= to train instead",
        ),
        ({"method": "bc", "env": "point_mass", "seeds": "3"}, "seeds must be"),
        ({"method": "bc", "env": 3}, "env must be a name or an Environment, not 3"),
        ({"method": 3, "env": "point_mass"}, "method must be a name or settings, such as"),
        (
            {"method": pj.bc.Config, "env": "point_mass"},
            "method must be a name or settings",
        ),
        (
            {"method": "bc", "env": "point_mass", "sweep": [3]},
            "sweep.0. must be str, not 3",
        ),
        ({"method": "bc", "env": "point_mass", "sweep": 3}, "sweep must be .*, not 3"),
        ({"method": "bc", "env": "point_mass", "total_steps": 2.5}, "total_steps must be "),
        (
            {"method": "bc", "env": "point_mass", "settings": {3: 3}},
            "settings names 3: a field is named by its path",
        ),
        (
            {"method": "bc", "env": "point_mass", "settings": [3]},
            "settings must be a mapping such as .*, not .3.",
        ),
        (
            {"method": pj.bc.Config(policy=pj.mpail.Config()), "env": "point_mass"},
            "agent.policy must be heads.Config, not mpail.Config",
        ),
        (
            {"method": "mpail", "env": "navigation", "settings": {"optimizer.momentum": 1}},
            "agent.optimizer.momentum must be at least 0 and below 1, not 1",
        ),
        (
            {"method": "iqmpc", "env": "pendulum", "settings": {"network.dropout": 1}},
            "agent.network.dropout must be at least 0 and below 1, not 1",
        ),
        ({"method": "bc", "env": "point_mass", "seed": 2**32}, "seed must be"),
        (
            {
                "method": "mpail",
                "env": "point_mass",
                "settings": {"replay.discriminator_share": 1.0},
            },
            "must add up to at most 1",
        ),
        (
            {"method": "iqmpc", "env": "point_mass", "settings": {"network.group": 7}},
            "group must divide latent",
        ),
        (
            {"method": "mpail2", "env": "point_mass", "settings": {"network.hidden": (0,)}},
            "must be at least 1",
        ),
        (
            {"method": "iqmpc", "env": "point_mass", "settings": {"critic_subset": 99}},
            "critic_subset must be at most network.critics",
        ),
    ],
)
def test_an_impossible_training_is_refused_in_one_sentence(tmp_path, arguments, sentence):
    with pytest.raises(pj.UsageError, match=sentence):
        pj.train(**arguments, logdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------- a stranger's method


IN_A_FRESH_PROCESS = """
import json, sys, planil_jax as pj
try:
    pj.load("run")
except pj.UsageError as error:
    message, imported = str(error), "tug" in sys.modules
found = pj.load("run", trust_imports=True).evaluate(2, expert=False)
print(json.dumps([message, imported, found["in_distribution"]["returns"]]))
"""


def test_a_stranger_s_method_is_read_in_a_fresh_process_only_where_it_is_trusted(
    tmp_path, demos, monkeypatch, compile_cache
):
    monkeypatch.syspath_prepend(str(ROOT / "tests/stranger"))
    pj.register_agent("tug", "tug")
    trained = pj.train(
        "tug",
        env="point_mass",
        demos=demos,
        seeds=2,
        total_steps=40,
        logdir=tmp_path / "run",
        settings=TUG,
    )
    wanted = trained.evaluate(episodes=2, expert=False)["in_distribution"]["returns"]
    path = os.pathsep.join([str(ROOT / "tests/stranger"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | compile_cache | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    message, imported, again = json.loads(done.stdout.splitlines()[-1])
    assert "wants to import 'tug', which runs their code" in message and not imported
    np.testing.assert_allclose(again, wanted, rtol=1e-5)


def test_a_run_s_own_directory_is_never_imported_from(run, tmp_path, monkeypatch):
    copy = tmp_path / "run"
    copy.mkdir()
    for file in ("config.json", "demonstrations.npz"):
        (copy / file).write_bytes((run.directory / file).read_bytes())
    written = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(written | {"imports": ["evil"]}))
    (copy / "evil.py").write_text("raise SystemExit('code of a stranger ran')")
    monkeypatch.syspath_prepend(str(copy))
    with pytest.raises(pj.UsageError, match="wants to import 'evil'"):
        runs.load(copy)
    with pytest.raises(pj.UsageError, match="inside the run itself"):
        runs.load(copy, trust_imports=True)
    (copy / "evil.py").rename(tmp_path / "elsewhere.py")
    (copy / "evil.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(pj.UsageError, match="inside the run itself"):
        runs.load(copy, trust_imports=True)
    (copy / "config.json").write_text(json.dumps(written | {"imports": "evil"}))
    with pytest.raises(pj.UsageError, match="imports must be names of modules"):
        runs.load(copy, trust_imports=True)


@pytest.mark.fast
def test_a_module_that_lacks_a_part_is_refused_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_ROWS", dict(registry._ROWS))
    with pytest.raises(pj.UsageError, match="json lacks Config and NEEDS and make"):
        pj.register_agent("half", "json")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "half_an_agent.py").write_text("Config = 3\n")
    pj.register_agent("half", "half_an_agent")
    assert "half_an_agent" not in sys.modules
    with pytest.raises(pj.UsageError, match="half_an_agent lacks NEEDS and make"):
        registry.method("half")
    wrong = types.ModuleType("wrong")
    wrong.Config, wrong.NEEDS, wrong.make = pj.bc.Config, 3, lambda task, config: None
    pj.register_agent("wrong", wrong)
    with pytest.raises(pj.UsageError, match="NEEDS of wrong must be a Needs"):
        registry.method("wrong").needs(pj.bc.Config())
    with pytest.raises(pj.UsageError, match="must return an Agent, not None"):
        registry.method("wrong").make(None, pj.bc.Config())
    wrong.shows = lambda task, config: 3
    with pytest.raises(pj.UsageError, match="of wrong must return a Shows, not 3"):
        registry.method("wrong").shows(None, pj.bc.Config())
    for part, sentence in {
        "shows": "shows of wrong must be a function, not 3",
        "make": "make of wrong must be a function, not 3",
        "Config": "Config of wrong must be a class, not 3",
    }.items():
        setattr(wrong, part, 3)
        registry.method.cache_clear()
        with pytest.raises(pj.UsageError, match=sentence):
            registry.method("wrong")
    with pytest.raises(ValueError, match="cannot name a method"):
        pj.register_agent("", "json")
    with pytest.raises(pj.UsageError, match="'no_such_module', which cannot be found"):
        pj.register_agent("nowhere", "no_such_module")
    with pytest.raises(pj.UsageError, match="'nowhere' is registered as 3: give a module"):
        pj.register_agent("nowhere", 3)
    (tmp_path / "needs_more.py").write_text("import no_such_module\n")
    pj.register_agent("nowhere", "needs_more")
    with pytest.raises(pj.UsageError, match="cannot be imported"):
        registry.method("nowhere")
    with pytest.raises(ValueError, match="registered already"):
        pj.register_agent("bc", "json")


@pytest.mark.fast
def test_help_of_settings_says_what_every_field_means():
    described = {field.path for field in config.describe(pj.mpail.Config())}
    lines = pj.mpail.Config.__doc__.splitlines()
    (line,) = [line for line in lines if " planner.horizon " in line]
    assert line.startswith("  planner.horizon = 10: H, control steps of a plan (whole numb")
    written = {line.split(" = ")[0].strip() for line in lines}
    assert described <= written


@pytest.mark.fast
def test_a_variant_differs_by_its_settings():
    assert registry.method("vmail").config.conservatism == 0.0
    assert registry.method("gail").config.form == "gail"
    assert registry.method_of(pj.mpail.Config()) == "mpail"
    assert registry.method_of(pj.mpail.Config(learned_model=True, batch=8)) == "mpail_om"
    assert registry.method_of(pj.adversarial.Config(form="gail")) == "gail"
    assert registry.method_of(pj.ppo.Config(epochs=3)) == "ppo"
