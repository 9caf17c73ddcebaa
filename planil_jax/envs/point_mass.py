"""A point pushed about a plane: compiles in a second, and its best controller is known.

    v' = v + dt u,   p' = p + dt v',   |u| <= 1 m/s²

Observation: position and velocity. Reward: -(‖p‖² + 0.1 ‖u‖²), so the best controller is
linear (LQR) while the bound on u is not met.
"""

import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.base import Environment, EnvSpec, EnvState, Transition

PERIOD = 0.1  # seconds


@struct.dataclass
class Point:
    """Scalars [] each."""

    x: jax.Array  # metres
    y: jax.Array  # metres
    vx: jax.Array  # metres a second
    vy: jax.Array  # metres a second


def make(episode_length: int = 50, action_bound: float = 1.0) -> Environment:
    """The regulation task; resets within 1 m of the origin in each direction, at rest.

    Args:
      episode_length: control steps of 0.1 s.
      action_bound: metres a second², of each entry.
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
        following = _state(moved, state.time + 1)
        transition = Transition(
            obs=state.obs,
            action=action,
            next_obs=following.obs,
            reward=-cost,
            terminal=jnp.zeros((), bool),
            truncated=following.time >= episode_length,
        )
        return following, transition

    return Environment(spec, reset, step, expert_cost=expert_cost, recover=recover)


def recover(obs: jax.Array) -> EnvState:
    """The state that shows as `obs` `[4]`."""
    return EnvState(Point(*obs), obs, jnp.zeros((), jnp.int32))


def expert_cost(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
    """The task's own cost of the state `[4]` arrived at and the action `[2]`."""
    del obs
    return jnp.sum(next_obs[:2] ** 2) + 0.1 * jnp.sum(action**2)


def _state(point: Point, time: jax.Array) -> EnvState:
    obs = jnp.stack([point.x, point.y, point.vx, point.vy])
    return EnvState(sim=point, obs=obs, time=time)
