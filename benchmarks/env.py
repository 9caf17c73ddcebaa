"""Measures environments: steps a second, compile time, and what a reset costs.

    python -m benchmarks.env --envs=gym/Hopper --engines=c,mjx --batch=64
    python -m benchmarks.env --batch=1,64,512 --out=results/benchmarks/env_cpu.json \\
        --envs=navigation,pendulum,navigation_mjx,brax/inverted_pendulum

One row an environment and batch:

    compile s   tracing and compiling the scan of batched steps; running is not in it
    ksteps/s    of all environments of the batch together, in that scan under random actions
    reset/step  a batched reset over a batched step; both in scans, taken in turn
    MuJoCo      ksteps/s of `mujoco.rollout` on all cores, from the same starts under the
                same actions with the same number of substeps; "-": no such model
    vs MuJoCo   the median ratio of calls taken in turn; above 1: faster than MuJoCo
    /cpu s      with --engines: ksteps a second of processor time, over all threads
    vs last     the median ratio of processor time to that of the last engine, in turn
    kB          of state, of one environment
    floor       the share of the time in which state and actions could be read, and the
                state written, at the speed of this machine's memory

Every repeat begins at the same starts, so that all of them do the same work. MuJoCo
computes the physics alone, in double precision, and neither observations nor rewards. The
floor knows nothing of the physics: it says how far a step is from a mere copy of its state.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from absl import flags
from mujoco import rollout

from benchmarks import timing
from planil_jax import envs
from planil_jax.base import Environment, EnvState
from planil_jax.cli import app
from planil_jax.evaluation import results
from planil_jax.training import memory

FLAGS = flags.FLAGS

PACKAGES = ("mujoco", "mujoco-mjx", "brax")
RESETS = 20  # in a scan of resets, so that the call itself weighs little
OUTPUT_BYTES = 1 << 26  # that MuJoCo's rollout may write in one call
COLUMNS = (
    f"{'environment':24} engine batch compile s   ksteps/s reset/step     MuJoCo vs MuJoCo"
    "  /cpu s vs last      kB  floor"
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The setting in which one environment is measured."""

    batch: int
    steps: int  # T
    seconds: float  # of time for each program
    byte: float  # seconds that one byte takes


def define_flags() -> None:
    """Not on import: other benchmarks have flags of the same names."""
    flags.DEFINE_list(
        "envs",
        ["navigation", "pendulum", "navigation_mjx", "brax/inverted_pendulum"],
        "Environments; `planil envs` lists them.",
    )
    flags.DEFINE_list("engines", [], "One row each, taken in turn; none: auto alone.")
    flags.DEFINE_list("batch", ["1", "64", "512"], "Environments stepped in parallel.")
    flags.DEFINE_integer("steps", 100, "Control steps in a repeat.", lower_bound=1)
    flags.DEFINE_float("seconds", 2.0, "Time for each program.", lower_bound=0.0)
    flags.DEFINE_string("out", None, "File of results to write, .json.")


def main() -> None:
    # A cache would hide the time of compiling in the second run.
    jax.config.update("jax_enable_compilation_cache", False)
    batches = timing.positive_integers("batch", FLAGS.batch)
    # all, before any is timed
    made = {name: by_engine(name, FLAGS.engines) for name in names(FLAGS.envs)}
    timing.writable(FLAGS.out)
    timing.say("measuring memory …")
    byte = timing.measure_byte()
    rows = []
    print(COLUMNS)
    for name, engines in made.items():
        for batch in batches:
            setting = Setting(
                batch=batch, steps=FLAGS.steps, seconds=FLAGS.seconds, byte=byte
            )
            found = [measure(name, env, setting) for env in engines]
            if FLAGS.engines and engines[0].engine:
                columns = compare(name, engines, setting)
                found = [row | more for row, more in zip(found, columns, strict=True)]
            for row in found:
                print(line(row), flush=True)
            rows += found
    measured = timing.Measured(
        work=f"{FLAGS.steps} control steps of a batch under random actions",
        ratios={"ratio_to_mujoco": "mujoco.rollout, all cores"}
        | ({"ratio_to_last": "the last of the engines"} if FLAGS.engines else {}),
        configuration={
            "envs": list(made),
            "engines": list(FLAGS.engines),
            "batch": list(batches),
            "steps": FLAGS.steps,
            "seconds": FLAGS.seconds,
        },
        packages=PACKAGES,
        extra={"byte_seconds": byte},
    )
    timing.write(FLAGS.out, "env", rows, measured)


def names(items: list[str]) -> list[str]:
    """Names of environments from a list cut at commas, which also part their options."""
    joined: list[str] = []
    for item in items:
        if joined and ":" in joined[-1] and "=" in item and ":" not in item:
            joined[-1] += f",{item}"
        else:
            joined.append(item)
    return joined


