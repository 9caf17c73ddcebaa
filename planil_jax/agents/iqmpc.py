"""IQ-MPC: a reward-free latent world model, inverse soft Q-learning, and MPPI between.

A gradient step, on sequences of H steps, half the learner's and half the expert's:

    1. Latent states:  z_0 = h(s_0),  z_{t+1} = d(z_t, a_t),  ẑ_t = sg h(s_t)
    2. Decoded rewards of every critic, with V̄ of the target critics Q̄:
           V(z) = min_2 Q(z, ã) - β log π(ã|z),  ã ~ π(·|z)
           r_t  = Q(z_t, a_t) - γ V̄(ẑ_{t+1})
    3. World model and critics, in one step of h, d and Q:
           L_t  = -E_E[r_t] + (1 - γ) E_E[V(z_0)] + E[r_t²] / (4 α)
           min  c_z Σ_t ρ^t E(z_{t+1} - ẑ_{t+1})² / H  +  c_q Σ_t ρ^t mean_Q L_t / H
                [+ c_p E(‖∇ Q‖ - 1)² between expert and learner]
    4. Policy:  min_π  Σ_t ρ^t E[β log π(ã|z_t) - min_2 Q(z_t, ã)] / (H + 1)
    5. Target critics:  Q̄ ← Q̄ + τ (Q - Q̄)

min_2 is over two critics drawn at random. To act, MPPI maximises the decoded return of a
plan, Algorithm 1: Σ_{t<H} γ^t [Q(z_t, a_t) - γ V(z_{t+1}) - β log π(a_t|z_t)] + γ^H V(z_H).
With common random numbers it telescopes into

    φ = Q(z_0, a_0) - β log π(a_0|z_0) + Σ_{0<t<H} γ^t [Q - V - β log π](z_t, a_t)

so the last step of the model and V(z_H) cancel and are not computed. All plans of a call
share the critics and the noise.

Source: Li, Huang & Su 2025, Reward-free World Models for Online Imitation Learning, arXiv
2410.14081 (IQ-MPC); Garg et al. 2021, IQ-Learn, arXiv 2106.12142, section 4 (step 3).
Departures:
    planning by φ: their code adds noise to it (`published.score="published"`);
    log π in a score is of the planned action: in their code, of a sampled one (the same);
    `gradient_penalty`, 0 here: 1 in the paper's manipulation tasks, 0.1 in their code;
    `expert_noise`, `replay.recency_exponent`, `optimizer.lr_half_life`, `ema_rate`: not in
    the paper; off by default;
    V̄ is 0 after a terminal step: their code has no terminal steps.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.agents.common import latent_planning, sequences
from planil_jax.base import (
    Agent,
    Demonstrations,
    EnvSpec,
    Fit,
    Metrics,
    Needs,
    Params,
    Shows,
    Task,
    Transition,
    UsageError,
)
from planil_jax.config import Count, Natural, NonNegative, Positive, Share
from planil_jax.data import replay
from planil_jax.losses import adversarial, inverse_q, world_model
from planil_jax.models import latent as models
from planil_jax.nets import fit, heads, latent
from planil_jax.planners import mppi


@dataclass(frozen=True, kw_only=True)
class Published:
    """Choices of the authors' code that differ from their paper, for comparison."""

    # score of a plan: "telescoped", the paper's φ; "published", with their code's noise
    score: Literal["telescoped", "published"] = "telescoped"


