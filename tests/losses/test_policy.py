import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.losses import policy

pytestmark = pytest.mark.fast

# ------------------------------------------------------------------------------ surrogate

OLD = np.float32([-1.0, 0.3, -2.0, 0.7])
ADVANTAGES = np.float32([1.5, -0.5, 2.0, -3.0])
surrogate = jax.jit(policy.clipped_surrogate, static_argnums=3)
surrogate_slope = jax.jit(jax.grad(policy.clipped_surrogate), static_argnums=3)


def at_ratios(ratios) -> jax.Array:
    return jnp.asarray(OLD + np.log(ratios), jnp.float32)


def test_at_ratio_1_the_surrogate_is_the_mean_advantage_and_its_gradient_reinforce():
    """-∇ E[log π(a|s) A]: with respect to a log-probability, -A / B."""
    np.testing.assert_allclose(surrogate(OLD, OLD, ADVANTAGES, 0.2), 0.0, atol=1e-6)
    shifted = surrogate(OLD, OLD, ADVANTAGES + 1, 0.2)
    np.testing.assert_allclose(shifted, -1.0, rtol=1e-6)
    slope = surrogate_slope(OLD, OLD, ADVANTAGES, 0.2)
    np.testing.assert_allclose(slope, -ADVANTAGES / 4, rtol=1e-5)


def test_the_surrogate_is_the_one_computed_by_hand():
    # min(ρ A, clip(ρ) A): 1.2 · 1.5, 0.8 · -0.5, 0.5 · 2, 2 · -3
    found = surrogate(at_ratios([2.0, 0.5, 0.5, 2.0]), OLD, ADVANTAGES, 0.2)
    np.testing.assert_allclose(found, -(1.8 - 0.4 + 1.0 - 6.0) / 4, rtol=1e-5)


def test_the_surrogate_is_flat_outside_the_clip_where_it_gained_and_steep_where_it_lost():
    slope = surrogate_slope(at_ratios([2.0, 0.5, 0.5, 2.0]), OLD, ADVANTAGES, 0.2)
    np.testing.assert_array_equal(
        slope[:2], 0.0
    )  # gained more than the clip: no more of it
    np.testing.assert_allclose(slope[2:], [-0.5 * 2.0 / 4, 2.0 * 3.0 / 4], rtol=1e-5)


def test_the_surrogate_is_never_better_than_unclipped_importance_weights():
    rng = np.random.default_rng(0)
    for _ in range(20):
        ratios = np.exp(rng.normal(0, 0.7, 4))
        found = surrogate(at_ratios(ratios), OLD, ADVANTAGES, 0.2)
        assert found >= -np.mean(ratios * ADVANTAGES) - 1e-6


def test_the_surrogate_of_extreme_ratios_is_finite():
    far = jnp.asarray(OLD + np.float32([1e4, -1e4, 200.0, 300.0]))
    assert jnp.isfinite(surrogate(far, OLD, ADVANTAGES, 0.2))
    assert jnp.isfinite(surrogate_slope(far, OLD, ADVANTAGES, 0.2)).all()


# ----------------------------------------------------------------------------- soft actor


def test_the_soft_actor_loss_is_the_one_computed_by_hand():
    log_probs, values = jnp.array([1.0, -2.0]), jnp.array([3.0, 0.5])
    found = policy.soft_actor(log_probs, values, jnp.float32(0.1))
    np.testing.assert_allclose(found, ((0.1 - 3.0) + (-0.2 - 0.5)) / 2, rtol=1e-6)


def test_descent_on_the_soft_actor_loss_raises_entropy_and_value():
    log_probs, values = jnp.array([1.0, -2.0]), jnp.array([3.0, 0.5])
    slopes = jax.grad(policy.soft_actor, (0, 1))(log_probs, values, jnp.float32(0.1))
    np.testing.assert_allclose(slopes, [[0.05, 0.05], [-0.5, -0.5]], rtol=1e-6)


