"""Measures the cost of further seeds when they are trained side by side.

    python -m benchmarks.seeds --method=gaifo --env=pendulum --seeds=1,2,4,8,16,32 \\
        --out=results/benchmarks/seeds_cpu.json

One row a number of seeds and a way of training them:

    compile s   tracing and compiling an epoch of training, the program that a run runs
    epoch ms    median of its wall clock, warm
    ms/seed     the same, divided by the seeds
    of n × one  median ratio to n epochs of one seed, taken in turn; below 1: cheaper
    ksteps/s    environment steps, of all seeds together

The agent has the method's default settings with the sizes of these flags. Demonstrations
are random numbers of the right shape; the time does not depend on them.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import timing
from planil_jax import config, envs, experiment
from planil_jax.base import Demonstrations, EnvSpec, UsageError
from planil_jax.cli import app
from planil_jax.training import loop, report, run

FLAGS = flags.FLAGS

WAYS = ("vmap", "map")
SIZES = ("hidden", "batch", "minibatches", "samples")  # flags, and fields of configs
COLUMNS = " by   seeds compile s   epoch ms   ms/seed of n × one   ksteps/s"


class Clock(report.Report):
    """A silent report that remembers how long each compilation took."""

    def __init__(self) -> None:
        super().__init__(console=False)
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def compiling(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[what] = time.perf_counter() - began


def define_flags() -> None:
    """Not on import: other benchmarks have flags of the same names."""
    flags.DEFINE_string("method", "gaifo", "A method; `planil methods` lists them.")
    flags.DEFINE_string("env", "pendulum", "An environment.")
    flags.DEFINE_list("seeds", ["1", "2", "4", "8", "16", "32"], "Seeds side by side.")
    flags.DEFINE_list("by", ["vmap"], "How seeds are trained: vmap, map.")
    flags.DEFINE_integer("num_envs", 4, "Environments of each seed.", lower_bound=1)
    flags.DEFINE_integer(
        "steps", 50, "Steps of each environment in a round.", lower_bound=1
    )
    flags.DEFINE_integer("rounds", 2, "Rounds in an epoch.", lower_bound=1)
    define_sizes(hidden=["32", "32"], batch=64, minibatches=4, samples=64)
    flags.DEFINE_float("seconds", 5.0, "Time for each program.", lower_bound=0.0)
    flags.DEFINE_string("out", None, "File of results to write, .json.")


def main() -> None:
    # A cache would hide the time of compiling in the second run.
    jax.config.update("jax_enable_compilation_cache", False)
    counts = timing.positive_integers("seeds", FLAGS.seeds)
    unknown = [way for way in FLAGS.by if way not in WAYS]
    if unknown or not FLAGS.by:
        raise UsageError(
            f"--by is a list of {', '.join(WAYS)}, not {','.join(FLAGS.by)!r}."
        )
    shape = loop.Config(num_envs=FLAGS.num_envs, steps=FLAGS.steps, rounds=FLAGS.rounds)
    settings = small(FLAGS.method, FLAGS.env, shape, sizes())
    timing.writable(FLAGS.out)
    rows = measure(settings, counts, FLAGS.by, FLAGS.seconds)
    print(COLUMNS)
    for row in rows:
        print(line(row))
    measured = timing.Measured(
        work="an epoch of training of so many seeds",
        ratios={"ratio_to_so_many_of_one": "as many epochs of one seed"},
        configuration={
            "experiment": json.loads(config.to_json(settings)),
            "seconds": FLAGS.seconds,
        },
    )
    timing.write(FLAGS.out, "seeds", rows, measured)


def measure(
    settings: experiment.Experiment,
    counts: tuple[int, ...],
    ways: list[Literal["vmap", "map"]],
    seconds: float,
) -> list[dict[str, Any]]:
    """One row a way and a number of seeds, with all of them taken in turn."""
    calls: dict[tuple[str, int], timing.Call] = {}
    compile_seconds = {}
    for cell in dict.fromkeys([("vmap", 1), *((way, n) for way in ways for n in counts)]):
        timing.say(f"compiling {settings.method}, {cell[1]} seeds by {cell[0]} …")
        calls[cell], compile_seconds[cell] = epoch(settings, *cell)
    timing.say("measuring …")
    durations = timing.in_turn(calls, seconds)
    one = durations["vmap", 1]
    return [
        {
            "by": way,
            "seeds": count,
            "repeats": len(one),
            "compile_seconds": compile_seconds[way, count],
            "epoch_seconds": float(np.median(durations[way, count])),
            "ratio_to_so_many_of_one": float(
                np.median(durations[way, count] / (count * one))
            ),
            "steps_per_second": count
            * settings.loop.steps_per_epoch
            / float(np.median(durations[way, count])),
        }
        for way in ways
        for count in counts
    ]


def epoch(
    settings: experiment.Experiment, way: Literal["vmap", "map"], count: int
) -> tuple[timing.Call, float]:
    """A call that trains `count` seeds for an epoch, and the seconds of compiling it."""
    env = envs.make(settings.environment)
    demos = some_demonstrations(env.spec)
    agent = experiment.make_agent(settings, env, demos)
    clock = Clock()
    program = run.compile_program(
        agent,
        env,
        settings.loop,
        run.Config(seeds_by=way, evaluation_episodes=0),
        demos,
        (0, count),
        clock,
    )
    state, running = program.init(), np.ones((count,), bool)

    def call() -> Any:
        nonlocal state
        state, *metrics = jax.block_until_ready(program.epoch(np.int32(0), state, running))
        return metrics

    return call, clock.seconds["training"]


# ------------------------------------------------------------- shared with other benchmarks


def define_sizes(
    hidden: list[str], batch: int | None, minibatches: int | None, samples: int | None
) -> None:
    """Flags of the sizes of an agent; empty or None: the method's defaults."""
    flags.DEFINE_list("hidden", hidden, "Units of the hidden layers of all networks.")
    flags.DEFINE_integer(
        "batch", batch, "Steps in the batch of a gradient step.", lower_bound=1
    )
    flags.DEFINE_integer(
        "minibatches",
        minibatches,
        "Minibatches of a pass of PPO over a rollout.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "samples", samples, "Plans in an iteration of the planner.", lower_bound=1
    )


