"""MPAIL: model predictive adversarial imitation learning, from observations alone.

MPPI takes the generator's place, so there is no policy network. d(s, s') is the
discriminator's logit (high: expert), V the value, V̄ a copy that follows V slowly, λ the
temperature of the round. In a round:

    1. act:            a = the mean of plans a_{0:H}, weighed by softmax(score / λ),
                       score = Σ_{t<H} η^t d(s_t, s_{t+1}) + η^H V(s_H),   η >= 1,
                       with s_{t+1} from the planner's model of the environment;
    2. model:          max E log p(s' | s, a) on steps that were taken; MPAIL(OM) alone,
                       Chua et al. 2018, section 4;
    3. discriminator:  min_d E_expert[softplus(-d)] + E_learner[softplus(d)],
                       Torabi et al. 2018, eq. 4; spectral norm: Miyato et al. 2018, eq. 8;
    4. value:          min_V E[(V(s_t) - G_t)²], G_t the λ-return of r = d(s, s') on the
                       round's rollout, Sutton & Barto 2018, eq. 12.18,
                       + E[(V(s) - y)²] on replayed steps, y = d(s, s') + γ V̄(s'),
                       + E[huber(V(s) - y)] on imagined steps; V̄ ← V̄ + τ (V - V̄);
    5. what acts next: averages of d and V̄ over rounds; λ falls geometrically.

An imagined step starts far around the demonstrations, takes a random action and ends where
the planner's model predicts. It costs no interaction. Without it the value would
extrapolate at random to where nobody has been. A model that cannot start from an
observation (`Dynamics.recover` is None) imagines nothing.

MPAIL(OM), `learned_model`, is given no model of the environment: it learns one of
observations and plans through it. Its first rounds take random actions, because to a model
that knows nothing all plans are equal. It imagines nothing, because its model is wrong far
from the data.

Source: Han et al. 2025, MPAIL, arXiv 2507.21533.
Departures, each a field of Config with the paper's choice in brackets; BUILD_NOTES.md says
what each does:
    replay                  3 and 4 also learn from steps of all rounds, old ones favoured,
                            so that the first aimless driving is not forgotten [the round's
                            rollout alone; in 3 that is discriminator_share=0]
    imagination             3 and 4 also learn from imagined steps [discriminator_share=0,
                            value_batch=None]
    ema_rate                averaged parameters act [1]
    optimizer.lr_half_life  learning rates decay [None]
The published code departs from its paper, each time for the worse; so can this one:
    published               which pairs the reward and the discriminator read
    planner.weighting       "step": weights add up exponentials of the steps' scores
    planner.warm_start      "backwards": the plan is shifted the wrong way
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.agents.common import forward_model, learning
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
    Plan,
    Planner,
    Shows,
    Task,
    Transition,
    UsageError,
)
from planil_jax.config import Count, Natural, NonNegative, Positive, Share, ShareBelow1
from planil_jax.data import demos as demonstrations
from planil_jax.data import replay
from planil_jax.losses import adversarial, returns
from planil_jax.models import ensemble, foresight
from planil_jax.nets import fit, mlp, spectral
from planil_jax.planners import mppi


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """Steps of all rounds, from which the discriminator and the value learn again."""

    capacity: Count = 20_000  # steps of each environment that are kept
    # share of the discriminator's learner batch that is drawn from the replay
    discriminator_share: Share = 0.5
    recency_exponent: Positive = 3.0  # 1: drawn uniformly; above 1: old steps are favoured


@dataclass(frozen=True, kw_only=True)
class Imagination:
    """Steps that the planner's model predicts far around the demonstrations."""

    # share of the discriminator's learner batch that is imagined
    discriminator_share: Share = 0.1
    value_batch: Count | None = 256  # steps in a gradient step of the value; None: no loss
    # σ of the start states around the demonstrations, in standard deviations of these
    spread: NonNegative = 8.0
    discount: Share = 0.95  # discount factor γ of the value's targets
    huber_delta: Positive = 10.0  # error from which the loss is linear, in units of value


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """AdamW of the discriminator, and Adam of the value."""

    discriminator_lr: NonNegative = 1e-3  # learning rate of AdamW
    value_lr: NonNegative = 1e-3  # learning rate of Adam
    lr_half_life: Count | None = 8  # rounds in which both rates halve; None: constant rates
    momentum: ShareBelow1 = 0.5  # β1 of AdamW
    weight_decay: NonNegative = 1e-3  # weight decay of AdamW
    max_grad_norm: Positive = 1.0  # bound of the global norm of the value's gradient


