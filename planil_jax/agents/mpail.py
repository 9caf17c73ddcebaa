"""MPAIL: model predictive adversarial imitation learning, from observations alone.

MPPI takes the generator's place: there is no policy network. In a round, with the logit
d(s, s') (high: expert), the value V and the round's temperature λ:

    1. act: plan with MPPI on  score = Σ_{t<H} η^t d(s_t, s_{t+1}) + η^H V(s_H),  η >= 1,
       in the planner's model of the environment;
    2. discriminator, spectrally normalised:
           min_d  E_expert[softplus(-d)] + E_learner[softplus(d)];
    3. value: min_f  (V(s_t) - G_t)² on λ-returns of the fresh rollout, r = d(s, s'),
                   + (V(s) - [d(s, s') + γ V̄(s')])² on history;
    4. V̄, and the parameters that act, follow slowly; learning rates decay.

Source: Han et al. 2025, MPAIL, arXiv 2507.21533.
Departures, each a field of Config with the paper's choice in brackets; BUILD_NOTES.md has
what they do:
    history_share       part of a learner batch is drawn from all past rounds [0]
    history_age_power   and favours the old [1], lest aimless first drives be forgotten
    value_margin        V = f + min(0, d(s, s) + margin) / (1 - γ) [inf: V = f]: where the
                        discriminator is sure that no expert ever was, f is a guess, and
                        V falls with the logit, as if the reward of here were paid for ever
    average_rate        averaged parameters act [1]
    rate_half_life      learning rates decay [none]
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.base import (
    Agent,
    Demonstrations,
    Dynamics,
    EnvSpec,
    EnvState,
    Fit,
    Metrics,
    Params,
    Plan,
    Transition,
)
from planil_jax.data import demos as demonstrations
from planil_jax.data import replay
from planil_jax.losses import adversarial, returns
from planil_jax.nets import fit, mlp, spectral
from planil_jax.planners import mppi


@dataclass(frozen=True, kw_only=True)
class Config:
    planner: mppi.Config = field(default_factory=lambda: mppi.Config(samples=256))
    discriminator: mlp.Config = field(
        default_factory=lambda: mlp.Config(activation="leaky_relu")
    )
    value: mlp.Config = field(default_factory=mlp.Config)
    markup: float = 1.0 / 0.99  # η: what happens at plan step t weighs η^t
    temperature: float = 1.0  # λ of the first round, in the score's units
    final_temperature: float = 0.1
    temperature_rounds: int = 20  # of geometric decay from the one to the other
    reward: str = "logit"  # a name of losses.adversarial.REWARDS
    spectral_norm: bool = True  # of the discriminator's kernels
    discount: float = 0.99  # γ
    trace: float = 0.95  # λ of the returns
    discriminator_steps: int = 64  # gradient steps a round
    value_steps: int = 64
    batch: int = 512  # steps of each class in a gradient step
    history: int = 20_000  # steps of each environment that are kept
    history_share: float = 0.5  # of the discriminator's learner batch
    history_age_power: float = 3.0  # above 1: the old are favoured, see data.replay
    discriminator_rate: float = 1e-3  # AdamW
    value_rate: float = 1e-3  # Adam
    rate_half_life: int = 15  # rounds in which both rates halve; 0: they stay
    momentum: float = 0.5  # AdamW's β1
    weight_decay: float = 1e-3  # AdamW's
    max_grad_norm: float = 1.0  # of the value
    value_margin: float = 3.0  # logits below -margin pull the value down; inf: none do
    target_rate: float = 0.01  # V̄ follows V by this share a gradient step
    average_rate: float = 0.2  # what acts follows what learns by this share a round


@struct.dataclass
class Acting:
    """The part that acts and is exported."""

    discriminator: Params  # normalised
    value: Params
    model: Params
    temperature: jax.Array  # []


@struct.dataclass
class State:
    params: Acting
    discriminator: Fit  # raw, not normalised
    value: Fit
    target: Params  # V̄
    history: replay.Replay  # of {obs, next_obs, terminal}


def make(
    spec: EnvSpec,
    dynamics: Dynamics,
    config: Config,
    environments: int,
    entries: tuple[int, ...],
) -> Agent:
    """MPAIL in an environment of this spec, planning with `dynamics`.

    Args:
      environments: E of the loop, by which the history is laid out.
      entries: indices of the observation entries that the demonstrations hold; the
        discriminator sees no others.
    """
    planner = mppi.make(config.planner, spec.action_low, spec.action_high)
    networks = _networks(spec, config, entries)
    score_fn = _score_fn(spec, dynamics, config, entries)
    reward_of = adversarial.REWARDS[config.reward]
    logit, value = _logit_fn(spec, config, entries), _value_fn(spec, config, entries)
    discriminator_fit, value_fit = _fitters(config)

    def normalised(params: Params) -> Params:
        return spectral.normalise(params) if config.spectral_norm else params

    def act(params: Acting, carry: Plan, state: EnvState, key: jax.Array, explore: bool):
        plan_key, model_key = jax.random.split(key)
        score = score_fn(params, state, model_key)
        return planner.plan(score, carry, plan_key, params.temperature, explore)

    # ---------------------------------------------------------------------------- learning

    def init(key: jax.Array) -> State:
        discriminator_key, value_key, model_key = jax.random.split(key, 3)
        discriminator = discriminator_fit.init(networks[0].init(discriminator_key))
        fitted_value = value_fit.init(networks[1].init(value_key))
        obs = jnp.zeros((spec.observation_size,), jnp.float32)
        step = {"obs": obs, "next_obs": obs, "terminal": jnp.zeros((), bool)}
        params = Acting(
            discriminator=normalised(discriminator.params),
            value=fitted_value.params,
            model=dynamics.init(model_key),
            temperature=jnp.asarray(config.temperature, jnp.float32),
        )
        history = replay.init(step, config.history, environments)
        return State(params, discriminator, fitted_value, fitted_value.params, history)

    def update(
        state: State, rollout: Transition, demos: Demonstrations, key: jax.Array, round_
    ) -> tuple[State, Metrics]:
        discriminator_key, value_key = jax.random.split(key)
        steps = {
            "obs": rollout.obs,
            "next_obs": rollout.next_obs,
            "terminal": rollout.terminal,
        }
        history = replay.insert(state.history, steps)
        fresh = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), steps)
        discriminator, told = fit_discriminator(
            state.discriminator, demos, fresh, history, discriminator_key
        )
        judge = normalised(discriminator.params)
        targets = lambda_returns(judge, state.target, rollout)
        fitted_value, target, told_value = fit_value(
            state.value, state.target, judge, fresh["obs"], targets, history, value_key
        )
        newest = dataclasses.replace(state.params, discriminator=judge, value=target)
        params = fit.polyak(state.params, newest, config.average_rate)
        params = dataclasses.replace(params, temperature=temperature_after(round_))
        metrics = told | told_value | {"planner/temperature": params.temperature}
        return State(params, discriminator, fitted_value, target, history), metrics

    def temperature_after(round_: jax.Array) -> jax.Array:
        share = jnp.clip((round_ + 1) / config.temperature_rounds, 0.0, 1.0)
        ratio = config.final_temperature / config.temperature
        return jnp.asarray(config.temperature * ratio**share, jnp.float32)

    def fit_discriminator(fitted: Fit, demos, fresh, history, key) -> tuple[Fit, Metrics]:
        def step(fitted: Fit, key: jax.Array):
            expert_key, learner_key = jax.random.split(key)
            expert = demonstrations.sample_pairs(demos, expert_key, config.batch)
            learner = learner_batch(fresh, history, learner_key)

            def loss_fn(params):
                params = normalised(params)
                expert_logits = logit(params, *expert)  # [B]
                learner_logits = logit(params, learner["obs"], learner["next_obs"])
                loss = adversarial.cross_entropy(expert_logits, learner_logits)
                accuracy = adversarial.accuracy(expert_logits, learner_logits)
                return loss, {
                    "discriminator/loss": loss,
                    "discriminator/accuracy": accuracy,
                    "discriminator/expert_logit": jnp.mean(expert_logits),
                    "discriminator/learner_logit": jnp.mean(learner_logits),
                }

            gradients, metrics = jax.grad(loss_fn, has_aux=True)(fitted.params)
            return discriminator_fit.step(fitted, gradients), metrics

        keys = jax.random.split(key, config.discriminator_steps)
        fitted, metrics = jax.lax.scan(step, fitted, keys)
        return fitted, jax.tree.map(jnp.mean, metrics)

    def learner_batch(fresh: Any, history: replay.Replay, key: jax.Array) -> Any:
        """`[B]` of the learner's steps, `history_share` of them from history."""
        fresh_key, history_key = jax.random.split(key)
        old = round(config.batch * config.history_share)
        count = jax.tree.leaves(fresh)[0].shape[0]
        rows = jax.random.randint(fresh_key, (config.batch - old,), 0, count)
        recent = jax.tree.map(lambda leaf: leaf[rows], fresh)
        past = replay.sample(history, history_key, old, config.history_age_power)
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), recent, past)

    def lambda_returns(judge: Params, target: Params, rollout: Transition) -> jax.Array:
        """G_t of the fresh rollout, flat `[T E]`."""
        return jax.vmap(returns.lambda_returns, (1, 1, 1, 1, None), 1)(
            reward_of(logit(judge, rollout.obs, rollout.next_obs)),
            value(target, judge, rollout.next_obs),
            config.discount * ~rollout.terminal,
            rollout.terminal | rollout.truncated,
            config.trace,
        ).reshape(-1)

    def fit_value(fitted: Fit, target, judge, obs, targets, history, key):
        """Fits V to `targets` at `obs` and one-step targets on history; moves V̄ along."""

        def step(carry, key: jax.Array):
            fitted, target = carry
            fresh_key, history_key = jax.random.split(key)
            rows = jax.random.randint(fresh_key, (config.batch,), 0, targets.shape[0])
            past = replay.sample(
                history, history_key, config.batch, config.history_age_power
            )
            rewards = reward_of(logit(judge, past["obs"], past["next_obs"]))  # [B]
            following = value(target, judge, past["next_obs"])
            past_targets = rewards + config.discount * ~past["terminal"] * following

            def loss_fn(params):
                fresh_values = value(params, judge, obs[rows])
                fresh_loss = jnp.mean((fresh_values - targets[rows]) ** 2)
                past_values = value(params, judge, past["obs"])
                past_loss = jnp.mean((past_values - past_targets) ** 2)
                return fresh_loss + past_loss, {
                    "value/loss": fresh_loss,
                    "value/history_loss": past_loss,
                    "value/mean": jnp.mean(fresh_values),
                }

            gradients, metrics = jax.grad(loss_fn, has_aux=True)(fitted.params)
            fitted = value_fit.step(fitted, gradients)
            target = fit.polyak(target, fitted.params, config.target_rate)
            return (fitted, target), metrics

        keys = jax.random.split(key, config.value_steps)
        (fitted, target), metrics = jax.lax.scan(step, (fitted, target), keys)
        return fitted, target, jax.tree.map(jnp.mean, metrics)

    return Agent(needs_actions=False, init=init, carry=planner.init, act=act, update=update)


