"""MPAIL: model predictive adversarial imitation learning, from observations alone.

MPPI takes the generator's place: there is no policy network. In a round, with logit d(s, s')
(high: expert), value V and the temperature λ of the round:

    1. act: plan with MPPI on   score = Σ_{t<H} η^t d(s_t, s_{t+1}) + η^H V(s_H),  η >= 1
       in the planner's model of the environment;
    2. discriminator:  min_d  E_expert[softplus(-d)] + E_learner[softplus(d)],
       spectrally normalised; learner pairs half fresh, half from the history of all rounds;
    3. value:  min_V  (V(s_t) - G_t)² on λ-returns of the fresh rollout with r = d(s, s'),
                    + (V(s) - [d(s, s') + γ V̄(s')])² on history;
    4. averages: V̄, and the parameters that act, follow slowly.

Source: Han et al. 2025, MPAIL, arXiv 2507.21533.
Departures, each a field of Config: history in 2 and 3 (`history_share`, `history_age_power`);
averaged parameters act (`average_rate`). The paper's learner has neither and forgets what lies
away from its own path; BUILD_NOTES.md has the measurements.
"""

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
    markup: float = 1.0 / 0.99  # η, weight of plan step t is η^t
    temperature: float = 1.0  # λ of the first round, in units of score
    final_temperature: float = 0.1
    temperature_rounds: int = 20  # rounds of geometric decay between the two
    reward: str = "logit"  # a name of losses.adversarial.REWARDS
    logit_scale: float = 1.0  # Lipschitz constant
    spectral_norm: bool = True  # of the discriminator's kernels
    discount: float = 0.99  # γ
    trace: float = 0.95  # λ of the returns
    discriminator_steps: int = 32  # gradient steps a round
    value_steps: int = 64
    batch: int = 512  # pairs of each class in a gradient step
    history: int = 20_000  # steps of each environment kept, 0: none
    history_share: float = 0.5  # of each learner batch drawn from history
    history_age_power: float = 1.0  # above 1, history favours the old
    discriminator_rate: float = 3e-4  # Adam
    value_rate: float = 1e-3  # Adam
    momentum: float = 0.5  # Adam's β1 of the discriminator
    weight_decay: float = 1e-3  # of the discriminator
    max_grad_norm: float = 1.0  # of the value
    target_rate: float = 0.01  # V̄ follows V by this share a gradient step
    value_base: float = 1.0  # share of d(s, s) / (1 - γ) that V starts from; 0: none
    value_plans: int = 0
    value_horizon: int = 5
    value_margin: float = 3.0
    average_rate: float = 1.0  # acting parameters follow by this share a round; 1: at once


@struct.dataclass
class Acting:
    """The part that acts and is exported."""

    discriminator: Params  # normalised
    value: Params
    model: Params
    scale: Params
    temperature: jax.Array  # []


@struct.dataclass
class State:
    params: Acting
    discriminator: Fit
    value: Fit
    target: Params  # V̄
    history: replay.Replay  # of {obs, next_obs, terminal}


