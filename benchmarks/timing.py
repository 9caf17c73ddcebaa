"""Timing for the benchmarks: compiling, calls taken in turn, and single operations.

Also the files of their results.
"""

import itertools
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax.base import UsageError
from planil_jax.evaluation import results

Name = TypeVar("Name")
Call = Callable[[], Any]  # runs a compiled program once, and waits for it
Rows = list[dict[str, Any]]


def compiled(fn: Callable, *args) -> tuple[Call, float]:
    """A call of `fn` on `args`, and the seconds that tracing and compiling it took."""
    began = time.perf_counter()
    program = jax.jit(fn).lower(*args).compile()
    seconds = time.perf_counter() - began
    return lambda: jax.block_until_ready(program(*args)), seconds


def threaded(fn: Callable, state: Any, *args) -> tuple[Call, float]:
    """As `compiled`, of a function `fn(state, *args) -> (state, metrics)` that is iterated.

    Each call continues the last. It donates its state, as training does. The given
    state is invalid after the first call. A call returns the new state and the metrics.
    """
    began = time.perf_counter()
    program = jax.jit(fn, donate_argnums=0).lower(state, *args).compile()
    seconds = time.perf_counter() - began

    def call() -> Any:
        nonlocal state
        state, metrics = jax.block_until_ready(program(state, *args))
        return state, metrics

    return call, seconds


def products() -> tuple[Call, float]:
    """A call of large products of float32 matrices, and its operations.

    This is the machine's peak: no program made of matrix products is faster. Take it in
    turn with the program, since a busy machine slows both.
    """
    side, count = 1024, 16

    def multiply(matrix: jax.Array) -> jax.Array:
        total = matrix
        for _ in range(count):
            total = total @ matrix
        return total

    ones = jnp.full((side, side), 1.0 / side, jnp.float32)  # its powers are itself
    return compiled(multiply, ones)[0], 2.0 * side**3 * count


def in_turn(
    calls: dict[Name, Call],
    seconds: float,
    least: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, np.ndarray]:
    """Seconds of each call, taken A B C A B C … until each had its share of time.

    Whatever else the machine does falls on all of them alike, so that ratios of entries
    with the same index are fair where the times themselves are not. With the clock
    `time.process_time` they are of the processor, over all threads.
    """
    durations: dict[Name, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    until = time.perf_counter() + seconds * len(calls)
    for turn in itertools.count():
        if turn >= least and time.perf_counter() >= until:
            break
        for name, call in calls.items():
            began = clock()
            call()
            durations[name].append(clock() - began)
    return {name: np.array(seconds) for name, seconds in durations.items()}


@dataclass(frozen=True, kw_only=True)
class Units:
    """Seconds that one of each takes here, with all cores: the best of many."""

    normal: float  # jax.random.normal
    tan: float
    sin: float
    cos: float
    sqrt: float
    exp: float
    arithmetic: float  # one multiplication or addition of two floats, elementwise
    matmul: float  # the same within a large float32 matrix product
    byte: float  # read or written, of an array of 1 MiB
    scan_step: float  # one turn of an empty lax.scan


def measure_units(seconds: float = 0.5) -> Units:
    """Measures each operation for about `seconds`."""
    size, side, turns, chain = 1 << 18, 1024, 1000, 128
    angles = jax.random.uniform(jax.random.key(0), (size,), jnp.float32, -0.5, 0.5)
    matrix = jnp.ones((side, side), jnp.float32)

    def multiply_and_add(x):
        y = x
        for _ in range(chain):
            y = y * x + x
        return y

    def empty_scan(x):
        return jax.lax.scan(lambda x, _: (x + 1.0, None), x, length=turns)[0]

    programs = {
        "copy": (lambda x: x + 1.0, angles),
        "normal": (lambda key: jax.random.normal(key, (size,)), jax.random.key(1)),
        "tan": (jnp.tan, angles),
        "sin": (jnp.sin, angles),
        "cos": (jnp.cos, angles),
        "sqrt": (lambda x: jnp.sqrt(jnp.abs(x)), angles),
        "exp": (jnp.exp, angles),
        "arithmetic": (multiply_and_add, angles),
        "matmul": (lambda x: x @ x, matrix),
        "scan": (empty_scan, jnp.zeros((), jnp.float32)),
    }
    calls = {name: compiled(fn, arg)[0] for name, (fn, arg) in programs.items()}
    best = {name: np.min(times) for name, times in in_turn(calls, seconds).items()}

    def of_one(name: str) -> float:
        """Without the time to read the argument and to write the result."""
        return max(best[name] - best["copy"], 0.0) / size

    return Units(
        normal=best["normal"] / size,
        **{name: of_one(name) for name in ("tan", "sin", "cos", "sqrt", "exp")},
        arithmetic=of_one("arithmetic") / (2 * chain),
        matmul=best["matmul"] / (2 * side**3),
        byte=best["copy"] / (2 * 4 * size),
        scan_step=best["scan"] / turns,
    )


def measure_byte(seconds: float = 0.5) -> float:
    """`Units.byte` alone: the best of many."""
    values = jnp.zeros((1 << 18,), jnp.float32)
    copy, _ = compiled(lambda x: x + 1.0, values)
    return float(np.min(in_turn({"copy": copy}, seconds)["copy"]) / (2 * values.nbytes))


# ---------------------------------------------------------------------------------- words


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the rows of a benchmark are figures of."""

    work: str  # of one repetition
    # column of the rows -> the rival that it is a ratio to
    ratios: dict[str, str] = field(default_factory=dict)
    configuration: dict[str, Any]
    packages: Sequence[str] = ()  # further ones whose versions matter
    extra: dict[str, Any] = field(default_factory=dict)  # that the rows were computed with


def writable(out: str | None) -> None:
    """Makes the directory of a file of results, before anything is measured for it.

    Raises:
      UsageError: there can be no such directory.
    """
    if out is None:
        return
    try:
        pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out={out} cannot be written: {error.strerror}.") from error


def write(out: str | None, benchmark: str, rows: Rows, measured: Measured) -> None:
    """Writes a file of results, where one is named.

    Args:
      benchmark: the name of its module in this package.
      rows: a line of figures each, with "repeats" or "calls", how often it was measured.

    Raises:
      UsageError: there can be no such file.
    """
    if out is None:
        return
    content = results.new(
        "benchmark",
        shlex.join(["python", "-m", f"benchmarks.{benchmark}", *sys.argv[1:]]),
        measured.configuration,
        work=measured.work,
        rivals=list(measured.ratios.values()),
        ratios=list(measured.ratios),
        repetitions=[row.get("repeats", row.get("calls")) for row in rows],
        rows=rows,
        extra=measured.extra,
    )
    versions = {name: metadata.version(name) for name in measured.packages}
    content["versions"] |= versions | {"platform": jax.default_backend()}
    print(results.write(out, content))


def positive_integers(flag: str, texts: Sequence[str]) -> tuple[int, ...]:
    """The numbers of a flag that lists some, such as "1,64,512".

    Raises:
      UsageError: there are none, or one of them is not 1 or more.
    """
    if not texts or not all(text.isdecimal() and int(text) >= 1 for text in texts):
        raise UsageError(
            f"--{flag} is a list of whole numbers of at least 1, such as 1,2, not "
            f"{','.join(texts)!r}."
        )
    return tuple(int(text) for text in texts)


def say(text: str) -> None:
    """Reports progress on standard error."""
    print(text, file=sys.stderr, flush=True)
