import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.nets import normalise

update, apply = jax.jit(normalise.update), jax.jit(normalise.apply)


def draws(seed: int, count: int, size: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scale, shift = rng.uniform(0.1, 5.0, size), rng.normal(0, 10.0, size)
    return np.float32(shift + scale * rng.normal(size=(count, size)))


@pytest.mark.parametrize("counts", [(1, 1), (7, 3), (2, 50), (20, 20, 5)])
def test_the_moments_of_batches_are_those_of_all_rows_together(counts):
    batches = [draws(seed, count) for seed, count in enumerate(counts)]
    moments = functools.reduce(update, batches, normalise.init(3))
    rows = np.float64(np.concatenate(batches))
    assert moments.count == sum(counts)
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-4)
    np.testing.assert_allclose(moments.variance, rows.var(0), rtol=1e-4)


def test_all_leading_axes_count_alike():
    rows = draws(0, 24)
    flat = update(normalise.init(3), rows)
    folded = update(normalise.init(3), rows.reshape(4, 6, 3))
    for one, other in zip(jax.tree.leaves(flat), jax.tree.leaves(folded), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_initial_moments_change_nothing():
    x = np.float32([[0.5, -3.0, 9.0], [1e-3, 0.0, -7.0]])
    np.testing.assert_array_equal(apply(normalise.init(3), x), x)


def test_data_normalised_by_its_own_moments_has_mean_0_and_variance_1():
    rows = draws(1, 200)
    normalised = np.array(apply(update(normalise.init(3), rows), rows))
    np.testing.assert_allclose(normalised.mean(0), 0.0, atol=1e-4)
    np.testing.assert_allclose(normalised.var(0), 1.0, rtol=1e-4)


def test_at_the_cap_the_weight_of_old_data_decays():
    """A cap of 30 and batches of 10: the weight of old data falls to 3/4 with every batch.

    The old mean is 8, the new one 0; the variance is that of the mixture, 64 p (1 - p).
    """
    moments = normalise.init(1)
    for _ in range(20):
        moments = update(moments, jnp.full((10, 1), 8.0), 30.0)
    assert moments.count == 30.0
    for age in range(1, 6):
        moments = update(moments, jnp.zeros((10, 1)), 30.0)
        old = 0.75**age
        assert moments.count == 30.0
        np.testing.assert_allclose(moments.mean, [8 * old], rtol=1e-5)
        np.testing.assert_allclose(moments.variance, [64 * old * (1 - old)], rtol=1e-4)


def test_without_a_cap_all_data_count_alike():
    moments = normalise.init(1)
    for _ in range(20):
        moments = update(moments, jnp.full((10, 1), 8.0))
    moments = update(moments, jnp.zeros((200, 1)))
    np.testing.assert_allclose(moments.mean, [4.0], rtol=1e-5)


def test_outliers_are_clipped_at_ten_standard_deviations():
    moments = update(normalise.init(1), np.float32([[-2.0], [2.0]]))
    normalised = apply(moments, np.float32([[1e6], [-1e6], [6.0]]))
    np.testing.assert_allclose(normalised, [[10.0], [-10.0], [3.0]], rtol=1e-6)


def test_an_entry_that_never_changed_is_finite_and_small_when_normalised():
    moments = update(normalise.init(2), np.float32([[3.0, 1.0], [3.0, 2.0]]))
    normalised = apply(moments, np.float32([[3.0, 1.5], [3.001, 1.5]]))
    np.testing.assert_allclose(normalised, [[0.0, 0.0], [1.0, 0.0]], atol=1e-3)


def test_moments_keep_their_dtypes():
    moments = update(normalise.init(3), draws(0, 4), 30.0)
    before, after = jax.tree.leaves(normalise.init(3)), jax.tree.leaves(moments)
    for old, new in zip(before, after, strict=True):
        assert (old.shape, old.dtype, new.weak_type) == (new.shape, new.dtype, False)


@pytest.mark.parametrize(
    ("mean", "std"), [(0, 1e-4), (0, 1e-6), (0, 1e6), (1e6, 1), (3, 1e-5)]
)
def test_entries_of_every_scale_have_variance_1_when_normalised(mean, std):
    draws = np.random.default_rng(0).normal(mean, std, (64, 1)).astype(np.float32)
    moments = normalise.init(1)
    for _ in range(50):
        moments = normalise.update(moments, jnp.asarray(draws))
    assert np.std(normalise.apply(moments, jnp.asarray(draws))) == pytest.approx(
        1, abs=0.05
    )
