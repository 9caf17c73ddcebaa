"""PPO, part by part, on a chain of states that are entries of a table.

Observations are one-hot and networks linear, so that every weight of the value belongs to
one state and every answer can be had by hand.
"""

import dataclasses
import functools
import math
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.agents import ppo
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
    max_grad_norm=1e9,  # nothing is clipped, so that policy and value are apart
    normalise_observations=False,
    scale_rewards=False,
)
ONE_STEP = dataclasses.replace(CHAIN, epochs=1, minibatches=1)
STATES, FOLLOWING = [0, 1, 2, 3, 0, 1, 2, 2], [1, 2, 3, 0, 1, 2, 2, 3]
REWARDS = np.float32([1.0, -2.0, 0.5, 3.0, -1.0, 0.0, 2.0, -0.5])[:, None]


@functools.cache
def compiled(config: ppo.Config):
    """The engine, and its `init` and `improve` compiled."""
    engine = ppo.engine(SPEC, config)
    return engine, jax.jit(engine.init), jax.jit(engine.improve)


def begin(config: ppo.Config = CHAIN, seed: int = 0) -> ppo.State:
    return compiled(config)[1](jax.random.key(seed))


def improve(config: ppo.Config, state, rollout, rewards=REWARDS, key: int = 7):
    return compiled(config)[2](state, rollout, jnp.asarray(rewards), jax.random.key(key))


def drive(terminal=False, truncated=False, scale=1.0, seed: int = 0) -> Transition:
    """A rollout `[8, 1]`; its own reward is one that nobody asked for."""
    rng = np.random.default_rng(seed)
    one_hot = scale * np.eye(4, dtype=np.float32)

    def column(flag):
        return jnp.asarray(np.broadcast_to(flag, 8)[:, None])

    return Transition(
        obs=jnp.asarray(one_hot[STATES])[:, None],
        action=jnp.asarray(rng.uniform(0.1, 1.9, (8, 1, 1)), jnp.float32),
        next_obs=jnp.asarray(one_hot[FOLLOWING])[:, None],
        reward=jnp.full((8, 1), 1e6),
        terminal=column(terminal),
        truncated=column(truncated),
    )


def valued(state: ppo.State, weights, bias: float = 0.0) -> ppo.State:
    """The state with a value by hand."""
    kernel = jnp.asarray(np.asarray(weights)[:, None], jnp.float32)
    layer = {"kernel": kernel, "bias": jnp.full((1,), bias, jnp.float32)}
    params = state.learner.params | {"value": {"params": {"Dense_0": layer}}}
    return state.replace(learner=Fit(params, state.learner.opt_state))


def with_policy(state: ppo.State, weights) -> ppo.State:
    """The state with a policy of these means before squashing."""
    params = jax.tree.map(lambda leaf: leaf, state.params.policy)
    params["params"]["Dense_0"]["kernel"] = jnp.asarray(weights, jnp.float32)[:, None]
    learner = Fit(state.learner.params | {"policy": params}, state.learner.opt_state)
    acting = dataclasses.replace(state.params, policy=params)
    return state.replace(params=acting, learner=learner)


def equal(left, right) -> bool:
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array(a).tobytes() == np.array(b).tobytes() for a, b in pairs)


# ------------------------------------------------------------------------------ isolation


def test_a_policy_without_advantages_stays_while_the_value_moves():
    """All advantages are 1: nothing is better than anything, and the value is 1 short."""
    state = valued(begin(), np.zeros(4))
    ended = drive(terminal=True)
    after, metrics = improve(CHAIN, state, ended, np.ones((8, 1), np.float32))
    assert equal(after.params.policy, state.params.policy)
    assert metrics["value/loss"] > 0.5
    assert not equal(after.learner.params["value"], state.learner.params["value"])


def test_the_value_is_the_same_whatever_the_policy():
    state = begin()
    other = with_policy(state, [2.0, -1.0, 0.5, 0.0])
    after, changed = (improve(CHAIN, s, drive())[0] for s in (state, other))
    assert equal(after.learner.params["value"], changed.learner.params["value"])
    assert not equal(after.params.policy, changed.params.policy)


