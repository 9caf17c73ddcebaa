"""Settings tuned for a method in an environment, by name."""

from typing import Any


def settings(method: str, environment: str) -> dict[str, Any]:
    """Fields of an `Experiment` that were tuned for a method there; {}: there are none."""
    del method, environment
    return {}