@dataclass(frozen=True, kw_only=True)
class ModelLearning:
    """How MPAIL(OM) fits its model, by Adam."""

    seed_rounds: Natural = 1  # rounds of random actions, from which the model learns first
    gradient_steps: Count = 128  # gradient steps of the model a round
    member_batch: Count = 128  # steps of each member in a gradient step
    learning_rate: NonNegative = 1e-3  # learning rate of the model's Adam


@dataclass(frozen=True, kw_only=True)
class Published:
    """Choices of the published code that differ from its paper, for comparison."""

    # rewards of the returns: d(s_t, s_{t+1}), or d(s_t, s_t)
    reward_pairs: Literal["next", "same"] = "next"
    pairs_across_resets: bool = False  # pair an episode's end with the next one's start


@dataclass(frozen=True, kw_only=True)
class Config:
    # MPPI, by which the agent acts
    planner: mppi.Config = field(default_factory=lambda: mppi.Config(samples=256))
    # network of the logit d(s, s')
    discriminator: mlp.Config = field(
        default_factory=lambda: mlp.Config(activation="leaky_relu")
    )
    value: mlp.Config = field(default_factory=mlp.Config)  # network of V(s)
    replay: ReplayOptions = field(default_factory=ReplayOptions)
    imagination: Imagination = field(default_factory=Imagination)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    # forward models of MPAIL(OM)
    model: ensemble.Config = field(default_factory=lambda: ensemble.Config(members=2))
    model_learning: ModelLearning = field(default_factory=ModelLearning)
    published: Published = field(default_factory=Published)
    learned_model: bool = False  # MPAIL(OM): plan through a model that is learned
    markup: Positive = 1.0 / 0.99  # η: step t of a plan weighs η^t
    temperature: Positive = 1.0  # λ of the first round, in units of the score
    final_temperature: Positive = 0.1  # λ after `temperature_rounds`
    temperature_rounds: Count = 20  # rounds of geometric decay from the one to the other
    # reward of a logit: a name of losses.adversarial.REWARDS
    reward: Literal["logit", "gail_pos", "gail_neg", "prob", "neg_prob"] = "logit"
    spectral_norm: bool = True  # divide the discriminator's kernels by their spectral norm
    input_scale: Positive = 1.0  # factor of the discriminator's inputs, so of its slopes
    discount: Share = 0.99  # discount factor γ of the returns
    td_lambda: Share = 0.95  # λ of the returns
    batch: Count = 512  # steps of each class in a gradient step
    discriminator_steps: Count = 64  # gradient steps of the discriminator a round
    value_steps: Count = 64  # gradient steps of the value a round
    # τ, share by which the target value V̄ moves to V in a gradient step
    target_rate: Share = 0.01
    # share by which the acting parameters move to the learned ones in a round; 1: at once
    ema_rate: Share = 0.3

    def check(self) -> None:
        shares = self.replay.discriminator_share + self.imagination.discriminator_share
        if shares > 1:
            raise UsageError(
                "replay.discriminator_share and imagination.discriminator_share must add "
                f"up to at most 1, not {shares:g}."
            )


def NEEDS(config: Config) -> Needs:  # noqa: N802
    """Its planner starts from the simulator's state; MPAIL(OM)'s from an observation."""
    return Needs(simulator=not config.learned_model)


def learned_model() -> Config:
    """MPAIL(OM): planning through a model of observations that is learned on the way."""
    return Config(learned_model=True)


