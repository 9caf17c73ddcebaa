"""CMIL and V-MAIL: adversarial imitation inside the beliefs of a learned world model.

x = [h, z] are the features of a belief of the world model (models/rssm.py), l(x, a) a logit
(high: expert), Q_1 and Q_2 critics with slow copies Q̄, π(a | x) a policy, u(x, a) how far K
priors disagree about a step. A gradient step, on sequences of the replay and of the
demonstrations:

    1. model      min  E[½ ‖o_t - d(x_t)‖²] + w KL(q_t || p_t)
                  with KL balance and free nats; from here on no gradient reaches x_t
    2. imagine    H steps a_t ~ π(· | sg(x_t)) from every x_t there is, once for all below
                  r_t = reward(l(x_t, a_t)) - α u(x_t, a_t)
                  V_t = min_i Q_i(x_t, a_t)
                  G_t = r_t + γ [(1 - λ) V_{t+1} + λ G_{t+1}],   G_H = V_H
    3. policy     max  E mean_t γ^t [λ G_t + (1 - λ) V_t - η log π(a_t | x_t)]
                       + c E_expert log π(a | x)
                  by its gradient through model, logit and critics
    4. logit      min  E_expert softplus(-l(x, a)) + E_imagined softplus(l(x, a)) + penalty
    5. critics    min  E_imagined (Q_i(x_t, a_t) - Ḡ_t)² + E_recorded (Q_i(x_j, a_j) - y_j)²
                  y_j = reward(l(x_j, a_j)) + γ [(1 - λ) V̄_{j+1} + λ Ḡ_{j+1}]

In (5) V̄ and Ḡ are of Q̄, and those of j + 1 are imagined from the belief that followed;
where an episode ended with j there is none, and nothing is learned. V-MAIL is this with one
prior and α = 0 (`vmail`).

The first round begins with `pretrain_steps` steps on demonstrations alone, and `bc_steps` more in
which the policy clones. Acting takes along a belief and the action before.

Source: Kolev et al. 2024, arXiv 2405.13193 (CMIL); Rafailov et al. 2021, arXiv 2107.08829
(V-MAIL).
Departures: V-MAIL too has CMIL's critics of actions, which learn from recorded steps also,
where its paper has V; slow critics follow smoothly, where CMIL's are copied every 100
steps; no weight decay. The first round is driven by the policy as it was made. The last
observation of an episode is not held, and ends are not foreseen: the papers' tasks last a
fixed time.
Not followed, of the published code: V-MAIL's λ = 1 with a bootstrap of 0, its penalty on
the gradient of the logit's *parameters*, and its V of a state later than its return (here λ
= 0.95, a penalty on the gradient of the logit's inputs, and one index); CMIL's critics and
discriminator made with the policy's optimiser, so that the discriminator's own rate is
never used, its one critic of two drawn as a target (here the smaller), and D - 10 u as the
reward (here l - α u, as in its paper).
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.agents.common import latent_planning
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
from planil_jax.data import demos as demonstrations
from planil_jax.data import replay
from planil_jax.losses import adversarial, returns, world_model
from planil_jax.losses import policy as policy_losses
from planil_jax.models import rssm
from planil_jax.models.rssm import Belief
from planil_jax.nets import fit, heads, mlp, normalise
from planil_jax.nets.normalise import Moments

_KNOWN = 1000  # steps of demonstrations by which observations are first normalised


def _elu(*hidden: int) -> mlp.Config:
    return mlp.Config(hidden=hidden, activation="elu")


@dataclass(frozen=True, kw_only=True)
class Config:
    model: rssm.Config = field(default_factory=rssm.Config)  # its heads are K
    policy: heads.Config = field(
        default_factory=lambda: heads.Config(
            network=_elu(400, 400, 400), std_low=0.1, std_of_state=True
        )
    )
    discriminator: mlp.Config = field(default_factory=lambda: _elu(200, 200))
    critic: mlp.Config = field(default_factory=lambda: _elu(400, 400, 400))
    conservatism: float = 1.0  # α, reward that a unit of disagreement costs
    reward: str = "logit"  # a name of losses.adversarial.REWARDS
    horizon: int = 15  # H, steps that are imagined
    discount: float = 0.99  # γ
    td_lambda: float = 0.95  # λ
    entropy_coef: float = 1e-4  # η
    cloning: float = 0.0  # c; the published code of CMIL has 10
    kl_weight: float = 1.0  # w
    kl_balance: float = 0.8  # share of it that the prior learns
    free_nats: float = 1.0  # of the mean KL, below which it costs nothing
    gradient_penalty: float = 1.0  # weight; of the logit's inputs
    penalty_norm: float = 1.0  # the slope of l that costs nothing
    instance_noise: float = 0.0  # on features that l learns from; CMIL's code has 2.5
    exploration: float = 0.0  # deviation of noise on actions; V-MAIL has 0.3
    pretrain_steps: int = (
        100  # gradient steps on demonstrations alone; CMIL's code has 1000
    )
    bc_steps: int = 100  # and more in which the policy clones
    updates_per_step: float = 0.2  # gradient steps for each environment step
    length: int = 50  # L, steps of a sequence
    batch: int = 32  # sequences in a gradient step
    expert_share: float = 0.5  # of them, that are the expert's
    capacity: int = 100_000  # steps of each environment that are kept
    model_lr: float = 3e-4  # Adam
    discriminator_lr: float = 3e-4
    critic_lr: float = 3e-4
    policy_lr: float = 8e-5
    target_rate: float = 0.02  # by which slow critics follow
    max_grad_norm: float = 100.0


def vmail(config: Config | None = None) -> Config:
    """V-MAIL: these settings with one prior, and no conservatism."""
    config = config or Config()
    one = dataclasses.replace(config.model.network, heads=1)
    model = dataclasses.replace(config.model, network=one)
    return dataclasses.replace(config, model=model, conservatism=0.0)


def NEEDS(config: Config) -> Needs:  # noqa: N802
    """Demonstrations of whole observations with actions, in sequences of L steps."""
    return Needs(actions=True, full_observations=True, pixels=True, sequence=config.length)


@struct.dataclass
class Carry:
    """What acting takes along."""

    belief: Belief
    action: jax.Array  # [U] the last, in [-1, 1]


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
    slow: Params  # [2] Q̄
    policy: Fit
    ended: jax.Array  # [E] bool, whether an episode ended with the last step
    replay: replay.Replay | None  # None within a loop that does not change it


@struct.dataclass
class Sequences:
    """Consecutive steps, the expert's at the front of B; actions in [-1, 1]."""

    obs: jax.Array  # [L, B, O], or frames [L, B, H, W, 3]
    action: jax.Array  # [L, B, U] that was taken there
    first: jax.Array  # [L, B] bool, whether an episode, or the sequence, begins there


