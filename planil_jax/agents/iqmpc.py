"""IQ-MPC: a reward-free latent world model, inverse soft Q-learning, and MPPI in between.

A gradient step, on sequences of H steps of learner and expert, half and half:

    z_0 = h(s_0),  z_{t+1} = d(z_t, a_t),   ẑ_t = sg h(s_t)
    V(z) = min_2 Q(z, ã) - β log π(ã|z),  ã ~ π(·|z);     V̄ of the targets Q̄, at ẑ
    r_t  = Q(z_t, a_t) - γ V̄(ẑ_{t+1})                      of each of the M critics
    L_t  = - E_E[r_t] + (1 - γ) E_E[V(z_0)] + E[r_t²] / (4 α)
    min_{h,d,Q}  c_z Σ_t ρ^t E(z_{t+1} - ẑ_{t+1})² / H  +  c_q Σ_t ρ^t mean_Q L_t / H
                 [+ c_p E(‖∇ Q‖ - 1)² between expert and learner]
    min_π        Σ_t ρ^t E[β log π(ã|z_t) - min_2 Q(z_t, ã)] / (H + 1)
    Q̄ ← Q̄ + τ (Q - Q̄)

with min_2 over two critics drawn at random. The planner's score of a plan is the decoded
return, Σ_t γ^t [r_t - β log π(a_t|z_t)] + γ^H V(z_H), which telescopes: all but the first
critic leave soft advantages alone,

    φ = Q(z_0, a_0) - β log π(a_0|z_0) + Σ_{0<t<H} γ^t [Q - V - β log π](z_t, a_t)

so that the last step of the model and V(z_H) cancel and are not computed. All plans of a
call share one pair of critics and one draw of noise.

Source: Li, Huang & Su 2025, Reward-free World Models for Online Imitation Learning, arXiv
2410.14081.
Departures: the score is the paper's, telescoped, without the noise that its code adds
(`score="published"` adds it); log π is of the planned action; nothing is bootstrapped from
an end for good.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.agents.common import latent_planning
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
from planil_jax.data import replay
from planil_jax.losses import adversarial, inverse_q, world_model
from planil_jax.nets import fit, heads, latent


@dataclass(frozen=True, kw_only=True)
class Config:
    core: latent_planning.Config = field(default_factory=latent_planning.Config)
    alpha: float = 0.5  # α, how far decoded rewards may go: to ±4α
    objective: str = "start"  # (1 - γ) E[V(s_0)], or "value": E[V - γ V̄'] of the learner
    consistency: float = 20.0  # c_z
    critic: float = 0.1  # c_q
    gradient_penalty: float = 0.0  # c_p
    expert_noise: float = 0.0  # on the expert's actions, where critics read them
    value_samples: int = 1  # actions that V is a mean over, in the planner's score
    score: str = "telescoped"  # of a plan; or as the code has it, "published"


def published() -> Config:
    """The choices of its authors' code, where they are choices here.

    Not among them: log π whose Gaussian part is multiplied by the number of actions, and a
    policy whose parameters count in the norm of the model's clipped gradient.
    """
    return Config(score="published")


def NEEDS(config: Config) -> Needs:  # noqa: N802
    """Demonstrations of whole observations with actions, in sequences of H steps."""
    return Needs(
        actions=True, full_observations=True, pixels=True, sequence=config.core.horizon
    )


@struct.dataclass
class State:
    params: latent_planning.InferenceParams
    model: Fit  # of {"encoder", "step", "critics"}
    policy: Fit
    target: Params  # Q̄
    replay: replay.Replay | None  # None within a loop that does not change it


def make(task: Task, config: Config) -> Agent:
    """IQ-MPC in an environment of this spec.

    Raises:
      UsageError: a setting is unknown.
    """
    spec = task.spec
    if config.objective not in ("start", "value"):
        raise UsageError(
            f"agent.objective is 'start' or 'value', not {config.objective!r}."
        )
    scores = {"telescoped": plan_score, "published": published_score}
    if config.score not in scores:
        raise UsageError(
            f"agent.score is one of {', '.join(scores)}, not {config.score!r}."
        )
    core, parts = config.core, latent_planning.make(spec, config.core)
    model, critics, policy = parts.model, parts.critics, parts.policy
    score = functools.partial(scores[config.score], config, parts)
    carry, act = latent_planning.acting(spec, core, parts, score)

    def init(key: jax.Array) -> State:
        model_key, critics_key, policy_key = jax.random.split(key, 3)
        params = model.init(model_key) | {"critics": critics.init(critics_key)}
        fitted = parts.model_fit.init(params)
        fitted_policy = parts.policy_fit.init(policy.init(policy_key))
        return State(
            params=latent_planning.InferenceParams(
                params, fitted_policy.params, jnp.ones((), bool)
            ),
            model=fitted,
            policy=fitted_policy,
            target=params["critics"],
            replay=latent_planning.empty_replay(spec, core, task.num_envs),
        )

    def update(
        state: State, rollout: Transition, demos: Demonstrations, key: jax.Array, round_
    ) -> tuple[State, Metrics]:
        assert state.replay is not None
        held = latent_planning.insert(state.replay, parts, rollout)
        places = latent_planning.valid_starts(held, parts, core)
        warming, count = latent_planning.warming(core, round_, rollout)

        def improve(state: State, key: jax.Array) -> tuple[State, Metrics]:
            own_key, expert_key, key = jax.random.split(key, 3)
            own = latent_planning.sample_replay(held, places, parts, core, own_key)
            expert = latent_planning.sample_demos(demos, parts, core, expert_key)
            return learn(state, own, expert, key)

        slim = dataclasses.replace(state, replay=None)
        slim, metrics = latent_planning.fori_mean(improve, slim, key, count)
        params = latent_planning.ema_params(
            core, state.params, slim.model.params, slim.policy.params, warming
        )
        return dataclasses.replace(slim, params=params, replay=held), metrics

    def learn(
        state: State,
        own: latent_planning.Sequences,
        expert: latent_planning.Sequences,
        key: jax.Array,
    ) -> tuple[State, Metrics]:
        model_key, pair_key, policy_key = jax.random.split(key, 3)
        loss_fn = functools.partial(model_loss, config, parts)
        gradients, (zs, metrics) = jax.grad(loss_fn, has_aux=True)(
            state.model.params, state.policy.params, state.target, own, expert, model_key
        )
        fitted = parts.model_fit.step(state.model, gradients)
        pair = latent.choose(fitted.params["critics"], pair_key)
        fitted_policy, told = latent_planning.fit_policy(
            parts, core, state.policy, functools.partial(value, parts, pair), zs, policy_key
        )
        target = fit.polyak(state.target, fitted.params["critics"], core.target_rate)
        state = dataclasses.replace(
            state, model=fitted, policy=fitted_policy, target=target
        )
        steep = {"encoder/gradient_norm": optax.tree.norm(gradients["encoder"])}
        return state, metrics | told | steep

    return Agent(init=init, carry=carry, act=act, update=update)


def value(
    parts: latent_planning.Components, pair: Params, z: jax.Array, actions: jax.Array
):
    """min_2 Q `[...]`."""
    return jnp.min(parts.critics.apply(pair, z, actions)[..., 0], axis=0)


def soft_value(
    config: Config,
    parts: latent_planning.Components,
    pair: Params,
    policy: heads.TanhNormal,
    z: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """V `[...]` at z `[..., Z]`, of one action of the policy there."""
    actions, log_probs = parts.policy.sample(policy, key)
    return value(parts, pair, z, actions) - config.core.entropy_coef * log_probs


def plan_score(
    config: Config,
    parts: latent_planning.Components,
    params: latent_planning.InferenceParams,
    z_0: jax.Array,
    key: jax.Array,
) -> Callable[[jax.Array], jax.Array]:
    """φ of plans from z_0 `[Z]`: `(actions [H, U]) -> []`; H - 1 steps of the model."""
    beta, gamma = config.core.entropy_coef, parts.discount
    pair_key, value_key = jax.random.split(key)
    pair = latent.choose(params.model["critics"], pair_key, config.core.critic_subset)
    value_keys = jax.random.split(value_key, config.value_samples)

    def advantages(zs: jax.Array, actions: jax.Array) -> jax.Array:
        """[Q - V - β log π](z_t, a_t) `[T]`; critics take a_t and V's actions together."""
        policy = parts.policy.apply(params.policy, zs)
        sample = jax.vmap(jax.vmap(parts.policy.sample, (0, None)), (None, 0))
        own, own_log_probs = sample(policy, value_keys)
        values = value(parts, pair, zs, jnp.concatenate([actions[None], own]))  # [1 + S, T]
        soft = jnp.mean(values[1:] - beta * own_log_probs, axis=0)
        return values[0] - soft - beta * parts.policy.log_prob(policy, actions)

    def score(actions: jax.Array) -> jax.Array:
        policy = parts.policy.apply(params.policy, z_0)
        first = value(parts, pair, z_0, actions[0])
        first -= beta * parts.policy.log_prob(policy, actions[0])
        if len(actions) == 1:
            return first
        # All later steps at once: fewer products, of larger matrices.
        zs = parts.model.rollout(params.model, z_0, actions[:-1])[1:]
        weights = gamma ** jnp.arange(1, len(actions))
        return first + jnp.sum(weights * advantages(zs, actions[1:]))

    return score