# --------------------------------------------------------------------- states and batches


@struct.dataclass
class InferenceParams:
    """The part that acts and is exported."""

    discriminator: Params  # normalised
    value: Params
    model: Params
    temperature: jax.Array  # [] λ
    random: jax.Array | None = None  # [] bool, of MPAIL(OM): explore by random actions


@struct.dataclass
class State:
    params: InferenceParams
    discriminator: Fit  # not normalised
    value: Fit
    target: Params  # V̄
    replay: replay.Replay  # of Steps
    model: Fit | None  # networks [M] of MPAIL(OM)'s model


@struct.dataclass
class Steps:
    """Steps that were taken or imagined."""

    obs: jax.Array  # [..., O]
    next_obs: jax.Array  # [..., O]
    terminal: jax.Array  # [...] bool
    action: jax.Array | None = None  # [..., U] where a model is learned


@struct.dataclass
class Data:
    """What the discriminator and the value learn from in a round."""

    demos: Demonstrations
    fresh: Steps  # [T E] of the round's rollout
    replay: replay.Replay  # of Steps of all rounds, this one included
    model: Params  # by which steps are imagined


@struct.dataclass
class DiscriminatorBatch:
    expert_obs: jax.Array  # [B, O]
    expert_next_obs: jax.Array  # [B, O]
    learner_obs: jax.Array  # [B, O]
    learner_next_obs: jax.Array  # [B, O]


@struct.dataclass
class Regression:
    """What V should be where."""

    obs: jax.Array  # [B, O]
    target: jax.Array  # [B], constant: it carries no gradient


@struct.dataclass
class ValueBatch:
    fresh: Regression  # of λ-returns
    replayed: Regression  # of one-step targets
    imagined: Regression | None  # of one-step targets


class Components(NamedTuple):
    """What the steps are made of."""

    task: Task
    config: Config
    planner: Planner
    dynamics: Dynamics  # through which plans are rolled
    learner: forward_model.Learner | None  # of that model in MPAIL(OM)
    discriminator: Network  # d: (normalised params, obs [.., O], next_obs [.., O]) -> [..]
    value: Network  # V: (params, obs [.., O]) -> [..]
    reward_of: Callable[[jax.Array], jax.Array]  # of a logit
    discriminator_optimizer: fit.Optimizer
    value_optimizer: fit.Optimizer


# --------------------------------------------------------------------------------- losses


def discriminator_loss(
    components: Components, params: Params, batch: DiscriminatorBatch
) -> tuple[jax.Array, Metrics]:
    """Cross-entropy of the expert's and the learner's pairs, `[]`.

        E_expert[softplus(-d(s, s'))] + E_learner[softplus(d(s, s'))]

    Torabi et al. 2018, GAIfO, arXiv 1807.06158, eq. 4.

    Args:
      params: of the discriminator, not normalised.
    """
    normalised, logit = normalise(components, params), components.discriminator.apply
    return adversarial.discrimination(
        logit(normalised, batch.expert_obs, batch.expert_next_obs),
        logit(normalised, batch.learner_obs, batch.learner_next_obs),
    )


def value_loss(
    components: Components, params: Params, batch: ValueBatch
) -> tuple[jax.Array, Metrics]:
    """Squared errors of fresh and replayed steps, and a Huber loss of imagined ones, `[]`.

    E_fresh[(V(s) - G)²] + E_replayed[(V(s) - y)²] + E_imagined[huber(V(s) - y)]
    """
    value = functools.partial(components.value.apply, params)
    fresh_values = value(batch.fresh.obs)  # [B]
    replay_errors = value(batch.replayed.obs) - batch.replayed.target  # [B]
    losses = {
        "value/loss": jnp.mean((fresh_values - batch.fresh.target) ** 2),
        "value/replay_loss": jnp.mean(replay_errors**2),
    }
    if batch.imagined is not None:
        errors = value(batch.imagined.obs) - batch.imagined.target  # [B]
        delta = components.config.imagination.huber_delta
        losses["value/imagined_loss"] = jnp.mean(
            optax.losses.huber_loss(errors, delta=delta)
        )
    metrics = losses | {"value/mean": jnp.mean(fresh_values)}
    return sum(losses.values(), start=jnp.zeros(())), metrics


