from collections import Counter, deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.data import replay

pytestmark = pytest.mark.fast

insert = jax.jit(replay.insert)
_sample = jax.jit(replay.sample, static_argnums=2)


def sample(buffer, seed: int, power: float = 1.0):
    """20 000 steps, as numpy."""
    drawn = _sample(buffer, jax.random.key(seed), 20_000, jnp.float32(power))
    return jax.tree.map(np.array, drawn)


def steps(first: int, length: int, num_envs: int):
    """A rollout `[T, E]` in which every leaf holds the number of its step."""
    number = np.arange(first, first + length * num_envs, dtype=np.int32)
    number = number.reshape(length, num_envs)
    return {
        "number": number,
        "obs": np.stack([number, -number, 2 * number], axis=-1).astype(np.float32),
        "odd": number % 2 == 1,
    }


def empty(capacity: int, num_envs: int) -> replay.Replay:
    one = jax.tree.map(lambda leaf: leaf[0, 0], steps(0, 1, 1))
    return replay.init(one, capacity, num_envs)


def filled(capacity: int, num_envs: int, rollouts: tuple[int, ...]):
    """A buffer after rollouts of these lengths, and the numbers that it should hold."""
    buffer, stored, first = empty(capacity, num_envs), deque(maxlen=capacity), 0
    for length in rollouts:
        new = steps(first, length, num_envs)
        buffer = insert(buffer, new)
        stored.extend(new["number"])
        first += length * num_envs
    return buffer, np.array(stored)


def chi_square(drawn, cells) -> float:
    """Of the counts of `drawn` against equal shares for the `cells`."""
    counts = np.array([(drawn == cell).sum() for cell in cells.ravel()])
    expected = drawn.size / cells.size
    return ((counts - expected) ** 2 / expected).sum()


@pytest.mark.parametrize(
    "rollouts", [(2,), (3, 2), (3, 3), (3, 2, 3), (5,), (5, 5), (2,) * 8, (3, 5, 2, 2)]
)
def test_the_buffer_holds_the_newest_steps(rollouts):
    buffer, stored = filled(5, 2, rollouts)
    assert buffer.size == len(stored)
    oldest = int(buffer.cursor) if len(stored) == 5 else 0
    rows = (oldest + np.arange(len(stored))) % 5
    np.testing.assert_array_equal(buffer.steps["number"][rows], stored)  # in order of age


def test_an_empty_buffer_has_the_shapes_and_dtypes_of_a_step():
    buffer = empty(5, 2)
    assert (int(buffer.size), int(buffer.cursor)) == (0, 0)
    kinds = {name: (leaf.shape, leaf.dtype) for name, leaf in buffer.steps.items()}
    assert kinds == {
        "number": ((5, 2), jnp.int32),
        "obs": ((5, 2, 3), jnp.float32),
        "odd": ((5, 2), jnp.bool_),
    }


def test_inserting_keeps_shapes_and_dtypes():
    before = jax.eval_shape(lambda: empty(5, 2))
    after = jax.eval_shape(insert, before, steps(0, 3, 2))

    def kinds(tree):
        return [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(tree)]

    assert kinds(before) == kinds(after)


@pytest.mark.parametrize("rollouts", [(3,), (5,), (5, 3)])
def test_samples_are_uniform_over_the_steps_in_the_buffer(rollouts):
    """χ² of k cells has mean k - 1 and variance 2 (k - 1): five deviations above it."""
    buffer, stored = filled(5, 2, rollouts)
    for seed in range(3):
        drawn = sample(buffer, seed)["number"]
        assert set(drawn) == set(stored.ravel())
        freedom = stored.size - 1
        assert chi_square(drawn, stored) < freedom + 5 * np.sqrt(2 * freedom)


def test_a_sample_is_a_possible_step():
    buffer, _ = filled(5, 2, (5, 3))
    drawn = sample(buffer, 0)
    number = drawn["number"]
    assert drawn["obs"].shape == (20_000, 3)
    np.testing.assert_array_equal(drawn["obs"], np.stack([number, -number, 2 * number], 1))
    np.testing.assert_array_equal(drawn["odd"], number % 2 == 1)


