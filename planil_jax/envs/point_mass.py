"""Push a point in a plane to the origin: fast to compile, and its best controller is known.

    v' = v + dt u,   p' = p + dt v',   dt = 0.1 s

Observation: position p = (x, y) in metres; velocity v in m/s.
Action: acceleration u = (u_x, u_y), each in [-1, 1] m/s².
Reward: -(‖p‖² + 0.1 ‖u‖²), p before the step.
End: by time alone, after 50 steps.

While the bound of u is not reached, the best controller is linear (LQR).
"""

import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.base import Environment, EnvSpec, EnvState, Transition

PERIOD = 0.1  # seconds


@struct.dataclass
class Point:
    """The state; scalars [] each."""

    x: jax.Array  # metres
    y: jax.Array  # metres
    vx: jax.Array  # metres a second
    vy: jax.Array  # metres a second


def make(episode_length: int = 50, action_bound: float = 1.0) -> Environment:
    """The regulation task. Episodes start at rest, with x and y in [-1, 1] m.

    Args:
      episode_length: control steps of 0.1 s.
      action_bound: largest acceleration in each direction, metres a second².
    """
    spec = EnvSpec(
        name="point_mass",
        observation_names=("x [m]", "y [m]", "x velocity [m/s]", "y velocity [m/s]"),
        action_low=(-action_bound,) * 2,
        action_high=(action_bound,) * 2,
        episode_length=episode_length,
        control_period=PERIOD,
    )

    def reset(key: jax.Array) -> EnvState:
        x, y = jax.random.uniform(key, (2,), jnp.float32, -1.0, 1.0)
        zero = jnp.zeros_like(x)
        return _state(Point(x, y, zero, zero), jnp.zeros((), jnp.int32))

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        ux, uy = jnp.clip(action, -action_bound, action_bound)
        point = state.sim
        cost = point.x**2 + point.y**2 + 0.1 * (ux**2 + uy**2)
        vx, vy = point.vx + PERIOD * ux, point.vy + PERIOD * uy
        moved = Point(point.x + PERIOD * vx, point.y + PERIOD * vy, vx, vy)
        next_state = _state(moved, state.time + 1)
        transition = Transition(
            obs=state.obs,
            action=action,
            next_obs=next_state.obs,
            reward=-cost,
            terminal=jnp.zeros((), bool),
            truncated=next_state.time >= episode_length,
        )
        return next_state, transition

    return Environment(spec, reset, step, expert_cost=expert_cost, recover=recover)


def recover(obs: jax.Array) -> EnvState:
    """The state at time 0 that shows `obs` `[4]`."""
    return EnvState(Point(*obs), obs, jnp.zeros((), jnp.int32))


def expert_cost(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
    """The cost [] of the task, of the observation `[4]` after the action `[2]`."""
    del obs
    return jnp.sum(next_obs[:2] ** 2) + 0.1 * jnp.sum(action**2)


def _state(point: Point, time: jax.Array) -> EnvState:
    obs = jnp.stack([point.x, point.y, point.vx, point.vy])
    return EnvState(sim=point, obs=obs, time=time)
