from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.data import replay

insert = jax.jit(replay.insert)
_sample = jax.jit(replay.sample, static_argnums=2)


def sample(ring, seed: int, power: float = 1.0):
    """20 000 steps, as numpy."""
    drawn = _sample(ring, jax.random.key(seed), 20_000, jnp.float32(power))
    return jax.tree.map(np.array, drawn)


def steps(first: int, length: int, environments: int):
    """A rollout `[T, E]` whose every leaf tells the number of its step."""
    number = np.arange(first, first + length * environments, dtype=np.int32)
    number = number.reshape(length, environments)
    return {
        "number": number,
        "obs": np.stack([number, -number, 2 * number], axis=-1).astype(np.float32),
        "odd": number % 2 == 1,
    }


def empty(capacity: int, environments: int) -> replay.Replay:
    one = jax.tree.map(lambda leaf: leaf[0, 0], steps(0, 1, 1))
    return replay.init(one, capacity, environments)


def filled(capacity: int, environments: int, rollouts: tuple[int, ...]):
    """A ring after rollouts of these lengths, and the numbers that it should hold."""
    ring, held, first = empty(capacity, environments), deque(maxlen=capacity), 0
    for length in rollouts:
        new = steps(first, length, environments)
        ring = insert(ring, new)
        held.extend(new["number"])
        first += length * environments
    return ring, np.array(held)


def chi_square(drawn, cells) -> float:
    """Of the counts of `drawn` against equal shares for the `cells`."""
    counts = np.array([(drawn == cell).sum() for cell in cells.ravel()])
    expected = drawn.size / cells.size
    return ((counts - expected) ** 2 / expected).sum()


@pytest.mark.parametrize(
    "rollouts", [(2,), (3, 2), (3, 3), (3, 2, 3), (5,), (5, 5), (2,) * 8, (3, 5, 2, 2)]
)
def test_the_ring_holds_the_newest_steps_and_has_overwritten_the_oldest(rollouts):
    ring, held = filled(5, 2, rollouts)
    assert ring.size == len(held)
    oldest = int(ring.cursor) if len(held) == 5 else 0
    rows = (oldest + np.arange(len(held))) % 5
    np.testing.assert_array_equal(ring.steps["number"][rows], held)  # in order of age


def test_an_empty_ring_has_the_shapes_and_types_of_a_step():
    ring = empty(5, 2)
    assert (int(ring.size), int(ring.cursor)) == (0, 0)
    kinds = {name: (leaf.shape, leaf.dtype) for name, leaf in ring.steps.items()}
    assert kinds == {
        "number": ((5, 2), jnp.int32),
        "obs": ((5, 2, 3), jnp.float32),
        "odd": ((5, 2), jnp.bool_),
    }


def test_inserting_keeps_shapes_and_types():
    before = jax.eval_shape(lambda: empty(5, 2))
    after = jax.eval_shape(insert, before, steps(0, 3, 2))

    def kinds(tree):
        return [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(tree)]

    assert kinds(before) == kinds(after)


@pytest.mark.parametrize("rollouts", [(3,), (5,), (5, 3)])
def test_samples_are_uniform_over_what_is_held_and_nothing_else(rollouts):
    """χ² of k cells has mean k - 1 and variance 2 (k - 1): five deviations above it."""
    ring, held = filled(5, 2, rollouts)
    for seed in range(3):
        drawn = sample(ring, seed)["number"]
        assert set(drawn) == set(held.ravel())
        free = held.size - 1
        assert chi_square(drawn, held) < free + 5 * np.sqrt(2 * free)


def test_a_sample_is_a_whole_step():
    ring, _ = filled(5, 2, (5, 3))
    drawn = sample(ring, 0)
    number = drawn["number"]
    assert drawn["obs"].shape == (20_000, 3)
    np.testing.assert_array_equal(drawn["obs"], np.stack([number, -number, 2 * number], 1))
    np.testing.assert_array_equal(drawn["odd"], number % 2 == 1)


def test_two_keys_draw_two_samples_and_one_key_the_same():
    ring, _ = filled(5, 2, (5,))
    first, again, other = (sample(ring, seed)["number"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("rollouts", [(60,), (60, 40), (40,)])
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_the_oldest_share_q_is_drawn_with_probability_q_to_one_over_the_power(
    power, rollouts
):
    """Of a full ring, of one that has wrapped and of one partly filled; within 0.02."""
    ring, held = filled(60, 1, rollouts)
    drawn = sample(ring, 0, power)["number"]
    for q in (0.1, 0.25, 0.5):
        oldest = held[: round(q * len(held))]
        share = np.isin(drawn, oldest).mean()
        np.testing.assert_allclose(share, q ** (1 / power), atol=0.02)


def test_the_environment_of_a_sample_says_nothing_of_its_age():
    ring, held = filled(5, 2, (5,))
    drawn = sample(ring, 0, 3.0)["number"]
    for row in held:
        of_row = drawn[np.isin(drawn, row)]
        np.testing.assert_allclose((of_row == row[0]).mean(), 0.5, atol=0.06)
