"""Gymnasium's locomotion tasks: "gym/Hopper", "gym/Walker2d", "gym/HalfCheetah", "gym/Ant".

The task is to move along x as fast as possible.

Observation: joint positions (m, rad) without the place on the ground, then velocities (m/s,
rad/s), which Hopper and Walker2d clip to ±10; of Ant, then contact torques (N m) and forces
(N) on each body, clipped to ±1. `spec.observation_names` lists the entries.
Action: one control in [-1, 1] for each motor, applied for the frame skip of the task.
Reward: Δx / Δt + healthy - control cost ‖u‖² - contact cost Σ clip(force, ±1)².
End: Hopper, Walker2d and Ant end where the torso leaves its healthy range. All episodes are
truncated after 1000 steps.

All of this is as in Gymnasium's version 5, and the robots are read from Gymnasium's
files. Demonstrations that were made there are therefore valid here.

The engine is MuJoCo in C, where all is computed as Gymnasium does, or MJX; see `engines`.
An observation holds positions and velocities, up to the clip, except the place on the
ground (x; of Ant x and y). Nothing depends on that place, so `recover` sets it to 0. The
prior is the task's physics.

Source: Gymnasium's documentation and definitions of Hopper-v5, Walker2d-v5, HalfCheetah-v5
and Ant-v5 (Towers et al. 2024, arXiv 2407.17032); MuJoCo, Todorov et al. 2012.
Departures of MJX: single precision, in which the solver never meets MuJoCo's tolerance of
1e-8; it stops after 8 iterations with 10 steps of line search in place of 100 with 50,
which is 3 times as fast and changes no digit that single precision has. Ant's speed is that
of its torso at the end of the step, where Gymnasium takes the torso from within the last
substep. In some steps in which Ant's feet meet the ground MJX itself departs from MuJoCo in
C, in double precision too: by up to 1.2 where the mean step is 14; Hopper, Walker2d and
HalfCheetah agree within 1e-3.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
from flax import struct

from planil_jax.base import (
    Dynamics,
    Environment,
    EnvSpec,
    EnvState,
    Transition,
    UsageError,
    did_you_mean,
)
from planil_jax.envs import engine_c, engines, gym_c, gym_robots
from planil_jax.envs.quiet import mjx

_INF = float("inf")
_ITERATIONS, _LINE_SEARCH = 8, 10  # of the solver


class Task(NamedTuple):
    """The numbers of one task, as Gymnasium's version 5 has them."""

    file: str
    frame_skip: int  # physics steps a control step
    control_cost: float
    healthy_reward: float = 0.0  # paid while healthy; 0: the task has no such notion
    z_range: tuple[float, float] = (-_INF, _INF)  # height of a healthy torso, metres
    angle_range: tuple[float, float] = (-_INF, _INF)  # pitch of a healthy torso, radians
    state_range: tuple[float, float] = (-_INF, _INF)  # all other entries, where healthy
    reset_noise: float = 0.1  # half width of positions, scale of velocities, at a reset
    normal_noise: bool = False  # whether velocities at a reset are normal, else uniform
    max_speed: float = _INF  # velocities in an observation are clipped to ± this
    contact_cost: float = 0.0
    hidden: int = 1  # the first positions, which the observation leaves out
    free: bool = False  # whether the torso is a free body


TASKS = {
    "Hopper": Task(
        "hopper.xml",
        frame_skip=4,
        control_cost=1e-3,
        healthy_reward=1.0,
        z_range=(0.7, _INF),
        angle_range=(-0.2, 0.2),
        state_range=(-100.0, 100.0),
        reset_noise=5e-3,
        max_speed=10.0,
    ),
    "Walker2d": Task(
        "walker2d_v5.xml",
        frame_skip=4,
        control_cost=1e-3,
        healthy_reward=1.0,
        z_range=(0.8, 2.0),
        angle_range=(-1.0, 1.0),
        reset_noise=5e-3,
        max_speed=10.0,
    ),
    "HalfCheetah": Task(
        "half_cheetah.xml", frame_skip=5, control_cost=0.1, normal_noise=True
    ),
    "Ant": Task(
        "ant.xml",
        frame_skip=5,
        control_cost=0.5,
        healthy_reward=1.0,
        z_range=(0.2, 1.0),
        normal_noise=True,
        contact_cost=5e-4,
        hidden=2,
        free=True,
    ),
}


@struct.dataclass
class Body:
    """The state of the robot on MJX; float32."""

    qpos: jax.Array  # [nq] metres and radians
    qvel: jax.Array  # [nv]
    warmstart: jax.Array  # [nv] accelerations from which the solver begins
    forces: jax.Array  # [nbody - 1, 6] contact torques and forces, clipped; or [0, 6]


