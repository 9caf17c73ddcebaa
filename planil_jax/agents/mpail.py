"""MPAIL: model predictive adversarial imitation learning, from observations alone.

MPPI takes the generator's place: there is no policy network. In a round, with the logit
d(s, s') (high: expert), the value V and the round's temperature λ:

    1. act: plan with MPPI on  score = Σ_{t<H} η^t d(s_t, s_{t+1}) + η^H V(s_H),  η >= 1,
       in the planner's model of the environment;
    2. discriminator, spectrally normalised:
           min_d  E_expert[softplus(-d)] + E_learner[softplus(d)];
    3. value: min_V  (V(s_t) - G_t)² on λ-returns of the fresh rollout, r = d(s, s'),
                   + (V(s) - [d(s, s') + γ V̄(s')])² on history,
                   + the same, as a Huber loss, on imagined steps;
    4. V̄, and the parameters that act, follow slowly; learning rates decay.

An imagined step starts far around the demonstrations, takes a random action, and ends where
the planner's model says. It costs no interaction, and it is what makes the planner find its
way where nobody ever was: the smooth discriminator says everywhere what is less like the
expert, and imagined steps teach the value, which would else extrapolate at random, to add
it up. A model that cannot start from an observation (`Dynamics.recover`) imagines nothing.

Without a model of the environment (`learned_model`), one of observations is learned from all steps
that were taken, before 2, and planned through: MPAIL(OM). The first rounds take random
actions, since a model that knows nothing yet takes all plans for equal. It imagines
nothing, since it knows nothing far around the demonstrations.

Source: Han et al. 2025, MPAIL, arXiv 2507.21533.
Departures, each a field of Config with the paper's choice in brackets; BUILD_NOTES.md has
what they do:
    history_share, history_age_power   history of all rounds in 2 and 3, the old favoured,
                                       lest aimless first drives be forgotten [0, 1]
    imagined_share, imagined_batch     imagined steps in 2 and 3 [0, 0]
    average_rate                       averaged parameters act [1]
    rate_half_life                     learning rates decay [0]
The published code departs from the paper, each time for the worse; so can this one:
    planner.weighting="step"           weights by the sum of exponentials of the steps
    planner.warm_start="backwards"     the plan is shifted the wrong way
    reward_pairs="same"                the value learns from d(s_t, s_t)
    pairs_across_resets=True           the discriminator sees steps that never happened
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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
    Params,
    Plan,
    Shows,
    Task,
    Transition,
    UsageError,
)
from planil_jax.data import demos as demonstrations
from planil_jax.data import replay
from planil_jax.losses import adversarial, returns
from planil_jax.models import ensemble, foresight
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
    reward_pairs: str = "next"  # d(s_t, s_{t+1}); "same": d(s_t, s_t), in the returns
    pairs_across_resets: bool = False  # take the step after an end for its successor
    spectral_norm: bool = True  # of the discriminator's kernels
    input_scale: float = 1.0  # factor of what the discriminator reads, so of its slopes
    discount: float = 0.99  # γ
    td_lambda: float = 0.95  # λ of the returns
    discriminator_steps: int = 64  # gradient steps a round
    value_steps: int = 64
    batch: int = 512  # steps of each class in a gradient step
    history: int = 20_000  # steps of each environment that are kept
    history_share: float = 0.5  # of the discriminator's learner batch
    recency_exponent: float = 3.0  # above 1: the old are favoured, see data.replay
    imagined_share: float = 0.1  # of the discriminator's learner batch
    imagined_batch: int = 256  # imagined steps in a gradient step of the value
    imagined_spread: float = 8.0  # how far around, in the demonstrations' deviations
    imagined_discount: float = 0.95  # γ of the imagined targets
    huber_delta: float = 10.0  # of the imagined loss, in units of value
    discriminator_lr: float = 1e-3  # AdamW
    value_lr: float = 1e-3  # Adam
    lr_half_life: int = 8  # rounds in which both rates halve; 0: they stay
    momentum: float = 0.5  # AdamW's β1
    weight_decay: float = 1e-3  # AdamW's
    max_grad_norm: float = 1.0  # of the value
    target_rate: float = 0.01  # V̄ follows V by this share a gradient step
    ema_rate: float = 0.3  # what acts follows what learns by this share a round
    learned_model: bool = (
        False  # whether to plan through a model that is learned on the way
    )
    model: ensemble.Config = field(default_factory=lambda: ensemble.Config(members=2))
    seed_steps: int = 1  # rounds of random actions, which it learns from first
    model_steps: int = 128  # gradient steps a round
    model_batch: int = 128  # steps of each member in one
    model_lr: float = 1e-3  # Adam


NEEDS = Needs()


def learned_model() -> Config:
    """MPAIL(OM): planning through a model of observations that is learned on the way."""
    return Config(learned_model=True)


@struct.dataclass
class InferenceParams:
    """The part that acts and is exported."""

    discriminator: Params  # normalised
    value: Params
    model: Params
    temperature: jax.Array  # []
    random: jax.Array | None = None  # [] bool, of `learned_model`: warming up


@struct.dataclass
class State:
    params: InferenceParams
    discriminator: Fit  # raw, not normalised
    value: Fit
    target: Params  # V̄
    history: replay.Replay  # of {obs, next_obs, terminal}, and action if `learned_model`
    model: Fit | None  # networks [M] of the model that is learned, if `learned_model`


def make(task: Task, config: Config) -> Agent:
    """MPAIL for a task, planning with its dynamics.

    The discriminator sees no observation entries but `task.observed`.
    """
    spec, observed = task.spec, task.observed
    planner = mppi.make(config.planner, spec.action_low, spec.action_high)
    learner = forward_model.make(spec, config.model, config.model_lr)
    dynamics = _dynamics(task, config, learner)
    low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)
    networks = _networks(spec, config, observed)
    score_fn = _score_fn(spec, dynamics, config, observed)
    reward_of = adversarial.reward_of(config.reward)
    logit, value = _logit_fn(spec, config, observed), _value_fn(spec, config, observed)
    if config.reward_pairs not in ("next", "same"):
        raise UsageError(
            f"agent.reward_pairs is 'next' or 'same', not {config.reward_pairs!r}."
        )
    discriminator_fit, value_fit = _fitters(config)
    imagines = dynamics.recover is not None and not config.learned_model

    def normalised(params: Params) -> Params:
        return spectral.normalise(params) if config.spectral_norm else params

    def act(
        params: InferenceParams, carry: Plan, state: EnvState, key: jax.Array, explore: bool
    ):
        plan_key, model_key = jax.random.split(key)
        score = score_fn(params, state, model_key)
        action, plan = planner.plan(score, carry, plan_key, params.temperature, explore)
        if explore and params.random is not None:
            by_chance = jax.random.uniform(key, action.shape, action.dtype, low, high)
            action = jnp.where(params.random, by_chance, action)
        return action, plan

    # ---------------------------------------------------------------------------- learning

    def init(key: jax.Array) -> State:
        discriminator_key, value_key, model_key = jax.random.split(key, 3)
        discriminator = discriminator_fit.init(networks[0].init(discriminator_key))
        fitted_value = value_fit.init(networks[1].init(value_key))
        obs = jnp.zeros((spec.observation_size,), jnp.float32)
        step = {"obs": obs, "next_obs": obs, "terminal": jnp.zeros((), bool)}
        model, fitted_model = dynamics.init(model_key), None
        if config.learned_model:
            step["action"] = jnp.zeros((spec.action_size,), jnp.float32)
            fitted_model = learner.fit.init(model.networks)
        params = InferenceParams(
            discriminator=normalised(discriminator.params),
            value=fitted_value.params,
            model=model,
            temperature=jnp.asarray(config.temperature, jnp.float32),
            random=jnp.asarray(config.seed_steps > 0) if config.learned_model else None,
        )
        history = replay.init(step, config.history, task.num_envs)
        target = fitted_value.params
        return State(params, discriminator, fitted_value, target, history, fitted_model)

    def update(
        state: State, rollout: Transition, demos: Demonstrations, key: jax.Array, round_
    ) -> tuple[State, Metrics]:
        if config.learned_model:
            key, model_key = jax.random.split(key)
        discriminator_key, value_key = jax.random.split(key)
        next_obs = rollout.next_obs  # [T, E, O]
        if config.pairs_across_resets:
            next_obs = jnp.concatenate([rollout.obs[1:], next_obs[-1:]])
        steps = {
            "obs": rollout.obs,
            "next_obs": next_obs,
            "terminal": rollout.terminal,
        }
        told_model: Metrics = {}
        model, fitted_model = state.params.model, state.model
        if config.learned_model:
            steps["action"] = rollout.action
            told_model = forward_model.fresh_errors(learner, model, rollout)
        history = replay.insert(state.history, steps)
        if fitted_model is not None:
            model = ensemble.update_normalizer(model, rollout.obs, rollout.next_obs)
            model, fitted_model, told = fit_model(model, fitted_model, history, model_key)
            told_model |= told
        fresh = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), steps)
        discriminator, told = fit_discriminator(
            state.discriminator,
            demos,
            fresh,
            history,
            model,
            discriminator_key,
        )
        discriminator_params = normalised(discriminator.params)
        targets = lambda_returns(discriminator_params, state.target, rollout)
        fitted_value, target, told_value = fit_value(
            state.value,
            state.target,
            discriminator_params,
            fresh["obs"],
            targets,
            history,
            model,
            demos,
            value_key,
        )
        before = state.params.discriminator, state.params.value
        discriminator_params, value_params = fit.polyak(
            before, (discriminator_params, target), config.ema_rate
        )
        temperature = temperature_after(round_)
        warming = round_ + 1 < config.seed_steps if config.learned_model else None
        params = InferenceParams(
            discriminator_params, value_params, model, temperature, warming
        )
        metrics = told_model | told | told_value | {"planner/temperature": temperature}
        state = State(params, discriminator, fitted_value, target, history, fitted_model)
        return state, metrics

    def fit_model(model: ensemble.ModelParams, fitted: Fit, history, key: jax.Array):
        """Fits the networks to steps of all rounds; the newest act, none averaged."""

        def step(fitted: Fit, key: jax.Array):
            steps = replay.sample(history, key, config.model_batch * config.model.members)
            obs = jnp.stack([steps["obs"], steps["next_obs"]])
            return forward_model.step(learner, fitted, model, obs, steps["action"][None])

        fitted, told = jax.lax.scan(step, fitted, jax.random.split(key, config.model_steps))
        model = ensemble.ModelParams(fitted.params, model.obs, model.change)
        return model, fitted, jax.tree.map(jnp.mean, told)

    def temperature_after(round_: jax.Array) -> jax.Array:
        share = jnp.clip((round_ + 1) / config.temperature_rounds, 0.0, 1.0)
        ratio = config.final_temperature / config.temperature
        return jnp.asarray(config.temperature * ratio**share, jnp.float32)

    def fit_discriminator(
        fitted: Fit, demos, fresh, history, model, key
    ) -> tuple[Fit, Metrics]:
        def step(fitted: Fit, key: jax.Array):
            expert_key, learner_key = jax.random.split(key)
            expert = demonstrations.sample_pairs(demos, expert_key, config.batch)
            learner = learner_batch(fresh, history, model, demos, learner_key)

            def loss_fn(params):
                params = normalised(params)
                expert_logits = logit(params, *expert)  # [B]
                learner_logits = logit(params, learner["obs"], learner["next_obs"])
                return adversarial.discrimination(expert_logits, learner_logits)

            gradients, metrics = jax.grad(loss_fn, has_aux=True)(fitted.params)
            return discriminator_fit.step(fitted, gradients), metrics

        keys = jax.random.split(key, config.discriminator_steps)
        fitted, metrics = jax.lax.scan(step, fitted, keys)
        return fitted, jax.tree.map(jnp.mean, metrics)

    def learner_batch(fresh, history, model, demos, key: jax.Array) -> Any:
        """`[B]` of the learner's steps: fresh ones, old ones, and imagined ones."""
        fresh_key, history_key, imagined_key = jax.random.split(key, 3)
        old = round(config.batch * config.history_share)
        dreamt = round(config.batch * config.imagined_share) if imagines else 0
        count = jax.tree.leaves(fresh)[0].shape[0]
        rows = jax.random.randint(fresh_key, (config.batch - old - dreamt,), 0, count)
        parts = [
            jax.tree.map(lambda leaf: leaf[rows], fresh),
            replay.sample(history, history_key, old, config.recency_exponent),
        ]
        if dreamt:
            parts.append(imagine(model, demos, history, imagined_key, dreamt))
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

    def lambda_returns(
        discriminator_params: Params, target: Params, rollout: Transition
    ) -> jax.Array:
        """G_t of the fresh rollout, flat `[T E]`."""
        successors = rollout.next_obs if config.reward_pairs == "next" else rollout.obs
        return jax.vmap(returns.lambda_returns, (1, 1, 1, 1, None), 1)(
            reward_of(logit(discriminator_params, rollout.obs, successors)),
            value(target, rollout.next_obs),
            config.discount * ~rollout.terminal,
            rollout.terminal | rollout.truncated,
            config.td_lambda,
        ).reshape(-1)

    def one_step_targets(
        discriminator_params, target, discount, obs, next_obs, terminal
    ) -> jax.Array:
        """d(s, s') + γ V̄(s'), `[B]`."""
        rewards = reward_of(logit(discriminator_params, obs, next_obs))
        return rewards + discount * ~terminal * value(target, next_obs)

    def imagine(model: Params, demos: Demonstrations, history, key: jax.Array, count: int):
        """`[B]` steps that the planner's model foresees, far around the demonstrations.

        What the demonstrations do not hold is taken from the learner's own history.
        """
        recover = dynamics.recover
        assert recover is not None
        obs_key, noise_key, step_key = jax.random.split(key, 3)
        obs, _ = demonstrations.sample_pairs(demos, obs_key, count)
        if len(observed) < spec.observation_size:
            own_key, noise_key = jax.random.split(noise_key)
            own = replay.sample(history, own_key, count)["obs"]
            obs = own.at[:, jnp.asarray(observed)].set(obs[:, jnp.asarray(observed)])
        noise = jax.random.normal(noise_key, obs.shape)
        obs = obs + config.imagined_spread * jnp.std(obs, axis=0) * noise

        def step(obs: jax.Array, key: jax.Array):
            action_key, key = jax.random.split(key)
            action = jax.random.uniform(action_key, low.shape, low.dtype, low, high)
            z = recover(model, obs)
            following = dynamics.step(model, z, action, key)
            return dynamics.observe(model, z), dynamics.observe(model, following)

        obs, next_obs = jax.vmap(step)(obs, jax.random.split(step_key, count))
        terminal = jnp.zeros((count,), bool)
        return {"obs": obs, "next_obs": next_obs, "terminal": terminal}

    def fit_value(
        fitted: Fit, target, discriminator_params, obs, targets, history, model, demos, key
    ):
        """Fits V to `targets` at `obs` and one-step targets on history; moves V̄ along."""

        def step(carry, key: jax.Array):
            fitted, target = carry
            fresh_key, history_key, imagined_key = jax.random.split(key, 3)
            rows = jax.random.randint(fresh_key, (config.batch,), 0, targets.shape[0])
            past = replay.sample(
                history, history_key, config.batch, config.recency_exponent
            )
            steps = {name: past[name] for name in ("obs", "next_obs", "terminal")}
            past_targets = one_step_targets(
                discriminator_params, target, config.discount, **steps
            )
            if imagines and config.imagined_batch:
                imagined = imagine(
                    model, demos, history, imagined_key, config.imagined_batch
                )
                imagined_targets = one_step_targets(
                    discriminator_params, target, config.imagined_discount, **imagined
                )

            def loss_fn(params):
                fresh_values = value(params, obs[rows])
                past_values = value(params, past["obs"])
                losses = {
                    "value/loss": jnp.mean((fresh_values - targets[rows]) ** 2),
                    "value/history_loss": jnp.mean((past_values - past_targets) ** 2),
                }
                if imagines and config.imagined_batch:
                    errors = value(params, imagined["obs"]) - imagined_targets
                    huber = optax.losses.huber_loss(errors, delta=config.huber_delta)
                    losses["value/imagined_loss"] = jnp.mean(huber)
                return sum(losses.values()), losses | {"value/mean": fresh_values.mean()}

            gradients, metrics = jax.grad(loss_fn, has_aux=True)(fitted.params)
            fitted = value_fit.step(fitted, gradients)
            target = fit.polyak(target, fitted.params, config.target_rate)
            return (fitted, target), metrics

        keys = jax.random.split(key, config.value_steps)
        (fitted, target), metrics = jax.lax.scan(step, (fitted, target), keys)
        return fitted, target, jax.tree.map(jnp.mean, metrics)

    return Agent(init=init, carry=planner.init, act=act, update=update)


