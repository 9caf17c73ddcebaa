"""TD-MPC2: MPPI in the latent space of a learned model, for the task's reward.

A gradient step, on sequences of H steps:

    z_0 = h(s_0),  z_{t+1} = d(z_t, a_t),   ẑ_t = sg h(s_t)
    y_t = r_t + γ min_2 Q̄(ẑ_{t+1}, a'),  a' ~ π(·|ẑ_{t+1})
    min_{h,d,R,Q}  c_z Σ_t ρ^t E(z_{t+1} - ẑ_{t+1})² / H
                   + c Σ_t ρ^t [CE(R(z_t, a_t), r_t) + mean_Q CE(Q(z_t, a_t), y_t)] / H
    min_π          Σ_t ρ^t E[β log π(ã|z_t) - mean_2 Q(z_t, ã) / S] / (H + 1)
    Q̄ ← Q̄ + τ (Q - Q̄);   S follows the range of Q from its 5th to its 95th percentile

R and Q are classifiers over two-hot bins, CE their cross-entropy. The planner's score of a
plan is Σ_{t<H} γ^t R(z_t, a_t) + γ^H mean_2 Q(z_H, a),  a ~ π(·|z_H). Two of the critics
are drawn at random wherever two are used, and no others are evaluated.

It makes demonstrations for imitators on the same latent models.

Source: Hansen, Su & Wang 2024, TD-MPC2, arXiv 2310.16828.
Departures: log π is the density's, where older versions of their code multiply its Gaussian
part by the number of actions; nothing is bootstrapped from an end for good.
"""

import dataclasses
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.agents.common import latent_planning
from planil_jax.base import Agent, Fit, Metrics, Needs, Params, Task, Transition
from planil_jax.data import replay
from planil_jax.losses import two_hot, world_model
from planil_jax.nets import fit, latent


@dataclass(frozen=True, kw_only=True)
class Config:
    core: latent_planning.Config = field(default_factory=latent_planning.Config)
    consistency: float = 20.0  # c_z
    task: float = 0.1  # c
    scale_rate: float = 0.01  # of S


NEEDS = Needs(demonstrations=False, pixels=True)


@struct.dataclass
class State:
    params: latent_planning.InferenceParams
    model: Fit  # of {"encoder", "step", "reward", "critics"}
    policy: Fit
    target: Params  # Q̄
    scale: jax.Array  # [] S
    replay: replay.Replay | None  # None within a loop that does not change it


