"""Swing a pendulum up and keep it upright, with too little torque to lift it directly.

    θ̈ = 3 g / (2 l) sin θ + 3 / (m l²) u,   θ = 0 upright,   m = 1 kg,   l = 1 m

Observation: cos θ; sin θ; angular velocity θ̇ (rad/s, within ±8).
Action: torque u in [-2, 2] N m, held for 0.05 s.
Reward: -(θ² + 0.1 θ̇² + 0.001 u²) of the state before the step, θ in [-π, π].
End: by time alone, after 200 steps.

Source: constants and reward of Gymnasium's Pendulum-v1 (Towers et al. 2024, arXiv
2407.17032); semi-implicit Euler steps at 20 Hz.
"""

import math

import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.base import Environment, EnvSpec, EnvState, Transition

MAX_TORQUE = 2.0  # newton metres
MAX_SPEED = 8.0  # radians a second
GRAVITY = 10.0  # metres a second²
PERIOD = 0.05  # seconds


@struct.dataclass
class Pendulum:
    """The state; scalars [] each."""

    angle: jax.Array  # radians, 0 upright
    speed: jax.Array  # radians a second


def make(episode_length: int = 200) -> Environment:
    """The swing-up task. Episodes start at any angle, with up to 1 rad/s.

    Args:
      episode_length: control steps of 0.05 s.
    """
    spec = EnvSpec(
        name="pendulum",
        observation_names=("cos angle", "sin angle", "speed [rad/s]"),
        action_low=(-MAX_TORQUE,),
        action_high=(MAX_TORQUE,),
        episode_length=episode_length,
        control_period=PERIOD,
    )

    def reset(key: jax.Array) -> EnvState:
        angle_key, speed_key = jax.random.split(key)
        angle = jax.random.uniform(angle_key, (), jnp.float32, -math.pi, math.pi)
        speed = jax.random.uniform(speed_key, (), jnp.float32, -1.0, 1.0)
        return _state(Pendulum(angle, speed), jnp.zeros((), jnp.int32))

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        torque = jnp.clip(action[0], -MAX_TORQUE, MAX_TORQUE)
        angle, speed = state.sim.angle, state.sim.speed
        wrapped = (angle + math.pi) % (2 * math.pi) - math.pi
        cost = wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2
        acceleration = 1.5 * GRAVITY * jnp.sin(angle) + 3.0 * torque
        speed = jnp.clip(speed + acceleration * PERIOD, -MAX_SPEED, MAX_SPEED)
        next_state = _state(Pendulum(angle + speed * PERIOD, speed), state.time + 1)
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
    """The state at time 0 that shows `obs` `[3]`, with its angle in [-π, π]."""
    angle = jnp.arctan2(obs[1], obs[0])
    return EnvState(Pendulum(angle, obs[2]), obs, jnp.zeros((), jnp.int32))


def expert_cost(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
    """The cost [] of the task, of the observation `[3]` after the action `[1]`."""
    del obs
    angle = jnp.arctan2(next_obs[1], next_obs[0])
    return angle**2 + 0.1 * next_obs[2] ** 2 + 0.001 * action[0] ** 2


def _state(sim: Pendulum, time: jax.Array) -> EnvState:
    obs = jnp.stack([jnp.cos(sim.angle), jnp.sin(sim.angle), sim.speed])
    return EnvState(sim=sim, obs=obs, time=time)
