"""A replay buffer on the device: a ring of the last C steps of E environments, `[C, E, …]`.

The *age* of a step is its index in the order of insertion: 0 is the oldest step, size - 1
the newest. A *column* is the index of an environment.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.base import UsageError


@struct.dataclass
class Replay:
    """The last C steps of E environments."""

    steps: Any  # a pytree of [C, E, ...]
    cursor: jax.Array  # [] int32, the row that is written next
    size: jax.Array  # [] int32, the number of rows that hold steps, at most C


def init(step: Any, capacity: int, num_envs: int) -> Replay:
    """An empty replay buffer.

    Args:
      step: a pytree with the shapes and dtypes of one step of one environment.
      capacity: C, steps of each environment.
      num_envs: E.
    """

    def empty(leaf: jax.Array) -> jax.Array:
        return jnp.zeros((capacity, num_envs, *leaf.shape), leaf.dtype)

    zero = jnp.zeros((), jnp.int32)
    return Replay(steps=jax.tree.map(empty, step), cursor=zero, size=zero)


def insert(replay: Replay, rollout: Any) -> Replay:
    """The buffer with a rollout `[T, E, …]` in place of the oldest steps.

    Raises:
      ValueError: the rollout is longer than the buffer.
    """
    length = jax.tree.leaves(rollout)[0].shape[0]
    capacity = jax.tree.leaves(replay.steps)[0].shape[0]
    if length > capacity:
        raise UsageError(
            f"a round has {length} steps of each environment, which do not fit into a "
            f"replay of {capacity}: raise the replay's capacity, or lower loop.steps."
        )
    rows = (replay.cursor + jnp.arange(length)) % capacity
    steps = jax.tree.map(lambda ring, new: ring.at[rows].set(new), replay.steps, rollout)
    return Replay(
        steps=steps,
        cursor=(replay.cursor + length) % capacity,
        size=jnp.minimum(replay.size + length, capacity),
    )


def end_episodes(replay: Replay, name: str, ended: jax.Array) -> Replay:
    """The buffer in which the newest steps end their episodes where `ended` `[E]` says so.

    Args:
      name: of the steps' `[C, E]` bool that tells ends.
    """
    marked = replay.steps[name].at[replay.cursor - 1].max(ended)  # row -1 is the last one
    steps = replay.steps | {name: marked}
    return Replay(steps, replay.cursor, replay.size)


def sample(
    replay: Replay, key: jax.Array, batch: int, recency_exponent: float = 1.0
) -> Any:
    """Draws steps `[B, …]` with replacement.

    Args:
      replay: must not be empty.
      key: consumed.
      batch: B.
      recency_exponent: p > 0. The oldest share q of the buffer is drawn with probability
        q^(1 / p): 1 draws uniformly, above 1 favours old steps, below 1 favours new ones.
    """
    row_key, column_key = jax.random.split(key)
    capacity, num_envs = jax.tree.leaves(replay.steps)[0].shape[:2]
    age = _by_age(row_key, batch, replay.size, recency_exponent)
    rows = (_oldest(replay) + age) % capacity
    columns = jax.random.randint(column_key, (batch,), 0, num_envs)
    return jax.tree.map(lambda ring: ring[rows, columns], replay.steps)


def sequence_starts(replay: Replay, ended: jax.Array, length: int) -> jax.Array:
    """Counts the steps at which a sequence within one episode can start.

    It takes one pass over the buffer. Call it once for many calls of `sample_sequences`.

    Args:
      replay: the buffer.
      ended: `[C, E]` bool, by row: whether an episode ended with the step.
      length: steps of a sequence.

    Returns:
      `[C E]` int32, the cumulative number of valid starts, in the order of age and column.
    """
    age = jnp.arange(ended.shape[0])[:, None]
    ends = jnp.cumsum(jnp.roll(ended, -_oldest(replay), axis=0), axis=0)  # [C, E]
    ends_before = jnp.concatenate([jnp.zeros_like(ends[:1]), ends])[: age.shape[0]]
    # Ends among all steps of a sequence but its last: ages a, ..., a + length - 2.
    ends_within = jnp.roll(ends_before, 1 - length, axis=0) - ends_before
    valid = (age + length <= replay.size) & (ends_within == 0)
    return jnp.cumsum(valid.reshape(-1), dtype=jnp.int32)


def sample_sequences(
    replay: Replay,
    starts: jax.Array,
    key: jax.Array,
    batch: int,
    length: int,
    recency_exponent: float = 1.0,
) -> Any:
    """Draws sequences `[length, B, ...]` of consecutive steps within episodes.

    While there is no valid start, it returns a sequence that crosses the end of an episode.

    Args:
      replay: must not be empty.
      starts: from `sequence_starts`, for the same `length`.
      key: consumed.
      batch: B.
      length: steps of a sequence.
      recency_exponent: as for `sample`.
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
    """Draws ages and columns `[B]` of valid starts; arguments as for `sample_sequences`."""
    count = jnp.maximum(starts[-1], 1)
    if recency_exponent == 1.0:
        index = jax.random.randint(key, (batch,), 0, count)
    else:
        index = _by_age(key, batch, count, recency_exponent)
    flat = jnp.searchsorted(starts, index, side="right")  # [B]
    capacity, num_envs = jax.tree.leaves(replay.steps)[0].shape[:2]
    flat = jnp.minimum(flat, capacity * num_envs - 1)
    return flat // num_envs, flat % num_envs


