"""MPAIL2: adversarial imitation from observations, planned in a learned latent space.

A gradient step, on sequences of H steps of the learner's and pairs of the expert's:

    z_0 = h(s_0),  z_{t+1} = d(z_t, a_t),   ẑ_t = sg h(s_t)
    min_{h,d}  Σ_t ρ^t E(z_{t+1} - ẑ_{t+1})² / H
    min_r      E_π[r(ẑ, ẑ')] - E_E[r(ẑ, ẑ')] + c_p E(‖∇r‖ - 1)²
    min_Q      E(Q(ẑ_t, a_t) - y_t)²,
               y_t = r(ẑ_t, ẑ_{t+1}) + γ [(1 - μ) v_{t+1} + μ y_{t+1}],   y_H = v_H,
               v_t = min_2 Q̄(ẑ_t, a'),   a' ~ π(·|ẑ_t)
    max_π      E[G_0],  a_{0:H} ~ π(·|ẑ_0) all at once, rolled through d:
               G_t = λ q_t + (1 - λ) [r_t + γ G_{t+1}] - α log π(a_t|z),   G_H = q_H
    α:         the policy's entropy is steered to -U a step;   Q̄ ← Q̄ + τ (Q - Q̄)

with q the mean of two critics drawn at random. The encoder learns from its prediction
alone. The planner's score of a plan is

    ω q(z_0, a_0) + (1 - ω) [Σ_{t<H} γ^t r(z_t, z_{t+1}) + γ^H q(z_H, a)],

a the first action of π(·|z_H); plans of the policy compete in every iteration. The bracket
is what the model tells, and the planner finds the plans that the model is wrong about. What
critics tell of the first action takes no model: it is asked about a state that was seen.
Nor are critics right about what is seldom done, but of that they think differently. With
`accept_if_all_critics_prefer` a plan acts, when it does not explore, where every critic prefers its first
action to the policy's, and elsewhere the policy.

An end for good is a latent state e of its own, from which no action leads elsewhere:
ẑ_{t+1} is e where a step ends its episode, and from there on. A learner that falls is, step
after step, where no demonstrator ever was; a value of 0 would be worth more than a negative
reward. E_π counts e 1 / (1 - γ) times, and E_E too, of a demonstrator that ends. Nothing of
it is estimated: e is worth r(e, e) / (1 - γ). Were each end told by what was seen last, one
that is new would be worth whatever the reward makes of it, and the learner would find the
one that looks best. Demonstrations hold observations only.

What v asks for is an action of the policy, which, where plans act, may be one that is never
tried; what critics hope of it nothing then corrects, and step by step they hope for more.
With μ > 0 what was done counts as well. Critics tell values in `value_scale`s, as those of
γ = 0.99 are a hundred times as large as rewards, and a network is slow to grow to them.

Source: Han et al. 2026, MPAIL2, arXiv 2602.24121; the planner after Hansen, Su & Wang 2024,
arXiv 2310.16828; of e, Kostrikov et al. 2019, Discriminator-Actor-Critic, arXiv 1809.02925,
whose absorbing state comes after what was seen last; here it takes that one's place.
Departures from its published code: the plan of the last step is where the next begins;
actions are squashed once; G is the recursion above; the last reward of a plan counts; an
end of time is no end; the replay is a ring; only the critics that are used are evaluated;
μ and ω, which are 0 there, `value_scale`, 1, and `accept_if_all_critics_prefer`, False.
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
    Network,
    Params,
    Shows,
    Task,
    Transition,
)
from planil_jax.data import replay
from planil_jax.losses import adversarial, returns, world_model
from planil_jax.losses import policy as losses
from planil_jax.nets import fit, latent, mlp


def _core() -> latent_planning.Config:
    usual = latent_planning.Config()
    planner = dataclasses.replace(usual.planner, horizon=7, iterations=5)
    return dataclasses.replace(
        usual, planner=planner, horizon=7, horizon_decay=0.95, encoder_share=0.1
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    core: latent_planning.Config = field(
        default_factory=_core
    )  # its `entropy_coef` is α at first
    reward: mlp.Config = field(
        default_factory=lambda: mlp.Config(hidden=(512, 512), activation="silu")
    )
    gradient_penalty: float = 0.1  # c_p
    policy_lambda: float = 0.95  # λ
    td_lambda: float = 0.0  # μ
    value_scale: float = 1.0  # what a critic's output of 1 stands for
    q_weight: float = 0.0  # ω, of a plan's score
    accept_if_all_critics_prefer: bool = (
        False  # whether a plan acts only where all critics are for it
    )
    absorbing: bool = True  # whether an end for good lasts, or else is worth 0
    critic_grad_norm: float = 5.0
    policy_grad_norm: float = 1.0


NEEDS = Needs(full_observations=True, pixels=True)


@struct.dataclass
class State:
    params: (
        latent_planning.InferenceParams
    )  # its model: {"encoder", "step", "critics", "reward"}
    model: Fit  # of {"encoder", "step"}
    reward: Fit
    critics: Fit
    policy: Fit
    temperature: Fit  # of log α
    target: Params  # Q̄
    replay: replay.Replay | None  # None within a loop that does not change it


def make(task: Task, config: Config) -> Agent:
    """MPAIL2 in an environment of this spec."""
    spec = task.spec
    core = config.core
    absorbing = spec.terminates and config.absorbing
    parts = latent_planning.make(spec, core, steps=core.planner.horizon)
    size, end = core.network.latent, latent.absorbing_embedding(core.network)
    reward = mlp.make_scalar(config.reward, (size, size))
    reward_fit = fit.make(latent_planning.adam(core))

    def clipped(norm: float) -> fit.Optimizer:
        return fit.make(
            optax.chain(optax.clip_by_global_norm(norm), latent_planning.adam(core))
        )

    critics_fit = clipped(config.critic_grad_norm)
    policy_fit = clipped(config.policy_grad_norm)
    carry, act = latent_planning.acting(
        spec,
        core,
        parts,
        functools.partial(plan_score, config, parts, reward),
        functools.partial(all_critics_prefer, parts)
        if config.accept_if_all_critics_prefer
        else None,
    )

    def init(key: jax.Array) -> State:
        model_key, reward_key, critics_key, policy_key = jax.random.split(key, 4)
        model = parts.model_fit.init(parts.model.init(model_key))
        fitted_reward = reward_fit.init(reward.init(reward_key))
        critics = critics_fit.init(parts.critics.init(critics_key))
        policy = policy_fit.init(parts.policy.init(policy_key))
        log_temperature = jnp.log(jnp.asarray(core.entropy_coef, jnp.float32))
        return State(
            params=latent_planning.InferenceParams(
                _model(model, fitted_reward, critics), policy.params, jnp.ones((), bool)
            ),
            model=model,
            reward=fitted_reward,
            critics=critics,
            policy=policy,
            temperature=reward_fit.init(log_temperature),
            target=critics.params,
            replay=latent_planning.empty_replay(spec, core, task.num_envs),
        )

    def update(
        state: State, rollout: Transition, demos: Demonstrations, key: jax.Array, round_
    ) -> tuple[State, Metrics]:
        assert state.replay is not None
        held = latent_planning.insert(state.replay, parts, rollout)
        places = latent_planning.valid_starts(held, parts, core, past_ends=absorbing)
        warming, count = latent_planning.warming(core, round_, rollout)

        def improve(state: State, key: jax.Array) -> tuple[State, Metrics]:
            own_key, expert_key, key = jax.random.split(key, 3)
            own = latent_planning.sample_replay(held, places, parts, core, own_key)
            if absorbing:
                own = latent_planning.absorbing_from_terminal(own)
            shown = latent_planning.expert_pairs(demos, parts, core, expert_key)
            return learn(state, own, *shown, key)

        slim = dataclasses.replace(state, replay=None)
        slim, metrics = latent_planning.fori_mean(improve, slim, key, count)
        model = _model(slim.model, slim.reward, slim.critics)
        params = latent_planning.ema_params(
            core, state.params, model, slim.policy.params, warming
        )
        return dataclasses.replace(slim, params=params, replay=held), metrics

    def learn(
        state: State,
        own: latent_planning.Sequences,
        pairs: jax.Array,
        expert_ends: jax.Array,
        key: jax.Array,
    ) -> tuple[State, Metrics]:
        visit_key, reward_key, critic_key, policy_key = jax.random.split(key, 4)

        # The model; what it encoded serves all that follows.
        of_model = functools.partial(model_loss, core, parts, end if absorbing else None)
        gradients, (encoded, told) = jax.grad(of_model, has_aux=True)(
            state.model.params, own
        )  # encoded [H + 1, B, Z]
        model = parts.model_fit.step(state.model, gradients)
        expert = parts.model.encode(state.model.params, pairs)  # [2, B, Z]

        learner = encoded[:2]
        if absorbing:
            stay, keys = 1 / (1 - parts.discount), jax.random.split(visit_key)
            expert = expert.at[1].set(jnp.where(expert_ends[:, None], end, expert[1]))
            expert = reweight_absorbing(expert, expert_ends * stay, end, keys[0])
            # Each end of the learner's is in H sequences.
            occupancy = own.terminal[-1] * stay / core.horizon
            learner = reweight_absorbing(learner, occupancy, end, keys[1])
        of_reward = functools.partial(reward_loss, config, reward)
        gradients, told_reward = jax.grad(of_reward, has_aux=True)(
            state.reward.params, learner, expert, reward_key
        )
        fitted_reward = reward_fit.step(state.reward, gradients)

        of_critics = functools.partial(critic_loss, config, parts, reward, absorbing)
        gradients, told_critic = jax.grad(of_critics, has_aux=True)(
            state.critics.params,
            state.target,
            fitted_reward.params,
            state.policy.params,
            own,
            encoded,
            critic_key,
        )
        critics = critics_fit.step(state.critics, gradients)

        judges = {"reward": fitted_reward.params, "critics": critics.params}
        temperature = jnp.exp(state.temperature.params)
        of_policy = functools.partial(policy_loss, config, parts, reward)
        gradients, (log_probs, told_policy) = jax.grad(of_policy, has_aux=True)(
            state.policy.params,
            model.params | judges,
            temperature,
            encoded[0],
            policy_key,
        )
        policy = policy_fit.step(state.policy, gradients)
        gradient = jax.grad(losses.soft_temperature)(
            state.temperature.params, log_probs.reshape(-1), -float(spec.action_size)
        )
        state = dataclasses.replace(
            state,
            model=model,
            reward=fitted_reward,
            critics=critics,
            policy=policy,
            temperature=reward_fit.step(state.temperature, gradient),
            target=fit.polyak(state.target, critics.params, core.target_rate),
        )
        return state, told | told_reward | told_critic | told_policy

    return Agent(init=init, carry=carry, act=act, update=update)


def _model(model: Fit, reward: Fit, critics: Fit) -> Params:
    """Of `Acting`."""
    return model.params | {"reward": reward.params, "critics": critics.params}


def reweight_absorbing(
    pairs: jax.Array, occupancy: jax.Array, end: jax.Array, key: jax.Array
):
    """Of pairs `[2, B, Z]` and of (e, e) as many, drawn as often as one is there.

    Without the steps that are spent in e a learner that falls at once is, by count, mostly
    where episodes begin, and seldom where it lies: less like the expert at the start than
    at the end, it learns to fall the sooner.

    Args:
      stays: steps `[B]` spent in e after a pair, 0 where its episode goes on.
      end: e `[Z]`.
    """
    count = len(occupancy)
    weights = jnp.append(jnp.ones(count), jnp.sum(occupancy))
    chosen = jax.random.choice(key, count + 1, (count,), p=weights / jnp.sum(weights))
    of_end = jnp.broadcast_to(end, (2, 1, len(end)))
    return jnp.concatenate([pairs, of_end], axis=1)[:, chosen]


def value(
    config: Config,
    parts: latent_planning.Components,
    pair: Params,
    z: jax.Array,
    actions: jax.Array,
) -> jax.Array:
    """q: the mean of two critics `[...]`."""
    told = parts.critics.apply(pair, z, actions)[..., 0]
    return config.value_scale * jnp.mean(told, axis=0)


def first_action(
    parts: latent_planning.Components, policy_params: Params, z: jax.Array, key: jax.Array
):
    """What π does at once in z `[..., Z]`, `[..., U]`."""
    chosen = parts.policy.apply(policy_params, z)
    chosen = jax.tree.map(lambda leaf: leaf[..., 0, :], chosen)
    return parts.policy.sample(chosen, key)[0]


def plan_score(
    config: Config,
    parts: latent_planning.Components,
    reward: Network,
    params: latent_planning.InferenceParams,
    z_0: jax.Array,
    key: jax.Array,
) -> Callable[[jax.Array], jax.Array]:
    """The score of plans from z_0 `[Z]`: `(actions [H, U]) -> []`."""
    pair_key, last_key = jax.random.split(key)
    pair = latent.choose(params.model["critics"], pair_key)
    share = config.q_weight  # 0: nobody is asked about the first action

    def score(actions: jax.Array) -> jax.Array:
        total, z = jnp.zeros(()), z_0
        for t, action in enumerate(actions):
            following = parts.model.step(params.model, z, action)
            gain = reward.apply(params.model["reward"], z, following)
            total, z = total + parts.discount**t * gain, following
        last = first_action(parts, params.policy, z, last_key)
        total += parts.discount ** len(actions) * value(config, parts, pair, z, last)
        if share:
            told = value(config, parts, pair, z_0, actions[0])
            total = share * told + (1 - share) * total
        return total

    return score


def all_critics_prefer(
    parts: latent_planning.Components,
    params: latent_planning.InferenceParams,
    z: jax.Array,
    planned: jax.Array,
    own: jax.Array,
) -> jax.Array:
    """Whether each critic has a planned action `[U]` above the policy's own in z, `[]`."""
    critics = params.model["critics"]
    told, of_own = (parts.critics.apply(critics, z, a)[..., 0] for a in (planned, own))
    return jnp.all(told > of_own)