def make(
    task: str,
    episode_length: int | None = None,
    mass: float = 1.0,
    friction: float = 1.0,
    gravity: float = 1.0,
    reset_noise: float = 1.0,
    contact_forces: bool = True,
    engine: str = "auto",
) -> Environment:
    """A task of TASKS, or of `gym_c`.

    Args:
      task: "Hopper", "Walker2d", "HalfCheetah" or "Ant"; or one of `gym_c.TASKS`, which
        have no contact_forces.
      episode_length: control steps; None: as many as Gymnasium has.
      mass, friction, gravity: factors of all masses and inertias, of all coefficients of
        friction, and of gravity.
      reset_noise: factor of the task's reset noise.
      contact_forces: of Ant only: whether its observation ends with the contact forces on
        each body, as in version 5 (105 entries), or leaves them out (27).
      engine: of the physics, see `envs.engines`.

    Raises:
      UsageError: there is no such task or engine.
      UserError: Gymnasium's files are not installed.
    """
    if task in gym_c.TASKS:
        if not contact_forces:
            raise UsageError(
                f"environment 'gym/{task}': contact_forces is an option of gym/Ant; leave "
                "it out."
            )
        return gym_c.make(
            task, episode_length, mass, friction, gravity, reset_noise, engine
        )
    if task not in TASKS:
        known = *TASKS, *gym_c.TASKS
        raise UsageError(
            f"there is no task 'gym/{task}'.{did_you_mean(task, known)} There are: "
            f"{', '.join(known)}."
        )
    episode_length = 1000 if episode_length is None else episode_length
    numbers = TASKS[task]
    model = gym_robots.load(task, numbers.file, mass, friction, gravity)
    engine = engines.resolve(f"gym/{task}", engine)
    body_at, advance = (_in_c if engine == "c" else _in_mjx)(model, numbers)
    shows_forces = contact_forces and numbers.contact_cost > 0
    period = float(model.opt.timestep) * numbers.frame_skip
    names = gym_robots.names(model, hidden=numbers.hidden)
    names += _force_names(model) if shows_forces else ()
    spec = EnvSpec(
        name=f"gym/{task}",
        observation_names=names,
        action_low=tuple(float(low) for low in model.actuator_ctrlrange[:, 0]),
        action_high=tuple(float(high) for high in model.actuator_ctrlrange[:, 1]),
        episode_length=episode_length,
        control_period=round(period, 9),
        terminates=bool(numbers.healthy_reward),
    )
    rest = jnp.asarray(model.qpos0, jnp.float32)
    noise = numbers.reset_noise * reset_noise

    def observe(body: Any) -> jax.Array:
        velocities = jnp.clip(body.qvel, -numbers.max_speed, numbers.max_speed)
        forces = _forces(body) if shows_forces else jnp.zeros((0,), jnp.float32)
        return jnp.concatenate([body.qpos[numbers.hidden :], velocities, forces.ravel()])

    def body_of(obs: jax.Array) -> Any:
        """The body that shows `obs`, at the origin of the ground."""
        size = model.nq - numbers.hidden
        qpos, qvel = obs[:size], obs[size : size + model.nv]
        origin = jnp.zeros((numbers.hidden,), jnp.float32)
        return body_at(jnp.concatenate([origin, qpos]), qvel)

    def recover(obs: jax.Array) -> EnvState:
        return EnvState(sim=body_of(obs), obs=obs, time=jnp.zeros((), jnp.int32))

    def reset(key: jax.Array) -> EnvState:
        position_key, velocity_key = jax.random.split(key)
        moved = jax.random.uniform(position_key, (model.nq,), jnp.float32, -noise, noise)
        if numbers.normal_noise:
            qvel = noise * jax.random.normal(velocity_key, (model.nv,), jnp.float32)
        else:
            qvel = jax.random.uniform(velocity_key, (model.nv,), jnp.float32, -noise, noise)
        body = body_at(rest + moved, qvel)
        return EnvState(sim=body, obs=observe(body), time=jnp.zeros((), jnp.int32))

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        body = advance(state.sim, action)
        next_state = EnvState(sim=body, obs=observe(body), time=state.time + 1)
        healthy = _healthy(body, numbers)
        speed = (_place(body, numbers) - _place(state.sim, numbers)) / period
        reward = speed + numbers.healthy_reward * healthy
        reward -= numbers.control_cost * jnp.sum(action**2)
        if numbers.contact_cost:
            reward -= numbers.contact_cost * jnp.sum(_forces(body) ** 2)
        transition = Transition(
            obs=state.obs,
            action=action,
            next_obs=next_state.obs,
            reward=reward.astype(jnp.float32),
            terminal=~healthy if numbers.healthy_reward else jnp.zeros((), bool),
            truncated=next_state.time >= episode_length,
        )
        return next_state, transition

    physics = Dynamics(
        init=lambda key: (),
        start=lambda params, state: state.sim,
        step=lambda params, body, action, key: advance(body, action),
        observe=lambda params, body: observe(body),
        recover=lambda params, obs: body_of(obs),
    )
    return Environment(spec, reset, step, prior=physics, recover=recover, engine=engine)


