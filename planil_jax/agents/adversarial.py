"""Adversarial imitation with a policy: GAIL, GAIfO and AIRL on PPO; and IRL-MPC.

In a round, with the logit l (high: expert) and the policy π of the last round:

    1. act: a ~ π(·|s);
    2. discriminator: min_l  E_expert[softplus(-l)] + E_learner[softplus(l)] + penalty;
    3. rewards r = reward(l) of the fresh rollout, by the new l;
    4. PPO on r.

    form    l                                           demonstrations hold
    gail    d(s, a)                                     actions
    gaifo   d(s, s')                                    observations
    airl    g(s) + γ (1 - terminal) h(s') - h(s)        actions
            - log π(a|s)

Observations are normalised by the policy's moments, for the discriminator as well, which
stay as they are within a round. AIRL's g is the reward that it recovers.

With `deploy="planner"` the policy gathers experience as ever, but what is evaluated and
exported is MPPI on  Σ_{t<H} γ^t r_t + γ^H V(s_H)  with the same l and PPO's V: IRL-MPC,
the ablation of MPAIL whose planner has no part in the learning.

Source: Ho & Ermon 2016, arXiv 1606.03476 (GAIL); Torabi et al. 2018, arXiv 1807.06158
(GAIfO); Fu et al. 2018, arXiv 1710.11248 (AIRL); Han et al. 2025, arXiv 2507.21533
(IRL-MPC).
Departures: PPO instead of TRPO; a gradient penalty.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.agents import ppo
from planil_jax.base import (
    Agent,
    Demonstrations,
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
from planil_jax.losses import adversarial
from planil_jax.models import foresight
from planil_jax.nets import fit, mlp, normalise, spectral
from planil_jax.planners import mppi


class Form(NamedTuple):
    """What a discriminator looks at."""

    needs_actions: bool
    reads: tuple[str, str] | None  # of obs, action, next_obs; None: g and h of AIRL


FORMS: dict[str, Form] = {
    "gail": Form(needs_actions=True, reads=("obs", "action")),
    "gaifo": Form(needs_actions=False, reads=("obs", "next_obs")),
    "airl": Form(needs_actions=True, reads=None),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    form: str = "gaifo"  # a name of FORMS
    learner: ppo.Config = field(default_factory=ppo.Config)
    discriminator: mlp.Config = field(default_factory=lambda: mlp.Config(activation="tanh"))
    reward: str = "logit"  # a name of losses.adversarial.REWARDS; AIRL: always its l
    spectral_norm: bool = False  # of the discriminator's kernels
    gradient_penalty: float = 1.0  # weight
    penalty_norm: float = 1.0  # the slope that costs nothing
    steps: int = 16  # gradient steps of the discriminator a round
    batch: int = 512  # steps of each class in a gradient step
    learning_rate: float = 3e-4  # Adam, of the discriminator
    lr_half_life: int = 0  # rounds in which it halves; 0: it stays
    deploy: str = "policy"  # or "planner"
    planner: mppi.Config = field(default_factory=lambda: mppi.Config(samples=256))
    temperature: float = 0.1  # λ of the planner, in units of reward


@struct.dataclass
class InferenceParams:
    """The part that acts and is exported."""

    policy: ppo.InferenceParams
    discriminator: Params
    value: Params
    unit: jax.Array  # [] how much reward the value calls 1
    model: Params


@struct.dataclass
class State:
    params: InferenceParams
    learner: ppo.State
    discriminator: Fit  # raw, not normalised


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
    """GAIfO's discriminator and value inside MPPI, which has no part in the learning."""
    return Config(form="gaifo", deploy="planner")


def NEEDS(config: Config) -> Needs:  # noqa: N802
    """GAIL and AIRL need actions; AIRL asks its policy about whole observations."""
    form = FORMS.get(config.form)
    return Needs(
        actions=form is not None and form.needs_actions,
        full_observations=config.form == "airl",
    )


