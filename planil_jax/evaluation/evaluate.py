"""Evaluates a run: against its expert on the same starts, and out of distribution.

    python -m experiments.evaluate --run=runs/nav --field=40

Writes evaluation.json (and field_40.npz, for the report) beside the checkpoints. With
--rewards: also how the reward that was learned correlates with the task's, and rewards.png.
"""

import dataclasses
import functools
import json
import math
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from planil_jax import envs, experiment, runs, sweep
from planil_jax.base import Environment, EnvState, Transition, UsageError
from planil_jax.evaluation import rewards, statistics
from planil_jax.training import loop, run

FLAGS = flags.FLAGS

FIELD_SEED = 0x0DD
RESULT = "evaluation.json"
SPEED = "forward speed [m/s]"
SLOWEST = 1.4  # metres a second at which the farthest start still has time to arrive


def define_flags() -> None:
    """Not on import: other binaries import this one."""
    flags.DEFINE_string("run", None, "The --logdir of a training.", required=True)
    flags.DEFINE_string("which", "last", "Checkpoint: last, best, or a step.")
    flags.DEFINE_string("env", "", "Another environment of the same kind to evaluate in.")
    flags.DEFINE_string(
        "vary",
        "",
        "Settings to act by in place of the run's: agent.planning.enabled=False.",
    )
    flags.DEFINE_integer("episodes", 64, "Episodes in distribution.", lower_bound=1)
    flags.DEFINE_list("field", [], "Sides of fields of starts, metres: 40 or 40,80.")
    flags.DEFINE_string(
        "out", "", "Also write all there is to know of the run here, .json."
    )
    flags.DEFINE_bool("rewards", False, "Compare the learned reward with the task's.")
    flags.DEFINE_integer("starts", 128, "Starts on each field.", lower_bound=1)


def main() -> None:
    trained = runs.load(FLAGS.run, FLAGS.which, FLAGS.vary)
    if FLAGS.env:
        trained = in_env(trained, FLAGS.env)
    found = evaluate(trained, FLAGS.episodes, [float(f) for f in FLAGS.field], FLAGS.starts)
    print(table(found))
    if FLAGS.rewards:
        found["rewards"] = rewards.compare(trained, FLAGS.episodes)
        (trained.directory / "evaluation.json").write_text(
            json.dumps(found, indent=1) + "\n"
        )
        print(rewards.table(found["rewards"]))
    if FLAGS.out:
        Path(FLAGS.out).write_text(json.dumps(record(trained, found), indent=1) + "\n")


def record(trained: runs.Run, found: dict[str, Any]) -> dict[str, Any]:
    """An evaluation with what it takes to believe it: training curve, config, versions."""
    return {
        "command": " ".join(["python -m experiments.evaluate", *sys.argv[1:]]),
        "evaluation": found,
    } | runs.record(trained)


def in_env(trained: runs.Run, environment: str) -> runs.Run:
    """The run in another environment than it was trained in, such as the real one.

    Raises:
      UsageError: it observes or acts otherwise.
    """
    env = envs.make(environment)
    here, there = trained.env.spec, env.spec
    for what in ("observation_names", "action_low", "action_high", "control_period"):
        if getattr(here, what) != getattr(there, what):
            raise UsageError(
                f"--env={environment}: its {what} are {getattr(there, what)}, but the run "
                f"was trained in {here.name} with {getattr(here, what)}."
            )
    settings = dataclasses.replace(trained.experiment, environment=environment)
    return trained._replace(experiment=settings, env=env)


