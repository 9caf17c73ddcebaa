"""Wrong flags of the commands of evaluation: one sentence each, before anything is read."""

import sys

import pytest
from absl import flags

from planil_jax.base import UsageError
from planil_jax.cli import app, collect, evaluate, film, result_file

pytestmark = pytest.mark.fast


def refused(command, monkeypatch, *arguments: str) -> str:
    """The sentence about a command line."""
    values, argv = flags.FlagValues(), [command.__name__, *arguments]
    with monkeypatch.context() as patch:
        kinds = ("string", "integer", "float", "bool", "list", "enum", "multi_string")
        for define in kinds:
            plain = getattr(flags, f"DEFINE_{define}")

            def local(*args, plain=plain, **kwargs):
                return plain(*args, flag_values=values, **kwargs)

            patch.setattr(flags, f"DEFINE_{define}", local)
        patch.setattr(sys, "argv", argv)
        patch.setattr(command, "FLAGS", values)
        patch.setattr(result_file, "FLAGS", values)
        command.define_flags()
        flags.DEFINE_bool("trust_imports", False, "As of every command.")
        with pytest.raises(UsageError) as caught:
            app.parse(argv, values)
            command.main()
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("field", ["abc", "40,x"])
def test_a_field_that_is_no_number_is_refused(monkeypatch, field):
    message = refused(evaluate, monkeypatch, "--run=nowhere", f"--field={field}")
    assert message == f"--field={field}: must be metres, such as 40 or 40,80."


def test_a_number_of_episodes_below_1_is_refused(monkeypatch):
    message = refused(evaluate, monkeypatch, "--run=nowhere", "--episodes=0")
    assert message.startswith("--episodes=0: must be")


def test_a_directory_without_a_run_is_refused(monkeypatch, tmp_path):
    assert "holds no run" in refused(evaluate, monkeypatch, f"--run={tmp_path}")


@pytest.mark.parametrize(
    "flag",
    ["demonstrator=a", "bc=a", "tuning_trials=0", "tuned=a", "tuned_on=a", "absent=bc:a"],
)
def test_what_is_for_a_file_of_results_is_refused_without_one(monkeypatch, flag):
    message = refused(evaluate, monkeypatch, "--run=nowhere", f"--{flag}")
    name = flag.partition("=")[0]
    assert message == f"--{name} is for a file of results: add --out."


def test_a_number_of_trials_below_0_is_refused(monkeypatch):
    message = refused(evaluate, monkeypatch, "--run=nowhere", "--tuning_trials=-1")
    assert message == "--tuning_trials=-1: must be a non-negative integer."


def test_observation_entries_that_are_no_numbers_are_refused(monkeypatch):
    arguments = ("--env=point_mass", "--out=x.npz", "--observed=0,-1")
    message = refused(collect, monkeypatch, *arguments)
    assert message == "--observed=0,-1: must be whole numbers from 0 on."


def test_an_expert_needs_an_environment_or_a_run(monkeypatch):
    assert "give --env" in refused(collect, monkeypatch, "--out=x.npz")
    assert "give --run" in refused(film, monkeypatch, "--out=x.gif")
    message = refused(collect, monkeypatch, "--out=x.npz", "--env=pendulum", "--which=best")
    assert message == "--which=best is of a --run, and there is none."


def test_files_of_another_ending_are_refused(monkeypatch):
    message = refused(collect, monkeypatch, "--env=point_mass", "--out=x.csv")
    assert message == "x.csv: demonstrations (--out) are a file that ends in .npz."
    message = refused(evaluate, monkeypatch, "--run=nowhere", "--out=x.txt")
    assert message == "x.txt: a file of results (--out) must end in .json."
    message = refused(film, monkeypatch, "--env=kitchen", "--out=x.avi")
    assert message == "x.avi: a film (--out) must end in .gif or .mp4."
