"""Every method comes to the numbers that golden.py wrote."""

import copy
import json
import math

import pytest

from tests import tiny
from tests.golden import golden

WRITTEN = json.loads(golden.FILE.read_text())
RUN = {
    "shapes": {"float32[2]": 1},
    "epochs": [{"value/loss": 1000.0, "env/l1": 0.0}, {"value/loss": 2.0, "env/l1": 3.0}],
}


def test_every_method_is_written():
    assert set(WRITTEN["methods"]) == set(tiny.AGENTS)


def test_numbers_are_compared_on_the_machine_that_wrote_them(tmp_path, monkeypatch):
    monkeypatch.setattr(golden, "FILE", tmp_path / "golden.json")
    monkeypatch.setattr(golden, "run", lambda name: RUN)
    golden.write()
    written = json.loads(golden.FILE.read_text())
    assert golden.holds_numbers(written)
    for part in golden.machine():
        other = written["machine"] | {part: "another"}
        assert not golden.holds_numbers(written | {"machine": other}), part
    if not golden.holds_numbers(WRITTEN):
        pytest.skip(
            f"not {WRITTEN['machine']}: names, shapes and finiteness alone are held"
        )


@pytest.mark.parametrize("name", tiny.AGENTS)
def test_golden(name):
    numbers = golden.holds_numbers(WRITTEN)
    found = golden.differences(WRITTEN["methods"][name], golden.run(name), numbers)
    tiny.drop_programs()
    assert not found, "\n".join(found)


# ------------------------------------------------------------------------- the comparison


def changed(epoch: int, metric: str, value: float | None) -> dict:
    run = copy.deepcopy(RUN)
    run["epochs"][epoch][metric] = value
    if value is None:
        del run["epochs"][epoch][metric]
    return run


@pytest.mark.parametrize(
    ("epoch", "metric", "value", "noticed"),
    [
        (0, "value/loss", 1000.1, True),
        (0, "value/loss", 1000.001, False),
        (0, "env/l1", 1e-4, True),
        (0, "env/l1", 1e-6, False),
        (1, "value/loss", 2.001, True),
    ],
)
def test_a_changed_value_is_noticed_where_numbers_are_compared(
    epoch, metric, value, noticed
):
    run = changed(epoch, metric, value)
    assert len(golden.differences(RUN, run, numbers=True)) == noticed
    assert golden.differences(RUN, run, numbers=False) == []


@pytest.mark.parametrize("numbers", [False, True])
def test_names_epochs_shapes_and_finiteness_are_held_everywhere(numbers):
    other = {
        "a metric too few": changed(1, "env/l1", None),
        "a metric too many": changed(1, "value/more", 1.0),
        "infinite": changed(0, "env/l1", math.inf),
        "no number": changed(0, "env/l1", math.nan),
        "an epoch too few": RUN | {"epochs": RUN["epochs"][:1]},
        "another shape": RUN | {"shapes": {"float32[3]": 1}},
    }
    for what, run in other.items():
        assert golden.differences(RUN, run, numbers), what
    assert golden.differences(RUN, copy.deepcopy(RUN), numbers) == []
