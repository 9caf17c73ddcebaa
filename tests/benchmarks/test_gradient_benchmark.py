"""The counts and times of --gradient."""

import jax
import pytest

from benchmarks import gradient, operations


def counted(batch: int, method: str) -> float:
    small = {"latent": 32, "encoder": (16,), "hidden": (32, 32)}
    agent = gradient.agents(batch, **small)[method]
    state, args = jax.eval_shape(lambda: gradient.filled(agent))
    return operations.count(agent.update, state, *args)


def test_an_update_on_one_step_is_all_gradient_steps():
    """Its operations double with the batch: hardly anything else is computed."""
    assert counted(16, "mail") == pytest.approx(2 * counted(8, "mail"), rel=0.02)


def test_processor_time_is_that_of_the_call():
    idle, busy = lambda: None, lambda: sum(range(3_000_000))
    assert gradient.processor_seconds(idle) < 0.01 < gradient.processor_seconds(busy)
