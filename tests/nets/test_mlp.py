import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.nets import mlp


def kernels_and_biases(params):
    """The layers in order, in double precision."""
    layers = params["params"]
    return [
        (
            np.float64(layers[f"Dense_{i}"]["kernel"]),
            np.float64(layers[f"Dense_{i}"]["bias"]),
        )
        for i in range(len(layers))
    ]


def made(make_fn, activation: str, *sizes):
    """A network, and parameters drawn by numpy: initialisers are slow to compile."""
    network = make_fn(mlp.Config(hidden=(5, 4), activation=activation), *sizes)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes
    )
    return network.apply, params


@pytest.mark.parametrize("lead", [(), (6,), (2, 3)])
def test_leading_axes_pass_through(lead):
    apply, params = made(mlp.make, "relu", (3, 2), 7)
    out = jax.eval_shape(apply, params, np.ones((*lead, 3)), np.ones((*lead, 2)))
    assert out.shape == (*lead, 7) and out.dtype == jnp.float32


@pytest.mark.parametrize("lead", [(), (6,), (2, 3)])
def test_a_scalar_network_has_no_axis_for_its_output(lead):
    apply, params = made(mlp.make_scalar, "relu", (3,))
    assert jax.eval_shape(apply, params, np.ones((*lead, 3))).shape == lead


def test_a_scalar_network_is_the_network_with_one_output():
    inputs = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    (scalar, params), (vector, same) = (
        made(mlp.make_scalar, "relu", (3,)),
        made(mlp.make, "relu", (3,), 1),
    )
    jax.tree.map(np.testing.assert_array_equal, params, same)
    expected = np.array(vector(params, inputs))[:, 0]
    np.testing.assert_allclose(scalar(params, inputs), expected, rtol=1e-6)


def test_a_network_has_the_layers_that_its_config_says():
    _, params = made(mlp.make, "relu", (3, 2), 7)
    shapes = [kernel.shape for kernel, _ in kernels_and_biases(params)]
    assert shapes == [(5, 5), (5, 4), (4, 7)]


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("elu", lambda x: np.where(x > 0, x, np.expm1(x))),
        ("leaky_relu", lambda x: np.where(x > 0, x, 0.2 * x)),
        ("relu", lambda x: np.maximum(x, 0)),
        ("silu", lambda x: x / (1 + np.exp(-x))),
        ("tanh", np.tanh),
    ],
)
def test_the_output_agrees_with_a_plain_loop_over_layers(activation, function):
    apply, params = made(mlp.make, activation, (3, 2), 7)
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    out = apply(params, np.float32(left), np.float32(right))
    x = np.concatenate([left, right], axis=1)
    *hidden, (kernel, bias) = kernels_and_biases(params)
    for kernel_h, bias_h in hidden:
        x = function(x @ kernel_h + bias_h)
    np.testing.assert_allclose(out, x @ kernel + bias, atol=1e-5)


def test_every_activation_of_the_table_is_tried_here():
    marks = test_the_output_agrees_with_a_plain_loop_over_layers.pytestmark
    assert {name for name, _ in marks[0].args[1]} == set(mlp.ACTIVATIONS)


def test_two_keys_give_two_networks_and_one_key_the_same():
    init = mlp.make(mlp.Config(hidden=(5,)), (3,), 2).init
    first, again, other = (init(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for (kernel, _), (another, _) in zip(
        kernels_and_biases(first), kernels_and_biases(other), strict=True
    ):
        assert (kernel != another).all()


def test_gradients_reach_every_layer():
    apply, params = made(mlp.make_scalar, "leaky_relu", (3,))
    inputs = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    gradients = jax.jit(jax.grad(lambda params: apply(params, inputs).sum()))(params)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(gradients))
