"""Acting in a learned latent space, and the off-policy schedule: TD-MPC2's, shared.

To act, from an observation s:

    1. z = h(s), the encoder's latent state;
    2. P proposals follow the policy π from z through the latent model;
    3. MPPI refines sampled plans, the proposals among them, by the agent's score of a plan.

With `planning.enabled=False` the policy acts by itself. Actions are in [-1, 1] inside.

To learn, in a round: its steps enter the replay, and `updates_per_step` gradient steps are
taken per environment step. The first `seed_steps` environment steps have uniformly random
actions; their gradient steps come all at once after them.

Source: Hansen, Su & Wang 2024, TD-MPC2, arXiv 2310.16828, section 3 (planning) and its code
(the schedule).
Departures: a round of environment steps alternates with a round of gradient steps, where
their code alternates single steps; without exploration the mean of the plans acts, where
theirs samples a plan; the policy's standard deviation stays above 0.1
(`network.std_low`), where theirs can fall to e^-10, because log π of a planned action has
no bound under a narrower policy.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.agents.common import actions, sequences
from planil_jax.base import (
    EnvSpec,
    EnvState,
    Metrics,
    Params,
    Plan,
    Planner,
    Transition,
    UsageError,
)
from planil_jax.config import Count, Natural, NonNegative, Positive
from planil_jax.data import replay
from planil_jax.models import latent as models
from planil_jax.nets import fit, heads
from planil_jax.planners import mppi

# (params, z [Z], key) -> (actions [H, U] in [-1, 1]) -> [], higher is better
Score = Callable[["InferenceParams", jax.Array, jax.Array], Callable[[jax.Array], Any]]
# (params, z [Z], planned action [U], the policy's action [U]) -> [] bool
Accept = Callable[["InferenceParams", jax.Array, jax.Array, jax.Array], jax.Array]


@dataclass(frozen=True, kw_only=True)
class Planning:
    """Whether and how plans act."""

    enabled: bool = True  # whether the planner acts; without it the policy acts alone
    # temperature of the planner's softmax, in units of a plan's score
    temperature: Positive = 2.0
    proposals: Natural = 24  # P, plans of the policy that compete with sampled plans
    # plan environments and seeds one after another: faster for large networks on a CPU,
    # where the plans of one then stay in the cache
    sequential_vmap: bool = False


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Adam, for every part that learns."""

    learning_rate: Positive = 3e-4  # learning rate of Adam
    encoder_lr_scale: NonNegative = 0.3  # the encoder's learning rate, as a share of it
    lr_half_life: Count | None = None  # gradient steps in which all learning rates halve
    lr_hold: Natural = 0  # gradient steps before they start to halve
    max_grad_norm: Positive = 20.0  # gradients are clipped to this global norm


def default_planner(horizon: int = 3, iterations: int = 6) -> mppi.Config:
    """MPPI as TD-MPC2 sets it, for actions in [-1, 1]."""
    return mppi.Config(
        samples=512,
        horizon=horizon,
        iterations=iterations,
        elites=64,
        sampling="gaussian",
        noise=(2.0,),
        adapt_std=True,
        min_std=0.05,
        max_std=2.0,
        explore="noise",
    )


def default_discount(episode_length: int) -> float:
    """γ = (T/5 - 1) / (T/5) within [0.95, 0.995]: it looks a fifth of an episode ahead.

    Hansen, Su & Wang 2024, arXiv 2310.16828, in their code.
    """
    fifth = max(episode_length / 5, 1.0)
    return min(max((fifth - 1) / fifth, 0.95), 0.995)


def adam(config: Optimizer, scale: float = 1.0) -> optax.GradientTransformation:
    """Adam with `scale` times the learning rate, which may halve over time."""
    rate = scale * config.learning_rate
    return optax.adam(fit.exponential_decay(rate, config.lr_half_life or 0, config.lr_hold))


def clipped_adam(config: Optimizer, max_grad_norm: float | None = None) -> fit.Optimizer:
    """Adam after clipping gradients to a global norm; None: `config.max_grad_norm`."""
    clip = optax.clip_by_global_norm(max_grad_norm or config.max_grad_norm)
    return fit.make(optax.chain(clip, adam(config)))


def model_optimizer(config: Optimizer) -> fit.Optimizer:
    """As `clipped_adam`, for {"encoder", …}: the encoder has its own learning rate."""
    adams = {"encoder": adam(config, config.encoder_lr_scale), "rest": adam(config)}

    def labels(params: Params) -> dict[str, str]:
        return {name: "encoder" if name == "encoder" else "rest" for name in params}

    clip = optax.clip_by_global_norm(config.max_grad_norm)
    return fit.make(optax.chain(clip, optax.multi_transform(adams, labels)))