@struct.dataclass
class Rollout:
    """What was imagined from every step `[L, B]` of some sequences."""

    features: jax.Array  # [H + 1, L, B, F]
    action: jax.Array  # [H + 1, L, B, U] in [-1, 1]
    reward: jax.Array  # [H, L, B]


class Components(NamedTuple):
    """What the agent is made of."""

    model: rssm.Rssm
    policy: heads.Policy  # of features [.., F], for actions in [-1, 1]
    judge: Network  # (params, features [.., F], action [.., U]) -> [..]
    critics: Network  # (params [2], features [.., F], action [.., U]) -> [2, ..]
    experts: int  # sequences of a batch that are the expert's
    frame: Callable[[jax.Array], jax.Array]  # of what is seen, the part that is new
    look: Callable[[Moments, jax.Array], jax.Array]  # (moments, that) -> what is encoded
    unit: Callable[[jax.Array], jax.Array]  # action [.., U] to [-1, 1]
    full: Callable[[jax.Array], jax.Array]  # and back
    model_fit: fit.Optimizer
    discriminator_fit: fit.Optimizer
    critic_fit: fit.Optimizer
    policy_fit: fit.Optimizer


def make(task: Task, config: Config) -> Agent:
    """CMIL in an environment of this spec.

    Raises:
      UsageError: a setting is unknown or does not fit, or pictures are of another size.
    """
    spec = task.spec
    _check(spec, config)
    parts = make_parts(spec, config)
    model, policy = parts.model, parts.policy

    def carry() -> Carry:
        return Carry(model.start(), jnp.zeros((spec.action_size,), jnp.float32))

    def act(
        params: InferenceParams,
        carry: Carry,
        state: EnvState,
        key: jax.Array,
        explore: bool,
    ):
        belief_key, action_key, noise_key = jax.random.split(key, 3)
        seen = parts.look(params.moments, parts.frame(state.obs))
        observed = model.observe_step(
            params.model,
            carry.belief,
            carry.action,
            model.encode(params.model, seen),
            jnp.zeros((), bool),  # a fresh carry says the same
            jnp.zeros((), jnp.int32),
            belief_key if explore else None,
        )
        chosen = policy.apply(params.policy, model.features(observed.belief))
        action = policy.mode(chosen)
        if explore:
            noise = config.exploration * jax.random.normal(noise_key, action.shape)
            action = jnp.clip(policy.sample(chosen, action_key)[0] + noise, -1.0, 1.0)
        return parts.full(action), Carry(observed.belief, action)

    # ---------------------------------------------------------------------------- learning

    def init(key: jax.Array) -> State:
        model_key, judge_key, critic_key, policy_key = jax.random.split(key, 4)
        fitted = parts.model_fit.init(model.init(model_key))
        actor = parts.policy_fit.init(policy.init(policy_key))
        critics = parts.critics.init(critic_key)
        obs = jnp.zeros((max(spec.observation_size, 1),), jnp.float32)
        frame = jnp.zeros(spec.frame, jnp.uint8) if spec.image else obs
        step = {
            "obs": frame,
            "action": jnp.zeros((spec.action_size,), jnp.float32),
            "first": jnp.zeros((), bool),
        }
        return State(
            params=InferenceParams(fitted.params, actor.params, normalise.init(obs.size)),
            model=fitted,
            discriminator=parts.discriminator_fit.init(parts.judge.init(judge_key)),
            critics=parts.critic_fit.init(critics),
            slow=critics,
            policy=actor,
            ended=jnp.ones((task.num_envs,), bool),
            replay=replay.init(step, config.capacity, task.num_envs),
        )

    def update(
        state: State, rollout: Transition, demos: Demonstrations, key: jax.Array, round_
    ) -> tuple[State, Metrics]:
        _require_length(config, demos)
        assert state.replay is not None
        known_key, key = jax.random.split(key)
        held = replay.insert(state.replay, remembered(parts, state.ended, rollout))
        moments = state.params.moments
        if not spec.image:
            moments = update_normalizer(moments, rollout, demos, known_key, round_)
        draw = functools.partial(sequences, config, parts, held, demos)
        start = jnp.where(round_ == 0, config.pretrain_steps + config.bc_steps, 0)

        def improve(running, key: jax.Array):
            slim, done = running  # gradient steps of this round
            draw_key, key = jax.random.split(key)
            batch = draw(draw_key, demos_only=done < start)
            cloning = (done >= config.pretrain_steps) & (done < start)
            slim, metrics = learn(config, parts, slim, batch, cloning, key)
            return (slim, done + 1), metrics

        slim = dataclasses.replace(
            state,
            params=dataclasses.replace(state.params, moments=moments),
            ended=(rollout.terminal | rollout.truncated)[-1],
            replay=None,
        )
        count = max(round(config.updates_per_step * rollout.reward.size), 1) + start
        (slim, _), metrics = latent_planning.fori_mean(
            improve, (slim, jnp.zeros((), jnp.int32)), key, count
        )
        acting = InferenceParams(slim.model.params, slim.policy.params, moments)
        return dataclasses.replace(slim, params=acting, replay=held), metrics

    return Agent(init=init, carry=carry, act=act, update=update)


