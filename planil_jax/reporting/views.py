"""What a report shows of a trained run, computed: paths, maps, and a drive with its plans.

Plain numpy comes out, so that figures and pages need no JAX.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax import runs, sweep
from planil_jax.base import EnvSpec
from planil_jax.training import loop, run

SPEED = 2.0  # metres a second, of the car that the maps are drawn for
_MAP = 80  # points along a side of a map
_PLANS = 48  # plans shown at a step: the best half by weight, and a sample of the others
_POINTS = 120_000  # of all plans of a drive together; long drives show fewer plans


class Scene(NamedTuple):
    """A task on the plane; metres."""

    demonstrations: list[np.ndarray]  # [L + 1, 2] each
    goal: tuple[float, float, float] | None  # x, y, radius; None: the task tells of none
    bounds: tuple[float, float, float, float]  # left, right, bottom, top; a square


class Landscape(NamedTuple):
    """What each seed learned of a car at `SPEED` that heads for the goal from (x, y)."""

    x: np.ndarray  # [G]
    y: np.ndarray  # [G]
    value: np.ndarray  # [S, G, G], rows along y
    reward: np.ndarray  # [S, G, G]


class Drive(NamedTuple):
    """One episode of one seed, and what its planner weighed at every step."""

    obs: np.ndarray  # [T + 1, O]
    reward: np.ndarray  # [T] the discriminator's logit of the step
    plans: np.ndarray  # [T, K', H + 1, 2] some of the K plans, the heaviest first; metres
    weights: np.ndarray  # [T, K']
    mean: np.ndarray  # [T, H + 1, 2] the path of the mean plan
    effective: np.ndarray  # [T] 1 / Σ w² of all K: how many plans count

    @property
    def path(self) -> np.ndarray:
        """`[T + 1, 2]`, metres."""
        return self.obs[:, :2]


def is_planar(trained: runs.Run) -> bool:
    """Whether the task happens on the plane, and the demonstrations tell where."""
    names = trained.env.spec.observation_names
    return names[:2] == ("x [m]", "y [m]") and {0, 1} <= set(trained.demos.observed)


def rollouts(trained: runs.Run, count: int) -> np.ndarray:
    """Observations `[S, B, L + 1, O]` from starts of the evaluation; nan after an end."""
    keys = _evaluation_keys(count)

    def one_seed(params, settings):
        agent = trained.make_agent(trained.env, settings)
        rolled, alive = loop.evaluate(agent, trained.env, params, keys)
        ended = jnp.where(alive[..., None], rolled.next_obs, jnp.nan)
        return jnp.concatenate([rolled.obs[:, :1], ended], axis=1)

    return runs.over_seeds(one_seed, trained)


def demonstrated(trained: runs.Run) -> list[np.ndarray]:
    """Observations `[L + 1, O]` of each demonstration; nan where an entry is missing."""
    obs, lengths = jax.device_get((trained.demos.obs, trained.demos.length))
    missing = [i for i in range(obs.shape[-1]) if i not in trained.demos.observed]
    episodes = [np.array(obs[n, : length + 1]) for n, length in enumerate(lengths)]
    for episode in episodes:
        episode[:, missing] = np.nan
    return episodes


def strips(trained: runs.Run, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames `[1 + S, count, H, W, 3]` of a task of pictures, and when, `[count]` seconds.

    They lie evenly over an episode: of the first demonstration, and of the first episode
    of evaluation of each seed.
    """
    length = int(trained.demos.length[0])
    when = np.linspace(0, length, count).astype(int)
    shown = np.asarray(trained.demos.obs[0])[when]

    def one_seed(params, settings):
        agent = trained.make_agent(trained.env, settings)
        rolled, _ = loop.evaluate(agent, trained.env, params, _evaluation_keys(1))
        seen = jnp.concatenate([rolled.obs[0, :1], rolled.next_obs[0]])[..., -3:]
        return seen[when]

    frames = np.concatenate([shown[None], runs.over_seeds(one_seed, trained)])
    return frames, when * trained.env.spec.control_period


# ---------------------------------------------------------------------------- on the plane


def scene(trained: runs.Run) -> Scene:
    """The demonstrations on the plane, and the goal: the middle of where success is."""
    demonstrations = [episode[:, :2] for episode in demonstrated(trained)]
    bounds = square(np.concatenate(demonstrations), margin=0.35)
    if trained.env.success is None:
        return Scene(demonstrations, None, bounds)
    x, y = np.meshgrid(*_axes(bounds, 4 * _MAP))
    obs = np.zeros((*x.shape, trained.env.spec.observation_size), np.float32)
    obs[..., 0], obs[..., 1] = x, y
    there = np.asarray(jax.vmap(jax.vmap(trained.env.success))(jnp.asarray(obs)))
    if not there.any():
        return Scene(demonstrations, None, bounds)
    cell = (bounds[1] - bounds[0]) / (4 * _MAP - 1)
    radius = cell * math.sqrt(there.sum() / math.pi)
    goal = (float(x[there].mean()), float(y[there].mean()), radius)
    return Scene(demonstrations, goal, bounds)


def square(points: np.ndarray, margin: float) -> tuple[float, float, float, float]:
    """The square round points `[P, 2]`, with a margin as a share of their extent."""
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    half = float(max(high - low)) * (0.5 + margin) + 1e-3
    x, y = ((low + high) / 2).tolist()
    return (x - half, x + half, y - half, y + half)


