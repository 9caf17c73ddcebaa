import jax.numpy as jnp
import numpy as np

from planil_jax.losses import world_model


def test_a_perfect_prediction_costs_nothing():
    z = jnp.arange(24.0).reshape(3, 2, 4)
    assert world_model.consistency(z, z, 0.5) == 0.0


def test_errors_farther_ahead_count_less():
    z = jnp.zeros((3, 2, 4))
    for t, share in enumerate((1.0, 0.5, 0.25)):
        found = world_model.consistency(z.at[t].set(2.0), z, 0.5)
        np.testing.assert_allclose(found, 4.0 * share / 3)


def test_the_mean_over_the_horizon_is_weighted_by_powers_of_the_decay():
    found = world_model.over_horizon(jnp.array([1.0, 10.0, 100.0]), 0.1)
    np.testing.assert_allclose(found, (1.0 + 1.0 + 1.0) / 3)
