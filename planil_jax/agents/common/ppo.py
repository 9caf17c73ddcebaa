"""PPO: a policy improved on its own rollouts, for rewards that the caller brings.

In a round, with the policy π_old and the value V of the round before:

    1. act: a ~ π_old(·|s)
    2. scale the rewards by the deviation of their discounted sums
    3. advantages and λ-returns of the rollout                          eqs. 11 and 12
           δ_t = r_t + γ V(s_{t+1}) - V(s_t)
           A_t = δ_t + γ λ A_{t+1},   G_t = A_t + V(s_t)
    4. `epochs` passes over shuffled minibatches                        eqs. 7 and 9
           ρ = π(a|s) / π_old(a|s),   A of mean 0 and deviation 1 in a minibatch
           min_π  -E[min(ρ A, clip(ρ, 1 - ε, 1 + ε) A)] - c_H H(π)
           min_V  E[(V(s_t) - G_t)²]

Observations are normalised by the moments of earlier rounds, which stay within a round.

Source: Schulman et al. 2017, Proximal Policy Optimization, arXiv 1707.06347, Algorithm 1;
the advantages are those of Schulman et al. 2016, arXiv 1506.02438, eq. 16.
Departures: policy and value share no layer, so the value's coefficient c_1 is 1; actions
are squashed into their bounds, and the entropy is that of squashed samples. The paper
normalises nothing: `normalise_observations` and `scale_rewards` turn that on and off.
"""

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.agents.common import actions, learning
from planil_jax.base import (
    EnvSpec,
    EnvState,
    Fit,
    Metrics,
    Network,
    Params,
    Transition,
    UsageError,
)
from planil_jax.config import Count, NonNegative, Positive, Share
from planil_jax.losses import policy as losses
from planil_jax.losses import returns
from planil_jax.nets import fit, heads, mlp, normalise


@dataclass(frozen=True, kw_only=True)
class Config:
    policy: heads.Config = field(default_factory=heads.Config)  # network of the policy π
    value: mlp.Config = field(  # network of the value V
        default_factory=lambda: mlp.Config(activation="tanh")
    )
    discount: Share = 0.99  # discount factor γ of the returns, a control step
    gae_lambda: Share = 0.95  # λ of the advantages: 0 one step, 1 the whole rollout
    epochs: Count = 10  # passes over a rollout
    minibatches: Count = 32  # minibatches that a pass is cut into
    clip_eps: Positive = 0.2  # ε: the ratio ρ gains nothing outside of 1 ± ε
    entropy_coef: NonNegative = 0.0  # c_H, weight of the entropy bonus
    learning_rate: Positive = 3e-4  # learning rate of Adam
    lr_half_life: Count | None = None  # rounds in which the rate halves; None: it stays
    max_grad_norm: Positive = 0.5  # gradients are clipped to this global norm
    normalise_observations: bool = True  # scale observations by past moments
    scale_rewards: bool = True  # scale rewards: their discounted sums have deviation 1
    stats_cap: Positive = 1e5  # steps that the scale of rewards remembers; older ones fade


@struct.dataclass
class InferenceParams:
    """The part that acts and is exported."""

    policy: Params
    moments: normalise.Moments  # [O] of observations


@struct.dataclass
class State:
    params: InferenceParams
    networks: Fit  # of {policy, value}
    reward_sums: normalise.Moments  # [1] of discounted sums of rewards


@struct.dataclass
class Batch:
    """Steps that the policy learns from."""

    obs: jax.Array  # [B, O] normalised
    action: jax.Array  # [B, U]
    log_prob: jax.Array  # [B] log π_old(a|s)
    advantage: jax.Array  # [B] A
    target: jax.Array  # [B] G, which the value regresses on


class Components(NamedTuple):
    """What PPO is made of."""

    config: Config
    spec: EnvSpec
    policy: heads.Policy
    value: Network
    optimizer: fit.Optimizer  # of {policy, value}