def landscape(trained: runs.Run, scene: Scene) -> Landscape:
    """The maps of every seed, over the bounds of the scene."""
    spec = trained.env.spec
    x, y = _axes(scene.bounds, _MAP)
    target = scene.goal or np.mean([path[-1] for path in scene.demonstrations], axis=0)
    across, up = np.meshgrid(x, y)  # [G, G]
    angle = np.arctan2(target[1] - up, target[0] - across)
    step = SPEED * spec.control_period
    obs = _headed(spec, across, up, angle)  # [G, G, O]
    next_obs = _headed(
        spec, across + step * np.cos(angle), up + step * np.sin(angle), angle
    )
    shows = runs.shows(trained)
    reward, value = shows.reward, shows.value
    assert reward and value  # a report asks for them before it draws a map
    still = np.zeros((*obs.shape[:-1], spec.action_size), np.float32)

    def one_seed(params, settings):
        return value(params, obs), reward(params, obs, still, next_obs)

    value_map, reward_map = runs.over_seeds(one_seed, trained)
    return Landscape(x, y, value_map, reward_map)


def drive(trained: runs.Run, seed_index: int) -> Drive:
    """The first evaluation episode of a seed, with its plans looked at on the way."""
    env = trained.env
    params, own = jax.tree.map(
        lambda leaf: leaf[seed_index], (trained.params, trained.settings)
    )
    member = sweep.apply_overrides(trained.experiment, own)
    agent, config = trained.make_agent(env, own), member.agent
    shows = runs.shows(trained, own)
    plans_of, reward = shows.plans, shows.reward
    assert plans_of and reward  # a report asks for them before it drives
    points = env.spec.episode_length * (config.planner.horizon + 1)
    ranks = _ranks(config.planner.samples, max(2, min(_PLANS, _POINTS // points)))

    def one_step(running, step_key):
        state, carry, alive = running
        paths, weights, mean = plans_of(params, carry, state, step_key)
        chosen = jnp.argsort(-weights)[ranks]
        action, carry = agent.act(params, carry, state, step_key, False)
        state, transition = env.step(state, action)
        step = {
            "obs": transition.next_obs,
            "reward": reward(
                params, transition.obs, transition.action, transition.next_obs
            ),
            "plans": paths[chosen, :, :2],
            "weights": weights[chosen],
            "mean": mean[:, :2],
            "effective": 1 / jnp.sum(weights**2),
        }
        return (state, carry, alive & ~transition.terminal), (step, alive)

    @jax.jit
    def episode(key):
        reset_key, act_key = jax.random.split(key)
        state = env.reset(reset_key)
        step_keys = jax.random.split(act_key, env.spec.episode_length)
        start = (state, agent.carry(), jnp.ones((), bool))
        return state.obs, *jax.lax.scan(one_step, start, step_keys)[1]

    first, driven, alive = jax.device_get(episode(_evaluation_keys(1)[0]))
    steps = {name: values[alive] for name, values in driven.items()}
    return Drive(**steps | {"obs": np.concatenate([first[None], steps["obs"]])})


def headings(spec: EnvSpec, obs: np.ndarray) -> np.ndarray:
    """Radians, `[T]`: as observed, or else the direction of travel."""
    names = spec.observation_names
    if {"cos heading", "sin heading"} <= set(names):
        cos, sin = (obs[:, names.index(f"{ratio} heading")] for ratio in ("cos", "sin"))
        return np.arctan2(sin, cos)
    moved = np.diff(obs[:, :2], axis=0, append=2 * obs[-1:, :2] - obs[-2:-1, :2])
    return np.arctan2(moved[:, 1], moved[:, 0])


def animation(
    trained: runs.Run, scene: Scene, driven: Drive, underlay: str | None
) -> dict[str, object]:
    """A drive as `assets/player.js` reads it, in rounded metres, seconds and radians.

    Args:
      underlay: image of the learned value over the bounds of the scene, as a data URI.
    """
    spec = trained.env.spec
    poses = np.column_stack([driven.path, headings(spec, driven.obs)])  # [T + 1, 3]
    speeds = np.linalg.norm(np.diff(driven.path, axis=0), axis=1) / spec.control_period
    frames = [
        {
            "pose": _rounded(poses[t], 3),
            "plans": [_rounded(plan.ravel(), 2) for plan in driven.plans[t]],
            "weights": _rounded(driven.weights[t], 4),
            "mean": _rounded(driven.mean[t].ravel(), 2),
        }
        for t in range(len(driven.reward))
    ]
    seen = [*scene.demonstrations, driven.path]
    return {
        "period": spec.control_period,
        "bounds": _rounded(np.array(square(np.concatenate(seen), margin=0.06)), 2),
        "goal": scene.goal and _rounded(np.array(scene.goal), 2),
        "demonstrations": [_rounded(p.ravel(), 2) for p in scene.demonstrations],
        "underlay": underlay and {"image": underlay, "bounds": scene.bounds},
        "frames": frames,
        "traces": [
            {"name": "learned reward of the step", "values": _rounded(driven.reward, 3)},
            {"name": "speed [m/s]", "values": _rounded(speeds, 2)},
            {"name": "plans that count", "values": _rounded(driven.effective, 1)},
        ],
    }


# --------------------------------------------------------------------------------- helpers


def _evaluation_keys(count: int) -> jax.Array:
    return jax.random.split(jax.random.key(run.EVALUATION_SEED), count)


def _axes(bounds: tuple[float, float, float, float], count: int) -> list[np.ndarray]:
    left, right, bottom, top = bounds
    return [np.linspace(left, right, count), np.linspace(bottom, top, count)]


def _headed(spec: EnvSpec, x: np.ndarray, y: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Observations `[G, G, O]` of what moves from (x, y) under these angles at `SPEED`."""
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
    """Which of the plans, ranked by weight, to show: the first, and an even sample."""
    if samples <= count:
        return np.arange(samples)
    best = count // 2
    others = np.linspace(best, samples - 1, count - best).round().astype(int)
    return np.concatenate([np.arange(best), others])


def _rounded(values: np.ndarray, digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]
