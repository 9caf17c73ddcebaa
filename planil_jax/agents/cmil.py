"""CMIL and V-MAIL: adversarial imitation in the imagination of a learned world model.

x = [h, z] are the features of a belief of the world model (models/rssm.py). The logit
l(x, a) of the discriminator is high for the expert. Q_1 and Q_2 are critics and Q̄_1, Q̄_2
their slow copies, π(a | x) is the policy, u(x, a) is the disagreement of K priors about a
step, and sg stops gradients. One gradient step, on sequences of the replay and of the
demonstrations:

    1. model          min  E[½ ‖o_t - d(x_t)‖²] + w KL(q_t || p_t)
                      with KL balance and free nats; the steps below read sg(x_t)
    2. imagination    H steps from every x_t of the batch,   a_t ~ π(· | sg(x_t))
                      r_t = reward(l(x_t, a_t)) - α u(x_t, a_t)
                      V_t = min_i Q_i(x_t, a_t)
                      G_t = r_t + γ [(1 - λ) V_{t+1} + λ G_{t+1}],   G_H = V_H
    3. policy         max  E mean_t γ^t [λ G_t + (1 - λ) V_t - η log π(a_t | x_t)]
                           + c E_expert log π(a | x)
                      its gradient passes through the model, the logit and the critics
    4. discriminator  min  E_expert softplus(-l(x, a)) + E_imagined softplus(l(x, a))
                           + weight · E[(‖∇l(x, a)‖ - norm)²]
    5. critics        min  E_imagined (Q_i(x_t, a_t) - Ḡ_t)²
                           + E_recorded (Q_i(x_j, a_j) - y_j)²
                      y_j = reward(l(x_j, a_j)) + γ [(1 - λ) V̄_{j+1} + λ Ḡ_{j+1}]

The recursion of G in (2) equals the mixture of n-step returns of CMIL, eq. 5. In (5) V̄ and
Ḡ are those of Q̄; for j + 1 they start at the belief that follows the recorded step. A step
that ends an episode has no such belief, and critics do not learn from it. V-MAIL is CMIL
with one prior and α = 0 (`vmail`).

The first round begins with `pretrain_steps` gradient steps on demonstrations alone. After
them come `bc_steps` more, in which the policy only clones. An agent that acts carries its
belief and its previous action along.

Source: Kolev et al. 2024, arXiv 2405.13193 (CMIL); Rafailov et al. 2021, arXiv 2107.08829
(V-MAIL); KL balance, Hafner et al. 2021, DreamerV2, arXiv 2010.02193, algorithm 2; penalty,
Gulrajani et al. 2017, arXiv 1704.00028, eq. 3.
Departures, by field, and what the papers or their code have:
    conservatism, reward  r = l - α u, as in CMIL's paper; its code has D - 10 u, V-MAIL's D
    td_lambda             0.95, and returns end in a value; V-MAIL's code has 1 and a value
                          of 0, and fits V of a state to the return of the one before
    critic                Q(x, a), also for V-MAIL, whose paper has V(x); targets take the
                          smaller of both; CMIL's code takes one at random
    target_rate           slow critics are a moving average; CMIL's code copies them every
                          100 gradient steps
    bc_coef               0; CMIL's code has 10
    discriminator         gradient_penalty is on the slope of l by its inputs, V-MAIL's code
                          takes the slope by the parameters of l; instance_noise is 0,
                          CMIL's code has 2.5
    exploration_noise     0; V-MAIL has 0.3
    pretrain_steps        100; CMIL's code has 1000
    optimizer             a rate for each network; CMIL's code uses the policy's for critics
                          and discriminator; no weight decay, CMIL has 1e-6
No field: the untrained policy acts in the first round. The last observation of an episode
is not kept, and the model does not predict ends; the tasks of the papers last a fixed time.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.agents.common import actions, latent_planning, learning
from planil_jax.base import (
    Agent,
    Demonstrations,
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
from planil_jax.config import Count, Natural, NonNegative, Positive, Share
from planil_jax.data import demos as demonstrations
from planil_jax.data import replay
from planil_jax.losses import adversarial, returns, world_model
from planil_jax.losses import policy as policy_losses
from planil_jax.models import rssm
from planil_jax.models.rssm import Belief
from planil_jax.nets import fit, heads, mlp, normalise
from planil_jax.nets.normalise import Moments

_NORMALIZER_STEPS = 1000  # steps of demonstrations that first normalise observations


def _elu(*hidden: int) -> mlp.Config:
    return mlp.Config(hidden=hidden, activation="elu")


@dataclass(frozen=True, kw_only=True)
class KlConfig:
    """The divergence of posterior and prior in the model's loss."""

    weight: NonNegative = 1.0  # w, weight of the divergence
    balance: Share = 0.8  # share of the divergence that trains the prior
    free_nats: NonNegative = 1.0  # mean divergence that costs nothing, in nats


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """The logit l(x, a), and the terms of its loss beside the cross-entropy."""

    # layers of the logit
    network: mlp.Config = field(default_factory=lambda: _elu(200, 200))
    gradient_penalty: NonNegative = 1.0  # weight of the penalty on the logit's slope
    gradient_norm: NonNegative = 1.0  # slope of the logit that costs nothing
    instance_noise: NonNegative = 0.0  # deviation of noise on the features it learns from


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """The replay, and the batch of a gradient step."""

    capacity: Count = 100_000  # steps of each environment that are kept
    length: Count = 50  # L, steps of a sequence
    batch: Count = 32  # sequences in a gradient step
    expert_share: Share = 0.5  # share of them that are demonstrations


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam, one for each network."""

    model_lr: NonNegative = 3e-4  # learning rate of the world model
    discriminator_lr: NonNegative = 3e-4  # learning rate of the discriminator
    critic_lr: NonNegative = 3e-4  # learning rate of the critics
    policy_lr: NonNegative = 8e-5  # learning rate of the policy
    max_grad_norm: Positive = 100.0  # global norm to which each gradient is clipped


@dataclass(frozen=True, kw_only=True)
class Config:
    # world model; model.network.heads is K, the number of priors
    model: rssm.Config = field(default_factory=rssm.Config)
    kl: KlConfig = field(default_factory=KlConfig)
    # policy of the features of a belief
    policy: heads.Config = field(
        default_factory=lambda: heads.Config(
            network=_elu(400, 400, 400), std_low=0.1, std_of_state=True
        )
    )
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    # layers of each critic Q(x, a)
    critic: mlp.Config = field(default_factory=lambda: _elu(400, 400, 400))
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    conservatism: NonNegative = 1.0  # α, reward lost for each unit of disagreement
    # form of the reward of a logit, see losses.adversarial.REWARDS
    reward: Literal["logit", "gail_pos", "gail_neg", "prob", "neg_prob"] = "logit"
    horizon: Count = 15  # H, imagined steps
    discount: Share = 0.99  # γ, discount factor of the returns
    td_lambda: Share = 0.95  # λ of the λ-returns
    entropy_coef: NonNegative = 1e-4  # η, weight of the policy's entropy
    bc_coef: NonNegative = 0.0  # c, weight of cloning in the policy's loss
    exploration_noise: NonNegative = 0.0  # deviation of noise on explored actions
    pretrain_steps: Natural = 100  # first gradient steps, on demonstrations alone
    bc_steps: Natural = 100  # gradient steps after those, in which the policy clones
    updates_per_step: Positive = 0.2  # gradient steps for each environment step
    target_rate: Share = 0.02  # τ, by which slow critics move to the critics at each step


def vmail(config: Config | None = None) -> Config:
    """V-MAIL: these settings with one prior and no conservatism."""
    config = config or Config()
    network = dataclasses.replace(config.model.network, heads=1)
    model = dataclasses.replace(config.model, network=network)
    return dataclasses.replace(config, model=model, conservatism=0.0)


def NEEDS(config: Config) -> Needs:  # noqa: N802
    """Demonstrations of full observations with actions, in sequences of L steps."""
    return Needs(
        actions=True, full_observations=True, pixels=True, sequence=config.replay.length
    )


# ----------------------------------------------------------------------------- what changes


@struct.dataclass
class Carry:
    """What acting carries from step to step."""

    belief: Belief
    action: jax.Array  # [U] the previous action, in [-1, 1]


@struct.dataclass
class InferenceParams:
    """The part that acts and is exported."""

    model: Params
    policy: Params
    moments: Moments  # of observations that are vectors


@struct.dataclass
class State:
    params: InferenceParams
    model: Fit
    discriminator: Fit
    critics: Fit  # [2]
    target_critics: Params  # [2] Q̄
    policy: Fit
    ended: jax.Array  # [E] bool, whether the previous step ended an episode
    replay: replay.Replay | None  # None inside the loop of gradient steps


class Optimizers(NamedTuple):
    """One for each network; named as the fields of State."""

    model: fit.Optimizer
    discriminator: fit.Optimizer
    critics: fit.Optimizer
    policy: fit.Optimizer


class Components(NamedTuple):
    """Networks, optimisers and transforms, made once from task and config."""

    task: Task
    config: Config
    scaling: actions.Scaling
    model: rssm.Rssm
    policy: heads.Policy  # of features [.., F], for actions in [-1, 1]
    discriminator: Network  # (params, features [.., F], action [.., U]) -> logit [..]
    critics: Network  # (params [2], features [.., F], action [.., U]) -> [2, ..]
    optimizers: Optimizers


def make_components(task: Task, config: Config) -> Components:
    """Networks of the sizes of a task, and their optimisers.

    Raises:
      UsageError: pictures are not of 64 × 64 pixels.
    """
    spec, network, rates = task.spec, config.model.network, config.optimizer
    action_size, feature_size = spec.action_size, network.deter + network.stoch
    critic = mlp.make_scalar(config.critic, (feature_size, action_size))
    bounds = (-1.0,) * action_size, (1.0,) * action_size

    def adam(learning_rate: float) -> fit.Optimizer:
        clip = optax.clip_by_global_norm(rates.max_grad_norm)
        return fit.make(optax.chain(clip, optax.adam(learning_rate, eps=1e-5)))

    return Components(
        task=task,
        config=config,
        scaling=actions.make_scaling(spec),
        model=rssm.make(config.model, spec.frame or spec.observation_size, action_size),
        policy=heads.make(config.policy, (feature_size,), *bounds),
        discriminator=mlp.make_scalar(
            config.discriminator.network, (feature_size, action_size)
        ),
        critics=Network(
            init=lambda key: jax.vmap(critic.init)(jax.random.split(key)),
            apply=jax.vmap(critic.apply, (0, None, None)),
        ),
        optimizers=Optimizers(
            model=adam(rates.model_lr),
            discriminator=adam(rates.discriminator_lr),
            critics=adam(rates.critic_lr),
            policy=adam(rates.policy_lr),
        ),
    )


def newest_frame(components: Components, obs: jax.Array) -> jax.Array:
    """The last frame of a stack of pictures; a vector as it is."""
    return obs[..., -3:] if components.task.spec.image else obs


def preprocess(components: Components, moments: Moments, obs: jax.Array) -> jax.Array:
    """What the model encodes: normalised vectors, or frames as they are."""
    return obs if components.task.spec.image else normalise.apply(moments, obs)


# ---------------------------------------------------------------- (1) the loss of the model


@struct.dataclass
class Sequences:
    """Consecutive steps. The expert's are at the front of B."""

    obs: jax.Array  # [L, B, O], or frames [L, B, H, W, 3]
    action: jax.Array  # [L, B, U] taken there, in [-1, 1]
    first: jax.Array  # [L, B] bool, whether an episode, or the sequence, begins there


