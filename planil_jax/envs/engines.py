"""Engines of physics: what steps the MuJoCo model of an environment.

    c     MuJoCo in C, called from the compiled program (`engine_c`); nothing to compile,
          and faster on a CPU
    mjx   MuJoCo in JAX, part of the compiled program (`engine_mjx`); for accelerators, and
          where a derivative is wanted
    auto  c on a CPU, mjx on an accelerator

`Environment.engine` tells which one it became. A run records it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from planil_jax.base import UsageError, did_you_mean

ENGINES = ("auto", "c", "mjx")


class Engine(NamedTuple):
    """A model that is stepped; pure functions of one state."""

    home: Any  # the data at the first keyframe or in the initial pose
    start: Callable[[Any], Any]  # (data, which is `home` with fields replaced) -> sim
    step: Callable[[Any, jax.Array], Any]  # (sim, ctrl [U]) -> sim after a control step
    # (sim, time [] int32) -> the data that the functions of an environment are given
    data: Callable[[Any, jax.Array], Any]


def require(name: str, engine: str, those: tuple[str, ...]) -> None:
    """Refuses an engine that an environment does not run on; "auto" it always does.

    Raises:
      UsageError: it does not.
    """
    if engine != "auto" and engine not in those:
        raise UsageError(
            f"environment {name!r}: it runs on engine {' and '.join(those)} alone, not on "
            f"{engine!r}."
        )


def resolve(name: str, engine: str) -> str:
    """The engine that "auto" stands for on this device; another one stays as it is.

    Args:
      name: of the environment, for messages.

    Raises:
      UsageError: there is no such engine.
    """
    if engine not in ENGINES:
        raise UsageError(
            f"environment {name!r}: there is no engine {engine!r}."
            f"{did_you_mean(str(engine), ENGINES)} There are: {', '.join(ENGINES)}."
        )
    if engine == "auto":
        return "c" if jax.default_backend() == "cpu" else "mjx"
    return engine
