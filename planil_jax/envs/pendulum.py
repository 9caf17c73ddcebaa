"""Swing a pendulum up and hold it there, with too little torque to lift it directly.

    θ̈ = 3 g / (2 l) sin θ + 3 / (m l²) u,   |u| <= 2 N m,  |θ̇| <= 8 rad/s

θ is 0 upright. Observation: cos θ, sin θ, θ̇. Reward: -(θ² + 0.1 θ̇² + 0.001 u²), with θ
within [-π, π].

Source: the constants and reward of the classic gym task; semi-implicit Euler at 20 Hz.
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
    """Scalars [] each."""

    angle: jax.Array  # radians, 0 upright
    speed: jax.Array  # radians a second


def make(episode_length: int = 200) -> Environment:
    """The swing-up task; resets at any angle and up to 1 rad/s."""
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
        following = _state(Pendulum(angle + speed * PERIOD, speed), state.time + 1)
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
    """The state that shows as `obs` `[3]`, its angle within [-π, π]."""
    angle = jnp.arctan2(obs[1], obs[0])
    return EnvState(Pendulum(angle, obs[2]), obs, jnp.zeros((), jnp.int32))


def expert_cost(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
    """The task's own cost, of the observation `[3]` that an action led to."""
    del obs
    angle = jnp.arctan2(next_obs[1], next_obs[0])
    return angle**2 + 0.1 * next_obs[2] ** 2 + 0.001 * action[0] ** 2


def _state(sim: Pendulum, time: jax.Array) -> EnvState:
    obs = jnp.stack([jnp.cos(sim.angle), jnp.sin(sim.angle), sim.speed])
    return EnvState(sim=sim, obs=obs, time=time)
