"""One gradient step of each part of agents with learned models, beside the machine's peak.

    python -m benchmarks.update --gradient --out=results/benchmarks/gradient_cpu.json

At the papers' sizes (latent 512), sequences of 7 steps, batches of 256; MAIL through 25
steps of its model. One row a method:

    GFLOP       operations of the products of one step of all parts, counted
    ms          median wall clock of one step, compiled
    of peak     share of the speed of large products of matrices, taken in turn with it
    cpu ms      processor time of all threads, of one step
    eager ms    the same, of the same losses op by op: without compilation
    ratio       of the two

A step is an agent's whole update on a rollout of one step; its replay is small.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import operations, seeds, timing
from benchmarks.latent import SPEC
from planil_jax.agents import iqmpc, mail, mpail2, tdmpc2
from planil_jax.base import Agent, Task, Transition, UsageError
from planil_jax.data import replay

HORIZON, UNROLL, BATCH = 7, 25, 256
COLUMNS = "method      GFLOP         ms  of peak     cpu ms   eager ms  ratio compile s"
_FILLED = 64  # steps of each environment in the replay


def agents(batch: int = BATCH, **network: Any) -> dict[str, Agent]:
    """The agents that are measured, with one gradient step for a rollout of one.

    Args:
      network: fields of the latent networks that differ from the papers'.
    """
    made = {}
    for name, module in (("mpail2", mpail2), ("iqmpc", iqmpc), ("tdmpc2", tdmpc2)):
        config = module.Config()
        config = dataclasses.replace(
            config,
            network=dataclasses.replace(config.network, **network),
            planner=dataclasses.replace(config.planner, horizon=HORIZON),
            replay=dataclasses.replace(config.replay, batch=batch, capacity=_FILLED),
            horizon=HORIZON,
            seed_steps=0,
            updates_per_step=1.0,
        )
        made[name] = module.make(Task.of(SPEC), config)
    config = mail.Config(
        imagination=mail.ImaginationConfig(batch=batch),
        horizon=UNROLL,
        policy_steps=1,
        batch=batch,
        capacity=_FILLED,
    )
    made["mail"] = mail.make(Task.of(SPEC), config)
    return made


def measure(
    methods: Sequence[str], seconds: float, batch: int = BATCH
) -> list[dict[str, Any]]:
    """Rows of these methods, taken in turn with large products of matrices.

    Raises:
      UsageError: one of them has no learned model.
    """
    made = agents(batch)
    foreign = [method for method in methods if method not in made]
    if foreign:
        raise UsageError(
            f"--methods={foreign[0]}: --gradient is for {', '.join(made)}; leave it out."
        )
    multiply, multiplications = timing.products()
    calls, eager, counted, compile_seconds = {"products": multiply}, {}, {}, {}
    for method in methods:
        timing.say(f"compiling {method} …")
        state, args = filled(made[method])
        counted[method] = operations.count(made[method].update, state, *args)
        eager[method] = _op_by_op(made[method], *filled(made[method]))
        calls[method], compile_seconds[method] = timing.threaded(
            made[method].update, state, *args
        )
    timing.say("measuring …")
    durations = timing.in_turn(calls, seconds)
    peaks = multiplications / durations["products"]  # of each turn
    rows = []
    for method in methods:
        processor = min(processor_seconds(calls[method]) for _ in range(3))
        eager[method]()  # compiles each operation
        row: dict[str, Any] = {
            "method": method,
            "batch": batch,
            "horizon": UNROLL if method == "mail" else HORIZON,
            "operations": counted[method],
            "seconds": float(np.median(durations[method])),
            "share_of_peak": float(np.median(counted[method] / durations[method] / peaks)),
            "peak": float(np.median(peaks)),
            "processor_seconds": processor,
            "eager_processor_seconds": min(
                processor_seconds(eager[method]) for _ in range(2)
            ),
            "compile_seconds": compile_seconds[method],
            "calls": len(durations[method]),
        }
        row["ratio_to_eager"] = processor / row["eager_processor_seconds"]
        print(line(row), flush=True)
        rows.append(row)
    return rows


def filled(agent: Agent) -> tuple[Any, tuple]:
    """A state whose replay holds some steps, and the other arguments of its update."""
    state, rollout = jax.jit(agent.init)(jax.random.key(0)), _rollout(_FILLED - 1)
    steps = {name: getattr(rollout, name, rollout.truncated) for name in state.replay.steps}
    state = dataclasses.replace(state, replay=replay.insert(state.replay, steps))
    demos, second_round = seeds.some_demonstrations(SPEC), jnp.ones((), jnp.int32)
    return state, (_rollout(1), demos, jax.random.key(1), second_round)


def _rollout(steps: int):
    key = jax.random.key(steps)
    obs = jax.random.normal(key, (steps + 1, 1, SPEC.observation_size))
    no = jnp.zeros((steps, 1), bool)
    return Transition(
        obs=obs[:-1],
        action=jax.random.uniform(key, (steps, 1, SPEC.action_size), minval=-1.0),
        next_obs=obs[1:],
        reward=jnp.zeros((steps, 1)),
        terminal=no,
        truncated=no,
    )


def _op_by_op(agent: Agent, state: Any, args: tuple) -> timing.Call:
    def call() -> Any:
        with jax.disable_jit():
            return jax.block_until_ready(agent.update(state, *args))

    return call


def processor_seconds(call: timing.Call) -> float:
    """Of all threads, of one call."""
    began = time.process_time()
    call()
    return time.process_time() - began


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['method']:9} {row['operations'] / 1e9:7.1f} {1e3 * row['seconds']:10.1f} "
        f"{row['share_of_peak']:8.0%} {1e3 * row['processor_seconds']:10.1f} "
        f"{1e3 * row['eager_processor_seconds']:10.1f} {row['ratio_to_eager']:6.2f} "
        f"{row['compile_seconds']:9.1f}"
    )
