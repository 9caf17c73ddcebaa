"""Behavioural cloning: the demonstrator's actions, by regression; no environment needed.

In a round, in each of `gradient_steps` steps, on a batch of the demonstrations:

    loss="mse":         min_π  E_expert ‖mode π(·|s) - a‖²,  in units of half the bounds
    loss="likelihood":  min_π  -E_expert[log π(a|s)]

Where actions are choices, the loss is the likelihood, which is then the cross-entropy.
Observations are normalised by the demonstrations' mean and deviation. Pictures go through
convolutions, and those that are learned from are shifted at random by a few pixels. It acts
by the mode, or by a sample where it explores. What the loop collects is ignored.

With `holdout`, a share of the episodes is held out, others for every seed. After each round
the loss of all their steps is taken, and the parameters that act are those of the round
where it was lowest so far. Learning goes on to the end.

Source: Pomerleau 1991, Efficient Training of Artificial Neural Networks for Autonomous
Navigation; as the baseline of Ho & Ermon 2016, arXiv 1606.03476, section 6. Holding out:
Prechelt 1998, Early Stopping - But When?, section 2.1, without its stop.
Departures: `weight_decay`; `policy.std_low`, a floor of the deviation of actions, which
noiseless experts would otherwise drive to zero.
"""

import functools
import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.agents.common import actions, learning
from planil_jax.base import (
    Agent,
    Demonstrations,
    EnvSpec,
    EnvState,
    Fit,
    Metrics,
    Needs,
    Params,
    Task,
    UsageError,
)
from planil_jax.config import Count, NonNegative, Positive, Share
from planil_jax.data import demos as demonstrations
from planil_jax.losses import policy as losses
from planil_jax.nets import conv, fit, heads, mlp, normalise


@dataclass(frozen=True, kw_only=True)
class Config:
    policy: heads.Config = field(  # network of the policy π
        default_factory=lambda: heads.Config(network=mlp.Config(hidden=(256, 256)))
    )
    encoder_conv: conv.Config = field(default_factory=conv.Config)  # of pictures
    # loss of the cloned actions: "mse", their squared error; "likelihood", -log π(a|s)
    loss: Literal["mse", "likelihood"] = "mse"
    gradient_steps: Count = 100  # gradient steps a round
    batch: Count = 128  # steps of the demonstrations in a gradient step
    learning_rate: Positive = 1e-3  # learning rate of AdamW
    weight_decay: NonNegative = 1e-4  # weight decay of AdamW, before the learning rate
    # Share of the episodes that is held out, above 0 and below 1, at least one and not all;
    # what acts is what erred least on them after a round. None: all episodes train.
    holdout: Share | None = None

    def check(self) -> None:
        if self.holdout in (0, 1):
            raise UsageError(
                f"holdout must be above 0 and below 1, or None, not {self.holdout}."
            )


def NEEDS(config: Config) -> Needs:  # noqa: N802
    return Needs(
        actions=True,
        interacts=False,
        pixels=True,
        discrete=True,
        episodes=1 if config.holdout is None else 2,
    )


@struct.dataclass
class InferenceParams:
    """The part that acts and is exported."""

    policy: Params
    moments: normalise.Moments  # [O'] of the demonstrations


@struct.dataclass
class Holdout:
    """Which episodes are held out, and the lowest loss on them so far."""

    key: jax.Array  # chooses the episodes
    loss: jax.Array  # [] the lowest
    gradient_steps: jax.Array  # [] int32, after which it was the lowest


@struct.dataclass
class State:
    params: InferenceParams
    policy: Fit
    holdout: Holdout | None  # None: all episodes train


@struct.dataclass
class Batch:
    """Steps of the demonstrator."""

    obs: jax.Array  # [B, O'] as the policy reads them, or pictures [B, H, W, C]
    action: jax.Array  # [B, U] in the environment's units


class Components(NamedTuple):
    """What cloning is made of."""

    config: Config
    task: Task
    policy: heads.Policy
    optimizer: fit.Optimizer


