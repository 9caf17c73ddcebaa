"""Environments made of an environment: slower, less seen, noisier, later or shakier ones.

Each is a pure function Environment -> Environment. The wrapped environment's state holds
the inner one's whole `EnvState` and what the wrapper itself must remember:

    EnvState(sim=Wrapped(inner=EnvState(...), kept=key, queue or ()), obs, time)

so that the innermost state is found by following `sim.inner`. A disturbance draws from a
key of its own, folded out of the reset key, so that it does not move the starts: a seed
begins at the same place with it and without it.

What becomes of the planner's prior: it starts from the inner state, as the agent sees it.
It takes a repeated action as such, and knows nothing of delays and trembling hands; a model
that knows them is the wrapped environment's own physics. A demonstrator, too, acts on what
is seen and knows nothing of them.
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

_NOISE, _TREMBLE = 0x6E6F6973, 0x7472656D  # what is folded into the reset key


@struct.dataclass
class Wrapped:
    """The `sim` of a wrapped environment's state."""

    inner: EnvState  # of the environment within
    kept: Any  # what the wrapper remembers


def innermost(state: EnvState) -> EnvState:
    """The state of the environment within all wrappers."""
    while isinstance(state.sim, Wrapped):
        state = state.sim.inner
    return state


def action_repeat(env: Environment, count: int) -> Environment:
    """One control step is `count` steps of the environment under one action.

    Rewards add up. Where the episode ends within a step, the rest of it does not happen.
    The prior repeats its step as well.

    Args:
      env: any environment.
      count: steps, >= 1.
    """
    _require(env, "action_repeat", count, int(count) == count >= 1, "a whole number >= 1")
    length = -(-env.spec.episode_length // count)
    period = env.spec.control_period * count
    spec = env.spec._replace(episode_length=length, control_period=period)

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        def once(carry, _):
            now, told = carry
            following, transition = env.step(now, action)
            ended = told.terminal | told.truncated
            reward = told.reward + transition.reward
            transition = replace(transition, obs=told.obs, reward=reward)
            return _where(ended, carry, (following, transition)), None

        # From nothing, so that the step, dear to compile, is there once.
        told = jax.eval_shape(env.step, state.sim.inner, action)[1]
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), told)
        start = state.sim.inner, replace(nothing, obs=state.obs)
        (inner, told), _ = jax.lax.scan(once, start, None, count)
        return _state(inner, (), inner.obs, state.time + 1), told

    reset = _resetting(env, lambda key: ())
    wrapped = _within(env, _inner)._replace(spec=spec, reset=reset, step=step)
    if wrapped.prior is None:
        return wrapped
    repeated = _repeated(wrapped.prior.step, count)
    return wrapped._replace(prior=wrapped.prior._replace(step=repeated))