def critic(
    spec: EnvSpec, config: Config, entries: tuple[int, ...]
) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """What a trained planner thinks of states, for looking at.

    Returns:
      `logit(params, obs, next_obs)` and `value(params, obs)`: Acting parameters and
      observations `[…, O]` to `[…]`.
    """
    logit, value = _logit_fn(spec, config, entries), _value_fn(spec, config, entries)
    return (
        lambda params, obs, next_obs: logit(params.discriminator, obs, next_obs),
        lambda params, obs: value(params.value, params.discriminator, obs),
    )


def inspect(
    spec: EnvSpec, dynamics: Dynamics, config: Config, entries: tuple[int, ...]
) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    """What `act` weighed, for looking at.

    Returns:
      `(params, carry, state, key) -> (paths [K, H + 1, O], weights [K], mean path
      [H + 1, O])`: the last iteration's plans as the model foresees them, and the plan
      that they were averaged to.
    """
    planner = mppi.make(config.planner, spec.action_low, spec.action_high)
    score_fn, path_fn = _score_fn(spec, dynamics, config, entries), _path_fn(dynamics)

    def look(params: Acting, carry: Plan, state: EnvState, key: jax.Array):
        plan_key, model_key = jax.random.split(key)
        score = score_fn(params, state, model_key)
        plans, weights = planner.trace(score, carry, plan_key, params.temperature)
        mean = jnp.sum(weights[:, None, None] * plans, axis=0)  # [H, U]

        def path(actions: jax.Array) -> jax.Array:
            return path_fn(params, state, model_key, actions)

        return jax.vmap(path)(plans), weights, path(mean)

    return look


