"""The compiled program of one seed: collect, update, again; and evaluation.

    epoch: scan R rounds of
      collect: scan T steps of E environments: act | step | restart where an episode ended
      update:  agent.update                                       -> State, metrics

Restarts are drawn from a bank of reset states that is made once a rollout, because a reset
in every step is slow on some physics. A `Transition` is recorded before its restart, so
`next_obs` is the true successor. Nothing here knows which agent it runs.

A step is *not valid* where something became not finite in it: the action, the agent's
carry, the observation or state after it or, where the agent reads it, the reward. It ends
its episode as truncated, with its first observation in place of the second one, reward 0,
and 0 in place of what is not finite. The environment restarts. What an agent learns from
is `usable`: a copy of a valid step stands in its place.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

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

    `train/invalid_steps` is their number in the epoch; nan where a round had no valid step,
    so that it taught nothing. `train/reward` is nan where a reward is not finite.

    Args:
      first_round: `[]` int32, rounds done before; shared by all seeds of a sweep, so
        schedules stay out of the vmapped state.
    """

    def one_round(state, round_):
        collect_key, update_key, key = jax.random.split(state.key, 3)
        states, carry, rollout = collect(
            agent, env, config, state.agent.params, state.env, state.carry, collect_key
        )
        agent_state, metrics = agent.update(
            state.agent, usable(rollout), demos, update_key, round_
        )
        metrics = metrics | _collected(rollout, config)
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
    sound = jax.vmap(_all_finite)(bank.obs)  # a reset that is not finite starts nothing
    order = jnp.nonzero(sound, size=config.resets, fill_value=0)[0]
    count = jnp.maximum(jnp.sum(sound), 1)
    fresh = _repeat(agent.carry(), config.num_envs)

    def step(running, key):
        return _step(agent, env, params, running, key, True)

    def one_step(running, step_key):
        act_key, restart_key = jax.random.split(step_key)
        act_keys = jax.random.split(act_key, config.num_envs)
        (states, carry), transitions = jax.vmap(step)(running, act_keys)
        ended = transitions.terminal | transitions.truncated  # [E]
        chosen = jax.random.randint(restart_key, (config.num_envs,), 0, config.resets)
        restarts = jax.tree.map(lambda leaf: leaf[order[chosen % count]], bank)
        states = _where(ended, restarts, states)
        carry = _where(ended, fresh, carry)
        return (states, carry), transitions

    step_keys = jax.random.split(key, config.steps)
    (states, carry), rollout = jax.lax.scan(one_step, (states, carry), step_keys)
    return states, carry, rollout


def usable(rollout: Transition) -> Transition:
    """The rollout `[T, E]` that an agent learns from: without steps that are not valid.

    In place of each stands a copy of a valid one, which is an episode of its own: it is
    truncated, and so is the step before it, unless that is terminal. Without a valid step
    the numbers are finite and mean nothing. A reward that is not finite becomes 0: in a
    valid step nothing reads it. Where all is finite, the rollout is equal.
    """
    assert rollout.valid is not None  # `collect` writes it
    shape, count = rollout.valid.shape, rollout.valid.size
    valid, index = rollout.valid.reshape(-1), jnp.arange(count)
    others = jnp.nonzero(valid, size=count, fill_value=0)[0]  # the valid ones first
    other = others[index % jnp.maximum(jnp.sum(valid), 1)]
    rows = jnp.where(valid, index, other)

    def pick(leaf: jax.Array) -> jax.Array:
        return leaf.reshape(count, *leaf.shape[2:])[rows].reshape(leaf.shape)

    picked: Transition = jax.tree.map(pick, rollout)
    invalid = ~rollout.valid
    before = jnp.zeros(shape, bool).at[:-1].set(invalid[1:]) & ~picked.terminal
    return dataclasses.replace(
        picked,
        reward=jnp.where(jnp.isfinite(picked.reward), picked.reward, 0.0),
        truncated=picked.truncated | invalid | before,
        valid=rollout.valid,
    )


