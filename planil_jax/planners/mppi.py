"""Model predictive path integral control: a softmax over sampled plans.

For each iteration, around the present mean and standard deviation `[H, U]`:

    1. sample K plans, smooth ("delta") or independent in time ("gaussian"), within bounds;
    2. score them: s_k = score_fn(plan_k), the total over the horizon, higher is better;
    3. weigh them: w = softmax(s / temperature), over the best `elites` alone if asked;
    4. move the mean to Σ w_k plan_k, and the standard deviation likewise if asked.

The next call starts from the mean shifted by one step.

Delta sampling draws changes of the control, so that plans are smooth:

    δ = diff(mean) + σ ε, clipped to ± max_delta;   plan_h = mean_0 + δ_0 + … + δ_h

Source: Williams et al. 2017, Information Theoretic MPC; delta space as in Han et al. 2025,
MPAIL, arXiv 2507.21533.
Departures: a score that is not finite counts as the worst, so one bad rollout cannot poison
a plan.

Plans are laid out `[H, U, K]`: contiguous over samples, every draw, sum and step of a model
becomes one vectorised loop, which is about twice as fast on a CPU.
"""

from dataclasses import dataclass
from typing import Literal

import chex
import jax
import jax.numpy as jnp

from planil_jax.base import Plan, Planner, UsageError
from planil_jax.config import Count, NonNegative, Positive, check


@dataclass(frozen=True, kw_only=True)
class Config:
    samples: Count = 512  # K, plans in an iteration, proposals included
    horizon: Count = 10  # H, control steps of a plan
    iterations: Count = 2  # refinements of the plan in a decision
    elites: Count | None = None  # best plans that are weighed; None: all of them
    # How plans are sampled: "delta", smooth in time; "gaussian", independent in time.
    sampling: Literal["delta", "gaussian"] = "delta"
    # σ of the sampled noise, in the action's units; one for all entries of the action, or
    # one each.
    noise: tuple[Positive, ...] = (0.5,)
    max_delta: Positive = 2.0  # largest change of an action entry in a step, if "delta"
    # refit the standard deviation to the weighted plans in every iteration
    adapt_std: bool = False
    min_std: NonNegative = 0.05  # least refitted one, in the action's units
    max_std: Positive = 2.0  # largest refitted one, in the action's units
    # What weighs a plan: "total", the softmax of its score; "step", the sum over its steps
    # of the softmax of each.
    weighting: Literal["total", "step"] = "total"
    # The plan to start from: "shift", the last one by one step on; "backwards" (a step
    # back) and "none" are for comparison.
    warm_start: Literal["shift", "backwards", "none"] = "shift"
    antithetic: bool = True  # whether half of the noise mirrors the other half
    # The action while exploring: "mean" of the plans; "sample", one plan's, drawn by
    # weight; "noise", such a plan's with noise of the standard deviation that is left.
    explore: Literal["mean", "sample", "noise"] = "mean"

    def check(self) -> None:
        if self.elites is not None and self.elites > self.samples:
            raise UsageError(
                f"elites must be at most samples, {self.samples}, not {self.elites}."
            )
        if self.elites is not None and self.weighting == "step":
            raise UsageError("elites goes with weighting='total' alone; leave it None.")
        if self.min_std > self.max_std:
            raise UsageError(
                f"min_std must be at most max_std, {self.max_std:g}, not {self.min_std:g}."
            )


