"""How long things take: compiling, calls taken in turn, and single operations."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Call = Callable[[], Any]  # runs a compiled program once, and waits for it


def compiled(fn: Callable, *args) -> tuple[Call, float]:
    """A call of `fn` on `args`, and the seconds that tracing and compiling it took."""
    began = time.perf_counter()
    program = jax.jit(fn).lower(*args).compile()
    seconds = time.perf_counter() - began
    return lambda: jax.block_until_ready(program(*args)), seconds


def in_turn(
    calls: dict[str, Call], seconds: float, least: int = 5
) -> dict[str, np.ndarray]:
    """Seconds of each call, taken A B C A B C … until each had its share of time.

    Whatever else the machine does falls on all of them alike, so that ratios of entries
    with the same index are fair where the times themselves are not.
    """
    durations: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    until = time.perf_counter() + seconds * len(calls)
    for turn in itertools.count():
        if turn >= least and time.perf_counter() >= until:
            break
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            durations[name].append(time.perf_counter() - began)
    return {name: np.array(each) for name, each in durations.items()}


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
    best = {name: np.min(each) for name, each in in_turn(calls, seconds).items()}

    def each_of(name: str) -> float:
        """Without the time to read the argument and to write the result."""
        return max(best[name] - best["copy"], 0.0) / size

    return Units(
        normal=best["normal"] / size,
        **{name: each_of(name) for name in ("tan", "sin", "cos", "sqrt", "exp")},
        arithmetic=each_of("arithmetic") / (2 * chain),
        matmul=best["matmul"] / (2 * side**3),
        byte=best["copy"] / (2 * 4 * size),
        scan_step=best["scan"] / turns,
    )