def make_parts(spec: EnvSpec, config: Config) -> Components:
    units, size = spec.action_size, config.model.network.deter + config.model.network.stoch
    low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)
    critic = mlp.make_scalar(config.critic, (size, units))
    shown = spec.frame or spec.observation_size

    def fitter(rate: float) -> fit.Optimizer:
        clip = optax.clip_by_global_norm(config.max_grad_norm)
        return fit.make(optax.chain(clip, optax.adam(rate, eps=1e-5)))

    def read(moments: Moments, obs: jax.Array) -> jax.Array:
        return obs if spec.image else normalise.apply(moments, obs)

    def full(unit: jax.Array) -> jax.Array:
        return jnp.clip(low + (high - low) * (unit + 1) / 2, low, high)

    return Components(
        model=rssm.make(config.model, shown, units),
        policy=heads.make(config.policy, (size,), (-1.0,) * units, (1.0,) * units),
        judge=mlp.make_scalar(config.discriminator, (size, units)),
        critics=Network(
            init=lambda key: jax.vmap(critic.init)(jax.random.split(key)),
            apply=jax.vmap(critic.apply, (0, None, None)),
        ),
        experts=round(config.expert_share * config.batch),
        frame=lambda obs: obs[..., -3:] if spec.image else obs,
        look=read,
        unit=lambda action: (2 * action - low - high) / (high - low),
        full=full,
        model_fit=fitter(config.model_lr),
        discriminator_fit=fitter(config.discriminator_lr),
        critic_fit=fitter(config.critic_lr),
        policy_fit=fitter(config.policy_lr),
    )


