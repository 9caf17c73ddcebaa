"""MPAIL2: adversarial imitation from observations, planned in a learned latent space.

A gradient step, on sequences of H steps of the learner and pairs (s, s') of the expert:

    1. World model, and the latent states that all further steps read:
           z_0 = h(s_0),  z_{t+1} = d(z_t, a_t),  ẑ_t = sg h(s_t)
           min_{h,d}  Σ_t ρ^t E(z_{t+1} - ẑ_{t+1})² / H
    2. Reward (WGAN with gradient penalty):
           min_r  E_π[r(ẑ, ẑ')] - E_E[r(ẑ, ẑ')] + c_p E(‖∇r‖ - 1)²
    3. Critics:
           min_Q  E(Q(ẑ_t, a_t) - y_t)²
           y_t = r(ẑ_t, ẑ_{t+1}) + γ [(1 - μ) v_{t+1} + μ y_{t+1}],  y_H = v_H
           v_t = min_2 Q̄(ẑ_t, a'),  a' ~ π(·|ẑ_t)
    4. Policy of H actions at once, by the λ-return G_0 through the model (eq. 19):
           max_π  E[G_0],  a_{0:H} ~ π(·|ẑ_0)
           G_t = λ q_t + (1 - λ) [r_t + γ G_{t+1}] - α log π(a_t|z),  G_H = q_H
    5. Temperature α: the policy's entropy is steered to -U for every step
    6. Target critics:  Q̄ ← Q̄ + τ (Q - Q̄)

q is the mean of two critics drawn at random. The encoder learns from step 1 alone. To act,
MPPI maximises, with the policy's plans among its samples,

    ω q(z_0, a_0) + (1 - ω) [Σ_{t<H} γ^t r(z_t, z_{t+1}) + γ^H q(z_H, a)],  a ~ π(·|z_H)

Why ω: the planner finds plans about which the model is wrong. q(z_0, a_0) needs no model.
Why `accept_if_all_critics_prefer`: critics are wrong about rare actions too, but not all in
the same way. Without exploration a plan then acts only where every critic prefers its first
action to the policy's; elsewhere the policy acts.
Why μ: a' is an action of the policy, which may never be tried where plans act. Then no data
corrects Q̄ there, and its errors grow by bootstrapping. With μ > 0 the actions taken count.
Why `value_scale`: with γ = 0.99 values are a hundred times the rewards, and a network needs
many steps to grow to them. Critics' outputs are in units of `value_scale`.

Absorbing state (`absorbing`): a terminal step leads to a latent state e that no action
leaves. ẑ_{t+1} is e there and from there on. e is worth r(e, e) / (1 - γ); nothing about it
is estimated. If an end were worth 0, it would be better than any negative reward. If it
were worth what the reward makes of its last observation, the learner would seek the end
that looks best. In E_π, e counts 1 / (1 - γ) times, and in E_E too if the expert ends.

Source: Han et al. 2026, MPAIL2, arXiv 2602.24121; MPPI after Hansen, Su & Wang 2024,
TD-MPC2, arXiv 2310.16828; absorbing states after Kostrikov et al. 2019,
Discriminator-Actor-Critic, arXiv 1809.02925, where they follow the last
observation; here e takes the place of that observation.
Departures:
    `td_lambda` μ, `q_weight` ω: 0 there, and here by default; `value_scale`: 1 there;
    `accept_if_all_critics_prefer`: False there; `absorbing`: False there, True here;
    against their code: a plan starts from the last one; actions are squashed once; G is
    eq. 19; the last reward of a plan counts; truncation is not terminal; the replay is a
    ring; only critics that are used are evaluated.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.agents.common import latent_planning, sequences
from planil_jax.base import (
    Agent,
    Demonstrations,
    EnvSpec,
    Fit,
    Metrics,
    Needs,
    Network,
    Params,
    Shows,
    Task,
    Transition,
)
from planil_jax.config import Count, Natural, NonNegative, Positive, Share
from planil_jax.data import replay
from planil_jax.losses import adversarial, returns, world_model
from planil_jax.losses import policy as policy_losses
from planil_jax.models import latent as models
from planil_jax.nets import fit, heads, latent, mlp
from planil_jax.planners import mppi


@dataclass(frozen=True, kw_only=True)
class Optimizer(latent_planning.Optimizer):
    """Adam, for every part that learns."""

    encoder_lr_scale: NonNegative = 0.1  # the encoder's learning rate, as a share of it
    critic_max_grad_norm: Positive = 5.0  # the same bound, for the critics' gradients
    policy_max_grad_norm: Positive = 1.0  # the same bound, for the policy's gradients


@dataclass(frozen=True, kw_only=True)
class Config:
    network: latent.Config = field(default_factory=latent.Config)
    reward: mlp.Config = field(
        default_factory=lambda: mlp.Config(hidden=(512, 512), activation="silu")
    )
    planner: mppi.Config = field(
        default_factory=lambda: latent_planning.default_planner(horizon=7, iterations=5)
    )
    planning: latent_planning.Planning = field(default_factory=latent_planning.Planning)
    replay: sequences.Config = field(default_factory=sequences.Config)
    optimizer: Optimizer = field(default_factory=Optimizer)
    # discount factor γ; None: it follows from the episode's length, looking a fifth ahead
    discount: Share | None = None
    horizon: Count = 7  # H, steps of the sequences that are learned from
    horizon_decay: Share = 0.95  # ρ, weight of each further step of a sequence
    gradient_penalty: NonNegative = 0.1  # c_p, weight of the reward's gradient penalty
    policy_lambda: Share = 0.95  # λ of the policy's return through the model
    td_lambda: Share = 0.0  # μ of the critics' targets; 0: one step, then the policy
    initial_temperature: Positive = 1e-4  # α at first, weight of the policy's entropy
    value_scale: Positive = 1.0  # value that a critic's output of 1 stands for
    q_weight: Share = 0.0  # ω, weight of the first action's Q in a plan's score
    # without exploration, plans act only where all critics prefer them to the policy
    accept_if_all_critics_prefer: bool = False
    absorbing: bool = True  # a terminal step leads to an absorbing state, or is worth 0
    seed_steps: Natural = 1000  # first environment steps, of all environments, at random
    updates_per_step: Positive = 1.0  # gradient steps for each environment step
    target_rate: Share = 0.01  # τ, share by which target critics move to the critics
    # share by which the acting parameters move to the learned ones in a round; 1: at once
    ema_rate: Share = 1.0


NEEDS = Needs(full_observations=True, pixels=True)


@struct.dataclass
class State:
    # Its model: {"encoder", "step", "critics", "reward"}.
    params: latent_planning.InferenceParams
    model: Fit  # of {"encoder", "step"}
    reward: Fit
    critics: Fit
    policy: Fit
    temperature: Fit  # of log α
    target: Params  # Q̄
    replay: replay.Replay | None  # None within a loop that does not change it


class Components(NamedTuple):
    """What the losses need; built once, by `make_components`."""

    config: Config
    absorbing: bool  # whether terminal steps lead to e
    model: models.Latent  # h and d
    reward: Network  # r
    critics: latent.Ensemble  # Q, in units of `value_scale`
    policy: heads.Policy  # π, of H actions at once
    discount: float  # γ
    schedule: latent_planning.Schedule
    model_optimizer: fit.Optimizer
    optimizer: fit.Optimizer  # of the reward and of log α
    critics_optimizer: fit.Optimizer
    policy_optimizer: fit.Optimizer


@struct.dataclass
class Pairs:
    """Latent states before and after a step."""

    learner: jax.Array  # [2, B, Z]
    expert: jax.Array  # [2, B, Z]


@struct.dataclass
class Latents:
    """The learner's sequences in latent space."""

    encoded: jax.Array  # ẑ [H + 1, B, Z]
    actions: jax.Array  # [H, B, U]
    terminal: jax.Array  # [H, B] bool


