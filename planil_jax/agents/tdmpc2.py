"""TD-MPC2: MPPI in the latent space of a learned model, for the task's reward.

A gradient step, on sequences of H steps:

    1. Latent states:  z_0 = h(s_0),  z_{t+1} = d(z_t, a_t),  ẑ_t = sg h(s_t)
    2. Targets:  y_t = r_t + γ min_2 Q̄(ẑ_{t+1}, a'),  a' ~ π(·|ẑ_{t+1})
    3. World model, reward and critics, in one step of h, d, R and Q:
           min  c_z Σ_t ρ^t E(z_{t+1} - ẑ_{t+1})² / H
                + c Σ_t ρ^t [CE(R(z_t, a_t), r_t) + mean_Q CE(Q(z_t, a_t), y_t)] / H
    4. Policy:  min_π  Σ_t ρ^t E[β log π(ã|z_t) - mean_2 Q(z_t, ã) / S] / (H + 1)
    5. Target critics:  Q̄ ← Q̄ + τ (Q - Q̄);
       scale:  S ← S + c_S (max(P_95 - P_5, 1) - S), of percentiles P of Q at z_0

R and Q are classifiers over two-hot bins, CE their cross-entropy. To act, MPPI maximises
Σ_{t<H} γ^t R(z_t, a_t) + γ^H mean_2 Q(z_H, a),  a ~ π(·|z_H). Two of the critics are drawn
at random wherever two are used; the others are not evaluated.

It makes demonstrations for imitators on the same latent models.

Source: Hansen, Su & Wang 2024, TD-MPC2, arXiv 2310.16828, section 3 and its code.
Departures: log π is that of the density, where older versions of their code multiply its
Gaussian part by the number of action entries; y_t = r_t after a terminal step, where theirs
has no terminal steps.
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
    Task,
    Transition,
)
from planil_jax.config import Count, Natural, NonNegative, Positive, Share
from planil_jax.data import replay
from planil_jax.losses import two_hot, world_model
from planil_jax.models import latent as models
from planil_jax.nets import fit, heads, latent
from planil_jax.planners import mppi


@dataclass(frozen=True, kw_only=True)
class Config:
    network: latent.Config = field(default_factory=latent.Config)
    planner: mppi.Config = field(default_factory=latent_planning.default_planner)
    planning: latent_planning.Planning = field(default_factory=latent_planning.Planning)
    replay: sequences.Config = field(default_factory=sequences.Config)
    optimizer: latent_planning.Optimizer = field(default_factory=latent_planning.Optimizer)
    # discount factor γ; None: it follows from the episode's length, looking a fifth ahead
    discount: Share | None = None
    horizon: Count = 3  # H, steps of the sequences that are learned from
    horizon_decay: Share = 0.5  # ρ, weight of each further step of a sequence
    consistency_coef: NonNegative = 20.0  # c_z, weight of the model's prediction error
    task_coef: NonNegative = 0.1  # c, weight of the reward's and of the critics' loss
    entropy_coef: NonNegative = 1e-4  # β, weight of the policy's entropy
    scale_rate: Share = 0.01  # c_S, share by which the scale S of the policy's Q moves
    seed_steps: Natural = 1000  # first environment steps, of all environments, at random
    updates_per_step: Positive = 1.0  # gradient steps for each environment step
    target_rate: Share = 0.01  # τ, share by which target critics move to the critics
    # share by which the acting parameters move to the learned ones in a round; 1: at once
    ema_rate: Share = 1.0


NEEDS = Needs(demonstrations=False, pixels=True)


@struct.dataclass
class State:
    params: latent_planning.InferenceParams
    model: Fit  # of {"encoder", "step", "reward", "critics"}
    policy: Fit
    target: Params  # Q̄
    scale: jax.Array  # [] S
    replay: replay.Replay | None  # None within a loop that does not change it


class Components(NamedTuple):
    """What the losses need; built once, by `make_components`."""

    config: Config
    model: models.Latent  # h and d
    reward: Network  # R, logits of bins
    critics: latent.Ensemble  # Q, logits of bins
    policy: heads.Policy  # π
    discount: float  # γ
    schedule: latent_planning.Schedule
    model_optimizer: fit.Optimizer
    policy_optimizer: fit.Optimizer


@struct.dataclass
class Fixed:
    """Parameters that the model's loss reads and does not move."""

    policy: Params
    target: Params  # Q̄


