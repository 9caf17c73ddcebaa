import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.losses import world_model

pytestmark = pytest.mark.fast


def test_a_perfect_prediction_costs_nothing():
    z = jnp.arange(24.0).reshape(3, 2, 4)
    assert world_model.consistency(z, z, 0.5) == 0.0


def test_later_errors_count_less():
    z = jnp.zeros((3, 2, 4))
    for t, share in enumerate((1.0, 0.5, 0.25)):
        found = world_model.consistency(z.at[t].set(2.0), z, 0.5)
        np.testing.assert_allclose(found, 4.0 * share / 3)


def test_the_mean_over_the_horizon_is_weighted_by_powers_of_the_decay():
    found = world_model.over_horizon(jnp.array([1.0, 10.0, 100.0]), 0.1)
    np.testing.assert_allclose(found, (1.0 + 1.0 + 1.0) / 3)


# ----------------------------------------------------------------- beliefs and their bound


def gaussians(seed: int, shape=(5,)):
    """Mean and deviation of two of them."""
    rng = np.random.default_rng(seed)
    means, stds = rng.normal(size=(2, *shape)), rng.uniform(0.3, 2.0, size=(2, *shape))
    return (means[0], stds[0]), (means[1], stds[1])


def test_the_divergence_of_a_gaussian_from_itself_is_zero():
    one, _ = gaussians(0, (4, 5))
    np.testing.assert_allclose(world_model.kl(*one, *one), np.zeros(4), atol=1e-6)


def test_the_divergence_is_the_mean_of_log_ratios():
    """400,000 draws: within 0.02 nats, five standard errors of the mean."""
    for seed in range(3):
        (mean, std), (other, other_std) = pair = gaussians(seed)
        draws = mean + std * np.random.default_rng(9).normal(size=(400_000, 5))
        ratios = -0.5 * ((draws - mean) / std) ** 2 - np.log(std)
        ratios += 0.5 * ((draws - other) / other_std) ** 2 + np.log(other_std)
        wanted = ratios.sum(axis=1).mean()
        np.testing.assert_allclose(world_model.kl(*pair[0], *pair[1]), wanted, atol=0.02)


def test_with_a_balance_of_0_8_the_prior_s_gradient_is_four_times_the_posterior_s():
    """The balance is 0.8. The slopes without it are those of the divergence itself."""
    posterior, prior = jax.tree.map(jnp.float32, gaussians(3, (6, 5)))

    def plain(posterior, prior):
        return jnp.mean(world_model.kl(*posterior, *prior))

    def balanced(posterior, prior):
        return world_model.balanced_kl(posterior, prior, 0.8, 0.0)

    both = [jax.grad(fn, (0, 1))(posterior, prior) for fn in (plain, balanced)]
    for (whole, found), share in zip(zip(*both, strict=True), (0.2, 0.8), strict=True):
        for one, other in zip(whole, found, strict=True):
            np.testing.assert_allclose(share * one, other, rtol=1e-5)
    np.testing.assert_allclose(
        balanced(posterior, prior), plain(posterior, prior), rtol=1e-6
    )


def test_free_nats_apply_to_the_mean_and_below_them_the_gradient_is_zero():
    (mean, std), _ = gaussians(0, (2, 5))
    far = jnp.stack([mean[0] + 3 * std[0], mean[1]])  # 22.5 nats and none
    arguments = (mean, std), (far, std), 0.8
    np.testing.assert_allclose(world_model.balanced_kl(*arguments, 1.0), 11.25, rtol=1e-5)
    np.testing.assert_allclose(world_model.balanced_kl(*arguments, 12.0), 12.0)
    slope = jax.grad(
        lambda prior: world_model.balanced_kl((mean, std), (prior, std), 0.8, 12.0)
    )(far)
    assert not np.asarray(slope).any()


def test_with_the_exact_posterior_the_bound_is_the_kalman_filter_s_likelihood():
    """x' = 0.8 x + N(0, 0.5²), y = x + N(0, 1): q(x_t | x_{t-1}) is made of all later
    observations, by messages; expectations are exact, by quadrature of quadratics."""
    rng, push, noise = np.random.default_rng(0), 0.8, 0.5
    observations = rng.normal(size=8)
    # Kalman's filter, from x = 0.
    mean, variance, wanted = 0.0, 0.0, 0.0
    for y in observations:
        mean, variance = push * mean, push**2 * variance + noise**2
        wanted -= 0.5 * np.log(2 * np.pi * (variance + 1))
        wanted -= 0.5 * (y - mean) ** 2 / (variance + 1)
        gain = variance / (variance + 1)
        mean, variance = mean + gain * (y - mean), (1 - gain) * variance
    # Messages from the future: exp(-½ precision x² + pull x).
    precision, pull, messages = 0.0, 0.0, []
    for y in reversed(observations):
        precision, pull = precision + 1, pull + y
        messages.insert(0, (precision, pull))
        shrunk = 1 / (1 + precision * noise**2)
        precision, pull = push**2 * precision * shrunk, push * pull * shrunk
    # The bound, along the marginals of q.
    mean, variance, bound = 0.0, 0.0, 0.0
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    weights = weights / weights.sum()
    for y, (precision, pull) in zip(observations, messages, strict=True):
        prior = push * (mean + np.sqrt(variance) * nodes)[:, None]  # [3, 1]
        std = np.full_like(prior, np.sqrt(1 / (precision + 1 / noise**2)))
        posterior = std**2 * (prior / noise**2 + pull)
        cost = world_model.kl(posterior, std, prior, np.full_like(prior, noise))
        slope = std[0, 0] ** 2 * push / noise**2
        mean, variance = weights @ posterior[:, 0], slope**2 * variance + std[0, 0] ** 2
        bound += -0.5 * np.log(2 * np.pi) - 0.5 * ((y - mean) ** 2 + variance)
        bound -= weights @ np.asarray(cost)
    np.testing.assert_allclose(bound, wanted, atol=1e-4)
