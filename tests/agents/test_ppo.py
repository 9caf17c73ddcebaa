"""PPO, part by part, on a chain of four states.

Observations are one-hot and networks linear, so that every weight of the value belongs to
one state and every answer can be computed by hand.
"""

import dataclasses
import functools
import math
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.agents import ppo as ppo_agent
from planil_jax.agents.common import learning, ppo
from planil_jax.base import EnvSpec, EnvState, Fit, Task, Transition, UsageError
from planil_jax.nets import heads, mlp

SPEC = EnvSpec("chain", tuple("abcd"), (0.0,), (2.0,), 5, 0.1)
LINEAR = mlp.Config(hidden=())
CHAIN = ppo.Config(
    policy=heads.Config(network=LINEAR),
    value=LINEAR,
    discount=0.9,
    gae_lambda=0.5,
    epochs=2,
    minibatches=2,
    learning_rate=0.05,
    max_grad_norm=1e9,  # no clipping, which would couple policy and value
    normalise_observations=False,
    scale_rewards=False,
)
ONE_STEP = dataclasses.replace(CHAIN, epochs=1, minibatches=1)
STATES, NEXT_STATES = [0, 1, 2, 3, 0, 1, 2, 2], [1, 2, 3, 0, 1, 2, 2, 3]
REWARDS = np.float32([1.0, -2.0, 0.5, 3.0, -1.0, 0.0, 2.0, -0.5])[:, None]


@functools.cache
def compiled(config: ppo.Config):
    """The components, and `init` and `improve` of them compiled."""
    components = ppo.build(SPEC, config)
    functions = (functools.partial(f, components) for f in (ppo.init, ppo.improve))
    return components, *map(jax.jit, functions)


def initial(config: ppo.Config = CHAIN, seed: int = 0) -> ppo.State:
    return compiled(config)[1](jax.random.key(seed))


def improve(config: ppo.Config, state, rollout, rewards=REWARDS, key: int = 7):
    return compiled(config)[2](state, rollout, jnp.asarray(rewards), jax.random.key(key))


def rollout_of(terminal=False, truncated=False, scale=1.0, seed: int = 0) -> Transition:
    """A rollout `[8, 1]`. Its reward is huge: nothing may read it."""
    rng = np.random.default_rng(seed)
    one_hot = scale * np.eye(4, dtype=np.float32)

    def column(flag):
        return jnp.asarray(np.broadcast_to(flag, 8)[:, None])

    return Transition(
        obs=jnp.asarray(one_hot[STATES])[:, None],
        action=jnp.asarray(rng.uniform(0.1, 1.9, (8, 1, 1)), jnp.float32),
        next_obs=jnp.asarray(one_hot[NEXT_STATES])[:, None],
        reward=jnp.full((8, 1), 1e6),
        terminal=column(terminal),
        truncated=column(truncated),
    )


def with_value(state: ppo.State, weights, bias: float = 0.0) -> ppo.State:
    """The state with a value of these weights."""
    kernel = jnp.asarray(np.asarray(weights)[:, None], jnp.float32)
    layer = {"kernel": kernel, "bias": jnp.full((1,), bias, jnp.float32)}
    params = state.networks.params | {"value": {"params": {"Dense_0": layer}}}
    return state.replace(networks=Fit(params, state.networks.opt_state))


def with_policy(state: ppo.State, weights) -> ppo.State:
    """The state with a policy of these means before squashing."""
    params = jax.tree.map(lambda leaf: leaf, state.params.policy)
    params["params"]["Dense_0"]["kernel"] = jnp.asarray(weights, jnp.float32)[:, None]
    networks = Fit(state.networks.params | {"policy": params}, state.networks.opt_state)
    acting = dataclasses.replace(state.params, policy=params)
    return state.replace(params=acting, networks=networks)


def equal(left, right) -> bool:
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array(a).tobytes() == np.array(b).tobytes() for a, b in pairs)


# ------------------------------------------------------------------------------ isolation