def make_components(spec: EnvSpec, config: Config) -> Components:
    """The networks and optimisers for an environment.

    Raises:
      UsageError: the environment shows pictures and can end early.
    """
    discount = config.discount
    if discount is None:
        discount = latent_planning.default_discount(spec.episode_length)
    sizes = (config.network.latent, spec.action_size)
    return Components(
        config=config,
        model=models.make(spec, config.network),
        reward=latent.make_head(config.network, sizes, two_hot.BINS),
        critics=latent.make_critics(config.network, spec.action_size, two_hot.BINS),
        policy=latent.make_policy(config.network, spec.action_size),
        discount=discount,
        schedule=latent_planning.Schedule(
            sampler=sequences.make(spec, config.replay, config.horizon),
            seed_steps=config.seed_steps,
            updates_per_step=config.updates_per_step,
            ema_rate=config.ema_rate,
        ),
        model_optimizer=latent_planning.model_optimizer(config.optimizer),
        policy_optimizer=latent_planning.clipped_adam(config.optimizer),
    )


# ---------------------------------------------------------------------------------- acting


def q_values(
    components: Components, subset: Params, z: jax.Array, actions: jax.Array
) -> jax.Array:
    """Q `[M, ...]` of some critics, at z `[..., Z]`."""
    return two_hot.decode(components.critics.apply(subset, z, actions))


def plan_score(
    components: Components,
    params: latent_planning.InferenceParams,
    z_0: jax.Array,
    key: jax.Array,
) -> Callable[[jax.Array], jax.Array]:
    """Σ_{t<H} γ^t R(z_t, a_t) + γ^H mean_2 Q(z_H, a): `(actions [H, U]) -> []`."""
    model, policy, gamma = components.model, components.policy, components.discount
    subset_key, last_key = jax.random.split(key)
    subset = latent.random_subset(params.model["critics"], subset_key)

    def score(actions: jax.Array) -> jax.Array:
        total, z = jnp.zeros(()), z_0
        for t, action in enumerate(actions):
            logits = components.reward.apply(params.model["reward"], z, action)
            total += gamma**t * two_hot.decode(logits)
            z = model.step(params.model, z, action)
        last = policy.sample(policy.apply(params.policy, z), last_key)[0]
        value = jnp.mean(q_values(components, subset, z, last))
        return total + gamma ** len(actions) * value

    return score


# ---------------------------------------------------------------------------------- losses


