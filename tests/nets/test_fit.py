import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from planil_jax.nets import fit


@pytest.mark.parametrize("rate", [0.01, 0.3, 1.0])
def test_after_n_averages_the_distance_to_a_constant_is_one_minus_rate_to_the_n(rate):
    target = {"w": jnp.array([4.0, -2.0]), "b": jnp.array(1.0)}
    online = {"w": jnp.array([0.0, 1.0]), "b": jnp.array(-1.0)}
    for n in range(1, 30):
        target = fit.polyak(target, online, rate)
        left = (1 - rate) ** n
        np.testing.assert_allclose(target["w"], [4 * left, 1 - 3 * left], atol=1e-5)
        np.testing.assert_allclose(target["b"], -1 + 2 * left, atol=1e-5)


def test_a_step_of_plain_descent_is_minus_the_rate_times_the_gradient():
    optimizer = fit.make(optax.sgd(0.1))
    fitted = optimizer.init({"w": jnp.array([1.0, 2.0])})
    np.testing.assert_array_equal(fitted.params["w"], [1.0, 2.0])
    fitted = optimizer.step(fitted, {"w": jnp.array([10.0, -5.0])})
    np.testing.assert_allclose(fitted.params["w"], [0.0, 2.5], atol=1e-6)


def test_the_state_of_the_optimiser_is_carried_from_step_to_step():
    """Momentum of 0.5 under a gradient of 1: moves of 1, 1.5, 1.75 times the rate."""
    optimizer = fit.make(optax.sgd(0.1, momentum=0.5))
    fitted = optimizer.init(jnp.array(0.0))
    path = []
    for _ in range(3):
        fitted = optimizer.step(fitted, jnp.array(1.0))
        path.append(float(fitted.params))
    np.testing.assert_allclose(path, [-0.1, -0.25, -0.425], rtol=1e-5)


def test_weight_decay_acts_on_the_parameters():
    """AdamW with no gradient: w shrinks by rate times decay."""
    optimizer = fit.make(optax.adamw(0.1, weight_decay=0.5))
    fitted = optimizer.step(optimizer.init(jnp.array(2.0)), jnp.array(0.0))
    np.testing.assert_allclose(fitted.params, 2.0 * (1 - 0.1 * 0.5), rtol=1e-6)


def test_a_step_keeps_shapes_and_types():
    optimizer = fit.make(optax.adam(0.1))
    params = {"w": jnp.zeros((3, 2), jnp.float32)}
    before = jax.eval_shape(optimizer.init, params)
    after = jax.eval_shape(optimizer.step, before, params)

    def kinds(tree):
        return [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(tree)]

    assert kinds(before) == kinds(after)


@pytest.mark.parametrize("half_life", [None, 0])
def test_without_a_half_life_the_learning_rate_is_constant(half_life):
    assert fit.exponential_decay(0.1, half_life) == 0.1


def test_a_learning_rate_halves_with_every_half_life_after_the_hold():
    schedule = fit.exponential_decay(0.8, 10, hold=5)
    rates = [float(schedule(step)) for step in (0, 5, 15, 20, 25)]
    np.testing.assert_allclose(rates, [0.8, 0.8, 0.4, 0.4 * 0.5**0.5, 0.2], rtol=1e-5)
