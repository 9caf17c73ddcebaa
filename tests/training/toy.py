"""The smallest agent and environment that use all that the loop offers."""

import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.base import (
    Agent,
    Demonstrations,
    Environment,
    EnvSpec,
    EnvState,
    Transition,
)
from planil_jax.training import loop, run

LOOP = loop.Config(num_envs=3, steps=4, rounds=2, resets=2)  # 24 steps an epoch
RUN = run.Config(
    total_steps=96, evaluate_every=1, evaluation_episodes=2, checkpoint_every=1
)
SPEC = EnvSpec("toy", ("x", "y"), (-1.0, -1.0), (1.0, 1.0), 5, 0.1)


@struct.dataclass
class State:
    params: jax.Array  # [2, 2]
    value: dict[str, jax.Array]
    history: jax.Array  # [C, E] of uint8
    noise_key: jax.Array


def environment(length: int = 5) -> Environment:
    """Walking to the origin of the plane within `length` steps."""

    def reset(key):
        obs = jax.random.uniform(key, (2,), jnp.float32, -1, 1)
        return EnvState(sim=(), obs=obs, time=jnp.zeros((), jnp.int32))

    def step(state, action):
        next_state = EnvState(sim=(), obs=state.obs + 0.1 * action, time=state.time + 1)
        reward = -jnp.sum(next_state.obs**2)
        truncated = next_state.time >= length
        transition = Transition(
            obs=state.obs,
            action=action,
            next_obs=next_state.obs,
            reward=reward,
            terminal=jnp.zeros((), bool),
            truncated=truncated,
        )
        return next_state, transition

    return Environment(SPEC, reset, step)


def agent(traces: list | None = None, weak: bool = False, rate=0.01) -> Agent:
    """Clones an expert at the origin, with noise; NaN when the demonstrations say so.

    Args:
      traces: grows by one whenever `update` is traced.
      weak: whether a leaf of the first State is weakly typed.
      rate: the learning rate; a number, or a traced one.
    """

    def init(key):
        params_key, noise_key = jax.random.split(key)
        mean = jnp.full((), 0.5) if weak else jnp.full((), 0.5, jnp.float32)
        return State(
            params=jax.random.uniform(params_key, (2, 2), jnp.float32),
            value={"mean": mean, "half": jnp.ones((3,), jnp.bfloat16)},
            history=jnp.zeros((7, LOOP.num_envs), jnp.uint8),
            noise_key=noise_key,
        )

    def act(params, carry, state, key, explore):
        noise = 0.1 * jax.random.uniform(key, (2,)) if explore else 0.0
        return jnp.tanh(params @ state.obs + carry) + noise, carry * jnp.float32(0.9)

    def update(state, rollout, demos, key, round_):
        if traces is not None:
            traces.append(1)
        use_key, noise_key = jax.random.split(state.noise_key)
        noise = jax.random.uniform(use_key, (2, 2)) - jax.random.uniform(key, (2, 2))
        target = jnp.mean(demos.obs[:, 1:]) - rollout.obs[0].T @ rollout.action[0]
        params = state.params + rate * (target - state.params + noise + round_)
        is_nan = (round_ >= demos.length[0]) & (state.params[0, 0] > demos.obs[0, 0, 0])
        mean = 0.9 * state.value["mean"] + 0.1 * jnp.mean(rollout.reward)
        mean = jnp.where(is_nan, jnp.nan, mean)
        history = jnp.roll(state.history, 1, 0).at[0].add(jnp.uint8(round_ + 1))
        value = {"mean": mean, "half": state.value["half"] * jnp.bfloat16(0.99)}
        return State(params, value, history, noise_key), {"toy/target": jnp.mean(target)}

    return Agent(init, lambda: jnp.zeros((2,), jnp.float32), act, update)


def demonstrations(nan_round: int = 1_000_000, nan_above: float = -1e9) -> Demonstrations:
    """An expert that stands still, and when the agent's `value` becomes NaN.

    These are data, so that a run with NaN is the same compiled program.

    Args:
      nan_round: the round in which `value` becomes NaN.
      nan_above: only of seeds whose first parameter is above this.
    """
    return Demonstrations(
        obs=jnp.zeros((1, 3, 2), jnp.float32).at[0, 0, 0].set(nan_above),
        actions=None,
        length=jnp.full((1,), nan_round, jnp.int32),
        terminal=jnp.zeros((1,), bool),
        observed=(0, 1),
    )


def train(
    count: int = 2,
    first: int = 0,
    config: run.Config = RUN,
    demos: Demonstrations | None = None,
    traces: list | None = None,
    **options,
):
    """`run.train` of the toy."""
    demos = demos or demonstrations()
    range_ = (first, count)
    return run.train(agent(traces), environment(), LOOP, config, demos, range_, **options)
