"""Operations counted in jaxprs, against numbers by hand and XLA's count."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import operations

A, B = jnp.ones((3, 4)), jnp.ones((4, 5))


def repeated(x, y):
    return jax.lax.scan(lambda total, _: (total + jnp.sum(x @ y), None), 0.0, None, 7)[0]


def either(x, y):
    return jax.lax.cond(x[0, 0] > 0, lambda: jnp.sum(x @ y), lambda: jnp.sum(x))


@pytest.mark.parametrize(
    "fn, args, wanted",
    [
        (jnp.matmul, (A, B), 2 * 3 * 4 * 5),
        (jax.jit(jnp.matmul), (A, B), 2 * 3 * 4 * 5),
        (jax.vmap(jnp.matmul, (0, None)), (jnp.ones((6, 3, 4)), B), 6 * 2 * 3 * 4 * 5),
        (repeated, (A, B), 7 * 2 * 3 * 4 * 5),
        (either, (A, B), 2 * 3 * 4 * 5),
        # One product forward, two backward.
        (jax.grad(lambda x, y: jnp.sum((x @ y) ** 2), (0, 1)), (A, B), 3 * 2 * 3 * 4 * 5),
        (jax.remat(jnp.matmul), (A, B), 2 * 3 * 4 * 5),
        (jnp.add, (A, A), 0),
    ],
)
def test_products_are_counted_as_by_hand(fn, args, wanted):
    assert operations.count(fn, *args) == wanted


def test_convolutions_are_counted_as_xla_counts_them():
    images, kernel = jnp.ones((2, 16, 16, 3)), jnp.ones((5, 5, 3, 8))

    def convolve(images, kernel):
        return jax.lax.conv_general_dilated(
            images, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    flops = jax.jit(convolve).lower(images, kernel).cost_analysis()["flops"]
    assert operations.count(convolve, images, kernel) == flops == 2 * 2 * 36 * 8 * 75
