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


def init(step: Any, capacity: int, environments: int) -> Replay:
    """An empty ring for steps of the shapes and dtypes of `step`, one environment's."""

    def empty(leaf: jax.Array) -> jax.Array:
        return jnp.zeros((capacity, environments, *leaf.shape), leaf.dtype)

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


def sample(replay: Replay, key: jax.Array, batch: int, age_power: float = 1.0) -> Any:
    """Draws `batch` steps `[B, …]`, with replacement; the ring must not be empty.

    Args:
      age_power: 1 draws uniformly. Above 1 favours the old: the oldest share q of the ring
        is drawn with probability q^(1 / age_power).
    """
    row_key, column_key = jax.random.split(key)
    capacity, environments = jax.tree.leaves(replay.steps)[0].shape[:2]
    share = jax.random.uniform(row_key, (batch,)) ** age_power
    age = jnp.minimum((share * replay.size).astype(jnp.int32), replay.size - 1)
    rows = (_oldest(replay) + age) % capacity
    columns = jax.random.randint(column_key, (batch,), 0, environments)
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
    replay: Replay, starts: jax.Array, key: jax.Array, batch: int, length: int
) -> Any:
    """Draws sequences `[length, B, ...]` of consecutive steps, uniformly from `starts`.

    Where there is none yet, what comes is one sequence, across an end.
    """
    index = jax.random.randint(key, (batch,), 0, jnp.maximum(starts[-1], 1))
    place = jnp.searchsorted(starts, index, side="right")  # [B]
    capacity, environments = jax.tree.leaves(replay.steps)[0].shape[:2]
    place = jnp.minimum(place, capacity * environments - 1)
    age, column = place // environments, place % environments
    rows = (_oldest(replay) + age[None] + jnp.arange(length)[:, None]) % capacity
    return jax.tree.map(lambda ring: ring[rows, column[None]], replay.steps)


def _oldest(replay: Replay) -> jax.Array:
    """The row of the oldest step, `[]`."""
    capacity = jax.tree.leaves(replay.steps)[0].shape[0]
    return jnp.where(replay.size == capacity, replay.cursor, 0)
