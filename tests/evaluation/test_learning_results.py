"""What a training came to, beside references from the same starts."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest

import planil_jax as pj
from planil_jax import runs
from planil_jax.base import UsageError
from planil_jax.data import expert_file
from planil_jax.evaluation import evaluate, learning, results

COMMIT = 40 * "c"
TINY = {
    "policy.network.hidden": (8,),
    "gradient_steps": 5,
    "batch": 16,
    "run.evaluation_episodes": 2,
    "run.evaluate_every": 1,
}
NOTHING = learning.Tuning(trials=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> runs.Run:
    """Cloning from two of three demonstrations."""
    logdir = tmp_path_factory.mktemp("learning") / "bc"
    demos = pj.collect("point_mass", episodes=3, actions=True)
    settings = TINY | {"episodes": 2}
    args = {"env": "point_mass", "demos": demos, "settings": settings}
    pj.train("bc", **args, seed=4, seeds=2, total_steps=20, logdir=logdir)
    return runs.load(logdir)


@pytest.fixture(scope="module")
def others(trained) -> dict:
    return learning.references("point_mass", 3, bc=trained)


def test_references_act_from_the_starts_of_the_evaluation(trained, others):
    found = evaluate.in_distribution(trained, 3)
    wanted = {
        "demonstrator": evaluate.returns_of_expert("point_mass", 3),
        "bc": found["episode_returns"],
    }
    for name, returns in wanted.items():
        np.testing.assert_allclose(others[name]["returns"], returns, rtol=1e-5)
    assert np.mean(others["random"]["returns"]) < np.mean(wanted["demonstrator"])
    first = learning.references("point_mass", 3, demonstrator=trained)["demonstrator"]
    np.testing.assert_allclose(first["returns"], wanted["bc"][0], rtol=1e-5)
    assert first["policy"].startswith("bc after") and "commit" in first
    bare = learning.references("point_mass", 3, scripted=False)
    assert bare == others | {"demonstrator": None, "bc": None}
    with pytest.raises(UsageError, match="its observation_names are"):
        learning.references("pendulum", 1, bc=trained)
    settings = dataclasses.replace(trained.experiment, method="gaifo")
    with pytest.raises(UsageError, match=r"bc \(--bc\) is a run of gaifo: name one of bc"):
        learning.references("point_mass", 1, bc=trained._replace(experiment=settings))


def test_the_results_of_a_run_pass_the_check_at_a_clean_commit(trained, others):
    found = evaluate.evaluate(trained, 3, [], 1)
    content = learning.of_run(trained, found, "a command", others, NOTHING, {})
    (row,) = content["runs"]
    for part in (content, row, row["bc"]):
        if "commit" in part:
            part["commit"] = COMMIT
    results.check(content, "x.json")
    assert row["seeds"] == [4, 5] and row["method"] == "bc"
    assert row["evaluation"]["returns"] == results.plain(
        found["in_distribution"]["episode_returns"]
    )
    demonstrations = row["demonstrations"]
    assert (demonstrations["episodes"], demonstrations["expert"][:8]) == (2, "scripted")
    assert demonstrations["steps"] == int(trained.demos.length.sum())
    assert row["curves"]["eval/return"]["steps"][-1] == trained.step
    assert row["tuning"] == {"trials": 0, "settings": "nothing", "on": "nothing"}
    assert content["configuration"]["episodes"] == 3


RESULT = {
    "config": {"method": "gaifo", "seed": 0, "seeds": 1},
    "versions": {"commit": COMMIT},
    "seconds": 1.0,
    "processor_seconds": 2.0,
    "demonstrations": {"episodes": 4, "expert": "scripted MPPI, seed 1"},
    "curves": {},
    "evaluation": {
        "environment": "navigation",
        "step": 7,
        "in_distribution": {"returns": [1.0], "episode_returns": [[1.0]]},
    },
}
OTHERS = {
    "demonstrator": {"policy": "scripted expert", "returns": [2.0]},
    "random": {"policy": "uniform actions", "returns": [0.0]},
    "bc": None,
}


def row(absent=(), result=RESULT, others=OTHERS) -> dict:
    args = ("task", result["config"]["method"], result, others, NOTHING, dict(absent))
    return learning.entry(*args)


def test_an_expert_s_file_may_be_the_demonstrator():
    file = Path(__file__).parents[2] / "experiments/experts/pendulum.npz"
    expert = learning.load_demonstrator(file)
    found = learning.references("pendulum", 3, expert)["demonstrator"]
    card = expert_file.read(file)[2]
    assert found["commit"] == card.commit
    assert -400 < np.mean(found["returns"]) < 0  # random actions: -1,300


def test_the_script_is_the_demonstrator_where_it_demonstrated(trained):
    assert learning.by_script(runs.demonstrations(trained))
    assert not learning.by_script(None) and not learning.by_script({"expert": "me"})


def test_a_reason_is_given_for_what_is_absent_alone():
    reasons = {"bc": "no actions", "demonstrator": "nobody"}
    assert row(reasons)["why"] == {"bc": "no actions"}
    alone = RESULT | {"demonstrations": None}
    found = row({"bc": "slow"}, alone, OTHERS | {"demonstrator": None})
    nothing = learning.NO_DEMONSTRATIONS
    assert found["why"] == {
        "demonstrations": nothing,
        "demonstrator": nothing,
        "bc": "slow",
    }
    unknown = row({"mean_return": "no rewards"})["demonstrations"]
    assert unknown["why"] == {"mean_return": "no rewards"}


def test_a_clone_is_its_own_reference():
    cloned = copy.deepcopy(RESULT)
    cloned["config"]["method"] = "bc"
    assert row(result=cloned)["bc"] == {"policy": "bc", "returns": [[1.0]]}


def test_a_sweep_is_a_campaign_over_its_members(trained):
    found = {
        "members": ["seed 0, a 1", "seed 1, a 1", "seed 0, a 2", "seed 1, a 2"],
        "in_distribution": {"episodes": 2, "episode_returns": np.ones((4, 2)).tolist()},
    }
    content = learning.of_run(trained, found, "a command", OTHERS, NOTHING, {})
    assert content["kind"] == "campaign"
    assert [case["name"] for case in content["cases"]] == found["members"]
    assert content["outcomes"][3] == {"returns": [1.0, 1.0], "return": 1.0}