def test_samples_depend_on_the_key_alone():
    buffer, _ = filled(5, 2, (5,))
    first, again, other = (sample(buffer, seed)["number"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("rollouts", [(60,), (60, 40), (40,)])
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_the_oldest_share_q_is_drawn_with_probability_q_to_one_over_the_power(
    power, rollouts
):
    """Of a full buffer, of one that has wrapped and of one partly filled; within 0.02."""
    buffer, stored = filled(60, 1, rollouts)
    drawn = sample(buffer, 0, power)["number"]
    for q in (0.1, 0.25, 0.5):
        oldest = stored[: round(q * len(stored))]
        share = np.isin(drawn, oldest).mean()
        np.testing.assert_allclose(share, q ** (1 / power), atol=0.02)


def test_the_environment_of_a_sample_is_independent_of_its_age():
    buffer, stored = filled(5, 2, (5,))
    drawn = sample(buffer, 0, 3.0)["number"]
    for row in stored:
        of_row = drawn[np.isin(drawn, row)]
        np.testing.assert_allclose((of_row == row[0]).mean(), 0.5, atol=0.06)


# ------------------------------------------------------------------------------ sequences

_starts = jax.jit(replay.sequence_starts, static_argnums=2)
_sequences = jax.jit(replay.sample_sequences, static_argnums=(3, 4, 5))


def episodes(lengths: tuple[int, ...], capacity: int, num_envs: int):
    """A buffer filled step by step; a step holds its episode, its time and its end."""
    one = {"episode": jnp.int32(0), "time": jnp.int32(0), "ended": jnp.zeros((), bool)}
    buffer = replay.init(one, capacity, num_envs)
    # Environment e starts with episode e, so that ends fall at different steps.
    clock = [(e, 0) for e in range(num_envs)]
    for _ in range(sum(lengths)):
        step = {"episode": [], "time": [], "ended": []}
        for e, (number, time) in enumerate(clock):
            ended = time + 1 == lengths[number % len(lengths)]
            step["episode"].append(10 * number + e)
            step["time"].append(time)
            step["ended"].append(ended)
            clock[e] = (number + 1, 0) if ended else (number, time + 1)
        rows = {
            "episode": jnp.array([step["episode"]], jnp.int32),
            "time": jnp.array([step["time"]], jnp.int32),
            "ended": jnp.array([step["ended"]]),
        }
        buffer = insert(buffer, rows)
    return buffer


@pytest.mark.parametrize("length", [1, 2, 3, 5])
@pytest.mark.parametrize("capacity", [12, 64])
def test_sequences_stay_within_episodes_and_every_such_sequence_is_drawn(length, capacity):
    buffer = episodes((5, 3, 9, 2, 7), capacity, 2)
    starts = _starts(buffer, buffer.steps["ended"], length)
    drawn = _sequences(buffer, starts, jax.random.key(0), 20_000, length)
    drawn = jax.tree.map(np.asarray, drawn)  # [length, B]
    assert (drawn["episode"] == drawn["episode"][:1]).all()
    assert (drawn["time"] == drawn["time"][:1] + np.arange(length)[:, None]).all()
    assert not drawn["ended"][:-1].any()
    stored = {
        (int(episode), int(time))
        for episode, time in zip(
            np.ravel(buffer.steps["episode"])[: 2 * int(buffer.size)],
            np.ravel(buffer.steps["time"])[: 2 * int(buffer.size)],
            strict=True,
        )
    }
    possible = {
        (episode, time)
        for episode, time in stored
        if all((episode, time + later) in stored for later in range(length))
    }
    firsts = list(zip(drawn["episode"][0], drawn["time"][0], strict=True))
    assert {(int(e), int(t)) for e, t in firsts} == possible
    assert int(starts[-1]) == len(possible)
    drawn_from = Counter(firsts)
    counts = np.array([drawn_from[start] for start in possible])
    chi = (counts - 20_000 / len(possible)) ** 2 / (20_000 / len(possible))
    assert chi.sum() < len(possible) + 6 * (2 * len(possible)) ** 0.5


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_starts_of_sequences_are_drawn_by_age(power):
    """Of 30 episodes of 2 steps, where every sequence of 2 is an episode; within 0.02."""
    buffer = episodes((2,) * 30, 64, 1)
    starts = _starts(buffer, buffer.steps["ended"], 2)
    drawn = _sequences(buffer, starts, jax.random.key(0), 20_000, 2, power)
    number = np.asarray(drawn["episode"][0]) // 10
    assert set(number) == set(range(30))
    for q in (0.1, 0.5):
        share = (number < 30 * q).mean()
        np.testing.assert_allclose(share, q ** (1 / power), atol=0.02)


def test_without_a_long_enough_episode_there_is_no_start():
    buffer = episodes((2, 1), 12, 1)
    assert int(_starts(buffer, buffer.steps["ended"], 3)[-1]) == 0
    drawn = _sequences(
        buffer, _starts(buffer, buffer.steps["ended"], 3), jax.random.key(0), 4, 3
    )
    assert drawn["time"].shape == (3, 4)


def frames_of(first: int, length: int, num_envs: int, ended):
    """A rollout of frames `[T, E, 1, 1, 3]` whose pixels are the number of their step."""
    number = first + np.arange(length, dtype=np.uint8)[:, None]
    number = number + 100 * np.arange(num_envs, dtype=np.uint8)
    return {
        "obs": np.broadcast_to(number[..., None, None, None], (*number.shape, 1, 1, 3)),
        "ended": np.array(ended, bool),
    }


@pytest.mark.parametrize("before", [0, 5])
def test_frames_are_stacked_as_in_the_observations(before):
    """Steps 0 to 7 of two environments; in the second one an episode ends with step 3."""
    one = {"obs": np.zeros((1, 1, 3), np.uint8), "ended": np.zeros((), bool)}
    buffer = replay.init(one, 8, 2)
    ended = np.zeros((8, 2), bool)
    ended[3, 1] = True
    if before:  # the buffer has wrapped round
        buffer = insert(buffer, frames_of(50, before, 2, ended[:before]))
    for part in (slice(0, 3), slice(3, 8)):
        length = part.stop - part.start
        buffer = insert(buffer, frames_of(part.start, length, 2, ended[part]))
    ages = jnp.arange(8)[:, None] + jnp.zeros((1, 2), jnp.int32)
    obs = replay.stack_frames(
        buffer, buffer.steps["obs"], buffer.steps["ended"], ages, jnp.arange(2), frames=3
    )
    assert obs.shape == (8, 2, 1, 1, 9) and obs.dtype == jnp.uint8
    numbers = np.asarray(obs)[:, :, 0, 0, ::3]  # [8, 2, 3]
    one_episode = [[0, 0, 0], [0, 0, 1]] + [[t - 2, t - 1, t] for t in range(2, 8)]
    np.testing.assert_array_equal(numbers[:, 0], one_episode)
    two_episodes = [*one_episode[:4], [4, 4, 4], [4, 4, 5], [4, 5, 6], [5, 6, 7]]
    np.testing.assert_array_equal(numbers[:, 1], 100 + np.array(two_episodes))


# -------------------------------------------------------------------------------- windows

_windows = jax.jit(replay.sample_windows, static_argnums=(2, 3))


@pytest.mark.parametrize("rollouts", [(7,), (3, 4, 5), (10, 6)])
def test_windows_are_consecutive_and_every_window_is_drawn(rollouts):
    """Of a buffer of 10 steps of 2 environments that is partly filled, or has wrapped."""
    buffer, stored = filled(10, 2, rollouts)
    drawn = np.asarray(_windows(buffer, jax.random.key(0), 20_000, 4)["number"])  # [4, B]
    assert (np.diff(drawn, axis=0) == 2).all()  # a step of both environments later
    assert set(drawn[0]) == set(stored[: len(stored) - 3].ravel())
    freedom = 2 * (len(stored) - 3)
    assert chi_square(drawn[0], stored[: len(stored) - 3]) < freedom + 5 * np.sqrt(
        2 * freedom
    )


def test_windows_may_cross_the_end_of_an_episode():
    buffer = episodes((5, 3), 12, 1)
    drawn = _windows(buffer, jax.random.key(0), 100, 4)
    assert np.asarray(drawn["ended"])[:-1].any()
    assert drawn["time"].shape == (4, 100)
