import dataclasses

import pytest

from benchmarks import floor
from benchmarks.timing import Units

NOTHING = Units(
    **{field.name: 0.0 for field in dataclasses.fields(Units)},
)


def cell(cost="task", **sizes):
    chosen = {"samples": 4, "horizon": 3, "num_envs": 2, "iterations": 5} | sizes
    return floor.Cell(cost=cost, **chosen)


def seconds(operation: str, cost="task", **sizes) -> float:
    units = dataclasses.replace(NOTHING, **{operation: 1.0})
    return floor.floor(cell(cost, **sizes), (64, 64), units)["total"]


@pytest.mark.parametrize(
    ("operation", "cost", "count"),
    [
        ("normal", "task", 120),  # 4 · 3 · 2 · 5 steps, two actions, half of them mirrored
        ("tan", "task", 120),
        ("sqrt", "task", 120),
        ("sqrt", "learned", 0),
        ("exp", "task", 40),  # one a sample
        ("scan_step", "task", 15),
        ("arithmetic", "task", 120 * (16 + 12 + 11 + 4)),
        ("byte", "task", 4 * (3 * 240 + 2 * 40)),
        ("matmul", "task", 0),
        # (14·64 + 64·64 + 64) a pair of the discriminator, (7·64 + 64·64 + 64) a state of V
        ("matmul", "learned", 2 * ((120 + 40) * 5056 + 40 * 4608)),
    ],
)
def test_operations_are_counted_as_by_hand(operation, cost, count):
    assert seconds(operation, cost) == count


def test_the_total_is_the_sum_of_its_parts():
    units = dataclasses.replace(NOTHING, normal=1.0, tan=2.0, byte=3.0)
    parts = floor.floor(cell(), (64, 64), units)
    total = parts.pop("total")
    assert total == sum(parts.values()) > 0