def model_loss(
    components: Components, params: Params, batch: Sequences, key: jax.Array
) -> tuple[jax.Array, tuple[Belief, Metrics]]:
    """(1) Error of reconstruction and divergence from the prior, of preprocessed sequences.

    The negative variational bound on the log-likelihood, less a constant: the training
    objective of Hafner et al. 2019, PlaNet, arXiv 1811.04551.

    Returns:
      The loss `[]`, beliefs `[L, B]`, and metrics.
    """
    model, config = components.model, components.config.kl
    encoded = model.encode(params, batch.obs)
    inputs = rssm.Inputs(_previous(batch.action), encoded, batch.first)
    observed = model.observe(params, inputs, key)
    error = jnp.mean(model.error(params, model.features(observed.belief), batch.obs))
    posterior = observed.posterior.mean, observed.posterior.std
    prior = observed.prior.mean, observed.prior.std
    divergence = world_model.balanced_kl(posterior, prior, config.balance, config.free_nats)
    loss = error + config.weight * divergence
    metrics = {
        "model/loss": loss,
        "model/error": error,
        "model/divergence": jnp.mean(world_model.kl(*posterior, *prior)),
    }
    return loss, (observed.belief, metrics)


def _previous(action: jax.Array) -> jax.Array:
    """The action before each step `[L, .., U]`, 0 before the first."""
    return jnp.concatenate([jnp.zeros_like(action[:1]), action[:-1]])


