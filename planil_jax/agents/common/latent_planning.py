"""What agents with a latent model share: acting, warm-up, and sequences of two buffers.

Acting: z = h(s); P plans come from following the policy π from z; MPPI refines them and its
own by the agent's score of a plan. Or the policy acts alone.

Learning: a round's steps enter the replay, and then `updates_per_step` gradient steps are taken for
each of them. The first `seed_steps` steps are uniformly random, and their gradient steps come
all at once when they end.

Inside, actions are in [-1, 1]. Where the environment shows pictures, the replay holds each
frame once, and what is learned from is moved at random by a few pixels.

Source: Hansen, Su & Wang 2024, TD-MPC2, arXiv 2310.16828.
Departures: a round of steps and then a round of gradient steps, where theirs alternate one
by one; the mean of the plans acts when it does not explore, where theirs draws a plan; the
policy's deviation stays above 0.1, where theirs falls to e^-10, since a narrower policy
gives log π of a planned action no bound; of pictures, the last step of an episode is not
learned from, since what it led to is not held.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.base import (
    Demonstrations,
    EnvSpec,
    EnvState,
    Fit,
    Metrics,
    Params,
    Plan,
    Transition,
    UsageError,
)
from planil_jax.data import demos as demonstrations
from planil_jax.data import replay
from planil_jax.losses import world_model
from planil_jax.models import latent as models
from planil_jax.nets import conv, fit, heads, latent
from planil_jax.planners import mppi


@dataclass(frozen=True, kw_only=True)
class Config:
    network: latent.Config = field(default_factory=latent.Config)
    planner: mppi.Config = field(
        default_factory=lambda: mppi.Config(
            samples=512,
            horizon=3,
            iterations=6,
            elites=64,
            sampling="gaussian",
            noise=(2.0,),  # of actions in [-1, 1]
            adapt_spread=True,
            min_spread=0.05,
            max_spread=2.0,
            explore="noise",
        )
    )
    temperature: float = 2.0  # of the planner, in units of its score
    proposals: int = 24  # P, plans that follow the policy
    plan: bool = True  # whether the planner acts, or else the policy alone
    sequential_vmap: bool = (
        False  # whether environments and seeds plan one after another: large
    )
    # plans of one stay in a processor's cache, those of all together do not
    discount: float = 0.0  # γ; 0: by the length of an episode, see `discount`
    horizon: int = 3  # H, steps of a sequence that is learned from
    horizon_decay: float = 0.5  # ρ, how much less each farther step of it counts
    entropy_coef: float = 1e-4  # β
    critic_subset: int = 2  # critics that are drawn at random where the smallest counts
    seed_steps: int = 1000  # environment steps, of all environments, with random actions
    updates_per_step: float = 1.0  # gradient steps for each environment step
    batch: int = 256  # sequences of each buffer in a gradient step
    capacity: int = 100_000  # steps of each environment that are kept
    recency_exponent: float = (
        1.0  # above 1 what is learned from favours the old, see data.replay
    )
    learning_rate: float = 3e-4  # Adam
    lr_half_life: int = 0  # gradient steps in which all rates halve; 0: they stay
    lr_hold: int = 0  # gradient steps before they begin to
    encoder_share: float = 0.3  # of the rate, for the encoder
    max_grad_norm: float = 20.0
    target_rate: float = 0.01  # τ
    ema_rate: float = 1.0  # share by which what acts moves to what was learned a round


@struct.dataclass
class InferenceParams:
    """The part that acts and is exported."""

    model: Params  # {"encoder", "step", "critics", …}
    policy: Params
    random: jax.Array  # [] bool: warming up


@struct.dataclass
class Sequences:
    """Consecutive steps of one buffer; actions in [-1, 1]."""

    obs: jax.Array  # [H + 1, B, O]; or pictures [H + 1, B, H, W, C]
    actions: jax.Array  # [H, B, U]
    terminal: jax.Array  # [H, B] bool; only last steps can be
    rewards: jax.Array | None = None  # [H, B] the task's, where it is what is learned from


class Components(NamedTuple):
    """What an agent of this family is made of."""

    model: models.Latent
    critics: latent.Ensemble
    policy: heads.Policy
    steps: int  # actions that the policy tells at once; 0: one
    frames: int  # pictures that are seen together; 0: observations are no pictures
    unit: Callable[[jax.Array], jax.Array]  # action [.., U] to [-1, 1]
    full: Callable[[jax.Array], jax.Array]  # and back
    discount: float
    model_fit: fit.Optimizer
    policy_fit: fit.Optimizer


# (params, z [Z], key) -> (actions [H, U] in [-1, 1]) -> []
Score = Callable[[InferenceParams, jax.Array, jax.Array], Callable[[jax.Array], jax.Array]]
# (params, z [Z], planned action [U], the policy's [U]) -> [] bool
Accept = Callable[[InferenceParams, jax.Array, jax.Array, jax.Array], jax.Array]


def make(spec: EnvSpec, config: Config, outputs: int = 1, steps: int = 0) -> Components:
    """The parts, with critics of so many outputs and a policy of so many steps.

    Raises:
      UsageError: the environment shows pictures of a task that can end for good.
    """
    if spec.image and spec.terminates:
        raise UsageError(
            f"{spec.name} can end early, and with pictures the last step of an episode is "
            "not held, so that nothing would learn of it: leave out its option pixels."
        )
    low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)
    adams = {"encoder": adam(config, config.encoder_share), "rest": adam(config)}

    def labels(params: Params) -> dict[str, str]:
        return {name: "encoder" if name == "encoder" else "rest" for name in params}

    clip = optax.clip_by_global_norm(config.max_grad_norm)
    return Components(
        model=models.make(spec, config.network),
        critics=latent.make_critics(config.network, spec.action_size, outputs),
        policy=latent.make_policy(config.network, spec.action_size, steps),
        steps=steps,
        frames=spec.frames,
        unit=lambda action: (2 * action - low - high) / (high - low),
        full=lambda unit: low + (high - low) * (unit + 1) / 2,
        discount=config.discount or discount(spec.episode_length),
        model_fit=fit.make(optax.chain(clip, optax.multi_transform(adams, labels))),
        policy_fit=fit.make(optax.chain(clip, adam(config))),
    )


def adam(config: Config, share: float = 1.0) -> optax.GradientTransformation:
    """Adam with a share of the rate, which halves as is told."""
    rate = share * config.learning_rate
    return optax.adam(fit.exponential_decay(rate, config.lr_half_life, config.lr_hold))


def discount(episode_length: int) -> float:
    """γ = (T/5 - 1) / (T/5) within 0.95 and 0.995: a fifth of an episode is foreseen."""
    fifth = max(episode_length / 5, 1.0)
    return min(max((fifth - 1) / fifth, 0.95), 0.995)


# --------------------------------------------------------------------------------- acting


def acting(
    spec: EnvSpec,
    config: Config,
    parts: Components,
    score: Score,
    accept_fn: Accept | None = None,
):
    """`carry` and `act` of an agent.

    Args:
      trusts: which planned actions are taken when it does not explore, the policy's own
        instead of all others; None: all are.

    Raises:
      UsageError: more plans are to follow the policy than there are.
    """
    if config.plan and config.proposals > config.planner.samples:
        raise UsageError(
            f"{config.proposals} plans are to follow the policy (proposals), but "
            f"planner.samples is {config.planner.samples}, them included: raise it, or "
            "lower them."
        )
    bounds = (-1.0,) * spec.action_size, (1.0,) * spec.action_size
    planner = mppi.make(config.planner, *bounds)

    def propose(params: InferenceParams, z: jax.Array, key: jax.Array) -> jax.Array:
        """A plan `[H, U]` that follows the policy."""
        if parts.steps:
            return parts.policy.sample(parts.policy.apply(params.policy, z), key)[0]
        actions = []
        for step_key in jax.random.split(key, config.planner.horizon):
            action = parts.policy.sample(parts.policy.apply(params.policy, z), step_key)[0]
            z = parts.model.step(params.model, z, action)
            actions.append(action)
        return jnp.stack(actions)

    def act_by_planner(
        params: InferenceParams, carry: Plan, z: jax.Array, key: jax.Array, explore: bool
    ):
        propose_key, score_key, plan_key = jax.random.split(key, 3)
        proposals = None
        if config.proposals:
            keys = jax.random.split(propose_key, config.proposals)
            proposals = jax.vmap(propose, (None, None, 0))(params, z, keys)
        score_fn = score(params, z, score_key)
        action, following = planner.plan(
            score_fn, carry, plan_key, config.temperature, explore, proposals
        )
        if accept_fn is not None and not explore:
            own, _ = act_by_policy(params, carry, z, key, explore)
            action = jnp.where(accept_fn(params, z, action, own), action, own)
        return action, following

    def act_by_policy(
        params: InferenceParams, carry, z: jax.Array, key: jax.Array, explore: bool
    ):
        chosen = parts.policy.apply(params.policy, z)
        if parts.steps:
            chosen = jax.tree.map(lambda leaf: leaf[0], chosen)
        sampled = parts.policy.sample(chosen, key)[0]
        return (sampled if explore else parts.policy.mode(chosen)), carry

    def act(params: InferenceParams, carry, state: EnvState, key: jax.Array, explore: bool):
        key, random_key = jax.random.split(key)
        z = parts.model.encode(params.model, state.obs)
        now = params, carry, z, key
        decide: Callable = act_by_planner if config.plan else act_by_policy
        decide = functools.partial(decide, explore=explore)
        action, carry = (
            sequential_vmap(decide, *now)(*now) if config.sequential_vmap else decide(*now)
        )
        if explore:
            random = jax.random.uniform(random_key, action.shape, minval=-1.0)
            action = jnp.where(params.random, random, action)
        return parts.full(action), carry

    return (planner.init if config.plan else tuple), act


def sequential_vmap(function: Callable, *args: Any) -> Callable:
    """The function of such arguments; under `vmap` it takes them one after another.

    `sequential_vmap` alone refuses a function that closes over something traced, as one of
    an agent that is made inside a compiled program does; here that is an argument too.
    """
    traced, out = jax.make_jaxpr(function, return_shape=True)(*args)

    @jax.custom_batching.sequential_vmap
    def one(held: list[jax.Array], *args: Any):
        closed = jax.extend.core.ClosedJaxpr(traced.jaxpr, held)
        leaves = jax.extend.core.jaxpr_as_fun(closed)(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(out), leaves)

    return functools.partial(one, traced.consts)


# ------------------------------------------------------------------------------- learning


def empty_replay(
    spec: EnvSpec, config: Config, num_envs: int, rewards: bool = False
) -> replay.Replay:
    """A replay without steps, which holds the task's rewards only if asked to."""
    no = jnp.zeros((), bool)
    step = {
        "action": jnp.zeros((spec.action_size,), jnp.float32),
        "terminal": no,
        "truncated": no,
    }
    if spec.image:
        step |= {"obs": jnp.zeros(spec.frame, jnp.uint8)}  # the newest frame
    else:
        obs = jnp.zeros((spec.observation_size,), jnp.float32)
        step |= {"obs": obs, "next_obs": obs}
    if rewards:
        step["reward"] = jnp.zeros((), jnp.float32)
    return replay.init(step, config.capacity, num_envs)


