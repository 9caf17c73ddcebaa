"""The yardstick: MPPI on the navigation task, as one would write it for a single jit.

The same mathematics as `planners.mppi` with delta sampling, in its plainest form: the car
is one vector (x, y, heading, speed, yaw rate), `vmap` over samples of a `lax.scan` over the
horizon, one normal for every sample, step and action entry.
"""

import jax
import jax.numpy as jnp

LOW, HIGH = (0.0, -1.0), (1.0, 1.0)  # throttle, steer
GOAL = (10.0, 10.0)  # metres
PERIOD = 0.1  # seconds


def plan(
    obs: jax.Array,
    mean: jax.Array,
    key: jax.Array,
    samples: int,
    iterations: int,
    temperature: float,
) -> tuple[jax.Array, jax.Array]:
    """One decision at an observation `[7]`, from a mean `[H, 2]`: `(action [2], mean)`."""
    for sample_key in jax.random.split(key, iterations):
        noise = jax.random.normal(sample_key, (samples, *mean.shape))
        mean = improve(obs, mean, noise, temperature)
    return mean[0], jnp.concatenate([mean[1:], jnp.zeros_like(mean[:1])])


def improve(
    obs: jax.Array,
    mean: jax.Array,
    noise: jax.Array,
    temperature: float,
    std: float = 0.5,
    max_delta: float = 2.0,
) -> jax.Array:
    """The mean `[H, 2]` after one iteration with this noise, `[K, H, 2]`."""
    x, y, cos, sin, speed, _, yaw_rate = obs
    start = jnp.array([x, y, jnp.arctan2(sin, cos), speed, yaw_rate])
    drift = jnp.diff(mean, axis=0, prepend=mean[:1])
    deltas = jnp.clip(drift + std * noise, -max_delta, max_delta)
    plans = mean[0] + jnp.cumsum(deltas, axis=1)
    plans = jnp.clip(plans, jnp.array(LOW), jnp.array(HIGH))  # [K, H, 2]

    def total_cost(actions):
        def step(state, action):
            state = _drive(state, action)
            return state, _cost(state)

        return jnp.sum(jax.lax.scan(step, start, actions)[1])

    costs = jax.vmap(total_cost)(plans)  # [K]
    weights = jax.nn.softmax(-costs / temperature)
    return jnp.einsum("k,khu->hu", weights, plans)


def _drive(state: jax.Array, action: jax.Array) -> jax.Array:
    x, y, heading, _, _ = state
    speed = 3.0 * action[0]
    yaw_rate = speed * jnp.tan(0.4 * action[1]) / 0.325
    heading = heading + yaw_rate * PERIOD
    x = x + speed * jnp.cos(heading) * PERIOD
    y = y + speed * jnp.sin(heading) * PERIOD
    return jnp.array([x, y, heading, speed, yaw_rate])


def _cost(state: jax.Array) -> jax.Array:
    distance = jnp.sqrt((state[0] - GOAL[0]) ** 2 + (state[1] - GOAL[1]) ** 2 + 1e-12)
    return distance + 10.0 * jnp.abs(state[3] - 2.0)
