"""SAC: a soft actor-critic on a replay, for the task's reward.

In a round the rollout enters the replay. Then, in each of `gradient_steps` steps, on a
batch of it, with ã ~ π(·|s) and a' ~ π(·|s'):

    1. targets                                                          eqs. 3 and 5
           y = r + γ (1 - terminal) [min_i Q̄_i(s', a') - α log π(a'|s')]
    2. critics: min_Q  E[Σ_i (Q_i(s, a) - y)²]                          eq. 5
    3. policy: min_π  E[α log π(ã|s) - min_i Q_i(s, ã)]                 eq. 7
    4. temperature: min_α  -α E[log π(ã|s) + H̄],   H̄ = -U               eq. 18
    5. target critics: Q̄ ← Q̄ + τ (Q - Q̄)                                Algorithm 1

It acts by a ~ π(·|s) while it explores, and else by the mode. Demonstrations are ignored.

Source: Haarnoja et al. 2018, Soft Actor-Critic Algorithms and Applications,
arXiv 1812.05905.
Departures: eq. 5 has a factor of 1/2; a round of steps and then a round of gradient steps,
where the paper's alternate; `num_critics`, where the paper has two.
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
from planil_jax.base import Agent, Fit, Metrics, Needs, Network, Params, Task, Transition
from planil_jax.config import Count, Positive, Share
from planil_jax.data import replay
from planil_jax.losses import policy as losses
from planil_jax.nets import fit, heads, mlp


@dataclass(frozen=True, kw_only=True)
class Config:
    policy: heads.Config = field(  # network of the policy π
        default_factory=lambda: heads.Config(
            network=mlp.Config(hidden=(128, 128)), std=1.0, std_of_state=True
        )
    )
    critic: mlp.Config = field(  # network of each critic Q_i
        default_factory=lambda: mlp.Config(hidden=(128, 128))
    )
    num_critics: Count = 2  # critics Q_i, of which the least counts
    discount: Share = 0.99  # discount factor γ of the returns, a control step
    gradient_steps: Count = 200  # gradient steps a round
    batch: Count = 128  # steps of the replay in a gradient step
    capacity: Count = 20_000  # steps of each environment that the replay keeps
    learning_rate: Positive = 1e-3  # learning rate of Adam: policy, critics, temperature
    target_rate: Share = 0.005  # τ, share of the critics that enters their targets a step
    temperature: Positive = 0.2  # α at first: reward that a nat of entropy is worth
    learn_temperature: bool = True  # whether α is steered to an entropy of -U nats


NEEDS = Needs(demonstrations=False)


@struct.dataclass
class State:
    params: Params  # the policy's
    policy: Fit
    critics: Fit  # leaves [M, ...], Q
    target: Params  # leaves [M, ...], Q̄
    temperature: Fit  # of log α
    replay: replay.Replay  # of a `Batch`


@struct.dataclass
class Batch:
    """Steps as the replay holds them."""

    obs: jax.Array  # [B, O]
    action: jax.Array  # [B, U] in the environment's units
    reward: jax.Array  # [B]
    next_obs: jax.Array  # [B, O]
    terminal: jax.Array  # [B] bool


class Components(NamedTuple):
    """What SAC is made of."""

    config: Config
    task: Task
    policy: heads.Policy
    critic: Network  # of one Q_i
    optimizer: fit.Optimizer  # of policy, critics and temperature, each with a state
    scaling: actions.Scaling


def make(task: Task, config: Config) -> Agent:
    """SAC for the rewards of this task."""
    components = build(task, config)
    return Agent(
        init=functools.partial(init, components),
        carry=lambda: (),
        act=functools.partial(actions.act_by_policy, components.policy),
        update=functools.partial(update, components),
        reads_rewards=True,
    )


def build(task: Task, config: Config) -> Components:
    """The networks and the optimiser."""
    spec = task.spec
    obs_size, action_size = spec.observation_size, spec.action_size
    return Components(
        config=config,
        task=task,
        policy=heads.make(config.policy, (obs_size,), spec.action_low, spec.action_high),
        critic=mlp.make_scalar(config.critic, (obs_size, action_size)),
        optimizer=fit.make(optax.adam(config.learning_rate)),
        scaling=actions.make_scaling(spec),
    )


def init(components: Components, key: jax.Array) -> State:
    config, spec = components.config, components.task.spec
    policy_key, critic_key = jax.random.split(key)
    policy = components.optimizer.init(components.policy.init(policy_key))
    keys = jax.random.split(critic_key, config.num_critics)
    critics = components.optimizer.init(jax.vmap(components.critic.init)(keys))
    log_temperature = jnp.log(jnp.asarray(config.temperature, jnp.float32))
    obs = jnp.zeros((spec.observation_size,), jnp.float32)
    step = Batch(
        obs=obs,
        action=jnp.zeros((spec.action_size,), jnp.float32),
        reward=jnp.zeros((), jnp.float32),
        next_obs=obs,
        terminal=jnp.zeros((), bool),
    )
    return State(
        params=policy.params,
        policy=policy,
        critics=critics,
        target=critics.params,
        temperature=components.optimizer.init(log_temperature),
        replay=replay.init(step, config.capacity, components.task.num_envs),
    )


def q_values(
    components: Components, critics: Params, obs: jax.Array, action: jax.Array
) -> jax.Array:
    """Q_i of observations `[B, O]` and actions `[B, U]`, `[M, B]`."""
    action = components.scaling.to_unit_interval(action)
    return jax.vmap(components.critic.apply, (0, None, None))(critics, obs, action)


# ------------------------------------------------------------------------------- learning


def update(
    components: Components,
    state: State,
    rollout: Transition,
    demos,
    key: jax.Array,
    round_: jax.Array,
) -> tuple[State, Metrics]:
    """A rollout `[T, E]` enters the replay, and gradient steps follow."""
    del demos, round_
    config = components.config
    steps = Batch(
        obs=rollout.obs,
        action=rollout.action,
        reward=rollout.reward,
        next_obs=rollout.next_obs,
        terminal=rollout.terminal,
    )
    state = dataclasses.replace(state, replay=replay.insert(state.replay, steps))

    def one_step(state: State, key: jax.Array):
        batch_key, key = jax.random.split(key)
        batch = replay.sample(state.replay, batch_key, config.batch)
        return improve(components, state, batch, key)

    keys = jax.random.split(key, config.gradient_steps)
    return learning.scan_mean(one_step, state, keys)


def improve(
    components: Components, state: State, batch: Batch, key: jax.Array
) -> tuple[State, Metrics]:
    """Steps 1 to 5 on one batch."""
    config, optimizer = components.config, components.optimizer
    target_key, actor_key = jax.random.split(key)
    alpha = jnp.exp(state.temperature.params)
    targets = soft_targets(components, state, batch, target_key)
    critics, critic_metrics = learning.gradient_step(
        optimizer, state.critics, functools.partial(critic_loss, components), batch, targets
    )
    policy, metrics = learning.gradient_step(
        optimizer,
        state.policy,
        functools.partial(actor_loss, components),
        batch,
        critics.params,
        alpha,
        actor_key,
    )
    temperature = state.temperature
    if config.learn_temperature:
        temperature, _ = learning.gradient_step(
            optimizer,
            temperature,
            functools.partial(temperature_loss, components),
            metrics["policy/entropy"],
        )
    state = dataclasses.replace(
        state,
        params=policy.params,
        policy=policy,
        critics=critics,
        target=fit.polyak(state.target, critics.params, config.target_rate),
        temperature=temperature,
    )
    return state, critic_metrics | metrics | {"policy/temperature": alpha}


def soft_targets(
    components: Components, state: State, batch: Batch, key: jax.Array
) -> jax.Array:
    """Step 1: y = r + γ (1 - terminal) V̄(s'), `[B]`. Eqs. 3 and 5."""
    chosen = components.policy.apply(state.policy.params, batch.next_obs)
    next_action, next_log_prob = components.policy.sample(chosen, key)
    next_q = q_values(components, state.target, batch.next_obs, next_action)  # [M, B]
    alpha = jnp.exp(state.temperature.params)
    next_value = jnp.min(next_q, axis=0) - alpha * next_log_prob
    return batch.reward + components.config.discount * ~batch.terminal * next_value


def critic_loss(
    components: Components, params: Params, batch: Batch, targets: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Step 2: E[Σ_i (Q_i(s, a) - y)²] of targets `[B]`, `[]`. Eq. 5."""
    values = q_values(components, params, batch.obs, batch.action)  # [M, B]
    loss = jnp.mean(jnp.sum((values - targets) ** 2, axis=0))
    return loss, {"critic/loss": loss, "critic/mean": jnp.mean(values)}


def actor_loss(
    components: Components,
    params: Params,
    batch: Batch,
    critics: Params,
    alpha: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Step 3: E[α log π(ã|s) - min_i Q_i(s, ã)], `[]`, which moves no critic. Eq. 7."""
    chosen = components.policy.apply(params, batch.obs)
    action, log_prob = components.policy.sample(chosen, key)
    values = jnp.min(q_values(components, critics, batch.obs, action), axis=0)
    loss = losses.soft_actor(log_prob, values, alpha)
    return loss, {"policy/entropy": -jnp.mean(log_prob)}


def temperature_loss(
    components: Components, params: jax.Array, entropy: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Step 4: α (H(π) - H̄) of log α, with an entropy H(π) `[]`, `[]`. Eq. 18."""
    target_entropy = -float(components.task.spec.action_size)
    return losses.soft_temperature(params, -entropy, target_entropy), {}