def insert(held: replay.Replay, parts: Components, rollout: Transition) -> replay.Replay:
    """The replay with a rollout `[T, E]`."""
    scaled = dataclasses.replace(rollout, action=parts.unit(rollout.action))
    if parts.frames:
        scaled = dataclasses.replace(scaled, obs=rollout.obs[..., -3:])
    return replay.insert(held, {name: getattr(scaled, name) for name in held.steps})


def valid_starts(
    held: replay.Replay, parts: Components, config: Config, past_ends: bool = False
) -> jax.Array:
    """Where sequences start, for `sample_replay`; once a round.

    Args:
      past_ends: whether they go on where an episode ended for good, see `absorbing_from_terminal`.
    """
    # Of pictures, the step after a sequence holds what its last one led to.
    length = config.horizon + (1 if parts.frames else 0)
    ended = held.steps["truncated"] if past_ends else _ended(held)
    return replay.sequence_starts(held, ended, length)


def sample_replay(
    held: replay.Replay,
    places: jax.Array,
    parts: Components,
    config: Config,
    key: jax.Array,
) -> Sequences:
    """Sequences of the learner's own."""
    if parts.frames:
        age, column = replay.draw_starts(
            held, places, key, config.batch, config.recency_exponent
        )
        ages = age + jnp.arange(config.horizon + 1)[:, None]  # [H + 1, B]
        steps = replay.at(held, ages[:-1], column)
        obs = replay.stack_frames(
            held, held.steps["obs"], _ended(held), ages, column, parts.frames
        )
        obs = _shifted(obs, jax.random.fold_in(key, 1))
    else:
        steps = replay.sample_sequences(
            held, places, key, config.batch, config.horizon, config.recency_exponent
        )
        obs = jnp.concatenate([steps["obs"][:1], steps["next_obs"]])
    return Sequences(
        obs=obs,
        actions=steps["action"],
        terminal=steps["terminal"],
        rewards=steps.get("reward"),
    )