def make(config: Config, low: tuple[float, ...], high: tuple[float, ...]) -> Planner:
    """A planner for actions within [low, high]; see `Config`.

    Raises:
      UsageError: a setting is outside its range.
    """
    _check(config, len(low))
    lower, upper = (jnp.asarray(bound, jnp.float32) for bound in (low, high))  # [U]
    sigma = jnp.broadcast_to(jnp.asarray(config.noise, jnp.float32), lower.shape)  # [U]

    def init() -> Plan:
        shape = (config.horizon, len(low))
        mean = jnp.broadcast_to(jnp.clip(0.0, lower, upper), shape)
        return Plan(mean=mean, std=jnp.broadcast_to(sigma, shape))

    def plan(score_fn, plan, key, temperature, explore, proposals=None):
        """One decision: `(action [U], plan for the next step)`.

        Args:
          score_fn: actions `[H, U]` -> score `[]`; higher is better.
          plan: where to start.
          key: consumed.
          temperature: `[]`, in the score's units; towards 0 the best plan takes all.
          explore: whether to act as `config.explore` says, or by the mean.
          proposals: `[P, H, U]` plans that compete in every iteration, P <= K; or None.
        """
        search_key, act_key = jax.random.split(key)
        plan, plans, weights = _search(score_fn, plan, search_key, temperature, proposals)
        action = plan.mean[0]
        if explore and config.explore != "mean":
            chosen_key, noise_key = jax.random.split(act_key)
            chosen = jax.random.categorical(chosen_key, jnp.log(weights))
            action = plans[0, :, chosen]
            if config.explore == "noise":
                action += plan.std[0] * jax.random.normal(noise_key, action.shape)
        return jnp.clip(action, lower, upper), _shift(plan)

    def plan_samples(score_fn, plan, key, temperature, proposals=None):
        """What `plan` weighs last, for looking at: plans `[K, H, U]` and weights `[K]`."""
        search_key, _ = jax.random.split(key)
        _, plans, weights = _search(score_fn, plan, search_key, temperature, proposals)
        return jnp.moveaxis(plans, -1, 0), weights

    def _search(score_fn, plan, key, temperature, proposals):
        chex.assert_shape(plan.mean, (config.horizon, len(low)))
        for sample_key in jax.random.split(key, config.iterations):
            plans = _sample(sample_key, plan, proposals)  # [H, U, K]
            scores = jax.vmap(score_fn, in_axes=-1)(plans)  # [K], or [K, H'] by step
            weights = weigh(scores, temperature)  # [K]
            plan = _refit(plan, plans, weights)
        return plan, plans, weights

    def weigh(scores, temperature):
        if config.weighting == "total":
            return importance_weights(scores, temperature, config.elites)
        return step_weights(scores, temperature)

    def _sample(key, plan, proposals):
        count = config.samples - (0 if proposals is None else proposals.shape[0])
        noise = _noise(key, (*plan.mean.shape, count), config.antithetic)  # [H, U, K]
        mean, std = plan.mean[..., None], plan.std[..., None]  # [H, U, 1]
        if config.sampling == "delta":
            drift = jnp.diff(mean, axis=0, prepend=mean[:1])
            deltas = jnp.clip(drift + std * noise, -config.max_delta, config.max_delta)
            # jnp.cumsum takes O(H²) operations on a CPU.
            sampled = mean[:1] + jax.lax.associative_scan(jnp.add, deltas)
        else:
            sampled = mean + std * noise
        if proposals is not None:
            sampled = jnp.concatenate([sampled, jnp.moveaxis(proposals, 0, -1)], axis=-1)
        return jnp.clip(sampled, lower[:, None], upper[:, None])

    def _refit(plan, plans, weights):
        mean = jnp.sum(weights * plans, axis=-1)
        if not config.adapt_std:
            return plan.replace(mean=mean)
        variance = jnp.sum(weights * (plans - mean[..., None]) ** 2, axis=-1)
        std = jnp.clip(jnp.sqrt(variance + 1e-12), config.min_std, config.max_std)
        return Plan(mean=mean, std=std)

    def _shift(plan):
        still = jnp.clip(jnp.zeros_like(lower), lower, upper)[None]
        mean = {
            "shift": lambda: jnp.concatenate([plan.mean[1:], still]),
            "backwards": lambda: jnp.concatenate([still, plan.mean[:-1]]),
            "none": lambda: jnp.broadcast_to(still, plan.mean.shape),
        }[config.warm_start]()
        return Plan(mean=mean, std=jnp.broadcast_to(sigma, plan.std.shape))

    return Planner(init, plan, plan_samples)


def importance_weights(
    scores: jax.Array, temperature: jax.Array | float, elites: int | None = None
) -> jax.Array:
    """softmax(scores / temperature), `[K]`, over the best `elites` alone, or all.

    A score that is not finite weighs nothing; if none is finite, all weigh the same.
    """
    chex.assert_rank(scores, 1)
    finite = jnp.isfinite(scores)
    ranked = jnp.where(finite, scores, -jnp.inf)
    if elites is not None:
        ranked = jnp.where(ranked >= jax.lax.top_k(ranked, elites)[0][-1], ranked, -jnp.inf)
    best = jnp.max(jnp.where(finite, scores, -jnp.inf))
    relative = (ranked - jnp.where(jnp.isfinite(best), best, 0.0)) / temperature
    return jax.nn.softmax(jnp.where(jnp.isfinite(best), relative, 0.0))


def step_weights(scores: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """w_k ∝ Σ_h exp((s_kh - max s) / temperature), `[K]`, of scores by step `[K, H']`.

    As in the published code of MPAIL. A plan that is good at one step weighs much, however
    bad it is at the others; `importance_weights` of the totals is the sound choice.
    """
    chex.assert_rank(scores, 2)
    flat = importance_weights(scores.reshape(-1), temperature)
    return jnp.sum(flat.reshape(scores.shape), axis=1)


def _noise(key, shape, antithetic):
    """Standard normals of this shape; antithetic: ε and then -ε along the last axis."""
    if not antithetic:
        return jax.random.normal(key, shape)
    *leading, count = shape
    half = jax.random.normal(key, (*leading, (count + 1) // 2))
    return jnp.concatenate([half, -half], axis=-1)[..., :count]


def _check(config: Config, action_size: int) -> None:
    check(config, "planner.")
    if len(config.noise) not in (1, action_size):
        raise UsageError(
            f"planner.noise has {len(config.noise)} entries; the action has {action_size}. "
            "Give one for all, or one each."
        )
