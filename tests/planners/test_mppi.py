"""Planning problems with known answers: hills, a linear regulator, loops in numpy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.base import Plan, UsageError
from planil_jax.planners import mppi

pytestmark = pytest.mark.fast

LOW, HIGH = (0.0, -1.0), (1.0, 2.0)
# Compiling takes most of the time of these tests.
PEAK = np.array([0.3, 1.2], np.float32)


def hill(actions):
    """The maximum is 0, where every action is PEAK."""
    return -jnp.sum((actions - PEAK) ** 2)


def config(**settings) -> mppi.Config:
    return mppi.Config(**{"samples": 64, "horizon": 4, "iterations": 1} | settings)


@functools.cache
def compiled(settings: mppi.Config, score_fn, explore: bool):
    planner = mppi.make(settings, LOW, HIGH)

    @jax.jit
    def once(plan, key, temperature, proposals):
        return planner.plan(score_fn, plan, key, temperature, explore, proposals)

    return planner, once


def decide(
    settings: mppi.Config,
    score_fn=hill,
    seed=0,
    plan=None,
    temperature=1.0,
    explore=False,
    proposals=None,
):
    """One decision, as numpy: `(action [U], plan for the next step)`."""
    planner, once = compiled(settings, score_fn, explore)
    decision = once(plan or planner.init(), jax.random.key(seed), temperature, proposals)
    return jax.tree.map(np.array, decision)


def plan_of(mean, std=0.5) -> Plan:
    mean = jnp.asarray(mean, jnp.float32)
    return Plan(mean=mean, std=jnp.full_like(mean, std))


@functools.cache
def tracer(settings: mppi.Config, score_fn):
    planner = mppi.make(settings, LOW, HIGH)
    return planner, jax.jit(functools.partial(planner.plan_samples, score_fn))


def traced(settings: mppi.Config, seed=0, plan=None, temperature=1.0, score_fn=hill):
    """The last plans of a decision, `[K, H, U]`, and their weights `[K]`, as numpy."""
    planner, last_plans = tracer(settings, score_fn)
    return jax.tree.map(
        np.array, last_plans(plan or planner.init(), jax.random.key(seed), temperature)
    )


def normals(settings: mppi.Config, seed: int) -> np.ndarray:
    """The noise `[H, U, K]` of a decision of one iteration."""
    search_key, _ = jax.random.split(jax.random.key(seed))
    (sample_key,) = jax.random.split(search_key, 1)
    shape = (settings.horizon, len(LOW), settings.samples)
    return np.array(jax.random.normal(sample_key, shape))


# ------------------------------------------------------------------------------- planning


@pytest.mark.parametrize("sampling", ["delta", "gaussian"])
def test_repeated_planning_climbs_a_hill_to_its_peak(sampling):
    settings = config(
        samples=1024,
        iterations=6,
        elites=100,
        sampling=sampling,
        noise=(1.0,),
        adapt_std=True,
    )
    for seed in range(3):
        action, plan = decide(settings, seed=seed, temperature=0.1)
        np.testing.assert_allclose(action, PEAK, atol=0.25)  # the worst of 20 seeds: 0.16
        np.testing.assert_allclose(plan.mean[:-1], np.tile(PEAK, (3, 1)), atol=0.25)


def test_the_first_action_comes_near_the_riccati_solution_on_a_double_integrator():
    horizon, dt = 6, 0.4
    dynamics = np.array([[1.0, dt], [0.0, 1.0]])
    control = np.array([[dt**2 / 2], [dt]])
    state_cost, control_cost = np.diag([1.0, 0.1]), np.array([[0.5]])
    start = np.array([1.0, -0.3])
    cost_to_go = state_cost
    for _ in range(horizon):  # backwards from the last state
        gain = np.linalg.solve(
            control_cost + control.T @ cost_to_go @ control,
            control.T @ cost_to_go @ dynamics,
        )
        cost_to_go = state_cost + dynamics.T @ cost_to_go @ (dynamics - control @ gain)
    best = -gain @ start

    def score(actions):
        def step(state, action):
            state = dynamics @ state + control @ action
            return state, state @ state_cost @ state + action @ control_cost @ action

        return -jnp.sum(jax.lax.scan(step, jnp.asarray(start, jnp.float32), actions)[1])

    settings = config(
        samples=1024,
        horizon=horizon,
        iterations=6,
        elites=100,
        sampling="gaussian",
        adapt_std=True,
    )
    planner = mppi.make(settings, (-3.0,), (3.0,))
    once = jax.jit(lambda key: planner.plan(score, planner.init(), key, 0.1, False)[0])
    assert abs(best[0]) > 0.4  # a planner that does nothing would fail
    for seed in range(3):
        np.testing.assert_allclose(once(jax.random.key(seed)), best, atol=0.01)


def test_adding_a_constant_to_every_score_changes_nothing():
    plain, _ = decide(config())
    raised, _ = decide(config(), lambda actions: hill(actions) + 1000.0)
    np.testing.assert_allclose(raised, plain, atol=1e-3)


def test_the_same_key_gives_the_same_plan_and_another_key_another():
    first, again, other = (decide(config(), seed=seed)[1].mean for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_the_next_plan_starts_from_the_mean_shifted_by_one_step():
    settings = config(noise=(1e-6,), sampling="gaussian")
    mean = [[0.1, 0.5], [0.2, 0.6], [0.3, 0.7], [0.4, 0.8]]
    action, next_plan = decide(settings, plan=plan_of(mean, std=1e-6))
    np.testing.assert_allclose(action, mean[0], atol=1e-4)
    np.testing.assert_allclose(next_plan.mean, [*mean[1:], [0.0, 0.0]], atol=1e-4)
    np.testing.assert_allclose(next_plan.std, 1e-6)


def test_planning_on_from_the_last_plan_comes_closer_than_planning_afresh():
    settings = config(horizon=6, noise=(0.3,), sampling="gaussian")
    plan = None
    for seed in range(10):
        warm, plan = decide(settings, seed=seed, plan=plan, temperature=0.02)
    fresh, _ = decide(settings, seed=9, temperature=0.02)
    assert np.abs(warm - PEAK).max() < 0.5 * np.abs(fresh - PEAK).max()


@pytest.mark.parametrize("sampling", ["delta", "gaussian"])
def test_every_scored_plan_and_the_action_lie_within_the_bounds(sampling):
    settings = config(samples=64, sampling=sampling, noise=(3.0,), max_delta=9.0)
    plans, _ = traced(settings)
    assert (plans >= LOW).all() and (plans <= HIGH).all()
    assert (plans == LOW).any() and (plans == HIGH).any()  # they would have left them
    action, _ = decide(settings, jnp.sum, temperature=1e-3)
    assert (action >= LOW).all() and (action <= HIGH).all()


def test_a_perfect_proposal_wins_at_a_low_temperature():
    proposals = jnp.stack([jnp.zeros((4, 2)), jnp.tile(PEAK, (4, 1)), jnp.ones((4, 2))])
    for samples in (3, 64):  # proposals alone, and among samples
        action, plan = decide(
            config(samples=samples), temperature=1e-4, proposals=proposals
        )
        np.testing.assert_allclose(action, PEAK, atol=1e-5)
        np.testing.assert_allclose(plan.mean[:-1], np.tile(PEAK, (3, 1)), atol=1e-5)


def test_towards_temperature_0_the_best_plan_takes_all():
    plans, _ = traced(config(), seed=3)
    best = max(plans, key=lambda actions: -np.sum((actions - PEAK) ** 2))
    action, plan = decide(config(), seed=3, temperature=1e-6)
    np.testing.assert_allclose(action, best[0], atol=1e-6)
    np.testing.assert_allclose(plan.mean[:-1], best[1:], atol=1e-6)


def test_towards_infinite_temperature_the_plan_is_the_mean_of_the_samples():
    plans, _ = traced(config(), seed=3)
    _, plan = decide(config(), seed=3, temperature=1e9)
    np.testing.assert_allclose(plan.mean[:-1], plans.mean(0)[1:], atol=1e-5)


def test_exploring_by_sample_acts_by_one_of_the_plans():
    settings = config(explore="sample")
    plans, _ = traced(settings, seed=5)
    firsts = plans[:, 0]
    mean, _ = decide(settings, seed=5, explore=False)
    sampled, _ = decide(settings, seed=5, explore=True)
    assert np.abs(firsts - sampled).max(1).min() < 1e-6
    assert np.abs(firsts - mean).max(1).min() > 1e-6


def test_an_adapted_std_is_the_weighted_deviation_within_its_bounds():
    settings = config(samples=4096, iterations=2, adapt_std=True, sampling="gaussian")
    narrow = dataclasses.replace(settings, max_std=1e-3, min_std=1e-3)
    mean = np.tile(PEAK, (4, 1))
    # A normal of variance 1/100 round the peak times e^(-50 x²) is one of variance 1/200.
    for chosen, std in ((settings, 200**-0.5), (narrow, 1e-3)):
        plans, _ = traced(chosen, plan=plan_of(mean, std=0.1), temperature=0.02)
        np.testing.assert_allclose(plans.std(0), std, rtol=0.1)


def test_a_plan_is_the_weighted_mean_of_the_plans_that_plan_samples_returns():
    plans, weights = traced(config(), seed=4)
    scores = -((plans - PEAK) ** 2).sum((1, 2))
    np.testing.assert_allclose(weights, np.exp(scores) / np.exp(scores).sum(), rtol=1e-4)
    action, plan = decide(config(), seed=4)
    mean = np.einsum("k,khu->hu", weights, plans)
    np.testing.assert_allclose(action, mean[0], atol=1e-5)
    np.testing.assert_allclose(plan.mean[:-1], mean[1:], atol=1e-5)


# ------------------------------------------------------------------------------- sampling


def test_delta_sampling_equals_a_loop_over_the_formula():
    settings = config(samples=5, antithetic=False, noise=(0.3, 0.8), max_delta=0.4)
    mean = np.array([[0.5, 0.1], [0.6, 0.4], [0.2, 0.3], [0.9, -0.5]], np.float32)
    std = np.tile(np.float32([0.3, 0.8]), (4, 1))
    noise = normals(settings, seed=7)
    expected = np.zeros((5, 4, 2))
    for k in range(5):
        control = mean[0].copy()
        for h in range(4):
            drift = mean[h] - mean[h - 1] if h else np.zeros(2)
            control = control + np.clip(drift + std[h] * noise[h, :, k], -0.4, 0.4)
            expected[k, h] = np.clip(control, LOW, HIGH)
    plans, _ = traced(settings, 7, Plan(mean=jnp.array(mean), std=jnp.array(std)))
    np.testing.assert_allclose(plans, expected, atol=1e-6)


def test_gaussian_sampling_is_the_mean_and_scaled_noise():
    settings = config(samples=5, antithetic=False, sampling="gaussian")
    mean = np.tile(np.float32([0.5, 0.2]), (4, 1))
    expected = mean + 0.1 * np.moveaxis(normals(settings, seed=7), -1, 0)
    plans, _ = traced(settings, 7, plan_of(mean, std=0.1))
    np.testing.assert_allclose(plans, np.clip(expected, LOW, HIGH), atol=1e-6)


@pytest.mark.parametrize("samples", [6, 7])
def test_antithetic_plans_mirror_one_another_about_the_mean(samples):
    settings = config(samples=samples, sampling="gaussian")
    mean = np.tile(np.float32([0.5, 0.5]), (4, 1))
    offsets = traced(settings, 2, plan_of(mean, std=0.05))[0] - mean
    mirrored = sum(np.abs(offsets + offset).max((1, 2)).min() < 1e-6 for offset in offsets)
    assert mirrored == samples - samples % 2


# -------------------------------------------------------------------------------- weights


def test_weights_are_the_softmax_of_scores_over_temperature():
    scores = np.array([1.0, 3.0, 2.0], np.float32)
    expected = np.exp(scores / 0.5) / np.exp(scores / 0.5).sum()
    weights = mppi.importance_weights(jnp.array(scores), 0.5)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)


def test_scores_that_are_not_finite_weigh_nothing():
    scores = jnp.array([0.0, jnp.nan, 0.0, jnp.inf, -jnp.inf])
    np.testing.assert_allclose(
        mppi.importance_weights(scores, 1.0), [0.5, 0.0, 0.5, 0.0, 0.0], atol=1e-7
    )


@pytest.mark.parametrize("elites", [None, 2])
def test_all_weigh_the_same_where_no_score_is_finite(elites):
    scores = jnp.array([jnp.nan, jnp.inf, -jnp.inf, jnp.nan])
    np.testing.assert_allclose(mppi.importance_weights(scores, 1.0, elites), 0.25)


def test_only_the_elites_weigh():
    scores = jnp.array([1.0, 4.0, jnp.nan, 3.0, 2.0])
    expected = np.array([0.0, np.e, 0.0, 1.0, 0.0]) / (np.e + 1)
    np.testing.assert_allclose(mppi.importance_weights(scores, 1.0, 2), expected, rtol=1e-5)


def test_one_rollout_that_fails_does_not_poison_the_plan():
    def score(actions):
        return jnp.where(actions[0, 1] > 0.0, jnp.nan, hill(actions))

    action, plan = decide(config(), score)
    assert np.isfinite(action).all() and np.isfinite(plan.mean).all()
    assert action[1] <= 0.0


# --------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"samples": 0}, "samples"),
        ({"horizon": 0}, "horizon"),
        ({"iterations": 0}, "iterations"),
        ({"noise": (0.1, 0.2, 0.3)}, "noise"),
        ({"sampling": "uniform"}, "sampling"),
        ({"explore": "random"}, "explore"),
        ({"elites": 65}, "elites"),
        ({"elites": -1}, "elites"),
    ],
)
def test_a_setting_outside_its_range_is_refused_by_name(setting, named):
    with pytest.raises(UsageError, match=named):
        mppi.make(config(**setting), LOW, HIGH)


def test_a_plan_of_another_horizon_is_refused():
    with pytest.raises(AssertionError):
        decide(config(), plan=plan_of(np.zeros((3, 2))))


def test_published_step_weights_are_sums_of_exponentials_over_the_steps():
    scores = np.array([[1.0, 3.0], [2.0, 2.0], [0.0, -1.0]])
    exponentials = np.exp(scores / 0.5).sum(axis=1)
    weights = mppi.step_weights(jnp.asarray(scores), 0.5)
    np.testing.assert_allclose(weights, exponentials / exponentials.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("warm_start", "expected"),
    [("shift", [1.0, 2.0, 0.0]), ("backwards", [0.0, 0.0, 1.0]), ("none", [0.0] * 3)],
)
def test_the_warm_start_is_the_configured_one(warm_start, expected):
    """Two samples with noise of ±1e-6: the search does not change the plan."""
    config = mppi.Config(
        samples=2, horizon=3, iterations=1, noise=(1e-6,), warm_start=warm_start
    )
    planner = mppi.make(config, (-5.0,), (5.0,))
    plan = Plan(mean=jnp.array([[0.0], [1.0], [2.0]]), std=jnp.full((3, 1), 1e-6))

    def flat(actions):
        return 0.0 * actions.sum()

    once = jax.jit(lambda plan, key: planner.plan(flat, plan, key, 1.0, False))
    _, next_plan = once(plan, jax.random.key(0))
    np.testing.assert_allclose(next_plan.mean[:, 0], expected, atol=1e-4)