def published_score(
    config: Config,
    parts: latent_planning.Components,
    params: latent_planning.InferenceParams,
    z_0: jax.Array,
    key: jax.Array,
) -> Callable[[jax.Array], jax.Array]:
    """As `plan_score`, and as its authors' code has it; H steps of the model.

        Σ_{t<H} γ^t [Q(z_t, a_t) - γ V(z_{t+1}) - β log π(ã_t|z_t)] + γ^H V'(z_H)

    Every V draws an action and two critics of its own, so that nothing telescopes; log π is
    of an action that is drawn, not of the planned one; V' is of the mean of two critics.
    """
    beta, gamma = config.core.entropy_coef, parts.discount

    def drawn(z: jax.Array, key: jax.Array, of_two: Callable) -> jax.Array:
        """V of z, of two critics."""
        pair_key, action_key = jax.random.split(key)
        pair = latent.choose(params.model["critics"], pair_key)
        chosen = parts.policy.apply(params.policy, z)
        action, log_prob = parts.policy.sample(chosen, action_key)
        return of_two(parts.critics.apply(pair, z, action)[..., 0]) - beta * log_prob

    def score(actions: jax.Array) -> jax.Array:
        total, z = jnp.zeros(()), z_0
        for t, action in enumerate(actions):
            pair_key, here_key, next_key = jax.random.split(jax.random.fold_in(key, t), 3)
            pair = latent.choose(params.model["critics"], pair_key)
            chosen = parts.policy.apply(params.policy, z)
            gain = value(parts, pair, z, action)
            gain -= beta * parts.policy.sample(chosen, here_key)[1]
            z = parts.model.step(params.model, z, action)
            total += gamma**t * (gain - gamma * drawn(z, next_key, jnp.min))
        last = drawn(z, jax.random.fold_in(key, len(actions)), jnp.mean)
        return total + gamma ** len(actions) * last

    return score