def model_loss(
    components: Components,
    params: Params,
    fixed: Fixed,
    batch: sequences.Sequences,
    key: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
    """Of world model, reward and critics (steps 1 to 3).

    Returns:
      The loss `[]`, the latent states z `[H + 1, B, Z]`, and metrics.
    """
    assert batch.rewards is not None  # the replay holds them
    config, model = components.config, components.model
    decay = config.horizon_decay
    target_key, action_key, dropout_key = jax.random.split(key, 3)
    encoded = jax.lax.stop_gradient(model.encode(params, batch.obs[1:]))  # [H, B, Z]
    zs = model.rollout(params, model.encode(params, batch.obs[0]), batch.actions)
    targets = td_targets(components, fixed, encoded, batch, target_key, action_key)

    logits = components.reward.apply(params["reward"], zs[:-1], batch.actions)
    reward_losses = two_hot.cross_entropy(logits, batch.rewards)  # [H, B]
    logits = components.critics.apply(
        params["critics"], zs[:-1], batch.actions, key=dropout_key
    )
    critic_losses = jax.vmap(two_hot.cross_entropy, (0, None))(logits, targets)  # [M, H, B]
    critic_losses = jnp.mean(critic_losses, axis=0)
    losses = {
        "model/consistency": world_model.consistency(zs[1:], encoded, decay),
        "reward/loss": world_model.over_horizon(reward_losses.mean(1), decay),
        "critic/loss": world_model.over_horizon(critic_losses.mean(1), decay),
    }
    total = config.consistency_coef * losses["model/consistency"]
    total += config.task_coef * (losses["reward/loss"] + losses["critic/loss"])
    return total, (zs, losses | {"critic/mean": jnp.mean(targets)})


def td_targets(
    components: Components,
    fixed: Fixed,
    encoded: jax.Array,
    batch: sequences.Sequences,
    subset_key: jax.Array,
    action_key: jax.Array,
) -> jax.Array:
    """y_t = r_t + γ min_2 Q̄(ẑ_{t+1}, a') `[H, B]`, of ẑ `[H, B, Z]`; r_t where terminal.

    They stand still (step 2).
    """
    assert batch.rewards is not None  # the replay holds them
    policy = components.policy
    actions = policy.sample(policy.apply(fixed.policy, encoded), action_key)[0]
    subset = latent.random_subset(fixed.target, subset_key)
    values = jnp.min(q_values(components, subset, encoded, actions), axis=0)
    targets = batch.rewards + components.discount * ~batch.terminal * values
    return jax.lax.stop_gradient(targets)


@struct.dataclass
class PolicyBatch:
    """What the policy learns from."""

    zs: jax.Array  # z [H + 1, B, Z], which get no gradient
    subset: Params  # two critics
    scale: jax.Array  # [] S


def policy_loss(
    components: Components, params: Params, batch: PolicyBatch, key: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Σ_t ρ^t E[β log π(ã|z_t) - mean_2 Q(z_t, ã) / S] / (H + 1), `[]` (step 4)."""
    config, zs = components.config, jax.lax.stop_gradient(batch.zs)
    distribution = components.policy.apply(params, zs)
    actions, log_probs = components.policy.sample(distribution, key)
    values = jnp.mean(q_values(components, batch.subset, zs, actions), axis=0)
    losses = config.entropy_coef * log_probs - values / batch.scale  # [H + 1, B]
    loss = world_model.over_horizon(jnp.mean(losses, axis=1), config.horizon_decay)
    return loss, {"policy/loss": loss, "policy/entropy": -jnp.mean(log_probs)}


def next_scale(
    components: Components, policy_params: Params, batch: PolicyBatch
) -> jax.Array:
    """S after this gradient step, `[]`, by Q of the policy's mode at z_0 (step 5)."""
    z = batch.zs[0]
    mode = components.policy.mode(components.policy.apply(policy_params, z))
    values = jnp.mean(q_values(components, batch.subset, z, mode), axis=0)
    low, high = jnp.percentile(values, jnp.array([5.0, 95.0]))
    gap = jnp.maximum(high - low, 1.0) - batch.scale
    return batch.scale + components.config.scale_rate * gap


# ------------------------------------------------------------------------------- learning


def learn(
    components: Components, state: State, batch: sequences.Sequences, key: jax.Array
) -> tuple[State, Metrics]:
    """One gradient step of everything (steps 1 to 5)."""
    model_key, subset_key, policy_key = jax.random.split(key, 3)
    fixed = Fixed(policy=state.policy.params, target=state.target)
    of_model = functools.partial(model_loss, components)
    gradients, (zs, metrics) = jax.grad(of_model, has_aux=True)(
        state.model.params, fixed, batch, model_key
    )
    model = components.model_optimizer.step(state.model, gradients)

    critics = model.params["critics"]
    subset = latent.random_subset(critics, subset_key)
    policy_batch = PolicyBatch(zs, subset, state.scale)
    of_policy = functools.partial(policy_loss, components)
    gradients, policy_metrics = jax.grad(of_policy, has_aux=True)(
        state.policy.params, policy_batch, policy_key
    )
    policy = components.policy_optimizer.step(state.policy, gradients)
    state = dataclasses.replace(
        state,
        model=model,
        policy=policy,
        target=fit.polyak(state.target, critics, components.config.target_rate),
        scale=next_scale(components, policy.params, policy_batch),
    )
    return state, metrics | policy_metrics | {"policy/scale": state.scale}


def update(
    components: Components,
    state: State,
    rollout: Transition,
    demos: Demonstrations,
    key: jax.Array,
    round_: jax.Array,
) -> tuple[State, Metrics]:
    """`Agent.update`: the round's steps enter the replay, then its gradient steps."""
    del demos  # it learns from the task's reward
    sampler = components.schedule.sampler

    def improve(
        state: State, replayed: latent_planning.Replayed, key: jax.Array
    ) -> tuple[State, Metrics]:
        sample_key, key = jax.random.split(key)
        batch = sequences.sample_replay(sampler, *replayed, sample_key)
        return learn(components, state, batch, key)

    return latent_planning.update(
        components.schedule, improve, acting, state, rollout, key, round_
    )


def acting(state: State) -> tuple[Params, Params]:
    """The learned parameters that act: of model, reward and critics, and of the policy."""
    return state.model.params, state.policy.params


def init(components: Components, num_envs: int, key: jax.Array) -> State:
    """`Agent.init`: new networks and an empty replay."""
    model_key, reward_key, critics_key, policy_key = jax.random.split(key, 4)
    params = components.model.init(model_key) | {
        "reward": components.reward.init(reward_key),
        "critics": components.critics.init(critics_key),
    }
    policy = components.policy.init(policy_key)
    return State(
        params=latent_planning.InferenceParams(params, policy, jnp.ones((), bool)),
        model=components.model_optimizer.init(params),
        policy=components.policy_optimizer.init(policy),
        target=params["critics"],
        scale=jnp.ones(()),
        replay=sequences.empty_replay(components.schedule.sampler, num_envs, rewards=True),
    )


def make(task: Task, config: Config) -> Agent:
    """TD-MPC2 for the task's reward: not an imitator; it reads no demonstrations.

    Raises:
      UsageError: a setting does not fit another.
    """
    components = make_components(task.spec, config)
    actor = latent_planning.Actor(
        planning=config.planning,
        planner=latent_planning.make_planner(task.spec, config.planner, config.planning),
        horizon=config.planner.horizon,
        model=components.model,
        policy=components.policy,
        scaling=components.schedule.sampler.scaling,
        score=functools.partial(plan_score, components),
    )
    return Agent(
        init=functools.partial(init, components, task.num_envs),
        carry=functools.partial(latent_planning.initial_carry, actor),
        act=functools.partial(latent_planning.act, actor),
        update=functools.partial(update, components),
        reads_rewards=True,
    )
