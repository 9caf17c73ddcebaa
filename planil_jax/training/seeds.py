"""A function of one seed as a function of all of them, on all devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import (
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)


class Layout(NamedTuple):
    """Where the seeds live."""

    devices: list[jax.Device]
    per_seed: Sharding  # of leaves with a leading axis S
    shared: Sharding  # of what all seeds share
    mesh: Mesh | None  # None: one device


def keys(first: int, count: int) -> jax.Array:
    """`[S]` keys; the key of a seed depends on its number alone."""
    return jnp.stack([jax.random.key(first + i) for i in range(count)])


def lay_out(count: int) -> Layout:
    """Spreads the seeds over the devices of this process, where those divide the seeds."""
    devices = jax.local_devices()
    if len(devices) == 1 or count % len(devices):
        alone = SingleDeviceSharding(devices[0])
        return Layout(devices[:1], alone, alone, None)
    mesh = Mesh(np.asarray(devices), ("seeds",))
    per_seed = NamedSharding(mesh, PartitionSpec("seeds"))
    return Layout(devices, per_seed, NamedSharding(mesh, PartitionSpec()), mesh)


def over(
    function: Callable[..., Any], seeds_by: str, mesh: Mesh | None, mapped: int = 1
) -> Callable[..., Any]:
    """The function of one seed as a function of all seeds.

    Args:
      seeds_by: "vmap", or "map": one after another, equal to a single seed bit for bit.
      mapped: the number of its arguments, the last ones, that have a leading axis S.
    """

    def every(*args: Any) -> Any:
        def one(per_seed: tuple) -> Any:
            return function(*args[:-mapped], *per_seed)

        per_seed = args[-mapped:]
        return jax.vmap(one)(per_seed) if seeds_by == "vmap" else _in_turn(one, per_seed)

    def sharded(*args: Any) -> Any:
        per_seed = PartitionSpec("seeds")
        specs = (PartitionSpec(),) * (len(args) - mapped) + (per_seed,) * mapped
        return jax.shard_map(
            every, mesh=mesh, in_specs=specs, out_specs=per_seed, check_vma=False
        )(*args)

    return every if mesh is None else sharded


def _in_turn(function: Callable[[Any], Any], per_seed: Any) -> Any:
    """`lax.map`, but that a single seed is computed just as one of many.

    XLA would unroll a loop that runs once, and see through an axis of length 1; both change
    the last bits. So there is always room for two, and the count is hidden.
    """
    function = jax.jit(function)  # traced once for its shapes and its body
    count = jax.tree.leaves(per_seed)[0].shape[0]
    if count == 1:
        per_seed = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), per_seed)

    def one(i: jax.Array | int) -> Any:
        return jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False), per_seed
        )

    def step(i: jax.Array, filled: Any) -> Any:
        return jax.tree.map(
            lambda leaf, new: jax.lax.dynamic_update_index_in_dim(leaf, new, i, 0),
            filled,
            function(one(i)),
        )

    empty = jax.tree.map(
        lambda leaf: jnp.zeros((max(count, 2), *leaf.shape), leaf.dtype),
        jax.eval_shape(lambda: function(one(0))),
    )
    hidden_count = jax.lax.optimization_barrier(jnp.asarray(count, jnp.int32))
    filled = jax.lax.fori_loop(0, hidden_count, step, empty)
    return jax.tree.map(lambda leaf: leaf[:count], filled)