def evaluate(
    trained: runs.Run,
    episodes: int,
    fields: list[float],
    starts: int,
    expert: bool = True,
) -> dict[str, Any]:
    """Evaluates, writes evaluation.json, and returns what it holds.

    Args:
      expert: whether to let the scripted expert drive from the same starts as well.
    """
    print(f"evaluating {trained.directory} at step {trained.step} …", flush=True)
    found: dict[str, Any] = {
        "environment": trained.experiment.environment,
        "varied": trained.override,
        "step": trained.step,
        "seeds": trained.experiment.seeds,
        "members": sweep.labels(trained.experiment),
        "in_distribution": in_distribution(trained, episodes, expert),
        "fields": [on_field(trained, side, starts) for side in fields],
    }
    path = trained.directory / RESULT
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def in_distribution(
    trained: runs.Run, episodes: int, expert: bool = True
) -> dict[str, Any]:
    """Returns of learner and expert from the same starts; distance to demonstrations."""
    env = trained.env
    keys = jax.random.split(jax.random.key(run.EVALUATION_SEED), episodes)
    paths, returns, done = _episodes(trained, env, keys)
    found = {
        "episodes": episodes,
        "returns": returns.mean(1).tolist(),
        "return": statistics.interquartile_mean(returns.mean(1))._asdict(),
    }
    if env.subtasks is not None:
        shares = done.mean(1).T.tolist()
        found["subtasks"] = dict(zip(env.subtasks.names, shares, strict=True))
    if expert and env.expert_cost is not None:
        expert_returns = returns_of_expert(trained.experiment.environment, episodes)
        found["expert_return"] = float(expert_returns.mean())
        shares = statistics.share(returns.mean(1), expert_returns.mean())
        found["share_of_expert"] = statistics.interquartile_mean(shares)._asdict()
        found["shares"] = shares.tolist()
    if env.spec.observation_names[:2] == ("x [m]", "y [m]"):
        errors = _cross_track(trained, paths[..., :2])
        found["cross_track_m"] = {
            "mean": float(errors.mean()),
            "largest": float(errors.max()),
            "mean_by_seed": errors.mean(1).tolist(),
            "largest_by_seed": errors.max(1).tolist(),
        }
    if SPEED in env.spec.observation_names:
        speeds = paths[..., env.spec.observation_names.index(SPEED)]  # [S, B, L + 1]
        found["speed_m_per_s"] = speeds.mean((1, 2)).tolist()
    return found


@functools.cache
def returns_of_expert(environment: str, episodes: int) -> np.ndarray:
    """What the scripted expert returns `[B]` from the starts of the evaluation."""
    env = envs.make(environment)
    expert = experiment.make_expert(environment, env)
    keys = jax.random.split(jax.random.key(run.EVALUATION_SEED), episodes)
    rolled, alive = jax.jit(lambda keys: loop.evaluate(expert, env, (), keys))(keys)
    return np.sum(np.asarray(rolled.reward * alive), axis=1)


def on_field(trained: runs.Run, side: float, starts: int) -> dict[str, Any]:
    """Share of starts on a square field from which the goal is reached in time."""
    seconds = (side / math.sqrt(2) + math.hypot(10, 10)) / SLOWEST
    length = math.ceil(seconds / trained.env.spec.control_period)
    env = experiment.make_field(trained.experiment.environment, side, length)
    keys = jax.random.split(jax.random.key(FIELD_SEED), starts)
    paths, _, _ = _episodes(trained, env, keys)  # [S, B, L, O]
    assert env.success is not None  # make_field sees to it
    arrived = jax.vmap(jax.vmap(jax.vmap(env.success)))(jnp.asarray(paths))  # [S, B, L]
    reached = np.asarray(arrived).any(axis=2)
    np.savez_compressed(
        trained.directory / f"field_{side:g}.npz",
        paths=paths[..., ::4, :2].astype(np.float32),
        reached=reached,
    )
    return {
        "side_m": side,
        "starts": starts,
        "seconds": seconds,
        "successes": reached.mean(1).tolist(),
        "success": statistics.interquartile_mean(reached.mean(1))._asdict(),
        "mean_success": float(reached.mean()),
    }


