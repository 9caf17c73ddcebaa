"""Wrappers: action repeat, masked observations, action delay, random-action noise, discrete
actions and observation noise.

A wrapper is a pure function Environment -> Environment. The state of the wrapped
environment holds the inner environment's whole `EnvState` and the wrapper's own memory:

    EnvState(sim=Wrapped(inner=EnvState(...), memory=key, queue or ()), obs, time)

`innermost` follows `sim.inner` to the state within all wrappers. A random wrapper folds its
own key out of the reset key. So an episode starts in the same state with and without it.

The prior of a wrapped environment starts from the inner state, with the observation that
the agent sees. It repeats actions, but it does not know of delays and random actions. For a
model that knows them use the wrapped environment itself (`models.simulator`). A
demonstrator acts on the observation that the agent sees, and does not know of them either.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.base import (
    Dynamics,
    Environment,
    EnvSpec,
    EnvState,
    Transition,
    UsageError,
)

_NOISE, _TREMBLE = 0x6E6F6973, 0x7472656D  # folded into the reset key


@struct.dataclass
class Wrapped:
    """The `sim` of a wrapped environment's state."""

    inner: EnvState  # the state of the inner environment
    memory: Any  # the wrapper's own state: a key, a queue of actions, or ()


def innermost(state: EnvState) -> EnvState:
    """The state of the unwrapped environment."""
    while isinstance(state.sim, Wrapped):
        state = state.sim.inner
    return state