# ------------------------------------------------------------------------- step 1: acting


def act(
    components: Components,
    params: InferenceParams,
    carry: Plan,
    state: EnvState,
    key: jax.Array,
    explore: bool,
) -> tuple[jax.Array, Plan]:
    """Step 1: plans from `carry`, and does the first action `[U]` of the plan."""
    plan_key, model_key = jax.random.split(key)
    score_fn = plan_score(components, params, state, model_key)
    action, plan = components.planner.plan(
        score_fn, carry, plan_key, params.temperature, explore
    )
    if explore and params.random is not None:
        random_action = _random_action(components, key)
        action = jnp.where(params.random, random_action, action)
    return action, plan


def plan_score(
    components: Components, params: InferenceParams, state: EnvState, key: jax.Array
) -> Callable[[jax.Array], jax.Array]:
    """The score of a plan from `state`: a function of actions `[H, U]` to `[]`.

        Σ_{t<H} η^t d(s_t, s_{t+1}) + η^H V(s_H)

    With planner.weighting="step" its terms `[H + 1]` are returned and not added.
    """
    config = components.config
    horizon = config.planner.horizon
    markups = config.markup ** jnp.arange(horizon + 1, dtype=jnp.float32)  # [H + 1]

    def step_score(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
        del action
        return reward(components, params.discriminator, obs, next_obs)

    final_score = functools.partial(components.value.apply, params.value)
    terms = foresight.score_plan(
        components.dynamics, params.model, state, key, horizon, step_score, final_score
    )

    def score(actions: jax.Array) -> jax.Array:
        scores = markups * terms(actions)  # [H + 1]
        return scores if config.planner.weighting == "step" else jnp.sum(scores)

    return score


def reward(
    components: Components,
    discriminator_params: Params,
    obs: jax.Array,
    next_obs: jax.Array,
) -> jax.Array:
    """r(s, s') of `[..., O]` each, `[...]`: of normalised parameters, d(s, s') itself
    unless `config.reward` says otherwise."""
    logits = components.discriminator.apply(discriminator_params, obs, next_obs)
    return components.reward_of(logits)


# ------------------------------------------------------------------ steps 2 to 5: learning


def init(components: Components, key: jax.Array) -> State:
    """Networks as they are drawn, and an empty replay."""
    config, task, learner = components.config, components.task, components.learner
    discriminator_key, value_key, model_key = jax.random.split(key, 3)
    discriminator = components.discriminator_optimizer.init(
        components.discriminator.init(discriminator_key)
    )
    value = components.value_optimizer.init(components.value.init(value_key))
    model = components.dynamics.init(model_key)
    params = InferenceParams(
        discriminator=normalise(components, discriminator.params),
        value=value.params,
        model=model,
        temperature=jnp.asarray(config.temperature, jnp.float32),
        random=jnp.asarray(config.model_learning.seed_rounds > 0)
        if learner is not None
        else None,
    )
    obs = jnp.zeros((task.spec.observation_size,), jnp.float32)
    action = (
        jnp.zeros((task.spec.action_size,), jnp.float32) if learner is not None else None
    )
    step = Steps(obs, obs, jnp.zeros((), bool), action)
    return State(
        params=params,
        discriminator=discriminator,
        value=value,
        target=value.params,
        replay=replay.init(step, config.replay.capacity, task.num_envs),
        model=learner.fit.init(model.networks) if learner is not None else None,
    )


def update(
    components: Components,
    state: State,
    rollout: Transition,
    demos: Demonstrations,
    key: jax.Array,
    round_: jax.Array,
) -> tuple[State, Metrics]:
    """Steps 2 to 5, after a rollout `[T, E]`."""
    steps = steps_of(components, rollout)  # [T, E]
    buffer = replay.insert(state.replay, steps)
    model, model_fit = state.params.model, state.model
    metrics: Metrics = {}
    if components.learner is not None:
        key, model_key = jax.random.split(key)
        model, model_fit, metrics = update_model(
            components, state, rollout, buffer, model_key
        )
    discriminator_key, value_key = jax.random.split(key)
    fresh = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), steps)  # [T E]
    data = Data(demos, fresh, buffer, model)
    discriminator, discriminator_metrics = update_discriminator(
        components, state.discriminator, data, discriminator_key
    )
    discriminator_params = normalise(components, discriminator.params)
    value, target, value_metrics = update_value(
        components, state, rollout, data, discriminator_params, value_key
    )
    learned = InferenceParams(discriminator_params, target, model, state.params.temperature)
    params = next_params(components.config, state.params, learned, round_)
    metrics = metrics | discriminator_metrics | value_metrics
    metrics |= {"planner/temperature": params.temperature}
    return State(params, discriminator, value, target, buffer, model_fit), metrics