def shows(task: Task, config: Config) -> Shows:
    """The reward d(s, s'), the value V and the plans that `act` weighed."""
    logit = _logit_fn(task.spec, config, task.observed)
    value = _value_fn(task.spec, config, task.observed)
    return Shows(
        reward=lambda params, obs, action, next_obs: logit(
            params.discriminator, obs, next_obs
        ),
        value=lambda params, obs: value(params.value, obs),
        plans=plan_samples(task, config),
    )


def plan_samples(
    task: Task, config: Config
) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    """What `act` weighed, as `Shows.plans` says."""
    spec, observed = task.spec, task.observed
    planner = mppi.make(config.planner, spec.action_low, spec.action_high)
    learner = forward_model.make(spec, config.model, config.model_lr)
    dynamics = _dynamics(task, config, learner)
    score_fn = _score_fn(spec, dynamics, config, observed)

    def look(params: InferenceParams, carry: Plan, state: EnvState, key: jax.Array):
        plan_key, model_key = jax.random.split(key)
        score = score_fn(params, state, model_key)
        plans, weights = planner.plan_samples(score, carry, plan_key, params.temperature)
        mean = jnp.sum(weights[:, None, None] * plans, axis=0)  # [H, U]

        def path(actions: jax.Array) -> jax.Array:
            return foresight.imagine(dynamics, params.model, state, model_key, actions)

        return jax.vmap(path)(plans), weights, path(mean)

    return look