# -------------------------------------------------------------------------- (2) imagination


@struct.dataclass
class Pairs:
    """Features of beliefs, and the actions taken there."""

    features: jax.Array  # [.., F]
    action: jax.Array  # [.., U] in [-1, 1]


@struct.dataclass
class Critique:
    """Frozen parameters that value a policy: model, discriminator and critics."""

    model: Params
    discriminator: Params
    critics: Params  # [2]


@struct.dataclass
class Imagination:
    """Steps under the policy from each belief `[L, B]` of a batch."""

    steps: Pairs  # [H + 1, L, B]
    log_prob: jax.Array  # [H + 1, L, B] of the actions
    reward: jax.Array  # [H, L, B]
    disagreement: jax.Array  # [H, L, B] u


def imagine(
    components: Components,
    policy: Params,
    critique: Critique,
    beliefs: Belief,
    key: jax.Array,
) -> Imagination:
    """(2) H steps of the policy in the model, and their conservative rewards.

    r_t = reward(l(x_t, a_t)) - α u(x_t, a_t)
    """

    def act(features: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        distribution = components.policy.apply(policy, jax.lax.stop_gradient(features))
        return components.policy.sample(distribution, key)

    model, config = components.model, components.config
    imagined = model.imagine(critique.model, beliefs, act, config.horizon, key)
    steps = Pairs(model.features(imagined.belief), imagined.action)
    reward = reward_of(components, critique.discriminator, _before_last(steps))
    # The priors predict from the memory after a step.
    disagreement = model.disagreement_at(critique.model, imagined.belief.deter[1:])
    reward = reward - config.conservatism * disagreement
    return Imagination(steps, imagined.aux, reward, disagreement)


def _before_last(pairs: Pairs) -> Pairs:
    """The first H of H + 1 steps."""
    return jax.tree.map(lambda leaf: leaf[:-1], pairs)


def reward_of(components: Components, discriminator: Params, pairs: Pairs) -> jax.Array:
    """reward(l(x, a)), `[..]`."""
    logits = components.discriminator.apply(discriminator, pairs.features, pairs.action)
    return adversarial.reward_of(components.config.reward)(logits)


def value_of(components: Components, critics: Params, pairs: Pairs) -> jax.Array:
    """V = min_i Q_i(x, a), `[..]`."""
    return jnp.min(components.critics.apply(critics, pairs.features, pairs.action), axis=0)


def lambda_returns(config: Config, reward: jax.Array, values: jax.Array) -> jax.Array:
    """G_t of rewards `[H, ..]` and values `[H + 1, ..]`, `[H, ..]`; CMIL, eq. 5."""
    chex.assert_equal_shape([reward, values[1:]])
    rows = reward.reshape(reward.shape[0], -1)  # [H, N]
    next_values = values[1:].reshape(rows.shape)
    discounts = jnp.full(rows.shape[:1], config.discount, jnp.float32)
    cut = jnp.zeros(rows.shape[:1], bool)
    batched = jax.vmap(returns.lambda_returns, (1, 1, None, None, None), 1)
    return batched(rows, next_values, discounts, cut, config.td_lambda).reshape(
        reward.shape
    )


# --------------------------------------------------------------- (3) the loss of the policy


@struct.dataclass
class PolicyBatch:
    """The starts of imagination, the networks that value it, and the actions to clone."""

    beliefs: Belief  # [L, B]
    critique: Critique
    expert: Pairs  # [L, N]
    cloning: jax.Array  # [] bool, whether the policy only clones


def policy_loss(
    components: Components, params: Params, batch: PolicyBatch, key: jax.Array
) -> tuple[jax.Array, tuple[Imagination, Metrics]]:
    """(3) The negative return and entropy of imagined steps, and cloning of the expert.

    -E mean_t γ^t [λ G_t + (1 - λ) V_t - η log π(a_t | x_t)] - c E_expert log π(a | x)

    Returns:
      The loss `[]`, the imagined steps without a gradient, and metrics.
    """
    config = components.config
    imagined = imagine(components, params, batch.critique, batch.beliefs, key)
    log_prob = imagined.log_prob[:-1]
    values = value_of(components, batch.critique.critics, imagined.steps)
    targets = lambda_returns(config, imagined.reward, values)  # [H, L, B]
    gain = config.td_lambda * targets + (1 - config.td_lambda) * values[:-1]
    gain = gain - config.entropy_coef * log_prob
    weights = config.discount ** jnp.arange(config.horizon, dtype=jnp.float32)
    loss = -jnp.mean(weights[:, None, None] * gain)
    unlikelihood = bc_loss(components, params, batch.expert)
    loss = jnp.where(batch.cloning, unlikelihood, loss + config.bc_coef * unlikelihood)
    metrics = {
        "policy/loss": loss,
        "policy/entropy": -jnp.mean(log_prob),
        "policy/likelihood": -unlikelihood,
        "imagined/reward": jnp.mean(imagined.reward),
        "imagined/value": jnp.mean(values),
        "imagined/disagreement": jnp.mean(imagined.disagreement),
    }
    return loss, (jax.lax.stop_gradient(imagined), metrics)


def bc_loss(components: Components, params: Params, expert: Pairs) -> jax.Array:
    """-E_expert log π(a | x), `[]`."""
    distribution = components.policy.apply(params, expert.features)
    log_prob = components.policy.log_prob(distribution, expert.action)
    return policy_losses.cloning_likelihood(log_prob.reshape(-1))


# -------------------------------------------------------- (4) the loss of the discriminator


@struct.dataclass
class DiscriminatorBatch:
    expert: Pairs  # [L, N]
    imagined: Pairs  # [H, L, B]


def discriminator_loss(
    components: Components, params: Params, batch: DiscriminatorBatch, key: jax.Array
) -> tuple[jax.Array, Metrics]:
    """(4) Cross-entropy of both classes, and the penalty on the slope between them.

    Ho & Ermon 2016, GAIL, arXiv 1606.03476, eq. 15; Gulrajani et al. 2017, eq. 3.
    """
    config = components.config.discriminator
    expert_key, imagined_key, index_key, penalty_key = jax.random.split(key, 4)

    def logit(pairs: Pairs) -> jax.Array:
        return components.discriminator.apply(params, pairs.features, pairs.action)

    expert = _noisy_rows(batch.expert, config.instance_noise, expert_key)
    imagined = _noisy_rows(batch.imagined, config.instance_noise, imagined_key)
    loss, metrics = adversarial.discrimination(logit(expert), logit(imagined))
    index = jax.random.randint(
        index_key, expert.action.shape[:1], 0, imagined.action.shape[0]
    )
    partners = jax.tree.map(lambda leaf: leaf[index], imagined)
    penalty = adversarial.gradient_penalty(
        logit, expert, partners, penalty_key, config.gradient_norm
    )
    metrics |= {"discriminator/penalty": penalty}
    return loss + config.gradient_penalty * penalty, metrics


def _noisy_rows(pairs: Pairs, std: float, key: jax.Array) -> Pairs:
    """All pairs in one row `[N]`, with noise on their features."""
    features = pairs.features + std * jax.random.normal(key, pairs.features.shape)
    noisy = Pairs(features, pairs.action)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), noisy)