def make(task: Task, config: Config) -> Agent:
    """Cloning in an environment of this task.

    Args:
      task: the policy reads no observation entries but `task.observed`.

    Raises:
      UsageError: there is no such loss.
    """
    components = build(task, config)
    return Agent(
        init=functools.partial(init, components),
        carry=lambda: (),
        act=functools.partial(act, components),
        update=functools.partial(update, components),
    )


def build(task: Task, config: Config) -> Components:
    """The policy and its optimiser; raises as `make` does."""
    if config.loss not in ("mse", "likelihood"):
        raise UsageError(f"agent.loss is 'mse' or 'likelihood', not {config.loss!r}.")
    image = task.spec.image
    size = conv.features(config.encoder_conv, image) if image else len(task.observed)
    policy = heads.make_for(task.spec, config.policy, (size,))
    if image:
        network = conv.chain(config.encoder_conv, image, policy)
        policy = policy._replace(init=network.init, apply=network.apply)
    adamw = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
    return Components(config, task, policy, fit.make(adamw))


def init(components: Components, key: jax.Array) -> State:
    policy = components.optimizer.init(components.policy.init(key))
    moments = normalise.init(len(components.task.observed))
    holdout = None
    if components.config.holdout is not None:
        worst = jnp.full((), jnp.inf, jnp.float32)
        holdout = Holdout(jax.random.fold_in(key, 1), worst, jnp.zeros((), jnp.int32))
    return State(InferenceParams(policy.params, moments), policy, holdout)


def read(components: Components, moments: normalise.Moments, obs: jax.Array) -> jax.Array:
    """Observations `[..., O]` as the policy reads them, `[..., O']`; pictures stay."""
    if components.task.spec.image:
        return obs
    return normalise.apply(moments, obs[..., jnp.asarray(components.task.observed)])


def act(
    components: Components,
    params: InferenceParams,
    carry,
    state: EnvState,
    key: jax.Array,
    explore: bool,
):
    """The policy's mode, or a sample of it where it explores."""
    obs = read(components, params.moments, state.obs)
    chosen = components.policy.apply(params.policy, obs)
    action = actions.from_distribution(components.policy, chosen, key, explore)
    return action, carry


# ------------------------------------------------------------------------------- learning


def update(
    components: Components,
    state: State,
    rollout,
    demos: Demonstrations,
    key: jax.Array,
    round_: jax.Array,
) -> tuple[State, Metrics]:
    """Gradient steps on the demonstrations that are not held out."""
    del rollout
    task, config, moments = components.task, components.config, state.params.moments
    held_out = None
    if config.holdout is not None and state.holdout is not None:
        demos, held_out = split(demos, config.holdout, state.holdout.key)
    if not task.spec.image:
        moments = demo_moments(demos, task.observed)
    loss_fn = functools.partial(loss, components)

    def one_step(policy: Fit, key: jax.Array):
        batch = sample(components, moments, demos, key)
        return learning.gradient_step(components.optimizer, policy, loss_fn, batch)

    keys = jax.random.split(key, config.gradient_steps)
    policy, metrics = learning.scan_mean(one_step, state.policy, keys)
    acting, holdout = policy.params, state.holdout
    if holdout is not None and held_out is not None:
        found = holdout_loss(components, policy.params, moments, held_out)
        gradient_steps = (round_ + 1) * config.gradient_steps
        newest = Holdout(holdout.key, found, gradient_steps), policy.params
        holdout, acting = _where(
            found < holdout.loss, newest, (holdout, state.params.policy)
        )
        metrics |= {
            "policy/holdout_loss": found,
            "policy/best_gradient_step": holdout.gradient_steps.astype(jnp.float32),
        }
    return State(InferenceParams(acting, moments), policy, holdout), metrics


