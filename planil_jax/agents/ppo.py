"""PPO: a policy improved on its own rollouts, for the task's reward or a learned one.

In a round, with rewards r_t in units of the deviation of their discounted sums:

    1. act: a ~ π(·|s), observations normalised by what was seen in earlier rounds;
    2. advantages A_t and λ-returns G_t of the rollout, by the value as it was;
    3. epochs over shuffled minibatches:
           min_π  clipped surrogate of A, normalised, - c_H H(π)
           min_V  (V(s_t) - G_t)²

An *engine*: `make` is the agent of the task's reward, `engine` is for agents that bring
rewards of their own.

Source: Schulman et al. 2017, Proximal Policy Optimization, arXiv 1707.06347.
Departures: policy and value share no layer; the value's loss is not clipped; actions are
squashed into their bounds, and the entropy is that of squashed samples.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.base import (
    Agent,
    EnvSpec,
    EnvState,
    Fit,
    Metrics,
    Needs,
    Params,
    Task,
    Transition,
    UsageError,
)
from planil_jax.losses import policy as losses
from planil_jax.losses import returns
from planil_jax.nets import fit, heads, mlp, normalise


@dataclass(frozen=True, kw_only=True)
class Config:
    policy: heads.Config = field(default_factory=heads.Config)
    value: mlp.Config = field(default_factory=lambda: mlp.Config(activation="tanh"))
    discount: float = 0.99  # γ
    gae_lambda: float = 0.95  # λ
    epochs: int = 10  # passes over a rollout
    minibatches: int = 32  # that a pass is cut into
    clip_eps: float = 0.2  # ε
    entropy_coef: float = 0.0  # c_H
    learning_rate: float = 3e-4  # Adam
    lr_half_life: int = 0  # rounds in which the rate halves; 0: it stays
    max_grad_norm: float = 0.5
    normalise_observations: bool = True
    scale_rewards: bool = True
    stats_cap: float = 1e5  # steps by which the scale of rewards is known; older ones fade


NEEDS = Needs(demonstrations=False)


@struct.dataclass
class InferenceParams:
    """The part that acts and is exported."""

    policy: Params
    moments: normalise.Moments  # of observations


@struct.dataclass
class State:
    params: InferenceParams
    learner: Fit  # of {policy, value}
    sums: normalise.Moments  # [1], of discounted sums of rewards


class Engine(NamedTuple):
    """What learns a policy, whoever gives the rewards."""

    init: Callable[[jax.Array], State]  # (key) -> state
    # (params, carry, EnvState, key, explore) -> (action [U], carry)
    act: Callable[..., tuple[jax.Array, tuple]]
    # (params, obs [..., O], actions [..., U]) -> log-densities [...]
    log_prob: Callable[[InferenceParams, jax.Array, jax.Array], jax.Array]
    # (acting, value's params, unit [], obs [..., O]) -> [...], in units of reward
    value: Callable[..., jax.Array]
    unit: Callable[[State], jax.Array]  # how much reward the value calls 1, []
    # (state, rollout [T, E], rewards [T, E], key) -> (state, metrics); UsageError where
    # the rollout has fewer steps than there are minibatches
    improve: Callable[..., tuple[State, Metrics]]


def make(task: Task, config: Config) -> Agent:
    """PPO for the task's own reward: no imitator; demonstrations are not looked at."""
    ppo = engine(task.spec, config)

    def update(state: State, rollout: Transition, demos, key: jax.Array, round_):
        del demos, round_
        return ppo.improve(state, rollout, rollout.reward, key)

    return Agent(init=ppo.init, carry=lambda: (), act=ppo.act, update=update)