def make(task: Task, config: Config) -> Agent:
    """TD-MPC2 for the task's own reward: no imitator; demonstrations are not looked at."""
    spec = task.spec
    core, parts = config.core, latent_planning.make(spec, config.core, two_hot.BINS)
    model, critics, policy, gamma = parts.model, parts.critics, parts.policy, parts.discount
    sizes = (core.network.latent, spec.action_size)
    reward = latent.make_head(core.network, sizes, two_hot.BINS)

    def q_values(pair: Params, z: jax.Array, actions: jax.Array) -> jax.Array:
        """`[2, ...]`."""
        return two_hot.decode(critics.apply(pair, z, actions))

    def score(params: latent_planning.InferenceParams, z_0: jax.Array, key: jax.Array):
        pair_key, last_key = jax.random.split(key)
        pair = latent.choose(params.model["critics"], pair_key)

        def of_plan(actions: jax.Array) -> jax.Array:
            total, z = jnp.zeros(()), z_0
            for t, action in enumerate(actions):
                logits = reward.apply(params.model["reward"], z, action)
                total += gamma**t * two_hot.decode(logits)
                z = model.step(params.model, z, action)
            last = policy.sample(policy.apply(params.policy, z), last_key)[0]
            return total + gamma ** len(actions) * jnp.mean(q_values(pair, z, last))

        return of_plan

    carry, act = latent_planning.acting(spec, core, parts, score)

    # ---------------------------------------------------------------------------- learning

    def init(key: jax.Array) -> State:
        model_key, reward_key, critics_key, policy_key = jax.random.split(key, 4)
        params = model.init(model_key) | {
            "reward": reward.init(reward_key),
            "critics": critics.init(critics_key),
        }
        fitted = parts.model_fit.init(params)
        fitted_policy = parts.policy_fit.init(policy.init(policy_key))
        return State(
            params=latent_planning.InferenceParams(
                params, fitted_policy.params, jnp.ones((), bool)
            ),
            model=fitted,
            policy=fitted_policy,
            target=params["critics"],
            scale=jnp.ones(()),
            replay=latent_planning.empty_replay(spec, core, task.num_envs, rewards=True),
        )

    def update(
        state: State, rollout: Transition, demos, key: jax.Array, round_
    ) -> tuple[State, Metrics]:
        del demos
        assert state.replay is not None
        held = latent_planning.insert(state.replay, parts, rollout)
        places = latent_planning.valid_starts(held, parts, core)
        warming, count = latent_planning.warming(core, round_, rollout)

        def improve(state: State, key: jax.Array) -> tuple[State, Metrics]:
            own_key, key = jax.random.split(key)
            return learn(
                state,
                latent_planning.sample_replay(held, places, parts, core, own_key),
                key,
            )

        slim = dataclasses.replace(state, replay=None)
        slim, metrics = latent_planning.fori_mean(improve, slim, key, count)
        params = latent_planning.ema_params(
            core, state.params, slim.model.params, slim.policy.params, warming
        )
        return dataclasses.replace(slim, params=params, replay=held), metrics

    def learn(
        state: State, own: latent_planning.Sequences, key: jax.Array
    ) -> tuple[State, Metrics]:
        model_key, pair_key, policy_key = jax.random.split(key, 3)
        gradients, (zs, metrics) = jax.grad(model_loss, has_aux=True)(
            state.model.params, state.policy.params, state.target, own, model_key
        )
        fitted = parts.model_fit.step(state.model, gradients)
        pair = latent.choose(fitted.params["critics"], pair_key)

        def value(zs: jax.Array, actions: jax.Array) -> jax.Array:
            return jnp.mean(q_values(pair, zs, actions), axis=0)

        fitted_policy, told = latent_planning.fit_policy(
            parts,
            core,
            state.policy,
            lambda z, a: value(z, a) / state.scale,
            zs,
            policy_key,
        )
        first = policy.mode(policy.apply(fitted_policy.params, zs[0]))
        low, high = jnp.percentile(value(zs[0], first), jnp.array([5.0, 95.0]))
        gap = jnp.maximum(high - low, 1.0) - state.scale
        state = dataclasses.replace(
            state,
            model=fitted,
            policy=fitted_policy,
            target=fit.polyak(state.target, fitted.params["critics"], core.target_rate),
            scale=state.scale + config.scale_rate * gap,
        )
        return state, metrics | told | {"policy/scale": state.scale}

    def model_loss(
        params: Params,
        policy_params,
        target,
        own: latent_planning.Sequences,
        key: jax.Array,
    ):
        assert own.rewards is not None  # the replay holds them
        pair_key, action_key, dropout_key = jax.random.split(key, 3)
        encoded = jax.lax.stop_gradient(model.encode(params, own.obs[1:]))
        zs = model.rollout(params, model.encode(params, own.obs[0]), own.actions)
        next_actions = policy.sample(policy.apply(policy_params, encoded), action_key)[0]
        pair = latent.choose(target, pair_key)
        next_values = jnp.min(q_values(pair, encoded, next_actions), axis=0)  # [H, B]
        targets = own.rewards + gamma * ~own.terminal * next_values
        targets = jax.lax.stop_gradient(targets)

        logits = reward.apply(params["reward"], zs[:-1], own.actions)
        of_rewards = two_hot.cross_entropy(logits, own.rewards)  # [H, B]
        logits = critics.apply(params["critics"], zs[:-1], own.actions, key=dropout_key)
        of_values = jnp.mean(jax.vmap(two_hot.cross_entropy, (0, None))(logits, targets), 0)
        losses = {
            "model/consistency": world_model.consistency(
                zs[1:], encoded, core.horizon_decay
            ),
            "reward/loss": world_model.over_horizon(of_rewards.mean(1), core.horizon_decay),
            "critic/loss": world_model.over_horizon(of_values.mean(1), core.horizon_decay),
        }
        total = config.consistency * losses["model/consistency"] + config.task * (
            losses["reward/loss"] + losses["critic/loss"]
        )
        return total, (zs, losses | {"critic/mean": jnp.mean(targets)})

    return Agent(init=init, carry=carry, act=act, update=update)
