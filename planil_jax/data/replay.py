"""A ring of past steps on the device, `[C, E, …]`, as a record."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Replay:
    """The last C steps of E environments."""

    steps: Any  # a pytree of [C, E, ...]
    cursor: jax.Array  # [] int32, where the next step goes
    size: jax.Array  # [] int32, steps held, up to C


def init(step: Any, capacity: int, num_envs: int) -> Replay:
    """An empty ring for steps of the shapes and dtypes of `step`, one environment's."""

    def empty(leaf: jax.Array) -> jax.Array:
        return jnp.zeros((capacity, num_envs, *leaf.shape), leaf.dtype)

    zero = jnp.zeros((), jnp.int32)
    return Replay(steps=jax.tree.map(empty, step), cursor=zero, size=zero)


def insert(replay: Replay, rollout: Any) -> Replay:
    """Writes `rollout` `[T, E, …]` over the oldest steps.

    Raises:
      ValueError: the rollout is longer than the ring.
    """
    length = jax.tree.leaves(rollout)[0].shape[0]
    capacity = jax.tree.leaves(replay.steps)[0].shape[0]
    if length > capacity:
        raise ValueError(f"{length} steps do not fit into a replay of {capacity}")
    rows = (replay.cursor + jnp.arange(length)) % capacity
    steps = jax.tree.map(lambda ring, new: ring.at[rows].set(new), replay.steps, rollout)
    return Replay(
        steps=steps,
        cursor=(replay.cursor + length) % capacity,
        size=jnp.minimum(replay.size + length, capacity),
    )


def sample(
    replay: Replay, key: jax.Array, batch: int, recency_exponent: float = 1.0
) -> Any:
    """Draws `batch` steps `[B, …]`, with replacement; the ring must not be empty.

    Args:
      age_power: 1 draws uniformly. Above 1 favours the old: the oldest share q of the ring
        is drawn with probability q^(1 / age_power).
    """
    row_key, column_key = jax.random.split(key)
    capacity, num_envs = jax.tree.leaves(replay.steps)[0].shape[:2]
    age = _by_age(row_key, batch, replay.size, recency_exponent)
    rows = (_oldest(replay) + age) % capacity
    columns = jax.random.randint(column_key, (batch,), 0, num_envs)
    return jax.tree.map(lambda ring: ring[rows, columns], replay.steps)


def sequence_starts(replay: Replay, ended: jax.Array, length: int) -> jax.Array:
    """Where sequences can start that do not cross the end of an episode.

    Made once for many calls of `sample_sequences`; it takes a pass over the ring.

    Args:
      ended: `[C, E]` bool, whether an episode ended with the step.
      length: steps of a sequence.

    Returns:
      `[C E]` int32, how many starts there are up to a place, in order of age.
    """
    age = jnp.arange(ended.shape[0])[:, None]
    before = jnp.cumsum(jnp.roll(ended, -_oldest(replay), axis=0), axis=0)  # [C, E]
    before = jnp.concatenate([jnp.zeros_like(before[:1]), before])[: age.shape[0]]
    # Ends among all steps but the last: ages a, ..., a + length - 2.
    within = jnp.roll(before, 1 - length, axis=0) - before
    free = (age + length <= replay.size) & (within == 0)
    return jnp.cumsum(free.reshape(-1), dtype=jnp.int32)


def sample_sequences(
    replay: Replay,
    starts: jax.Array,
    key: jax.Array,
    batch: int,
    length: int,
    recency_exponent: float = 1.0,
) -> Any:
    """Draws sequences `[length, B, ...]` of consecutive steps from `starts`, by age as
    `sample` does.

    Where there is none yet, what comes is one sequence, across an end.
    """
    age, column = draw_starts(replay, starts, key, batch, recency_exponent)
    return at(replay, age + jnp.arange(length)[:, None], column)


def draw_starts(
    replay: Replay,
    starts: jax.Array,
    key: jax.Array,
    batch: int,
    recency_exponent: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Draws ages and columns `[B]` of steps from `starts`, as `sample` does from all."""
    count = jnp.maximum(starts[-1], 1)
    if recency_exponent == 1.0:
        index = jax.random.randint(key, (batch,), 0, count)
    else:
        index = _by_age(key, batch, count, recency_exponent)
    place = jnp.searchsorted(starts, index, side="right")  # [B]
    capacity, num_envs = jax.tree.leaves(replay.steps)[0].shape[:2]
    place = jnp.minimum(place, capacity * num_envs - 1)
    return place // num_envs, place % num_envs


def at(replay: Replay, age: jax.Array, column: jax.Array) -> Any:
    """The steps of these ages, 0 the oldest, and columns, `[...]`."""
    capacity = jax.tree.leaves(replay.steps)[0].shape[0]
    row = (_oldest(replay) + age) % capacity
    return jax.tree.map(lambda ring: ring[row, column], replay.steps)


def stacked(
    replay: Replay,
    pictures: jax.Array,
    ended: jax.Array,
    age: jax.Array,
    column: jax.Array,
    frames: int,
) -> jax.Array:
    """The last frames that were seen at some steps, `[..., H, W, 3 frames]`, oldest first.

    So each frame is held once. Before an episode its first frame stands, and before the
    oldest step of the ring that step's.

    Args:
      pictures: of the ring, `[C, E, H, W, 3]`, the newest frame of each step's obs.
      ended: of the ring, `[C, E]` bool, whether an episode ended with the step.
      age, column: `[...]` of the steps; age 0 is the oldest.
    """
    capacity = ended.shape[0]

    def row(age: jax.Array) -> jax.Array:
        return (_oldest(replay) + age) % capacity

    ages = [age]
    for _ in range(frames - 1):
        before = ages[0] - 1
        same = (before >= 0) & ~ended[row(before), column]
        ages.insert(0, jnp.where(same, before, ages[0]))
    return jnp.concatenate([pictures[row(at), column] for at in ages], axis=-1)


def sample_windows(replay: Replay, key: jax.Array, batch: int, length: int) -> Any:
    """Draws windows `[length, B, ...]` of consecutive steps, uniformly from all of them.

    They may cross the end of an episode, and never go from the newest step to the oldest.
    While fewer than `length` steps are held, what follows the newest is not yet one.
    """
    age_key, column_key = jax.random.split(key)
    num_envs = jax.tree.leaves(replay.steps)[0].shape[1]
    starts = jnp.maximum(replay.size - length + 1, 1)
    age = jax.random.randint(age_key, (batch,), 0, starts)
    column = jax.random.randint(column_key, (batch,), 0, num_envs)
    return at(replay, age + jnp.arange(length)[:, None], column)


def _by_age(
    key: jax.Array, batch: int, count: jax.Array, recency_exponent: float
) -> jax.Array:
    """Places `[batch]` in an order of `count` by age, as `sample` says."""
    share = jax.random.uniform(key, (batch,)) ** recency_exponent
    return jnp.minimum((share * count).astype(jnp.int32), count - 1)


def _oldest(replay: Replay) -> jax.Array:
    """The row of the oldest step, `[]`."""
    capacity = jax.tree.leaves(replay.steps)[0].shape[0]
    return jnp.where(replay.size == capacity, replay.cursor, 0)