@dataclass(frozen=True, kw_only=True)
class Config:
    network: latent.Config = field(default_factory=latent.Config)
    planner: mppi.Config = field(default_factory=latent_planning.default_planner)
    planning: latent_planning.Planning = field(default_factory=latent_planning.Planning)
    replay: sequences.Config = field(default_factory=sequences.Config)
    optimizer: latent_planning.Optimizer = field(default_factory=latent_planning.Optimizer)
    published: Published = field(default_factory=Published)
    # discount factor γ; None: it follows from the episode's length, looking a fifth ahead
    discount: Share | None = None
    horizon: Count = 3  # H, steps of the sequences that are learned from
    horizon_decay: Share = 0.5  # ρ, weight of each further step of a sequence
    alpha: Positive = 0.5  # α of the χ² term; decoded rewards stay within ±4α
    # third term of the critics' loss: "start", (1 - γ) E[V(s_0)] of the expert; "value",
    # E[V(s) - γ V(s')] of the learner
    objective: Literal["start", "value"] = "start"
    consistency_coef: NonNegative = 20.0  # c_z, weight of the model's prediction error
    critic_coef: NonNegative = 0.1  # c_q, weight of the critics' loss
    gradient_penalty: NonNegative = 0.0  # c_p, weight of the critics' gradient penalty
    entropy_coef: NonNegative = 1e-4  # β, weight of the policy's entropy
    expert_noise: NonNegative = 0.0  # std of noise on the expert's actions in Q
    critic_subset: Count = 2  # critics that a plan's score takes the least of
    value_samples: Count = 1  # actions that V is averaged over in the planner's score
    seed_steps: Natural = 1000  # first environment steps, of all environments, at random
    updates_per_step: Positive = 1.0  # gradient steps for each environment step
    target_rate: Share = 0.01  # τ, share by which target critics move to the critics
    # share by which the acting parameters move to the learned ones in a round; 1: at once
    ema_rate: Share = 1.0

    def check(self) -> None:
        if self.critic_subset > self.network.critics:
            raise UsageError(
                f"critic_subset must be at most network.critics, {self.network.critics}, "
                f"not {self.critic_subset}."
            )


def published() -> Config:
    """The choices of its authors' code, as far as they are options here.

    Two are not: log π whose Gaussian part is multiplied by the number of action entries,
    and a policy whose gradient counts in the norm by which the model's is clipped.
    """
    return Config(published=Published(score="published"))


def NEEDS(config: Config) -> Needs:  # noqa: N802
    """Demonstrations of whole observations with actions, in sequences of H steps."""
    return Needs(actions=True, full_observations=True, pixels=True, sequence=config.horizon)


@struct.dataclass
class State:
    params: latent_planning.InferenceParams
    model: Fit  # of {"encoder", "step", "critics"}
    policy: Fit
    target: Params  # Q̄
    replay: replay.Replay | None  # None within a loop that does not change it


class Components(NamedTuple):
    """What the losses need; built once, by `make_components`."""

    config: Config
    model: models.Latent  # h and d
    critics: latent.Ensemble  # Q
    policy: heads.Policy  # π
    discount: float  # γ
    schedule: latent_planning.Schedule
    model_optimizer: fit.Optimizer
    policy_optimizer: fit.Optimizer


@struct.dataclass
class Batch:
    """What a gradient step learns from."""

    learner: sequences.Sequences
    expert: sequences.Sequences


@struct.dataclass
class Fixed:
    """Parameters that the loss of model and critics reads and does not move."""

    policy: Params
    target: Params  # Q̄


@struct.dataclass
class Latents:
    """Sequences in latent space: the expert's B, then the learner's B, side by side."""

    rolled: jax.Array  # z [H + 1, 2 B, Z]
    encoded: jax.Array  # ẑ_1, …, ẑ_H [H, 2 B, Z]
    actions: jax.Array  # [H, 2 B, U]
    terminal: jax.Array  # [H, 2 B] bool