def recovered_reward(spec: EnvSpec, config: Config) -> Callable[..., jax.Array]:
    """r: `(params, obs [.., O], action [.., U], next_obs [.., O]) -> [..]`."""
    parts, size = latent_planning.make(spec, config.core), config.core.network.latent
    network = mlp.make_scalar(config.reward, (size, size))

    def reward(params: latent_planning.InferenceParams, obs, action, next_obs) -> jax.Array:
        del action
        zs = parts.model.encode(params.model, jnp.stack([obs, next_obs]))
        return network.apply(params.model["reward"], zs[0], zs[1])

    return reward


# ---------------------------------------------------------------------------------- losses


def model_loss(
    core: latent_planning.Config,
    parts: latent_planning.Components,
    end: jax.Array | None,
    params: Params,
    own: latent_planning.Sequences,
) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
    """Of {"encoder", "step"}, with ẑ `[H + 1, B, Z]` and metrics.

    Args:
      end: e `[Z]`, or None: an end is no other state.
    """
    first = parts.model.encode(params, own.obs[0])
    later = jax.lax.stop_gradient(parts.model.encode(params, own.obs[1:]))
    if end is not None:
        later = jnp.where(own.terminal[..., None], end, later)
    zs = parts.model.rollout(params, first, own.actions)
    loss = world_model.consistency(zs[1:], later, core.horizon_decay)
    encoded = jnp.concatenate([jax.lax.stop_gradient(first)[None], later])
    return loss, (encoded, {"model/consistency": loss})