def by_engine(name: str, engines: list[str]) -> list[Environment]:
    """The environment on each engine; on one alone where it has no choice."""
    chosen = [envs.with_option(name, "engine", engine) for engine in engines]
    return [envs.make(each) for each in dict.fromkeys(chosen or [name])]


def compare(
    name: str, engines: list[Environment], setting: Setting
) -> list[dict[str, Any]]:
    """Processor time of the engines and of `mujoco.rollout`, in turn; columns of each."""
    timing.say(f"comparing engines of {name}, batch {setting.batch} …")
    calls: dict[Any, timing.Call] = {}
    for env in engines:
        starts, actions, _ = inputs(env, setting)
        calls[env.engine] = timing.compiled(scan_of_steps(env), starts, actions)[0]
    model = native_model(name)
    if model is not None:
        calls["rollout"] = native_call(model, engines[0], starts, actions)
    durations = timing.in_turn(calls, setting.seconds, clock=time.process_time)
    last = durations[engines[-1].engine]
    columns = []
    for env in engines:
        seconds = durations[env.engine]
        native = durations.get("rollout")
        columns.append(
            {
                "steps_per_processor_second": setting.batch
                * setting.steps
                / float(np.median(seconds)),
                "ratio_to_last": float(np.median(last / seconds)),
                "ratio_to_rollout_processor": None
                if native is None
                else float(np.median(native / seconds)),
            }
        )
    return columns


def measure(name: str, env: Environment, setting: Setting) -> dict[str, Any]:
    """One row: the environment's programs and MuJoCo's, taken in turn."""
    timing.say(f"compiling {name}, batch {setting.batch} …")
    starts, actions, reset_keys = inputs(env, setting)
    calls: dict[str, timing.Call] = {}
    step, compile_seconds = timing.compiled(scan_of_steps(env), starts, actions)
    calls["step"] = step
    calls["reset"], reset_compile_seconds = timing.compiled(
        scan_of_resets(env), starts, reset_keys
    )
    model = native_model(name)
    if model is not None:
        calls["mujoco"] = native_call(model, env, starts, actions)
    timing.say("measuring …")
    durations = timing.in_turn(calls, setting.seconds)
    step_seconds = durations["step"] / setting.steps  # of one batched step, a turn each
    reset_seconds = durations["reset"] / RESETS
    state_bytes = memory.size(starts) // setting.batch
    moved = 2 * state_bytes + 4 * env.spec.action_size
    floor_seconds = setting.batch * moved * setting.byte
    row = {
        "environment": name,
        "engine": env.engine,
        "batch": setting.batch,
        "steps": setting.steps,
        "repeats": len(step_seconds),
        "compile_seconds": compile_seconds,
        "reset_compile_seconds": reset_compile_seconds,
        "step_seconds": float(np.median(step_seconds)),
        "steps_per_second": setting.batch / float(np.median(step_seconds)),
        "reset_to_step": float(np.median(reset_seconds / step_seconds)),
        "state_bytes": state_bytes,
        "floor_seconds": floor_seconds,
        "floor_share": floor_seconds / float(np.median(step_seconds)),
        "mujoco_steps_per_second": None,
        "ratio_to_mujoco": None,
        "steps_per_processor_second": None,
        "ratio_to_last": None,
        "ratio_to_rollout_processor": None,
    }
    if model is not None:
        native_seconds = durations["mujoco"] / setting.steps
        row |= {
            "substeps": substeps(model, env),
            "mujoco_threads": min(results.cores(), setting.batch),
            "mujoco_steps_per_second": setting.batch / float(np.median(native_seconds)),
            "ratio_to_mujoco": float(np.median(native_seconds / step_seconds)),
        }
    return row


def inputs(env: Environment, setting: Setting) -> tuple[EnvState, jax.Array, jax.Array]:
    """Starts `[B]`, random actions `[T, B, U]` and keys of resets `[RESETS, B]`."""
    start_key, action_key, reset_key = jax.random.split(jax.random.key(0), 3)
    start_keys = jax.random.split(start_key, setting.batch)
    starts = jax.jit(jax.vmap(env.reset))(start_keys)
    shape = (setting.steps, setting.batch, env.spec.action_size)
    low, high = jnp.asarray(env.spec.action_low), jnp.asarray(env.spec.action_high)
    actions = jax.random.uniform(action_key, shape, jnp.float32, low, high)
    return starts, actions, jax.random.split(reset_key, (RESETS, setting.batch))