def at(replay: Replay, age: jax.Array, column: jax.Array) -> Any:
    """The steps `[...]` of these ages and columns, `[...]` int32 each."""
    capacity = jax.tree.leaves(replay.steps)[0].shape[0]
    row = (_oldest(replay) + age) % capacity
    return jax.tree.map(lambda ring: ring[row, column], replay.steps)


def stack_frames(
    replay: Replay,
    images: jax.Array,
    ended: jax.Array,
    age: jax.Array,
    column: jax.Array,
    frames: int,
) -> jax.Array:
    """Observations of stacked frames, `[..., H, W, 3 frames]`, the oldest frame first.

    The buffer stores each frame once. The first frame of an episode is repeated in place of
    earlier ones, and so is the frame of the oldest step.

    Args:
      replay: the buffer.
      images: `[C, E, H, W, 3]`, by row: the newest frame of each step's observation.
      ended: `[C, E]` bool, by row: whether an episode ended with the step.
      age, column: `[...]` int32 of the steps.
      frames: the number of frames in a stack.
    """
    capacity = ended.shape[0]

    def row(age: jax.Array) -> jax.Array:
        return (_oldest(replay) + age) % capacity

    ages = [age]
    for _ in range(frames - 1):
        previous = ages[0] - 1
        same_episode = (previous >= 0) & ~ended[row(previous), column]
        ages.insert(0, jnp.where(same_episode, previous, ages[0]))
    return jnp.concatenate([images[row(age), column] for age in ages], axis=-1)


def sample_windows(replay: Replay, key: jax.Array, batch: int, length: int) -> Any:
    """Draws windows `[length, B, ...]` of consecutive steps, uniformly.

    A window may cross the end of an episode. It never continues from the newest step to the
    oldest one. While the buffer holds fewer than `length` steps, windows end in rows that
    are not yet written.

    Args:
      replay: must not be empty.
      key: consumed.
      batch: B.
      length: steps of a window, at most C.
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
    """Random indices `[batch]` below `count`, distributed by age as `sample` says."""
    share = jax.random.uniform(key, (batch,)) ** recency_exponent
    return jnp.minimum((share * count).astype(jnp.int32), count - 1)


def _oldest(replay: Replay) -> jax.Array:
    """The row of the oldest step, `[]`."""
    capacity = jax.tree.leaves(replay.steps)[0].shape[0]
    return jnp.where(replay.size == capacity, replay.cursor, 0)
