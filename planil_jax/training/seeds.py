"""A function of one seed as a function of all of them, on all devices."""

import functools
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
    each: Sharding  # of leaves with a leading axis S
    shared: Sharding  # of what all seeds share
    mesh: Mesh | None  # None: one device


def keys(first: int, count: int) -> jax.Array:
    """`[S]` keys; each depends on its own number alone."""
    return jnp.stack([jax.random.key(first + i) for i in range(count)])


def lay_out(count: int) -> Layout:
    """Spreads the seeds over the devices of this process, where those divide the seeds."""
    devices = jax.local_devices()
    if len(devices) == 1 or count % len(devices):
        alone = SingleDeviceSharding(devices[0])
        return Layout(devices[:1], alone, alone, None)
    mesh = Mesh(np.asarray(devices), ("seeds",))
    each = NamedSharding(mesh, PartitionSpec("seeds"))
    return Layout(devices, each, NamedSharding(mesh, PartitionSpec()), mesh)


def over(
    function: Callable[..., Any], seeds_by: str, mesh: Mesh | None
) -> Callable[..., Any]:
    """The function of one seed for all; only its last argument has a leading axis S.

    Args:
      seeds_by: "vmap", or "map": one after another, equal to a single seed bit for bit.
    """

    def every(*args: Any) -> Any:
        one = functools.partial(function, *args[:-1])
        if seeds_by == "vmap":
            return jax.vmap(one)(args[-1])

        # XLA unrolls a loop of one seed; the barriers keep it from fusing what it then sees.
        def apart(seed: Any) -> Any:
            return jax.lax.optimization_barrier(one(jax.lax.optimization_barrier(seed)))

        return jax.lax.map(apart, args[-1])

    def spread(*args: Any) -> Any:
        each = PartitionSpec("seeds")
        specs = (PartitionSpec(),) * (len(args) - 1) + (each,)
        return jax.shard_map(
            every, mesh=mesh, in_specs=specs, out_specs=each, check_vma=False
        )(*args)

    return every if mesh is None else spread
