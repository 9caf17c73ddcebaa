"""The data behind a report: paths, maps, and a drive with the plans of every step.

All results are plain numpy, so that figures and pages need no JAX. What a method can show
comes from `runs.shows`.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax import runs
from planil_jax.base import Agent, EnvSpec, Params
from planil_jax.training import loop, run

SPEED = 2.0  # metres a second, at every point of the maps
_MAP = 80  # points along a side of a map
_PLANS = 48  # plans shown at a step: the best half by weight, and a sample of the others
_POINTS = 120_000  # of all plans of a drive together; a long drive shows fewer plans


class Scene(NamedTuple):
    """A task on the plane; metres."""

    demonstrations: list[np.ndarray]  # [L + 1, 2] each
    goal: tuple[float, float, float] | None  # x, y, radius; None: the task has no success
    bounds: tuple[float, float, float, float]  # left, right, bottom, top; a square


class Landscape(NamedTuple):
    """Value and reward at (x, y), moving towards the goal at `SPEED`, for each seed."""

    x: np.ndarray  # [G]
    y: np.ndarray  # [G]
    value: np.ndarray | None  # [S, G, G], rows along y; None: the method has no value
    reward: np.ndarray | None  # [S, G, G]; None: the method recovers no reward


class Drive(NamedTuple):
    """One episode of one seed, and the plans that its planner weighed at every step."""

    obs: np.ndarray  # [T + 1, O]
    reward: np.ndarray | None  # [T] the recovered reward; None: there is none
    plans: np.ndarray  # [T, K', H + 1, 2] some of the K plans, the heaviest first; metres
    weights: np.ndarray  # [T, K']
    mean: np.ndarray  # [T, H + 1, 2] the path of the mean plan
    effective: np.ndarray  # [T] 1 / Σ w² of all K: how many plans count

    @property
    def path(self) -> np.ndarray:
        """`[T + 1, 2]`, metres."""
        return self.obs[:, :2]


def is_planar(trained: runs.Run) -> bool:
    """Whether the task is on the plane and its demonstrations hold the position."""
    names = trained.env.spec.observation_names
    return names[:2] == ("x [m]", "y [m]") and {0, 1} <= set(trained.demos.observed)


def rollouts(trained: runs.Run, count: int) -> np.ndarray:
    """Observations `[S, B, L + 1, O]` from starts of the evaluation; nan after an end."""
    keys = evaluation_keys(count)

    def one_seed(params, settings):
        agent = trained.make_agent(trained.env, settings)
        steps, alive = loop.evaluate(agent, trained.env, params, keys)
        next_obs = jnp.where(alive[..., None], steps.next_obs, jnp.nan)
        return jnp.concatenate([steps.obs[:, :1], next_obs], axis=1)

    return runs.over_seeds(one_seed, trained)


def demonstrations(trained: runs.Run) -> list[np.ndarray]:
    """Observations `[L + 1, O]` of each demonstration; nan where an entry is missing."""
    obs, lengths = jax.device_get((trained.demos.obs, trained.demos.length))
    missing = [i for i in range(obs.shape[-1]) if i not in trained.demos.observed]
    episodes = [np.array(obs[n, : length + 1]) for n, length in enumerate(lengths)]
    for episode in episodes:
        episode[:, missing] = np.nan
    return episodes


def frame_strips(trained: runs.Run, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames `[1 + S, count, H, W, 3]` of a task of pictures, and their times in seconds.

    The first row is of the first demonstration, the others are of the first evaluation
    episode of each seed. The times `[count]` are spread evenly over the demonstration.
    """
    length = int(trained.demos.length[0])
    at = np.linspace(0, length, count).astype(int)
    demonstration = np.asarray(trained.demos.obs[0])[at]

    def one_seed(params, settings):
        agent = trained.make_agent(trained.env, settings)
        steps, _ = loop.evaluate(agent, trained.env, params, evaluation_keys(1))
        return jnp.concatenate([steps.obs[0, :1], steps.next_obs[0]])[at, ..., -3:]

    frames = np.concatenate([demonstration[None], runs.over_seeds(one_seed, trained)])
    return frames, at * trained.env.spec.control_period


def evaluation_keys(count: int) -> jax.Array:
    """Keys of the first episodes of evaluation, `[count]`."""
    return jax.random.split(jax.random.key(run.EVALUATION_SEED), count)


