"""Measures planners: plans a second, latency, compile time, share of a floor.

    python -m benchmarks.planner --out=results/benchmarks/planner_cpu.json
    python -m benchmarks.planner --model=latent --num_envs=1,16 --seconds=60 \\
        --out=results/benchmarks/planner_latent_cpu.json

With --physics: MPPI through Hopper's true physics on both engines, beside one in numpy on
`mujoco.rollout`; see benchmarks/physics.py. With --model=latent: IQ-MPC and TD-MPC2 at the
papers' sizes, on fresh networks; see benchmarks/latent.py. Else the car's.

Three planners on a grid of samples × horizons × environments:

    reference   plain MPPI in one jit, on the task's cost (benchmarks/reference.py)
    task        the scripted expert, on the same cost
    learned     MPAIL as it acts in training, on fresh networks

"vs ref" is the median ratio of calls taken in turn; above 1: faster than the reference.
"floor" is the share of the time that the operations themselves need (benchmarks/floor.py).
It is computed on a CPU alone, since on a GPU operations of different kinds overlap.
"""

import itertools
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import latent, physics, reference, timing
from benchmarks.floor import Cell, floor
from planil_jax.agents import mpail, scripted
from planil_jax.base import Agent, Task
from planil_jax.cli import app
from planil_jax.envs import navigation
from planil_jax.planners import mppi

FLAGS = flags.FLAGS
flags.DEFINE_string("out", None, "File of results to write, .json.", required=True)
flags.DEFINE_enum(
    "model", "car", ["car", "latent"], "The car's planners, or IQ-MPC and TD-MPC2."
)
flags.DEFINE_bool("physics", False, "MPPI through Hopper's physics, by engine, instead.")
flags.DEFINE_list("engines", ["c", "mjx"], "Engines of --physics.")
flags.DEFINE_list("samples", ["512", "4096"], "Plans in an iteration.")
flags.DEFINE_list("horizons", ["10", "32"], "Steps of a plan.")
flags.DEFINE_list("num_envs", ["1", "64"], "Environments that plan in parallel.")
flags.DEFINE_integer("iterations", 1, "Iterations of a plan.", lower_bound=1)
flags.DEFINE_float("seconds", 2.0, "Time for each planner in each cell.", lower_bound=0.0)
flags.DEFINE_float("unit_seconds", 0.5, "Time for each operation.", lower_bound=0.0)

TEMPERATURE = 0.1
COLUMNS = (
    "planner        K    H    E   plans/s Msteps/s   p50 ms   p99 ms  compile s  "
    "vs ref  floor"
)


def main() -> None:
    # A cache would hide the time of compiling in the second run.
    jax.config.update("jax_enable_compilation_cache", False)
    grid = ("samples", "horizons", "num_envs")
    sizes = [timing.positive_integers(name, getattr(FLAGS, name)) for name in grid]
    timing.writable(FLAGS.out)
    if FLAGS.physics:
        print(physics.COLUMNS)
        rows = physics.measure(FLAGS.engines, FLAGS.seconds)
        for row in rows:
            print(physics.line(row))
        measured = timing.Measured(
            work="one plan of 64 sequences of 12 actions through Hopper, processor time",
            ratios={"ratio_to_rollout": "numpy MPPI over mujoco.rollout, one thread"},
            configuration={"engines": list(FLAGS.engines), "seconds": FLAGS.seconds},
            packages=("mujoco", "mujoco-mjx"),
        )
        timing.write(FLAGS.out, "planner", rows, measured)
        return
    if FLAGS.model == "latent":
        print(latent.COLUMNS)
        rows = latent.measure(FLAGS.seconds, sizes[-1])
        measured = timing.Measured(
            work="one plan in every environment, of the papers' sizes",
            ratios={"share_of_peak": "products of 1024 x 1024 matrices"},
            configuration={"num_envs": list(sizes[-1]), "seconds": FLAGS.seconds},
        )
        timing.write(FLAGS.out, "planner", rows, measured)
        return
    timing.say("measuring single operations …")
    units = timing.measure_units(FLAGS.unit_seconds)
    rows = []
    print(COLUMNS)
    for samples, horizon, num_envs in itertools.product(*sizes):
        for row in measure(samples, horizon, num_envs, units):
            print(line(row), flush=True)
            rows.append(row)
    measured = timing.Measured(
        work="one plan in every environment",
        ratios={"ratio_to_reference": "plain MPPI in one jit, on the same cost"},
        configuration=dict(zip(grid, map(list, sizes), strict=True))
        | {"iterations": FLAGS.iterations, "seconds": FLAGS.seconds},
        extra={"units_seconds": asdict(units)},
    )
    timing.write(FLAGS.out, "planner", rows, measured)