def _score_fn(spec: EnvSpec, dynamics: Dynamics, config: Config, entries: tuple[int, ...]):
    """`(params, state, key) -> score`, with `score` of actions `[H, U]`, `[]`."""
    logit, value = _logit_fn(spec, config, entries), _value_fn(spec, config, entries)
    reward_of = adversarial.REWARDS[config.reward]
    path_fn = _path_fn(dynamics)
    powers = jnp.arange(config.planner.horizon + 1, dtype=jnp.float32)
    markups = config.markup**powers  # [H + 1]

    def score_fn(params: Acting, state: EnvState, key: jax.Array):
        def score(actions: jax.Array) -> jax.Array:
            path = path_fn(params, state, key, actions)
            rewards = reward_of(logit(params.discriminator, path[:-1], path[1:]))  # [H]
            last = value(params.value, params.discriminator, path[-1])
            return jnp.dot(markups[:-1], rewards) + markups[-1] * last

        return score

    return score_fn


def _path_fn(dynamics: Dynamics):
    """`(params, state, key, actions [H, U]) -> [H + 1, O]`, as the model foresees it."""

    def path_fn(params: Acting, state: EnvState, key: jax.Array, actions: jax.Array):
        def step(z, inputs):
            z = dynamics.step(params.model, z, *inputs)
            return z, dynamics.observe(params.model, z)

        start = dynamics.start(params.model, state)
        keys = jax.random.split(key, actions.shape[0])
        path = jax.lax.scan(step, start, (actions, keys))[1]  # [H, O]
        return jnp.concatenate([state.obs[None], path])

    return path_fn


