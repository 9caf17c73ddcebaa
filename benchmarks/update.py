"""Measures the cost of learning: one update of an agent, beside collecting its rollout.

    python -m benchmarks.update --methods=mpail,gaifo,gail,bc,ppo,sac --env=navigation \\
        --out=results/benchmarks/update_cpu.json
    python -m benchmarks.update --gradient --out=results/benchmarks/gradient_cpu.json

With --gradient, one gradient step of agents with learned models instead; see
`benchmarks/gradient.py`. Else one row a method:

    compile s    tracing and compiling one update
    update ms    median wall clock of one update on a rollout of --steps × --num_envs
    gradients    gradient steps of an update, summed over its optimisers
    gradients/s  gradient steps a second
    collect s    tracing and compiling the collection of such a rollout
    collect ms   median wall clock of one such collection
    upd/coll     median ratio of update to collection, taken in turn

As in training, each update continues the state of the last and donates it. Demonstrations
are random numbers of the right shape; the time does not depend on them. Agents have the
methods' default settings; the flags of sizes make them smaller.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from benchmarks import gradient, seeds, timing
from planil_jax import config, envs, experiment
from planil_jax.base import Fit
from planil_jax.cli import app
from planil_jax.training import loop

FLAGS = flags.FLAGS

METHODS = ("mpail", "gaifo", "gail", "bc", "ppo", "sac")
COLUMNS = (
    "method    compile s  update ms gradients gradients/s collect s collect ms upd/coll"
)


def define_flags() -> None:
    """Not on import: other benchmarks have flags of the same names."""
    flags.DEFINE_list("methods", [], "Methods to measure; empty: a choice of them.")
    flags.DEFINE_bool("gradient", False, "One gradient step of agents with learned models.")
    flags.DEFINE_string("env", "navigation", "An environment.")
    flags.DEFINE_integer("num_envs", 16, "Environments of the rollout.", lower_bound=1)
    flags.DEFINE_integer("steps", 100, "Steps of each environment.", lower_bound=1)
    seeds.define_sizes(hidden=[], batch=None, minibatches=None, samples=None)
    for name in seeds.SIZES:
        flags.declare_key_flag(name)  # so that --help lists it here too
    flags.DEFINE_float("seconds", 5.0, "Time for each program.", lower_bound=0.0)
    flags.DEFINE_string("out", None, "File of results to write, .json.")


def main() -> None:
    # A cache would hide the time of compiling in the second run.
    jax.config.update("jax_enable_compilation_cache", False)
    if FLAGS.gradient:
        return one_gradient_step()
    shape = loop.Config(num_envs=FLAGS.num_envs, steps=FLAGS.steps)
    chosen = [
        seeds.small(method, FLAGS.env, shape, seeds.sizes())
        for method in FLAGS.methods or METHODS
    ]
    timing.writable(FLAGS.out)
    rows = []
    print(COLUMNS)
    for settings in chosen:
        row = measure(settings, FLAGS.seconds)
        print(line(row), flush=True)
        rows.append(row | {"experiment": json.loads(config.to_json(settings))})
    measured = timing.Measured(
        work="one update of an agent, and one collection of the rollout it learns from",
        ratios={"update_to_collect": "the collection of the rollout"},
        configuration=read_flags("env", "num_envs", "steps", "seconds"),
    )
    timing.write(FLAGS.out, "update", rows, measured)


def read_flags(*names: str) -> dict[str, Any]:
    """Flags by name."""
    return {name: FLAGS[name].value for name in names}


def one_gradient_step() -> None:
    """The benchmark of --gradient."""
    timing.writable(FLAGS.out)
    print(gradient.COLUMNS)
    methods = FLAGS.methods or list(gradient.agents())
    rows = gradient.measure(methods, FLAGS.seconds, FLAGS.batch or gradient.BATCH)
    measured = timing.Measured(
        work="one gradient step of all parts of an agent",
        ratios={"ratio_to_eager": "processor time of the same losses, op by op"},
        configuration={"batch": FLAGS.batch or gradient.BATCH, "seconds": FLAGS.seconds},
    )
    timing.write(FLAGS.out, "update", rows, measured)


def measure(settings: experiment.Experiment, seconds: float) -> dict[str, Any]:
    """One row: an update and a collection, taken in turn."""
    env = envs.make(settings.environment)
    demos = seeds.some_demonstrations(env.spec)
    agent = experiment.make_agent(settings, env, demos)
    init_key, collect_key, update_key = jax.random.split(jax.random.key(0), 3)
    begin = jax.jit(lambda key: loop.init(agent, env, settings.loop, key))(init_key)

    def collect(params, states, carry, key):
        return loop.collect(agent, env, settings.loop, params, states, carry, key)

    def update(state, rollout, demos, key, round_):
        return agent.update(state, rollout, demos, key, round_)

    timing.say(f"compiling {settings.method} …")
    calls, compile_seconds = {}, {}
    # A copy, since updates donate the agent's state.
    params = jax.tree.map(jnp.copy, begin.agent.params)
    calls["collect"], compile_seconds["collect"] = timing.compiled(
        collect, params, begin.env, begin.carry, collect_key
    )
    rollout = calls["collect"]()[2]
    first_round = jnp.zeros((), jnp.int32)
    calls["update"], compile_seconds["update"] = timing.threaded(
        update, begin.agent, rollout, demos, update_key, first_round
    )
    gradients = gradient_steps(calls["update"]()[0])
    timing.say("measuring …")
    durations = timing.in_turn(calls, seconds)
    update_seconds = float(np.median(durations["update"]))
    return {
        "method": settings.method,
        "environment": settings.environment,
        "num_envs": settings.loop.num_envs,
        "steps": settings.loop.steps,
        "repeats": len(durations["update"]),
        "update_compile_seconds": compile_seconds["update"],
        "update_seconds": update_seconds,
        "gradient_steps": gradients,
        "gradient_steps_per_second": gradients / update_seconds,
        "collect_compile_seconds": compile_seconds["collect"],
        "collect_seconds": float(np.median(durations["collect"])),
        "update_to_collect": float(np.median(durations["update"] / durations["collect"])),
    }


def gradient_steps(agent_state: Any) -> int:
    """The gradient steps of all optimisers of an agent, by their counters."""
    fits = [
        leaf
        for leaf in jax.tree.leaves(agent_state, is_leaf=lambda leaf: isinstance(leaf, Fit))
        if isinstance(leaf, Fit)
    ]
    # Learning rate schedules count the same steps again.
    return sum(
        max(
            int(count)
            for _, count in optax.tree_utils.tree_get_all_with_path(fit.opt_state, "count")
        )
        for fit in fits
    )


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['method']:9} {row['update_compile_seconds']:9.1f} "
        f"{1e3 * row['update_seconds']:10.2f} {row['gradient_steps']:9} "
        f"{row['gradient_steps_per_second']:11.0f} {row['collect_compile_seconds']:9.1f} "
        f"{1e3 * row['collect_seconds']:10.2f} {row['update_to_collect']:8.2f}"
    )


if __name__ == "__main__":
    define_flags()
    app.run(main)