def _dynamics(task: Task, config: Config, learner: forward_model.Learner) -> Dynamics:
    """What the planner rolls forward."""
    if config.learned_model:
        return learner.ensemble.dynamics
    return task.require_dynamics("mpail")


def _score_fn(spec: EnvSpec, dynamics: Dynamics, config: Config, observed: tuple[int, ...]):
    """`(params, state, key) -> score`, with `score` of actions `[H, U]`, `[]`."""
    logit, value = _logit_fn(spec, config, observed), _value_fn(spec, config, observed)
    reward_of = adversarial.reward_of(config.reward)
    horizon = config.planner.horizon
    markups = config.markup ** jnp.arange(horizon + 1, dtype=jnp.float32)  # [H + 1]

    def score_fn(params: InferenceParams, state: EnvState, key: jax.Array):
        def reward(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
            del action
            return reward_of(logit(params.discriminator, obs, next_obs))

        def final(obs: jax.Array) -> jax.Array:
            return value(params.value, obs)

        scores = foresight.score_plan(
            dynamics, params.model, state, key, horizon, reward, final
        )

        def score(actions: jax.Array) -> jax.Array:
            marked_up = markups * scores(actions)  # [H + 1]
            return marked_up if config.planner.weighting == "step" else jnp.sum(marked_up)

        return score

    return score_fn


def _networks(spec: EnvSpec, config: Config, observed: tuple[int, ...]):
    """The discriminator's and the value's."""
    seen = len(observed)
    return (
        mlp.make_scalar(config.discriminator, (seen, seen)),
        mlp.make_scalar(config.value, (spec.observation_size,)),
    )


def _logit_fn(spec: EnvSpec, config: Config, observed: tuple[int, ...]):
    """d: `(normalised params, obs […, O], next_obs […, O]) -> […]`."""
    network, seen = _networks(spec, config, observed)[0], jnp.asarray(observed)

    def logit(params: Params, obs: jax.Array, next_obs: jax.Array) -> jax.Array:
        pair = config.input_scale * obs[..., seen], config.input_scale * next_obs[..., seen]
        return network.apply(params, *pair)

    return logit


def _value_fn(spec: EnvSpec, config: Config, observed: tuple[int, ...]):
    """V: `(params, obs […, O]) -> […]`."""
    return _networks(spec, config, observed)[1].apply


def _fitters(config: Config) -> tuple[fit.Optimizer, fit.Optimizer]:
    """The discriminator's and the value's."""

    def rate(start: float, steps: int) -> optax.ScalarOrSchedule:
        return fit.exponential_decay(start, config.lr_half_life * steps)

    discriminator_tx = optax.adamw(
        rate(config.discriminator_lr, config.discriminator_steps),
        b1=config.momentum,
        weight_decay=config.weight_decay,
    )
    value_tx = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adam(rate(config.value_lr, config.value_steps)),
    )
    return fit.make(discriminator_tx), fit.make(value_tx)
