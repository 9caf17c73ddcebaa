import json
import re
import subprocess

import pytest

from planil_jax.base import UsageError
from planil_jax.training import rundir

pytestmark = pytest.mark.fast

PLAIN = {"agent": {"rate": 0.1, "sizes": [1, 2]}, "run": {"total_steps": 10}}
CONFIG = json.dumps({"version": 2} | PLAIN)


def changed(**fields):
    plain = json.loads(CONFIG)
    for path, value in fields.items():
        group, name = path.split("__")
        plain[group][name] = value
    return json.dumps(plain)


def begun(directory):
    """A run whose first epoch has ended."""
    rundir.open_run(directory, CONFIG, resume=False)
    (directory / "metrics.jsonl").write_text('{"step": 5, "metrics": {}}\n')


def files(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_new_run_leaves_its_configuration_and_versions(tmp_path):
    assert rundir.open_run(tmp_path / "a" / "b", CONFIG, resume=False) == []
    assert rundir.read_config(tmp_path / "a" / "b") == CONFIG
    versions = json.loads((tmp_path / "a" / "b" / "versions.json").read_text())
    assert {"planil_jax", "jax", "jaxlib", "flax", "optax", "numpy"} <= versions.keys()
    assert {
        "python",
        "device",
        "commit",
        "matmul_precision",
        "xla_flags",
    } <= versions.keys()
    assert versions["jax"] == __import__("jax").__version__


def test_a_directory_with_a_run_is_refused_unless_it_is_to_be_resumed(tmp_path):
    begun(tmp_path)
    before = files(tmp_path)
    with pytest.raises(UsageError, match="resume=True"):
        rundir.open_run(tmp_path, CONFIG, resume=False)
    assert files(tmp_path) == before
    rundir.open_run(tmp_path, CONFIG, resume=True)
    assert files(tmp_path) == before


@pytest.mark.parametrize("resume", [False, True])
def test_another_configuration_is_refused_with_the_differences(tmp_path, resume):
    begun(tmp_path)
    before = files(tmp_path)
    other = changed(agent__rate=0.2, agent__more=1)
    with pytest.raises(UsageError) as error:
        rundir.open_run(tmp_path, other, resume=resume)
    assert "agent.rate is 0.1 there, 0.2 here" in str(error.value)
    assert "agent.more is absent there, 1 here" in str(error.value)
    assert files(tmp_path) == before


def test_only_the_first_differences_are_listed(tmp_path):
    begun(tmp_path)
    other = changed(agent__a=1, agent__b=1, agent__c=1, agent__d=1, agent__e=1)
    with pytest.raises(UsageError, match="; and 2 more"):
        rundir.open_run(tmp_path, other, resume=True)


def test_a_free_field_may_change_and_its_new_value_is_written(tmp_path):
    begun(tmp_path)
    longer = changed(run__total_steps=20)
    with pytest.raises(UsageError):
        rundir.open_run(tmp_path, longer, resume=True)
    rundir.open_run(tmp_path, longer, resume=True, free=("run.total_steps",))
    assert rundir.read_config(tmp_path) == longer


def test_resuming_nothing_starts_from_the_beginning_and_says_so(tmp_path):
    for directory in (tmp_path, tmp_path / "absent"):
        (notice,) = rundir.open_run(directory, CONFIG, resume=True)
        assert "from the beginning" in notice


def test_other_versions_are_reported(tmp_path):
    begun(tmp_path)
    path = tmp_path / "versions.json"
    path.write_text(json.dumps(rundir.saved_versions(tmp_path) | {"jax": "0.1"}))
    notices = rundir.open_run(tmp_path, CONFIG, resume=True)
    assert any("jax was 0.1, is 0." in notice for notice in notices)


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for logdir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="cannot be written"):
            rundir.open_run(logdir, CONFIG, resume=False)


def test_a_directory_whose_checkpoints_orbax_could_not_read_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has a '\\[', .* choose another logdir"):
        rundir.open_run(tmp_path / "rate[1e-3]", CONFIG, resume=False)
    assert not list(tmp_path.iterdir())


def test_a_directory_without_a_run_has_no_configuration(tmp_path):
    with pytest.raises(UsageError, match="no run"):
        rundir.read_config(tmp_path)


def test_a_damaged_configuration_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"agent": {')
    with pytest.raises(UsageError, match="config.json is damaged"):
        rundir.open_run(tmp_path, CONFIG, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_of_an_older_version_is_refused_in_one_sentence(tmp_path, resume):
    (tmp_path / "config.json").write_text(json.dumps(PLAIN))
    with pytest.raises(UsageError) as error:
        rundir.open_run(tmp_path, CONFIG, resume=resume)
    assert "was written by an older version of planil_jax and cannot be read" in str(
        error.value
    )
    assert files(tmp_path) == {tmp_path / "config.json": json.dumps(PLAIN).encode()}


def test_a_module_that_was_not_committed_makes_the_commit_unclean(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True)
    monkeypatch.setattr(rundir.planil_jax, "__file__", str(package / "__init__.py"))
    assert re.fullmatch("[0-9a-f]{40}", rundir._commit())
    (tmp_path / "notes.txt").write_text("beside the package")
    assert re.fullmatch("[0-9a-f]{40}", rundir._commit())
    (package / "more.py").write_text("")
    assert re.fullmatch(r"[0-9a-f]{40}\+", rundir._commit())
    (package / "__init__.py").write_text("changed = True")
    assert re.fullmatch(r"[0-9a-f]{40}\+", rundir._commit())