def reward_loss(
    config: Config,
    reward: Network,
    params: Params,
    learner: jax.Array,
    expert: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Of r, on pairs `[2, B, Z]` of both."""
    of_learner = reward.apply(params, learner[0], learner[1])
    of_expert = reward.apply(params, expert[0], expert[1])
    penalty = adversarial.gradient_penalty(
        lambda pair: reward.apply(params, *pair),
        (expert[0], expert[1]),
        (learner[0], learner[1]),
        key,
    )
    distance = adversarial.wasserstein(of_expert, of_learner)
    return distance + config.gradient_penalty * penalty, {
        "reward/distance": -distance,
        "reward/penalty": penalty,
        "reward/expert": jnp.mean(of_expert),
        "reward/learner": jnp.mean(of_learner),
    }


def critic_loss(
    config: Config,
    parts: latent_planning.Components,
    reward: Network,
    absorbing: bool,
    params: Params,
    target: Params,
    reward_params: Params,
    policy_params: Params,
    own: latent_planning.Sequences,
    encoded: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Of the critics, on all steps of sequences whose ẑ are `encoded` `[H + 1, B, Z]`.

    Args:
      lasting: whether an end for good lasts, or else is worth 0.
    """
    pair_key, action_key, dropout_key = jax.random.split(key, 3)
    gamma, mu, unit = parts.discount, config.td_lambda, config.value_scale
    z, following = encoded[:-1], encoded[1:]
    rewards = reward.apply(reward_params, z, following)  # [H, B]
    actions = first_action(parts, policy_params, following, action_key)
    told = parts.critics.apply(latent.choose(target, pair_key), following, actions)
    next_values = unit * jnp.min(told[..., 0], axis=0)
    occupancy = reward.apply(reward_params, following, following) / (1 - gamma)
    next_values = jnp.where(own.terminal, occupancy if absorbing else 0.0, next_values)
    foreseen = jax.vmap(returns.lambda_returns, (1, 1, None, 1, None), 1)(
        rewards, next_values, jnp.full(len(rewards), gamma), own.terminal, mu
    )
    targets = jax.lax.stop_gradient(foreseen / unit)
    values = parts.critics.apply(params, z, own.actions, key=dropout_key)[..., 0]
    loss = jnp.mean((values - targets) ** 2)
    return loss, {"critic/loss": loss, "critic/mean": unit * jnp.mean(values)}


def policy_loss(
    config: Config,
    parts: latent_planning.Components,
    reward: Network,
    params: Params,
    model: Params,
    temperature: jax.Array,
    z: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
    """-E[G_0] of π in ẑ `[B, Z]`, with log π `[B, H]` and metrics."""
    pair_key, plan_key, last_key = jax.random.split(key, 3)
    pair, gamma = latent.choose(model["critics"], pair_key), parts.discount
    plans, log_probs = parts.policy.sample(parts.policy.apply(params, z), plan_key)
    actions = jnp.moveaxis(plans, 1, 0)  # [H, B, U]
    zs = parts.model.rollout(model, z, actions)
    rewards = reward.apply(model["reward"], zs[:-1], zs[1:])  # [H, B]
    last = first_action(parts, params, zs[-1], last_key)
    done = jnp.concatenate([actions, last[None]])
    values = value(config, parts, pair, zs, done)  # [H + 1, B]
    gain = values[-1]
    for t in reversed(range(len(actions))):
        foreseen = rewards[t] + gamma * gain
        gain = config.policy_lambda * values[t] + (1 - config.policy_lambda) * foreseen
        gain -= temperature * log_probs[:, t]
    return -jnp.mean(gain), (
        log_probs,
        {
            "policy/gain": jnp.mean(gain),
            "policy/entropy": -jnp.mean(log_probs),
            "policy/temperature": temperature,
        },
    )


def shows(task: Task, config: Config) -> Shows:
    """The reward that was recovered."""
    return Shows(reward=recovered_reward(task.spec, config))
