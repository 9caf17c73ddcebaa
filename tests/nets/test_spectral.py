import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.nets import mlp, spectral

norm = jax.jit(spectral.spectral_norm)


def matrix(shape, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def largest_singular_value(kernel) -> float:
    return np.linalg.svd(np.float64(kernel), compute_uv=False)[0]


# (14, 64) is the first layer of a discriminator of pairs of 7 entries.
@pytest.mark.parametrize("shape", [(5, 1), (14, 64), (64, 14), (64, 64)])
def test_the_spectral_norm_is_within_two_percent_of_the_largest_singular_value(shape):
    for seed in range(6):
        kernel = matrix(shape, seed)
        np.testing.assert_allclose(norm(kernel), largest_singular_value(kernel), rtol=0.02)


def test_the_spectral_norm_of_a_diagonal_matrix_is_its_largest_entry():
    kernel = np.zeros((14, 64), np.float32)
    kernel[[0, 1, 2], [0, 1, 2]] = 0.5, -7.0, 1.0
    np.testing.assert_allclose(norm(kernel), 7.0, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_spectral_norm_scales_with_the_matrix(scale):
    kernel = matrix((14, 64), 0)
    np.testing.assert_allclose(norm(scale * kernel), scale * norm(kernel), rtol=1e-3)


def test_kernels_are_divided_and_biases_are_unchanged():
    kernel, bias = matrix((3, 2), 0), matrix((2,), 1)
    normalised = jax.jit(spectral.normalise)({"kernel": kernel, "bias": bias})
    expected = kernel / largest_singular_value(kernel)
    np.testing.assert_allclose(normalised["kernel"], expected, rtol=1e-3)
    np.testing.assert_array_equal(normalised["bias"], bias)


def test_gradients_flow_through_the_norm_too():
    """diag(a, b) with a > b, normalised, is diag(1, b / a)."""
    jacobian = jax.jit(jax.jacrev(lambda kernel: jnp.diag(spectral.normalise(kernel))))
    observed = jacobian(jnp.diag(jnp.array([4.0, 1.0])))
    np.testing.assert_allclose(observed[0], np.zeros((2, 2)), atol=1e-6)
    np.testing.assert_allclose(observed[1], [[-1 / 16, 0], [0, 1 / 4]], atol=1e-6)


def test_a_normalised_leaky_relu_network_is_one_lipschitz_within_five_percent():
    config = mlp.Config(activation="leaky_relu")
    network = mlp.make_scalar(config, (14,))

    @jax.jit
    def slopes(params, left, right):
        """Slopes of the network between random pairs, and at random points, both `[B]`."""
        rises = jnp.abs(network.apply(params, left) - network.apply(params, right))
        distances = jnp.sqrt(jnp.sum((left - right) ** 2, axis=-1))
        gradients = jax.vmap(jax.grad(network.apply, 1), (None, 0))(params, left)
        return rises / distances, jnp.sqrt(jnp.sum(gradients**2, axis=-1))

    normalise = jax.jit(spectral.normalise)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    for seed in range(4):
        rng = np.random.default_rng(seed)
        draw = functools.partial(rng.standard_normal, dtype=np.float32)
        params = jax.tree.map(lambda leaf: draw(leaf.shape), shapes)  # noqa: B023
        left, right = draw((2, 500, 14))
        for output in slopes(normalise(params), left, right):
            assert 0.01 < output.max() <= 1.05
        assert slopes(params, left, right)[1].max() > 20  # it is not without normalising