@struct.dataclass
class Fixed:
    """Parameters that the critics' loss reads and does not move."""

    reward: Params
    policy: Params
    target: Params  # Q̄


@struct.dataclass
class PolicyBatch:
    """What the policy learns from, none of which it moves."""

    z: jax.Array  # ẑ_0 [B, Z]
    model: Params  # {"step", "reward", "critics", …}
    temperature: jax.Array  # [] α


def make_components(spec: EnvSpec, config: Config) -> Components:
    """The networks and optimisers for an environment.

    Raises:
      UsageError: the environment shows pictures and can end early.
    """
    size, optimizer = config.network.latent, config.optimizer
    discount = config.discount
    if discount is None:
        discount = latent_planning.default_discount(spec.episode_length)
    return Components(
        config=config,
        absorbing=spec.terminates and config.absorbing,
        model=models.make(spec, config.network),
        reward=mlp.make_scalar(config.reward, (size, size)),
        critics=latent.make_critics(config.network, spec.action_size),
        policy=latent.make_policy(config.network, spec.action_size, config.planner.horizon),
        discount=discount,
        schedule=latent_planning.Schedule(
            sampler=sequences.make(spec, config.replay, config.horizon),
            seed_steps=config.seed_steps,
            updates_per_step=config.updates_per_step,
            ema_rate=config.ema_rate,
            past_terminal=spec.terminates and config.absorbing,
        ),
        model_optimizer=latent_planning.model_optimizer(optimizer),
        optimizer=fit.make(latent_planning.adam(optimizer)),
        critics_optimizer=latent_planning.clipped_adam(
            optimizer, optimizer.critic_max_grad_norm
        ),
        policy_optimizer=latent_planning.clipped_adam(
            optimizer, optimizer.policy_max_grad_norm
        ),
    )