# ------------------------------------------------------------------------------- sequences


def remembered(
    parts: Components, ended: jax.Array, rollout: Transition
) -> dict[str, jax.Array]:
    """What the replay holds of a rollout `[T, E]`.

    Args:
      ended: `[E]` bool, whether an episode ended with the step before it.
    """
    ends = rollout.terminal | rollout.truncated
    return {
        "obs": parts.frame(rollout.obs),
        "action": parts.unit(rollout.action),
        "first": jnp.concatenate([ended[None], ends[:-1]]),
    }


def sequences(
    config: Config,
    parts: Components,
    held: replay.Replay,
    demos: Demonstrations,
    key: jax.Array,
    demos_only: jax.Array,
) -> Sequences:
    """A batch; of demonstrations alone if told to, or while there is too little else."""
    expert_key, own_key = jax.random.split(key)
    obs, actions, _ = demonstrations.sample_sequences(
        demos, expert_key, config.batch, config.length
    )
    assert actions is not None  # needs_actions
    first = jnp.zeros(actions.shape[:2], bool)
    expert = Sequences(obs[:-1], parts.unit(actions), first)
    count = config.batch - parts.experts
    drawn = replay.sample_windows(held, own_key, count, config.length)
    own = Sequences(drawn["obs"], drawn["action"], drawn["first"])
    demos_only = demos_only | (held.size < config.length)

    def choose(theirs: jax.Array, ours: jax.Array) -> jax.Array:
        front, rest = theirs[:, : parts.experts], theirs[:, parts.experts :]
        return jnp.concatenate([front, jnp.where(demos_only, rest, ours)], axis=1)

    both = jax.tree.map(choose, expert, own)
    return dataclasses.replace(both, first=both.first.at[0].set(True))


def update_normalizer(
    moments: Moments,
    rollout: Transition,
    demos: Demonstrations,
    key: jax.Array,
    round_: jax.Array,
) -> Moments:
    """Of a rollout too; in the first round of the demonstrations as well."""
    obs = demonstrations.sample(demos, key, _KNOWN)[0]
    begun = normalise.update(moments, obs)
    moments = jax.tree.map(lambda a, b: jnp.where(round_ == 0, a, b), begun, moments)
    return normalise.update(moments, rollout.obs)


# ---------------------------------------------------------------------- one gradient step