def build(spec: EnvSpec, config: Config) -> Components:
    """The networks and the optimiser for an environment of this spec."""
    sizes = (spec.observation_size,)
    steps_a_round = config.epochs * config.minibatches
    half_life = (config.lr_half_life or 0) * steps_a_round
    rate = fit.exponential_decay(config.learning_rate, half_life)
    clip = optax.clip_by_global_norm(config.max_grad_norm)
    return Components(
        config=config,
        spec=spec,
        policy=heads.make(config.policy, sizes, spec.action_low, spec.action_high),
        value=mlp.make_scalar(config.value, sizes),
        optimizer=fit.make(optax.chain(clip, optax.adam(rate, eps=1e-5))),
    )


def init(components: Components, key: jax.Array) -> State:
    policy_key, value_key = jax.random.split(key)
    params = {
        "policy": components.policy.init(policy_key),
        "value": components.value.init(value_key),
    }
    moments = normalise.init(components.spec.observation_size)
    acting = InferenceParams(policy=params["policy"], moments=moments)
    return State(acting, components.optimizer.init(params), normalise.init(1))


# --------------------------------------------------------------------------------- acting


def distribution(
    components: Components, params: InferenceParams, obs: jax.Array
) -> heads.TanhNormal:
    """π(·|s) of observations `[..., O]`."""
    return components.policy.apply(params.policy, normalise.apply(params.moments, obs))


def act(
    components: Components,
    params: InferenceParams,
    carry,
    state: EnvState,
    key: jax.Array,
    explore: bool,
):
    """Step 1: a sample of π(·|s), or its mode where it does not explore."""
    chosen = distribution(components, params, state.obs)
    action = actions.from_distribution(components.policy, chosen, key, explore)
    return action, carry


def log_prob(
    components: Components, params: InferenceParams, obs: jax.Array, action: jax.Array
) -> jax.Array:
    """log π(a|s) of observations `[..., O]` and actions `[..., U]`, `[...]`."""
    return components.policy.log_prob(distribution(components, params, obs), action)


def value(
    components: Components,
    params: InferenceParams,
    value_params: Params,
    reward_scale: jax.Array,
    obs: jax.Array,
) -> jax.Array:
    """V of observations `[..., O]` in units of reward, `[...]`."""
    normalised = normalise.apply(params.moments, obs)
    return reward_scale * components.value.apply(value_params, normalised)


# ------------------------------------------------------------------------------- learning


def improve(
    components: Components,
    state: State,
    rollout: Transition,
    rewards: jax.Array,
    key: jax.Array,
) -> tuple[State, Metrics]:
    """Steps 2 to 4 on a rollout `[T, E]` with these rewards `[T, E]`, not its own.

    Raises:
      UsageError: the rollout has fewer steps than there are minibatches.
    """
    config = components.config
    sums = discounted_sums(rewards, _ended(rollout), config.discount)
    reward_sums = normalise.update(state.reward_sums, sums[..., None], config.stats_cap)
    state = dataclasses.replace(state, reward_sums=reward_sums)
    batch = learning.flatten(advantages(components, state, rollout, rewards))
    networks, metrics = fit_networks(components, state.networks, batch, key)
    moments = state.params.moments
    if config.normalise_observations:
        moments = normalise.update(moments, rollout.obs)
    acting = InferenceParams(policy=networks.params["policy"], moments=moments)
    variance = jnp.maximum(jnp.var(batch.target), 1e-8)  # targets may be all alike
    metrics["value/explained"] = 1 - jnp.var(batch.advantage) / variance
    return State(acting, networks, reward_sums), metrics


def discounted_sums(rewards: jax.Array, ended: jax.Array, discount: float) -> jax.Array:
    """R_t = r_t + γ R_{t-1} within each episode of `[T, E]`, `[T, E]`."""

    def add(running, step):
        reward, ended = step
        running = discount * running + reward
        return jnp.where(ended, 0.0, running), running

    return jax.lax.scan(add, jnp.zeros_like(rewards[0]), (rewards, ended))[1]


