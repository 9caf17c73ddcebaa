"""The compiled program of one seed: collect, update, again; and evaluation.

    epoch: scan R rounds of
      collect: scan T steps of E environments: act | step | restart where an episode ended
      update:  agent.update                                       -> State, metrics

Restarts are drawn from a bank of reset states that is made once a rollout, because a reset
in every step is slow on some physics. A `Transition` is recorded before its restart, so
`next_obs` is the true successor. Nothing here knows which agent it runs.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from planil_jax.base import (
    Agent,
    Demonstrations,
    Environment,
    EnvState,
    Metrics,
    Params,
    TrainState,
    Transition,
)
from planil_jax.config import Count


@dataclass(frozen=True, kw_only=True)
class Config:
    num_envs: Count = 16  # E, environments stepped in parallel
    steps: Count = 100  # T, steps of each environment in a round
    rounds: Count = 2  # R, rounds in an epoch; metrics and checkpoints come once an epoch
    resets: Count = 32  # reset states drawn in a round, from which episodes restart

    @property
    def steps_per_epoch(self) -> int:
        """Environment steps of one seed in one epoch."""
        return self.num_envs * self.steps * self.rounds


def init(agent: Agent, env: Environment, config: Config, key: jax.Array) -> TrainState:
    """The state of one seed before training."""
    agent_key, reset_key, key = jax.random.split(key, 3)
    states = jax.vmap(env.reset)(jax.random.split(reset_key, config.num_envs))
    carry = _repeat(agent.carry(), config.num_envs)
    return TrainState(agent=agent.init(agent_key), env=states, carry=carry, key=key)


def epoch(
    agent: Agent,
    env: Environment,
    config: Config,
    demos: Demonstrations,
    first_round: jax.Array,
    state: TrainState,
) -> tuple[TrainState, Metrics]:
    """R rounds of training; metrics `[]` are means over the rounds.

    Args:
      first_round: `[]` int32, rounds done before; shared by all seeds of a sweep, so
        schedules stay out of the vmapped state.
    """

    def one_round(state, round_):
        collect_key, update_key, key = jax.random.split(state.key, 3)
        states, carry, rollout = collect(
            agent, env, config, state.agent.params, state.env, state.carry, collect_key
        )
        agent_state, metrics = agent.update(state.agent, rollout, demos, update_key, round_)
        metrics = metrics | {"train/reward": jnp.mean(rollout.reward)}
        return TrainState(agent=agent_state, env=states, carry=carry, key=key), metrics

    rounds = first_round + jnp.arange(config.rounds, dtype=jnp.int32)
    state, metrics = jax.lax.scan(one_round, state, rounds)
    return state, jax.tree.map(lambda values: jnp.mean(values, axis=0), metrics)


def collect(
    agent: Agent,
    env: Environment,
    config: Config,
    params: Params,
    states: EnvState,
    carry,
    key: jax.Array,
) -> tuple[EnvState, object, Transition]:
    """T steps of E environments: states and carries after, and a rollout `[T, E]`."""
    bank_key, key = jax.random.split(key)
    bank = jax.vmap(env.reset)(jax.random.split(bank_key, config.resets))
    fresh = _repeat(agent.carry(), config.num_envs)

    def act(carry, state, key):
        return agent.act(params, carry, state, key, True)

    def one_step(running, step_key):
        states, carry = running
        act_key, restart_key = jax.random.split(step_key)
        act_keys = jax.random.split(act_key, config.num_envs)
        actions, carry = jax.vmap(act)(carry, states, act_keys)
        states, transitions = jax.vmap(env.step)(states, actions)
        ended = transitions.terminal | transitions.truncated  # [E]
        chosen = jax.random.randint(restart_key, (config.num_envs,), 0, config.resets)
        restarts = jax.tree.map(lambda leaf: leaf[chosen], bank)
        states = _where(ended, restarts, states)
        carry = _where(ended, fresh, carry)
        return (states, carry), transitions

    step_keys = jax.random.split(key, config.steps)
    (states, carry), rollout = jax.lax.scan(one_step, (states, carry), step_keys)
    return states, carry, rollout


def evaluate(
    agent: Agent, env: Environment, params: Params, keys: jax.Array
) -> tuple[Transition, jax.Array]:
    """One whole episode a key, acting without exploration.

    Args:
      keys: `[B]`; the same keys give the same starts to any agent.

    Returns:
      The transitions `[B, L]` of `env.spec.episode_length` steps, and `alive` `[B, L]`
      bool: whether the step belongs to the episode, that is, no end came before it.
    """

    def episode(key):
        reset_key, act_key = jax.random.split(key)

        def one_step(running, step_key):
            state, carry, alive = running
            action, carry = agent.act(params, carry, state, step_key, False)
            state, transition = env.step(state, action)
            ended = transition.terminal | transition.truncated
            return (state, carry, alive & ~ended), (transition, alive)

        start = (env.reset(reset_key), agent.carry(), jnp.ones((), bool))
        step_keys = jax.random.split(act_key, env.spec.episode_length)
        return jax.lax.scan(one_step, start, step_keys)[1]

    return jax.vmap(episode)(keys)


def _repeat(carry, count: int):
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), carry)


def _where(condition: jax.Array, yes, no):
    """`yes` or `no`, chosen for each entry of the leading axis."""

    def choose(a, b):
        return jnp.where(condition.reshape(condition.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, yes, no)