def sizes() -> dict[str, Any]:
    """The flags of `define_sizes` that are set, by the fields that they set."""
    values = {name: FLAGS[name].value for name in SIZES}
    if FLAGS.hidden:
        values["hidden"] = timing.positive_integers("hidden", FLAGS.hidden)
    return {name: value for name, value in values.items() if value}


def small(
    method: str, environment: str, shape: loop.Config, sizes: dict[str, Any]
) -> experiment.Experiment:
    """A method's experiment, with some sizes of its agent set.

    Several methods share the flags of sizes. A note names those that this one lacks.

    Raises:
      UsageError: there is no such method.
    """
    settings = experiment.for_method(method, environment=environment, loop=shape)
    fields = {field.path.rpartition(".")[2] for field in config.describe(settings.agent)}
    if absent := [name for name in sizes if name not in fields]:
        timing.say(f"note: {method} has no {' and no '.join(absent)}.")
    return dataclasses.replace(settings, agent=resized(settings.agent, sizes))


def resized(node: Any, sizes: dict[str, Any]) -> Any:
    """A config with the fields of these names set, wherever in it they are."""
    changed = {}
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            changed[field.name] = resized(value, sizes)
        elif field.name in sizes:
            changed[field.name] = sizes[field.name]
    return dataclasses.replace(node, **changed)


def some_demonstrations(spec: EnvSpec, episodes: int = 4) -> Demonstrations:
    """Random numbers in the shape of demonstrations with actions."""
    length = min(spec.episode_length, 100)
    obs_key, action_key = jax.random.split(jax.random.key(0))
    shape = (episodes, length)
    return Demonstrations(
        obs=jax.random.normal(
            obs_key, (episodes, length + 1, spec.observation_size), jnp.float32
        ),
        actions=jax.random.uniform(
            action_key,
            (*shape, spec.action_size),
            jnp.float32,
            jnp.asarray(spec.action_low),
            jnp.asarray(spec.action_high),
        ),
        length=jnp.full((episodes,), length, jnp.int32),
        terminal=jnp.zeros((episodes,), bool),
        observed=tuple(range(spec.observation_size)),
    )


# ---------------------------------------------------------------------------------- output


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['by']:5} {row['seeds']:5} {row['compile_seconds']:9.1f} "
        f"{1e3 * row['epoch_seconds']:10.2f} "
        f"{1e3 * row['epoch_seconds'] / row['seeds']:9.2f} "
        f"{row['ratio_to_so_many_of_one']:10.2f} {row['steps_per_second'] / 1e3:10.1f}"
    )


if __name__ == "__main__":
    define_flags()
    app.run(main)