def engine(spec: EnvSpec, config: Config) -> Engine:
    """PPO for rewards that the caller brings."""
    sizes = (spec.observation_size,)
    policy = heads.make(config.policy, sizes, spec.action_low, spec.action_high)
    value_net = mlp.make_scalar(config.value, sizes)
    steps_a_round = config.epochs * config.minibatches
    rate = fit.exponential_decay(config.learning_rate, config.lr_half_life * steps_a_round)
    fitter = fit.make(
        optax.chain(
            optax.clip_by_global_norm(config.max_grad_norm), optax.adam(rate, eps=1e-5)
        )
    )

    def init(key: jax.Array) -> State:
        policy_key, value_key = jax.random.split(key)
        params = {"policy": policy.init(policy_key), "value": value_net.init(value_key)}
        moments = normalise.init(spec.observation_size)
        acting = InferenceParams(policy=params["policy"], moments=moments)
        return State(acting, fitter.init(params), normalise.init(1))

    def distribution(params: InferenceParams, obs: jax.Array) -> heads.TanhNormal:
        return policy.apply(params.policy, normalise.apply(params.moments, obs))

    def act(params: InferenceParams, carry, state: EnvState, key: jax.Array, explore: bool):
        chosen = distribution(params, state.obs)
        action = policy.sample(chosen, key)[0] if explore else policy.mode(chosen)
        return action, carry

    def log_prob(params: InferenceParams, obs: jax.Array, actions: jax.Array) -> jax.Array:
        return policy.log_prob(distribution(params, obs), actions)

    def value(
        params: InferenceParams, value_params: Params, unit: jax.Array, obs: jax.Array
    ):
        return unit * value_net.apply(value_params, normalise.apply(params.moments, obs))

    def unit(state: State) -> jax.Array:
        """How much reward the value calls 1, `[]`."""
        deviation = jnp.sqrt(state.sums.variance[0])
        return jnp.maximum(deviation, 1e-3) if config.scale_rewards else jnp.ones(())

    def improve(
        state: State, rollout: Transition, rewards: jax.Array, key: jax.Array
    ) -> tuple[State, Metrics]:
        ends = rollout.terminal | rollout.truncated  # [T, E]
        sums = discounted_sums(rewards, ends)
        state = dataclasses.replace(
            state, sums=normalise.update(state.sums, sums, config.stats_cap)
        )
        unit_value = functools.partial(
            value, state.params, state.learner.params["value"], jnp.ones(())
        )
        values = unit_value(rollout.obs)  # [T, E]
        advantages, targets = jax.vmap(returns.advantages, (1, 1, 1, 1, 1, None), 1)(
            rewards / unit(state),
            values,
            unit_value(rollout.next_obs),
            config.discount * ~rollout.terminal,
            ends,
            config.gae_lambda,
        )
        steps = {
            "obs": normalise.apply(state.params.moments, rollout.obs),
            "action": rollout.action,
            "log_prob": log_prob(state.params, rollout.obs, rollout.action),
            "advantage": advantages,
            "target": targets,
        }
        steps = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), steps)
        learner, metrics = fit_steps(state.learner, steps, key)
        moments = state.params.moments
        if config.normalise_observations:
            moments = normalise.update(moments, rollout.obs)
        acting = InferenceParams(policy=learner.params["policy"], moments=moments)
        spread = jnp.maximum(jnp.var(targets), 1e-8)  # targets may be all alike
        metrics["value/explained"] = 1 - jnp.var(targets - values) / spread
        return State(acting, learner, state.sums), metrics

    def discounted_sums(rewards: jax.Array, ends: jax.Array) -> jax.Array:
        """Rewards so far of each step's episode, discounted by age, `[T, E, 1]`."""

        def add(so_far, step):
            reward, ended = step
            so_far = config.discount * so_far + reward
            return jnp.where(ended, 0.0, so_far), so_far

        return jax.lax.scan(add, jnp.zeros_like(rewards[0]), (rewards, ends))[1][..., None]

    def fit_steps(learner: Fit, steps, key: jax.Array) -> tuple[Fit, Metrics]:
        count = steps["target"].shape[0]
        size = count // config.minibatches
        if size == 0:
            raise UsageError(
                f"PPO cannot cut a rollout into {config.minibatches} minibatches where it "
                f"has {count} steps: take fewer minibatches, or more environments or steps."
            )

        def one_pass(learner: Fit, key: jax.Array):
            order_key, key = jax.random.split(key)
            order = jax.random.permutation(order_key, count)[: size * config.minibatches]
            rows = order.reshape(config.minibatches, size)
            keys = jax.random.split(key, config.minibatches)
            return jax.lax.scan(one_step, learner, (rows, keys))

        def one_step(learner: Fit, inputs):
            rows, key = inputs
            batch = jax.tree.map(lambda leaf: leaf[rows], steps)
            gradients, metrics = jax.grad(loss_fn, has_aux=True)(learner.params, batch, key)
            return fitter.step(learner, gradients), metrics

        learner, metrics = jax.lax.scan(
            one_pass, learner, jax.random.split(key, config.epochs)
        )
        return learner, jax.tree.map(jnp.mean, metrics)

    def loss_fn(params: Params, batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        chosen = policy.apply(params["policy"], batch["obs"])
        log_probs = policy.log_prob(chosen, batch["action"])
        advantages = batch["advantage"] - jnp.mean(batch["advantage"])
        advantages = advantages / (jnp.std(advantages) + 1e-6)
        surrogate = losses.clipped_surrogate(
            log_probs, batch["log_prob"], advantages, config.clip_eps
        )
        entropy = -jnp.mean(policy.sample(chosen, key)[1])
        errors = value_net.apply(params["value"], batch["obs"]) - batch["target"]
        value_loss = jnp.mean(errors**2)
        loss = surrogate - config.entropy_coef * entropy + value_loss
        return loss, {
            "policy/loss": surrogate,
            "policy/entropy": entropy,
            "policy/divergence": jnp.mean(batch["log_prob"] - log_probs),
            "value/loss": value_loss,
        }

    return Engine(init, act, log_prob, value, unit, improve)