# ---------------------------------------------------------------------------- on the plane


def scene(trained: runs.Run) -> Scene:
    """The demonstrations on the plane, and the goal: the middle of where success is."""
    paths = [episode[:, :2] for episode in demonstrations(trained)]
    bounds = square(np.concatenate(paths), margin=0.35)
    if trained.env.success is None:
        return Scene(paths, None, bounds)
    x, y = np.meshgrid(*_axes(bounds, 4 * _MAP))
    obs = np.zeros((*x.shape, trained.env.spec.observation_size), np.float32)
    obs[..., 0], obs[..., 1] = x, y
    success = np.asarray(jax.vmap(jax.vmap(trained.env.success))(jnp.asarray(obs)))
    if not success.any():
        return Scene(paths, None, bounds)
    cell = (bounds[1] - bounds[0]) / (4 * _MAP - 1)
    radius = cell * math.sqrt(success.sum() / math.pi)
    goal = (float(x[success].mean()), float(y[success].mean()), radius)
    return Scene(paths, goal, bounds)


def square(points: np.ndarray, margin: float) -> tuple[float, float, float, float]:
    """The square around points `[P, 2]`, with a margin as a share of their extent."""
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    half = float(max(high - low)) * (0.5 + margin) + 1e-3
    x, y = ((low + high) / 2).tolist()
    return (x - half, x + half, y - half, y + half)


def landscape(trained: runs.Run, scene: Scene) -> Landscape:
    """The maps of every seed, as far as the method has them, over the bounds of a scene."""
    spec = trained.env.spec
    x, y = _axes(scene.bounds, _MAP)
    target = scene.goal or np.mean([path[-1] for path in scene.demonstrations], axis=0)
    east, north = np.meshgrid(x, y)  # [G, G]
    angle = np.arctan2(target[1] - north, target[0] - east)
    step = SPEED * spec.control_period
    obs = _headed(spec, east, north, angle)  # [G, G, O]
    next_obs = _headed(
        spec, east + step * np.cos(angle), north + step * np.sin(angle), angle
    )
    shows = runs.shows(trained)
    no_action = np.zeros((*obs.shape[:-1], spec.action_size), np.float32)

    def one_seed(params, settings):
        maps = {}
        if shows.value:
            maps["value"] = shows.value(params, obs)
        if shows.reward:
            maps["reward"] = shows.reward(params, obs, no_action, next_obs)
        return maps

    maps = runs.over_seeds(one_seed, trained)
    return Landscape(x, y, maps.get("value"), maps.get("reward"))


def drive(trained: runs.Run, seed_index: int) -> Drive:
    """The first evaluation episode of a seed, with the plans of every step.

    The method must show its plans.
    """
    params, settings = jax.tree.map(
        lambda leaf: leaf[seed_index], (trained.params, trained.settings)
    )
    agent = trained.make_agent(trained.env, settings)
    episode = _planned_episode(trained, agent, params, settings)
    first, steps, alive = jax.device_get(jax.jit(episode)(evaluation_keys(1)[0]))
    steps = {name: values[alive] for name, values in steps.items()}
    obs = np.concatenate([first[None], steps.pop("next_obs")])
    return Drive(obs=obs, reward=steps.pop("reward", None), **steps)


def _planned_episode(
    trained: runs.Run, agent: Agent, params: Params, settings: run.Settings
):
    """`key -> (obs [O], steps [T], alive [T])`, of steps with the fields of `Drive`."""
    env, shows = trained.env, runs.shows(trained, settings)
    plans_fn, reward_fn = shows.plans, shows.reward
    assert plans_fn is not None  # a report asks for plans before it drives
    key = jax.random.key(0)
    state = jax.eval_shape(env.reset, key)
    paths, _, _ = jax.eval_shape(plans_fn, params, agent.carry(), state, key)
    count, points, _ = paths.shape  # [K, H + 1, O]
    affordable = _POINTS // (env.spec.episode_length * points)
    ranks = _ranks(count, max(2, min(_PLANS, affordable)))

    def one_step(running, step_key):
        state, carry, alive = running
        paths, weights, mean = plans_fn(params, carry, state, step_key)
        chosen = jnp.argsort(-weights)[ranks]
        action, carry = agent.act(params, carry, state, step_key, False)
        next_state, transition = env.step(state, action)
        step = {
            "next_obs": transition.next_obs,
            "plans": paths[chosen, :, :2],
            "weights": weights[chosen],
            "mean": mean[:, :2],
            "effective": 1 / jnp.sum(weights**2),
        }
        if reward_fn:
            step["reward"] = reward_fn(
                params, transition.obs, transition.action, transition.next_obs
            )
        return (next_state, carry, alive & ~transition.terminal), (step, alive)

    def episode(key):
        reset_key, act_key = jax.random.split(key)
        state = env.reset(reset_key)
        step_keys = jax.random.split(act_key, env.spec.episode_length)
        start = (state, agent.carry(), jnp.ones((), bool))
        return state.obs, *jax.lax.scan(one_step, start, step_keys)[1]

    return episode