def make(task: Task, config: Config) -> Agent:
    """The form that `config` names, in an environment of this spec.

    Args:
      task: the discriminator sees no observation entries but `task.observed`; the planner,
        where it is deployed, rolls `task.dynamics` forward.

    Raises:
      UsageError: there is no such form, deployment or reward.
    """
    spec, observed = task.spec, task.observed
    if config.form not in FORMS:
        raise UsageError(f"agent.form is one of {', '.join(FORMS)}, not {config.form!r}.")
    if config.deploy not in ("policy", "planner"):
        raise UsageError(f"agent.deploy is 'policy' or 'planner', not {config.deploy!r}.")
    form = FORMS[config.form]
    engine = ppo.engine(spec, config.learner)
    planner = mppi.make(config.planner, spec.action_low, spec.action_high)
    plans = config.deploy == "planner"
    dynamics = task.require_dynamics("deploy='planner'") if plans else None
    judge_init, judge = _discriminator(spec, config, observed)
    reward_of = adversarial.reward_of("logit" if form.reads is None else config.reward)
    rate = fit.exponential_decay(config.learning_rate, config.lr_half_life * config.steps)
    fitter = fit.make(optax.adam(rate, b1=0.5))

    # ------------------------------------------------------------------------------ acting

    def act(params: InferenceParams, carry, state: EnvState, key: jax.Array, explore: bool):
        if explore or not plans:
            action, _ = engine.act(params.policy, (), state, key, explore)
            return action, carry
        plan_key, model_key = jax.random.split(key)
        score = score_fn(params, state, model_key)
        return planner.plan(score, carry, plan_key, config.temperature, explore)

    def score_fn(params: InferenceParams, state: EnvState, key: jax.Array):
        assert dynamics is not None  # of a planner
        horizon = config.planner.horizon
        weights = config.learner.discount ** jnp.arange(horizon + 1, dtype=jnp.float32)

        def reward(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
            step = {
                "obs": obs,
                "action": jnp.broadcast_to(action, (*obs.shape[:-1], *action.shape)),
                "next_obs": next_obs,
                "terminal": jnp.zeros(obs.shape[:-1], bool),
            }
            return reward_of(judge(params.discriminator, look(params.policy.moments, step)))

        def final(obs: jax.Array) -> jax.Array:
            return engine.value(params.policy, params.value, params.unit, obs)

        scores = foresight.score_plan(
            dynamics, params.model, state, key, horizon, reward, final
        )
        return lambda actions: jnp.sum(weights * scores(actions))

    # ---------------------------------------------------------------------------- learning

    def init(key: jax.Array) -> State:
        ppo_key, discriminator_key, model_key = jax.random.split(key, 3)
        learner = engine.init(ppo_key)
        discriminator = fitter.init(judge_init(discriminator_key))
        model = dynamics.init(model_key) if dynamics else ()
        return State(gathered(learner, discriminator, model), learner, discriminator)

    def gathered(learner: ppo.State, discriminator: Fit, model: Params) -> InferenceParams:
        return InferenceParams(
            policy=learner.params,
            discriminator=normalised(discriminator.params),
            value=learner.learner.params["value"],
            unit=engine.unit(learner),
            model=model,
        )

    def normalised(params: Params) -> Params:
        return spectral.normalise(params) if config.spectral_norm else params

    def look(moments: normalise.Moments, steps: dict[str, Any]) -> dict[str, Any]:
        """Steps as the discriminator reads them: normalised, and actions in [-1, 1]."""
        seen = jnp.asarray(observed)
        low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)
        return {
            "obs": normalise.apply(moments, steps["obs"])[..., seen],
            "action": (2 * steps["action"] - low - high) / (high - low),
            "next_obs": normalise.apply(moments, steps["next_obs"])[..., seen],
            "terminal": steps["terminal"],
        }

    def update(
        state: State, rollout: Transition, demos: Demonstrations, key: jax.Array, round_
    ) -> tuple[State, Metrics]:
        del round_
        discriminator_key, policy_key = jax.random.split(key)
        steps = {
            "obs": rollout.obs,
            "action": rollout.action,
            "next_obs": rollout.next_obs,
            "terminal": rollout.terminal,
        }
        discriminator, told = fit_discriminator(state, steps, demos, discriminator_key)
        seen = look(state.params.policy.moments, steps)
        logits = judge(normalised(discriminator.params), seen) - log_pi(state, steps)
        learner, told_policy = engine.improve(
            state.learner, rollout, reward_of(logits), policy_key
        )
        params = gathered(learner, discriminator, state.params.model)
        return State(params, learner, discriminator), told | told_policy

    def log_pi(state: State, steps: dict[str, Any]) -> jax.Array:
        """What AIRL takes off its logit; of the others nothing."""
        if form.reads is not None:
            return jnp.zeros(steps["terminal"].shape)
        return engine.log_prob(state.learner.params, steps["obs"], steps["action"])

    def fit_discriminator(
        state: State, steps: dict[str, Any], demos: Demonstrations, key: jax.Array
    ) -> tuple[Fit, Metrics]:
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), steps)
        count = flat["terminal"].shape[0]
        moments = state.params.policy.moments

        def step(fitted: Fit, key: jax.Array):
            expert_key, learner_key, penalty_key = jax.random.split(key, 3)
            rows = jax.random.randint(learner_key, (config.batch,), 0, count)
            fresh = jax.tree.map(lambda leaf: leaf[rows], flat)
            obs, actions, next_obs, terminal = demonstrations.sample(
                demos, expert_key, config.batch
            )
            if actions is None or not form.needs_actions:  # never looked at
                actions = jnp.zeros_like(fresh["action"])
            expert = {
                "obs": obs,
                "action": actions,
                "next_obs": next_obs,
                "terminal": terminal,
            }
            log_pis = log_pi(state, expert), log_pi(state, fresh)
            seen = look(moments, expert), look(moments, fresh)

            def loss_fn(params: Params):
                params = normalised(params)
                logits = [judge(params, s) - p for s, p in zip(seen, log_pis, strict=True)]
                loss, told = adversarial.discrimination(*logits)
                penalty = penalty_of(params, *seen, penalty_key)
                told |= {"discriminator/penalty": penalty}
                return loss + config.gradient_penalty * penalty, told

            gradients, metrics = jax.grad(loss_fn, has_aux=True)(fitted.params)
            return fitter.step(fitted, gradients), metrics

        keys = jax.random.split(key, config.steps)
        fitted, metrics = jax.lax.scan(step, state.discriminator, keys)
        return fitted, jax.tree.map(jnp.mean, metrics)

    def penalty_of(params: Params, expert, learner, key: jax.Array) -> jax.Array:
        names = form.reads or ("obs", "next_obs")
        going_on = jnp.zeros((), bool)

        def logit(inputs) -> jax.Array:
            return judge(params, inputs | {"terminal": going_on})

        def read(side):
            return {name: side[name] for name in names}

        return adversarial.gradient_penalty(
            logit, read(expert), read(learner), key, config.penalty_norm
        )

    carry: Callable[[], Plan | tuple] = planner.init if plans else lambda: ()
    return Agent(init=init, carry=carry, act=act, update=update)


