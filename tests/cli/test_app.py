"""What every command shares."""

import errno
import os
import pathlib
import subprocess
import sys

import jax
import pytest
from absl import flags
from ml_collections import config_flags

from planil_jax.base import UsageError, UserError
from planil_jax.cli import app

pytestmark = pytest.mark.fast

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """
from ml_collections import ConfigDict

def get_config(kind="small"):
    planner = {"horizon": 10, "temperature": 0.5, "warm": True}
    rounds = 5 if kind == "small" else 50
    return ConfigDict({"agent": {"planner": planner}, "rounds": rounds, "widths": (8, 8)})
"""
BINARY = """
'''Fails in one way or another.'''
import jax.numpy as jnp
from absl import flags
from planil_jax.cli import app
flags.DEFINE_string("fault", "", "Which.")

def main():
    print("sum", jnp.arange(4).sum())
    raise ValueError("first\\nsecond")

if __name__ == "__main__":
    app.run(main)
"""


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(CONFIG)
    return path


def parse(monkeypatch, *arguments: str) -> flags.FlagValues:
    """Parses arguments against a command line with --seeds, --config and --[no]plot."""
    values, argv = flags.FlagValues(), ["prog", *arguments]
    flags.DEFINE_integer("seeds", 1, "How many.", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("plot", True, "Whether to plot.", flag_values=values)
    flags.DEFINE_enum("scale", "lin", ["lin", "log"], "Axis.", flag_values=values)
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    monkeypatch.setattr(sys, "argv", argv)
    app.parse(argv, values)
    return values


def refusal(monkeypatch, *arguments: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(monkeypatch, *arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def binary(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_overrides_reach_the_config(monkeypatch, config_file):
    values = parse(
        monkeypatch,
        f"--config={config_file}:large",
        "--config.agent.planner.horizon=3",
        "--noconfig.agent.planner.warm",
        "--seeds=4",
    )
    assert values.config.agent.planner.horizon == 3
    assert values.config.agent.planner.warm is False
    assert (values.config.rounds, values.seeds) == (50, 4)


def test_a_misspelt_flag_is_refused_with_the_nearest(monkeypatch):
    assert refusal(monkeypatch, "--seed=3") == (
        "no flag --seed. Did you mean --seeds? Try --help."
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "agent.planer.horizon=3",
            "--config.agent has no field 'planer'. Did you mean planner? There are:",
        ),
        (
            "agent.planner.horizn=3",
            "--config.agent.planner has no field 'horizn'. Did you mean horizon? "
            "There are: horizon, temperature, warm.",
        ),
        ("rounds.x=3", "--config.rounds is a single value and has no field 'x'."),
        (
            "agent.planner=3",
            "--config.agent.planner is a group; set one of its fields: "
            "horizon, temperature, warm.",
        ),
        ("rounds=6.5", "--config.rounds=6.5: must be an integer."),
        ("widths=(1, 2", "--config.widths=(1, 2: must be a tuple, such as '(1, 2)'."),
        (
            "agent.planner.temperature=hot",
            "--config.agent.planner.temperature=hot: must be a",
        ),
        ("agent.planner.warm=maybe", "--config.agent.planner.warm=maybe: must be true or"),
    ],
)
def test_a_wrong_override_is_refused_by_its_path(
    monkeypatch, config_file, override, message
):
    found = refusal(monkeypatch, f"--config={config_file}", f"--config.{override}")
    assert found.startswith(message)


def test_an_override_without_a_config_asks_for_one(monkeypatch):
    assert "add --config=FILE" in refusal(monkeypatch, "--config.rounds=3")


def test_a_missing_config_file_is_refused_with_its_neighbours(monkeypatch, config_file):
    message = refusal(monkeypatch, "--config", str(config_file.with_name("smal.py")))
    assert "no config file" in message and f"Did you mean {config_file}?" in message


def test_a_config_file_that_fails_is_refused_by_name(monkeypatch, config_file):
    config_file.write_text("def get_config(): return 1 / 0")
    assert "small.py fails: ZeroDivisionError" in refusal(
        monkeypatch, f"--config={config_file}"
    )


def test_a_wrong_value_of_a_flag_is_refused_by_name_value_and_type(monkeypatch):
    assert refusal(monkeypatch, "--seeds=x") == "--seeds=x: must be a positive integer."
    assert refusal(monkeypatch, "--seeds=0") == "--seeds=0: must be a positive integer."
    assert "<lin|log>" in refusal(monkeypatch, "--scale=cube")


def test_leftover_arguments_are_refused(monkeypatch):
    assert refusal(monkeypatch, "--plot", "true").startswith("unexpected argument 'true'")


def test_a_flag_without_its_value_is_refused(monkeypatch):
    assert "--seeds" in refusal(monkeypatch, "--seeds")


def test_a_home_directory_is_expanded_wherever_a_flag_holds_one(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert app._expand_home("--logdir=~/runs") == "--logdir=/home/me/runs"
    assert app._expand_home("--runs=~/a,b,~/c") == "--runs=/home/me/a,b,/home/me/c"
    assert app._expand_home("--config=~/a.py:x") == "--config=/home/me/a.py:x"
    assert app._expand_home("~/x") == "/home/me/x"  # after a space, or without a flag
    for kept in ("--logdir=runs/~", "--note=about~1", "--plot"):
        assert app._expand_home(kept) == kept


def test_numbers_of_a_list_flag_are_read_or_refused_in_one_sentence():
    values = flags.FlagValues()
    flags.DEFINE_list("field", [], "Sides.", flag_values=values)
    app.parse(["prog", "--field=40,80.5"], values)
    assert app.numbers("field", values) == [40.0, 80.5]
    for wrong in ("abc", "40,", "nan"):
        app.parse(["prog", f"--field={wrong}"], values)
        with pytest.raises(UsageError, match=f"^--field={wrong}: must be numbers, such as"):
            app.numbers("field", values)


def test_a_required_flag_is_asked_for_with_its_meaning():
    values = flags.FlagValues()
    flags.DEFINE_string("demos", None, "A file.", required=True, flag_values=values)
    with pytest.raises(UsageError, match="^--demos is required: A file.$"):
        app.parse(["prog"], values)


def test_help_shows_the_docstring_the_flags_and_the_fields(config_file):
    def main() -> None:
        pass

    values = flags.FlagValues()
    flags.DEFINE_bool("plot", True, "Whether to plot.", flag_values=values)
    text = app.help_text(main, ["prog", f"--config={config_file}"], values)
    assert text.startswith("What every command shares.\n\nFlags:\n")
    assert "  --[no]plot\n      Whether to plot. Default: True." in text
    assert "  --config.agent.planner.horizon=10" in text


@pytest.mark.parametrize(
    ("error", "sentence", "status"),
    [
        (UserError("the log is empty."), "error: the log is empty.", 1),
        (UsageError("no flag."), "error: no flag.", 2),
        (KeyboardInterrupt(), "interrupted", 130),
        (OSError(errno.ENOSPC, "full", "a/b.npz"), "could not write a/b.npz; the last", 1),
        (ValueError("orbax: No space left on device"), "the disk is full", 1),
        (
            PermissionError(errno.EACCES, "Permission denied", "x"),
            "x: Permission denied",
            1,
        ),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: big"), "the device is out", 1),
        (MemoryError(), "this machine is out of memory: lower", 1),
        (ValueError("a\nb"), "unexpected ValueError: a b; run again with --debug", 1),
    ],
)
def test_an_error_becomes_one_sentence_and_a_status(error, sentence, status):
    message, code = app.explain(error)
    assert sentence in message and "\n" not in message
    assert code == status


def run_here(monkeypatch, main, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["prog", *arguments])
    with pytest.raises(SystemExit) as exit_:
        app.run(main, compute=False)
    return exit_.value.code


def test_a_binary_that_succeeds_exits_with_0(monkeypatch, capsys):
    assert run_here(monkeypatch, lambda: print("done")) == 0
    assert capsys.readouterr() == ("done\n", "")


def test_debug_shows_the_traceback_of_every_error(monkeypatch, capsys):
    def main() -> None:
        raise UserError("no such thing.")

    assert run_here(monkeypatch, main, "--debug") == 1
    errors = capsys.readouterr().err
    assert "Traceback" in errors and errors.endswith("\nerror: no such thing.\n")
    assert run_here(monkeypatch, main, "--nodebug") == 1
    assert capsys.readouterr().err == "error: no such thing.\n"


def test_a_compile_cache_that_cannot_be_written_is_reported_and_not_used(tmp_path, capsys):
    taken = tmp_path / "file"
    taken.write_text("")
    before = jax.config.jax_compilation_cache_dir
    app._keep_compiled(str(taken / "xla"))
    assert "compiled programs are not kept" in capsys.readouterr().err
    assert jax.config.jax_compilation_cache_dir == before


def test_an_unexpected_error_takes_one_line_after_the_device(tmp_path):
    (tmp_path / "binary.py").write_text(BINARY)
    ran = binary(
        str(tmp_path / "binary.py"), "--device=cpu", f"--compile_cache={tmp_path}/xla"
    )
    assert (ran.returncode, ran.stdout) == (1, "sum 6\n")
    device, error = ran.stderr.splitlines()
    assert device.startswith("device: cpu (") and jax.__version__ in device
    assert error.startswith(
        "error: unexpected ValueError: first second; run again with --debug"
    )
    assert (tmp_path / "xla").is_dir()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is a GPU")
def test_a_missing_gpu_is_refused_with_the_pip_line(tmp_path):
    (tmp_path / "binary.py").write_text(BINARY)
    ran = binary(str(tmp_path / "binary.py"), "--device=gpu", "--compile_cache=")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert 'pip install ".[cuda]"' in ran.stderr and "--device=auto" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "before, after",
    [
        ("", "--xla_cpu_prefer_vector_width=512"),
        ("--xla_foo=1", "--xla_foo=1 --xla_cpu_prefer_vector_width=512"),
        ("--xla_cpu_prefer_vector_width=128", "--xla_cpu_prefer_vector_width=128"),
    ],
)
def test_vectors_are_wide_unless_the_user_says_otherwise(before, after, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", before)
    app._widen_vectors()
    assert os.environ["XLA_FLAGS"] == after