def reward_scale(components: Components, state: State) -> jax.Array:
    """Step 2: how much reward the value calls 1, `[]`."""
    if not components.config.scale_rewards:
        return jnp.ones(())
    return jnp.maximum(jnp.sqrt(state.reward_sums.variance[0]), 1e-3)


def advantages(
    components: Components, state: State, rollout: Transition, rewards: jax.Array
) -> Batch:
    """Step 3: what the policy and the value learn from, `[T, E]`. Eqs. 11 and 12."""
    config = components.config
    scaled_value = functools.partial(
        value, components, state.params, state.networks.params["value"], jnp.ones(())
    )
    over_envs = jax.vmap(returns.advantages, (1, 1, 1, 1, 1, None), 1)
    advantage, target = over_envs(
        rewards / reward_scale(components, state),
        scaled_value(rollout.obs),
        scaled_value(rollout.next_obs),
        config.discount * ~rollout.terminal,
        _ended(rollout),
        config.gae_lambda,
    )
    return Batch(
        obs=normalise.apply(state.params.moments, rollout.obs),
        action=rollout.action,
        log_prob=log_prob(components, state.params, rollout.obs, rollout.action),
        advantage=advantage,
        target=target,
    )


def fit_networks(
    components: Components, networks: Fit, batch: Batch, key: jax.Array
) -> tuple[Fit, Metrics]:
    """Step 4: passes over shuffled minibatches of `batch` `[T E]`. Algorithm 1.

    Raises:
      UsageError: there are fewer steps than minibatches.
    """
    config = components.config
    count = batch.target.shape[0]
    size = count // config.minibatches
    if size == 0:
        raise UsageError(
            f"PPO cannot cut a rollout into {config.minibatches} minibatches where it "
            f"has {count} steps: take fewer minibatches, or more environments or steps."
        )
    loss_fn = functools.partial(loss, components)

    def one_step(networks: Fit, inputs):
        rows, key = inputs
        minibatch = jax.tree.map(lambda leaf: leaf[rows], batch)
        return learning.gradient_step(
            components.optimizer, networks, loss_fn, minibatch, key
        )

    def one_pass(networks: Fit, key: jax.Array):
        order_key, key = jax.random.split(key)
        order = jax.random.permutation(order_key, count)[: size * config.minibatches]
        rows = order.reshape(config.minibatches, size)
        keys = jax.random.split(key, config.minibatches)
        return learning.scan_mean(one_step, networks, (rows, keys))

    return learning.scan_mean(one_pass, networks, jax.random.split(key, config.epochs))


def loss(
    components: Components, params: Params, batch: Batch, key: jax.Array
) -> tuple[jax.Array, Metrics]:
    """L = -L^CLIP - c_H H(π) + L^VF of a minibatch `[B]`, `[]`. Eqs. 7 and 9."""
    config = components.config
    chosen = components.policy.apply(params["policy"], batch.obs)
    log_probs = components.policy.log_prob(chosen, batch.action)
    advantage = batch.advantage - jnp.mean(batch.advantage)
    advantage = advantage / (jnp.std(advantage) + 1e-6)
    surrogate = losses.clipped_surrogate(
        log_probs, batch.log_prob, advantage, config.clip_eps
    )
    entropy = -jnp.mean(components.policy.sample(chosen, key)[1])
    errors = components.value.apply(params["value"], batch.obs) - batch.target
    value_loss = jnp.mean(errors**2)
    total = surrogate - config.entropy_coef * entropy + value_loss
    return total, {
        "policy/loss": surrogate,
        "policy/entropy": entropy,
        "policy/divergence": jnp.mean(batch.log_prob - log_probs),
        "value/loss": value_loss,
    }


def _ended(rollout: Transition) -> jax.Array:
    return rollout.terminal | rollout.truncated