# --------------------------------------------------------------------------------- acting


@struct.dataclass
class InferenceParams:
    """The part of a state that acts and is exported."""

    model: Params  # {"encoder", "step", "critics", …}
    policy: Params
    random: jax.Array  # [] bool: exploring actions are uniformly random (seed steps)


class Actor(NamedTuple):
    """What acting takes."""

    planning: Planning
    planner: Planner
    horizon: int  # H, steps of a plan
    model: models.Latent
    policy: heads.Policy
    scaling: actions.Scaling
    score: Score
    accept_fn: Accept | None = None  # whether a planned action is taken; None: always
    multi_step: bool = False  # the policy gives H actions at once, `[H, U]`, or else one


def make_planner(spec: EnvSpec, config: mppi.Config, planning: Planning) -> Planner:
    """MPPI over actions in [-1, 1].

    Raises:
      UsageError: there are more proposals than plans.
    """
    if planning.enabled and planning.proposals > config.samples:
        raise UsageError(
            f"planning.proposals is {planning.proposals}, but planner.samples, which "
            f"includes them, is {config.samples}: raise it, or lower planning.proposals."
        )
    return mppi.make(config, (-1.0,) * spec.action_size, (1.0,) * spec.action_size)


def initial_carry(actor: Actor) -> Plan | tuple[()]:
    """What an episode starts with: an empty plan, or nothing where the policy acts."""
    return actor.planner.init() if actor.planning.enabled else ()


def act(
    actor: Actor,
    params: InferenceParams,
    carry: Any,
    state: EnvState,
    key: jax.Array,
    explore: bool,
) -> tuple[jax.Array, Any]:
    """`Agent.act`: the action `[U]` in the environment's units, and the next carry."""
    key, random_key = jax.random.split(key)
    z = actor.model.encode(params.model, state.obs)
    by = act_by_planner if actor.planning.enabled else act_by_policy
    decide: Callable = functools.partial(by, actor, explore=explore)
    args = params, carry, z, key
    if actor.planning.sequential_vmap:
        decide = sequential_vmap(decide, *args)
    action, carry = decide(*args)
    if explore:
        random = jax.random.uniform(random_key, action.shape, minval=-1.0)
        action = jnp.where(params.random, random, action)
    return actor.scaling.from_unit_interval(action), carry


def act_by_planner(
    actor: Actor,
    params: InferenceParams,
    carry: Plan,
    z: jax.Array,
    key: jax.Array,
    explore: bool,
) -> tuple[jax.Array, Plan]:
    """The planner's action `[U]` in [-1, 1] and its next plan.

    Without exploration, an action that `accept_fn` rejects gives way to the policy's.
    """
    propose_key, score_key, plan_key = jax.random.split(key, 3)
    planning, proposals = actor.planning, None
    if planning.proposals:
        keys = jax.random.split(propose_key, planning.proposals)
        proposals = jax.vmap(propose, (None, None, None, 0))(actor, params, z, keys)
    score_fn = actor.score(params, z, score_key)
    action, next_plan = actor.planner.plan(
        score_fn, carry, plan_key, planning.temperature, explore, proposals
    )
    if actor.accept_fn is not None and not explore:
        fallback, _ = act_by_policy(actor, params, carry, z, key, explore)
        accepted = actor.accept_fn(params, z, action, fallback)
        action = jnp.where(accepted, action, fallback)
    return action, next_plan


def act_by_policy(
    actor: Actor,
    params: InferenceParams,
    carry: Any,
    z: jax.Array,
    key: jax.Array,
    explore: bool,
) -> tuple[jax.Array, Any]:
    """The policy's action `[U]` in [-1, 1], and the carry as it was."""
    distribution = actor.policy.apply(params.policy, z)
    if actor.multi_step:
        distribution = jax.tree.map(lambda leaf: leaf[0], distribution)
    return actions.from_distribution(actor.policy, distribution, key, explore), carry


def propose(
    actor: Actor, params: InferenceParams, z: jax.Array, key: jax.Array
) -> jax.Array:
    """A plan `[H, U]` that follows the policy from z `[Z]`."""
    policy = actor.policy
    if actor.multi_step:
        return policy.sample(policy.apply(params.policy, z), key)[0]
    plan = []
    for step_key in jax.random.split(key, actor.horizon):
        action = policy.sample(policy.apply(params.policy, z), step_key)[0]
        z = actor.model.step(params.model, z, action)
        plan.append(action)
    return jnp.stack(plan)