# -------------------------------------------------------------- (5) the loss of the critics


@struct.dataclass
class CriticBatch:
    """Recorded steps `[L, B]`, and the steps imagined from their beliefs."""

    imagined: Imagination  # [H + 1, L, B]
    recorded: Pairs  # [L, B]
    reward: jax.Array  # [L, B] of the recorded steps
    first: jax.Array  # [L, B] bool, whether an episode begins there


@struct.dataclass
class CriticTargets:
    imagined: jax.Array  # [H, L, B] Ḡ_t
    recorded: jax.Array  # [L - 1, B] y_j
    valid: jax.Array  # [L - 1, B] bool, whether step j + 1 is of the same episode


def critic_targets(
    components: Components, target_critics: Params, batch: CriticBatch
) -> CriticTargets:
    """Ḡ_t and y_j = r_j + γ [(1 - λ) V̄_{j+1} + λ Ḡ_{j+1}] of the slow critics."""
    config, imagined = components.config, batch.imagined
    chex.assert_equal_shape([batch.reward, imagined.reward[0], batch.first])
    values = value_of(components, target_critics, imagined.steps)  # [H + 1, L, B]
    targets = lambda_returns(config, imagined.reward, values)  # [H, L, B]
    mixed = (1 - config.td_lambda) * values[0] + config.td_lambda * targets[0]  # [L, B]
    recorded = batch.reward[:-1] + config.discount * mixed[1:]
    return CriticTargets(imagined=targets, recorded=recorded, valid=~batch.first[1:])


