import dataclasses

import pytest

from benchmarks import seeds, timing
from planil_jax.base import UsageError
from planil_jax.training import loop

SHAPE = loop.Config(num_envs=2, steps=3, rounds=2, resets=2)
SIZES = {"hidden": (4,), "batch": 4, "minibatches": 2, "epochs": 1, "steps": 2}


def test_a_row_compares_n_seeds_at_once_with_n_times_one_seed(monkeypatch):
    """The clock is replaced: n seeds take 2 + n by vmap and 3 n by map, one seed 3."""
    monkeypatch.setattr(
        seeds, "epoch", lambda settings, way, count: ((way, count), 10.0 * count)
    )
    monkeypatch.setattr(
        timing,
        "in_turn",
        lambda calls, seconds: {
            name: seeds.np.array([2.0 + n if way == "vmap" else 3.0 * n] * 3)
            for name, (way, n) in calls.items()
        },
    )
    settings = seeds.small("gaifo", "pendulum", SHAPE, SIZES)
    rows = seeds.measure(settings, (2, 4), ["vmap", "map"], 0.0)
    assert [(row["by"], row["seeds"]) for row in rows] == [
        ("vmap", 2),
        ("vmap", 4),
        ("map", 2),
        ("map", 4),
    ]
    ratios = [row["ratio_to_so_many_of_one"] for row in rows]
    assert ratios == pytest.approx([4 / 6, 6 / 12, 1.0, 1.0])
    assert [row["compile_seconds"] for row in rows] == [20.0, 40.0, 20.0, 40.0]
    # 2 seeds × 2 environments × 3 steps × 2 rounds in 4 seconds
    assert rows[0]["steps_per_second"] == pytest.approx(24 / 4)
    assert " 0.67 " in seeds.line(rows[0])


def test_epochs_continue_to_train_every_seed():
    settings = seeds.small("bc", "pendulum", SHAPE, SIZES)
    call, compile_seconds = seeds.epoch(settings, "vmap", 2)
    losses = [call()[0]["policy/error"] for _ in range(2)]
    assert losses[0].shape == (2,) and compile_seconds > 0
    assert losses[0][0] != losses[0][1]  # two seeds, and not one twice
    assert (losses[0] != losses[1]).all()  # so training went on


def test_sizes_are_set_in_every_group_and_nothing_else_changes():
    agent = seeds.small("mpail", "navigation", SHAPE, {"hidden": (5,), "samples": 7}).agent
    networks = agent.discriminator, agent.value, agent.model.network.network
    hidden = {network.hidden for network in networks}
    assert hidden == {(5,)} and agent.planner.samples == 7
    plain = seeds.small("mpail", "navigation", SHAPE, {}).agent
    sized = ("discriminator", "value", "planner", "model")
    restored = dataclasses.replace(agent, **{name: getattr(plain, name) for name in sized})
    assert restored == plain


def test_sizes_that_a_method_lacks_are_named(capsys):
    seeds.small("bc", "pendulum", SHAPE, {"hidden": (4,), "samples": 7, "minibatches": 2})
    assert capsys.readouterr().err == "note: bc has no samples and no minibatches.\n"
    seeds.small("bc", "pendulum", SHAPE, {"hidden": (4,), "batch": 8})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("texts", [[], ["0"], ["1", "two"], ["-3"]])
def test_an_invalid_list_of_positive_integers_is_refused_by_name(texts):
    with pytest.raises(UsageError, match="--seeds"):
        timing.positive_integers("seeds", texts)
    assert timing.positive_integers("seeds", ["1", "32"]) == (1, 32)