def learn(
    config: Config,
    parts: Components,
    state: State,
    batch: Sequences,
    cloning: jax.Array,
    key: jax.Array,
) -> tuple[State, Metrics]:
    """All parts, on one batch and on what is imagined from it once.

    Args:
      cloning: `[]` bool, whether the policy clones, and does nothing else.
    """
    model_key, policy_key, judge_key = jax.random.split(key, 3)
    beliefs, gradients, told = _model_gradients(config, parts, state, batch, model_key)
    model = parts.model_fit.step(state.model, gradients)
    features = parts.model.features(beliefs)  # [L, B, F]

    of_policy = functools.partial(policy_loss, config, parts)
    gradients, (rollout, metrics) = jax.grad(of_policy, has_aux=True)(
        state.policy.params,
        model.params,
        state.discriminator.params,
        state.critics.params,
        beliefs,
        batch.action,
        cloning,
        policy_key,
    )
    policy = parts.policy_fit.step(state.policy, gradients)
    told |= metrics | {"policy/gradient_norm": optax.tree.norm(gradients)}

    expert = features[:, : parts.experts], batch.action[:, : parts.experts]
    of_judge = functools.partial(discriminator_loss, config, parts)
    gradients, metrics = jax.grad(of_judge, has_aux=True)(
        state.discriminator.params, expert, rollout, judge_key
    )
    judge = parts.discriminator_fit.step(state.discriminator, gradients)
    told |= metrics

    rewards = reward_of(config, parts, state.discriminator.params, features, batch.action)
    of_critics = functools.partial(critic_loss, config, parts)
    gradients, metrics = jax.grad(of_critics, has_aux=True)(
        state.critics.params, state.slow, rollout, features, batch, rewards
    )
    critics = parts.critic_fit.step(state.critics, gradients)
    state = dataclasses.replace(
        state,
        model=model,
        discriminator=judge,
        critics=critics,
        slow=fit.polyak(state.slow, critics.params, config.target_rate),
        policy=policy,
    )
    return state, told | metrics


def _model_gradients(config, parts, state: State, batch: Sequences, key: jax.Array):
    """Beliefs `[L, B]`, without a gradient; gradients of the model; metrics."""
    losses = functools.partial(model_loss, config, parts)
    gradients, (beliefs, metrics) = jax.grad(losses, has_aux=True)(
        state.model.params, state.params.moments, batch, key
    )
    return jax.lax.stop_gradient(beliefs), gradients, metrics


def reward_of(
    config: Config, parts: Components, judge: Params, features: jax.Array, action: jax.Array
) -> jax.Array:
    """reward(l(x, a)) of features `[.., F]` and actions `[.., U]`, `[..]`."""
    logits = parts.judge.apply(judge, features, action)
    return adversarial.reward_of(config.reward)(logits)


def lambda_returns(config: Config, reward: jax.Array, values: jax.Array) -> jax.Array:
    """G_t of rewards `[H, ..]` and values `[H + 1, ..]`, `[H, ..]`."""
    rows = reward.reshape(reward.shape[0], -1)  # [H, N]
    followed = values[1:].reshape(rows.shape)
    discounts = jnp.full(rows.shape[:1], config.discount, jnp.float32)
    goes_on = jnp.zeros(rows.shape[:1], bool)
    over = jax.vmap(returns.lambda_returns, (1, 1, None, None, None), 1)
    return over(rows, followed, discounts, goes_on, config.td_lambda).reshape(reward.shape)


# ---------------------------------------------------------------------------------- losses


def model_loss(
    config: Config,
    parts: Components,
    params: Params,
    moments: Moments,
    batch: Sequences,
    key: jax.Array,
) -> tuple[jax.Array, tuple[Belief, Metrics]]:
    """The bound on -log likelihood of sequences, less a constant, and beliefs `[L, B]`."""
    model, seen = parts.model, parts.look(moments, batch.obs)
    led = jnp.concatenate([jnp.zeros_like(batch.action[:1]), batch.action[:-1]])
    encoded = model.encode(params, seen)
    observed = model.observe(params, led, encoded, batch.first, key)
    error = jnp.mean(model.error(params, model.features(observed.belief), seen))
    posterior, prior = (
        (each.mean, each.std) for each in (observed.posterior, observed.prior)
    )
    divergence = world_model.balanced_kl(
        posterior, prior, config.kl_balance, config.free_nats
    )
    loss = error + config.kl_weight * divergence
    return loss, (
        observed.belief,
        {
            "model/loss": loss,
            "model/error": error,
            "model/divergence": jnp.mean(world_model.kl(*posterior, *prior)),
        },
    )