def _networks(spec: EnvSpec, config: Config, entries: tuple[int, ...]):
    """The discriminator's and the value's."""
    seen = len(entries)
    return (
        mlp.make_scalar(config.discriminator, (seen, seen)),
        mlp.make_scalar(config.value, (spec.observation_size,)),
    )


def _logit_fn(spec: EnvSpec, config: Config, entries: tuple[int, ...]):
    """d: `(normalised params, obs […, O], next_obs […, O]) -> […]`."""
    network, seen = _networks(spec, config, entries)[0], jnp.asarray(entries)

    def logit(params: Params, obs: jax.Array, next_obs: jax.Array) -> jax.Array:
        return network.apply(params, obs[..., seen], next_obs[..., seen])

    return logit


def _value_fn(spec: EnvSpec, config: Config, entries: tuple[int, ...]):
    """V: `(params, the judge's normalised params, obs […, O]) -> […]`."""
    network = _networks(spec, config, entries)[1]
    logit = _logit_fn(spec, config, entries)

    def value(params: Params, judge: Params, obs: jax.Array) -> jax.Array:
        known = network.apply(params, obs)
        if math.isinf(config.value_margin):
            return known
        beyond = jnp.minimum(0.0, logit(judge, obs, obs) + config.value_margin)
        return known + beyond / (1 - config.discount)

    return value


def _fitters(config: Config) -> tuple[fit.Fitter, fit.Fitter]:
    """The discriminator's and the value's."""

    def rate(start: float, steps: int) -> optax.ScalarOrSchedule:
        if not config.rate_half_life:
            return start
        return optax.exponential_decay(start, config.rate_half_life * steps, 0.5)

    discriminator_tx = optax.adamw(
        rate(config.discriminator_rate, config.discriminator_steps),
        b1=config.momentum,
        weight_decay=config.weight_decay,
    )
    value_tx = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adam(rate(config.value_rate, config.value_steps)),
    )
    return fit.make(discriminator_tx), fit.make(value_tx)