def test_equal_advantages_move_the_value_and_not_the_policy():
    """All advantages are 1: no action is better than another, and the value is 1 short."""
    state = with_value(initial(), np.zeros(4))
    ended = rollout_of(terminal=True)
    after, metrics = improve(CHAIN, state, ended, np.ones((8, 1), np.float32))
    assert equal(after.params.policy, state.params.policy)
    assert metrics["value/loss"] > 0.5
    assert not equal(after.networks.params["value"], state.networks.params["value"])


def test_the_policy_does_not_move_the_value():
    state = initial()
    other = with_policy(state, [2.0, -1.0, 0.5, 0.0])
    after, changed = (improve(CHAIN, s, rollout_of())[0] for s in (state, other))
    assert equal(after.networks.params["value"], changed.networks.params["value"])
    assert not equal(after.params.policy, changed.params.policy)


def test_a_constant_added_to_the_value_does_not_move_the_policy():
    """All steps are terminal, so that A = r - V; a minibatch takes off its mean."""
    ended = rollout_of(terminal=True)
    low, high = (with_value(initial(), [1.0, 2.0, 0.0, -1.0], bias) for bias in (0.0, 16.0))
    after, changed = (improve(CHAIN, s, ended)[0].params.policy for s in (low, high))
    for one, other in zip(jax.tree.leaves(after), jax.tree.leaves(changed), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    sloped = improve(CHAIN, with_value(initial(), [8.0, -8.0, 0.0, -1.0]), ended)[0]
    kernels = (p["params"]["Dense_0"]["kernel"] for p in (after, sloped.params.policy))
    assert np.abs(np.subtract(*kernels)).max() > 0.02


def test_the_rewards_are_the_caller_s_and_not_the_rollout_s():
    rollout = rollout_of()
    other = dataclasses.replace(rollout, reward=-rollout.reward)
    after, changed = (improve(CHAIN, initial(), r)[0] for r in (rollout, other))
    assert equal(after, changed)
    assert not equal(after, improve(CHAIN, initial(), rollout, -REWARDS)[0])


def test_the_agent_learns_from_the_task_s_reward():
    agent, state = ppo_agent.make(Task.of(SPEC), CHAIN), initial()
    rollout = dataclasses.replace(rollout_of(), reward=jnp.asarray(REWARDS))
    update = jax.jit(agent.update)
    found, _ = update(state, rollout, None, jax.random.key(7), jnp.int32(0))
    for one, other in zip(
        jax.tree.leaves(found),
        jax.tree.leaves(improve(CHAIN, state, rollout_of())[0]),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


# ----------------------------------------------------------------------------------- loss


def batch_of(state: ppo.State, rollout: Transition, rewards=REWARDS) -> ppo.Batch:
    """The rollout as one minibatch `[8]`."""
    advantages = jax.jit(functools.partial(ppo.advantages, compiled(ONE_STEP)[0]))
    return learning.flatten(advantages(state, rollout, jnp.asarray(rewards)))


def test_the_loss_is_the_surrogate_the_value_s_error_and_less_entropy():
    """Eq. 9 by hand of a ratio of 1, where the surrogate of normalised advantages is 0."""
    config = dataclasses.replace(ONE_STEP, entropy_coef=0.3)
    values = np.array([4.0, -3.0, 5.0, 2.0])
    state = with_value(initial(ONE_STEP), values)
    batch, key = batch_of(state, rollout_of()), jax.random.key(2)
    loss_fn = functools.partial(ppo.loss, ppo.build(SPEC, config))
    total, metrics = jax.jit(loss_fn)(state.networks.params, batch, key)
    none = np.zeros(8, bool)
    error = np.mean((values[STATES] - targets_by_hand(values, none, none)) ** 2)
    np.testing.assert_allclose(metrics["value/loss"], error, rtol=1e-4)
    np.testing.assert_allclose(metrics["policy/loss"], 0.0, atol=1e-5)
    np.testing.assert_allclose(
        total, error - 0.3 * float(metrics["policy/entropy"]), rtol=1e-4
    )


def test_the_loss_moves_the_value_to_its_targets_and_the_policy_to_its_advantages_alone():
    """The value's gradient by hand; the policy's is zero where all advantages are equal."""
    values = np.array([4.0, -3.0, 5.0, 2.0])
    state = with_value(initial(ONE_STEP), values)
    batch, key = batch_of(state, rollout_of()), jax.random.key(2)
    loss_fn = functools.partial(ppo.loss, compiled(ONE_STEP)[0])
    slope_fn = jax.jit(jax.grad(loss_fn, has_aux=True))
    slope, _ = slope_fn(state.networks.params, batch, key)
    none = np.zeros(8, bool)
    errors = values[STATES] - targets_by_hand(values, none, none)
    expected = [2 * np.sum(errors[np.array(STATES) == s]) / 8 for s in range(4)]
    found = slope["value"]["params"]["Dense_0"]["kernel"][:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    flat = batch.replace(advantage=jnp.zeros(8))
    slope, _ = slope_fn(state.networks.params, flat, key)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(slope["policy"]))


# --------------------------------------------------------------------------------- policy


def log_density(action: float, mean: float, std: float) -> float:
    """Of actions in [0, 2], by the change of variables."""
    u = math.atanh(action - 1)
    return math.log(NormalDist(mean, std).pdf(u)) - math.log(1 - (action - 1) ** 2)


def test_the_first_ratio_is_that_of_the_fitted_policy_to_the_one_that_acted():
    """One step on all: E[log π_acted - log π] by hand; 0 where both are the same."""
    state = initial(ONE_STEP)
    rollout, acted_means = rollout_of(), np.array([0.4, -0.2, 0.0, 0.7])
    metrics = improve(ONE_STEP, state, rollout)[1]
    np.testing.assert_allclose(metrics["policy/divergence"], 0.0, atol=1e-5)
    np.testing.assert_allclose(metrics["policy/loss"], 0.0, atol=1e-5)

    acted = with_policy(state, acted_means)
    mixed = with_policy(state, np.zeros(4)).replace(params=acted.params)
    metrics = improve(ONE_STEP, mixed, rollout)[1]
    actions = np.float64(rollout.action)[:, 0, 0]
    gaps = [
        log_density(a, acted_means[s], 0.6) - log_density(a, 0.0, 0.6)
        for a, s in zip(actions, STATES, strict=True)
    ]
    assert abs(np.mean(gaps)) > 0.05
    np.testing.assert_allclose(metrics["policy/divergence"], np.mean(gaps), rtol=1e-3)


def test_a_better_action_becomes_likelier_and_a_worse_one_less_likely():
    """The first step of Adam is as long as its rate, against the sign of the gradient."""
    state = with_policy(initial(ONE_STEP), np.zeros(4))
    state = with_value(state, np.zeros(4))
    rollout = rollout_of(terminal=True)
    high = np.array([1.8, 0.2, 1.0, 1.0, 1.8, 0.2, 1.0, 1.0], np.float32)[:, None, None]
    rollout = dataclasses.replace(rollout, action=jnp.asarray(high))
    good = np.float32([1, 0, 0, 0, 1, 0, 0, 0])[:, None]  # the action of state 0
    after, _ = improve(ONE_STEP, state, rollout, good)
    kernel = np.array(after.params.policy["params"]["Dense_0"]["kernel"])[:, 0]
    np.testing.assert_allclose(kernel[0], 0.05, rtol=1e-2)  # 1.8 is good there: up
    np.testing.assert_allclose(kernel[1], 0.05, rtol=1e-2)  # 0.2 is bad here: up


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_an_entropy_bonus_widens_the_policy(weight):
    config = dataclasses.replace(CHAIN, entropy_coef=weight)
    flat = np.ones((8, 1), np.float32)
    state = with_value(initial(config), np.zeros(4))
    after, _ = improve(config, state, rollout_of(terminal=True), flat)
    widened = after.params.policy["params"]["raw_std"][0]
    assert (widened > 0.05) if weight else (widened == 0.0)


def test_it_finds_the_best_action_of_a_bandit():
    """Reward -(a - 1.5)² after one step, whatever the state; the best mode is 1.5 ± 0.1."""
    config = dataclasses.replace(CHAIN, epochs=4, minibatches=4, learning_rate=0.02)
    components = ppo.build(SPEC, config)
    obs = jnp.eye(4)[jnp.arange(64) % 4]

    def one_round(state, key):
        act_key, key = jax.random.split(key)

        def act(row, key):
            start = EnvState((), row, jnp.zeros((), jnp.int32))
            return ppo.act(components, state.params, (), start, key, True)[0]

        actions = jax.vmap(act)(obs, jax.random.split(act_key, 64))
        rewards = -((actions - 1.5) ** 2)
        yes, no = jnp.ones((64, 1), bool), jnp.zeros((64, 1), bool)
        rollout = Transition(obs[:, None], actions[:, None], obs[:, None], rewards, yes, no)
        return ppo.improve(components, state, rollout, rewards, key)[0], None

    def learned(key):
        keys = jax.random.split(key, 40)
        state, _ = jax.lax.scan(one_round, ppo.init(components, key), keys)
        start = EnvState((), obs[0], jnp.zeros((), jnp.int32))
        return ppo.act(components, state.params, (), start, key, False)[0]

    for seed in (0, 1):
        found = jax.jit(learned)(jax.random.key(seed))
        np.testing.assert_allclose(found, [1.5], atol=0.1)


def test_an_evaluated_action_is_the_mode_and_an_explored_one_is_drawn():
    state = with_policy(initial(), [0.5, 0.0, 0.0, 0.0])
    start = EnvState((), jnp.eye(4)[0], jnp.zeros((), jnp.int32))
    act = jax.jit(functools.partial(ppo.act, compiled(CHAIN)[0]), static_argnums=4)
    keys = [jax.random.key(i) for i in range(2)]
    modes = [act(state.params, (), start, key, False)[0] for key in keys]
    np.testing.assert_allclose(modes, [[1 + math.tanh(0.5)]] * 2, rtol=1e-5)
    drawn = [float(act(state.params, (), start, key, True)[0][0]) for key in keys]
    assert drawn[0] != drawn[1]


# ---------------------------------------------------------------------------------- value

# A linear value of one-hot states, fitted until it meets its targets.
FITTED = dataclasses.replace(CHAIN, epochs=600, minibatches=1, learning_rate=0.03)


def targets_by_hand(values, ended, terminal) -> np.ndarray:
    """λ-returns, γ = 0.9 and λ = 0.5, of a value by state."""
    targets = np.zeros(8)
    for t in reversed(range(8)):
        worth = values[NEXT_STATES[t]]
        if t < 7 and not ended[t]:
            worth = 0.5 * worth + 0.5 * targets[t + 1]
        targets[t] = REWARDS[t, 0] + 0.9 * (not terminal[t]) * worth
    return targets


@pytest.mark.parametrize("kind", ["terminal", "truncated"])
def test_the_value_meets_lambda_returns_that_bootstrap_at_time_limits_alone(kind):
    """Of each state, the mean of the λ-returns from there, by the value as it was."""
    values, ended = np.array([4.0, -3.0, 5.0, 2.0]), np.arange(8) == 3
    state = with_value(initial(FITTED), values)
    after, _ = improve(FITTED, state, rollout_of(**{kind: ended}))
    terminal = ended if kind == "terminal" else np.zeros(8, bool)
    targets = targets_by_hand(values, ended, terminal)
    value_params, one = after.networks.params["value"], jnp.float32(1)
    found = ppo.value(compiled(FITTED)[0], after.params, value_params, one, jnp.eye(4))
    expected = [np.mean(targets[np.array(STATES) == s]) for s in range(4)]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_the_explained_variance_is_the_one_computed_by_hand():
    values, none = np.array([4.0, -3.0, 5.0, 2.0]), np.zeros(8, bool)
    _, metrics = improve(CHAIN, with_value(initial(), values), rollout_of())
    targets = targets_by_hand(values, none, none)
    expected = 1 - np.var(targets - values[STATES]) / np.var(targets)
    np.testing.assert_allclose(metrics["value/explained"], expected, rtol=1e-4)


def test_equal_targets_leave_every_metric_finite():
    flat = np.ones((8, 1), np.float32)
    _, metrics = improve(
        CHAIN, with_value(initial(), np.zeros(4)), rollout_of(terminal=True), flat
    )
    assert all(np.isfinite(value) for value in metrics.values())
    np.testing.assert_allclose(metrics["value/explained"], 1.0)


# -------------------------------------------------------------------------- normalisation

NORMALISED = dataclasses.replace(ONE_STEP, normalise_observations=True)
SCALED = dataclasses.replace(CHAIN, scale_rewards=True)


def test_observations_are_normalised_by_the_moments_of_earlier_rounds():
    """Within a round they stay: the ratio of the policy to itself is 1 throughout."""
    state, observations = initial(NORMALISED), []
    for round_, scale in enumerate((1.0, 5.0, 20.0)):
        rollout = rollout_of(scale=scale, seed=round_)
        before = state.params.moments
        assert before.count == 8 * round_
        state, metrics = improve(NORMALISED, state, rollout)
        np.testing.assert_allclose(metrics["policy/divergence"], 0.0, atol=1e-4)
        observations.append(np.float64(rollout.obs).reshape(8, 4))
        rows = np.concatenate(observations)
        np.testing.assert_allclose(state.params.moments.mean, rows.mean(0), rtol=1e-4)
        np.testing.assert_allclose(state.params.moments.variance, rows.var(0), rtol=1e-4)


def test_without_normalisation_the_moments_stay_fresh():
    state = initial()
    assert equal(
        improve(CHAIN, state, rollout_of())[0].params.moments, state.params.moments
    )


def test_scaled_rewards_teach_the_same_whatever_their_scale():
    """Bit for bit for eightfold rewards, from the first round on."""
    state, other = initial(SCALED), initial(SCALED)
    for seed in range(3):
        state, _ = improve(SCALED, state, rollout_of(seed=seed), REWARDS, key=seed)
        other, _ = improve(SCALED, other, rollout_of(seed=seed), 8 * REWARDS, key=seed)
    assert equal(state.params, other.params)
    assert equal(state.networks.params, other.networks.params)
    one, eight = (ppo.reward_scale(compiled(SCALED)[0], s) for s in (state, other))
    np.testing.assert_allclose(eight, 8 * one, rtol=1e-6)
    plain = [improve(CHAIN, initial(), rollout_of(), k * REWARDS)[0] for k in (1, 8)]
    assert not equal(plain[0].networks.params["value"], plain[1].networks.params["value"])
    np.testing.assert_array_equal(ppo.reward_scale(compiled(CHAIN)[0], plain[1]), 1.0)


def test_the_reward_scale_is_the_deviation_of_discounted_sums_within_episodes():
    ended = np.arange(8) == 3
    state, _ = improve(SCALED, initial(SCALED), rollout_of(truncated=ended))
    sums, so_far = [], 0.0
    for t in range(8):
        so_far = 0.9 * so_far + float(REWARDS[t, 0])
        sums.append(so_far)
        so_far = 0.0 if ended[t] else so_far
    components = compiled(SCALED)[0]
    scale = ppo.reward_scale(components, state)
    np.testing.assert_allclose(scale, np.std(sums), rtol=1e-5)
    value = functools.partial(
        ppo.value, components, state.params, state.networks.params["value"]
    )
    unscaled, scaled = (value(by, jnp.eye(4)) for by in (jnp.float32(1), scale))
    np.testing.assert_allclose(scaled, np.std(sums) * np.array(unscaled), rtol=1e-5)


# --------------------------------------------------------------------------------- errors


def test_more_minibatches_than_steps_are_refused_in_one_sentence():
    """They would be empty, and their means not finite."""
    components = ppo.build(SPEC, dataclasses.replace(CHAIN, minibatches=9))
    with pytest.raises(UsageError, match="9 minibatches .* 8 steps"):
        jax.eval_shape(
            functools.partial(ppo.improve, components),
            initial(),
            rollout_of(),
            jnp.asarray(REWARDS),
            jax.random.key(0),
        )