def split(
    demos: Demonstrations, share: float, key: jax.Array
) -> tuple[Demonstrations, Demonstrations]:
    """The episodes that train, and those that are held out: this share, drawn at random.

    At least one is on each side.
    """
    count = demos.length.shape[0]
    assert count > 1  # NEEDS says so
    held = min(max(round(share * count), 1), count - 1)
    order = jax.random.permutation(key, count)

    def chosen(episodes: jax.Array) -> Demonstrations:
        return jax.tree.map(lambda leaf: leaf[episodes], demos)

    return chosen(order[held:]), chosen(order[:held])


def holdout_loss(
    components: Components,
    params: Params,
    moments: normalise.Moments,
    demos: Demonstrations,
) -> jax.Array:
    """The mean loss `[]` of all steps of these episodes; pictures are not shifted.

    One episode after another, so that the pictures of all are never in memory at once.
    """
    frames = max(components.task.spec.frames, 1)
    actions = demos.actions
    assert actions is not None  # NEEDS says so
    steps = jnp.arange(actions.shape[1])  # [L]

    def of_step(episode: jax.Array, step: jax.Array) -> jax.Array:
        obs = demonstrations.observations_at(demos, episode, step, frames)
        batch = Batch(read(components, moments, obs)[None], actions[episode, step][None])
        return loss(components, params, batch)[0]

    def of_episode(episode: jax.Array) -> jax.Array:
        losses = jax.vmap(of_step, (None, 0))(episode, steps)  # [L]
        return jnp.sum(jnp.where(steps < demos.length[episode], losses, 0.0))

    sums = jax.lax.map(of_episode, jnp.arange(demos.length.shape[0]))
    return jnp.sum(sums) / jnp.sum(demos.length)


def demo_moments(demos: Demonstrations, observed: tuple[int, ...]) -> normalise.Moments:
    """Of the observations that the demonstrator acted on, of these entries `[O']`."""
    obs, _, valid = demonstrations.transitions(demos)
    obs = obs[:, jnp.asarray(observed)]
    weights = valid[:, None] / jnp.sum(valid)
    mean = jnp.sum(weights * obs, axis=0)
    variance = jnp.sum(weights * (obs - mean) ** 2, axis=0)
    return normalise.Moments(jnp.sum(valid, dtype=jnp.float32), mean, variance)


def sample(
    components: Components,
    moments: normalise.Moments,
    demos: Demonstrations,
    key: jax.Array,
) -> Batch:
    """Steps `[B]` of the demonstrations, drawn uniformly, their pictures shifted."""
    spec, size = components.task.spec, components.config.batch
    obs, action, _, _ = demonstrations.sample(demos, key, size, max(spec.frames, 1))
    assert action is not None  # NEEDS says so
    if spec.image:
        keys = jax.random.split(jax.random.fold_in(key, 1), size)
        obs = jax.vmap(conv.random_shift)(keys, obs)
    return Batch(read(components, moments, obs), action)


def loss(components: Components, params: Params, batch: Batch) -> tuple[jax.Array, Metrics]:
    """The loss that the configuration names, `[]`; both are reported."""
    policy, spec = components.policy, components.task.spec
    scale = error_scale(spec)
    chosen = policy.apply(params, batch.obs)
    error = losses.cloning_error(policy.mode(chosen) / scale, batch.action / scale)
    likelihood = losses.cloning_likelihood(policy.log_prob(chosen, batch.action))
    by_error = components.config.loss == "mse" and not spec.discrete
    metrics = {"policy/error": error, "policy/likelihood": likelihood}
    return (error if by_error else likelihood), metrics


def error_scale(spec: EnvSpec) -> jax.Array:
    """What an error is measured in, `[U]` or `[]`: half the bounds; a wrong choice is 1."""
    if spec.discrete:
        return jnp.asarray(math.sqrt(2.0), jnp.float32)
    return (jnp.asarray(spec.action_high) - jnp.asarray(spec.action_low)) / 2


def _where(condition: jax.Array, yes, no):
    """The leaves of `yes` where the condition `[]` holds, else those of `no`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