def measure(
    samples: int, horizon: int, num_envs: int, units: timing.Units
) -> list[dict[str, Any]]:
    """One row a planner, with all of them taken in turn."""
    calls, compile_seconds = {}, {}
    for name, make_fn in PLANNERS.items():
        timing.say(f"compiling {name}, {samples} × {horizon} × {num_envs} …")
        act, params, carry, states, keys = make_fn(samples, horizon, num_envs)
        batched = jax.vmap(act, in_axes=(None, 0, 0, 0))
        calls[name], compile_seconds[name] = timing.compiled(
            batched, params, carry, states, keys
        )
    timing.say("measuring …")
    durations = timing.in_turn(calls, FLAGS.seconds)
    rows = []
    for name, times in durations.items():
        ratios = durations["reference"] / times  # within a turn
        cell = Cell(
            cost="learned" if name == "learned" else "task",
            samples=samples,
            horizon=horizon,
            num_envs=num_envs,
            iterations=FLAGS.iterations,
        )
        least = None
        if jax.default_backend() == "cpu":
            least = floor(cell, mpail.Config().discriminator.hidden, units)
        rows.append(
            {
                "planner": name,
                **asdict(cell),
                "calls": len(times),
                "plans_per_second": num_envs / np.mean(times),
                "rollout_steps_per_second": cell.rollout_steps / np.mean(times),
                "p50_ms": 1e3 * np.quantile(times, 0.5),
                "p99_ms": 1e3 * np.quantile(times, 0.99),
                "compile_seconds": compile_seconds[name],
                "ratio_to_reference": None if name == "learned" else np.median(ratios),
                "floor_seconds": least,
                "floor_share": least and least["total"] / np.median(times),
            }
        )
    return rows


# ------------------------------------------------------------------------------- planners


def make_reference(samples: int, horizon: int, num_envs: int):
    _, *inputs = make_task(samples, horizon, num_envs)
    iterations = FLAGS.iterations

    def act(params, carry, state, key):
        obs, mean = state.obs, carry.mean
        return reference.plan(obs, mean, key, samples, iterations, TEMPERATURE)

    return act, *inputs


def make_task(samples: int, horizon: int, num_envs: int):
    planner = mppi.Config(samples=samples, horizon=horizon, iterations=FLAGS.iterations)
    config = scripted.Config(planner=planner, temperature=TEMPERATURE)
    env = navigation.make()
    return ready(scripted.make(env, navigation.kinematic_prior(), config), num_envs)


def make_learned(samples: int, horizon: int, num_envs: int):
    planner = mppi.Config(samples=samples, horizon=horizon, iterations=FLAGS.iterations)
    config = mpail.Config(planner=planner, replay=mpail.ReplayOptions(capacity=1))
    spec, prior = navigation.make().spec, navigation.kinematic_prior()
    observed = tuple(range(spec.observation_size))
    return ready(
        mpail.make(
            Task.of(spec, dynamics=prior, observed=observed, num_envs=num_envs), config
        ),
        num_envs,
    )


def ready(agent: Agent, num_envs: int):
    """`act`, and its inputs `(params, carry [E], states [E], keys [E])`."""

    def act(params, carry, state, key):
        return agent.act(params, carry, state, key, False)

    init_key, reset_key, act_key = jax.random.split(jax.random.key(0), 3)
    state = agent.init(init_key)
    carry = jax.tree.map(lambda leaf: jnp.stack([leaf] * num_envs), agent.carry())
    states = jax.vmap(navigation.make().reset)(jax.random.split(reset_key, num_envs))
    params = getattr(state, "params", state)  # the scripted expert has no State
    return act, params, carry, states, jax.random.split(act_key, num_envs)


PLANNERS: dict[str, Callable[[int, int, int], tuple]] = {
    "reference": make_reference,
    "task": make_task,
    "learned": make_learned,
}


# ---------------------------------------------------------------------------------- output


def line(row: dict[str, Any]) -> str:
    ratio, share = row["ratio_to_reference"], row["floor_share"]
    return (
        f"{row['planner']:9} {row['samples']:6} {row['horizon']:4} {row['num_envs']:4} "
        f"{row['plans_per_second']:9.0f} {row['rollout_steps_per_second'] / 1e6:9.2f} "
        f"{row['p50_ms']:8.2f} {row['p99_ms']:8.2f} {row['compile_seconds']:10.1f} "
        f"{f'{ratio:.2f}' if ratio else '':>7} {f'{share:.0%}' if share else '':>6}"
    )


if __name__ == "__main__":
    app.run(main)
