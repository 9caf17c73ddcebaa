"""MAIL: a policy that is differentiated through a forward model and a discriminator.

A round's rollout enters the replay. Then come iterations of three steps. l(s, a) is the
logit of the discriminator; a high logit means expert, and c is a cost that falls with it.

    1. forward model f:    min_f  -E_replay[log p(s'|s, a)]
    2. discriminator l:    min_l  E_expert[softplus(-l)] + E_replay[softplus(l)] + penalty
    3. policy π:           min_θ  J = E Σ_{t<H} γ^t c(l(s_t, a_t)),
                           a_t = π(s_t, ξ_t),   s_{t+1} = f(s_t, a_t),   s_0 ~ replay

The noise ξ is drawn beforehand. So J is differentiable in θ through all H steps of policy
and model, and automatic differentiation computes the paper's recursion:

    J_s = c_s + c_a π_s + γ J'_s (f_s + f_a π_s)                              equation 10
    J_θ = c_a π_θ + γ (J'_s f_a π_θ + J'_θ)                                   equation 11

Line 12 of the paper's Algorithm 1 prints π_θ for the π_s of equation 10: a typo. The policy
is a Gaussian squashed by tanh, or a straight-through Gumbel-softmax where actions are
choices.

Source: Baram, Anschel & Mannor 2016, Model-based Adversarial Imitation Learning, arXiv
1612.02179, Algorithm 1.

Departures, with what the paper has in brackets:
    reward                   "gail_neg", c = -log D as in the authors' code; its slope does
                             not vanish where the expert is far ["neg_prob", c = 1 - D]
    gradient_penalty         weight of a penalty that draws the slope of l to `penalty_norm`
                             [0: there is none]
    imagination.correction   None, as in the paper; the authors' code has the simulator's
                             states along the path, with the slopes of the model
    imagination.dynamics     "model", as in the paper; "physics" needs no model
Without a field: observations are normalised by all that were observed, where the code takes
the expert's; f predicts the change of an observation, where the code has the next one; an
imagined path does not end where an episode would.
"""

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.agents.common import actions, forward_model, learning
from planil_jax.base import (
    Agent,
    Demonstrations,
    Dynamics,
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
from planil_jax.config import Count, NonNegative, Positive, Share
from planil_jax.data import demos as demonstrations
from planil_jax.data import replay
from planil_jax.losses import adversarial
from planil_jax.models import ensemble, unroll
from planil_jax.nets import fit, forward, heads, mlp, normalise
from planil_jax.nets.normalise import Moments


@dataclass(frozen=True, kw_only=True)
class ImaginationConfig:
    dynamics: Literal["model", "physics"] = "model"  # what the policy is unrolled through
    # real states to which the imagined ones are set, with the model's slopes: those
    # "recorded" in the last round, or those of "physics"; None: the model's states
    correction: Literal["recorded", "physics"] | None = None
    batch: Count = 64  # start states s_0 of a policy step, divided among the models
    expert_starts: Share = 0.0  # share of the start states that are the expert's


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    model_lr: NonNegative = 1e-3  # learning rate of the forward model, Adam
    discriminator_lr: NonNegative = 1e-3  # learning rate of the discriminator, Adam
    # gradient steps in which the discriminator's rate halves; None: it is constant
    discriminator_lr_half_life: Count | None = 50_000
    policy_lr: NonNegative = 3e-4  # learning rate of the policy, Adam
    # gradient steps in which the policy's rate halves; None: it is constant
    policy_lr_half_life: Count | None = None
    max_grad_norm: Positive = 1.0  # global norm to which the policy's gradient is clipped


@dataclass(frozen=True, kw_only=True)
class Config:
    # tanh-Gaussian of the observation, or a categorical over choices
    policy: heads.Config = field(
        default_factory=lambda: heads.Config(
            network=mlp.Config(hidden=(64, 64), activation="tanh"), std=0.5
        )
    )
    # network of the logit l(s, a)
    discriminator: mlp.Config = field(
        default_factory=lambda: mlp.Config(hidden=(128, 128), activation="tanh")
    )
    model: ensemble.Config = field(default_factory=ensemble.Config)  # forward models f
    # how the policy is unrolled
    imagination: ImaginationConfig = field(default_factory=ImaginationConfig)
    # learning rates and clipping
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    # reward of a logit, whose negative is the cost c of the policy
    reward: Literal["logit", "gail_pos", "gail_neg", "prob", "neg_prob"] = "gail_neg"
    horizon: Count = 25  # steps H through which the policy is differentiated
    discount: Share = 0.99  # discount factor γ of the costs
    learn_std: bool = True  # whether the policy's deviation is learned, or constant
    temperature: Positive = 1.0  # τ of the Gumbel-softmax where actions are choices
    gradient_penalty: NonNegative = 1.0  # weight of the discriminator's gradient penalty
    penalty_norm: NonNegative = 1.0  # slope of the logit that has no penalty
    # deviation of the noise on the expert's data, in deviations of an observation and in
    # halves of an action's range; choices get none
    expert_noise: NonNegative = 0.05
    updates_per_step: Positive = 0.25  # iterations for each environment step
    model_steps: Count = 1  # gradient steps of the model in an iteration
    discriminator_steps: Count = 1  # gradient steps of the discriminator in an iteration
    policy_steps: Count = 3  # gradient steps of the policy in an iteration
    model_length: Count = 1  # steps that the model predicts in its loss
    batch: Count = 128  # steps of expert and learner each; sequences for each model
    capacity: Count = 20_000  # steps of each environment that the replay keeps


def published() -> Config:
    """The choices of the authors' code, where they are choices here.

    Their code also has dropout, alternates between discriminator and policy in blocks of
    100 steps, averages a gradient over 7 rollouts, and clips gradients entry by entry. It
    corrects states by the simulator, after setting it to a state of the expert; here they
    are corrected by what the last round recorded.
    """

    def relu(*hidden: int) -> mlp.Config:
        return mlp.Config(hidden=hidden, activation="relu")

    return Config(
        policy=heads.Config(network=relu(100, 50), std=0.1),
        discriminator=relu(200, 100),
        model=ensemble.Config(network=forward.Config(network=relu(100, 100, 100))),
        imagination=ImaginationConfig(correction="recorded", batch=70),
        optimizer=OptimizerConfig(
            model_lr=1e-4, discriminator_lr_half_life=None, policy_lr=1e-4
        ),
        horizon=10,
        learn_std=False,
        gradient_penalty=0.0,
        expert_noise=0.0,
        policy_steps=1,
        batch=70,
    )


NEEDS = Needs(actions=True, full_observations=True, discrete=True)


# --------------------------------------------------------------------- states and batches


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
    replay: replay.Replay | None  # None within a round's iterations, which only read it


@struct.dataclass
class Steps:
    """Observations and the actions that were taken; the axes stand where it is used."""

    obs: jax.Array  # [.., O]
    actions: jax.Array  # [.., U]


@struct.dataclass
class DiscriminatorBatch:
    expert: Steps  # [B]
    learner: Steps  # [B]


@struct.dataclass
class Frozen:
    """What the policy is differentiated through, and its loss does not change."""

    discriminator: Params
    model: ensemble.ModelParams


@struct.dataclass
class Data:
    """What the batches of a round are drawn from."""

    demos: Demonstrations
    policy_replay: replay.Replay  # the policy's: the replay, or the last round alone
    policy_starts: jax.Array  # [C E], where the policy's sequences can start in it
    replay: replay.Replay  # the model's and the discriminator's
    model_starts: jax.Array  # [C E], where sequences of `model_length` can start in it


class Components(NamedTuple):
    """What the agent is made of."""

    task: Task
    config: Config
    policy: heads.Policy
    # (params, obs [.., O] normalised, action [.., U] in [-1, 1]) -> logit [..]
    discriminator: Network
    model: forward_model.Learner
    scaling: actions.Scaling  # of actions to [-1, 1]
    policy_optimizer: fit.Optimizer
    discriminator_optimizer: fit.Optimizer


def make_components(task: Task, config: Config) -> Components:
    spec, optimizer = task.spec, config.optimizer
    clip = optax.clip_by_global_norm(optimizer.max_grad_norm)
    policy_lr = fit.exponential_decay(optimizer.policy_lr, optimizer.policy_lr_half_life)
    discriminator_lr = fit.exponential_decay(
        optimizer.discriminator_lr, optimizer.discriminator_lr_half_life
    )
    sizes = (spec.observation_size, spec.action_size)
    return Components(
        task=task,
        config=config,
        policy=heads.make_for(spec, config.policy, sizes[:1], config.temperature),
        discriminator=mlp.make_scalar(config.discriminator, sizes),
        model=forward_model.make(spec, config.model, optimizer.model_lr),
        scaling=actions.make_scaling(spec),
        policy_optimizer=fit.make(optax.chain(clip, optax.adam(policy_lr))),
        discriminator_optimizer=fit.make(optax.adam(discriminator_lr)),
    )


def model_params(state: State) -> ensemble.ModelParams:
    """The forward model of a state, as its losses and planners take it."""
    return ensemble.ModelParams(state.model.params, state.params.moments, state.change)


# ---------------------------------------------------------------------------------- losses
# Step 1's is `forward_model.loss`, which other agents share.


def discriminator_inputs(components: Components, moments: Moments, steps: Steps) -> Steps:
    """What the discriminator reads: normalised observations, and actions in [-1, 1]."""
    obs = normalise.apply(moments, steps.obs)
    return Steps(obs, components.scaling.to_unit_interval(steps.actions))


def discriminator_loss(
    components: Components,
    params: Params,
    moments: Moments,
    batch: DiscriminatorBatch,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """The discriminator's cross-entropy and gradient penalty, `[]`: step 2.

        L = E_expert[softplus(-l)] + E_learner[softplus(l)] + w E[(‖∇l‖ - n)²]

    Noise is added to the expert's steps, as the paper advises for few demonstrations. One-
    hot choices get none, for it would give the expert away.

    Args:
      moments: of observations, by which they are normalised.
    """
    config = components.config
    obs_key, action_key, penalty_key = jax.random.split(key, 3)

    def logit(steps: Steps) -> jax.Array:
        return components.discriminator.apply(params, steps.obs, steps.actions)

    expert = discriminator_inputs(components, moments, batch.expert)
    learner = discriminator_inputs(components, moments, batch.learner)
    obs, action = expert.obs, expert.actions
    obs += config.expert_noise * jax.random.normal(obs_key, obs.shape)
    if not components.task.spec.discrete:
        action += config.expert_noise * jax.random.normal(action_key, action.shape)
    expert = Steps(obs, action)
    loss, metrics = adversarial.discrimination(logit(expert), logit(learner))
    penalty = adversarial.gradient_penalty(
        logit, expert, learner, penalty_key, config.penalty_norm
    )
    metrics |= {"discriminator/penalty": penalty}
    return loss + config.gradient_penalty * penalty, metrics


def policy_loss(
    components: Components,
    params: Params,
    frozen: Frozen,
    batch: Steps,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """J = E Σ_{t<H} γ^t c(l(s_t, a_t)) of the policy's paths, `[]`: step 3.

    Its gradient is that of equations 10 and 11. Every model imagines the paths of its own
    share of the batch.

    Args:
      batch: obs `[L + 1, B, O]`, whose first are the start states s_0, and actions
        `[L, B, U]`. The rest is read only where paths are corrected to recorded states;
        then L is H.
    """
    config, horizon = components.config, components.config.horizon
    size, members = batch.obs.shape[1], config.model.members
    noise_key, model_key = jax.random.split(key)
    keys = jax.random.split(model_key, (horizon, size))  # [H, B]
    noise = components.policy.noise(noise_key, (horizon, *batch.actions.shape[1:]))
    shares = jax.tree.map(
        lambda leaf: forward_model.shared(leaf, members), (batch, noise, keys)
    )  # [.., M, B / M, ..]
    path = functools.partial(imagined_path, components, params)
    paths = jax.vmap(path, (None, 1, 1, 1), 1)
    paths_of_members = jax.vmap(paths, (ensemble.EACH, 1, 1, 1), 1)
    steps = Steps(*paths_of_members(frozen.model, *shares))  # [H, M, B / M, ..]
    inputs = discriminator_inputs(components, frozen.model.obs, steps)
    logits = components.discriminator.apply(
        frozen.discriminator, inputs.obs, inputs.actions
    )
    costs = -adversarial.reward_of(config.reward)(logits).reshape(horizon, size)
    discounts = config.discount ** jnp.arange(horizon, dtype=jnp.float32)
    metrics = {"policy/cost": jnp.mean(costs), "policy/logit": jnp.mean(logits)}
    return jnp.mean(discounts @ costs), metrics


def imagined_path(
    components: Components,
    params: Params,
    model: ensemble.ModelParams,
    sequence: Steps,
    noise: jax.Array,
    keys: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """States `[H, O]` and actions `[H, U]` of the policy, a_t = π(s_t, ξ_t).

    Along recorded states ξ_t is the noise with which this policy takes the recorded action.

    Args:
      params: the policy's.
      model: one member.
      sequence: obs `[L + 1, O]`, which starts with s_0, and actions `[L, U]`.
      noise: ξ `[H, U]`.
      keys: of the model, `[H]`.
    """
    policy, config = components.policy, components.config

    def act(obs: jax.Array, inputs: tuple[jax.Array, jax.Array | None]) -> jax.Array:
        noise, action = inputs
        distribution = policy.apply(params, normalise.apply(model.obs, obs))
        if action is not None:
            noise = policy.inverse_noise(distribution, action, noise)
            noise = jax.lax.stop_gradient(noise)
        if isinstance(distribution, heads.TanhNormal) and not config.learn_std:
            std = jax.lax.stop_gradient(distribution.std)
            distribution = heads.TanhNormal(distribution.mean, std)
        return policy.rsample(distribution, noise)

    recorded = config.imagination.correction == "recorded"
    inputs = (noise, sequence.actions if recorded else None)
    dynamics, dynamics_params = imagined_dynamics(components, model, sequence.obs)
    start = sequence.obs[0]
    return unroll.path(act, dynamics, dynamics_params, start, inputs, keys)


def imagined_dynamics(
    components: Components, model: ensemble.ModelParams, recorded_obs: jax.Array
) -> tuple[Dynamics, Any]:
    """What the policy is unrolled through, and its parameters.

    Args:
      model: one member.
      recorded_obs: `[H + 1, O]`, read only where paths are corrected to it.
    """
    config, physics = components.config.imagination, components.task.dynamics
    member = components.model.ensemble.member
    if config.dynamics == "physics":
        assert physics is not None
        return physics, ()
    if config.correction == "recorded":
        corrected = unroll.straight_through(member, unroll.recorded())
        return corrected, (model, recorded_obs)
    if config.correction == "physics":
        assert physics is not None
        return unroll.straight_through(member, physics), (model, ())
    return member, model


# ---------------------------------------------------------------------------------- acting


def act(
    components: Components,
    params: InferenceParams,
    carry: tuple[()],
    state: EnvState,
    key: jax.Array,
    explore: bool,
) -> tuple[jax.Array, tuple[()]]:
    policy, obs = components.policy, normalise.apply(params.moments, state.obs)
    distribution = policy.apply(params.policy, obs)
    return actions.from_distribution(policy, distribution, key, explore), carry


# -------------------------------------------------------------------------------- learning


def init(components: Components, key: jax.Array) -> State:
    task, config = components.task, components.config
    policy_key, discriminator_key, model_key = jax.random.split(key, 3)
    policy = components.policy_optimizer.init(components.policy.init(policy_key))
    discriminator = components.discriminator_optimizer.init(
        components.discriminator.init(discriminator_key)
    )
    model = components.model.ensemble.dynamics.init(model_key)
    obs = jnp.zeros((task.spec.observation_size,), jnp.float32)
    action = jnp.zeros((task.spec.action_size,), jnp.float32)
    ended = jnp.zeros((), bool)
    step = {"obs": obs, "action": action, "next_obs": obs, "ended": ended}
    return State(
        params=InferenceParams(policy.params, discriminator.params, model.obs),
        policy=policy,
        discriminator=discriminator,
        model=components.model.fit.init(model.networks),
        change=model.change,
        replay=replay.init(step, config.capacity, task.num_envs),
    )


def update(
    components: Components,
    state: State,
    rollout: Transition,
    demos: Demonstrations,
    key: jax.Array,
    round_: jax.Array,
) -> tuple[State, Metrics]:
    """Takes a rollout `[T, E]` into replay and normalisers, and iterates steps 1 to 3."""
    del round_
    assert state.replay is not None
    config, old_model = components.config, model_params(state)
    errors = forward_model.fresh_errors(components.model, old_model, rollout)
    steps = {
        "obs": rollout.obs,
        "action": rollout.action,
        "next_obs": rollout.next_obs,
        "ended": rollout.terminal | rollout.truncated,
    }
    before = replay.end_episodes(state.replay, "ended", learning.starts_anew(rollout))
    filled = replay.insert(before, steps)
    model = ensemble.update_normalizer(old_model, rollout.obs, rollout.next_obs)
    params = dataclasses.replace(state.params, moments=model.obs)
    learned = dataclasses.replace(state, params=params, change=model.change, replay=None)

    iteration = functools.partial(
        iterate, components, round_data(config, filled, steps, demos)
    )
    count = max(round(config.updates_per_step * rollout.reward.size), 1)
    learned, metrics = learning.scan_mean(iteration, learned, jax.random.split(key, count))
    params = InferenceParams(learned.policy.params, learned.discriminator.params, model.obs)
    state = dataclasses.replace(learned, params=params, replay=filled)
    return state, errors | metrics


def iterate(
    components: Components, data: Data, state: State, key: jax.Array
) -> tuple[State, Metrics]:
    """Steps 1 to 3, of as many gradient steps each as the config says."""
    config, metrics = components.config, dict[str, jax.Array]()

    def model_step(state: State, key: jax.Array) -> tuple[State, Metrics]:
        return fit_model(components, state, model_batch(config, data, key))

    def discriminator_step(state: State, key: jax.Array) -> tuple[State, Metrics]:
        expert_key, learner_key, key = jax.random.split(key, 3)
        batch = discriminator_batch(config, data, expert_key, learner_key)
        return fit_discriminator(components, state, batch, key)

    def policy_step(state: State, key: jax.Array) -> tuple[State, Metrics]:
        batch_key, key = jax.random.split(key)
        return fit_policy(components, state, policy_batch(config, data, batch_key), key)

    keys = jax.random.split(key, 3)
    for gradient_step, step_key, count in (
        (model_step, keys[0], config.model_steps),
        (discriminator_step, keys[1], config.discriminator_steps),
        (policy_step, keys[2], config.policy_steps),
    ):
        step_keys = jax.random.split(step_key, count)
        state, step_metrics = learning.scan_mean(gradient_step, state, step_keys)
        metrics |= step_metrics
    return state, metrics


def fit_model(components: Components, state: State, batch: Steps) -> tuple[State, Metrics]:
    """A gradient step on -E log p(s'|s, a); each model takes a part of the batch."""
    fitted, metrics = forward_model.step(
        components.model, state.model, model_params(state), batch.obs, batch.actions
    )
    return dataclasses.replace(state, model=fitted), metrics


def fit_discriminator(
    components: Components, state: State, batch: DiscriminatorBatch, key: jax.Array
) -> tuple[State, Metrics]:
    """A gradient step of `discriminator_loss`."""
    gradient_fn = jax.grad(functools.partial(discriminator_loss, components), has_aux=True)
    moments = state.params.moments
    gradients, metrics = gradient_fn(state.discriminator.params, moments, batch, key)
    fitted = components.discriminator_optimizer.step(state.discriminator, gradients)
    return dataclasses.replace(state, discriminator=fitted), metrics


def fit_policy(
    components: Components, state: State, batch: Steps, key: jax.Array
) -> tuple[State, Metrics]:
    """A gradient step of `policy_loss`; the norm is reported before it is clipped."""
    gradient_fn = jax.grad(functools.partial(policy_loss, components), has_aux=True)
    frozen = Frozen(state.discriminator.params, model_params(state))
    gradients, metrics = gradient_fn(state.policy.params, frozen, batch, key)
    fitted = components.policy_optimizer.step(state.policy, gradients)
    metrics |= {"policy/gradient_norm": optax.tree.norm(gradients)}
    return dataclasses.replace(state, policy=fitted), metrics


# --------------------------------------------------------------------------------- batches


def round_data(
    config: Config, filled: replay.Replay, rollout: Any, demos: Demonstrations
) -> Data:
    """What the batches of a round are drawn from.

    Recorded sequences are those of the last round alone, because the gradient along a
    sequence improves the policy that acted in it.

    Args:
      filled: the replay, with the rollout in it.
      rollout: the last round's steps `[T, E, ..]`.
    """
    policy_replay, policy_length = filled, 1
    if config.imagination.correction == "recorded":
        length, policy_length = rollout["obs"].shape[0], config.horizon
        if length < policy_length:
            raise UsageError(
                f"agent.imagination.correction=recorded takes {policy_length} steps out of "
                f"a round of {length}: raise loop.steps, or lower agent.horizon."
            )
        zero = jnp.zeros((), jnp.int32)
        policy_replay = replay.Replay(rollout, cursor=zero, size=zero + length)

    def starts(steps: replay.Replay, length: int) -> jax.Array:
        return replay.sequence_starts(steps, steps.steps["ended"], length)

    return Data(
        demos=demos,
        policy_replay=policy_replay,
        policy_starts=starts(policy_replay, policy_length),
        replay=filled,
        model_starts=starts(filled, config.model_length),
    )


def model_batch(config: Config, data: Data, key: jax.Array) -> Steps:
    """Sequences for each of the models, of `model_length` steps."""
    size = config.batch * config.model.members
    return _sequences(data.replay, data.model_starts, key, size, config.model_length)


def discriminator_batch(
    config: Config, data: Data, expert_key: jax.Array, learner_key: jax.Array
) -> DiscriminatorBatch:
    """Steps of the demonstrations, and as many of the replay."""
    obs, action, _, _ = demonstrations.sample(data.demos, expert_key, config.batch)
    assert action is not None  # NEEDS.actions
    learner = replay.sample(data.replay, learner_key, config.batch)
    return DiscriminatorBatch(
        expert=Steps(obs, action), learner=Steps(learner["obs"], learner["action"])
    )


def policy_batch(config: Config, data: Data, key: jax.Array) -> Steps:
    """Recorded sequences of H steps, or single steps whose obs are the start states."""
    size, steps, starts = config.imagination.batch, data.policy_replay, data.policy_starts
    if config.imagination.correction == "recorded":
        return _sequences(steps, starts, key, size, config.horizon)
    learner_key, expert_key = jax.random.split(key)
    batch = _sequences(steps, starts, learner_key, size, 1)
    count = round(config.imagination.expert_starts * size)
    if not count:
        return batch
    expert_obs = demonstrations.sample(data.demos, expert_key, count)[0]
    return Steps(batch.obs.at[0, :count].set(expert_obs), batch.actions)


def _sequences(
    steps: replay.Replay, starts: jax.Array, key: jax.Array, size: int, length: int
) -> Steps:
    """Draws obs `[length + 1, size, O]` and actions `[length, size, U]`."""
    drawn = replay.sample_sequences(steps, starts, key, size, length)
    obs = jnp.concatenate([drawn["obs"][:1], drawn["next_obs"]])
    return Steps(obs, drawn["action"])


# -------------------------------------------------------------------------------- the agent


def make(task: Task, config: Config) -> Agent:
    """MAIL for a task.

    Args:
      task: its dynamics are the physics of `config.imagination`, if that asks for them.

    Raises:
      UsageError: a setting is unknown or does not fit, or physics cannot be differentiated.
    """
    _check(task, config)
    components = make_components(task, config)
    return Agent(
        init=functools.partial(init, components),
        carry=lambda: (),
        act=functools.partial(act, components),
        update=functools.partial(update, components),
    )


def shows(task: Task, config: Config) -> Shows:
    """The recovered reward."""
    components = make_components(task, config)
    return Shows(reward=functools.partial(recovered_reward, components))


def recovered_reward(
    components: Components,
    params: InferenceParams,
    obs: jax.Array,
    action: jax.Array,
    next_obs: jax.Array,
) -> jax.Array:
    """The logit l(s, a), `[..]`, of obs `[.., O]` and action `[.., U]`."""
    del next_obs
    inputs = discriminator_inputs(components, params.moments, Steps(obs, action))
    return components.discriminator.apply(params.discriminator, inputs.obs, inputs.actions)


def _check(task: Task, config: Config) -> None:
    """Refuses settings that do not go together."""
    adversarial.reward_of(config.reward)
    imagination = config.imagination
    for name, choices in (
        ("dynamics", ("model", "physics")),
        ("correction", (None, "recorded", "physics")),
    ):
        if (value := getattr(imagination, name)) not in choices:
            raise UsageError(
                f"agent.imagination.{name} is one of {', '.join(map(str, choices))}, not "
                f"{value!r}."
            )
    if imagination.dynamics == "physics" and imagination.correction is not None:
        raise UsageError(
            "agent.imagination.dynamics=physics leaves nothing to correct: choose "
            "agent.imagination.correction=None, or agent.imagination.dynamics=model."
        )
    if imagination.correction == "recorded" and imagination.expert_starts:
        raise UsageError(
            "agent.imagination.correction=recorded starts where a recorded sequence does: "
            "choose agent.imagination.expert_starts=0."
        )
    if imagination.batch % config.model.members:
        raise UsageError(
            f"agent.imagination.batch, {imagination.batch}, must be a multiple of "
            f"agent.model.members, {config.model.members}."
        )
    if "physics" in (imagination.dynamics, imagination.correction):
        _check_physics(task, config)


def _check_physics(task: Task, config: Config) -> None:
    """Refuses physics that cannot start from an observation, or have no slope."""
    name, physics = task.spec.name, task.dynamics
    if physics is None or physics.recover is None:
        raise UsageError(
            "MAIL starts physics from an observation, but the physics of "
            f"{name} cannot recover its state from one: choose "
            "agent.imagination.dynamics=model and agent.imagination.correction=None."
        )
    differentiated = config.imagination.dynamics == "physics"
    if differentiated and not unroll.differentiable(physics, task.spec):
        raise UsageError(
            "agent.imagination.dynamics=physics differentiates physics, but that of "
            f"{name} holds a loop of unknown length or a call to the host: choose "
            "agent.imagination.dynamics=model."
        )
