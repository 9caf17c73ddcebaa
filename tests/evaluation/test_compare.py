"""Comparisons of methods on a task."""

import json

import numpy as np
import pytest

from planil_jax import experiment
from planil_jax.agents import adversarial, bc, ppo
from planil_jax.base import UserError
from planil_jax.evaluation import compare, learning, results, statistics
from planil_jax.reporting import pictures


def test_interactions_are_counted_to_the_first_evaluation_that_is_enough():
    steps = np.array([100, 200, 300])
    returns = np.array([[90.0, 10.0, 96.0], [95.0, 20.0, 50.0], [99.0, 30.0, 99.0]])
    assert compare.interactions(steps, returns, 100.0) == [200, None, 100]


def test_a_cost_may_be_five_per_cent_above_the_expert_s():
    returns = np.array([[-211.0], [-210.0]])
    assert compare.interactions(np.array([1, 2]), returns, -200.0) == [2]


def test_a_share_is_the_quotient_of_gains_and_falls_with_costs():
    np.testing.assert_allclose(statistics.share(np.array([50.0, 120.0]), 100.0), [0.5, 1.2])
    np.testing.assert_allclose(statistics.share(np.array([-100.0, -200.0]), -100.0), [1, 0])


AGENTS = {
    "gaifo": adversarial.Config(
        learner=ppo.Config(epochs=1, minibatches=2), gradient_steps=2, batch=8
    ),
    "bc": bc.Config(gradient_steps=2, batch=8),
}
TINY = {
    "loop": experiment.training_loop.Config(num_envs=2, steps=4, rounds=1, resets=2),
    "run": experiment.training_run.Config(
        total_steps=16, evaluate_every=1, evaluation_episodes=2, checkpoint_every=1
    ),
}


def test_a_comparison_trains_evaluates_draws_and_skips_what_is_done(tmp_path, capsys):
    settings = {
        method: experiment.for_method(
            method, environment="point_mass", seeds=2, agent=AGENTS[method], **TINY
        )
        for method in AGENTS
    }
    plan = compare.Comparison(methods=("gaifo", "bc"), seeds=2, episodes=2)
    lines, args = [], (plan, "tiny", settings, tmp_path / "tiny")
    found = compare.compare(*args, say=lines.append)
    assert "--- tiny: gaifo" in lines and "--- tiny: bc" in lines
    assert sum(line.startswith(("tiny: recording", "evaluating")) for line in lines) == 3
    assert list(found) == ["gaifo", "bc"]
    assert found["gaifo"]["steps"] == [8, 16] and found["gaifo"]["step"] == 16
    assert len(found["gaifo"]["interactions"]) == 2 and "interactions" not in found["bc"]
    (picture,) = pictures.comparison(tmp_path / "tiny", plan, found)
    assert picture.name == "returns.png" and picture.stat().st_size > 1000
    text = compare.table("tiny", plan, found)
    assert text.count("\n| gaifo |") == 1 and "none needed" in text
    lines.clear()
    again = compare.compare(*args, say=lines.append)
    assert lines == ["--- tiny: gaifo", "--- tiny: bc"]  # nothing is evaluated again
    assert capsys.readouterr().out == ""
    assert json.dumps(again, sort_keys=True) == json.dumps(found, sort_keys=True)
    damage(tmp_path / "tiny/bc" / compare.RESULT)
    lines.clear()
    again = compare.compare(*args, say=lines.append)
    assert len(lines) == 4 and lines[3].startswith("evaluating")
    assert "result.json is damaged (it has changed since it was written)" in lines[2]
    assert again["bc"]["evaluation"] == found["bc"]["evaluation"]
    text, notes = compare.save(tmp_path / "tiny", plan, {"tiny": found}, "the command")
    assert (tmp_path / "tiny/comparison.md").read_text() == text + "\n"
    check_file(tmp_path / "tiny/comparison.json", notes)


def damage(path):
    """Changes a digit."""
    text = path.read_text()
    at = text.index('"step": ') + len('"step": ')
    path.write_text(f"{text[:at]}9{text[at + 1 :]}")


@pytest.mark.parametrize(
    ("method", "fields", "plan", "words"),
    [
        ("gaifo", {"environment": "pendulum:pixels=32"}, {}, "shows pictures"),
        ("bc", {"sweep": ("agent.nothing=1,2",)}, {}, "nothing"),
        ("bc", {"environment": "nowhere"}, {}, "nowhere"),
        ("gaifo", {}, {"absent": ("seconds:lost",)}, "write NAME:WHY"),
    ],
)
def test_a_refused_comparison_leaves_nothing_behind(tmp_path, method, fields, plan, words):
    fields = {"environment": "point_mass", "agent": AGENTS[method]} | fields
    settings = {method: experiment.for_method(method, **fields)}
    with pytest.raises(UserError, match=words):
        compare.compare(compare.Comparison(**plan), "tiny", settings, tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


def test_demonstrations_that_are_named_and_missing_are_refused_and_not_recorded(tmp_path):
    settings = {"bc": experiment.for_method("bc", environment="point_mass")}
    args = compare.Comparison(), "tiny", settings, tmp_path / "tiny"
    with pytest.raises(UserError, match="mine.npz"):
        compare.compare(*args, tmp_path / "mine.npz")
    assert list(tmp_path.iterdir()) == []


def check_file(path, notes):
    """The results of GAIfO beside random actions, the expert and cloning."""
    saved = json.loads(path.read_text())
    assert saved["command"] == "the command" and saved["kind"] == "learning"
    gaifo, bc = saved["runs"]
    assert (gaifo["task"], gaifo["method"], gaifo["seeds"]) == ("tiny", "gaifo", [0, 1])
    assert np.shape(gaifo["evaluation"]["returns"]) == (2, 2)
    assert gaifo["bc"] == {"policy": "bc", "returns": bc["evaluation"]["returns"]}
    assert np.mean(gaifo["random"]["returns"]) < np.mean(gaifo["demonstrator"]["returns"])
    assert gaifo["demonstrations"] == bc["demonstrations"]
    assert gaifo["demonstrations"]["episodes"] == 4
    assert gaifo["curves"]["eval/return"]["steps"] == [8, 16]
    assert gaifo["seconds"]["processor"] > 0.0
    (note,) = notes
    assert "runs[0].tuning.trials is missing: say how many" in note
    for run in saved["runs"]:
        run["tuning"] = learning.said(learning.Tuning(trials=0))
        run["commit"] = "c" * 40
    results.check(saved | {"commit": "c" * 40}, path)
