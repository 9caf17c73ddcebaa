"""Settings tuned for a method in an environment, by name."""

from typing import Any


def settings(method: str, env: str) -> dict[str, Any]:
    """Fields of the Experiment that trains a method in an environment.

    Args:
      env: the name of an environment, maybe with options.

    Returns:
      Such as {"agent": mpail.Config(...), "loop": ..., "run": ...}; empty where there is no
      recipe, and the method's defaults are taken.
    """
    del method, env
    return {}