def action_repeat(env: Environment, count: int) -> Environment:
    """One control step is `count` steps of the environment under the same action.

    The reward is the sum of theirs. If the episode ends in one of them, the following ones
    are skipped. The prior repeats its step too.

    Args:
      env: any environment.
      count: steps, >= 1.

    Raises:
      UsageError: count is not a whole number >= 1.
    """
    _require(env, "action_repeat", count, int(count) == count >= 1, "a whole number >= 1")
    length = -(-env.spec.episode_length // count)
    period = env.spec.control_period * count
    spec = env.spec._replace(episode_length=length, control_period=period)

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        def once(carry, _):
            inner, total = carry
            next_inner, transition = env.step(inner, action)
            ended = total.terminal | total.truncated
            reward = total.reward + transition.reward
            transition = replace(transition, obs=total.obs, reward=reward)
            return _where(ended, carry, (next_inner, transition)), None

        # Starting from zeros, the program holds the step once. It is slow to compile.
        shapes = jax.eval_shape(env.step, state.sim.inner, action)[1]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        start = state.sim.inner, replace(zeros, obs=state.obs)
        (inner, transition), _ = jax.lax.scan(once, start, None, count)
        return _state(inner, (), inner.obs, state.time + 1), transition

    reset = _wrapped_reset(env, lambda key: ())
    wrapped = _with_inner(env, _inner)._replace(spec=spec, reset=reset, step=step)
    if wrapped.prior is None:
        return wrapped
    repeated = _repeated(wrapped.prior.step, count)
    return wrapped._replace(prior=wrapped.prior._replace(step=repeated))


def mask(env: Environment, observed: Iterable[int]) -> Environment:
    """An environment that shows only some entries of the observation.

    `success` and `expert_cost` are functions of the whole observation. Unless all entries
    remain in their order, they become None, and the prior cannot start from an observation.
    The prior starts from the whole inner state, and its observations are masked too.

    Args:
      env: any environment.
      observed: indices of the entries, in the order wanted.

    Raises:
      UsageError: the indices are not different entries of the observation.
    """
    chosen = tuple(observed)
    size = env.spec.observation_size
    whole = chosen == tuple(range(size))
    valid = chosen and len(set(chosen)) == len(chosen) and set(chosen) <= set(range(size))
    text = "+".join(str(entry) for entry in chosen)
    _require(env, "observe", text, valid, f"different entries of 0 to {size - 1}")
    index = jnp.asarray(chosen, jnp.int32)
    names = tuple(env.spec.observation_names[entry] for entry in chosen)

    def reset(key: jax.Array) -> EnvState:
        inner = env.reset(key)
        return _state(inner, (), inner.obs[index], inner.time)

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        inner, transition = env.step(state.sim.inner, action)
        masked = replace(
            transition, obs=transition.obs[index], next_obs=transition.next_obs[index]
        )
        return _state(inner, (), inner.obs[index], inner.time), masked

    def as_observed(state: EnvState) -> EnvState:
        inner = state.sim.inner
        return replace(inner, obs=inner.obs.at[index].set(state.obs))

    prior = env.prior and _started(env.prior, as_observed)
    if prior is not None:
        observe = prior.observe
        prior = prior._replace(
            observe=lambda params, z: observe(params, z)[index],
            recover=prior.recover if whole else None,
        )
    return Environment(
        spec=env.spec._replace(observation_names=names),
        reset=reset,
        step=step,
        prior=prior,
        expert_cost=env.expert_cost if whole else None,
        success=env.success if whole else None,
        subtasks=env.subtasks,
    )


def action_delay(env: Environment, steps: int) -> Environment:
    """An action takes effect `steps` control steps after it is chosen.

    Before that, the action is 0, or the bound nearest to 0. A transition records the chosen
    action.

    Args:
      env: any environment.
      steps: control steps, >= 0.

    Raises:
      UsageError: steps is not a whole number >= 0.
    """
    _require(env, "action_delay", steps, int(steps) == steps >= 0, "a whole number >= 0")
    low, high = _bounds(env)
    idle = jnp.clip(jnp.zeros_like(low), low, high)

    def empty(key: jax.Array) -> jax.Array:
        del key
        return jnp.broadcast_to(idle, (steps, *idle.shape))  # [steps, U]

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        queue = jnp.concatenate([state.sim.memory, action[None].astype(jnp.float32)])
        inner, transition = env.step(state.sim.inner, queue[0].astype(action.dtype))
        next_state = _state(inner, queue[1:], inner.obs, inner.time)
        return next_state, replace(transition, action=action)

    return _with_inner(env, _inner)._replace(reset=_wrapped_reset(env, empty), step=step)


def tremble(env: Environment, probability: float) -> Environment:
    """Random-action noise: at random steps a uniform action replaces the chosen one.

    A transition records the chosen action, not the random one. An agent knows only what it
    chose.

    Args:
      env: any environment.
      probability: of a random action at each step, in [0, 1].

    Raises:
      UsageError: the probability is not in [0, 1].
    """
    _require(env, "tremble", probability, 0.0 <= probability <= 1.0, "in [0, 1]")
    low, high = _bounds(env)

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        key, replace_key, action_key = jax.random.split(state.sim.memory, 3)
        random = jax.random.uniform(action_key, action.shape, action.dtype, low, high)
        is_random = jax.random.bernoulli(replace_key, probability)
        inner, transition = env.step(state.sim.inner, jnp.where(is_random, random, action))
        next_state = _state(inner, key, inner.obs, inner.time)
        return next_state, replace(transition, action=action)

    reset = _wrapped_reset(env, lambda key: jax.random.fold_in(key, _TREMBLE))
    return _with_inner(env, _inner)._replace(reset=reset, step=step)


def choices(env: Environment, count: int) -> Environment:
    """Discrete actions: evenly spaced values of a continuous action.

        action of the environment = Σ_i a_i level_i,   a: the one-hot choice

    An action need not be one-hot: its largest entry is the choice, and the transition
    records the one-hot choice. The gradient is that of the sum above with respect to a, so
    physics stay differentiable. States are those of the environment, without a wrapper.

    Args:
      env: its action is one continuous number.
      count: choices, >= 2; the first is the lower bound and the last is the upper bound.

    Raises:
      UsageError: count is not a whole number >= 2, or the action is not one number.
    """
    _require(env, "choices", count, int(count) == count >= 2, "a whole number >= 2, or 0")
    if env.spec.discrete or env.spec.action_size != 1:
        raise UsageError(
            f"environment {env.spec.name!r}: option choices wants an action of 1 "
            f"continuous number, but here it is {env.spec.action_form}: leave it out."
        )
    levels, choose = choice_levels(env.spec, count), nearest(env.spec, count)
    prior, cost, demonstrator = env.prior, env.expert_cost, env.demonstrator

    def convert(action: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The one-hot choice `[count]`, and the action of the environment `[1]`."""
        one_hot = jax.nn.one_hot(jnp.argmax(action), count, dtype=jnp.float32)
        straight_through = one_hot + (action - jax.lax.stop_gradient(action))
        return one_hot, (straight_through @ levels)[None]

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        one_hot, continuous = convert(action)
        next_state, transition = env.step(state, continuous)
        return next_state, replace(transition, action=one_hot)

    def convert_prior(prior: Dynamics) -> Dynamics:
        terminal = prior.terminal
        return prior._replace(
            step=lambda params, z, a, key: prior.step(params, z, convert(a)[1], key),
            terminal=terminal
            and (lambda params, z, a, next_z: terminal(params, z, convert(a)[1], next_z)),
        )

    low, high = (0.0,) * count, (1.0,) * count
    return env._replace(
        spec=env.spec._replace(action_low=low, action_high=high, discrete=True),
        step=step,
        prior=prior and convert_prior(prior),
        expert_cost=cost and (lambda obs, a, next_obs: cost(obs, convert(a)[1], next_obs)),
        demonstrator=demonstrator and (lambda state: choose(demonstrator(state))),
    )


def nearest(spec: EnvSpec, count: int) -> Callable[[jax.Array], jax.Array]:
    """(action `[1]` of the spec) -> the one-hot choice `[count]` nearest to it."""
    levels = choice_levels(spec, count)

    def choose(action: jax.Array) -> jax.Array:
        index = jnp.argmin(jnp.abs(levels - action))
        return jax.nn.one_hot(index, count, dtype=jnp.float32)

    return choose


def choice_levels(spec: EnvSpec, count: int) -> jax.Array:
    """Evenly spaced actions from the lower bound to the upper bound, `[count]`."""
    return jnp.linspace(spec.action_low[0], spec.action_high[0], count, dtype=jnp.float32)


def observation_noise(env: Environment, std: float) -> Environment:
    """Gaussian noise on every entry of the observation.

    The noise is drawn once for each state, so the agent acts on the `next_obs` of the last
    transition. Reward and end are those of the true state. The prior starts from the noisy
    observation. A model made by `models.simulator` starts from the true state.

    Args:
      env: any environment.
      std: standard deviation, in the units of each entry, >= 0.

    Raises:
      UsageError: std is negative.
    """
    _require(env, "observation_noise", std, std >= 0, ">= 0")

    def add_noise(inner: EnvState, key: jax.Array) -> EnvState:
        key, noise_key = jax.random.split(key)
        noise = std * jax.random.normal(noise_key, inner.obs.shape, inner.obs.dtype)
        return _state(inner, key, inner.obs + noise, inner.time)

    def reset(key: jax.Array) -> EnvState:
        return add_noise(env.reset(key), jax.random.fold_in(key, _NOISE))

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        inner, transition = env.step(state.sim.inner, action)
        next_state = add_noise(inner, state.sim.memory)
        return next_state, replace(transition, obs=state.obs, next_obs=next_state.obs)

    def as_observed(state: EnvState) -> EnvState:
        return replace(state.sim.inner, obs=state.obs)

    return _with_inner(env, as_observed)._replace(reset=reset, step=step)


def _state(inner: EnvState, memory: Any, obs: jax.Array, time: jax.Array) -> EnvState:
    return EnvState(sim=Wrapped(inner, memory), obs=obs, time=time)


def _wrapped_reset(env: Environment, init_memory: Callable[[jax.Array], Any]):
    """A reset that shows the inner observation; the wrapper's memory is made of the key."""

    def reset(key: jax.Array) -> EnvState:
        inner = env.reset(key)
        return _state(inner, init_memory(key), inner.obs, inner.time)

    return reset


def _inner(state: EnvState) -> EnvState:
    return state.sim.inner


def _with_inner(env: Environment, unwrap: Callable[[EnvState], EnvState]) -> Environment:
    """The environment with prior and demonstrator that unwrap the states they are given.

    It cannot recover a state, because an observation lacks the wrapper's memory.
    """
    prior, demonstrator = env.prior, env.demonstrator
    return env._replace(
        prior=prior and _started(prior, unwrap),
        demonstrator=demonstrator and (lambda state: demonstrator(unwrap(state))),
        recover=None,
    )


def _started(prior: Dynamics, unwrap: Callable[[EnvState], EnvState]) -> Dynamics:
    """The prior with a `start` that unwraps the state."""
    return prior._replace(start=lambda params, state: prior.start(params, unwrap(state)))


def _repeated(step: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The step of a model, taken `count` times under one action."""

    def repeated(params, z, action: jax.Array, key: jax.Array):
        keys = jax.random.split(key, count)
        return jax.lax.scan(lambda z, k: (step(params, z, action, k), None), z, keys)[0]

    return repeated


def _where(condition: jax.Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _bounds(env: Environment) -> tuple[jax.Array, jax.Array]:
    low = jnp.asarray(env.spec.action_low, jnp.float32)
    return low, jnp.asarray(env.spec.action_high, jnp.float32)


def _require(env: Environment, option: str, value: Any, valid: Any, wanted: str) -> None:
    if not valid:
        raise UsageError(
            f"environment {env.spec.name!r}: option {option} must be {wanted}, "
            f"not {value!r}."
        )