def sequential_vmap(function: Callable, *args: Any) -> Callable:
    """The function of such arguments, which under `vmap` runs one after another.

    `jax.custom_batching.sequential_vmap` by itself refuses a function that closes over a
    traced array, as an agent made inside a compiled program does. Here such arrays are
    made arguments.
    """
    traced, out = jax.make_jaxpr(function, return_shape=True)(*args)

    @jax.custom_batching.sequential_vmap
    def call(consts: list[jax.Array], *args: Any):
        closed = jax.extend.core.ClosedJaxpr(traced.jaxpr, consts)
        leaves = jax.extend.core.jaxpr_as_fun(closed)(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(out), leaves)

    return functools.partial(call, traced.consts)


# ------------------------------------------------------------------------------- learning


class Replayed(NamedTuple):
    """The learner's steps so far, and where sequences may start."""

    buffer: replay.Replay
    starts: jax.Array  # as `sequences.valid_starts` has them


class Schedule(NamedTuple):
    """When an agent learns from its replay, and how much."""

    sampler: sequences.Sampler
    seed_steps: int  # first environment steps, of all environments, at random
    updates_per_step: float  # gradient steps for each environment step
    ema_rate: float  # share by which the acting parameters move to the learned ones
    past_terminal: bool = False  # whether sequences go on after a terminal step


def update(
    schedule: Schedule,
    improve: Callable[[Any, Replayed, jax.Array], tuple[Any, Metrics]],
    acting: Callable[[Any], tuple[Params, Params]],
    state: Any,
    rollout: Transition,
    key: jax.Array,
    round_: jax.Array,
) -> tuple[Any, Metrics]:
    """A round: its steps enter the replay, then its gradient steps are taken.

    Args:
      improve: one gradient step: `(state, replayed, key) -> (state, metrics)`.
      acting: the learned parameters that act: `(state) -> (model, policy)`.
      state: the agent's, with `params` and `replay`. `improve` sees it without the replay,
        which would otherwise be copied in every gradient step.
      rollout: the round's steps `[T, E]`.

    Returns:
      The next state, and the metrics' means over the gradient steps.
    """
    buffer = sequences.insert(schedule.sampler, state.replay, rollout)
    starts = sequences.valid_starts(schedule.sampler, buffer, schedule.past_terminal)
    random, count = gradient_steps(schedule, round_, rollout)

    def step(state: Any, key: jax.Array) -> tuple[Any, Metrics]:
        return improve(state, Replayed(buffer, starts), key)

    without_replay = dataclasses.replace(state, replay=None)
    after, metrics = fori_mean(step, without_replay, key, count)
    learned = InferenceParams(*acting(after), random=random)
    params = ema_params(schedule.ema_rate, state.params, learned)
    return dataclasses.replace(after, params=params, replay=buffer), metrics


def gradient_steps(
    schedule: Schedule, round_: jax.Array, rollout: Transition
) -> tuple[jax.Array, jax.Array]:
    """Whether the next round still has random actions `[]` bool, and how many gradient
    steps this one takes `[]` int32.

    None during the seed steps; all of theirs in the round that completes them; then
    `updates_per_step` times the steps of the rollout `[T, E]`, every round.
    """
    steps = rollout.reward.shape[0] * rollout.reward.shape[1]
    seed_rounds = -(-schedule.seed_steps // steps)
    usual = int(schedule.updates_per_step * steps)
    rounds = round_ + 1  # that are completed
    of_seed_steps = jnp.where(rounds == seed_rounds, seed_rounds * usual, 0)
    count = jnp.where(rounds > seed_rounds, usual, of_seed_steps)
    return rounds < seed_rounds, count


def fori_mean(
    improve: Callable[[Any, jax.Array], tuple[Any, Metrics]],
    state: Any,
    key: jax.Array,
    count: jax.Array,
) -> tuple[Any, Metrics]:
    """`improve(state, key)` repeated `count` `[]` times in one loop; metrics averaged."""
    shapes = jax.eval_shape(improve, state, key)[1]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def body(_, running):
        state, sums, key = running
        step_key, key = jax.random.split(key)
        state, metrics = improve(state, step_key)
        return state, jax.tree.map(jnp.add, sums, metrics), key

    state, sums, _ = jax.lax.fori_loop(0, count, body, (state, zeros, key))
    return state, jax.tree.map(lambda total: total / jnp.maximum(count, 1), sums)


def ema_params(
    ema_rate: float, before: InferenceParams, learned: InferenceParams
) -> InferenceParams:
    """What acts in the next round: `before` moved to `learned` by a share of `ema_rate`.

    During the seed steps it is moved all the way: averaging starts with learning.
    """
    if ema_rate == 1.0:
        return learned
    rate = jnp.where(before.random, 1.0, ema_rate)
    return InferenceParams(
        model=fit.polyak(before.model, learned.model, rate),
        policy=fit.polyak(before.policy, learned.policy, rate),
        random=learned.random,
    )
