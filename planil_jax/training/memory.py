"""What a run will hold in memory, told before it is taken."""

from pathlib import Path
from typing import Any

import jax
import psutil

from planil_jax.base import TrainState, UserError

# The fields that say how large a part is; an agent has one of those that are named.
_LOWERED_BY = {
    "agent.replay": "--config.agent.replay.capacity (or --config.agent.capacity), ",
    "agent.history": "--config.agent.history, ",
}
_GROUP = Path("/sys/fs/cgroup")  # where a container or a batch system limits a process


def size(tree: Any) -> int:
    """Bytes of the leaves; arrays or ShapeDtypeStructs."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def parts(state: TrainState) -> dict[str, int]:
    """Bytes of a TrainState by its parts, such as "agent.history", the largest first."""
    sizes: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        depth = 2 if path[0] == jax.tree_util.GetAttrKey("agent") else 1
        name = jax.tree_util.keystr(path[:depth], simple=True, separator=".")
        sizes[name] = sizes.get(name, 0) + size(leaf)
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def free(device: jax.Device) -> int:
    """Bytes that the device, or for a CPU the host, can still give."""
    stats = device.memory_stats() or {} if device.platform != "cpu" else {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    available = psutil.virtual_memory().available
    try:
        limit = int((_GROUP / "memory.max").read_text())
        used = int((_GROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no such limit, or "max"
        return available
    return min(available, limit - used)


def require(state: TrainState, temporary: int, devices: list[jax.Device]) -> str:
    """One line about the memory of a run, spread evenly over the devices.

    Args:
      state: `[S]`, as `jax.eval_shape` tells it.
      temporary: bytes of each device that the compiled program needs besides.

    Raises:
      UserError: there is not so much; with what to lower.
    """
    wanted = size(state) // len(devices) + temporary
    there = min(free(device) for device in devices)
    largest, bytes_ = next(iter(parts(state).items()))
    told = (
        f"{human(wanted)} of memory, {human(size(state))} of it training state "
        f"({largest} {human(bytes_)})"
    )
    if wanted > there:
        raise UserError(
            f"training needs {told}, but {human(there)} are free; lower --seeds, "
            f"{_LOWERED_BY.get(largest, '')}--config.loop.num_envs."
        )
    return f"{told}; {human(there)} are free"


def human(count: float) -> str:
    """Bytes as "1.2 GB"."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