def scan_of_steps(env: Environment) -> Callable:
    """(states [B], actions [T, B, U]) -> states after T steps, rewards and ends, summed."""

    def one_step(running, actions):
        states, rewards, ends = running
        states, transition = jax.vmap(env.step)(states, actions)
        ended = (transition.terminal | transition.truncated).astype(jnp.int32)
        return (states, rewards + transition.reward, ends + ended), None

    def run(states: EnvState, actions: jax.Array):
        batch = actions.shape[1]
        nothing = jnp.zeros((batch,), jnp.float32), jnp.zeros((batch,), jnp.int32)
        # XLA drops unused results, so rewards and ends are returned too.
        return jax.lax.scan(one_step, (states, *nothing), actions)[0]

    return run


def scan_of_resets(env: Environment) -> Callable:
    """(states [B], keys [R, B]) -> the last of R batches of fresh states."""

    def run(states: EnvState, keys: jax.Array):
        return jax.lax.scan(
            lambda _, keys: (jax.vmap(env.reset)(keys), None), states, keys
        )[0]

    return run


# --------------------------------------------------------------------------------- MuJoCo


def native_model(name: str) -> mujoco.MjModel | None:
    """The model behind an environment on MJX; None: there is none to be had.

    Names with options have none: an option may change the model or how it is stepped. Nor
    have Brax's, which simplify the solver for MJX alone.
    """
    family, _, task = name.partition("/")
    if name in ("navigation_mjx", "course_mjx"):
        from planil_jax.envs import navigation_mjx

        return navigation_mjx.model()
    if ":" in name:
        return None
    if family == "gym":
        from planil_jax.envs import gym_c, gym_mjx, gym_robots

        return gym_robots.load(task, (gym_mjx.TASKS | gym_c.TASKS)[task].file)
    if family == "playground":
        from mujoco_playground import dm_control_suite

        if task in dm_control_suite.ALL_ENVS:
            loaded = dm_control_suite.load(task, config_overrides={"impl": "jax"})
            return loaded.mj_model
    return None


def substeps(model: mujoco.MjModel, env: Environment) -> int:
    """Physics steps of one control step."""
    return round(env.spec.control_period / model.opt.timestep)


def native_call(
    model: mujoco.MjModel, env: Environment, starts: EnvState, actions: jax.Array
) -> timing.Call:
    """T control steps of MuJoCo itself; a call returns the full physics states `[B, F]`."""
    steps, batch, _ = actions.shape
    count = substeps(model, env)
    begin = physics_states(model, starts)
    controls = np.repeat(np.swapaxes(np.asarray(actions, np.float64), 0, 1), count, axis=1)
    # All states on the way are written, so a call takes no more steps than fit.
    row_bytes = 8 * batch * (begin.shape[1] + model.nsensordata)
    turn = count * int(np.clip(OUTPUT_BYTES // (row_bytes * count), 1, steps))
    parts = [
        np.ascontiguousarray(controls[:, first : first + turn])
        for first in range(0, controls.shape[1], turn)
    ]
    threads = min(results.cores(), batch)
    pool = rollout.Rollout(nthread=threads)
    data = [mujoco.MjData(model) for _ in range(threads)]

    def call() -> np.ndarray:
        states = begin
        for part in parts:
            visited_states, _ = pool.rollout(model, data, states, part)
            states = visited_states[:, -1]
        return states

    return call


def physics_states(model: mujoco.MjModel, states: EnvState) -> np.ndarray:
    """States `[B]` of an environment on MJX as MuJoCo's full physics states `[B, F]`."""
    sim = getattr(states.sim, "data", states.sim)  # Playground's holds a whole mjx.Data
    kind = mujoco.mjtState.mjSTATE_FULLPHYSICS
    data = mujoco.MjData(model)
    rows = np.zeros((states.time.shape[0], mujoco.mj_stateSize(model, kind)))
    for row, qpos, qvel in zip(
        rows, np.asarray(sim.qpos), np.asarray(sim.qvel), strict=True
    ):
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_getState(model, data, row, kind)
    return rows


# ---------------------------------------------------------------------------------- output


def line(row: dict[str, Any]) -> str:
    native, ratio = row["mujoco_steps_per_second"], row["ratio_to_mujoco"]
    by_processor, to_last = row["steps_per_processor_second"], row["ratio_to_last"]
    return (
        f"{row['environment']:24} {row['engine'] or '-':6} {row['batch']:5} "
        f"{row['compile_seconds']:9.1f} "
        f"{row['steps_per_second'] / 1e3:10.1f} {row['reset_to_step']:10.2f} "
        f"{f'{native / 1e3:.1f}' if native else '-':>10} "
        f"{f'{ratio:.2f}' if ratio else '-':>9} "
        f"{f'{by_processor / 1e3:.1f}' if by_processor else '-':>7} "
        f"{f'{to_last:.2f}' if to_last else '-':>7} {row['state_bytes'] / 1e3:7.2f} "
        f"{row['floor_share']:6.1%}"
    )


if __name__ == "__main__":
    define_flags()
    app.run(main)