def table(found: dict[str, Any]) -> str:
    """The evaluation, for reading."""
    inside = found["in_distribution"]
    seeds = found["seeds"]
    if len(found["members"]) > seeds:
        return _sweep_table(found)
    lines = [f"step {found['step']}, {seeds} seeds; each seed, then IQM [95%]"]
    rows = [("return", inside["returns"], inside["return"])]
    if "shares" in inside:
        rows.append(("share of the expert", inside["shares"], inside["share_of_expert"]))
    for field in found["fields"]:
        name = f"arrived, {field['side_m']:g} m field"
        rows.append((name, field["successes"], field["success"]))
    for name, each, summary in rows:
        seeds = " ".join(f"{value:8.3f}" for value in each)
        lines.append(f"  {name:22} {seeds}   {statistics.Summary(**summary)}")
    for name, each in inside.get("subtasks", {}).items():
        shares = " ".join(f"{share:8.3f}" for share in each)
        lines.append(f"  {name + ', done in':22} {shares}")
    if "expert_return" in inside:
        lines.append(f"  expert's return        {inside['expert_return']:8.3f}")
    if "cross_track_m" in inside:
        error = inside["cross_track_m"]
        lines.append(
            f"  off the nearest demonstration: {error['mean']:.2f} m on average, "
            f"{error['largest']:.2f} m at most"
        )
    if "speed_m_per_s" in inside:
        each = " ".join(f"{speed:8.3f}" for speed in inside["speed_m_per_s"])
        lines.append(f"  mean speed, m/s        {each}")
    return "\n".join(lines)


def _sweep_table(found: dict[str, Any]) -> str:
    """The evaluation of a sweep: a row for each of its settings."""
    seeds, inside = found["seeds"], found["in_distribution"]
    columns = {"return": inside["returns"], "share of the expert": inside.get("shares")}
    for field in found["fields"]:
        columns[f"arrived, {field['side_m']:g} m"] = field["successes"]
    held = {
        name: np.reshape(values, (-1, seeds)) for name, values in columns.items() if values
    }
    lines = [f"step {found['step']}, {seeds} seeds of each; IQM [95%]"]
    for point, label in enumerate(found["members"][::seeds]):
        summaries = "   ".join(
            f"{name} {statistics.interquartile_mean(values[point])}"
            for name, values in held.items()
        )
        lines.append(f"  {label.split(', ', 1)[-1]:30} {summaries}")
    return "\n".join(lines)


def _episodes(
    trained: runs.Run, env: Environment, keys: jax.Array
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An episode a key and seed: observations `[S, B, L + 1, O]`, returns `[S, B]`, and
    which subtasks were done at any time, `[S, B, K]`."""
    telling = _telling_subtasks(env)

    def one_seed(params, settings):
        agent = trained.make_agent(env, settings)
        rolled, alive = loop.evaluate(agent, telling, params, keys)
        told = rolled.reward * alive[..., None]
        return rolled.obs[:, :1], rolled.next_obs, told[..., 0].sum(1), told[..., 1:].any(1)

    first, following, returns, done = runs.over_seeds(one_seed, trained)
    paths = np.concatenate([first, following], axis=2)
    return paths, np.asarray(returns), np.asarray(done)


def _telling_subtasks(env: Environment) -> Environment:
    """Its reward is `[1 + K]`: the task's, and 1 for each subtask that is done."""

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        following, told = env.step(state, action)
        rewards = told.reward[None]
        if env.subtasks is not None:
            rewards = jnp.append(rewards, env.subtasks.done(following))
        return following, dataclasses.replace(told, reward=rewards)

    return env._replace(step=step)


def _cross_track(trained: runs.Run, paths: np.ndarray) -> np.ndarray:
    """Metres from each point of `paths` `[S, B, L, 2]` to a demonstration, `[S, B L]`."""
    demos = trained.demos
    references = [
        np.asarray(demos.obs[n, : int(demos.length[n]) + 1, :2])
        for n in range(demos.obs.shape[0])
    ]
    points = paths.reshape(-1, 2)
    each = [statistics.cross_track(points, path) for path in references]
    return np.min(each, axis=0).reshape(len(paths), -1)
