import dataclasses

import numpy as np
import pytest

from planil_jax import experiment, sweep
from planil_jax.base import UsageError

pytestmark = pytest.mark.fast


def swept(*lines, method="mpail", **fields):
    return dataclasses.replace(experiment.for_method(method), sweep=lines, **fields)


def test_a_grid_combines_every_value_with_every_other():
    settings = sweep.settings(
        swept("agent.optimizer.value_lr=1e-4,1e-3", "agent.markup=1,1.1,2")
    )
    assert list(settings) == ["agent.optimizer.value_lr", "agent.markup"]
    pairs = set(zip(*(values.tolist() for values in settings.values()), strict=True))
    assert pairs == {(rate, markup) for rate in (1e-4, 1e-3) for markup in (1.0, 1.1, 2.0)}


def test_without_a_sweep_there_are_no_settings_and_labels_are_seeds():
    assert sweep.settings(swept()) == {}
    assert sweep.labels(swept(seed=3, seeds=2)) == ["seed 3", "seed 4"]


def test_every_member_has_another_label_and_seeds_run_fastest():
    labels = sweep.labels(swept("agent.optimizer.value_lr=0.1,0.2", seeds=2))
    assert labels == [
        "seed 0, agent.optimizer.value_lr=0.1",
        "seed 1, agent.optimizer.value_lr=0.1",
        "seed 0, agent.optimizer.value_lr=0.2",
        "seed 1, agent.optimizer.value_lr=0.2",
    ]


def test_values_arrive_in_their_fields_however_deep():
    member = sweep.apply_overrides(
        swept(method="gaifo"), {"agent.learning_rate": 7.0, "agent.learner.clip_eps": 0.3}
    )
    assert member.agent.learning_rate == 7.0 and member.agent.learner.clip_eps == 0.3
    assert (
        member.agent.learner.discount
        == experiment.for_method("gaifo").agent.learner.discount
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("agent.optimizer.value_lr", "write it as agent.FIELD=NUMBER,NUMBER"),
        ("agent.optimizer.value_lr=fast", "write it as agent.FIELD=NUMBER,NUMBER"),
        (
            "agent.optimizer.value_l=1",
            "there is no agent.optimizer.value_l. Did you mean value_lr",
        ),
        ("run.total_steps=1", "there is no run"),
        ("agent.markup=1e-3,0.001", "two of its values are 0.001"),
        ("agent.markup=1.00000001,1.00000002", "two of its values are 1"),
        ("agent.batch=1,2", "agent.batch is 512, and only numbers with a fraction"),
    ],
)
def test_an_impossible_sweep_is_refused_in_one_sentence(line, message):
    with pytest.raises(UsageError) as caught:
        sweep.settings(swept(line))
    assert message in str(caught.value) and f"sweep {line}" in str(caught.value)


def test_the_last_axis_runs_fastest():
    settings = sweep.settings(swept("agent.optimizer.value_lr=1,2", "agent.markup=3,4"))
    np.testing.assert_array_equal(settings["agent.optimizer.value_lr"], [1, 1, 2, 2])
    np.testing.assert_array_equal(settings["agent.markup"], [3, 4, 3, 4])


def test_a_field_that_is_swept_twice_is_refused_with_the_line_that_holds_both():
    with pytest.raises(UsageError, match="agent.optimizer.value_lr=0.001,0.0001,0.01"):
        sweep.settings(
            swept("agent.optimizer.value_lr=1e-3,1e-4", "agent.optimizer.value_lr=1e-2")
        )


def test_a_value_that_its_field_does_not_take_is_refused():
    with pytest.raises(UsageError, match="planner.max_delta must be above 0, not -1"):
        sweep.settings(swept("agent.planner.max_delta=1,-1"))
    with pytest.raises(UsageError, match="must be a finite number, not nan"):
        sweep.settings(swept("agent.optimizer.value_lr=nan"))