def headings(spec: EnvSpec, obs: np.ndarray) -> np.ndarray:
    """Headings in radians, `[T]`: as observed, or else the direction of travel."""
    names = spec.observation_names
    if {"cos heading", "sin heading"} <= set(names):
        cos, sin = (obs[:, names.index(f"{ratio} heading")] for ratio in ("cos", "sin"))
        return np.arctan2(sin, cos)
    moved = np.diff(obs[:, :2], axis=0, append=2 * obs[-1:, :2] - obs[-2:-1, :2])
    return np.arctan2(moved[:, 1], moved[:, 0])


def animation(
    trained: runs.Run, scene: Scene, drive: Drive, underlay: str | None
) -> dict[str, object]:
    """A drive as `assets/player.js` reads it, in rounded metres, seconds and radians.

    Args:
      underlay: image of the learned value over the bounds of the scene, as a data URI;
        None: there is no value.
    """
    spec = trained.env.spec
    poses = np.column_stack([drive.path, headings(spec, drive.obs)])  # [T + 1, 3]
    speeds = np.linalg.norm(np.diff(drive.path, axis=0), axis=1) / spec.control_period
    frames = [
        {
            "pose": _rounded(poses[t], 3),
            "plans": [_rounded(plan.ravel(), 2) for plan in drive.plans[t]],
            "weights": _rounded(drive.weights[t], 4),
            "mean": _rounded(drive.mean[t].ravel(), 2),
        }
        for t in range(len(drive.plans))
    ]
    traces = [
        {"name": "speed [m/s]", "values": _rounded(speeds, 2)},
        {"name": "effective number of plans", "values": _rounded(drive.effective, 1)},
    ]
    if drive.reward is not None:
        name = "recovered reward of the step"
        traces.insert(0, {"name": name, "values": _rounded(drive.reward, 3)})
    points = np.concatenate([*scene.demonstrations, drive.path])
    return {
        "period": spec.control_period,
        "bounds": _rounded(np.array(square(points, margin=0.06)), 2),
        "goal": scene.goal and _rounded(np.array(scene.goal), 2),
        "demonstrations": [_rounded(p.ravel(), 2) for p in scene.demonstrations],
        "underlay": underlay and {"image": underlay, "bounds": scene.bounds},
        "frames": frames,
        "traces": traces,
    }


# --------------------------------------------------------------------------------- helpers


def _axes(bounds: tuple[float, float, float, float], count: int) -> list[np.ndarray]:
    left, right, bottom, top = bounds
    return [np.linspace(left, right, count), np.linspace(bottom, top, count)]


def _headed(spec: EnvSpec, x: np.ndarray, y: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Observations `[G, G, O]` at (x, y), moving in the direction of `angle` at `SPEED`."""
    known = {
        "x [m]": x,
        "y [m]": y,
        "cos heading": np.cos(angle),
        "sin heading": np.sin(angle),
        "forward speed [m/s]": np.full_like(x, SPEED),
        "x velocity [m/s]": SPEED * np.cos(angle),
        "y velocity [m/s]": SPEED * np.sin(angle),
    }
    columns = [known.get(name, np.zeros_like(x)) for name in spec.observation_names]
    return np.stack(columns, axis=-1).astype(np.float32)


def _ranks(samples: int, count: int) -> np.ndarray:
    """Ranks by weight of the plans to show: the best half, and a sample of the others."""
    if samples <= count:
        return np.arange(samples)
    best = count // 2
    others = np.linspace(best, samples - 1, count - best).round().astype(int)
    return np.concatenate([np.arange(best), others])


def _rounded(values: np.ndarray, digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]