def mask(env: Environment, observed: Iterable[int]) -> Environment:
    """Only these entries of the observation remain.

    `success` and `expert_cost` are None in what comes of it, unless all entries remain in
    their order: both are functions of a whole observation, which is no longer told. The
    prior starts from the whole inner state, seen entries as they are seen, and shows the
    remaining entries alone; it cannot start from an observation.

    Args:
      env: any environment.
      entries: their indices in the environment's own observation, in the order wanted.
    """
    chosen = tuple(observed)
    size = env.spec.observation_size
    whole = chosen == tuple(range(size))
    valid = chosen and len(set(chosen)) == len(chosen) and set(chosen) <= set(range(size))
    told = "+".join(str(entry) for entry in chosen)
    _require(env, "observe", told, valid, f"different entries of 0 to {size - 1}")
    index = jnp.asarray(chosen, jnp.int32)
    names = tuple(env.spec.observation_names[entry] for entry in chosen)

    def reset(key: jax.Array) -> EnvState:
        inner = env.reset(key)
        return _state(inner, (), inner.obs[index], inner.time)

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        inner, told = env.step(state.sim.inner, action)
        obs = inner.obs[index]
        told = replace(told, obs=told.obs[index], next_obs=told.next_obs[index])
        return _state(inner, (), obs, inner.time), told

    def as_seen(state: EnvState) -> EnvState:
        inner = state.sim.inner
        return replace(inner, obs=inner.obs.at[index].set(state.obs))

    prior = env.prior and _starting(env.prior, as_seen)
    if prior is not None:
        show = prior.observe
        prior = prior._replace(
            observe=lambda params, z: show(params, z)[index],
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
    """An action acts `steps` control steps after it is chosen.

    Until the first one arrives the action is 0, or the bound that is nearest to it. The
    transition records the action that was chosen.
    """
    _require(env, "action_delay", steps, int(steps) == steps >= 0, "a whole number >= 0")
    low, high = _bounds(env)
    idle = jnp.clip(jnp.zeros_like(low), low, high)

    def empty(key: jax.Array) -> jax.Array:
        del key
        return jnp.broadcast_to(idle, (steps, *idle.shape))  # [steps, U]

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        queue = jnp.concatenate([state.sim.kept, action[None].astype(jnp.float32)])
        inner, told = env.step(state.sim.inner, queue[0].astype(action.dtype))
        return _state(inner, queue[1:], inner.obs, inner.time), replace(told, action=action)

    return _within(env, _inner)._replace(reset=_resetting(env, empty), step=step)


def tremble(env: Environment, probability: float) -> Environment:
    """A trembling hand: now and then a random action within the bounds is done instead.

    The transition records the action that was chosen, not the one that was done: an agent
    knows its intention, and an imitator must not be told the accident.

    Args:
      env: any environment with finite action bounds.
      probability: of a random action at each step, in [0, 1].
    """
    _require(env, "tremble", probability, 0.0 <= probability <= 1.0, "in [0, 1]")
    low, high = _bounds(env)

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        key, whether_key, which_key = jax.random.split(state.sim.kept, 3)
        random = jax.random.uniform(which_key, action.shape, action.dtype, low, high)
        slips = jax.random.bernoulli(whether_key, probability)
        inner, told = env.step(state.sim.inner, jnp.where(slips, random, action))
        return _state(inner, key, inner.obs, inner.time), replace(told, action=action)

    reset = _resetting(env, lambda key: jax.random.fold_in(key, _TREMBLE))
    return _within(env, _inner)._replace(reset=reset, step=step)


def choices(env: Environment, count: int) -> Environment:
    """A discrete environment, whose actions are evenly spaced ones of another.

        action of the environment = Σ_i a_i level_i,   a the one-hot of the choice

    What is given need not be one-hot: its largest entry is the choice, and the transition
    records its one-hot. The slope is that of the sum above, as if the choice were what was
    given: physics stay differentiable. A state is one of the environment, unwrapped.

    Args:
      env: its actions are one bounded number.
      count: choices, >= 2; the first is the lower bound and the last the upper one.
    """
    _require(env, "choices", count, int(count) == count >= 2, "a whole number >= 2, or 0")
    if env.spec.discrete or env.spec.action_size != 1:
        raise UsageError(
            f"environment {env.spec.name!r}: option choices wants an action of 1 "
            f"continuous number, but here it is {env.spec.action_form}: leave it out."
        )
    levels, choose = choice_levels(env.spec, count), nearest(env.spec, count)
    prior, cost, demonstrator = env.prior, env.expert_cost, env.demonstrator

    def chosen(action: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The one-hot `[count]`, and what it is in the environment, `[1]`."""
        one_hot = jax.nn.one_hot(jnp.argmax(action), count, dtype=jnp.float32)
        sloped = one_hot + (action - jax.lax.stop_gradient(action))
        return one_hot, (sloped @ levels)[None]

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        one_hot, inner = chosen(action)
        following, told = env.step(state, inner)
        return following, replace(told, action=one_hot)

    def predict(params, z, action: jax.Array, key: jax.Array):
        assert prior is not None
        return prior.step(params, z, chosen(action)[1], key)

    low, high = (0.0,) * count, (1.0,) * count
    return env._replace(
        spec=env.spec._replace(action_low=low, action_high=high, discrete=True),
        step=step,
        prior=prior and prior._replace(step=predict),
        expert_cost=cost and (lambda obs, a, then: cost(obs, chosen(a)[1], then)),
        demonstrator=demonstrator and (lambda state: choose(demonstrator(state))),
    )


def nearest(spec: EnvSpec, count: int) -> Callable[[jax.Array], jax.Array]:
    """The one-hot `[count]` of the choice nearest to an action `[1]` of this spec."""
    levels = choice_levels(spec, count)

    def choose(action: jax.Array) -> jax.Array:
        index = jnp.argmin(jnp.abs(levels - action))
        return jax.nn.one_hot(index, count, dtype=jnp.float32)

    return choose


def choice_levels(spec: EnvSpec, count: int) -> jax.Array:
    """Evenly spaced actions between the bounds of one number, `[count]`."""
    return jnp.linspace(spec.action_low[0], spec.action_high[0], count, dtype=jnp.float32)


def observation_noise(env: Environment, std: float) -> Environment:
    """Gaussian noise of this standard deviation on every entry of the observation.

    Drawn once a state: a transition's `next_obs` is the very observation that the agent
    acts on next. Reward and end are of the true state. The prior starts from the noisy
    observation, as the agent does; the environment's own physics start from the truth.

    Args:
      env: any environment.
      std: in the units of each entry, >= 0.
    """
    _require(env, "observation_noise", std, std >= 0, ">= 0")

    def shown(inner: EnvState, key: jax.Array) -> EnvState:
        key, noise_key = jax.random.split(key)
        noise = std * jax.random.normal(noise_key, inner.obs.shape, inner.obs.dtype)
        return _state(inner, key, inner.obs + noise, inner.time)

    def reset(key: jax.Array) -> EnvState:
        return shown(env.reset(key), jax.random.fold_in(key, _NOISE))

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        inner, told = env.step(state.sim.inner, action)
        following = shown(inner, state.sim.kept)
        return following, replace(told, obs=state.obs, next_obs=following.obs)

    def as_seen(state: EnvState) -> EnvState:
        return replace(state.sim.inner, obs=state.obs)

    return _within(env, as_seen)._replace(reset=reset, step=step)


def _state(inner: EnvState, kept: Any, obs: jax.Array, time: jax.Array) -> EnvState:
    return EnvState(sim=Wrapped(inner, kept), obs=obs, time=time)


def _resetting(env: Environment, keep: Callable[[jax.Array], Any]):
    """A reset that shows the inner observation and keeps `keep(key)`."""

    def reset(key: jax.Array) -> EnvState:
        inner = env.reset(key)
        return _state(inner, keep(key), inner.obs, inner.time)

    return reset


def _inner(state: EnvState) -> EnvState:
    return state.sim.inner


def _within(env: Environment, unwrap: Callable[[EnvState], EnvState]) -> Environment:
    """The environment whose prior and demonstrator look into a wrapped state.

    An observation alone does not tell what a wrapper remembers.
    """
    prior, demonstrator = env.prior, env.demonstrator
    return env._replace(
        prior=prior and _starting(prior, unwrap),
        demonstrator=demonstrator and (lambda state: demonstrator(unwrap(state))),
        recover=None,
    )


def _starting(prior: Dynamics, unwrap: Callable[[EnvState], EnvState]) -> Dynamics:
    """The prior, started from what `unwrap` finds within a wrapped state."""
    return prior._replace(start=lambda params, state: prior.start(params, unwrap(state)))


def _repeated(step: Callable[..., Any], count: int) -> Callable[..., Any]:
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