def absorbing_from_terminal(own: Sequences) -> Sequences:
    """The sequences, of which all steps from an end for good on are terminal.

    What follows an end in the replay is another episode. Of that the actions are kept, as
    anything may be done there; what was seen in it is not to be looked at.

    Drawn past ends, a last step is learned from as often as another. Were sequences to end
    there, it would be in one of them, and a step before in H.
    """
    over = jnp.cumsum(own.terminal, axis=0) > 0  # [H, B]
    return dataclasses.replace(own, terminal=over)


def sample_demos(
    demos: Demonstrations, parts: Components, config: Config, key: jax.Array
) -> Sequences:
    """Sequences of the demonstrator, with its actions."""
    obs, actions, terminal = demonstrations.sample_sequences(
        demos, key, config.batch, config.horizon, max(parts.frames, 1)
    )
    assert actions is not None  # an agent says that it needs them
    if parts.frames:
        obs = _shifted(obs, jax.random.fold_in(key, 1))
    return Sequences(obs, parts.unit(actions), terminal)


def expert_pairs(
    demos: Demonstrations, parts: Components, config: Config, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What the demonstrator saw before and after a step, `[2, B, O]`, and `[B]` bool:
    whether its episode ended there for good."""
    frames = max(parts.frames, 1)
    obs, _, next_obs, terminal = demonstrations.sample(demos, key, config.batch, frames)
    pairs = jnp.stack([obs, next_obs])
    if parts.frames:
        pairs = _shifted(pairs, jax.random.fold_in(key, 1))
    return pairs, terminal


def _ended(held: replay.Replay) -> jax.Array:
    return held.steps["terminal"] | held.steps["truncated"]


def _shifted(pictures: jax.Array, key: jax.Array) -> jax.Array:
    """Each of the pictures `[T, B, H, W, C]` moved by its own few pixels."""
    keys = jax.random.split(key, pictures.shape[:2])
    return jax.vmap(jax.vmap(conv.random_shift))(keys, pictures)


def joined(*buffers: Sequences) -> Sequences:
    """All side by side, along B."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *buffers)


def warming(config: Config, round_: jax.Array, rollout: Transition):
    """Whether the next round still warms up, and how many gradient steps this one takes."""
    a_round = rollout.reward.shape[0] * rollout.reward.shape[1]
    rounds = -(-config.seed_steps // a_round)  # of warm-up
    steps = int(config.updates_per_step * a_round)
    done = round_ + 1
    count = jnp.where(done > rounds, steps, jnp.where(done == rounds, rounds * steps, 0))
    return done < rounds, count


def ema_params(
    config: Config,
    before: InferenceParams,
    model: Params,
    policy: Params,
    warming: jax.Array,
) -> InferenceParams:
    """What acts in the next round; averaging begins when something was learned."""
    learned = InferenceParams(model, policy, warming)
    if config.ema_rate == 1.0:
        return learned
    rate = jnp.where(before.random, 1.0, config.ema_rate)
    model, policy = (
        fit.polyak(old, new, rate)
        for old, new in ((before.model, model), (before.policy, policy))
    )
    return InferenceParams(model, policy, warming)


def fori_mean(
    improve: Callable[[Any, jax.Array], tuple[Any, Metrics]],
    state: Any,
    key: jax.Array,
    count: jax.Array,
) -> tuple[Any, Metrics]:
    """`improve(state, key)` so many times `[]`, in one loop; metrics are means over it."""
    told = jax.eval_shape(improve, state, key)[1]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), told)

    def one(_, running):
        state, sums, key = running
        step_key, key = jax.random.split(key)
        state, metrics = improve(state, step_key)
        return state, jax.tree.map(jnp.add, sums, metrics), key

    state, sums, _ = jax.lax.fori_loop(0, count, one, (state, zeros, key))
    return state, jax.tree.map(lambda total: total / jnp.maximum(count, 1), sums)


def fit_policy(
    parts: Components,
    config: Config,
    fitted: Fit,
    value: Callable[[jax.Array, jax.Array], jax.Array],
    zs: jax.Array,
    key: jax.Array,
) -> tuple[Fit, Metrics]:
    """A gradient step of the policy on latent states `[H + 1, B, Z]`.

        min_π  Σ_t ρ^t E[β log π(ã|z_t) - Q(z_t, ã)] / (H + 1),   ã ~ π(·|z_t)

    Args:
      value: Q, of latent states `[H + 1, B, Z]` and actions `[H + 1, B, U]`.
    """
    zs = jax.lax.stop_gradient(zs)

    def loss_fn(params: Params):
        actions, log_probs = parts.policy.sample(parts.policy.apply(params, zs), key)
        losses = config.entropy_coef * log_probs - value(zs, actions)  # [H + 1, B]
        loss = world_model.over_horizon(jnp.mean(losses, axis=1), config.horizon_decay)
        return loss, {"policy/loss": loss, "policy/entropy": -jnp.mean(log_probs)}

    gradients, metrics = jax.grad(loss_fn, has_aux=True)(fitted.params)
    return parts.policy_fit.step(fitted, gradients), metrics
