"""MAIL: a policy that is differentiated through a learned model and a discriminator.

With the logit l(s, a) (high: expert) and a_t = π(s_t, ξ_t), a Gaussian with its noise ξ
drawn beforehand, or a straight-through Gumbel-softmax where actions are choices; an
iteration, after a round's steps have entered the replay:

    1. model f:   max  E log p(s'|s, a)                        on the replay
    2. l:         min  E_expert[softplus(-l)] + E_replay[softplus(l)] + penalty
    3. policy:    min  E Σ_{t<H} γ^t cost(l(s_t, a_t)),   s_{t+1} = f(s_t, a_t)

from states s_0 of the replay, by the gradient of the sum as it stands, through all H steps
of policy and model:

    J_s = c_s + c_a π_s + γ J'_s (f_s + f_a π_s)
    J_θ = c_a π_θ + γ (J'_s f_a π_θ + J'_θ)

Cost is a reward of a logit, negated: "neg_prob" is the paper's probability that it was the
policy, "gail_neg" is -log D of its code, which does not saturate where the expert is far.

The states along which is differentiated may be real ones, with gradients of the model at
them (`correct`), or the model may be true physics (`roll`).

Source: Baram, Anschel & Mannor 2016, Model-based Adversarial Imitation Learning, arXiv
1612.02179, equations 10 and 11; line 12 of its Algorithm 1 prints π_θ for the π_s of J_s.
Departures: a gradient penalty; one normaliser of all that is observed; after an end of an
episode the model goes on.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.agents.common import forward_model
from planil_jax.base import (
    Agent,
    Demonstrations,
    Dynamics,
    EnvSpec,
    EnvState,
    Fit,
    Metrics,
    Needs,
    Network,
    Params,
    Shows,
    Task,
    Transition,
    UsageError,
)
from planil_jax.data import demos as demonstrations
from planil_jax.data import replay
from planil_jax.losses import adversarial
from planil_jax.models import ensemble, unroll
from planil_jax.nets import fit, forward, heads, mlp, normalise
from planil_jax.nets.normalise import Moments


@dataclass(frozen=True, kw_only=True)
class Config:
    policy: heads.Config = field(
        default_factory=lambda: heads.Config(
            network=mlp.Config(hidden=(64, 64), activation="tanh"), std=0.5
        )
    )
    discriminator: mlp.Config = field(
        default_factory=lambda: mlp.Config(hidden=(128, 128), activation="tanh")
    )
    model: ensemble.Config = field(default_factory=ensemble.Config)
    roll: str = "model"  # what the policy is rolled through; or "physics", known ones
    correct: str = "none"  # to states "recorded" in the last round, or of "physics"
    reward: str = "gail_neg"  # a name of losses.adversarial.REWARDS, cost negated
    horizon: int = 25  # H, steps
    discount: float = 0.99  # γ
    gradient_penalty: float = 1.0  # weight
    penalty_norm: float = 1.0  # the slope of l that costs nothing
    # On the expert's data, in deviations and half bounds; on choices there is none.
    expert_noise: float = 0.05
    expert_starts: float = 0.0  # share of s_0 that are the expert's states
    learn_std: bool = True  # whether the policy's deviation is learned, or stays
    temperature: float = 1.0  # τ of the policy's slope where actions are choices
    updates_per_step: float = 0.25  # iterations for each environment step
    model_steps: int = 1  # gradient steps of each part in an iteration
    discriminator_steps: int = 1
    policy_steps: int = 3
    model_length: int = 1  # steps that the model foresees in its loss
    batch: int = 128  # steps of each class, or sequences for each member of the model
    policy_batch: int = 64  # s_0, shared out among the members
    capacity: int = 20_000  # steps of each environment that are kept
    model_lr: float = 1e-3  # Adam
    discriminator_lr: float = 1e-3
    discriminator_lr_half_life: int = (
        50_000  # gradient steps in which it halves; 0: it stays
    )
    policy_lr: float = 3e-4
    policy_lr_half_life: int = 0  # gradient steps in which it halves; 0: it stays
    max_grad_norm: float = 1.0  # of the policy


def published() -> Config:
    """The choices of its authors' code, where they are choices here.

    Not among them: dropout, an alternation of discriminator and policy in blocks of 100
    steps, a mean of 7 rollouts in a gradient, and clipping by entries. There, states are
    corrected by the simulator, which is set to the expert's states to start from; here, by
    what the last round recorded.
    """

    def relu(*hidden: int) -> mlp.Config:
        return mlp.Config(hidden=hidden, activation="relu")

    return Config(
        policy=heads.Config(network=relu(100, 50), std=0.1),
        discriminator=relu(200, 100),
        model=ensemble.Config(network=forward.Config(network=relu(100, 100, 100))),
        correct="recorded",
        horizon=10,
        gradient_penalty=0.0,
        expert_noise=0.0,
        learn_std=False,
        policy_steps=1,
        batch=70,
        policy_batch=70,
        model_lr=1e-4,
        discriminator_lr_half_life=0,
        policy_lr=1e-4,
    )


NEEDS = Needs(actions=True, full_observations=True, discrete=True)


@struct.dataclass
class InferenceParams:
    """The part that acts and is exported."""

    policy: Params
    discriminator: Params
    moments: Moments  # of observations


@struct.dataclass
class State:
    params: InferenceParams
    policy: Fit
    discriminator: Fit
    model: Fit  # of the networks [M]
    change: Moments  # of next_obs - obs
    replay: replay.Replay | None  # None within a loop that does not change it


class Components(NamedTuple):
    """What the agent is made of."""

    policy: heads.Policy
    judge: Network  # (params, obs [.., O] normalised, action [.., U] in [-1, 1]) -> [..]
    model: forward_model.Learner
    physics: Dynamics | None
    unit: Callable[[jax.Array], jax.Array]  # action [.., U] to [-1, 1]
    discrete: bool  # whether actions are choices
    policy_fit: fit.Optimizer
    discriminator_fit: fit.Optimizer


def make(task: Task, config: Config) -> Agent:
    """MAIL in an environment of this spec.

    Args:
      task: its dynamics are what the policy is rolled through, or corrected by, if
        `config` says so.

    Raises:
      UsageError: a setting is unknown or does not fit, or physics cannot be differentiated.
    """
    spec, physics = task.spec, task.dynamics
    _check(spec, config, physics)
    parts = make_parts(spec, config, physics)
    policy = parts.policy

    def act(params: InferenceParams, carry, state: EnvState, key: jax.Array, explore: bool):
        chosen = policy.apply(params.policy, normalise.apply(params.moments, state.obs))
        return (policy.sample(chosen, key)[0] if explore else policy.mode(chosen)), carry

    # ---------------------------------------------------------------------------- learning

    def init(key: jax.Array) -> State:
        policy_key, judge_key, model_key = jax.random.split(key, 3)
        fitted = parts.policy_fit.init(policy.init(policy_key))
        judge = parts.discriminator_fit.init(parts.judge.init(judge_key))
        model = parts.model.ensemble.dynamics.init(model_key)
        obs = jnp.zeros((spec.observation_size,), jnp.float32)
        step = {
            "obs": obs,
            "action": jnp.zeros((spec.action_size,), jnp.float32),
            "next_obs": obs,
            "ended": jnp.zeros((), bool),
        }
        return State(
            params=InferenceParams(fitted.params, judge.params, model.obs),
            policy=fitted,
            discriminator=judge,
            model=parts.model.fit.init(model.networks),
            change=model.change,
            replay=replay.init(step, config.capacity, task.num_envs),
        )

    def update(
        state: State, rollout: Transition, demos: Demonstrations, key: jax.Array, round_
    ) -> tuple[State, Metrics]:
        del round_
        assert state.replay is not None
        told = forward_model.fresh_errors(parts.model, model_of(state), rollout)
        steps = {
            "obs": rollout.obs,
            "action": rollout.action,
            "next_obs": rollout.next_obs,
            "ended": rollout.terminal | rollout.truncated,
        }
        held = replay.insert(state.replay, steps)
        of_model = _sequences(held, config.model_length)
        of_policy = _starts(config, held, steps, demos)
        known = ensemble.update_normalizer(model_of(state), rollout.obs, rollout.next_obs)
        acting = dataclasses.replace(state.params, moments=known.obs)
        slim = dataclasses.replace(state, params=acting, change=known.change, replay=None)

        def model_step(state: State, key: jax.Array) -> tuple[State, Metrics]:
            obs, actions = of_model(key, config.batch * config.model.members)
            return fit_model(parts, state, obs, actions)

        def discriminator_step(state: State, key: jax.Array) -> tuple[State, Metrics]:
            expert_key, own_key, key = jax.random.split(key, 3)
            obs, actions, _, _ = demonstrations.sample(demos, expert_key, config.batch)
            assert actions is not None  # needs_actions
            own = replay.sample(held, own_key, config.batch)
            expert, own = (obs, actions), (own["obs"], own["action"])
            return fit_discriminator(config, parts, state, expert, own, key)

        def policy_step(state: State, key: jax.Array) -> tuple[State, Metrics]:
            start_key, key = jax.random.split(key)
            obs, actions = of_policy(start_key)
            return fit_policy(config, parts, state, obs, actions, key)

        def iterate(state: State, key: jax.Array) -> tuple[State, Metrics]:
            keys, told = jax.random.split(key, 3), dict[str, jax.Array]()
            for one, key, count in (
                (model_step, keys[0], config.model_steps),
                (discriminator_step, keys[1], config.discriminator_steps),
                (policy_step, keys[2], config.policy_steps),
            ):
                state, metrics = jax.lax.scan(one, state, jax.random.split(key, count))
                told |= jax.tree.map(jnp.mean, metrics)
            return state, told

        count = max(round(config.updates_per_step * rollout.reward.size), 1)
        slim, metrics = jax.lax.scan(iterate, slim, jax.random.split(key, count))
        acting = InferenceParams(slim.policy.params, slim.discriminator.params, known.obs)
        state = dataclasses.replace(slim, params=acting, replay=held)
        return state, told | jax.tree.map(jnp.mean, metrics)

    return Agent(init=init, carry=lambda: (), act=act, update=update)


def make_parts(
    spec: EnvSpec, config: Config, physics: Dynamics | None = None
) -> Components:
    obs_size = spec.observation_size
    low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)
    clip = optax.clip_by_global_norm(config.max_grad_norm)
    judge_rate = fit.exponential_decay(
        config.discriminator_lr, config.discriminator_lr_half_life
    )
    policy_lr = fit.exponential_decay(config.policy_lr, config.policy_lr_half_life)
    return Components(
        policy=heads.make_for(spec, config.policy, (obs_size,), config.temperature),
        judge=mlp.make_scalar(config.discriminator, (obs_size, spec.action_size)),
        model=forward_model.make(spec, config.model, config.model_lr),
        physics=physics,
        unit=lambda action: (2 * action - low - high) / (high - low),
        discrete=spec.discrete,
        policy_fit=fit.make(optax.chain(clip, optax.adam(policy_lr))),
        discriminator_fit=fit.make(optax.adam(judge_rate)),
    )


def model_of(state: State) -> ensemble.ModelParams:
    """The parameters of the forward model, with which it can be planned through."""
    return ensemble.ModelParams(state.model.params, state.params.moments, state.change)


def recovered_reward(spec: EnvSpec, config: Config) -> Callable[..., jax.Array]:
    """l: `(params, obs [.., O], action [.., U], next_obs [.., O]) -> [..]`."""
    parts = make_parts(spec, config)

    def reward(params: InferenceParams, obs, action, next_obs) -> jax.Array:
        del next_obs
        seen = normalise.apply(params.moments, obs)
        return parts.judge.apply(params.discriminator, seen, parts.unit(action))

    return reward


# --------------------------------------------------------------------- one gradient step


def fit_model(
    parts: Components, state: State, obs: jax.Array, actions: jax.Array
) -> tuple[State, Metrics]:
    """On sequences obs `[H + 1, B, O]` and actions `[H, B, U]`."""
    fitted, metrics = forward_model.step(
        parts.model, state.model, model_of(state), obs, actions
    )
    return dataclasses.replace(state, model=fitted), metrics


def fit_discriminator(
    config: Config, parts: Components, state: State, expert, own, key: jax.Array
) -> tuple[State, Metrics]:
    """On pairs of obs `[B, O]` and actions `[B, U]` of each."""
    loss = functools.partial(discriminator_loss, config, parts)
    gradients, metrics = jax.grad(loss, has_aux=True)(
        state.discriminator.params, state.params.moments, expert, own, key
    )
    fitted = parts.discriminator_fit.step(state.discriminator, gradients)
    return dataclasses.replace(state, discriminator=fitted), metrics


def fit_policy(
    config: Config,
    parts: Components,
    state: State,
    obs: jax.Array,
    actions: jax.Array,
    key: jax.Array,
) -> tuple[State, Metrics]:
    """From starts or along records, as `policy_loss` takes them."""
    loss = functools.partial(policy_loss, config, parts)
    gradients, metrics = jax.grad(loss, has_aux=True)(
        state.policy.params, state.discriminator.params, model_of(state), obs, actions, key
    )
    fitted = parts.policy_fit.step(state.policy, gradients)
    metrics |= {"policy/gradient_norm": optax.tree.norm(gradients)}
    return dataclasses.replace(state, policy=fitted), metrics


# ---------------------------------------------------------------------------------- losses


def discriminator_loss(
    config: Config,
    parts: Components,
    params: Params,
    moments: Moments,
    expert: tuple[jax.Array, jax.Array],
    own: tuple[jax.Array, jax.Array],
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Cross-entropy, with noise on the expert's data, and a penalty.

    Args:
      expert, own: obs `[B, O]` and actions `[B, U]`.
    """
    obs_key, action_key, penalty_key = jax.random.split(key, 3)

    def look(obs: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        return normalise.apply(moments, obs), parts.unit(actions)

    def judge(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        return parts.judge.apply(params, *pair)

    seen, acted = look(*expert)
    seen += config.expert_noise * jax.random.normal(obs_key, seen.shape)
    if not parts.discrete:
        acted += config.expert_noise * jax.random.normal(action_key, acted.shape)
    expert = seen, acted
    own = look(*own)
    logits = judge(expert), judge(own)
    loss, told = adversarial.discrimination(*logits)
    penalty = adversarial.gradient_penalty(
        judge, expert, own, penalty_key, config.penalty_norm
    )
    told |= {"discriminator/penalty": penalty}
    return loss + config.gradient_penalty * penalty, told


def policy_loss(
    config: Config,
    parts: Components,
    params: Params,
    judge: Params,
    model: ensemble.ModelParams,
    obs: jax.Array,
    actions: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Σ_{t<H} γ^t cost along the policy's own path, averaged over starts `[B]`.

    Args:
      obs, actions: recorded sequences `[H + 1, B, O]` and `[H, B, U]`, where the states are
        corrected to them; else what comes after obs[0] is not looked at.
    """
    noise_key, model_key = jax.random.split(key)
    horizon, batch, members = config.horizon, obs.shape[1], config.model.members
    keys = jax.random.split(model_key, (horizon, batch))
    records = config.correct == "recorded"
    drawn = parts.policy.noise(noise_key, (horizon, *actions.shape[1:]))
    inputs = (drawn, actions if records else ())

    def act(seen: jax.Array, given: tuple[jax.Array, Any]) -> jax.Array:
        chosen = parts.policy.apply(params, normalise.apply(model.obs, seen))
        noise, done = given
        if records:
            noise = jax.lax.stop_gradient(parts.policy.inverse_noise(chosen, done, noise))
        if isinstance(chosen, heads.TanhNormal) and not config.learn_std:
            chosen = heads.TanhNormal(chosen.mean, jax.lax.stop_gradient(chosen.std))
        return parts.policy.rsample(chosen, noise)

    def path(model: ensemble.ModelParams, obs: jax.Array, inputs, keys: jax.Array):
        dynamics, both = _rolled(config, parts, model, obs)
        return unroll.path(act, dynamics, both, obs[0], inputs, keys)

    paths = jax.vmap(path, (None, 1, 1, 1), 1)
    paths_of_members = jax.vmap(paths, (ensemble.EACH, 1, 1, 1), 1)
    shares = jax.tree.map(lambda x: forward_model.shared(x, members), (obs, inputs, keys))
    seen, acted = paths_of_members(model, *shares)  # [H, M, B / M, ...]
    logits = parts.judge.apply(judge, normalise.apply(model.obs, seen), parts.unit(acted))
    costs = -adversarial.reward_of(config.reward)(logits).reshape(horizon, batch)
    weights = config.discount ** jnp.arange(horizon, dtype=jnp.float32)
    return jnp.mean(weights @ costs), {
        "policy/cost": jnp.mean(costs),
        "policy/logit": jnp.mean(logits),
    }


def _rolled(config: Config, parts: Components, model: ensemble.ModelParams, obs: jax.Array):
    """What the policy is rolled through from a recorded sequence `[H + 1, O]`, and its
    parameters."""
    member, physics = parts.model.ensemble.member, parts.physics
    if config.roll == "physics":
        return physics, ()
    if config.correct == "recorded":
        return unroll.straight_through(member, unroll.recorded()), (model, obs)
    if config.correct == "physics":
        assert physics is not None
        return unroll.straight_through(member, physics), (model, ())
    return member, model


def _sequences(held: replay.Replay, length: int):
    """Draws obs `[length + 1, B, O]` and actions `[length, B, U]`, by key and B."""
    places = replay.sequence_starts(held, held.steps["ended"], length)

    def draw(key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
        drawn = replay.sample_sequences(held, places, key, batch, length)
        return jnp.concatenate([drawn["obs"][:1], drawn["next_obs"]]), drawn["action"]

    return draw


def _starts(config: Config, held: replay.Replay, steps, demos: Demonstrations):
    """Draws, by key, what the policy's loss begins with.

    Records are of the last round alone: those of older policies would tell how to better
    these.
    """
    batch = config.policy_batch
    if config.correct == "recorded":
        length = steps["obs"].shape[0]
        if length < config.horizon:
            raise UsageError(
                f"agent.correct=recorded takes {config.horizon} steps out of a round of "
                f"{length}: raise loop.steps, or lower agent.horizon."
            )
        zero = jnp.zeros((), jnp.int32)
        draw_records = _sequences(replay.Replay(steps, zero, zero + length), config.horizon)
        return lambda key: draw_records(key, batch)
    draw_own, count = _sequences(held, 1), round(config.expert_starts * batch)

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        own_key, expert_key = jax.random.split(key)
        obs, actions = draw_own(own_key, batch)
        if count:
            theirs = demonstrations.sample(demos, expert_key, count)[0]
            obs = obs.at[0, :count].set(theirs)
        return obs, actions

    return draw


def _check(spec: EnvSpec, config: Config, physics: Dynamics | None) -> None:
    """Refuses settings that do not go together."""
    adversarial.reward_of(config.reward)
    rolls, corrections = ("model", "physics"), ("none", "recorded", "physics")
    if config.roll not in rolls:
        raise UsageError(f"agent.roll is one of {', '.join(rolls)}, not {config.roll!r}.")
    if config.correct not in corrections:
        raise UsageError(
            f"agent.correct is one of {', '.join(corrections)}, not {config.correct!r}."
        )
    if config.roll == "physics" and config.correct != "none":
        raise UsageError(
            "agent.roll=physics leaves nothing to correct: choose agent.correct=none, or "
            "agent.roll=model."
        )
    if config.correct == "recorded" and config.expert_starts:
        raise UsageError(
            "agent.correct=recorded starts where its records do: choose "
            "agent.expert_starts=0."
        )
    if config.policy_batch % config.model.members:
        raise UsageError(
            f"agent.policy_batch, {config.policy_batch}, must be a multiple of "
            f"agent.model.members, {config.model.members}."
        )
    if "physics" in (config.roll, config.correct):
        if physics is None or physics.recover is None:
            raise UsageError(
                f"MAIL starts physics where an observation says, but a model of "
                f"{spec.name} cannot tell its state from one: choose agent.roll=model and "
                "agent.correct=none."
            )
        if config.roll == "physics" and not unroll.differentiable(physics, spec):
            raise UsageError(
                f"agent.roll=physics differentiates physics, but that of {spec.name} holds "
                "a loop of unknown length or a call to the host: choose agent.roll=model."
            )


def shows(task: Task, config: Config) -> Shows:
    """The reward that was recovered."""
    return Shows(reward=recovered_reward(task.spec, config))