def recovered_reward(
    spec: EnvSpec, config: Config, observed: tuple[int, ...]
) -> Callable[[InferenceParams, jax.Array], jax.Array]:
    """AIRL's g: `(params, obs [..., O]) -> [...]`.

    Raises:
      UsageError: another form than AIRL recovers no reward.
    """
    if config.form != "airl":
        raise UsageError(f"{config.form} recovers no reward of states; airl does.")
    network = mlp.make_scalar(config.discriminator, (len(observed),))
    seen = jnp.asarray(observed)

    def reward(params: InferenceParams, obs: jax.Array) -> jax.Array:
        normalised = normalise.apply(params.policy.moments, obs)[..., seen]
        return network.apply(params.discriminator["reward"], normalised)

    return reward


def _discriminator(spec: EnvSpec, config: Config, observed: tuple[int, ...]):
    """`init(key)` and `logit(params, steps)`, of steps as `look` shows them, to `[...]`."""
    reads = FORMS[config.form].reads
    sizes = {"obs": len(observed), "next_obs": len(observed), "action": spec.action_size}
    if reads is not None:
        inputs = tuple(sizes[name] for name in reads)
        network = mlp.make_scalar(config.discriminator, inputs)

        def direct(params: Params, steps) -> jax.Array:
            return network.apply(params, *(steps[name] for name in reads))

        return network.init, direct
    of_state = mlp.make_scalar(config.discriminator, (len(observed),))

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key)
        return {"reward": of_state.init(keys[0]), "potential": of_state.init(keys[1])}

    def logit(params: Params, steps) -> jax.Array:
        return adversarial.shaped(
            of_state.apply(params["reward"], steps["obs"]),
            of_state.apply(params["potential"], steps["obs"]),
            of_state.apply(params["potential"], steps["next_obs"]),
            steps["terminal"],
            config.learner.discount,
        )

    return init, logit


def shows(task: Task, config: Config) -> Shows:
    """AIRL's reward g; the other forms recover none."""
    if config.form != "airl":
        return Shows()
    reward = recovered_reward(task.spec, config, task.observed)
    return Shows(reward=lambda params, obs, action, next_obs: reward(params, obs))
