"""Adversarial imitation with a policy: GAIL, GAIfO and AIRL on PPO; and IRL-MPC.

In a round, with the logit l of a discriminator (a high logit means expert):

    1. act: a ~ π(·|s)
    2. discriminator, `gradient_steps` steps on the fresh rollout and the demonstrations
           min_l  E_expert[softplus(-l)] + E_learner[softplus(l)] + w E[(‖∇l‖ - c)²]
    3. rewards of the rollout by the new discriminator: r = reward(l)
    4. PPO on r, see common/ppo.py

    form    l                                           demonstrations hold    source
    gail    d(s, a)                                     actions                Algorithm 1
    gaifo   d(s, s')                                    observations           Algorithm 1
    airl    f(s, s') - log π(a|s),                      actions                eq. 4
            f = g(s) + γ (1 - terminal) h(s') - h(s)

AIRL's g is the reward that it recovers, and its r is l. The discriminator reads
observations that are normalised by the policy's moments, and actions in [-1, 1].

With `deploy="planner"` the policy still collects experience, but MPPI on the same
discriminator and PPO's V is evaluated and exported. This is IRL-MPC, the ablation of MPAIL
whose planner has no part in the learning:

    maximise over plans  Σ_{t<H} γ^t r(s_t, a_t, s_{t+1}) + γ^H V(s_H)

Source: Ho & Ermon 2016, arXiv 1606.03476 (GAIL); Torabi et al. 2018, arXiv 1807.06158
(GAIfO); Fu et al. 2018, arXiv 1710.11248 (AIRL); Han et al. 2025, arXiv 2507.21533
(IRL-MPC); Gulrajani et al. 2017, arXiv 1704.00028, eq. 3 (the penalty of step 2).
Departures: PPO instead of TRPO; `gradient_penalty`, which the papers of GAIL, GAIfO and
AIRL do not have; `reward`: GAIL's paper has -log(1 - D) with this D = σ(l), which is
"gail_pos", and here the default is the logit, since at l = 0 it rewards neither a long
episode nor a short one; AIRL's h is 0 after an end, of which the paper says nothing.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.agents.common import actions, learning, ppo
from planil_jax.base import (
    Agent,
    Demonstrations,
    Dynamics,
    EnvState,
    Fit,
    Metrics,
    Needs,
    Params,
    Planner,
    Shows,
    Task,
    Transition,
    UsageError,
)
from planil_jax.config import Count, NonNegative, Positive
from planil_jax.data import demos as demonstrations
from planil_jax.losses import adversarial
from planil_jax.models import foresight
from planil_jax.nets import fit, mlp, normalise, spectral
from planil_jax.planners import mppi


@dataclass(frozen=True, kw_only=True)
class Config:
    form: Literal["gail", "gaifo", "airl"] = "gaifo"  # what the discriminator reads
    learner: ppo.Config = field(default_factory=ppo.Config)  # the policy and its PPO
    discriminator: mlp.Config = field(  # network of the logit
        default_factory=lambda: mlp.Config(activation="tanh")
    )
    reward: adversarial.Reward = "logit"  # reward of a logit; AIRL's is always the logit
    spectral_norm: bool = False  # whether the discriminator's kernels have norm 1
    gradient_penalty: NonNegative = 1.0  # w, weight of the gradient penalty
    penalty_norm: NonNegative = 1.0  # c, the slope of the logit that costs nothing
    gradient_steps: Count = 16  # gradient steps of the discriminator a round
    batch: Count = 512  # steps of each class in a gradient step
    learning_rate: Positive = 3e-4  # learning rate of the discriminator's Adam
    lr_half_life: Count | None = None  # rounds in which the rate halves; None: it stays
    deploy: Literal["policy", "planner"] = "policy"  # what acts when it does not explore
    planner: mppi.Config = field(  # of deploy="planner"
        default_factory=lambda: mppi.Config(samples=256)
    )
    temperature: Positive = 0.1  # λ of the planner, in units of reward


def NEEDS(config: Config) -> Needs:  # noqa: N802
    """GAIL and AIRL need actions; AIRL's log π(a|s) needs whole observations.

    A deployed planner rolls the task's dynamics forward from the simulator's state.
    """
    form = FORMS.get(config.form)
    return Needs(
        actions=form is not None and form.needs_actions,
        full_observations=config.form == "airl",
        simulator=config.deploy == "planner",
    )


def gaifo() -> Config:
    """GAIfO: from observations, (s, s')."""
    return Config(form="gaifo")


def gail() -> Config:
    """GAIL: from (s, a)."""
    return Config(form="gail")


def airl() -> Config:
    """AIRL: with a recovered reward of states."""
    return Config(form="airl")


def irl_mpc() -> Config:
    """IRL-MPC: GAIfO's discriminator and value inside MPPI."""
    return Config(form="gaifo", deploy="planner")


@struct.dataclass
class InferenceParams:
    """The part that acts and is exported."""

    policy: ppo.InferenceParams
    discriminator: Params  # as it is applied, see `applied`
    value: Params
    reward_scale: jax.Array  # [] how much reward the value calls 1
    model: Params


@struct.dataclass
class State:
    params: InferenceParams
    learner: ppo.State
    discriminator: Fit  # as it is fitted, before any spectral normalisation


@struct.dataclass
class Steps:
    """Steps, here as a discriminator reads them, see `read`."""

    obs: jax.Array  # [..., O'] the observed entries, normalised
    action: jax.Array  # [..., U] in [-1, 1]
    next_obs: jax.Array  # [..., O']
    terminal: jax.Array  # [...] bool
    log_prob: jax.Array | float = 0.0  # [...] log π(a|s), which AIRL takes off its logit


@struct.dataclass
class Batch:
    """What one gradient step of the discriminator learns from, `[B]` of each class."""

    expert: Steps
    learner: Steps


# -------------------------------------------------------------------- forms of the logit


class Discriminator(NamedTuple):
    """The logit of a form, before AIRL's log π(a|s) is taken off."""

    init: Callable[[jax.Array], Params]  # (key) -> params
    logit: Callable[[Params, Steps], jax.Array]  # (params, steps [...]) -> [...]


class Form(NamedTuple):
    """A row of the table above."""

    needs_actions: bool
    subtracts_log_prob: bool  # and then the reward is the logit
    make: Callable[[Task, Config], Discriminator]


def state_action(task: Task, config: Config) -> Discriminator:
    """GAIL: l = d(s, a)."""
    sizes = len(task.observed), task.spec.action_size
    network = mlp.make_scalar(config.discriminator, sizes)
    return Discriminator(
        network.init, lambda params, steps: network.apply(params, steps.obs, steps.action)
    )


def state_pair(task: Task, config: Config) -> Discriminator:
    """GAIfO: l = d(s, s')."""
    sizes = len(task.observed), len(task.observed)
    network = mlp.make_scalar(config.discriminator, sizes)
    return Discriminator(
        network.init, lambda params, steps: network.apply(params, steps.obs, steps.next_obs)
    )


def shaped_reward(task: Task, config: Config) -> Discriminator:
    """AIRL: f = g(s) + γ (1 - terminal) h(s') - h(s), Fu et al. 2018, eq. 4."""
    network = mlp.make_scalar(config.discriminator, (len(task.observed),))

    def init(key: jax.Array) -> Params:
        reward_key, potential_key = jax.random.split(key)
        return {
            "reward": network.init(reward_key),
            "potential": network.init(potential_key),
        }

    def logit(params: Params, steps: Steps) -> jax.Array:
        return adversarial.shaped(
            network.apply(params["reward"], steps.obs),
            network.apply(params["potential"], steps.obs),
            network.apply(params["potential"], steps.next_obs),
            steps.terminal,
            config.learner.discount,
        )

    return Discriminator(init, logit)


FORMS = {
    "gail": Form(needs_actions=True, subtracts_log_prob=False, make=state_action),
    "gaifo": Form(needs_actions=False, subtracts_log_prob=False, make=state_pair),
    "airl": Form(needs_actions=True, subtracts_log_prob=True, make=shaped_reward),
}


# ------------------------------------------------------------------------------- building


class Components(NamedTuple):
    """What an agent of this family is made of."""

    config: Config
    task: Task
    form: Form
    learner: ppo.Components
    discriminator: Discriminator
    optimizer: fit.Optimizer  # of the discriminator
    scaling: actions.Scaling
    reward: Callable[[jax.Array], jax.Array]  # of logits
    dynamics: Dynamics | None  # of the planner; None: the policy acts
    planner: Planner


def make(task: Task, config: Config) -> Agent:
    """The form that `config` names.

    Args:
      task: the discriminator reads no observation entries but `task.observed`; the planner,
        where it is deployed, rolls `task.dynamics` forward.

    Raises:
      UsageError: there is no such form, deployment or reward, or no model to plan with.
    """
    components = build(task, config)
    plans = components.dynamics is not None
    return Agent(
        init=functools.partial(init, components),
        carry=components.planner.init if plans else tuple,
        act=functools.partial(act, components),
        update=functools.partial(update, components),
    )


def build(task: Task, config: Config) -> Components:
    """The networks, the planner and the optimisers; raises as `make` does."""
    if config.form not in FORMS:
        raise UsageError(f"agent.form is one of {', '.join(FORMS)}, not {config.form!r}.")
    if config.deploy not in ("policy", "planner"):
        raise UsageError(f"agent.deploy is 'policy' or 'planner', not {config.deploy!r}.")
    form, spec = FORMS[config.form], task.spec
    plans = config.deploy == "planner"
    half_life = (config.lr_half_life or 0) * config.gradient_steps
    rate = fit.exponential_decay(config.learning_rate, half_life)
    return Components(
        config=config,
        task=task,
        form=form,
        learner=ppo.build(spec, config.learner),
        discriminator=form.make(task, config),
        optimizer=fit.make(optax.adam(rate, b1=0.5)),
        scaling=actions.make_scaling(spec),
        reward=adversarial.reward_of("logit" if form.subtracts_log_prob else config.reward),
        dynamics=task.require_dynamics("deploy='planner'") if plans else None,
        planner=mppi.make(config.planner, spec.action_low, spec.action_high),
    )


def init(components: Components, key: jax.Array) -> State:
    ppo_key, discriminator_key, model_key = jax.random.split(key, 3)
    learner = ppo.init(components.learner, ppo_key)
    params = components.discriminator.init(discriminator_key)
    discriminator = components.optimizer.init(params)
    dynamics = components.dynamics
    model = dynamics.init(model_key) if dynamics else ()
    acting = inference_params(components, learner, discriminator, model)
    return State(acting, learner, discriminator)


def inference_params(
    components: Components, learner: ppo.State, discriminator: Fit, model: Params
) -> InferenceParams:
    """The acting parameters, taken from the learned ones."""
    return InferenceParams(
        policy=learner.params,
        discriminator=applied(components.config, discriminator.params),
        value=learner.networks.params["value"],
        reward_scale=ppo.reward_scale(components.learner, learner),
        model=model,
    )


def applied(config: Config, params: Params) -> Params:
    """The discriminator's parameters as they are applied."""
    return spectral.normalise(params) if config.spectral_norm else params


# --------------------------------------------------------------------------------- acting


def act(
    components: Components,
    params: InferenceParams,
    carry,
    state: EnvState,
    key: jax.Array,
    explore: bool,
):
    """Step 1: by the policy; where a planner is deployed, by that unless it explores."""
    if explore or components.dynamics is None:
        return ppo.act(components.learner, params.policy, carry, state, key, explore)
    plan_key, model_key = jax.random.split(key)
    score_fn = plan_score(components, params, state, model_key)
    return components.planner.plan(
        score_fn, carry, plan_key, components.config.temperature, explore
    )


def plan_score(
    components: Components, params: InferenceParams, state: EnvState, key: jax.Array
) -> Callable[[jax.Array], jax.Array]:
    """Σ_{t<H} γ^t r_t + γ^H V(s_H), a function of a plan `[H, U]` to `[]`."""
    assert components.dynamics is not None  # there is one where a planner acts
    config, horizon = components.config, components.config.planner.horizon
    scores = foresight.score_plan(
        components.dynamics,
        params.model,
        state,
        key,
        horizon,
        functools.partial(step_reward, components, params),
        functools.partial(final_value, components, params),
    )
    discounts = config.learner.discount ** jnp.arange(horizon + 1, dtype=jnp.float32)
    return lambda plan: jnp.sum(discounts * scores(plan))


def step_reward(
    components: Components,
    params: InferenceParams,
    obs: jax.Array,
    action: jax.Array,
    next_obs: jax.Array,
) -> jax.Array:
    """r of predicted steps: observations `[..., O]`, one action `[U]`; `[...]`.

    No log π(a|s) is taken off: the planner's actions are not the policy's.
    """
    action = jnp.broadcast_to(action, (*obs.shape[:-1], *action.shape))
    raw = Steps(obs, action, next_obs, terminal=jnp.zeros(obs.shape[:-1], bool))
    steps = read(components, params.policy, raw)
    return components.reward(components.discriminator.logit(params.discriminator, steps))


def final_value(
    components: Components, params: InferenceParams, obs: jax.Array
) -> jax.Array:
    """V of predicted observations `[..., O]` in units of reward, `[...]`."""
    return ppo.value(
        components.learner, params.policy, params.value, params.reward_scale, obs
    )


# ------------------------------------------------------------------------------- learning


def update(
    components: Components,
    state: State,
    rollout: Transition,
    demos: Demonstrations,
    key: jax.Array,
    round_: jax.Array,
) -> tuple[State, Metrics]:
    """Steps 2 to 4, on a rollout `[T, E]`."""
    del round_
    discriminator_key, policy_key = jax.random.split(key)
    learner_steps = read(components, state.learner.params, rollout)
    discriminator, metrics = fit_discriminator(
        components, state, learner_steps, demos, discriminator_key
    )
    params = applied(components.config, discriminator.params)
    rewards = components.reward(logit(components, params, learner_steps))  # [T, E]
    learner, policy_metrics = ppo.improve(
        components.learner, state.learner, rollout, rewards, policy_key
    )
    acting = inference_params(components, learner, discriminator, state.params.model)
    return State(acting, learner, discriminator), metrics | policy_metrics


def read(
    components: Components, params: ppo.InferenceParams, raw: Steps | Transition
) -> Steps:
    """Steps in the environment's units, `[..., O]` and `[..., U]`, as they are read.

    Args:
      params: of the policy, whose moments normalise and whose log π(a|s) AIRL takes off.
    """
    observed = jnp.asarray(components.task.observed)
    log_prob = jnp.zeros(raw.terminal.shape)
    if components.form.subtracts_log_prob:
        log_prob = ppo.log_prob(components.learner, params, raw.obs, raw.action)
    return Steps(
        obs=normalise.apply(params.moments, raw.obs)[..., observed],
        action=components.scaling.to_unit_interval(raw.action),
        next_obs=normalise.apply(params.moments, raw.next_obs)[..., observed],
        terminal=raw.terminal,
        log_prob=log_prob,
    )


def logit(components: Components, params: Params, steps: Steps) -> jax.Array:
    """l of steps `[...]` by parameters as they are applied, `[...]`."""
    return components.discriminator.logit(params, steps) - steps.log_prob


def fit_discriminator(
    components: Components,
    state: State,
    learner_steps: Steps,
    demos: Demonstrations,
    key: jax.Array,
) -> tuple[Fit, Metrics]:
    """Step 2: `gradient_steps` steps on minibatches of the rollout's steps `[T, E]`."""
    config = components.config
    rollout = learning.flatten(learner_steps)
    count = rollout.terminal.shape[0]
    loss_fn = functools.partial(discriminator_loss, components)

    def one_step(fitted: Fit, key: jax.Array):
        expert_key, learner_key, penalty_key = jax.random.split(key, 3)
        rows = jax.random.randint(learner_key, (config.batch,), 0, count)
        batch = Batch(
            expert=sample_expert(components, state.learner.params, demos, expert_key),
            learner=jax.tree.map(lambda leaf: leaf[rows], rollout),
        )
        return learning.gradient_step(
            components.optimizer, fitted, loss_fn, batch, penalty_key
        )

    keys = jax.random.split(key, config.gradient_steps)
    return learning.scan_mean(one_step, state.discriminator, keys)


def sample_expert(
    components: Components,
    params: ppo.InferenceParams,
    demos: Demonstrations,
    key: jax.Array,
) -> Steps:
    """Steps `[B]` of the demonstrations, drawn uniformly."""
    batch = components.config.batch
    obs, action, next_obs, terminal = demonstrations.sample(demos, key, batch)
    if action is None or not components.form.needs_actions:  # nothing reads it
        action = jnp.zeros((batch, components.task.spec.action_size))
    return read(components, params, Steps(obs, action, next_obs, terminal))


def discriminator_loss(
    components: Components, params: Params, batch: Batch, key: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Step 2's loss, `[]`.

        L = E_expert[softplus(-l)] + E_learner[softplus(l)] + w E[(‖∇l‖ - c)²]

    Ho & Ermon 2016, Algorithm 1, and Torabi et al. 2018, Algorithm 1, as losses of the
    logit of P(expert); Fu et al. 2018, Algorithm 1, with l = f - log π(a|s).
    """
    config = components.config
    params = applied(config, params)
    loss, metrics = adversarial.discrimination(
        logit(components, params, batch.expert), logit(components, params, batch.learner)
    )
    penalty = slope_penalty(components, params, batch, key)
    loss += config.gradient_penalty * penalty
    return loss, metrics | {"discriminator/penalty": penalty}


def slope_penalty(
    components: Components, params: Params, batch: Batch, key: jax.Array
) -> jax.Array:
    """E[(‖∇l‖ - c)²] between expert and learner, with respect to what l reads, `[]`.

    Gulrajani et al. 2017, eq. 3. AIRL's is the slope of f, of steps that go on.
    """
    goes_on = jnp.zeros((), bool)

    def logit_of(inputs: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return components.discriminator.logit(params, Steps(*inputs, terminal=goes_on))

    expert, learner = (
        (steps.obs, steps.action, steps.next_obs) for steps in (batch.expert, batch.learner)
    )
    return adversarial.gradient_penalty(
        logit_of, expert, learner, key, components.config.penalty_norm
    )


# -------------------------------------------------------------------- the recovered reward


def recovered_reward(
    task: Task, config: Config
) -> Callable[[InferenceParams, jax.Array], jax.Array]:
    """AIRL's g: `(params, obs [..., O]) -> [...]`.

    Raises:
      UsageError: another form than AIRL recovers no reward.
    """
    if config.form != "airl":
        raise UsageError(f"{config.form} recovers no reward of states; airl does.")
    network = mlp.make_scalar(config.discriminator, (len(task.observed),))
    observed = jnp.asarray(task.observed)

    def reward(params: InferenceParams, obs: jax.Array) -> jax.Array:
        normalised = normalise.apply(params.policy.moments, obs)[..., observed]
        return network.apply(params.discriminator["reward"], normalised)

    return reward


def shows(task: Task, config: Config) -> Shows:
    """AIRL's reward g; the other forms recover none."""
    if config.form != "airl":
        return Shows()
    reward = recovered_reward(task, config)
    return Shows(reward=lambda params, obs, action, next_obs: reward(params, obs))