# ---------------------------------------------------------------------------------- values


def mean_q(
    components: Components, subset: Params, z: jax.Array, actions: jax.Array
) -> jax.Array:
    """q `[...]`: the mean of a subset of the critics, in units of the reward."""
    values = components.critics.apply(subset, z, actions)[..., 0]
    return components.config.value_scale * jnp.mean(values, axis=0)


def first_action(
    components: Components, policy_params: Params, z: jax.Array, key: jax.Array
) -> jax.Array:
    """The first of the policy's actions in z `[..., Z]`, sampled, `[..., U]`."""
    distribution = components.policy.apply(policy_params, z)
    distribution = jax.tree.map(lambda leaf: leaf[..., 0, :], distribution)
    return components.policy.sample(distribution, key)[0]


# ---------------------------------------------------------------------------------- acting


def plan_score(
    components: Components,
    params: latent_planning.InferenceParams,
    z_0: jax.Array,
    key: jax.Array,
) -> Callable[[jax.Array], jax.Array]:
    """The score of plans from z_0 `[Z]`: `(actions [H, U]) -> []`.

    ω q(z_0, a_0) + (1 - ω) [Σ_{t<H} γ^t r(z_t, z_{t+1}) + γ^H q(z_H, a)],  a ~ π(·|z_H)
    """
    subset_key, last_key = jax.random.split(key)
    subset = latent.random_subset(params.model["critics"], subset_key)
    gamma, weight = components.discount, components.config.q_weight

    def score(actions: jax.Array) -> jax.Array:
        total, z = jnp.zeros(()), z_0
        for t, action in enumerate(actions):
            next_z = components.model.step(params.model, z, action)
            reward = components.reward.apply(params.model["reward"], z, next_z)
            total, z = total + gamma**t * reward, next_z
        last = first_action(components, params.policy, z, last_key)
        total += gamma ** len(actions) * mean_q(components, subset, z, last)
        if weight:
            first = mean_q(components, subset, z_0, actions[0])
            total = weight * first + (1 - weight) * total
        return total

    return score


def all_critics_prefer(
    components: Components,
    params: latent_planning.InferenceParams,
    z: jax.Array,
    planned: jax.Array,
    action: jax.Array,
) -> jax.Array:
    """Whether every critic prefers the planned action `[U]` to another in z, `[]` bool."""
    critics = params.model["critics"]
    planned_values = components.critics.apply(critics, z, planned)[..., 0]  # [M]
    values = components.critics.apply(critics, z, action)[..., 0]
    return jnp.all(planned_values > values)


# ---------------------------------------------------------------------------------- losses


def model_loss(
    components: Components, params: Params, batch: sequences.Sequences
) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
    """Σ_t ρ^t E(z_{t+1} - ẑ_{t+1})² / H, `[]`, of {"encoder", "step"} (step 1).

    Returns:
      The loss, ẑ `[H + 1, B, Z]`, whose gradient is stopped, and metrics.
    """
    config, model = components.config, components.model
    first = model.encode(params, batch.obs[0])
    later = jax.lax.stop_gradient(model.encode(params, batch.obs[1:]))
    if components.absorbing:
        end = latent.absorbing_embedding(config.network)
        later = jnp.where(batch.terminal[..., None], end, later)
    zs = model.rollout(params, first, batch.actions)
    loss = world_model.consistency(zs[1:], later, config.horizon_decay)
    encoded = jnp.concatenate([jax.lax.stop_gradient(first)[None], later])
    return loss, (encoded, {"model/consistency": loss})


