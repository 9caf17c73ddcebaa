import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.losses import two_hot

pytestmark = pytest.mark.fast


def test_decoding_undoes_encoding():
    x = jnp.array([0.0, 0.3, -0.3, 1.0, 17.5, -250.0, 20_000.0])
    logits = jnp.log(two_hot.encode(x) + 1e-30)
    np.testing.assert_allclose(two_hot.decode(logits), x, rtol=1e-3, atol=1e-5)


def test_at_most_two_weights_are_positive_and_they_add_up_to_one():
    weights = two_hot.encode(jnp.array([0.3, -12.0, 0.0, 1e9, -1e9]))
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
    assert ((weights > 0).sum(-1) <= 2).all()
    assert weights[2, 50] == 1.0 and weights[3, -1] == 1.0 and weights[4, 0] == 1.0


def test_symexp_undoes_symlog():
    x = jnp.linspace(-100, 100, 201)
    np.testing.assert_allclose(two_hot.symexp(two_hot.symlog(x)), x, rtol=1e-5, atol=1e-5)


def test_the_cross_entropy_is_least_at_the_number():
    def fitted(x):
        def step(_, logits):
            return logits - 2.0 * jax.grad(two_hot.cross_entropy)(logits, x)

        return two_hot.decode(jax.lax.fori_loop(0, 300, step, jnp.zeros((two_hot.BINS,))))

    np.testing.assert_allclose(jax.jit(fitted)(jnp.array(5.0)), 5.0, rtol=0.05)