def update_model(
    components: Components,
    state: State,
    rollout: Transition,
    buffer: replay.Replay,
    key: jax.Array,
) -> tuple[ensemble.ModelParams, Fit, Metrics]:
    """Step 2, of MPAIL(OM): fits the model to steps of all rounds.

    Returns:
      The model as it acts next, not averaged; its networks and their optimiser; metrics,
      among them the errors on this rollout before it was learned from.
    """
    learner, config = components.learner, components.config.model_learning
    assert learner is not None and state.model is not None
    fresh_errors = forward_model.fresh_errors(learner, state.params.model, rollout)
    model = ensemble.update_normalizer(state.params.model, rollout.obs, rollout.next_obs)

    batch_size = config.member_batch * components.config.model.members

    def step(networks: Fit, key: jax.Array) -> tuple[Fit, Metrics]:
        batch = replay.sample(buffer, key, batch_size)
        obs = jnp.stack([batch.obs, batch.next_obs])  # [2, B, O]
        return forward_model.step(learner, networks, model, obs, batch.action[None])

    keys = jax.random.split(key, config.gradient_steps)
    networks, metrics = learning.scan_mean(step, state.model, keys)
    params = ensemble.ModelParams(networks.params, model.obs, model.change)
    return params, networks, fresh_errors | metrics


def update_discriminator(
    components: Components, discriminator: Fit, data: Data, key: jax.Array
) -> tuple[Fit, Metrics]:
    """Step 3: gradient steps of `discriminator_loss`."""
    loss_fn = functools.partial(discriminator_loss, components)

    def step(discriminator: Fit, key: jax.Array) -> tuple[Fit, Metrics]:
        batch = discriminator_batch(components, data, key)
        optimizer = components.discriminator_optimizer
        return learning.gradient_step(optimizer, discriminator, loss_fn, batch)

    keys = jax.random.split(key, components.config.discriminator_steps)
    return learning.scan_mean(step, discriminator, keys)


def update_value(
    components: Components,
    state: State,
    rollout: Transition,
    data: Data,
    discriminator_params: Params,
    key: jax.Array,
) -> tuple[Fit, Params, Metrics]:
    """Step 4: gradient steps of `value_loss`; V̄ follows V after each.

    Returns:
      V, V̄ and metrics.
    """
    config = components.config
    lambda_returns = value_returns(components, discriminator_params, state.target, rollout)
    fresh = Regression(data.fresh.obs, lambda_returns.reshape(-1))  # [T E]
    loss_fn = functools.partial(value_loss, components)

    def step(carry: tuple[Fit, Params], key: jax.Array):
        value, target = carry
        teachers = discriminator_params, target
        batch = value_batch(components, fresh, data, teachers, key)
        optimizer = components.value_optimizer
        value, metrics = learning.gradient_step(optimizer, value, loss_fn, batch)
        target = fit.polyak(target, value.params, config.target_rate)
        return (value, target), metrics

    keys = jax.random.split(key, config.value_steps)
    networks = state.value, state.target
    (value, target), metrics = learning.scan_mean(step, networks, keys)
    return value, target, metrics