def reward_loss(
    components: Components, params: Params, pairs: Pairs, key: jax.Array
) -> tuple[jax.Array, Metrics]:
    """E_π[r(ẑ, ẑ')] - E_E[r(ẑ, ẑ')] + c_p E(‖∇r‖ - 1)², `[]` (step 2)."""
    reward = functools.partial(components.reward.apply, params)
    learner, expert = reward(*pairs.learner), reward(*pairs.expert)
    penalty = adversarial.gradient_penalty(
        lambda pair: reward(*pair), tuple(pairs.expert), tuple(pairs.learner), key
    )
    loss = adversarial.wasserstein(expert, learner)
    return loss + components.config.gradient_penalty * penalty, {
        "reward/distance": -loss,
        "reward/penalty": penalty,
        "reward/expert": jnp.mean(expert),
        "reward/learner": jnp.mean(learner),
    }


def critic_loss(
    components: Components, params: Params, fixed: Fixed, latents: Latents, key: jax.Array
) -> tuple[jax.Array, Metrics]:
    """E(Q(ẑ_t, a_t) - y_t)² over all critics and steps, `[]` (step 3)."""
    subset_key, action_key, dropout_key = jax.random.split(key, 3)
    targets = critic_targets(components, fixed, latents, subset_key, action_key)
    values = components.critics.apply(
        params, latents.encoded[:-1], latents.actions, key=dropout_key
    )[..., 0]  # [M, H, B]
    scale = components.config.value_scale
    loss = jnp.mean((values - targets / scale) ** 2)
    return loss, {"critic/loss": loss, "critic/mean": scale * jnp.mean(values)}


def critic_targets(
    components: Components,
    fixed: Fixed,
    latents: Latents,
    subset_key: jax.Array,
    action_key: jax.Array,
) -> jax.Array:
    """y_t `[H, B]`, in units of the reward; they stand still (step 3).

    At a terminal step v_{t+1} is r(e, e) / (1 - γ), or 0 without absorbing states.
    """
    config, gamma = components.config, components.discount
    reward = functools.partial(components.reward.apply, fixed.reward)
    z, next_z = latents.encoded[:-1], latents.encoded[1:]
    rewards = reward(z, next_z)  # [H, B]
    actions = first_action(components, fixed.policy, next_z, action_key)
    subset = latent.random_subset(fixed.target, subset_key)
    values = components.critics.apply(subset, next_z, actions)[..., 0]
    next_values = config.value_scale * jnp.min(values, axis=0)
    end_value = reward(next_z, next_z) / (1 - gamma) if components.absorbing else 0.0
    next_values = jnp.where(latents.terminal, end_value, next_values)
    lambda_returns = jax.vmap(returns.lambda_returns, (1, 1, None, 1, None), 1)
    discounts = jnp.full(len(rewards), gamma)
    targets = lambda_returns(
        rewards, next_values, discounts, latents.terminal, config.td_lambda
    )
    return jax.lax.stop_gradient(targets)