def recovered_reward(spec: EnvSpec, config: Config) -> Callable[..., jax.Array]:
    """`(params, obs [.., O], action [.., U], next_obs [.., O]) -> [..]`: Q - γ V.

    Of the mean of all critics, with V at the policy's mode.
    """
    parts = latent_planning.make(spec, config.core)

    def reward(params: latent_planning.InferenceParams, obs, action, next_obs) -> jax.Array:
        def q_value(z: jax.Array, actions: jax.Array) -> jax.Array:
            values = parts.critics.apply(params.model["critics"], z, actions)
            return jnp.mean(values[..., 0], axis=0)

        z, following = parts.model.encode(params.model, jnp.stack([obs, next_obs]))
        own = parts.policy.mode(parts.policy.apply(params.policy, following))
        return q_value(z, parts.unit(action)) - parts.discount * q_value(following, own)

    return reward


def model_loss(
    config: Config,
    parts: latent_planning.Components,
    params: Params,
    policy_params: Params,
    target: Params,
    own: latent_planning.Sequences,
    expert: latent_planning.Sequences,
    key: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
    """The loss of {"encoder", "step", "critics"}, with the latent states `[H + 1, 2 B]`
    of expert and learner, side by side, and metrics."""
    keys = jax.random.split(key, 6)
    model, core, gamma = parts.model, config.core, parts.discount
    both, count = latent_planning.joined(expert, own), expert.actions.shape[1]
    encoded = jax.lax.stop_gradient(model.encode(params, both.obs[1:]))
    zs = model.rollout(params, model.encode(params, both.obs[0]), both.actions)

    pair = latent.choose(target, keys[0])
    policy = parts.policy.apply(policy_params, encoded)
    next_values = soft_value(config, parts, pair, policy, encoded, keys[1])  # [H, 2 B]
    next_values = jax.lax.stop_gradient(next_values)
    actions = both.actions
    if config.expert_noise:
        noise = jax.random.normal(jax.random.fold_in(key, 1), expert.actions.shape)
        noisy = jnp.clip(expert.actions + config.expert_noise * noise, -1.0, 1.0)
        actions = actions.at[:, :count].set(noisy)
    values = parts.critics.apply(params["critics"], zs[:-1], actions, key=keys[2])
    rewards = inverse_q.decoded_rewards(
        values[..., 0], next_values, both.terminal, gamma
    )  # [M, H, 2 B]

    pair = latent.choose(params["critics"], keys[3])
    where = zs[:1, :count] if config.objective == "start" else zs[:-1, count:]
    policy = jax.lax.stop_gradient(parts.policy.apply(policy_params, where))
    here = soft_value(config, parts, pair, policy, where, keys[4])  # [1 or H, B]
    if config.objective == "start":
        start = jnp.broadcast_to((1 - gamma) * jnp.mean(here), (core.horizon,))
    else:
        following = gamma * ~own.terminal * next_values[:, count:]
        start = jnp.mean(here - following, axis=1)  # [H]

    def of_step(rewards: jax.Array, start: jax.Array) -> jax.Array:
        return inverse_q.inverse_soft_q(
            rewards[:count], rewards[count:], start, config.alpha
        )

    of_steps = jax.vmap(jax.vmap(of_step), (0, None))(rewards, start)  # [M, H]
    losses = {
        "model/consistency": world_model.consistency(zs[1:], encoded, core.horizon_decay),
        "critic/loss": world_model.over_horizon(
            jnp.mean(of_steps, axis=0), core.horizon_decay
        ),
    }
    total = config.consistency * losses["model/consistency"]
    total += config.critic * losses["critic/loss"]
    if config.gradient_penalty:
        losses["critic/penalty"] = _penalty(parts, pair, zs, both.actions, count, keys[5])
        total += config.gradient_penalty * losses["critic/penalty"]
    of_expert, of_learner = jnp.mean(values[..., 0], (0, 1)).reshape(2, count).mean(1)
    metrics = losses | {
        "critic/mean": jnp.mean(values),
        "critic/gap": of_expert - of_learner,
        "reward/expert": jnp.mean(rewards[..., :count]),
        "reward/learner": jnp.mean(rewards[..., count:]),
        "reward/beyond": jnp.mean(jnp.abs(rewards) > 4 * config.alpha),
    }
    return total, (zs, metrics)


def _penalty(parts, pair: Params, zs, actions, count: int, key: jax.Array) -> jax.Array:
    """c_p's term, over all steps of the sequences; of the critics alone."""

    def flat(x: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient(x.reshape(-1, x.shape[-1]))

    def mean_value(place: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.mean(parts.critics.apply(pair, *place))

    experts = flat(zs[:-1, :count]), flat(actions[:, :count])
    learners = flat(zs[:-1, count:]), flat(actions[:, count:])
    return adversarial.gradient_penalty(mean_value, experts, learners, key)


def shows(task: Task, config: Config) -> Shows:
    """The reward that was recovered."""
    return Shows(reward=recovered_reward(task.spec, config))
