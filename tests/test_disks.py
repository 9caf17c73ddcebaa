"""Disks that are full or cannot be written: found out first where possible, and named."""

import errno
import json
import os
import types

import numpy as np
import pytest

from planil_jax import experiment, launch
from planil_jax.agents import bc
from planil_jax.base import UserError
from planil_jax.cli import app, collect, compare, convert, coverage, evaluate, expert, film
from planil_jax.data import demos
from planil_jax.evaluation import evaluate as evaluating
from planil_jax.evaluation import results
from planil_jax.nets import heads, mlp
from planil_jax.reporting import film as films
from planil_jax.reporting import page, pictures
from planil_jax.training import files, report, rundir
from tests.cli.test_evaluate import refused
from tests.evaluation.fixed_run import fixed_run

AGENT = bc.Config(policy=heads.Config(network=mlp.Config(hidden=(4,))), gradient_steps=1)


@pytest.fixture
def read_only(monkeypatch):
    """Holds root, too, to permissions: a directory of which nothing can be written."""

    def protect(directory):
        directory.chmod(0o555)
        allowed, opened = os.access, files.write

        def access(path, mode, **options):
            within = os.fspath(path).startswith(str(directory))
            return not (within and mode & os.W_OK) and allowed(path, mode, **options)

        def write(path, content):
            if str(path).startswith(str(directory)):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            opened(path, content)

        monkeypatch.setattr(os, "access", access)
        monkeypatch.setattr(files, "write", write)

    return protect


def test_a_read_only_run_is_evaluated_and_a_notice_comes_before(tmp_path, read_only):
    (tmp_path / "run").mkdir()
    trained = fixed_run("navigation:episode_length=5", [[1.0, 0.0]], tmp_path / "run")
    wanted = evaluating.evaluate(trained, 2, [40.0], 2, expert=False)
    assert (tmp_path / "run" / evaluating.RESULT).exists()
    for path in (tmp_path / "run").iterdir():
        path.unlink()
    read_only(tmp_path / "run")
    with pytest.warns(files.DamageWarning, match="evaluation.json cannot be written .Perm"):
        found = evaluating.evaluate(trained, 2, [40.0], 2, expert=False)
    assert found == wanted and evaluating.table(found)
    assert list((tmp_path / "run").iterdir()) == []
    assert "cannot be written" not in results.write(tmp_path / "out.json", {"a": 1})


def test_an_evaluation_whose_disk_is_full_is_returned_and_the_file_named(
    tmp_path, monkeypatch
):
    trained = fixed_run("navigation:episode_length=5", [[1.0, 0.0]], tmp_path)

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files, "write", full)
    with pytest.warns(
        files.DamageWarning, match="evaluation.json could not be written .the"
    ):
        found = evaluating.evaluate(trained, 2, [], 2, expert=False)
    assert evaluating.table(found)