def critic_loss(
    components: Components, params: Params, batch: CriticBatch, targets: CriticTargets
) -> tuple[jax.Array, Metrics]:
    """(5) Squared errors of both critics, of imagined and of recorded steps."""
    steps, recorded = batch.imagined.steps, batch.recorded
    critics = components.critics.apply
    values = critics(params, steps.features[:-1], steps.action[:-1])  # [2, H, L, B]
    imagined_loss = jnp.sum(jnp.mean((values - targets.imagined) ** 2, axis=(1, 2, 3)))
    values = critics(params, recorded.features[:-1], recorded.action[:-1])  # [2, L - 1, B]
    errors = jnp.sum((values - targets.recorded) ** 2, axis=0)
    valid = targets.valid
    recorded_loss = jnp.sum(valid * errors) / jnp.maximum(jnp.sum(valid), 1)
    return imagined_loss + recorded_loss, {
        "critic/imagined_loss": imagined_loss,
        "critic/recorded_loss": recorded_loss,
    }


# ----------------------------------------------------------------------------------- acting


def initial_carry(components: Components) -> Carry:
    """The carry of a fresh episode."""
    action = jnp.zeros((components.task.spec.action_size,), jnp.float32)
    return Carry(components.model.start(), action)


def act(
    components: Components,
    params: InferenceParams,
    carry: Carry,
    state: EnvState,
    key: jax.Array,
    explore: bool,
) -> tuple[jax.Array, Carry]:
    """The policy's action in the belief of all observations so far.

    It explores by samples of latent and action, and by noise; else both are modes.
    """
    belief_key, action_key, noise_key = jax.random.split(key, 3)
    belief = filter_step(
        components, params, carry, state.obs, belief_key if explore else None
    )
    features = components.model.features(belief)
    distribution = components.policy.apply(params.policy, features)
    action = actions.from_distribution(components.policy, distribution, action_key, explore)
    if explore:
        noise = jax.random.normal(noise_key, action.shape)
        action = action + components.config.exploration_noise * noise
        action = jnp.clip(action, -1.0, 1.0)
    spec = components.task.spec
    low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)
    # Rounding alone could exceed the bounds.
    scaled = jnp.clip(components.scaling.from_unit_interval(action), low, high)
    return scaled, Carry(belief, action)


