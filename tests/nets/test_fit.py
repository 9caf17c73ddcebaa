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
    fitter = fit.make(optax.sgd(0.1))
    fitted = fitter.init({"w": jnp.array([1.0, 2.0])})
    np.testing.assert_array_equal(fitted.params["w"], [1.0, 2.0])
    fitted = fitter.step(fitted, {"w": jnp.array([10.0, -5.0])})
    np.testing.assert_allclose(fitted.params["w"], [0.0, 2.5], atol=1e-6)


def test_the_optimiser_s_state_is_carried_from_step_to_step():
    """Momentum of 0.5 under a gradient of 1: moves of 1, 1.5, 1.75 times the rate."""
    fitter = fit.make(optax.sgd(0.1, momentum=0.5))
    fitted = fitter.init(jnp.array(0.0))
    path = []
    for _ in range(3):
        fitted = fitter.step(fitted, jnp.array(1.0))
        path.append(float(fitted.params))
    np.testing.assert_allclose(path, [-0.1, -0.25, -0.425], rtol=1e-5)


def test_weight_decay_sees_the_parameters():
    """AdamW with no gradient: w shrinks by rate times decay."""
    fitter = fit.make(optax.adamw(0.1, weight_decay=0.5))
    fitted = fitter.step(fitter.init(jnp.array(2.0)), jnp.array(0.0))
    np.testing.assert_allclose(fitted.params, 2.0 * (1 - 0.1 * 0.5), rtol=1e-6)


def test_a_step_keeps_shapes_and_types():
    fitter = fit.make(optax.adam(0.1))
    params = {"w": jnp.zeros((3, 2), jnp.float32)}
    before = jax.eval_shape(fitter.init, params)
    after = jax.eval_shape(fitter.step, before, params)

    def kinds(tree):
        return [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(tree)]

    assert kinds(before) == kinds(after)