def evaluate(
    agent: Agent, env: Environment, params: Params, keys: jax.Array
) -> tuple[Transition, jax.Array]:
    """One whole episode a key, acting without exploration.

    Args:
      keys: `[B]`; the same keys give the same starts to any agent.

    Returns:
      The transitions `[B, L]` of `env.spec.episode_length` steps, and `alive` `[B, L]`
      bool: whether the step belongs to the episode, that is, it is valid and no end came
      before it. An episode that is cut short by a step that is not valid has that step, and
      no other, marked so.
    """

    def episode(key):
        reset_key, act_key = jax.random.split(key)

        def one_step(running, step_key):
            state, carry, alive = running
            after, transition = _step(agent, env, params, (state, carry), step_key, False)
            ended = transition.terminal | transition.truncated
            valid = transition.valid | ~alive
            transition = dataclasses.replace(transition, valid=valid)
            return (*after, alive & ~ended), (transition, alive & valid)

        start = (env.reset(reset_key), agent.carry(), jnp.ones((), bool))
        step_keys = jax.random.split(act_key, env.spec.episode_length)
        return jax.lax.scan(one_step, start, step_keys)[1]

    return jax.vmap(episode)(keys)


def returns(transitions: Transition, alive: jax.Array) -> jax.Array:
    """The returns `[B]` of what `evaluate` gives; nan of an episode that was cut short
    because a step was not finite, or that has a reward which is not."""
    assert transitions.valid is not None  # `evaluate` writes it
    totals = jnp.sum(jnp.where(alive, transitions.reward, 0.0), axis=1)
    return jnp.where(jnp.all(transitions.valid, axis=1), totals, jnp.nan)


def _step(
    agent: Agent,
    env: Environment,
    params: Params,
    before: tuple[EnvState, Any],
    key: jax.Array,
    explore: bool,
) -> tuple[tuple[EnvState, Any], Transition]:
    """One decision and its step: state and carry after it, and what is recorded of it.

    Args:
      before: state and carry, of one environment.
    """
    state, carry = before
    action, carry = agent.act(params, carry, state, key, explore)
    valid = _all_finite(action)
    action = jnp.where(jnp.isfinite(action), action, jnp.zeros_like(action))
    state, transition = env.step(state, action)
    after = state, carry
    valid &= _all_finite(transition.next_obs) & _stays_finite(before, after)
    if agent.reads_rewards:
        valid &= _all_finite(transition.reward)

    def known(x: jax.Array) -> jax.Array:
        return jnp.where(valid | jnp.isfinite(x), x, jnp.zeros_like(x))

    obs = known(transition.obs)
    transition = dataclasses.replace(
        transition,
        obs=obs,
        action=known(transition.action),
        next_obs=jnp.where(valid, transition.next_obs, obs),
        reward=jnp.where(valid, transition.reward, jnp.zeros_like(transition.reward)),
        terminal=transition.terminal & valid,
        truncated=transition.truncated | ~valid,
        valid=valid,
    )
    return after, transition


def _collected(rollout: Transition, config: Config) -> Metrics:
    """What is reported of a rollout: means which, over R rounds, are as `epoch` says."""
    assert rollout.valid is not None  # `collect` writes it
    count = jnp.sum(rollout.valid, dtype=jnp.float32)
    size = rollout.valid.size
    invalid = jnp.where(count > 0, config.rounds * (size - count), jnp.nan)
    # The rewards of steps that are not valid are 0.
    reward = jnp.mean(rollout.reward) * (size / jnp.maximum(count, 1))
    return {"train/reward": reward, "train/invalid_steps": invalid}


def _all_finite(x: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(x))


def _stays_finite(before: Any, after: Any) -> jax.Array:
    """Whether no entry became not finite, `[]`; one may have been so from the start."""
    stays = jnp.ones((), bool)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        if jnp.issubdtype(new.dtype, jnp.inexact):
            stays &= jnp.all(jnp.isfinite(new) | ~jnp.isfinite(old))
    return stays


def _repeat(carry, count: int):
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), carry)


def _where(condition: jax.Array, yes, no):
    """`yes` or `no`, chosen for each entry of the leading axis."""

    def choose(a, b):
        return jnp.where(condition.reshape(condition.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, yes, no)