class _Physics(NamedTuple):
    """The robot's physics, on one of the engines."""

    start: Callable[[jax.Array, jax.Array], Any]  # (qpos [nq], qvel [nv]) -> body
    advance: Callable[[Any, jax.Array], Any]  # (body, action) -> after a control step


def _in_c(model: mujoco.MjModel, numbers: Task) -> _Physics:
    """MuJoCo in C. Computed fields are those that Gymnasium sees."""
    fields = ["qpos", "qvel"]
    fields += ["xpos"] if numbers.free else []
    fields += ["cfrc_ext"] if numbers.contact_cost else []
    skip = numbers.frame_skip
    physics = engine_c.make(numbers.file, model, skip, fields, forward=False)

    def start(qpos: jax.Array, qvel: jax.Array) -> engine_c.State:
        return physics.start(physics.home.replace(qpos=qpos, qvel=qvel))

    return _Physics(start, physics.step)


def _in_mjx(model: mujoco.MjModel, numbers: Task) -> _Physics:
    """MJX, in single precision and with a solver that stops early."""
    model.opt.iterations, model.opt.ls_iterations = _ITERATIONS, _LINE_SEARCH
    blank = _at_rest(model, numbers)
    return _Physics(
        lambda qpos, qvel: replace(blank, qpos=qpos, qvel=qvel), _physics(model, numbers)
    )


def _place(body: Any, numbers: Task) -> jax.Array:
    """Where the body is along x, metres."""
    if numbers.free and isinstance(body, engine_c.State):
        return body.xpos[1, 0]  # Gymnasium's: from within the last substep
    return body.qpos[0]


def _forces(body: Any) -> jax.Array:
    """Contact torques and forces on each body, clipped, `[nbody - 1, 6]`."""
    if isinstance(body, engine_c.State):
        return jnp.clip(body.cfrc_ext[1:], -1.0, 1.0)
    return body.forces


def _physics(model: mujoco.MjModel, numbers: Task) -> Callable[[Body, jax.Array], Body]:
    """(body, action) -> body after one control step."""
    mjx_model = mjx.put_model(model, impl="jax")
    blank = mjx.make_data(mjx_model)

    def advance(body: Body, action: jax.Array) -> Body:
        data = blank.replace(
            qpos=body.qpos,
            qvel=body.qvel,
            qacc_warmstart=body.warmstart,
            ctrl=action.astype(jnp.float32),
        )
        data = jax.lax.scan(
            lambda data, _: (mjx.step(mjx_model, data), None),
            data,
            None,
            numbers.frame_skip,
        )[0]
        forces = body.forces
        if numbers.contact_cost > 0:
            contact = mjx.rne_postconstraint(mjx_model, data)._impl.cfrc_ext[1:]
            forces = jnp.clip(contact, -1.0, 1.0)
        return Body(data.qpos, data.qvel, data.qacc_warmstart, forces)

    return advance


def _healthy(body: Any, numbers: Task) -> jax.Array:
    """Whether the robot is healthy; always true for a task without that notion."""
    qpos, qvel = body.qpos, body.qvel
    if numbers.free:
        low, high = numbers.z_range
        finite = jnp.isfinite(qpos).all() & jnp.isfinite(qvel).all()
        return finite & (low <= qpos[2]) & (qpos[2] <= high)
    others = jnp.concatenate([qpos[2:], qvel])
    inside = [
        (low < value) & (value < high)
        for value, (low, high) in (
            (qpos[1], numbers.z_range),
            (qpos[2], numbers.angle_range),
            (others, numbers.state_range),
        )
    ]
    return inside[0] & inside[1] & inside[2].all()


def _at_rest(model: mujoco.MjModel, numbers: Task) -> Body:
    """The robot in its initial pose, without velocity."""
    bodies = model.nbody - 1 if numbers.contact_cost > 0 else 0
    return Body(
        qpos=jnp.asarray(model.qpos0, jnp.float32),
        qvel=jnp.zeros((model.nv,), jnp.float32),
        warmstart=jnp.zeros((model.nv,), jnp.float32),
        forces=jnp.zeros((bodies, 6), jnp.float32),
    )


def _force_names(model: mujoco.MjModel) -> tuple[str, ...]:
    """A name with its unit for each contact torque and force on the bodies."""
    kinds = [f"torque {axis} [N m]" for axis in "xyz"]
    kinds += [f"force {axis} [N]" for axis in "xyz"]
    bodies = range(1, model.nbody)
    return tuple(f"body {body} contact {kind}" for body in bodies for kind in kinds)