def policy_loss(
    config: Config,
    parts: Components,
    params: Params,
    model: Params,
    judge: Params,
    critics: Params,
    beliefs: Belief,
    actions: jax.Array,
    cloning: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, tuple[Rollout, Metrics]]:
    """What imagined steps are worth and the expert's are likely, negated; and those steps.

    Args:
      beliefs: `[L, B]`, where they start.
      actions: `[L, B, U]`, taken there; the expert's at the front of B.
      cloning: `[]` bool, whether the expert's likelihood is all that counts.
    """

    def act(features: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        chosen = parts.policy.apply(params, jax.lax.stop_gradient(features))
        return parts.policy.sample(chosen, key)

    imagined = parts.model.imagine(model, beliefs, act, config.horizon, key)
    features, action = parts.model.features(imagined.belief), imagined.action
    rewards = reward_of(config, parts, judge, features[:-1], action[:-1])  # [H, L, B]
    # What a step led to is in the memory after it, of which the priors are asked.
    disagreement = parts.model.spread(model, imagined.belief.deter[1:])
    rewards = rewards - config.conservatism * disagreement
    values = jnp.min(parts.critics.apply(critics, features, action), axis=0)
    worth = lambda_returns(config, rewards, values)  # [H, L, B]
    mixed = config.td_lambda * worth + (1 - config.td_lambda) * values[:-1]
    gains = mixed - config.entropy_coef * imagined.told[:-1]
    weights = config.discount ** jnp.arange(config.horizon, dtype=jnp.float32)
    loss = -jnp.mean(weights[:, None, None] * gains)

    seen = jax.lax.stop_gradient(parts.model.features(beliefs))[:, : parts.experts]
    log_probs = parts.policy.log_prob(
        parts.policy.apply(params, seen), actions[:, : parts.experts]
    )
    unlikely = policy_losses.cloning_likelihood(log_probs.reshape(-1))
    loss = jnp.where(cloning, unlikely, loss + config.cloning * unlikely)
    rollout = jax.lax.stop_gradient(Rollout(features, action, rewards))
    return loss, (
        rollout,
        {
            "policy/loss": loss,
            "policy/entropy": -jnp.mean(imagined.told[:-1]),
            "policy/likelihood": -unlikely,
            "imagined/reward": jnp.mean(rewards),
            "imagined/value": jnp.mean(values),
            "imagined/disagreement": jnp.mean(disagreement),
        },
    )


def discriminator_loss(
    config: Config,
    parts: Components,
    params: Params,
    expert: tuple[jax.Array, jax.Array],
    rollout: Rollout,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Cross-entropy, with noise on the features of both classes, and a penalty.

    Args:
      expert: features `[L, N, F]` and actions `[L, N, U]`.
    """
    theirs_key, own_key, chosen_key, penalty_key = jax.random.split(key, 4)

    def judge(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        return parts.judge.apply(params, *pair)

    def pairs(features: jax.Array, action: jax.Array, key: jax.Array):
        noise = config.instance_noise * jax.random.normal(key, features.shape)
        pair = features + noise, action
        return jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), pair)

    theirs = pairs(*expert, theirs_key)
    own = pairs(rollout.features[:-1], rollout.action[:-1], own_key)
    logits = judge(theirs), judge(own)
    loss, told = adversarial.discrimination(*logits)
    chosen = jax.random.randint(chosen_key, theirs[0].shape[:1], 0, own[0].shape[0])
    penalty = adversarial.gradient_penalty(
        judge,
        theirs,
        jax.tree.map(lambda leaf: leaf[chosen], own),
        penalty_key,
        config.penalty_norm,
    )
    told |= {"discriminator/penalty": penalty}
    return loss + config.gradient_penalty * penalty, told


def critic_loss(
    config: Config,
    parts: Components,
    params: Params,
    slow: Params,
    rollout: Rollout,
    features: jax.Array,
    batch: Sequences,
    rewards: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Squared errors of both critics, of imagined and of recorded steps.

    Args:
      rollout: imagined from the features `[L, B, F]` of the batch.
      rewards: `[L, B]`, of its recorded actions.
    """
    chex.assert_equal_shape([rewards, rollout.reward[0], batch.first])
    critics = parts.critics.apply
    values = jnp.min(critics(slow, rollout.features, rollout.action), axis=0)
    targets = lambda_returns(config, rollout.reward, values)  # [H, L, B]
    told = critics(params, rollout.features[:-1], rollout.action[:-1])  # [2, H, L, B]
    imagined = jnp.sum(jnp.mean((told - targets) ** 2, axis=(1, 2, 3)))

    following = (1 - config.td_lambda) * values[0, 1:] + config.td_lambda * targets[0, 1:]
    wanted = rewards[:-1] + config.discount * following  # [L - 1, B]
    same = ~batch.first[1:]  # whether what followed is of the same episode
    told = critics(params, features[:-1], batch.action[:-1])  # [2, L - 1, B]
    errors = jnp.sum((told - wanted) ** 2, axis=0)
    recorded = jnp.sum(same * errors) / jnp.maximum(jnp.sum(same), 1)
    return imagined + recorded, {
        "critic/imagined_loss": imagined,
        "critic/recorded_loss": recorded,
    }


def _check(spec: EnvSpec, config: Config) -> None:
    """Refuses settings that do not go together."""
    adversarial.reward_of(config.reward)
    if spec.image and spec.image[2] % 3:
        raise UsageError(
            f"{spec.name} shows {spec.image[2]} channels, which are no stack of red, green "
            "and blue frames: show three for each."
        )
    if config.capacity < config.length:
        raise UsageError(
            f"agent.capacity, {config.capacity}, is less than agent.length, "
            f"{config.length}, the steps of one sequence: raise the one or lower the other."
        )
    if config.model.network.heads < 1:
        raise UsageError(
            f"agent.model.network.heads is {config.model.network.heads}, but one prior at "
            "least foresees: choose 1 or more."
        )
    if config.length < 2:
        raise UsageError(
            f"agent.length is {config.length}, but a critic learns from a step and the one "
            "after it: choose 2 or more."
        )
    if not 1 <= round(config.expert_share * config.batch) <= config.batch:
        raise UsageError(
            f"agent.expert_share, {config.expert_share:g}, of agent.batch, {config.batch}, "
            "leaves the expert no sequence, or more than there are: choose a share from "
            f"{1 / config.batch:g} to 1."
        )


def _require_length(config: Config, demos: Demonstrations) -> None:
    longest = demos.obs.shape[1] - 1
    if longest < config.length:
        raise UsageError(
            f"agent.length is {config.length} steps, but the longest of these "
            f"demonstrations has {longest}: lower it, or record longer ones."
        )


def shows(task: Task, config: Config) -> Shows:
    """What the world model makes of an episode."""
    return Shows(world_model=world_model_rollouts(task, config))


def world_model_rollouts(
    task: Task, config: Config
) -> Callable[..., tuple[jax.Array, ...]]:
    """What the world model makes of an episode, as `Shows.world_model` says."""
    parts = make_parts(task.spec, config)
    model = parts.model

    def rollouts(
        params: InferenceParams,
        obs: jax.Array,
        actions: jax.Array,
        observed_steps: int,
        key: jax.Array,
    ) -> tuple[jax.Array, ...]:
        obs, actions = parts.look(params.moments, parts.frame(obs)), parts.unit(actions)
        before = jnp.concatenate([jnp.zeros_like(actions[:1]), actions[:-1]])

        def one(belief: rssm.Belief, step):
            action, encoded, shown = step
            observed = model.observe_step(
                params.model,
                belief,
                action,
                encoded,
                jnp.zeros((), bool),
                jnp.zeros((), jnp.int32),
                None,
            )
            predicted = rssm.Belief(observed.belief.deter, observed.prior.mean)
            belief = jax.tree.map(
                lambda a, b: jnp.where(shown, a, b), observed.belief, predicted
            )
            return belief, belief

        encoded = model.encode(params.model, obs)
        start, count = model.start(), obs.shape[0]
        everything = (before, encoded, jnp.ones((count,), bool))
        beginning = (before, encoded, jnp.arange(count) < observed_steps)
        all_shown = jax.lax.scan(one, start, everything)[1]
        some_shown = jax.lax.scan(one, start, beginning)[1]

        def follow(features: jax.Array, key: jax.Array):
            return parts.policy.mode(parts.policy.apply(params.policy, features)), ()

        last = jax.tree.map(lambda leaf: leaf[observed_steps - 1], all_shown)
        imagined = model.imagine(
            params.model, last, follow, count - observed_steps, key
        ).belief
        imagined = jax.tree.map(
            lambda known, own: jnp.concatenate([known[: observed_steps - 1], own]),
            all_shown,
            imagined,
        )
        decoded = [
            model.decode(params.model, model.features(belief))
            for belief in (all_shown, some_shown, imagined)
        ]
        return obs, *decoded

    return rollouts
