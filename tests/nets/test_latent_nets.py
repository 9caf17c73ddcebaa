"""Layers whose outputs are known, and the size of the paper's networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from benchmarks import operations
from planil_jax.base import EnvSpec
from planil_jax.models import latent as models
from planil_jax.nets import latent

SMALL = latent.Config(latent=16, encoder=(12,), hidden=(12, 12), critics=3)
KEY = jax.random.key(0)


def normal(*shape, seed: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def count(params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_the_paper_s_networks_have_the_paper_s_number_of_parameters():
    """4.27 million with 91 observations and 39 actions (Li, Huang & Su 2025)."""
    spec = EnvSpec("hand", ("q",) * 91, (-1.0,) * 39, (1.0,) * 39, 100, 0.02)
    config = latent.Config()

    def init(key):
        return (
            models.make(spec, config).init(key),
            latent.make_policy(config, 39).init(key),
            latent.make_critics(config, 39).init(key),
        )

    assert count(jax.eval_shape(init, KEY)) == 4_274_259


def test_mish_by_one_exponential_is_mish():
    x = jnp.concatenate([jnp.linspace(-90, 90, 1801), jnp.array([-1e4, 1e4])])
    np.testing.assert_allclose(latent.mish(x), jax.nn.mish(x), rtol=2e-6, atol=1e-7)
    tanh = np.tanh(np.logaddexp(0.0, np.float64(x)))
    wanted = tanh + x * (1 - tanh**2) / (1 + np.exp(-np.float64(x)))
    slopes = jax.vmap(jax.grad(latent.mish))(x)
    np.testing.assert_allclose(slopes, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [(16,), (16, 2), (16, 9)])
def test_a_normalised_layer_and_its_gradients_equal_flax_s_layer_norm(sizes):
    """flax.linen.LayerNorm of Σ_i x_i W_i + b, far from mean 0; second derivatives too."""
    inputs = [3 + normal(7, size, seed=size) for size in sizes]
    kernel, bias = 0.5 + normal(sum(sizes), 12), 2 + normal(12, seed=3)
    target = normal(7, 12, seed=4)
    norm = nn.LayerNorm(epsilon=1e-5, use_scale=False, use_bias=False)

    def library(kernel, bias, *inputs):
        return norm.apply({}, jnp.concatenate(inputs, axis=-1) @ kernel + bias)

    def outputs_and_gradients(layer):
        def loss(*args):
            return jnp.sum((layer(*args) - target) ** 2)

        def squared_gradients(*args):
            return sum(jnp.sum(g**2) for g in jax.grad(loss, every)(*args)[2:])

        every = tuple(range(2 + len(sizes)))
        return jax.jit(
            lambda *args: (
                layer(*args),
                jax.grad(loss, every)(*args),
                jax.grad(squared_gradients, every)(*args),
            )
        )(kernel, bias, *inputs)

    for found, wanted in zip(
        jax.tree.leaves(outputs_and_gradients(latent.normalised)),
        jax.tree.leaves(outputs_and_gradients(library)),
        strict=True,
    ):
        np.testing.assert_allclose(
            found, wanted, rtol=1e-3, atol=2e-4 * np.abs(wanted).max()
        )


@pytest.mark.parametrize("of, products", [((2,), 2), ((0,), 2), ((0, 2), 3), ((1,), 1)])
def test_arguments_without_a_gradient_cost_no_products(of, products):
    """A layer is one product, and so is the gradient of its kernel (0) or input (2)."""
    args = normal(16, 12), normal(12, seed=2), normal(7, 16, seed=3)

    def loss(kernel, bias, x):
        return jnp.sum(latent.normalised(kernel, bias, x) ** 3)

    assert operations.count(jax.grad(loss, of), *args) == products * 2 * 7 * 16 * 12
    gradients = jax.jit(jax.grad(loss, of))(*args)
    every = jax.jit(jax.grad(loss, (0, 1, 2)))(*args)
    for found, wanted in zip(gradients, (every[i] for i in of), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_every_simnorm_group_of_a_latent_state_adds_up_to_one():
    encoder = latent.make_encoder(SMALL, 4)
    z = encoder.apply(encoder.init(KEY), 10 * normal(5, 4))
    assert z.shape == (5, 16) and z.min() >= 0
    np.testing.assert_allclose(z.reshape(5, 2, 8).sum(-1), 1.0, rtol=1e-6)


def test_a_layer_of_two_inputs_equals_the_layer_of_their_concatenation():
    config = latent.Config(latent=16, hidden=(12,))
    both, one = latent.make_head(config, (16, 2), 1), latent.make_head(config, (18,), 1)
    z, action = normal(7, 16), normal(7, 2, seed=2)
    params = jax.tree.map(lambda leaf: leaf + normal(*leaf.shape), both.init(KEY))
    alone = one.apply(params, jnp.concatenate([z, action], axis=-1))
    np.testing.assert_allclose(both.apply(params, z, action), alone, rtol=1e-4, atol=1e-5)


def test_critics_start_at_zero_and_are_different_networks():
    critics = latent.make_critics(SMALL, 2)
    params, apply = jax.jit(critics.init)(KEY), jax.jit(critics.apply)
    z, action = normal(7, 16), normal(7, 2, seed=2)
    assert not apply(params, z, action).any()
    params = jax.tree.map(lambda leaf: leaf + 0.1 * np.array(normal(*leaf.shape)), params)
    values, subset_of = apply(params, z, action), jax.jit(latent.random_subset)
    assert values.shape == (3, 7, 1)
    assert len({float(value) for value in values[:, 0, 0]}) == 3
    for subset in (subset_of(params, jax.random.key(seed)) for seed in range(5)):
        rows = apply(subset, z, action)
        found = [
            [m for m in range(3) if np.allclose(row, values[m], rtol=1e-5)] for row in rows
        ]
        assert len(rows) == 2 and found[0] != found[1] and all(map(len, found))


def test_every_critic_is_drawn_equally_often():
    members = jnp.arange(5)
    keys = jax.random.split(KEY, 2000)
    drawn = jax.jit(jax.vmap(lambda key: latent.random_subset(members, key)))(keys)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    shares = np.bincount(np.asarray(drawn).ravel(), minlength=5) / drawn.size
    np.testing.assert_allclose(shares, 0.2, atol=0.03)


def test_units_drop_out_only_with_a_key():
    critics = latent.make_critics(
        latent.Config(latent=16, hidden=(12, 12), critics=2, dropout=0.5), 2
    )
    params, apply = jax.jit(critics.init)(KEY), jax.jit(critics.apply)
    params = jax.tree.map(lambda leaf: np.array(leaf) + np.float32(0.1), params)
    z, action = normal(7, 16), normal(7, 2, seed=2)
    without = apply(params, z, action)
    first, again, other = (
        apply(params, z, action, key=jax.random.key(seed)) for seed in (1, 1, 2)
    )
    assert (first == again).all() and (first != other).any() and (first != without).any()


@pytest.mark.parametrize("mean", [0.0, 1.5])
def test_the_policy_s_density_integrates_to_one(mean):
    policy = latent.make_policy(latent.Config(latent=16, hidden=(12,), std=0.5), 1)
    chosen = jax.jit(lambda: policy.apply(policy.init(KEY), normal(16)))()
    chosen = chosen.replace(mean=jnp.full((1,), mean))
    log_prob = jax.jit(lambda action: policy.log_prob(chosen, action))

    def density(action: float) -> float:
        return float(np.exp(log_prob(np.float32([action]))))

    assert abs(integrate.quad(density, -0.9998, 0.9998, limit=200)[0] - 1.0) < 1e-3


def test_the_log_density_of_many_action_entries_is_the_sum_of_theirs():
    """The published code multiplies the Gaussian part by the number of actions."""
    policy = latent.make_policy(latent.Config(latent=16, hidden=(12,)), 6)
    chosen = policy.apply(policy.init(KEY), normal(16))
    action, log_prob = policy.sample(chosen, KEY)
    one = latent.make_policy(latent.Config(latent=16, hidden=(12,)), 1)
    log_probs = [
        one.log_prob(
            jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], chosen), action[i : i + 1]
        )
        for i in range(6)
    ]
    np.testing.assert_allclose(sum(log_probs), log_prob, rtol=1e-3)
