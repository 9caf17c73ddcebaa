"""SAC: a soft actor-critic on a replay, for the task's reward.

In a round the rollout enters the replay; then, at each gradient step, on a batch of it:

    y = r + γ (1 - terminal) [min_i Q̄_i(s', a') - α log π(a'|s')],   a' ~ π(·|s')
    min_Q  Σ_i (Q_i(s, a) - y)²
    min_π  E[α log π(ã|s) - min_i Q_i(s, ã)],   ã ~ π(·|s)
    α:     its entropy is steered to H̄ = -U
    Q̄ ← Q̄ + τ (Q - Q̄)

Source: Haarnoja et al. 2018, Soft Actor-Critic Algorithms, arXiv 1812.05905.
"""

import dataclasses
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.base import Agent, EnvState, Fit, Metrics, Needs, Params, Task, Transition
from planil_jax.data import replay
from planil_jax.losses import policy as losses
from planil_jax.nets import fit, heads, mlp


@dataclass(frozen=True, kw_only=True)
class Config:
    policy: heads.Config = field(
        default_factory=lambda: heads.Config(
            network=mlp.Config(hidden=(128, 128)), std=1.0, std_of_state=True
        )
    )
    critic: mlp.Config = field(default_factory=lambda: mlp.Config(hidden=(128, 128)))
    critics: int = 2  # Q_i
    discount: float = 0.99  # γ
    steps: int = 200  # gradient steps a round
    batch: int = 128
    capacity: int = 20_000  # steps of each environment that are kept
    learning_rate: float = 1e-3  # Adam, of policy, critics and temperature
    target_rate: float = 0.005  # τ
    temperature: float = 0.2  # α at first
    learn_temperature: bool = True


NEEDS = Needs(demonstrations=False)


@struct.dataclass
class State:
    params: Params  # the policy's
    policy: Fit
    critics: Fit  # [M] each
    target: Params  # Q̄
    temperature: Fit  # of log α
    replay: replay.Replay  # of {obs, action, reward, next_obs, terminal}


def make(task: Task, config: Config) -> Agent:
    """SAC for the task's own reward: no imitator; demonstrations are not looked at."""
    spec = task.spec
    obs_size, action_size = spec.observation_size, spec.action_size
    policy = heads.make(config.policy, (obs_size,), spec.action_low, spec.action_high)
    critic = mlp.make_scalar(config.critic, (obs_size, action_size))
    fitter = fit.make(optax.adam(config.learning_rate))
    low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)

    def q_values(params: Params, obs: jax.Array, actions: jax.Array) -> jax.Array:
        """`[M, B]`; critics read actions in [-1, 1]."""
        unit = (2 * actions - low - high) / (high - low)
        return jax.vmap(critic.apply, (0, None, None))(params, obs, unit)

    def act(params: Params, carry, state: EnvState, key: jax.Array, explore: bool):
        chosen = policy.apply(params, state.obs)
        return (policy.sample(chosen, key)[0] if explore else policy.mode(chosen)), carry

    def init(key: jax.Array) -> State:
        policy_key, critic_key = jax.random.split(key)
        fitted = fitter.init(policy.init(policy_key))
        keys = jax.random.split(critic_key, config.critics)
        critics = fitter.init(jax.vmap(critic.init)(keys))
        log_temperature = jnp.log(jnp.asarray(config.temperature, jnp.float32))
        obs = jnp.zeros((obs_size,), jnp.float32)
        step = {
            "obs": obs,
            "action": jnp.zeros((action_size,), jnp.float32),
            "reward": jnp.zeros((), jnp.float32),
            "next_obs": obs,
            "terminal": jnp.zeros((), bool),
        }
        return State(
            params=fitted.params,
            policy=fitted,
            critics=critics,
            target=critics.params,
            temperature=fitter.init(log_temperature),
            replay=replay.init(step, config.capacity, task.num_envs),
        )

    def update(state: State, rollout: Transition, demos, key: jax.Array, round_):
        del demos, round_
        steps = {
            "obs": rollout.obs,
            "action": rollout.action,
            "reward": rollout.reward,
            "next_obs": rollout.next_obs,
            "terminal": rollout.terminal,
        }
        state = dataclasses.replace(state, replay=replay.insert(state.replay, steps))

        def one_step(state: State, key: jax.Array):
            batch_key, key = jax.random.split(key)
            return improve(state, replay.sample(state.replay, batch_key, config.batch), key)

        state, metrics = jax.lax.scan(one_step, state, jax.random.split(key, config.steps))
        return state, jax.tree.map(jnp.mean, metrics)

    def improve(state: State, batch, key: jax.Array) -> tuple[State, Metrics]:
        target_key, actor_key = jax.random.split(key)
        log_temperature = state.temperature.params
        temperature = jnp.exp(log_temperature)

        chosen = policy.apply(state.policy.params, batch["next_obs"])
        next_actions, next_log_probs = policy.sample(chosen, target_key)
        next_values = jnp.min(q_values(state.target, batch["next_obs"], next_actions), 0)
        soft_values = next_values - temperature * next_log_probs  # [B]
        targets = batch["reward"] + config.discount * ~batch["terminal"] * soft_values

        def critic_loss(params: Params):
            values = q_values(params, batch["obs"], batch["action"])
            return jnp.mean(jnp.sum((values - targets) ** 2, axis=0)), jnp.mean(values)

        (loss, mean_value), gradients = jax.value_and_grad(critic_loss, has_aux=True)(
            state.critics.params
        )
        critics = fitter.step(state.critics, gradients)

        def actor_loss(params: Params):
            chosen = policy.apply(params, batch["obs"])
            actions, log_probs = policy.sample(chosen, actor_key)
            values = jnp.min(q_values(critics.params, batch["obs"], actions), axis=0)
            return losses.soft_actor(log_probs, values, temperature), log_probs

        gradients, log_probs = jax.grad(actor_loss, has_aux=True)(state.policy.params)
        fitted = fitter.step(state.policy, gradients)
        fitted_temperature = state.temperature
        if config.learn_temperature:
            gradient = jax.grad(losses.soft_temperature)(
                log_temperature, log_probs, -float(action_size)
            )
            fitted_temperature = fitter.step(state.temperature, gradient)
        state = dataclasses.replace(
            state,
            params=fitted.params,
            policy=fitted,
            critics=critics,
            target=fit.polyak(state.target, critics.params, config.target_rate),
            temperature=fitted_temperature,
        )
        return state, {
            "critic/loss": loss,
            "critic/mean": mean_value,
            "policy/entropy": -jnp.mean(log_probs),
            "policy/temperature": temperature,
        }

    return Agent(init=init, carry=lambda: (), act=act, update=update)