def filter_step(
    components: Components,
    params: InferenceParams,
    carry: Carry,
    obs: jax.Array,
    key: jax.Array | None,
) -> Belief:
    """The belief after one more observation, of the posterior's mean without a key."""
    obs = preprocess(components, params.moments, newest_frame(components, obs))
    inputs = rssm.Inputs(
        action=carry.action,
        encoded=components.model.encode(params.model, obs),
        first=jnp.zeros((), bool),  # a fresh carry holds zeros already
    )
    head = jnp.zeros((), jnp.int32)  # of the prior, which is not read
    observed = components.model.observe_step(params.model, carry.belief, inputs, head, key)
    return observed.belief


# --------------------------------------------------------------------------------- learning


def init(components: Components, key: jax.Array) -> State:
    """Fresh networks and an empty replay."""
    spec, optimizers = components.task.spec, components.optimizers
    model_key, discriminator_key, critic_key, policy_key = jax.random.split(key, 4)
    model = optimizers.model.init(components.model.init(model_key))
    policy = optimizers.policy.init(components.policy.init(policy_key))
    discriminator = components.discriminator.init(discriminator_key)
    critics = components.critics.init(critic_key)
    vector = jnp.zeros((max(spec.observation_size, 1),), jnp.float32)
    step = {
        "obs": jnp.zeros(spec.frame, jnp.uint8) if spec.image else vector,
        "action": jnp.zeros((spec.action_size,), jnp.float32),
        "first": jnp.zeros((), bool),
    }
    num_envs = components.task.num_envs
    return State(
        params=InferenceParams(model.params, policy.params, normalise.init(vector.size)),
        model=model,
        discriminator=optimizers.discriminator.init(discriminator),
        critics=optimizers.critics.init(critics),
        target_critics=critics,
        policy=policy,
        ended=jnp.ones((num_envs,), bool),
        replay=replay.init(step, components.config.replay.capacity, num_envs),
    )


def update(
    components: Components,
    state: State,
    rollout: Transition,
    demos: Demonstrations,
    key: jax.Array,
    round_: jax.Array,
) -> tuple[State, Metrics]:
    """Inserts a rollout `[T, E]`, then takes the gradient steps of its round."""
    config = components.config
    _require_length(config, demos)
    assert state.replay is not None
    moments_key, key = jax.random.split(key)
    ended = state.ended | learning.starts_anew(rollout)
    buffer = replay.insert(state.replay, replay_steps(components, ended, rollout))
    moments = state.params.moments
    if not components.task.spec.image:
        moments = update_normalizer(moments, rollout, demos, moments_key, round_)
    # The first round takes these steps in addition.
    warmup = jnp.where(round_ == 0, config.pretrain_steps + config.bc_steps, 0)

    def improve(state_and_step, key: jax.Array):
        state, step = state_and_step
        batch_key, key = jax.random.split(key)
        batch = sample_batch(components, buffer, demos, batch_key, step < warmup)
        cloning = (step >= config.pretrain_steps) & (step < warmup)
        state, metrics = learn(components, state, batch, cloning, key)
        return (state, step + 1), metrics

    state = dataclasses.replace(
        state,
        params=dataclasses.replace(state.params, moments=moments),
        ended=(rollout.terminal | rollout.truncated)[-1],
        replay=None,
    )
    count = max(round(config.updates_per_step * rollout.reward.size), 1) + warmup
    start = state, jnp.zeros((), jnp.int32)
    (state, _), metrics = latent_planning.fori_mean(improve, start, key, count)
    params = InferenceParams(state.model.params, state.policy.params, moments)
    return dataclasses.replace(state, params=params, replay=buffer), metrics