def make(
    spec: EnvSpec, dynamics: Dynamics, config: Config, environments: int, entries: tuple
) -> Agent:
    """MPAIL in an environment of this spec, planning with `dynamics`.

    Args:
      environments: E of the loop, by which the history is laid out.
      entries: indices of the observation entries that the demonstrations hold; the
        discriminator sees no others.
    """
    planner = mppi.make(config.planner, spec.action_low, spec.action_high)
    seen = jnp.asarray(entries)
    network = mlp.make_scalar(config.discriminator, (len(entries), len(entries)))
    value_network = mlp.make_scalar(config.value, (spec.observation_size,))
    reward_of = adversarial.REWARDS[config.reward]
    adam = optax.adamw(
        config.discriminator_rate, b1=config.momentum, weight_decay=config.weight_decay
    )
    discriminator_fit = fit.make(adam)
    value_fit = fit.make(
        optax.chain(
            optax.clip_by_global_norm(config.max_grad_norm), optax.adam(config.value_rate)
        )
    )
    markups = config.markup ** jnp.arange(config.planner.horizon + 1, dtype=jnp.float32)

    def normalised(params: Params) -> Params:
        return spectral.normalise(params) if config.spectral_norm else params

    def logit(params: Params, obs: jax.Array, next_obs: jax.Array) -> jax.Array:
        return config.logit_scale * network.apply(
            params, obs[..., seen], next_obs[..., seen]
        )

    def value_of(params: Params, judge: Params, scale, obs: jax.Array) -> jax.Array:
        """V = [β d(s, s) + f(s)] / (1 - γ)."""
        base = jnp.minimum(
            jax.lax.stop_gradient(logit(judge, obs, obs)) + config.value_margin, 0.0
        )
        residual = value_network.apply(params, obs)
        return residual + config.value_base * base / (1 - config.discount)

    # ------------------------------------------------------------------------------ acting

    def act(params: Acting, carry: Plan, state: EnvState, key: jax.Array, explore: bool):
        plan_key, model_key = jax.random.split(key)
        start = dynamics.start(params.model, state)
        model_keys = jax.random.split(model_key, config.planner.horizon)

        def score(actions: jax.Array) -> jax.Array:
            def step(z, inputs):
                z = dynamics.step(params.model, z, *inputs)
                return z, dynamics.observe(params.model, z)

            path = jax.lax.scan(step, start, (actions, model_keys))[1]  # [H, O]
            path = jnp.concatenate([state.obs[None], path])  # [H + 1, O]
            rewards = reward_of(logit(params.discriminator, path[:-1], path[1:]))  # [H]
            terminal_value = value_of(
                params.value, params.discriminator, params.scale, path[-1]
            )
            return jnp.dot(markups[:-1], rewards) + markups[-1] * terminal_value

        return planner.plan(score, carry, plan_key, params.temperature, explore)

    # ---------------------------------------------------------------------------- learning

    def init(key: jax.Array) -> State:
        discriminator_key, value_key, model_key = jax.random.split(key, 3)
        discriminator = discriminator_fit.init(network.init(discriminator_key))
        value = value_fit.init(value_network.init(value_key))
        obs = jnp.zeros((spec.observation_size,), jnp.float32)
        step = {"obs": obs, "next_obs": obs, "terminal": jnp.zeros((), bool)}
        params = Acting(
            discriminator=normalised(discriminator.params),
            value=value.params,
            model=dynamics.init(model_key),
            scale=(jnp.zeros(spec.observation_size), jnp.ones(spec.observation_size)),
            temperature=jnp.asarray(config.temperature, jnp.float32),
        )
        history = replay.init(step, config.history, environments)
        return State(params, discriminator, value, value.params, history)

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
        _o = demonstrations.transitions(demos)[0]
        scale = (_o.mean(0), _o.std(0) + 1e-3)
        value, target, told_value = fit_value(
            state.value, state.target, judge, rollout, fresh, history, value_key, scale
        )
        newest = Acting(
            discriminator=judge,
            value=target,
            model=state.params.model,
            scale=scale,
            temperature=temperature_of(round_ + 1),
        )
        params = fit.polyak(state.params, newest, config.average_rate).replace(
            temperature=newest.temperature
        )
        metrics = told | told_value | {"planner/temperature": params.temperature}
        return State(params, discriminator, value, target, history), metrics

    def temperature_of(round_: jax.Array) -> jax.Array:
        share = jnp.clip(round_ / config.temperature_rounds, 0.0, 1.0)
        ratio = config.final_temperature / config.temperature
        return jnp.asarray(config.temperature * ratio**share, jnp.float32)

    def learner_batch(fresh: Any, history: replay.Replay, key: jax.Array) -> Any:
        """`batch` of the learner's steps, `history_share` of them from history."""
        fresh_key, history_key = jax.random.split(key)
        old = round(config.batch * config.history_share)
        count = jax.tree.leaves(fresh)[0].shape[0]
        rows = jax.random.randint(fresh_key, (config.batch - old,), 0, count)
        recent = jax.tree.map(lambda leaf: leaf[rows], fresh)
        past = replay.sample(history, history_key, old, config.history_age_power)
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), recent, past)

    def fit_discriminator(fitted: Fit, demos, fresh, history, key):
        def step(fitted, key):
            expert_key, learner_key = jax.random.split(key)
            obs, next_obs = demonstrations.sample_pairs(demos, expert_key, config.batch)
            learner = learner_batch(fresh, history, learner_key)

            def loss_fn(params):
                params = normalised(params)
                expert_logits = logit(params, obs, next_obs)
                learner_logits = logit(params, learner["obs"], learner["next_obs"])
                loss = adversarial.cross_entropy(expert_logits, learner_logits)
                return loss, {
                    "discriminator/loss": loss,
                    "discriminator/accuracy": adversarial.accuracy(
                        expert_logits, learner_logits
                    ),
                    "discriminator/expert_logit": jnp.mean(expert_logits),
                    "discriminator/learner_logit": jnp.mean(learner_logits),
                }

            gradients, metrics = jax.grad(loss_fn, has_aux=True)(fitted.params)
            return discriminator_fit.step(fitted, gradients), metrics

        keys = jax.random.split(key, config.discriminator_steps)
        fitted, metrics = jax.lax.scan(step, fitted, keys)
        return fitted, jax.tree.map(jnp.mean, metrics)

    def best_of(target, judge, scale, obs, key):
        """max over held actions of the n-step value through the model, `[B]`."""
        low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)
        n, plans = config.value_horizon, config.value_plans

        def one(obs, key):
            actions = jax.random.uniform(key, (plans, low.shape[0]), jnp.float32, low, high)
            start = dynamics.start(
                (), EnvState(sim=(), obs=obs, time=jnp.zeros((), jnp.int32))
            )

            def roll(action):
                def step(z, _):
                    z = dynamics.step((), z, action, key)
                    return z, dynamics.observe((), z)

                path = jax.lax.scan(step, start, None, n)[1]
                path = jnp.concatenate([obs[None], path])
                rewards = reward_of(logit(judge, path[:-1], path[1:]))
                powers = config.discount ** jnp.arange(n + 1)
                last = value_of(target, judge, scale, path[-1])
                return jnp.dot(powers[:-1], rewards) + powers[-1] * last

            return jnp.max(jax.vmap(roll)(actions))

        return jax.vmap(one)(obs, jax.random.split(key, obs.shape[0]))

    def fit_value(
        fitted: Fit, target: Params, judge: Params, rollout, fresh, history, key, scale
    ):
        rewards = reward_of(logit(judge, rollout.obs, rollout.next_obs))  # [T, E]
        lambda_returns = jax.vmap(returns.lambda_returns, (1, 1, 1, 1, None), 1)(
            rewards,
            value_of(target, judge, scale, rollout.next_obs),
            config.discount * ~rollout.terminal,
            rollout.terminal | rollout.truncated,
            config.trace,
        ).reshape(-1)  # [T E]

        def step(carry, key):
            fitted, target = carry
            fresh_key, history_key, plan_key = jax.random.split(key, 3)
            rows = jax.random.randint(
                fresh_key, (config.batch,), 0, lambda_returns.shape[0]
            )
            past = replay.sample(
                history, history_key, config.batch, config.history_age_power
            )
            if config.value_plans:
                one_step = best_of(target, judge, scale, past["obs"], plan_key)
            else:
                next_values = value_of(target, judge, scale, past["next_obs"])
                one_step = reward_of(logit(judge, past["obs"], past["next_obs"]))
                one_step = one_step + config.discount * ~past["terminal"] * next_values

            def loss_fn(params):
                on_fresh = value_of(params, judge, scale, fresh["obs"][rows])
                on_past = value_of(params, judge, scale, past["obs"])
                fresh_loss = jnp.mean((on_fresh - lambda_returns[rows]) ** 2)
                past_loss = jnp.mean((on_past - one_step) ** 2)
                return fresh_loss + past_loss, {
                    "value/loss": fresh_loss,
                    "value/history_loss": past_loss,
                    "value/mean": jnp.mean(on_fresh),
                }

            gradients, metrics = jax.grad(loss_fn, has_aux=True)(fitted.params)
            fitted = value_fit.step(fitted, gradients)
            target = fit.polyak(target, fitted.params, config.target_rate)
            return (fitted, target), metrics

        keys = jax.random.split(key, config.value_steps)
        (fitted, target), metrics = jax.lax.scan(step, (fitted, target), keys)
        return fitted, target, jax.tree.map(jnp.mean, metrics)

    return Agent(needs_actions=False, init=init, carry=planner.init, act=act, update=update)