def next_params(
    config: Config, params: InferenceParams, learned: InferenceParams, round_: jax.Array
) -> InferenceParams:
    """Step 5: what acts in the round after `round_`.

        θ ← θ + ema_rate (θ_learned - θ) of d and V;   λ = λ_0 (λ_end / λ_0)^min(1, n / N)

    with n = round + 1 and N = `temperature_rounds`. What V follows is V̄. The learned model
    acts as it is.
    """
    warming_up = round_ + 1 < config.model_learning.seed_rounds
    discriminator, value = fit.polyak(
        (params.discriminator, params.value),
        (learned.discriminator, learned.value),
        config.ema_rate,
    )
    share = jnp.clip((round_ + 1) / config.temperature_rounds, 0.0, 1.0)
    ratio = config.final_temperature / config.temperature
    return InferenceParams(
        discriminator=discriminator,
        value=value,
        model=learned.model,
        temperature=jnp.asarray(config.temperature * ratio**share, jnp.float32),
        random=warming_up if config.learned_model else None,
    )


# ---------------------------------------------------------------------- batches and targets


def steps_of(components: Components, rollout: Transition) -> Steps:
    """The part of a rollout `[T, E]` that is learned from; no reward is among it."""
    next_obs = rollout.next_obs  # [T, E, O]
    if components.config.published.pairs_across_resets:
        next_obs = jnp.concatenate([rollout.obs[1:], next_obs[-1:]])
    action = None if components.learner is None else rollout.action
    return Steps(rollout.obs, next_obs, rollout.terminal, action)


def discriminator_batch(
    components: Components, data: Data, key: jax.Array
) -> DiscriminatorBatch:
    """`[B]` pairs of the expert, and as many of the learner: fresh, replayed, imagined."""
    config = components.config
    expert_key, learner_key = jax.random.split(key)
    fresh_key, replay_key, imagined_key = jax.random.split(learner_key, 3)
    expert_obs, expert_next_obs = demonstrations.sample_pairs(
        data.demos, expert_key, config.batch
    )
    replayed = round(config.batch * config.replay.discriminator_share)
    imagined = round(config.batch * config.imagination.discriminator_share)
    imagined = imagined if imagines(components) else 0
    parts = [
        _draw(data.fresh, fresh_key, config.batch - replayed - imagined),
        replay.sample(data.replay, replay_key, replayed, config.replay.recency_exponent),
    ]
    if imagined:
        parts.append(imagine(components, data, imagined_key, imagined))
    return DiscriminatorBatch(
        expert_obs=expert_obs,
        expert_next_obs=expert_next_obs,
        learner_obs=jnp.concatenate([part.obs for part in parts]),
        learner_next_obs=jnp.concatenate([part.next_obs for part in parts]),
    )


def value_batch(
    components: Components,
    fresh: Regression,
    data: Data,
    teachers: tuple[Params, Params],
    key: jax.Array,
) -> ValueBatch:
    """`[B]` fresh and `[B]` replayed steps, and imagined ones, with what V should be there.

    Args:
      fresh: all of the rollout, `[T E]`.
      teachers: the discriminator's normalised parameters, and V̄.
    """
    config, imagination = components.config, components.config.imagination
    fresh_key, replay_key, imagined_key = jax.random.split(key, 3)
    replayed = replay.sample(
        data.replay, replay_key, config.batch, config.replay.recency_exponent
    )
    imagined = None
    if imagination.value_batch is not None and imagines(components):
        steps = imagine(components, data, imagined_key, imagination.value_batch)
        imagined = one_step_targets(components, teachers, steps, imagination.discount)
    return ValueBatch(
        fresh=_draw(fresh, fresh_key, config.batch),
        replayed=one_step_targets(components, teachers, replayed, config.discount),
        imagined=imagined,
    )


