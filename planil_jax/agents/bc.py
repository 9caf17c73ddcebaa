"""Behavioural cloning: the demonstrator's actions, by regression; no environment needed.

    mean squared error:  min_π  E_expert ‖mode π(·|s) - a‖²,  in units of half the bounds
    likelihood:          min_π  -E_expert[log π(a|s)]

Where actions are choices, likelihood is the cross-entropy, and the only loss.

Observations are normalised by the demonstrations' mean and deviation; pictures go through
convolutions, and are moved by a few pixels where they are learned from. What the loop
collects is not looked at.

Source: Pomerleau 1991; as the baseline of Ho & Ermon 2016, arXiv 1606.03476.
Departures: the deviation of actions has a floor, else noiseless experts drive it to zero.
"""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import optax
from flax import struct

from planil_jax.base import (
    Agent,
    Demonstrations,
    EnvState,
    Fit,
    Metrics,
    Needs,
    Params,
    Task,
    UsageError,
)
from planil_jax.data import demos as demonstrations
from planil_jax.losses import policy as losses
from planil_jax.nets import conv, fit, heads, mlp, normalise


@dataclass(frozen=True, kw_only=True)
class Config:
    policy: heads.Config = field(
        default_factory=lambda: heads.Config(network=mlp.Config(hidden=(256, 256)))
    )
    encoder_conv: conv.Config = field(default_factory=conv.Config)  # before it, of pictures
    loss: str = "mse"  # or "likelihood"; of choices always that
    steps: int = 100  # gradient steps a round
    batch: int = 128
    learning_rate: float = 1e-3  # AdamW
    weight_decay: float = 1e-4


NEEDS = Needs(actions=True, interacts=False, pixels=True, discrete=True)


@struct.dataclass
class InferenceParams:
    """The part that acts and is exported."""

    policy: Params
    moments: normalise.Moments  # of the demonstrations


@struct.dataclass
class State:
    params: InferenceParams
    policy: Fit


def make(task: Task, config: Config) -> Agent:
    """Cloning in an environment of this spec.

    Args:
      entries: indices of the observation entries that the demonstrations hold; the policy
        sees no others.

    Raises:
      UsageError: there is no such loss.
    """
    spec, observed = task.spec, task.observed
    if config.loss not in ("mse", "likelihood"):
        raise UsageError(f"agent.loss is 'mse' or 'likelihood', not {config.loss!r}.")
    size = conv.features(config.encoder_conv, spec.image) if spec.image else len(observed)
    policy = heads.make_for(spec, config.policy, (size,))
    if spec.image:
        network = conv.chain(config.encoder_conv, spec.image, policy)
        policy = policy._replace(init=network.init, apply=network.apply)
    fitter = fit.make(optax.adamw(config.learning_rate, weight_decay=config.weight_decay))
    seen = jnp.asarray(observed)
    half = (jnp.asarray(spec.action_high) - jnp.asarray(spec.action_low)) / 2
    unit = math.sqrt(2.0) if spec.discrete else half  # a wrong choice is an error of 1
    by_error = config.loss == "mse" and not spec.discrete

    def look(moments: normalise.Moments, obs: jax.Array) -> jax.Array:
        return obs if spec.image else normalise.apply(moments, obs[..., seen])

    def act(params: InferenceParams, carry, state: EnvState, key: jax.Array, explore: bool):
        chosen = policy.apply(params.policy, look(params.moments, state.obs))
        return (policy.sample(chosen, key)[0] if explore else policy.mode(chosen)), carry

    def init(key: jax.Array) -> State:
        fitted = fitter.init(policy.init(key))
        return State(InferenceParams(fitted.params, normalise.init(len(observed))), fitted)

    def update(
        state: State, rollout, demos: Demonstrations, key: jax.Array, round_
    ) -> tuple[State, Metrics]:
        del rollout, round_
        moments = state.params.moments if spec.image else moments_of(demos)

        def step(fitted: Fit, key: jax.Array):
            obs, actions, _, _ = demonstrations.sample(
                demos, key, config.batch, max(spec.frames, 1)
            )
            assert actions is not None  # needs_actions
            if spec.image:
                keys = jax.random.split(jax.random.fold_in(key, 1), config.batch)
                obs = jax.vmap(conv.random_shift)(keys, obs)

            def loss_fn(params: Params):
                chosen = policy.apply(params, look(moments, obs))
                error = losses.cloning_error(policy.mode(chosen) / unit, actions / unit)
                log_probs = policy.log_prob(chosen, actions)
                likelihood = losses.cloning_likelihood(log_probs)
                loss = error if by_error else likelihood
                return loss, {"policy/error": error, "policy/likelihood": likelihood}

            gradients, metrics = jax.grad(loss_fn, has_aux=True)(fitted.params)
            return fitter.step(fitted, gradients), metrics

        keys = jax.random.split(key, config.steps)
        fitted, metrics = jax.lax.scan(step, state.policy, keys)
        return State(InferenceParams(fitted.params, moments), fitted), jax.tree.map(
            jnp.mean, metrics
        )

    def moments_of(demos: Demonstrations) -> normalise.Moments:
        obs, _, valid = demonstrations.transitions(demos)
        weights = valid[:, None] / jnp.sum(valid)
        mean = jnp.sum(weights * obs[:, seen], axis=0)
        variance = jnp.sum(weights * (obs[:, seen] - mean) ** 2, axis=0)
        count = jnp.sum(valid, dtype=jnp.float32)
        return normalise.Moments(count, mean, variance)

    return Agent(init=init, carry=lambda: (), act=act, update=update)
