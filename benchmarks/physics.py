"""MPPI through a robot's true physics: plans a second, by engine.

One plan: 64 sequences of 12 actions from one state of Hopper, scored by the task's reward
up to their first end. The planners, taken in turn:

    c, mjx    the scripted expert of the product, on an engine
    rollout   MPPI in numpy over `mujoco.rollout`, as predictive samplers outside JAX do it

The times are processor time, which a busy machine changes least. Compiling is apart.
"""

import time
from collections.abc import Sequence
from typing import Any

import jax
import mujoco
import numpy as np
from mujoco import rollout

from benchmarks import timing
from planil_jax import envs
from planil_jax.agents import scripted
from planil_jax.envs import gym_mjx, gym_robots
from planil_jax.planners import mppi

SAMPLES, HORIZON, TEMPERATURE, NOISE = 64, 12, 0.1, 0.5
COLUMNS = "planner   plans/s  p50 ms  compile s  vs rollout"


def measure(engines: Sequence[str], seconds: float) -> list[dict[str, Any]]:
    """One row a planner.

    Args:
      engines: of the product's planner.
      seconds: of time for each planner.
    """
    calls: dict[str, timing.Call] = {}
    compile_seconds = {"rollout": 0.0}
    for engine in engines:
        timing.say(f"compiling the planner on {engine} …")
        calls[engine], compile_seconds[engine] = of_product(engine)
    calls["rollout"] = of_numpy()
    timing.say("measuring …")
    durations = timing.in_turn(calls, seconds, clock=time.process_time)
    rows = []
    for name, times in durations.items():
        ratio = float(np.median(durations["rollout"] / times))
        rows.append(
            {
                "planner": name,
                "samples": SAMPLES,
                "horizon": HORIZON,
                "calls": len(times),
                "plans_per_processor_second": float(1 / np.mean(times)),
                "p50_processor_ms": float(1e3 * np.median(times)),
                "compile_seconds": compile_seconds[name],
                "ratio_to_rollout": ratio,
            }
        )
    return rows


def of_product(engine: str) -> tuple[timing.Call, float]:
    """A plan of the scripted expert, and the seconds that compiling it takes."""
    env = envs.make("gym/Hopper", engine=engine)
    planner = mppi.Config(samples=SAMPLES, horizon=HORIZON, iterations=1)
    config = scripted.Config(planner=planner, temperature=TEMPERATURE)
    agent = scripted.make(env, None, config)
    params = agent.init(jax.random.key(0)).params
    state = jax.jit(env.reset)(jax.random.key(1))

    def act(params: Any, carry: Any, state: Any, key: jax.Array) -> Any:
        return agent.act(params, carry, state, key, False)

    return timing.compiled(act, params, agent.carry(), state, jax.random.key(2))


def of_numpy() -> timing.Call:
    """A plan by numpy and `mujoco.rollout`, on one thread."""
    task = gym_mjx.TASKS["Hopper"]
    model = gym_robots.load("Hopper", task.file)
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    kind = mujoco.mjtState.mjSTATE_FULLPHYSICS
    start = np.zeros(mujoco.mj_stateSize(model, kind))
    mujoco.mj_getState(model, data, start, kind)
    states = np.tile(start, (SAMPLES, 1))
    pool = rollout.Rollout(nthread=0)
    mean = np.zeros((HORIZON, model.nu))
    period = model.opt.timestep * task.frame_skip

    def plan() -> np.ndarray:
        nonlocal mean
        noise = NOISE * rng.standard_normal((SAMPLES, HORIZON, model.nu))
        actions = np.clip(mean + noise, -1.0, 1.0)
        ctrl = np.repeat(actions, task.frame_skip, axis=1)
        visited, _ = pool.rollout(model, [data], states, ctrl)
        after = visited[:, task.frame_skip - 1 :: task.frame_skip, 1:]
        scores = returns(states[:, 1], after, actions, period)
        weights = np.exp((scores - scores.max()) / TEMPERATURE)
        plan_mean = np.tensordot(weights / weights.sum(), actions, axes=1)
        mean = np.concatenate([plan_mean[1:], plan_mean[-1:]])
        return plan_mean[0]

    return plan


def returns(
    x: np.ndarray, after: np.ndarray, actions: np.ndarray, period: float
) -> np.ndarray:
    """Returns `[K]` of plans up to their first end, as Hopper-v5 pays them.

    Args:
      x: `[K]` where the plans start, metres.
      after: `[K, H, nq + nv]` positions and velocities after each action.
      actions: `[K, H, U]`.
      period: seconds of a control step.
    """
    task = gym_mjx.TASKS["Hopper"]
    low, high = task.state_range
    healthy = (after[..., 1] > task.z_range[0]) & (
        np.abs(after[..., 2]) < task.angle_range[1]
    )
    healthy &= ((after[..., 2:] > low) & (after[..., 2:] < high)).all(axis=-1)
    before = np.concatenate([x[:, None], after[:, :-1, 0]], axis=1)
    speed = (after[..., 0] - before) / period
    reward = speed + task.healthy_reward * healthy
    reward -= task.control_cost * np.sum(actions**2, axis=-1)
    alive = np.cumprod(healthy, axis=1)
    alive = np.concatenate([np.ones((len(x), 1)), alive[:, :-1]], axis=1)
    return np.sum(reward * alive, axis=1)


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['planner']:8} {row['plans_per_processor_second']:8.1f} "
        f"{row['p50_processor_ms']:7.1f} {row['compile_seconds']:10.1f} "
        f"{row['ratio_to_rollout']:11.2f}"
    )