def learn(
    components: Components,
    state: State,
    batch: Sequences,
    cloning: jax.Array,
    key: jax.Array,
) -> tuple[State, Metrics]:
    """One gradient step of all networks, (1) to (5), on one batch and one imagination.

    Args:
      cloning: `[]` bool, whether the policy only clones.
    """
    config, step = components.config, functools.partial(_gradient_step, components)
    model_key, policy_key, discriminator_key = jax.random.split(key, 3)
    obs = preprocess(components, state.params.moments, batch.obs)
    batch = dataclasses.replace(batch, obs=obs)
    model, (beliefs, metrics), _ = step(model_loss, "model", state, batch, model_key)

    beliefs = jax.lax.stop_gradient(beliefs)
    recorded = Pairs(components.model.features(beliefs), batch.action)  # [L, B]
    expert = jax.tree.map(lambda leaf: leaf[:, : _expert_count(config)], recorded)
    critique = Critique(model.params, state.discriminator.params, state.critics.params)
    starts = PolicyBatch(beliefs, critique, expert, cloning)
    policy, (imagined, found), norm = step(policy_loss, "policy", state, starts, policy_key)
    metrics |= found | {"policy/gradient_norm": norm}

    classes = DiscriminatorBatch(expert, _before_last(imagined.steps))
    discriminator, found, _ = step(
        discriminator_loss, "discriminator", state, classes, discriminator_key
    )
    metrics |= found

    reward = reward_of(components, state.discriminator.params, recorded)
    steps = CriticBatch(imagined, recorded, reward, batch.first)
    targets = critic_targets(components, state.target_critics, steps)
    critics, found, _ = step(critic_loss, "critics", state, steps, targets)
    state = dataclasses.replace(
        state,
        model=model,
        discriminator=discriminator,
        critics=critics,
        target_critics=fit.polyak(state.target_critics, critics.params, config.target_rate),
        policy=policy,
    )
    return state, metrics | found


def _gradient_step(
    components: Components, loss_fn: Callable, name: str, state: State, *args: Any
) -> tuple[Fit, Any, jax.Array]:
    """A step down a loss of the network of this name; the loss's aux; the norm."""
    fitted: Fit = getattr(state, name)
    optimizer: fit.Optimizer = getattr(components.optimizers, name)
    loss_fn = functools.partial(loss_fn, components)
    gradients, aux = jax.grad(loss_fn, has_aux=True)(fitted.params, *args)
    return optimizer.step(fitted, gradients), aux, optax.tree.norm(gradients)


# -------------------------------------------------------------------------------- sequences


def replay_steps(
    components: Components, ended: jax.Array, rollout: Transition
) -> dict[str, jax.Array]:
    """What the replay keeps of a rollout `[T, E]`.

    Args:
      ended: `[E]` bool, whether the step before the rollout ended an episode.
    """
    ends = rollout.terminal | rollout.truncated
    return {
        "obs": newest_frame(components, rollout.obs),
        "action": components.scaling.to_unit_interval(rollout.action),
        "first": jnp.concatenate([ended[None], ends[:-1]]),
    }


def sample_batch(
    components: Components,
    buffer: replay.Replay,
    demos: Demonstrations,
    key: jax.Array,
    demos_only: jax.Array,
) -> Sequences:
    """Sequences of demonstrations and of the replay.

    All are demonstrations where `demos_only` is true, or while the replay holds less than
    one sequence.
    """
    config = components.config.replay
    count = _expert_count(components.config)
    expert_key, learner_key = jax.random.split(key)
    obs, action, _ = demonstrations.sample_sequences(
        demos, expert_key, config.batch, config.length
    )
    assert action is not None  # NEEDS.actions
    first = jnp.zeros(action.shape[:2], bool)
    expert = Sequences(obs[:-1], components.scaling.to_unit_interval(action), first)
    learner_count = config.batch - count
    steps = replay.sample_windows(buffer, learner_key, learner_count, config.length)
    learner = Sequences(steps["obs"], steps["action"], steps["first"])
    demos_only = demos_only | (buffer.size < config.length)

    def join(expert: jax.Array, learner: jax.Array) -> jax.Array:
        rest = jnp.where(demos_only, expert[:, count:], learner)
        return jnp.concatenate([expert[:, :count], rest], axis=1)

    batch = jax.tree.map(join, expert, learner)
    return dataclasses.replace(batch, first=batch.first.at[0].set(True))


def _expert_count(config: Config) -> int:
    """How many sequences at the front of a batch are the expert's."""
    return round(config.replay.expert_share * config.replay.batch)