def make_components(spec: EnvSpec, config: Config) -> Components:
    """The networks and optimisers for an environment.

    Raises:
      UsageError: the environment shows pictures and can end early.
    """
    discount = config.discount
    if discount is None:
        discount = latent_planning.default_discount(spec.episode_length)
    return Components(
        config=config,
        model=models.make(spec, config.network),
        critics=latent.make_critics(config.network, spec.action_size),
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


# ---------------------------------------------------------------------------------- values


def min_q(
    components: Components, subset: Params, z: jax.Array, actions: jax.Array
) -> jax.Array:
    """The least Q `[...]` of a subset of the critics, at z `[..., Z]`."""
    return jnp.min(components.critics.apply(subset, z, actions)[..., 0], axis=0)


def soft_value(
    components: Components,
    subset: Params,
    distribution: heads.TanhNormal,
    z: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """V(z) = min Q(z, ã) - β log π(ã|z) `[...]`, of one ã ~ π(·|z) (step 2)."""
    actions, log_probs = components.policy.sample(distribution, key)
    entropy_coef = components.config.entropy_coef
    return min_q(components, subset, z, actions) - entropy_coef * log_probs


# ---------------------------------------------------------------------------------- acting


def plan_score(
    components: Components,
    params: latent_planning.InferenceParams,
    z_0: jax.Array,
    key: jax.Array,
) -> Callable[[jax.Array], jax.Array]:
    """φ of plans from z_0 `[Z]`: `(actions [H, U]) -> []`, by H - 1 steps of the model.

    Algorithm 1 of the paper, telescoped; see the top of this file.
    """
    config, policy = components.config, components.policy
    subset_key, value_key = jax.random.split(key)
    critics = params.model["critics"]
    subset = latent.random_subset(critics, subset_key, config.critic_subset)
    value_keys = jax.random.split(value_key, config.value_samples)

    def advantages(zs: jax.Array, actions: jax.Array) -> jax.Array:
        """[Q - V - β log π](z_t, a_t) `[T]`; critics read a_t and V's ã together."""
        distribution = policy.apply(params.policy, zs)
        sample = jax.vmap(jax.vmap(policy.sample, (0, None)), (None, 0))
        sampled, log_probs = sample(distribution, value_keys)  # [samples, T, …]
        together = jnp.concatenate([actions[None], sampled])
        values = min_q(components, subset, zs, together)  # [1 + samples, T]
        v = jnp.mean(values[1:] - config.entropy_coef * log_probs, axis=0)
        planned_log_probs = policy.log_prob(distribution, actions)
        return values[0] - v - config.entropy_coef * planned_log_probs

    def score(actions: jax.Array) -> jax.Array:
        distribution = policy.apply(params.policy, z_0)
        first = min_q(components, subset, z_0, actions[0])
        first -= config.entropy_coef * policy.log_prob(distribution, actions[0])
        if len(actions) == 1:
            return first
        # All later steps at once: fewer products, of larger matrices.
        zs = components.model.rollout(params.model, z_0, actions[:-1])[1:]
        weights = components.discount ** jnp.arange(1, len(actions))
        return first + jnp.sum(weights * advantages(zs, actions[1:]))

    return score


def published_score(
    components: Components,
    params: latent_planning.InferenceParams,
    z_0: jax.Array,
    key: jax.Array,
) -> Callable[[jax.Array], jax.Array]:
    """As `plan_score`, but as its authors' code has it; H steps of the model.

        Σ_{t<H} γ^t [Q(z_t, a_t) - γ V(z_{t+1}) - β log π(ã_t|z_t)] + γ^H V'(z_H)

    Every V draws its own action and its own two critics, so nothing telescopes; log π is of
    a sampled action, not of the planned one; V' uses the mean of two critics.
    """
    policy, beta = components.policy, components.config.entropy_coef
    gamma, critics = components.discount, params.model["critics"]

    def noisy_value(z: jax.Array, key: jax.Array, reduce: Callable) -> jax.Array:
        subset_key, action_key = jax.random.split(key)
        subset = latent.random_subset(critics, subset_key)
        action, log_prob = policy.sample(policy.apply(params.policy, z), action_key)
        return reduce(components.critics.apply(subset, z, action)[..., 0]) - beta * log_prob

    def score(actions: jax.Array) -> jax.Array:
        total, z = jnp.zeros(()), z_0
        for t, action in enumerate(actions):
            subset_key, sample_key, next_key = jax.random.split(
                jax.random.fold_in(key, t), 3
            )
            subset = latent.random_subset(critics, subset_key)
            gain = min_q(components, subset, z, action)
            gain -= beta * policy.sample(policy.apply(params.policy, z), sample_key)[1]
            z = components.model.step(params.model, z, action)
            total += gamma**t * (gain - gamma * noisy_value(z, next_key, jnp.min))
        last = noisy_value(z, jax.random.fold_in(key, len(actions)), jnp.mean)
        return total + gamma ** len(actions) * last

    return score


SCORES = {"telescoped": plan_score, "published": published_score}


# ---------------------------------------------------------------------------------- losses


def model_loss(
    components: Components, params: Params, fixed: Fixed, batch: Batch, key: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
    """Of world model and critics (steps 1 to 3); params: {"encoder", "step", "critics"}.

    Returns:
      The loss `[]`, the latent states z `[H + 1, 2 B, Z]` of expert and learner side by
      side, and metrics.
    """
    config, model = components.config, components.model
    both = sequences.side_by_side(batch.expert, batch.learner)
    encoded = jax.lax.stop_gradient(model.encode(params, both.obs[1:]))
    rolled = model.rollout(params, model.encode(params, both.obs[0]), both.actions)
    consistency = world_model.consistency(rolled[1:], encoded, config.horizon_decay)
    latents = Latents(rolled, encoded, both.actions, both.terminal)
    loss, metrics = critic_loss(components, params["critics"], fixed, latents, key)
    total = config.consistency_coef * consistency + loss
    return total, (rolled, metrics | {"model/consistency": consistency})


def critic_loss(
    components: Components, params: Params, fixed: Fixed, latents: Latents, key: jax.Array
) -> tuple[jax.Array, Metrics]:
    """c_q Σ_t ρ^t mean_Q L_t / H, and c_p times the gradient penalty (steps 2 and 3)."""
    config, count = components.config, latents.actions.shape[1] // 2
    keys = jax.random.split(key, 6)
    next_values = target_values(components, fixed, latents.encoded, keys[0], keys[1])
    noisy = _with_expert_noise(latents.actions, config.expert_noise, key)
    values = components.critics.apply(params, latents.rolled[:-1], noisy, key=keys[2])
    values = values[..., 0]  # [M, H, 2 B]
    rewards = inverse_q.decoded_rewards(
        values, next_values, latents.terminal, components.discount
    )
    subset = latent.random_subset(params, keys[3])
    value_term = OBJECTIVES[config.objective](
        components, subset, fixed.policy, latents, next_values, keys[4]
    )  # [H]
    over_steps = jax.vmap(inverse_q.inverse_soft_q, (0, 0, 0, None))
    over_critics = jax.vmap(over_steps, (0, 0, None, None))
    losses = over_critics(
        rewards[..., :count], rewards[..., count:], value_term, config.alpha
    )  # [M, H]
    loss = world_model.over_horizon(jnp.mean(losses, axis=0), config.horizon_decay)
    total, metrics = config.critic_coef * loss, {"critic/loss": loss}
    if config.gradient_penalty:
        penalty = gradient_penalty(components, subset, latents, keys[5])
        total += config.gradient_penalty * penalty
        metrics["critic/penalty"] = penalty
    return total, metrics | {
        "critic/mean": jnp.mean(values),
        "critic/gap": jnp.mean(values[..., :count]) - jnp.mean(values[..., count:]),
        "reward/expert": jnp.mean(rewards[..., :count]),
        "reward/learner": jnp.mean(rewards[..., count:]),
        "reward/out_of_bounds": jnp.mean(jnp.abs(rewards) > 4 * config.alpha),
    }


def target_values(
    components: Components,
    fixed: Fixed,
    encoded: jax.Array,
    subset_key: jax.Array,
    action_key: jax.Array,
) -> jax.Array:
    """V̄(ẑ_{t+1}) `[H, 2 B]` of two target critics; it stands still (step 2)."""
    subset = latent.random_subset(fixed.target, subset_key)
    distribution = components.policy.apply(fixed.policy, encoded)
    values = soft_value(components, subset, distribution, encoded, action_key)
    return jax.lax.stop_gradient(values)


def start_objective(
    components: Components,
    subset: Params,
    policy_params: Params,
    latents: Latents,
    next_values: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """(1 - γ) E_E[V(z_0)] of the expert's first states, the same for all steps, `[H]`."""
    z = latents.rolled[:1, : latents.actions.shape[1] // 2]
    distribution = jax.lax.stop_gradient(components.policy.apply(policy_params, z))
    values = soft_value(components, subset, distribution, z, key)  # [1, B]
    mean = (1 - components.discount) * jnp.mean(values)
    return jnp.broadcast_to(mean, next_values.shape[:1])


def value_objective(
    components: Components,
    subset: Params,
    policy_params: Params,
    latents: Latents,
    next_values: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """E_π[V(z_t) - γ V̄(ẑ_{t+1})] of the learner's steps, `[H]`."""
    count = latents.actions.shape[1] // 2
    z = latents.rolled[:-1, count:]
    distribution = jax.lax.stop_gradient(components.policy.apply(policy_params, z))
    values = soft_value(components, subset, distribution, z, key)  # [H, B]
    goes_on = ~latents.terminal[:, count:]
    after = components.discount * goes_on * next_values[:, count:]
    return jnp.mean(values - after, axis=1)


OBJECTIVES = {"start": start_objective, "value": value_objective}


def gradient_penalty(
    components: Components, subset: Params, latents: Latents, key: jax.Array
) -> jax.Array:
    """E(‖∇_{z,a} mean_2 Q‖ - 1)² between expert and learner, `[]` (step 3).

    It moves the critics alone.
    """
    count = latents.actions.shape[1] // 2

    def flat(x: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient(x.reshape(-1, x.shape[-1]))

    def mean_q(point: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.mean(components.critics.apply(subset, *point))

    z, actions = latents.rolled[:-1], latents.actions
    expert = flat(z[:, :count]), flat(actions[:, :count])
    learner = flat(z[:, count:]), flat(actions[:, count:])
    return adversarial.gradient_penalty(mean_q, expert, learner, key)


def policy_loss(
    components: Components, params: Params, subset: Params, zs: jax.Array, key: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Σ_t ρ^t E[β log π(ã|z_t) - min_2 Q(z_t, ã)] / (H + 1), `[]` (step 4).

    Args:
      subset: two critics.
      zs: z `[H + 1, 2 B, Z]`, which get no gradient.
    """
    config, zs = components.config, jax.lax.stop_gradient(zs)
    distribution = components.policy.apply(params, zs)
    actions, log_probs = components.policy.sample(distribution, key)
    losses = config.entropy_coef * log_probs - min_q(components, subset, zs, actions)
    loss = world_model.over_horizon(jnp.mean(losses, axis=1), config.horizon_decay)
    return loss, {"policy/loss": loss, "policy/entropy": -jnp.mean(log_probs)}


def _with_expert_noise(actions: jax.Array, std: float, key: jax.Array) -> jax.Array:
    """The actions `[H, 2 B, U]` with Gaussian noise on the expert's, within [-1, 1]."""
    if not std:
        return actions
    count = actions.shape[1] // 2
    expert = actions[:, :count]
    noise = jax.random.normal(jax.random.fold_in(key, 1), expert.shape)
    return actions.at[:, :count].set(jnp.clip(expert + std * noise, -1.0, 1.0))


# ------------------------------------------------------------------------------- learning


def learn(
    components: Components, state: State, batch: Batch, key: jax.Array
) -> tuple[State, Metrics]:
    """One gradient step of everything (steps 1 to 5)."""
    model_key, subset_key, policy_key = jax.random.split(key, 3)
    fixed = Fixed(policy=state.policy.params, target=state.target)
    of_model = functools.partial(model_loss, components)
    gradients, (zs, metrics) = jax.grad(of_model, has_aux=True)(
        state.model.params, fixed, batch, model_key
    )
    model = components.model_optimizer.step(state.model, gradients)
    metrics["encoder/gradient_norm"] = optax.tree.norm(gradients["encoder"])

    critics = model.params["critics"]
    of_policy = functools.partial(policy_loss, components)
    gradients, policy_metrics = jax.grad(of_policy, has_aux=True)(
        state.policy.params, latent.random_subset(critics, subset_key), zs, policy_key
    )
    state = dataclasses.replace(
        state,
        model=model,
        policy=components.policy_optimizer.step(state.policy, gradients),
        target=fit.polyak(state.target, critics, components.config.target_rate),
    )
    return state, metrics | policy_metrics


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
        batch = Batch(
            learner=sequences.sample_replay(sampler, *replayed, learner_key),
            expert=sequences.sample_demos(sampler, demos, expert_key),
        )
        return learn(components, state, batch, key)

    return latent_planning.update(
        components.schedule, improve, acting, state, rollout, key, round_
    )


def acting(state: State) -> tuple[Params, Params]:
    """The learned parameters that act: of model and critics, and of the policy."""
    return state.model.params, state.policy.params


def init(components: Components, num_envs: int, key: jax.Array) -> State:
    """`Agent.init`: new networks and an empty replay."""
    model_key, critics_key, policy_key = jax.random.split(key, 3)
    critics = components.critics.init(critics_key)
    params = components.model.init(model_key) | {"critics": critics}
    policy = components.policy.init(policy_key)
    return State(
        params=latent_planning.InferenceParams(params, policy, jnp.ones((), bool)),
        model=components.model_optimizer.init(params),
        policy=components.policy_optimizer.init(policy),
        target=critics,
        replay=sequences.empty_replay(components.schedule.sampler, num_envs),
    )


def make(task: Task, config: Config) -> Agent:
    """IQ-MPC in an environment.

    Raises:
      UsageError: a setting is unknown or does not fit another.
    """
    components = make_components(task.spec, config)
    actor = latent_planning.Actor(
        planning=config.planning,
        planner=latent_planning.make_planner(task.spec, config.planner, config.planning),
        horizon=config.planner.horizon,
        model=components.model,
        policy=components.policy,
        scaling=components.schedule.sampler.scaling,
        score=functools.partial(SCORES[config.published.score], components),
    )
    return Agent(
        init=functools.partial(init, components, task.num_envs),
        carry=functools.partial(latent_planning.initial_carry, actor),
        act=functools.partial(latent_planning.act, actor),
        update=functools.partial(update, components),
    )


# --------------------------------------------------------------------------------- reports


def recovered_reward(spec: EnvSpec, config: Config) -> Callable[..., jax.Array]:
    """r = Q(z, a) - γ V(z'): `(params, obs [.., O], action [.., U], next_obs) -> [..]`.

    Q is the mean of all critics, V that of the policy's mode without its entropy.
    """
    components = make_components(spec, config)
    model, policy = components.model, components.policy

    def mean_q(params: Params, z: jax.Array, actions: jax.Array) -> jax.Array:
        values = components.critics.apply(params["critics"], z, actions)
        return jnp.mean(values[..., 0], axis=0)

    def reward(params: latent_planning.InferenceParams, obs, action, next_obs) -> jax.Array:
        z, next_z = model.encode(params.model, jnp.stack([obs, next_obs]))
        mode = policy.mode(policy.apply(params.policy, next_z))
        value = mean_q(params.model, next_z, mode)
        scaled = components.schedule.sampler.scaling.to_unit_interval(action)
        return mean_q(params.model, z, scaled) - components.discount * value

    return reward


def shows(task: Task, config: Config) -> Shows:
    """The reward that was recovered."""
    return Shows(reward=recovered_reward(task.spec, config))