@pytest.mark.parametrize(
    ("command", "flag", "arguments"),
    [
        (evaluate, "out", ["--run=nowhere"]),
        (coverage, "out", ["--runs=nowhere"]),
        (coverage, "picture", ["--runs=nowhere"]),
        (collect, "out", ["--env=point_mass"]),
        (convert, "out", ["--env=point_mass", "--source=nowhere"]),
        (film, "out", ["--env=navigation_mjx"]),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    monkeypatch, tmp_path, command, flag, arguments
):
    (tmp_path / "file").touch()
    ending = {"collect": ".npz", "convert": ".npz", "film": ".gif"}
    name = command.__name__.rpartition(".")[2]
    path = tmp_path / "file" / f"x{ending.get(name, '.json')}"
    sentence = refused(command, monkeypatch, f"--{flag}={path}", *arguments)
    assert sentence == f"{path} (--{flag}) cannot be written: Not a directory."


class Flags(dict):
    """Flags that are read before anything else."""

    def __getitem__(self, name):
        return types.SimpleNamespace(value=self.get(name))

    def __getattr__(self, name):
        return self.get(name)


@pytest.mark.parametrize(
    ("command", "flag"), [(expert, "out"), (expert, "weights"), (compare, "out")]
)
def test_a_command_that_trains_asks_for_its_files_first(
    monkeypatch, tmp_path, command, flag
):
    (tmp_path / "file").touch()
    path = str(tmp_path / "file" / "x.npz")
    monkeypatch.setattr(command, "FLAGS", Flags({flag: path, "logdir": str(tmp_path)}))
    with pytest.raises(UserError, match=rf"\(--{flag}\) cannot be written: Not a dir"):
        command.main()


def test_what_cannot_be_written_is_said_without_a_trace(tmp_path):
    (tmp_path / "file").touch()
    assert files.unwritable(tmp_path / "file/x/y.json") == os.strerror(errno.ENOTDIR)
    assert files.unwritable(tmp_path) == os.strerror(errno.EISDIR)
    assert files.unwritable(tmp_path / "a/b/x.json") == ""
    assert files.unwritable("x.json") == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# ----------------------------------------------------------------------------- a full disk


def _episodes(path):
    obs = np.zeros((3, 4), np.float32)
    episode = demos.Episode(obs, np.zeros((2, 2), np.float32), None, False)
    card = demos.Card(
        environment="point_mass",
        control_period=0.1,
        observation_names=("a", "b", "c", "d"),
        action_low=(-1.0, -1.0),
        action_high=(1.0, 1.0),
    )
    demos.save(path, [episode], card)


def _figure(path):
    from matplotlib.figure import Figure

    pictures.save(Figure(), path)


WRITERS = {
    "demos.npz": _episodes,
    "page.html": lambda path: page.save(path, "text"),
    "picture.png": _figure,
    "film.gif": lambda path: films.save(str(path), np.zeros((2, 4, 4, 3), np.uint8), 0.1),
    "results.json": lambda path: results.write(path, {"a": 1}),
    "run": lambda path: rundir.open_run(path, '{"version": 2}', False),
    report.METRICS_FILE: lambda path: report.Report(path.parent, console=False).start(0, 1),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_sentence_with_the_name_of_the_file(tmp_path, monkeypatch, name):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises((UserError, OSError)) as raised:
        WRITERS[name](tmp_path / name)
    sentence, status = app.explain(raised.value)
    assert str(tmp_path / name) in sentence and "unexpected" not in sentence
    assert "disk is full" in sentence or "No space left" in sentence
    assert status in (1, 2)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_directory_that_vanished_is_named(tmp_path):
    with report.Report(tmp_path / "run", console=False) as writer:
        writer.start(0, 2)
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        with pytest.raises(UserError, match=f"{tmp_path}/run was moved or removed"):
            writer.epoch(1, {"a": np.zeros(1)})


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "fields",
    [
        {"run.total_steps": 0},
        {"loop.rounds": 0},
        {"loop.num_envs": 0},
        {"run.checkpoint_every": 0},
        {"seeds": 0},
        {"sweep": ("agent.learning_rate=1e-3,x",)},
        {"sweep": ("agent.nothing=1,2",)},
        {"sweep": ("agent.gradient_steps=1,2",)},
        {"episodes": 9},
        {"method": "ppo", "model": ("nowhere",)},
        {"method": "mail"},
        {"environment": "pendulum"},
        {"environment": "point_mass:nothing=1"},
    ],
    ids=json.dumps,
)
def test_a_refused_training_leaves_nothing_behind(tmp_path, fields):
    _episodes(tmp_path / "demos.npz")
    fields = dict(fields)
    method = fields.pop("method", "bc")
    settings = experiment.for_method(method, environment="point_mass")
    logdir = tmp_path / "run"
    with pytest.raises(UserError) as raised:
        for field, value in fields.items():
            settings = experiment.with_value(settings, field, value)
        launch.launch(settings, demos_path=tmp_path / "demos.npz", logdir=logdir)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["demos.npz"]