def update_normalizer(
    moments: Moments,
    rollout: Transition,
    demos: Demonstrations,
    key: jax.Array,
    round_: jax.Array,
) -> Moments:
    """Moments with those of a rollout; in the first round with the demonstrations' too."""
    obs = demonstrations.sample(demos, key, _NORMALIZER_STEPS)[0]
    with_demos = normalise.update(moments, obs)
    moments = jax.tree.map(
        lambda new, old: jnp.where(round_ == 0, new, old), with_demos, moments
    )
    return normalise.update(moments, rollout.obs)


# ----------------------------------------------------------------------------------- agents


def make(task: Task, config: Config) -> Agent:
    """CMIL for a task.

    Raises:
      UsageError: settings do not go together, or pictures are of another size.
    """
    _check(task.spec, config)
    components = make_components(task, config)
    return Agent(
        init=functools.partial(init, components),
        carry=functools.partial(initial_carry, components),
        act=functools.partial(act, components),
        update=functools.partial(update, components),
    )


def _check(spec: EnvSpec, config: Config) -> None:
    """Refuses settings that do not go together."""
    adversarial.reward_of(config.reward)
    sizes = config.replay
    if spec.image and spec.image[2] % 3:
        raise UsageError(
            f"{spec.name} shows {spec.image[2]} channels, which are no stack of red, green "
            "and blue frames: show three for each."
        )
    if sizes.capacity < sizes.length:
        raise UsageError(
            f"agent.replay.capacity, {sizes.capacity}, is less than agent.replay.length, "
            f"{sizes.length}, the steps of one sequence: raise the one or lower the other."
        )
    if config.model.network.heads < 1:
        raise UsageError(
            f"agent.model.network.heads is {config.model.network.heads}, but the model "
            "needs one prior at least: choose 1 or more."
        )
    if sizes.length < 2:
        raise UsageError(
            f"agent.replay.length is {sizes.length}, but a critic learns from a step and "
            "the next one: choose 2 or more."
        )
    if not 1 <= _expert_count(config) <= sizes.batch:
        raise UsageError(
            f"agent.replay.expert_share, {sizes.expert_share:g}, of agent.replay.batch, "
            f"{sizes.batch}, leaves the expert no sequence, or more than there are: choose "
            f"a share from {1 / sizes.batch:g} to 1."
        )


def _require_length(config: Config, demos: Demonstrations) -> None:
    longest, length = demos.obs.shape[1] - 1, config.replay.length
    if longest < length:
        raise UsageError(
            f"agent.replay.length is {length} steps, but the longest of these "
            f"demonstrations has {longest}: lower it, or record longer ones."
        )


# ---------------------------------------------------------------------------------- reports


def shows(task: Task, config: Config) -> Shows:
    """What the world model makes of an episode."""
    components = make_components(task, config)
    return Shows(world_model=functools.partial(world_model_rollouts, components))


def world_model_rollouts(
    components: Components,
    params: InferenceParams,
    obs: jax.Array,
    actions: jax.Array,
    observed_steps: int,
    key: jax.Array,
) -> tuple[jax.Array, ...]:
    """What the model reads, reconstructs, predicts and imagines of an episode.

    Args:
      obs: `[T, O]`, or stacks of frames `[T, H, W, C]`.
      actions: `[T, U]` taken there, in the environment's units.
      observed_steps: first steps whose observations prediction and imagination know.

    Returns:
      Four of `[T, ...]`, as `base.Shows.world_model` says.
    """
    model = components.model
    obs = preprocess(components, params.moments, newest_frame(components, obs))
    previous = _previous(components.scaling.to_unit_interval(actions))
    first = jnp.zeros(previous.shape[:1], bool)
    inputs = rssm.Inputs(previous, model.encode(params.model, obs), first)
    step_count = obs.shape[0]
    reconstructed = model.filter(params.model, inputs, step_count)
    predicted = model.filter(params.model, inputs, observed_steps)

    def mode(features: jax.Array, key: jax.Array) -> tuple[jax.Array, tuple[()]]:
        distribution = components.policy.apply(params.policy, features)
        return components.policy.mode(distribution), ()

    start = jax.tree.map(lambda leaf: leaf[observed_steps - 1], reconstructed)
    horizon = step_count - observed_steps
    imagined = model.imagine(params.model, start, mode, horizon, key).belief
    imagined = jax.tree.map(
        lambda known, new: jnp.concatenate([known[: observed_steps - 1], new]),
        reconstructed,
        imagined,
    )
    decoded = (
        model.decode(params.model, model.features(beliefs))
        for beliefs in (reconstructed, predicted, imagined)
    )
    return obs, *decoded