def value_returns(
    components: Components,
    discriminator_params: Params,
    target: Params,
    rollout: Transition,
) -> jax.Array:
    """λ-returns G_t of a rollout, `[T, E]`, by V̄ where it is cut.

        G_t = r_t + γ_t [(1 - λ_t) V̄(s_{t+1}) + λ_t G_{t+1}],   r_t = d(s_t, s_{t+1})

    Sutton & Barto 2018, eq. 12.18; γ_t = 0 where s_{t+1} is terminal.
    """
    config = components.config
    same = config.published.reward_pairs == "same"
    successors = rollout.obs if same else rollout.next_obs
    return jax.vmap(returns.lambda_returns, (1, 1, 1, 1, None), 1)(
        reward(components, discriminator_params, rollout.obs, successors),
        components.value.apply(target, rollout.next_obs),
        config.discount * ~rollout.terminal,
        rollout.terminal | rollout.truncated,
        config.td_lambda,
    )


def one_step_targets(
    components: Components, teachers: tuple[Params, Params], steps: Steps, discount: float
) -> Regression:
    """y = d(s, s') + γ V̄(s') of steps `[B]`, without V̄ where s' is terminal.

    Args:
      teachers: the discriminator's normalised parameters, and V̄.
    """
    discriminator_params, target = teachers
    rewards = reward(components, discriminator_params, steps.obs, steps.next_obs)
    next_values = components.value.apply(target, steps.next_obs)
    return Regression(steps.obs, rewards + discount * ~steps.terminal * next_values)


def imagines(components: Components) -> bool:
    """Whether steps can be imagined: the model is given, and starts from an observation."""
    return components.learner is None and components.dynamics.recover is not None


def imagine(components: Components, data: Data, key: jax.Array, count: int) -> Steps:
    """`[count]` steps of random actions, as the planner's model predicts them.

    They start at s + spread σ ε, with s from the demonstrations, σ the deviation of such s
    and ε standard normal. Entries that demonstrations lack come from the replay.
    """
    dynamics, spec = components.dynamics, components.task.spec
    recover, observed = dynamics.recover, jnp.asarray(components.task.observed)
    assert recover is not None
    obs_key, noise_key, step_key = jax.random.split(key, 3)
    obs, _ = demonstrations.sample_pairs(data.demos, obs_key, count)
    if len(components.task.observed) < spec.observation_size:
        replay_key, noise_key = jax.random.split(noise_key)
        replayed = replay.sample(data.replay, replay_key, count).obs
        obs = replayed.at[:, observed].set(obs[:, observed])
    noise = jax.random.normal(noise_key, obs.shape)
    obs = obs + components.config.imagination.spread * jnp.std(obs, axis=0) * noise

    def step(obs: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        action_key, key = jax.random.split(key)
        z = recover(data.model, obs)
        next_z = dynamics.step(data.model, z, _random_action(components, action_key), key)
        return dynamics.observe(data.model, z), dynamics.observe(data.model, next_z)

    obs, next_obs = jax.vmap(step)(obs, jax.random.split(step_key, count))
    return Steps(obs, next_obs, jnp.zeros((count,), bool))


def normalise(components: Components, params: Params) -> Params:
    """The discriminator's, spectrally normalised if asked: Miyato et al. 2018, eq. 8."""
    return spectral.normalise(params) if components.config.spectral_norm else params


def _random_action(components: Components, key: jax.Array) -> jax.Array:
    """`[U]`, uniform within its bounds."""
    spec = components.task.spec
    low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)
    return jax.random.uniform(key, low.shape, low.dtype, low, high)


def _draw(records, key: jax.Array, count: int):
    """`count` rows of a batch `[N]`, drawn uniformly with replacement."""
    rows = jax.random.randint(key, (count,), 0, jax.tree.leaves(records)[0].shape[0])
    return jax.tree.map(lambda leaf: leaf[rows], records)


# ----------------------------------------------------------------------------------- make


