"""A run of which a file was cut or changed is read as it was, or a sentence says so."""

import json
import shutil
import warnings

import jax
import numpy as np
import pytest

from planil_jax import envs, experiment, launch, runs
from planil_jax.agents import bc
from planil_jax.base import TrainState, UserError
from planil_jax.data import demos
from planil_jax.evaluation import evaluate, out_of_distribution
from planil_jax.nets import heads, mlp
from planil_jax.training import checkpoint, files, lock, report, rundir

AGENT = bc.Config(policy=heads.Config(network=mlp.Config(hidden=(4,))), gradient_steps=1)
FILES = (
    "config.json",
    "versions.json",
    "metrics.jsonl",
    "demonstrations.npz",
    "checkpoints/000000000020/checkpoint.json",
    "arrays",
)
EVALUATION = {
    "step": 20,
    "seeds": 1,
    "members": ["seed 0"],
    "in_distribution": {"return": {"mean": 1.0, "low": 0.5, "high": 1.5}},
    "fields": [],
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A run of bc without training, with two checkpoints."""
    directory = tmp_path_factory.mktemp("damaged") / "run"
    env = envs.make("point_mass")
    card = demos.Card(
        environment="point_mass",
        control_period=env.spec.control_period,
        observation_names=env.spec.observation_names,
        action_low=env.spec.action_low,
        action_high=env.spec.action_high,
    )
    obs = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    episode = demos.Episode(obs, np.zeros((3, 2), np.float32), None, False)
    demos.save(directory / runs.DEMONSTRATIONS, [episode] * 2, card)
    settings = experiment.for_method("bc", environment="point_mass", agent=AGENT)
    settings = experiment.with_value(
        settings, "demonstrations", runs.digest(directory / runs.DEMONSTRATIONS)
    )
    rundir.open_run(directory, experiment.to_json(settings), False)
    loaded = demos.load(directory / runs.DEMONSTRATIONS, env.spec)
    state = experiment.make_agent(settings, env, loaded).init(jax.random.key(0))
    one = jax.tree.map(lambda leaf: leaf[None], state)
    whole = TrainState(agent=one, env=(), carry=(), key=jax.random.key(0)[None])
    for step in (10, 20):
        place = directory / rundir.CHECKPOINTS
        checkpoint.save(place, whole, step=step, round_=1, score=1.0)
    with report.Report(directory, console=False) as writer:
        writer.start(0, 20)
        for step in (10, 20):
            writer.epoch(step, {"train/reward": np.array([float(step)])})
    return directory


def largest(directory):
    arrays = (directory / "checkpoints/000000000020/arrays").rglob("*")
    return max((p for p in arrays if p.is_file()), key=lambda p: p.stat().st_size)


def read(directory) -> tuple:
    """All that an evaluation takes from a run."""
    trained = runs.load(directory)
    params = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trained.params)]
    origin = runs.provenance(trained)
    return params, trained.experiment, trained.step, origin["curves"], origin["seconds"]


@pytest.mark.parametrize("name", FILES)
def test_a_run_with_a_damaged_file_is_read_as_it_was_or_one_sentence_says_so(
    directory, tmp_path, name
):
    wanted = read(directory)
    rng = np.random.default_rng(0)
    for trial in range(8):
        copy = tmp_path / str(trial)
        shutil.copytree(directory, copy)
        path = largest(copy) if name == "arrays" else copy / name
        data = bytearray(path.read_bytes())
        if trial < 2:
            del data[trial * len(data) // 2 :]
        else:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                found = read(copy)
            except UserError as error:
                assert "\n" not in str(error)
                continue
        if found != wanted:
            # A cut of metrics at the end of a line leaves the lines before.
            assert any(t.category is files.DamageWarning for t in told) or (
                name == "metrics.jsonl" and trial < 2
            ), (trial, found, wanted)
        assert found[0] == wanted[0]


def test_swapped_demonstrations_are_refused_where_a_run_is_read_and_resumed(
    directory, tmp_path
):
    copy = tmp_path / "run"
    shutil.copytree(directory, copy)
    with np.load(copy / runs.DEMONSTRATIONS) as arrays:
        changed = {**arrays, "obs": arrays["obs"] + np.float32(0.5)}
    np.savez(copy / runs.DEMONSTRATIONS, **changed)
    with pytest.raises(UserError, match="demonstrations.npz is not the file that this run"):
        runs.load(copy)
    settings = runs.load_experiment(copy)
    with pytest.raises(UserError, match="is not the file that this run learned from"):
        launch.launch(settings, logdir=copy, resume=True)


@pytest.mark.parametrize(
    "text",
    ["", "5", "[" * 100_000, '{"step": 20, "in_dist', '{"step": 20, "fields": []}']
    + [json.dumps(EVALUATION | {"fields": [3]}), json.dumps(EVALUATION | {"step": "20"})],
)
def test_a_damaged_evaluation_is_told_and_left_out(tmp_path, text):
    (tmp_path / evaluate.RESULT).write_text(json.dumps(EVALUATION))
    assert evaluate.read(tmp_path) == EVALUATION
    (tmp_path / evaluate.RESULT).write_text(text)
    with pytest.warns(files.DamageWarning, match="evaluation.json is damaged"):
        assert evaluate.read(tmp_path) == {}


def test_a_changed_byte_of_an_evaluation_or_of_versions_is_noticed(directory, tmp_path):
    """Their types stay right, and only their seals tell."""
    copy = tmp_path / "run"
    shutil.copytree(directory, copy)
    trained = runs.load(copy)
    evaluate.save(trained, EVALUATION)
    assert evaluate.read(copy) == EVALUATION
    path = copy / evaluate.RESULT
    path.write_text(path.read_text().replace('"mean": 1.0', '"mean": 7.0'))
    with pytest.warns(files.DamageWarning, match="evaluation.json is damaged .it has"):
        assert evaluate.read(copy) == {}
    path = copy / "versions.json"
    path.write_text(path.read_text().replace('"commit": "', '"commit": "f'))
    with pytest.warns(files.DamageWarning, match="versions.json is damaged .it has chang"):
        assert rundir.saved_versions(copy) == {"commit": ""}
    path.unlink()
    with pytest.warns(files.DamageWarning, match="versions.json is missing: commit"):
        assert rundir.saved_versions(copy) == {"commit": ""}


def test_a_training_in_a_directory_that_another_has_is_refused_and_changes_nothing(
    directory, tmp_path
):
    copy = tmp_path / "run"
    shutil.copytree(directory, copy)
    settings = runs.load_experiment(copy)
    with lock.held(copy):
        before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
        with pytest.raises(UserError, match=r"another process \(.*\) trains in .*run: let"):
            launch.launch(settings, logdir=copy, resume=True)
        assert before == {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}


def test_a_wrong_setting_of_a_run_is_refused_by_the_name_of_its_file(directory, tmp_path):
    path = tmp_path / rundir.CONFIG
    text = (directory / rundir.CONFIG).read_text()
    for old, new, words in [
        ('"seeds": 1', '"seeds": "one"', "config.json: seeds must be int, not 'one'"),
        (
            '"seeds": 1',
            '"seeds": 1, "seeds": 2',
            "config.json is damaged .it gives seeds",
        ),
    ]:
        path.write_text(text.replace(old, new))
        with pytest.raises(UserError, match=words):
            runs.load_experiment(tmp_path)


def test_damaged_paths_on_a_field_are_told_and_left_out(tmp_path):
    paths = out_of_distribution.FieldPaths(
        np.zeros((1, 2, 3, 2), np.float32), np.zeros((1, 2), bool)
    )
    out_of_distribution.save_paths(tmp_path, 40.0, paths)
    path = out_of_distribution.paths_file(tmp_path, 40.0)
    good = path.read_bytes()
    for damaged in (b"", good[:50], b"text", good[:60] + b"\xff" * 9 + good[69:]):
        path.write_bytes(damaged)
        with pytest.warns(files.DamageWarning, match="field_40.npz is damaged"):
            assert out_of_distribution.load_paths(tmp_path, 40.0) is None


def test_a_refused_training_leaves_nothing(directory, tmp_path, monkeypatch):
    """There is not enough memory, which is known after all settings are read."""
    from planil_jax.training import memory

    monkeypatch.setattr(memory, "free", lambda device: 100)
    settings = experiment.for_method("bc", environment="point_mass", agent=AGENT)
    logdir = tmp_path / "run"
    with pytest.raises(UserError, match="training needs"):
        source = directory / runs.DEMONSTRATIONS
        launch.launch(settings, demos_path=source, logdir=logdir)
    assert list(tmp_path.iterdir()) == []