@pytest.mark.parametrize(
    ("log_prob", "sign"),
    [
        (2.5, -1.0),
        (1.5, 1.0),
        (2.0, 0.0),
    ],  # the entropies are -2.5, -1.5 and -2; the target is -2
)
def test_the_temperature_rises_while_the_entropy_is_below_its_target(log_prob, sign):
    """Descent goes against the gradient, α (H - H̄) of log α."""
    log_probs = jnp.full((4,), log_prob)
    slope = jax.grad(policy.soft_temperature)(jnp.log(0.2), log_probs, -2.0)
    np.testing.assert_allclose(slope, sign * 0.2 * 0.5, atol=1e-6)


def test_the_temperature_loss_does_not_move_the_policy():
    log_probs = jnp.array([2.5, 0.5])
    loss, slope = jax.value_and_grad(policy.soft_temperature, 1)(jnp.log(0.2), log_probs, 1)
    assert loss != 0.0
    np.testing.assert_array_equal(slope, 0.0)


# -------------------------------------------------------------------------------- cloning


def test_the_likelihood_loss_is_the_negative_mean_and_rewards_likely_actions():
    log_probs = jnp.array([-1.0, 2.0, -4.0])
    loss, slope = jax.value_and_grad(policy.cloning_likelihood)(log_probs)
    np.testing.assert_allclose(loss, 1.0, rtol=1e-6)
    np.testing.assert_allclose(slope, -1 / 3, rtol=1e-6)


def test_the_cloning_error_sums_over_entries_and_averages_over_the_batch():
    actions, expert = jnp.array([[1.0, 2.0], [0.0, 0.0]]), jnp.array([[0.0, 0.0], [3.0, 0]])
    loss, slope = jax.value_and_grad(policy.cloning_error)(actions, expert)
    np.testing.assert_allclose(loss, (5.0 + 9.0) / 2, rtol=1e-6)
    np.testing.assert_allclose(slope, [[1.0, 2.0], [-3.0, 0.0]], rtol=1e-6)


def test_minimising_the_likelihood_loss_finds_the_mean_and_the_deviation():
    """Of a Gaussian and actions ±1 about 3: mean 3 and deviation 1 are stationary."""
    actions = jnp.array([2.0, 4.0])

    def loss(mean, log_std):
        z = (actions - mean) / jnp.exp(log_std)
        log_probs = -0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)
        return policy.cloning_likelihood(log_probs)

    slopes = jax.grad(loss, (0, 1))
    np.testing.assert_allclose(slopes(3.0, 0.0), 0.0, atol=1e-6)
    assert slopes(2.5, 0.0)[0] < 0 < slopes(3.5, 0.0)[0]
    assert slopes(3.0, -0.5)[1] < 0 < slopes(3.0, 0.5)[1]


# --------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("part", range(3))
def test_a_surrogate_of_anything_but_lists_is_refused(part):
    case = [OLD, OLD, ADVANTAGES]
    case[part] = case[part][:, None]
    with pytest.raises(AssertionError):
        policy.clipped_surrogate(*map(jnp.asarray, case), 0.2)


@pytest.mark.parametrize("part", range(2))
def test_a_soft_actor_of_anything_but_lists_is_refused(part):
    case = [jnp.zeros(3), jnp.zeros(3)]
    case[part] = case[part][:, None]
    with pytest.raises(AssertionError):
        policy.soft_actor(*case, jnp.float32(0.1))


def test_cloning_of_unequal_shapes_is_refused():
    with pytest.raises(AssertionError):
        policy.cloning_error(jnp.zeros((4, 2)), jnp.zeros((4, 1)))
    with pytest.raises(AssertionError):
        policy.cloning_error(jnp.zeros(4), jnp.zeros(4))
    with pytest.raises(AssertionError):
        policy.cloning_likelihood(jnp.zeros((4, 1)))