def make(task: Task, config: Config) -> Agent:
    """MPAIL for a task, planning through its dynamics.

    The discriminator sees no observation entries but `task.observed`.

    Raises:
      UsageError: there is no model to plan through, or a setting is not one of its choices.
    """
    components = make_components(task, config)
    return Agent(
        init=functools.partial(init, components),
        carry=components.planner.init,
        act=functools.partial(act, components),
        update=functools.partial(update, components),
    )


def make_components(task: Task, config: Config) -> Components:
    """The networks, optimisers, planner and model of a task and its settings."""
    if config.published.reward_pairs not in ("next", "same"):
        raise UsageError(
            "agent.published.reward_pairs is 'next' or 'same', not "
            f"{config.published.reward_pairs!r}."
        )
    spec, learner = task.spec, None
    if config.learned_model:
        learner = forward_model.make(
            spec, config.model, config.model_learning.learning_rate
        )
    discriminator_optimizer, value_optimizer = _optimizers(config)
    return Components(
        task=task,
        config=config,
        planner=mppi.make(config.planner, spec.action_low, spec.action_high),
        dynamics=learner.ensemble.dynamics if learner else task.require_dynamics("mpail"),
        learner=learner,
        discriminator=_discriminator(config, task.observed),
        value=mlp.make_scalar(config.value, (spec.observation_size,)),
        reward_of=adversarial.reward_of(config.reward),
        discriminator_optimizer=discriminator_optimizer,
        value_optimizer=value_optimizer,
    )


def _discriminator(config: Config, observed: tuple[int, ...]) -> Network:
    """d(s, s') of the observed entries of `[..., O]` each, `[...]`."""
    entries, size = jnp.asarray(observed), len(observed)
    network = mlp.make_scalar(config.discriminator, (size, size))

    def logit(params: Params, obs: jax.Array, next_obs: jax.Array) -> jax.Array:
        scale = config.input_scale
        return network.apply(
            params, scale * obs[..., entries], scale * next_obs[..., entries]
        )

    return network._replace(apply=logit)


def _optimizers(config: Config) -> tuple[fit.Optimizer, fit.Optimizer]:
    """The discriminator's and the value's."""
    options = config.optimizer

    def schedule(learning_rate: float, steps: int) -> optax.ScalarOrSchedule:
        if options.lr_half_life is None:
            return learning_rate
        return fit.exponential_decay(learning_rate, options.lr_half_life * steps)

    discriminator_tx = optax.adamw(
        schedule(options.discriminator_lr, config.discriminator_steps),
        b1=options.momentum,
        weight_decay=options.weight_decay,
    )
    value_tx = optax.chain(
        optax.clip_by_global_norm(options.max_grad_norm),
        optax.adam(schedule(options.value_lr, config.value_steps)),
    )
    return fit.make(discriminator_tx), fit.make(value_tx)


# ---------------------------------------------------------------------------- for reports


def shows(task: Task, config: Config) -> Shows:
    """The logit d(s, s'), the value V, and the plans that `act` weighs."""
    components = make_components(task, config)
    return Shows(
        reward=lambda params, obs, action, next_obs: components.discriminator.apply(
            params.discriminator, obs, next_obs
        ),
        value=lambda params, obs: components.value.apply(params.value, obs),
        plans=functools.partial(plan_samples, components),
    )


def plan_samples(
    components: Components,
    params: InferenceParams,
    carry: Plan,
    state: EnvState,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What `act` weighs with the same arguments, as `Shows.plans` says.

    Returns:
      Paths `[K, H + 1, O]` of the plans, their weights `[K]`, and the path `[H + 1, O]` of
      the plan that is their mean.
    """
    plan_key, model_key = jax.random.split(key)
    score_fn = plan_score(components, params, state, model_key)
    plans, weights = components.planner.plan_samples(
        score_fn, carry, plan_key, params.temperature
    )
    mean = jnp.sum(weights[:, None, None] * plans, axis=0)  # [H, U]
    path = functools.partial(
        foresight.imagine, components.dynamics, params.model, state, model_key
    )
    return jax.vmap(path)(plans), weights, path(mean)
