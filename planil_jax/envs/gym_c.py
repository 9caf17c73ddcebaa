"""More of Gymnasium's tasks, on MuJoCo in C alone: "gym/Humanoid", "gym/Swimmer",
"gym/Reacher", "gym/Pusher", "gym/InvertedPendulum", "gym/InvertedDoublePendulum".

Observation, action, reward, ends and lengths of episodes are those of Gymnasium's version
5, and the robots are read from Gymnasium's files. Computed entries, such as the contact
forces on the humanoid, are those that `mj_step` leaves behind, as there.

`recover` is there where an observation holds all positions and velocities, up to the place
on the ground; Pusher does not show the speed of its object.

Source: Gymnasium's definitions of these tasks (Towers et al. 2024, arXiv 2407.17032).
Departures: none but the single precision of observations and rewards.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import mujoco

from planil_jax.base import Environment, EnvSpec, EnvState, Transition
from planil_jax.envs import engine_c, gym_robots
from planil_jax.envs.engines import require

Body: TypeAlias = engine_c.State  # its fields are those that the task reads
Qpos: TypeAlias = jax.Array
Qvel: TypeAlias = jax.Array


class Task(NamedTuple):
    """One task; its functions are given the model first."""

    file: str
    frame_skip: int  # physics steps a control step
    fields: tuple[str, ...]  # that the functions read
    names: Callable[[mujoco.MjModel], tuple[str, ...]]  # of the observation
    observe: Callable[[mujoco.MjModel, Body], jax.Array]
    # (model, before, action, after, seconds of a control step) -> [], without what is paid
    # for being alive
    reward: Callable[[mujoco.MjModel, Body, jax.Array, Body, float], jax.Array]
    reset: Callable[[mujoco.MjModel, jax.Array, float], tuple[Qpos, Qvel]]
    length: int = 1000  # control steps of an episode
    alive: float = 0.0  # paid in each step that does not end the task
    ended: Callable[[Body], jax.Array] | None = None  # (body) -> [] bool
    recover: Callable[[mujoco.MjModel, jax.Array], tuple[Qpos, Qvel]] | None = None


def make(
    task: str,
    episode_length: int | None = None,
    mass: float = 1.0,
    friction: float = 1.0,
    gravity: float = 1.0,
    reset_noise: float = 1.0,
    engine: str = "auto",
) -> Environment:
    """A task of TASKS.

    Args:
      task: its name there.
      episode_length: control steps; None: those of the task.
      mass, friction, gravity: factors, as of `mjcf.load`.
      reset_noise: factor of the task's reset noise.
      engine: "c" or "auto".

    Raises:
      UsageError: the engine is another one.
      UserError: Gymnasium's files are not installed.
    """
    name, parts = f"gym/{task}", TASKS[task]
    require(name, engine, ("c",))
    model = gym_robots.load(task, parts.file, mass, friction, gravity)
    fields = ("qpos", "qvel", *parts.fields)
    physics = engine_c.make(name, model, parts.frame_skip, fields, forward=False)
    period = round(float(model.opt.timestep) * parts.frame_skip, 9)
    length = parts.length if episode_length is None else episode_length
    spec = EnvSpec(
        name=name,
        observation_names=parts.names(model),
        action_low=tuple(model.actuator_ctrlrange[:, 0].tolist()),
        action_high=tuple(model.actuator_ctrlrange[:, 1].tolist()),
        episode_length=length,
        control_period=period,
        terminates=parts.ended is not None,
    )

    def start(qpos: Qpos, qvel: Qvel) -> EnvState:
        body = physics.start(physics.home.replace(qpos=qpos, qvel=qvel))
        return EnvState(
            sim=body, obs=parts.observe(model, body), time=jnp.zeros((), jnp.int32)
        )

    def reset(key: jax.Array) -> EnvState:
        return start(*parts.reset(model, key, reset_noise))

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        body = physics.step(state.sim, action)
        next_state = EnvState(sim=body, obs=parts.observe(model, body), time=state.time + 1)
        ended = parts.ended(body) if parts.ended else jnp.zeros((), bool)
        reward = parts.reward(model, state.sim, action, body, period)
        transition = Transition(
            obs=state.obs,
            action=action,
            next_obs=next_state.obs,
            reward=(reward + parts.alive * ~ended).astype(jnp.float32),
            terminal=ended,
            truncated=next_state.time >= length,
        )
        return next_state, transition

    def recover(obs: jax.Array) -> EnvState:
        assert parts.recover is not None
        return start(*parts.recover(model, obs))

    return Environment(spec, reset, step, recover=parts.recover and recover, engine="c")


def _uniform(key: jax.Array, size: int, half_width: float) -> jax.Array:
    return jax.random.uniform(key, (size,), jnp.float32, -half_width, half_width)


def _near_rest(
    model: mujoco.MjModel, key: jax.Array, factor: float, *, noise: float
) -> tuple[Qpos, Qvel]:
    """Uniform noise on the initial pose and on no speed."""
    qpos_key, qvel_key = jax.random.split(key)
    rest = jnp.asarray(model.qpos0, jnp.float32)
    return (
        rest + _uniform(qpos_key, model.nq, factor * noise),
        _uniform(qvel_key, model.nv, factor * noise),
    )


def _squared(vector: jax.Array) -> jax.Array:
    return jnp.sum(vector**2)


def _norm(vector: jax.Array) -> jax.Array:
    return jnp.sqrt(_squared(vector))


def _split(model: mujoco.MjModel, obs: jax.Array, *, hidden: int) -> tuple[Qpos, Qvel]:
    """Positions and velocities at the start of an observation; those hidden are 0."""
    qpos, qvel = jnp.split(obs, [model.nq - hidden])
    return jnp.concatenate([jnp.zeros(hidden), qpos]), qvel[: model.nv]


# ------------------------------------------------------------------------------- Humanoid


def _humanoid_names(model: mujoco.MjModel) -> tuple[str, ...]:
    bodies = range(1, model.nbody)
    axes = [*"xyz"]
    inertia = ["xx", "yy", "zz", "xy", "xz", "yz"]
    inertia = [f"inertia {i} [kg m²]" for i in inertia]
    inertia += [f"mass times {axis} [kg m]" for axis in axes] + ["mass [kg]"]
    speeds = [f"turn {axis} [rad/s]" for axis in axes]
    speeds += [f"velocity {axis} [m/s]" for axis in axes]
    forces = [f"contact torque {axis} [N m]" for axis in axes]
    forces += [f"contact force {axis} [N]" for axis in axes]
    torques = [f"{model.joint(i).name} torque [N m]" for i in range(1, model.njnt)]
    return (
        *gym_robots.names(model, hidden=2),
        *(f"body {body} {what}" for body in bodies for what in inertia),
        *(f"body {body} {what}" for body in bodies for what in speeds),
        *torques,
        *(f"body {body} {what}" for body in bodies for what in forces),
    )


def _humanoid_obs(model: mujoco.MjModel, body: Body) -> jax.Array:
    return jnp.concatenate(
        [
            body.qpos[2:],
            body.qvel,
            body.cinert[1:].ravel(),
            body.cvel[1:].ravel(),
            body.qfrc_actuator[6:],
            body.cfrc_ext[1:].ravel(),
        ]
    )


def _humanoid_reward(
    model: mujoco.MjModel, before: Body, action: jax.Array, after: Body, period: float
) -> jax.Array:
    """1.25 Δx / Δt of the centre of mass - 0.1 ‖u‖² - min(5e-7 ‖forces‖², 10)"""
    share = jnp.asarray(model.body_mass / model.body_mass.sum(), jnp.float32)
    speed = share @ (after.xipos[:, 0] - before.xipos[:, 0]) / period
    contact = jnp.minimum(5e-7 * _squared(after.cfrc_ext), 10.0)
    return 1.25 * speed - 0.1 * _squared(action) - contact


# ------------------------------------------------------------------------ Reacher, Pusher


def _reacher_obs(model: mujoco.MjModel, body: Body) -> jax.Array:
    angles = body.qpos[:2]
    offset = body.xpos[model.body("fingertip").id] - body.xpos[model.body("target").id]
    return jnp.concatenate(
        [jnp.cos(angles), jnp.sin(angles), body.qpos[2:], body.qvel[:2], offset[:2]]
    )


def _reacher_reward(
    model: mujoco.MjModel, before: Body, action: jax.Array, after: Body, period: float
) -> jax.Array:
    """-‖fingertip - target‖ - ‖u‖²"""
    offset = after.xpos[model.body("fingertip").id] - after.xpos[model.body("target").id]
    return -_norm(offset) - _squared(action)


def _reacher_reset(
    model: mujoco.MjModel, key: jax.Array, factor: float
) -> tuple[Qpos, Qvel]:
    """The target is uniform in a disc of 0.2 m."""
    qpos_key, qvel_key, radius_key, angle_key = jax.random.split(key, 4)
    radius = 0.2 * jnp.sqrt(jax.random.uniform(radius_key))
    angle = jax.random.uniform(angle_key, maxval=2 * jnp.pi)
    target = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    qpos = jnp.concatenate([_uniform(qpos_key, 2, 0.1 * factor), target])
    return qpos, jnp.concatenate([_uniform(qvel_key, 2, 0.005 * factor), jnp.zeros(2)])


def _reacher_recover(model: mujoco.MjModel, obs: jax.Array) -> tuple[Qpos, Qvel]:
    qpos = jnp.concatenate([jnp.arctan2(obs[2:4], obs[:2]), obs[4:6]])
    return qpos, jnp.concatenate([obs[6:8], jnp.zeros(2)])


def _pusher_obs(model: mujoco.MjModel, body: Body) -> jax.Array:
    places = [body.xpos[model.body(name).id] for name in ("tips_arm", "object", "goal")]
    return jnp.concatenate([body.qpos[:7], body.qvel[:7], *places])


def _pusher_names(model: mujoco.MjModel) -> tuple[str, ...]:
    joints = [model.joint(i).name for i in range(7)]
    places = [f"{what} {a} [m]" for what in ("tip", "object", "goal") for a in "xyz"]
    return (
        *(f"{joint} [rad]" for joint in joints),
        *(f"{joint} velocity [rad/s]" for joint in joints),
        *places,
    )


def _pusher_reward(
    model: mujoco.MjModel, before: Body, action: jax.Array, after: Body, period: float
) -> jax.Array:
    """-0.5 ‖object - tip‖ - ‖object - goal‖ - 0.1 ‖u‖²"""
    tip, thing, goal = (
        after.xpos[model.body(name).id] for name in ("tips_arm", "object", "goal")
    )
    near = _norm(thing - tip)
    return -0.5 * near - _norm(thing - goal) - 0.1 * _squared(action)


def _pusher_reset(
    model: mujoco.MjModel, key: jax.Array, factor: float
) -> tuple[Qpos, Qvel]:
    """The object is uniform in a rectangle, but at least 0.17 m from the goal."""
    place_key, qvel_key = jax.random.split(key)
    low, high = jnp.array([-0.3, -0.2]), jnp.array([0.0, 0.2])
    # The first of 64 draws that is far enough; 38 % of them are not.
    places = jax.random.uniform(place_key, (64, 2), jnp.float32, low, high)
    far = jnp.sum(places**2, axis=1) > 0.17**2
    rest = jnp.asarray(model.qpos0[:7], jnp.float32)
    qpos = jnp.concatenate([rest, places[jnp.argmax(far)], jnp.zeros(2)])
    return qpos, jnp.concatenate([_uniform(qvel_key, 7, 0.005 * factor), jnp.zeros(4)])


# --------------------------------------------------------------------- Swimmer, pendulums


def _swimmer_reward(
    model: mujoco.MjModel, before: Body, action: jax.Array, after: Body, period: float
) -> jax.Array:
    """Δx / Δt - 1e-4 ‖u‖²"""
    return (after.qpos[0] - before.qpos[0]) / period - 1e-4 * _squared(action)


def _shown(model: mujoco.MjModel, body: Body, *, hidden: int) -> jax.Array:
    """Positions but the first ones, and velocities."""
    return jnp.concatenate([body.qpos[hidden:], body.qvel])


def _pendulum_ended(body: Body) -> jax.Array:
    whole = jnp.concatenate([body.qpos, body.qvel])
    return ~jnp.isfinite(whole).all() | (jnp.abs(body.qpos[1]) > 0.2)


def _double_obs(model: mujoco.MjModel, body: Body) -> jax.Array:
    return jnp.concatenate(
        [
            body.qpos[:1],
            jnp.sin(body.qpos[1:]),
            jnp.cos(body.qpos[1:]),
            jnp.clip(body.qvel, -10.0, 10.0),
            jnp.clip(body.qfrc_constraint[:1], -10.0, 10.0),
        ]
    )


def _double_reward(
    model: mujoco.MjModel, before: Body, action: jax.Array, after: Body, period: float
) -> jax.Array:
    """-0.01 x² - (y - 2)² - 1e-3 ω₁² - 5e-3 ω₂², of the tip at (x, y)"""
    x, _, y = after.site_xpos[0]
    _, first, second = after.qvel
    return -0.01 * x**2 - (y - 2.0) ** 2 - 1e-3 * first**2 - 5e-3 * second**2


def _double_reset(
    model: mujoco.MjModel, key: jax.Array, factor: float
) -> tuple[Qpos, Qvel]:
    qpos_key, qvel_key = jax.random.split(key)
    qvel = 0.1 * factor * jax.random.normal(qvel_key, (model.nv,))
    return _uniform(qpos_key, model.nq, 0.1 * factor), qvel


def _double_recover(model: mujoco.MjModel, obs: jax.Array) -> tuple[Qpos, Qvel]:
    return jnp.concatenate([obs[:1], jnp.arctan2(obs[1:3], obs[3:5])]), obs[5:8]


TASKS = {
    "Humanoid": Task(
        "humanoid.xml",
        frame_skip=5,
        fields=("xipos", "cinert", "cvel", "qfrc_actuator", "cfrc_ext"),
        names=_humanoid_names,
        observe=_humanoid_obs,
        reward=_humanoid_reward,
        reset=functools.partial(_near_rest, noise=1e-2),
        alive=5.0,
        ended=lambda body: ~((1.0 < body.qpos[2]) & (body.qpos[2] < 2.0)),
        recover=functools.partial(_split, hidden=2),
    ),
    "Swimmer": Task(
        "swimmer.xml",
        frame_skip=4,
        fields=(),
        names=functools.partial(gym_robots.names, hidden=2),
        observe=functools.partial(_shown, hidden=2),
        reward=_swimmer_reward,
        reset=functools.partial(_near_rest, noise=0.1),
        recover=functools.partial(_split, hidden=2),
    ),
    "Reacher": Task(
        "reacher.xml",
        frame_skip=2,
        fields=("xpos",),
        names=lambda model: (
            *(f"{f} joint {i}" for f in ("cos", "sin") for i in (0, 1)),
            *("target x [m]", "target y [m]"),
            *("joint 0 velocity [rad/s]", "joint 1 velocity [rad/s]"),
            *("fingertip - target x [m]", "fingertip - target y [m]"),
        ),
        observe=_reacher_obs,
        reward=_reacher_reward,
        reset=_reacher_reset,
        length=50,
        recover=_reacher_recover,
    ),
    "Pusher": Task(
        "pusher_v5.xml",
        frame_skip=5,
        fields=("xpos",),
        names=_pusher_names,
        observe=_pusher_obs,
        reward=_pusher_reward,
        reset=_pusher_reset,
        length=100,
    ),
    "InvertedPendulum": Task(
        "inverted_pendulum.xml",
        frame_skip=2,
        fields=(),
        names=functools.partial(gym_robots.names, hidden=0),
        observe=functools.partial(_shown, hidden=0),
        reward=lambda *_: jnp.zeros(()),
        reset=functools.partial(_near_rest, noise=0.01),
        alive=1.0,
        ended=_pendulum_ended,
        recover=functools.partial(_split, hidden=0),
    ),
    "InvertedDoublePendulum": Task(
        "inverted_double_pendulum.xml",
        frame_skip=5,
        fields=("site_xpos", "qfrc_constraint"),
        names=lambda model: (
            "cart [m]",
            *(f"{f} hinge {i}" for f in ("sin", "cos") for i in (1, 2)),
            "cart velocity [m/s]",
            *(f"hinge {i} velocity [rad/s]" for i in (1, 2)),
            "constraint force on the cart [N]",
        ),
        observe=_double_obs,
        reward=_double_reward,
        reset=_double_reset,
        alive=10.0,
        ended=lambda body: body.site_xpos[0, 2] <= 1.0,
        recover=_double_recover,
    ),
}
