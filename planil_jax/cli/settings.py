"""The flags that say what is trained, shared by the commands that train.

The settings of a method in an environment are those of its recipe, or else its defaults; a
config file takes their place; `--set` changes single fields.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import config_flags

from planil_jax import config, experiment
from planil_jax.base import UsageError
from planil_jax.compose import compose

FLAGS = flags.FLAGS


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", help_string="File of settings, FILE.py:ARG.")
    flags.DEFINE_string("method", None, "Method to train; `planil methods` lists them.")
    flags.DEFINE_string("env", None, "Environment; `planil envs` lists them.")
    flags.DEFINE_integer("total_steps", None, "Environment steps of each seed.")
    flags.DEFINE_multi_string("set", [], "Another value for a field, PATH=VALUE; repeated.")


def named() -> bool:
    """Whether the command line says what is trained."""
    return any(FLAGS[name].value is not None for name in ("config", "method", "env"))


def read(method: str, env: str, flag_of: dict[str, str]) -> experiment.Experiment:
    """The experiment that the command line asks for.

    Args:
      method: what is taken where no method is named.
      env: likewise.
      flag_of: fields that have a flag of their own, and its name.

    Raises:
      UsageError: a field is unknown, set twice, or holds a wrong value.
    """
    if FLAGS.config is None:
        base, notes = compose(FLAGS.method or method, FLAGS.env or env)
        print(*notes, sep="\n", file=sys.stderr)
    else:
        overridden = FLAGS["config"].override_values  # type: ignore[attr-defined]
        _refuse(overridden, "--config.", flag_of)
        base = experiment.from_config_dict(FLAGS.config)
        if FLAGS.method not in (None, base.method):
            raise UsageError(
                f"--method={FLAGS.method}, but the config file is of {base.method}: leave "
                "one of them out."
            )
    return changed(base, flag_of)


def changed(base: experiment.Experiment, flag_of: dict[str, str]) -> experiment.Experiment:
    """An experiment with what --env, --total_steps and --set say."""
    if FLAGS.env is not None:
        base = config.set_path(base, "environment", FLAGS.env)
    if FLAGS.total_steps is not None:
        base = config.set_path(base, "run.total_steps", FLAGS.total_steps)
    for text in FLAGS.set:
        _refuse([text.partition("=")[0]], "--set ", flag_of | {"method": "method"})
        try:
            base = experiment.with_value(base, *config.assignment(text))
        except UsageError as error:
            raise UsageError(f"--set {text}: {error}") from None
    return base


def shown(
    given: Callable[[str], str | None], load: Callable[[str], Any], method: str, env: str
) -> experiment.Experiment:
    """The experiment whose fields `--help` shows, read before flags are parsed."""
    if path := given("config"):
        return experiment.from_config_dict(load(path))
    return compose(given("method") or method, given("env") or env)[0]


def with_flags(base: experiment.Experiment, **fields: Any) -> experiment.Experiment:
    """An experiment with the flags that were given, those that are not None."""
    told = {name: value for name, value in fields.items() if value is not None}
    return dataclasses.replace(base, **told)


def _refuse(paths: Any, spelling: str, flag_of: dict[str, str]) -> None:
    """Refuses a field that a flag of its own sets."""
    for path in paths:
        if path in flag_of:
            raise UsageError(f"{spelling}{path} has a flag of its own: --{flag_of[path]}.")