def policy_loss(
    components: Components, params: Params, batch: PolicyBatch, key: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
    """-E[G_0] of π in ẑ_0, `[]`, rolled through the model (step 4, eq. 19).

    Returns:
      The loss, log π `[B, H]`, and metrics.
    """
    policy, gamma = components.policy, components.discount
    mix = components.config.policy_lambda
    subset_key, plan_key, last_key = jax.random.split(key, 3)
    subset = latent.random_subset(batch.model["critics"], subset_key)
    plans, log_probs = policy.sample(policy.apply(params, batch.z), plan_key)
    actions = jnp.moveaxis(plans, 1, 0)  # [H, B, U]
    zs = components.model.rollout(batch.model, batch.z, actions)  # [H + 1, B, Z]
    rewards = components.reward.apply(batch.model["reward"], zs[:-1], zs[1:])  # [H, B]
    last = first_action(components, params, zs[-1], last_key)
    all_actions = jnp.concatenate([actions, last[None]])
    values = mean_q(components, subset, zs, all_actions)  # [H + 1, B]
    gain = values[-1]
    for t in reversed(range(len(actions))):
        gain = mix * values[t] + (1 - mix) * (rewards[t] + gamma * gain)
        gain -= batch.temperature * log_probs[:, t]
    metrics = {
        "policy/gain": jnp.mean(gain),
        "policy/entropy": -jnp.mean(log_probs),
        "policy/temperature": batch.temperature,
    }
    return -jnp.mean(gain), (log_probs, metrics)


# ------------------------------------------------------------------------------- learning


def with_absorbing(
    components: Components,
    pairs: Pairs,
    learner_terminal: jax.Array,
    expert_terminal: jax.Array,
    key: jax.Array,
) -> Pairs:
    """The pairs with (e, e) among them, as often as each side is in e (step 2).

    Args:
      learner_terminal: `[B]` bool, whether the learner's sequence ended for good. Every end
        is in H sequences, so each counts 1 / H.
      expert_terminal: `[B]` bool, whether the expert's episode ended with the pair.
    """
    end = latent.absorbing_embedding(components.config.network)
    steps_in_end = 1 / (1 - components.discount)
    expert_key, learner_key = jax.random.split(key)
    after = jnp.where(expert_terminal[:, None], end, pairs.expert[1])
    expert = pairs.expert.at[1].set(after)
    occupancy = expert_terminal * steps_in_end
    expert = reweight_absorbing(expert, occupancy, end, expert_key)
    occupancy = learner_terminal * steps_in_end / components.config.horizon
    learner = reweight_absorbing(pairs.learner, occupancy, end, learner_key)
    return Pairs(learner=learner, expert=expert)


def reweight_absorbing(
    pairs: jax.Array, occupancy: jax.Array, end: jax.Array, key: jax.Array
) -> jax.Array:
    """As many pairs `[2, B, Z]`, drawn from these and (e, e) in proportion to time.

    Without the steps that are spent in e, a learner that falls at once counts mostly where
    episodes begin and seldom where it lies. The reward would then call the beginning less
    expert-like than the fall, and the learner would fall even sooner.

    Args:
      occupancy: steps `[B]` spent in e after a pair, 0 where its episode goes on.
      end: e `[Z]`.
    """
    count = len(occupancy)
    weights = jnp.append(jnp.ones(count), jnp.sum(occupancy))
    chosen = jax.random.choice(key, count + 1, (count,), p=weights / jnp.sum(weights))
    end_pair = jnp.broadcast_to(end, (2, 1, len(end)))
    return jnp.concatenate([pairs, end_pair], axis=1)[:, chosen]


@struct.dataclass
class Batch:
    """What a gradient step learns from."""

    learner: sequences.Sequences
    expert_obs: jax.Array  # [2, B, O] before and after a step
    expert_terminal: jax.Array  # [B] bool: the expert's episode ended with that step


def learn(
    components: Components, state: State, batch: Batch, key: jax.Array
) -> tuple[State, Metrics]:
    """One gradient step of everything (steps 1 to 6)."""
    absorbing_key, reward_key, critic_key, policy_key = jax.random.split(key, 4)
    learner = batch.learner
    before = state.model.params
    of_model = functools.partial(model_loss, components)
    gradients, (encoded, metrics) = jax.grad(of_model, has_aux=True)(before, learner)
    model = components.model_optimizer.step(state.model, gradients)

    expert = components.model.encode(before, batch.expert_obs)  # [2, B, Z]
    pairs = Pairs(learner=encoded[:2], expert=expert)
    if components.absorbing:
        ends = learner.terminal[-1], batch.expert_terminal
        pairs = with_absorbing(components, pairs, *ends, absorbing_key)
    of_reward = functools.partial(reward_loss, components)
    gradients, reward_metrics = jax.grad(of_reward, has_aux=True)(
        state.reward.params, pairs, reward_key
    )
    reward = components.optimizer.step(state.reward, gradients)

    fixed = Fixed(reward.params, state.policy.params, state.target)
    latents = Latents(encoded, learner.actions, learner.terminal)
    of_critics = functools.partial(critic_loss, components)
    gradients, critic_metrics = jax.grad(of_critics, has_aux=True)(
        state.critics.params, fixed, latents, critic_key
    )
    critics = components.critics_optimizer.step(state.critics, gradients)

    state = dataclasses.replace(state, model=model, reward=reward, critics=critics)
    state, policy_metrics = learn_policy(components, state, encoded[0], policy_key)
    rate = components.config.target_rate
    state = dataclasses.replace(
        state, target=fit.polyak(state.target, critics.params, rate)
    )
    return state, metrics | reward_metrics | critic_metrics | policy_metrics


def learn_policy(
    components: Components, state: State, z: jax.Array, key: jax.Array
) -> tuple[State, Metrics]:
    """A gradient step of policy and temperature in ẑ_0 `[B, Z]` (steps 4 and 5)."""
    log_temperature = state.temperature.params
    batch = PolicyBatch(z, acting(state)[0], jnp.exp(log_temperature))
    of_policy = functools.partial(policy_loss, components)
    gradients, (log_probs, metrics) = jax.grad(of_policy, has_aux=True)(
        state.policy.params, batch, key
    )
    target_entropy = -float(components.schedule.sampler.spec.action_size)
    gradient = jax.grad(policy_losses.soft_temperature)(
        log_temperature, log_probs.reshape(-1), target_entropy
    )
    state = dataclasses.replace(
        state,
        policy=components.policy_optimizer.step(state.policy, gradients),
        temperature=components.optimizer.step(state.temperature, gradient),
    )
    return state, metrics


def update(
    components: Components,
    state: State,
    rollout: Transition,
    demos: Demonstrations,
    key: jax.Array,
    round_: jax.Array,
) -> tuple[State, Metrics]:
    """`Agent.update`: the round's steps enter the replay, then its gradient steps."""
    sampler = components.schedule.sampler

    def improve(
        state: State, replayed: latent_planning.Replayed, key: jax.Array
    ) -> tuple[State, Metrics]:
        learner_key, expert_key, key = jax.random.split(key, 3)
        learner = sequences.sample_replay(sampler, *replayed, learner_key)
        if components.absorbing:
            learner = sequences.absorbing_from_terminal(learner)
        expert = sequences.sample_expert_pairs(sampler, demos, expert_key)
        return learn(components, state, Batch(learner, *expert), key)

    return latent_planning.update(
        components.schedule, improve, acting, state, rollout, key, round_
    )


def acting(state: State) -> tuple[Params, Params]:
    """The learned parameters that act: of model, reward and critics, and of the policy."""
    learned = {"reward": state.reward.params, "critics": state.critics.params}
    return state.model.params | learned, state.policy.params


def init(components: Components, num_envs: int, key: jax.Array) -> State:
    """`Agent.init`: new networks and an empty replay."""
    model_key, reward_key, critics_key, policy_key = jax.random.split(key, 4)
    model = components.model.init(model_key)
    reward = components.reward.init(reward_key)
    critics = components.critics.init(critics_key)
    policy = components.policy.init(policy_key)
    temperature = jnp.asarray(components.config.initial_temperature, jnp.float32)
    acting_model = model | {"reward": reward, "critics": critics}
    return State(
        params=latent_planning.InferenceParams(acting_model, policy, jnp.ones((), bool)),
        model=components.model_optimizer.init(model),
        reward=components.optimizer.init(reward),
        critics=components.critics_optimizer.init(critics),
        policy=components.policy_optimizer.init(policy),
        temperature=components.optimizer.init(jnp.log(temperature)),
        target=critics,
        replay=sequences.empty_replay(components.schedule.sampler, num_envs),
    )


def make(task: Task, config: Config) -> Agent:
    """MPAIL2 in an environment.

    Raises:
      UsageError: a setting does not fit another.
    """
    components = make_components(task.spec, config)
    accept_fn = None
    if config.accept_if_all_critics_prefer:
        accept_fn = functools.partial(all_critics_prefer, components)
    actor = latent_planning.Actor(
        planning=config.planning,
        planner=latent_planning.make_planner(task.spec, config.planner, config.planning),
        horizon=config.planner.horizon,
        model=components.model,
        policy=components.policy,
        scaling=components.schedule.sampler.scaling,
        score=functools.partial(plan_score, components),
        accept_fn=accept_fn,
        multi_step=True,
    )
    return Agent(
        init=functools.partial(init, components, task.num_envs),
        carry=functools.partial(latent_planning.initial_carry, actor),
        act=functools.partial(latent_planning.act, actor),
        update=functools.partial(update, components),
    )


# --------------------------------------------------------------------------------- reports


def recovered_reward(spec: EnvSpec, config: Config) -> Callable[..., jax.Array]:
    """r: `(params, obs [.., O], action [.., U], next_obs [.., O]) -> [..]`."""
    components = make_components(spec, config)

    def reward(params: latent_planning.InferenceParams, obs, action, next_obs) -> jax.Array:
        del action
        z, next_z = components.model.encode(params.model, jnp.stack([obs, next_obs]))
        return components.reward.apply(params.model["reward"], z, next_z)

    return reward


def shows(task: Task, config: Config) -> Shows:
    """The reward that was recovered."""
    return Shows(reward=recovered_reward(task.spec, config))