def test_what_is_a_good_action_does_not_depend_on_the_level_of_the_value():
    """Steps that all end: advantages r - V, where a constant is taken off again."""
    ended = drive(terminal=True)
    low, high = (valued(begin(), [1.0, 2.0, 0.0, -1.0], bias) for bias in (0.0, 16.0))
    after, changed = (improve(CHAIN, s, ended)[0].params.policy for s in (low, high))
    for one, other in zip(jax.tree.leaves(after), jax.tree.leaves(changed), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    sloped = improve(CHAIN, valued(begin(), [8.0, -8.0, 0.0, -1.0]), ended)[0]
    kernels = (p["params"]["Dense_0"]["kernel"] for p in (after, sloped.params.policy))
    assert np.abs(np.subtract(*kernels)).max() > 0.02


def test_rewards_are_those_that_the_caller_brings():
    rollout = drive()
    other = dataclasses.replace(rollout, reward=-rollout.reward)
    after, changed = (improve(CHAIN, begin(), r)[0] for r in (rollout, other))
    assert equal(after, changed)
    assert not equal(after, improve(CHAIN, begin(), rollout, -REWARDS)[0])


def test_the_agent_of_the_task_s_reward_brings_that():
    agent, state = ppo.make(Task.of(SPEC), CHAIN), begin()
    rollout = dataclasses.replace(drive(), reward=jnp.asarray(REWARDS))
    update = jax.jit(agent.update)
    found, _ = update(state, rollout, None, jax.random.key(7), jnp.int32(0))
    for one, other in zip(
        jax.tree.leaves(found),
        jax.tree.leaves(improve(CHAIN, state, drive())[0]),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


# --------------------------------------------------------------------------------- policy


def log_density(action: float, mean: float, std: float) -> float:
    """Of actions in [0, 2], by the change of variables."""
    u = math.atanh(action - 1)
    return math.log(NormalDist(mean, std).pdf(u)) - math.log(1 - (action - 1) ** 2)


def test_the_first_ratio_is_that_of_the_fitted_policy_to_the_one_that_acted():
    """One step on all: E[log π_acted - log π] by hand; 0 where both are the same."""
    state = begin(ONE_STEP)
    rollout, acted_means = drive(), np.array([0.4, -0.2, 0.0, 0.7])
    told = improve(ONE_STEP, state, rollout)[1]
    np.testing.assert_allclose(told["policy/divergence"], 0.0, atol=1e-5)
    np.testing.assert_allclose(told["policy/loss"], 0.0, atol=1e-5)

    acted = with_policy(state, acted_means)
    mixed = with_policy(state, np.zeros(4)).replace(params=acted.params)
    told = improve(ONE_STEP, mixed, rollout)[1]
    actions = np.float64(rollout.action)[:, 0, 0]
    gaps = [
        log_density(a, acted_means[s], 0.6) - log_density(a, 0.0, 0.6)
        for a, s in zip(actions, STATES, strict=True)
    ]
    assert abs(np.mean(gaps)) > 0.05
    np.testing.assert_allclose(told["policy/divergence"], np.mean(gaps), rtol=1e-3)


def test_a_better_action_is_done_more_and_a_worse_one_less():
    """The first step of Adam goes by its rate against the sign of the gradient."""
    state = with_policy(begin(ONE_STEP), np.zeros(4))
    state = valued(state, np.zeros(4))
    rollout = drive(terminal=True)
    high = np.array([1.8, 0.2, 1.0, 1.0, 1.8, 0.2, 1.0, 1.0], np.float32)[:, None, None]
    rollout = dataclasses.replace(rollout, action=jnp.asarray(high))
    good = np.float32([1, 0, 0, 0, 1, 0, 0, 0])[:, None]  # what was done in state 0
    after, _ = improve(ONE_STEP, state, rollout, good)
    kernel = np.array(after.params.policy["params"]["Dense_0"]["kernel"])[:, 0]
    np.testing.assert_allclose(kernel[0], 0.05, rtol=1e-2)  # 1.8 is good there: upwards
    np.testing.assert_allclose(kernel[1], 0.05, rtol=1e-2)  # 0.2 is bad here: upwards


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_an_entropy_bonus_widens_the_policy(weight):
    config = dataclasses.replace(CHAIN, entropy_coef=weight)
    flat = np.ones((8, 1), np.float32)
    state = valued(begin(config), np.zeros(4))
    after, _ = improve(config, state, drive(terminal=True), flat)
    widened = after.params.policy["params"]["raw_std"][0]
    assert (widened > 0.05) if weight else (widened == 0.0)


def test_it_finds_the_best_action_of_a_bandit():
    """Reward -(a - 1.5)² after one step, whatever the state; the best mode is 1.5 ± 0.1."""
    config = dataclasses.replace(CHAIN, epochs=4, minibatches=4, learning_rate=0.02)
    engine = ppo.engine(SPEC, config)
    obs = jnp.eye(4)[jnp.arange(64) % 4]

    def one_round(state, key):
        act_key, key = jax.random.split(key)

        def act(row, key):
            start = EnvState((), row, jnp.zeros((), jnp.int32))
            return engine.act(state.params, (), start, key, True)[0]

        actions = jax.vmap(act)(obs, jax.random.split(act_key, 64))
        rewards = -((actions - 1.5) ** 2)
        yes, no = jnp.ones((64, 1), bool), jnp.zeros((64, 1), bool)
        rollout = Transition(obs[:, None], actions[:, None], obs[:, None], rewards, yes, no)
        return engine.improve(state, rollout, rewards, key)[0], None

    def learnt(key):
        keys = jax.random.split(key, 40)
        state, _ = jax.lax.scan(one_round, engine.init(key), keys)
        start = EnvState((), obs[0], jnp.zeros((), jnp.int32))
        return engine.act(state.params, (), start, key, False)[0]

    for seed in (0, 1):
        found = jax.jit(learnt)(jax.random.key(seed))
        np.testing.assert_allclose(found, [1.5], atol=0.1)


def test_an_evaluated_action_is_the_mode_and_an_explored_one_is_drawn():
    engine, state = compiled(CHAIN)[0], with_policy(begin(), [0.5, 0.0, 0.0, 0.0])
    start = EnvState((), jnp.eye(4)[0], jnp.zeros((), jnp.int32))
    act = jax.jit(engine.act, static_argnums=4)
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
    told = np.zeros(8)
    for t in reversed(range(8)):
        worth = values[FOLLOWING[t]]
        if t < 7 and not ended[t]:
            worth = 0.5 * worth + 0.5 * told[t + 1]
        told[t] = REWARDS[t, 0] + 0.9 * (not terminal[t]) * worth
    return told


@pytest.mark.parametrize("kind", ["terminal", "truncated"])
def test_the_value_meets_its_targets_which_end_with_the_task_but_not_with_time(kind):
    """The mean of the λ-returns that start in each state; by the value as it was."""
    values, ended = np.array([4.0, -3.0, 5.0, 2.0]), np.arange(8) == 3
    state = valued(begin(FITTED), values)
    after, _ = improve(FITTED, state, drive(**{kind: ended}))
    terminal = ended if kind == "terminal" else np.zeros(8, bool)
    targets = targets_by_hand(values, ended, terminal)
    engine = compiled(FITTED)[0]
    found = engine.value(
        after.params, after.learner.params["value"], jnp.float32(1), jnp.eye(4)
    )
    expected = [np.mean(targets[np.array(STATES) == s]) for s in range(4)]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_how_much_the_value_explains_is_counted_by_hand():
    values, none = np.array([4.0, -3.0, 5.0, 2.0]), np.zeros(8, bool)
    _, metrics = improve(CHAIN, valued(begin(), values), drive())
    targets = targets_by_hand(values, none, none)
    expected = 1 - np.var(targets - values[STATES]) / np.var(targets)
    np.testing.assert_allclose(metrics["value/explained"], expected, rtol=1e-4)


def test_targets_that_are_all_alike_leave_every_metric_finite():
    flat = np.ones((8, 1), np.float32)
    _, metrics = improve(CHAIN, valued(begin(), np.zeros(4)), drive(terminal=True), flat)
    assert all(np.isfinite(value) for value in metrics.values())
    np.testing.assert_allclose(metrics["value/explained"], 1.0)


# -------------------------------------------------------------------------- normalisation

NORMALISED = dataclasses.replace(ONE_STEP, normalise_observations=True)
SCALED = dataclasses.replace(CHAIN, scale_rewards=True)


def test_observations_are_normalised_by_what_earlier_rounds_saw():
    """In a round the moments stay: the ratio of the policy to itself is 1 throughout."""
    state, seen = begin(NORMALISED), []
    for round_, scale in enumerate((1.0, 5.0, 20.0)):
        rollout = drive(scale=scale, seed=round_)
        before = state.params.moments
        assert before.count == 8 * round_
        state, metrics = improve(NORMALISED, state, rollout)
        np.testing.assert_allclose(metrics["policy/divergence"], 0.0, atol=1e-4)
        seen.append(np.float64(rollout.obs).reshape(8, 4))
        rows = np.concatenate(seen)
        np.testing.assert_allclose(state.params.moments.mean, rows.mean(0), rtol=1e-4)
        np.testing.assert_allclose(state.params.moments.variance, rows.var(0), rtol=1e-4)


def test_where_observations_are_not_normalised_moments_stay_as_new():
    state = begin()
    assert equal(improve(CHAIN, state, drive())[0].params.moments, state.params.moments)


def test_what_was_learnt_does_not_depend_on_the_unit_of_rewards():
    """Bit for bit for eightfold rewards, from the first round on."""
    state, other = begin(SCALED), begin(SCALED)
    for seed in range(3):
        state, _ = improve(SCALED, state, drive(seed=seed), REWARDS, key=seed)
        other, _ = improve(SCALED, other, drive(seed=seed), 8 * REWARDS, key=seed)
    assert equal(state.params, other.params)
    assert equal(state.learner.params, other.learner.params)
    unit = compiled(SCALED)[0].unit
    np.testing.assert_allclose(unit(other), 8 * unit(state), rtol=1e-6)
    plain = [improve(CHAIN, begin(), drive(), k * REWARDS)[0] for k in (1, 8)]
    assert not equal(plain[0].learner.params["value"], plain[1].learner.params["value"])
    np.testing.assert_array_equal(compiled(CHAIN)[0].unit(plain[1]), 1.0)


def test_the_unit_is_the_deviation_of_discounted_sums_of_an_episode_s_rewards():
    ended = np.arange(8) == 3
    state, _ = improve(SCALED, begin(SCALED), drive(truncated=ended))
    sums, so_far = [], 0.0
    for t in range(8):
        so_far = 0.9 * so_far + float(REWARDS[t, 0])
        sums.append(so_far)
        so_far = 0.0 if ended[t] else so_far
    engine = compiled(SCALED)[0]
    np.testing.assert_allclose(engine.unit(state), np.std(sums), rtol=1e-5)
    value = state.learner.params["value"]
    ones = engine.value(state.params, value, jnp.float32(1), jnp.eye(4))
    many = engine.value(state.params, value, engine.unit(state), jnp.eye(4))
    np.testing.assert_allclose(many, np.std(sums) * np.array(ones), rtol=1e-5)


# --------------------------------------------------------------------------------- errors


def test_more_minibatches_than_steps_are_refused_in_one_sentence():
    """They would be empty, and their means not finite."""
    engine = ppo.engine(SPEC, dataclasses.replace(CHAIN, minibatches=9))
    with pytest.raises(UsageError, match="9 minibatches .* 8 steps"):
        jax.eval_shape(
            engine.improve,
            begin(),
            drive(),
            jnp.asarray(REWARDS),
            jax.random.key(0),
        )
