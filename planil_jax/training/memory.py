"""The memory that a run needs, computed before it is allocated."""

from typing import Any

import jax

from planil_jax.base import TrainState, UserError
from planil_jax.data import archive

# The fields that decide how large a part is; an agent has one of them.
_LOWERED_BY = {
    "agent.replay": "agent.replay.capacity (or agent.capacity), ",
}


def size(tree: Any) -> int:
    """Bytes of the leaves; arrays or ShapeDtypeStructs."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def parts(state: TrainState) -> dict[str, int]:
    """Bytes of a TrainState by its parts, such as "agent.replay", the largest first."""
    sizes: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        depth = 2 if path[0] == jax.tree_util.GetAttrKey("agent") else 1
        name = jax.tree_util.keystr(path[:depth], simple=True, separator=".")
        sizes[name] = sizes.get(name, 0) + size(leaf)
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def free(device: jax.Device) -> int:
    """Free bytes of the device, or for a CPU of the host."""
    stats = device.memory_stats() or {} if device.platform != "cpu" else {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return archive.free_memory()


def require(state: TrainState, temporary: int, devices: list[jax.Device]) -> str:
    """One line about the memory of a run, spread evenly over the devices.

    On a CPU the process needs some 0.5 GB besides, for JAX itself and its compiler. Saving
    writes the state in pieces, without copies of it; see `checkpoint`.

    Args:
      state: `[S]`, arrays or the shapes of `jax.eval_shape`.
      temporary: further bytes that the compiled program needs on each device.

    Raises:
      UserError: there is less; the message says which settings to lower.
    """
    wanted = size(state) // len(devices) + temporary
    there = min(free(device) for device in devices)
    largest, bytes_ = next(iter(parts(state).items()))
    needed = (
        f"{human(wanted)} of memory, {human(size(state))} of it training state "
        f"({largest} {human(bytes_)})"
    )
    if wanted > there:
        raise UserError(
            f"training needs {needed}, but {human(there)} are free; lower seeds, "
            f"{_LOWERED_BY.get(largest, '')}loop.num_envs."
        )
    return f"{needed}; {human(there)} are free"


def human(count: float) -> str:
    """Bytes as "1.2 GB"."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
