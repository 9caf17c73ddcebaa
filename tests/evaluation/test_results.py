"""Files of results: what is written is read, and what is no result is refused."""

import copy
import json
import re

import numpy as np
import pytest

from planil_jax.base import UsageError
from planil_jax.evaluation import learning, results
from planil_jax.training import rundir

pytestmark = pytest.mark.fast

COMMIT = "0123456789abcdef0123456789abcdef01234567"
COMMON = {
    "version": 2,
    "command": "planil evaluate --run=runs/nav",
    "commit": COMMIT,
    "versions": {"jax": "0.10.2"},
    "hardware": {"device": "cpu", "devices": 1, "processor": "a processor", "cores": 2},
    "configuration": {"episodes": 3},
    "seconds": {"wall": 7.0, "processor": 9.0},
}
RUN = {
    "task": "navigation",
    "method": "mpail",
    "commit": COMMIT,
    "seconds": {"wall": 100.0, "processor": 150.0},
    "configuration": {"method": "mpail"},
    "demonstrations": {
        "digest": "abc",
        "episodes": 4,
        "steps": 400,
        "mean_return": 850.0,
        "expert": "scripted MPPI, seed 1",
    },
    "seeds": [0, 1],
    "tuning": {"trials": 9, "settings": "learning rates", "on": "seeds from 100 on"},
    "curves": {"eval/return": {"steps": [10, 20], "values": [[1.0, 2.0], [3.0, 4.0]]}},
    "evaluation": {
        "environment": "navigation",
        "step": 4000,
        "returns": [[800.0, 820.0, 840.0], [700.0, 710.0, 720.0]],
    },
    "demonstrator": {"policy": "scripted expert", "returns": [850.0, 860.0, 870.0]},
    "random": {"policy": "uniform actions", "returns": [-10.0, -20.0, -30.0]},
    "bc": {"policy": "bc", "returns": [[500.0, 510.0, 520.0], [600.0, 610.0, 620.0]]},
    "why": {},
}
LEARNING = COMMON | {"kind": "learning", "runs": [RUN]}
BENCHMARK = COMMON | {
    "kind": "benchmark",
    "work": "a plan",
    "rivals": ["plain MPPI"],
    "ratios": ["ratio_to_reference"],
    "repetitions": [7],
    "rows": [{"planner": "task", "ratio_to_reference": 2.0}],
}
CAMPAIGN = COMMON | {
    "kind": "campaign",
    "cases": [{"name": "killed at step 7", "commit": COMMIT}],
    "outcomes": [{"resumed": True}],
}
FIRST = {
    "version": 1,
    "command": "python -m benchmarks.planner",
    "commit": COMMIT,
    "versions": {"jax": "0.10.2"},
    "hardware": {"device": "cpu"},
    "configuration": {},
    "seeds": [],
    "figures": {"rows": [{"planner": "task"}]},
}
EVERY = {
    "learning": LEARNING,
    "benchmark": BENCHMARK,
    "campaign": CAMPAIGN,
    "version 1": FIRST,
}


def changed(content, path: str, value):
    """A copy with another value at "runs.0.commit"; None leaves the field out."""
    content = copy.deepcopy(content)
    *above, last = (int(name) if name.isdigit() else name for name in path.split("."))
    inner = content
    for name in above:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return content


def refused(content) -> str:
    """The sentence of the refusal."""
    with pytest.raises(UsageError) as caught:
        results.check(content, "results/nav/x.json")
    sentence = str(caught.value)
    assert sentence.startswith("results/nav/x.json: ")
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence.removeprefix("results/nav/x.json: ")


@pytest.mark.parametrize("content", EVERY.values(), ids=EVERY)
def test_a_file_is_read_as_it_was_written(content, tmp_path):
    path = tmp_path / "area" / "x.json"
    assert results.write(path, content) == f"wrote {path}"
    assert results.read(path) == content
    assert list(results.read(path)) == list(content)  # keys keep their order


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (content, field)
        for content in EVERY.values()
        for field in content
        if field not in ("version", "kind")
    ]
    + [
        (LEARNING, f"runs.0.{field}")
        for field in [
            *(name for name in RUN if name != "why"),
            "seconds.processor",
            "demonstrations.digest",
            "demonstrations.mean_return",
            "tuning.trials",
            "tuning.on",
            "evaluation.returns",
            "demonstrator.returns",
            "random.policy",
            "bc.policy",
        ]
    ],
)
def test_a_file_that_lacks_a_field_is_refused_by_its_name(content, field):
    sentence = refused(changed(content, field, None))
    name = re.sub(r"\.(\d+)\.", r"[\1].", field)
    assert sentence.startswith(f"{name} is missing: ")


@pytest.mark.parametrize(
    ("content", "field", "value", "sentence"),
    [
        (LEARNING, "version", 3, "version is 3, and results have 1 or 2: write it again"),
        (LEARNING, "kind", "table", "kind is 'table', and results are learning, benchmark"),
        (LEARNING, "about", "by hand", "field about is not of version 2: write it again"),
        (FIRST, "runs", [], "field runs is not of version 1: write it again"),
        (LEARNING, "command", "", "command is no text: write it again"),
        (LEARNING, "seconds", 7.0, "seconds is no object: write it again"),
        (LEARNING, "commit", "", "commit is empty: run the command again in a clone"),
        (FIRST, "commit", "", "commit is empty: run the command again in a clone"),
        (LEARNING, "commit", COMMIT + "+", "commit is 0123456789 with changes not commi"),
        (FIRST, "commit", COMMIT + "+", "commit is 0123456789 with changes not committed"),
        (LEARNING, "commit", "7de1931", "commit is '7de1931', no commit of 40 digits"),
        (LEARNING, "runs.0.commit", COMMIT + "+", "runs[0].commit is 0123456789 with"),
        (LEARNING, "runs.0.commit", "", "runs[0].commit is empty: run the command again"),
        (
            CAMPAIGN,
            "cases.0.commit",
            "+",
            "cases[0].commit is + with changes not commit",
        ),
        (LEARNING, "runs.0.bc.commit", "", "runs[0].bc.commit is empty"),
        (LEARNING, "runs.0.demonstrator.commit", "a+", "runs[0].demonstrator.commit is a"),
        (LEARNING, "runs", [], "runs is empty"),
        (LEARNING, "runs", [7], "runs[0] is no object"),
        (LEARNING, "runs", [RUN | {"bc": None, "why": []}], "runs[0].bc is missing"),
        (BENCHMARK, "rows", [7], "rows[0] is no object"),
        (BENCHMARK, "rows", [{"planner": "task"}], "rows lack the ratio ratio_to_refer"),
        (
            BENCHMARK,
            "rows.0.ratio_to_reference",
            "2",
            "rows[0].ratio_to_reference is no nu",
        ),
        (BENCHMARK, "repetitions", ["often"], "repetitions[0] is no whole number"),
        (BENCHMARK, "rivals", [], "rivals has 0 entries for 1 ratios"),
        (BENCHMARK, "ratios", [["speed"]], "ratios[0] is no text"),
        (BENCHMARK, "kind", ["benchmark"], "kind is ['benchmark'], and results are"),
        (FIRST, "version", True, "version is True, and results have 1 or 2"),
        (FIRST, "seeds", ["0"], "seeds[0] is no whole number from 0 on"),
        (FIRST, "figures", {"about": 1}, "figures holds none of rows, evaluation, tasks"),
        (FIRST, "figures.rows", [7], "figures.rows[0] is no object"),
        (FIRST, "figures.rows", "a table", "figures.rows is no list"),
        (LEARNING, "command", " ", "command is no text"),
        (LEARNING, "versions", {}, "versions is empty"),
        (LEARNING, "hardware", {"cores": 2}, "hardware.device is missing"),
        (LEARNING, "hardware.processor", 7, "hardware.processor is no text"),
        (LEARNING, "seconds.wall", -1.0, "seconds.wall is no number of seconds"),
        (LEARNING, "seconds.wall", np.nan, "seconds.wall is no number of seconds"),
        (LEARNING, "runs.0.configuration", {}, "runs[0].configuration.method is missing"),
        (LEARNING, "runs.0.evaluation.step", 0.5, "runs[0].evaluation.step is no whole nu"),
        (LEARNING, "runs.0.seeds", [], "runs[0].seeds is empty"),
        (LEARNING, "runs.0.seeds", [0, "1"], "runs[0].seeds[1] is no whole number from 0"),
        (LEARNING, "runs.0.seeds", [0, 0], "runs[0].seeds has a seed twice"),
        (LEARNING, "runs.0.why", ["x"], "runs[0].why is no object of texts"),
        (LEARNING, "runs.0.curves", {"a": 1}, "runs[0].curves.a is no object"),
        (
            LEARNING,
            "runs.0.curves.eval/return.steps",
            [10],
            "runs[0].curves.eval/return has 2 values for 1 steps",
        ),
        (
            LEARNING,
            "runs.0.curves.eval/return.values",
            [[1.0], [2.0]],
            "runs[0].curves.eval/return.values[0] is not of the 2 seeds",
        ),
        (LEARNING, "runs.0.bc.returns", [], "runs[0].bc.returns is empty"),
        (
            LEARNING,
            "runs.0.random.returns",
            [1.0, True, 2.0],
            "runs[0].random.returns holds what is no number",
        ),
        (
            LEARNING,
            "runs.0.random.returns",
            [1.0, np.nan, 2.0],
            "runs[0].random.returns holds what is no number",
        ),
        (
            LEARNING,
            "runs",
            [RUN, RUN | {"commit": 40 * "a"}],
            "runs are of 2 commits: ",
        ),
        (LEARNING, "runs.0.tuning.trials", True, "runs[0].tuning.trials is no whole nu"),
        (LEARNING, "runs.0.tuning.trials", -1, "runs[0].tuning.trials is no whole number"),
        (LEARNING, "runs.0.curves", {}, "runs[0].curves is empty: train with evaluations"),
        (
            LEARNING,
            "runs.0.seeds",
            [0],
            "runs[0].evaluation.returns has 2 rows for 1 see",
        ),
        (LEARNING, "runs.0.random.returns", [1.0], "runs[0].random.returns is not of the"),
        (LEARNING, "runs.0.bc.returns", [[1.0]], "runs[0].bc.returns is not of the same 3"),
        (
            LEARNING,
            "runs.0.evaluation.returns",
            [[1.0, 2.0, "x"], [1.0, 2.0, 3.0]],
            "runs[0].evaluation.returns holds what is no number",
        ),
        (BENCHMARK, "repetitions", [7, 7], "repetitions has 2 entries for 1 rows"),
        (BENCHMARK, "ratios", ["speed"], "rows lack the ratio speed"),
        (CAMPAIGN, "outcomes", [], "outcomes has 0 entries for 1 cases"),
        (CAMPAIGN, "cases", [{}], "cases[0].name is missing"),
        (CAMPAIGN, "cases.0.commit", 7, "cases[0].commit is 7, no commit of 40 digits"),
        (CAMPAIGN, "outcomes", [7], "outcomes[0] is no object"),
    ],
)
def test_what_is_no_result_is_refused_in_a_sentence(content, field, value, sentence):
    assert refused(changed(content, field, value)).startswith(sentence)


@pytest.mark.parametrize("name", ["bc", "demonstrator", "demonstrations"])
def test_a_value_may_be_absent_where_the_file_says_why(name):
    run = RUN | {name: None}
    assert refused(LEARNING | {"runs": [run]}).startswith(f"runs[0].{name} is missing")
    results.check(LEARNING | {"runs": [run | {"why": {name: "none was made"}}]}, "x.json")
    sentence = refused(LEARNING | {"runs": [run | {"why": {name: " "}}]})
    assert sentence.startswith(f"runs[0].{name} is missing")


def test_random_actions_may_not_be_absent():
    run = RUN | {"random": None, "why": {"random": "it took too long"}}
    assert refused(LEARNING | {"runs": [run]}).startswith("runs[0].random is missing")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not a file of results: "),
        ("[]", "is not a file of results, an object: write it again"),
        ("[" * 100_000, "is not a file of results: maximum recursion depth exceeded"),
        ('{"version": NaN}', "is not a file of results: it holds NaN, which JSON has not"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused(tmp_path, text, sentence):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        results.read(path)
    assert str(caught.value).startswith(f"{path} {sentence}")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="x.json cannot be read: No such file"):
        results.read(tmp_path / "x.json")


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "area").write_text("a file")
    with pytest.raises(UsageError, match=r"x.json \(--out\) cannot be written: "):
        results.write(tmp_path / "area" / "x.json", LEARNING)


def test_a_number_that_is_not_finite_is_never_written(tmp_path):
    content = changed(LEARNING, "runs.0.evaluation.step", np.inf)
    with pytest.raises(UsageError, match=r"x.json \(--out\): a number in it is not finite"):
        results.write(tmp_path / "x.json", content)
    assert list(tmp_path.iterdir()) == []


def test_cases_that_trained_nothing_stand_beside_those_of_one_commit():
    cases = [{"name": "no run"}, {"name": "a run", "commit": COMMIT}]
    results.check(CAMPAIGN | {"cases": cases, "outcomes": [{}, {}]}, "x.json")


@pytest.mark.parametrize("name", ["x.json", "a/b/x.json", "a/x.png"])
def test_a_directory_of_results_holds_nothing_else(tmp_path, name):
    path = tmp_path / name
    results.write(path, LEARNING)
    with pytest.raises(UsageError, match="is no file of results: name it .*AREA/NAME"):
        results.read_all(tmp_path)


def test_a_dirty_tree_writes_a_file_that_says_so(tmp_path, monkeypatch):
    versions = {"commit": COMMIT + "+", "device": "cpu", "devices": 1, "jax": "0.10"}
    monkeypatch.setattr(rundir, "versions", lambda: dict(versions))
    content = results.new("campaign", "a command", {}, cases=[{"name": "a"}], outcomes=[{}])
    assert content["versions"] == {"jax": "0.10"} and content["hardware"]["cores"] >= 1
    note = results.write(tmp_path / "x.json", content)
    assert "which does not belong in results/: " in note and "not committed" in note
    with pytest.raises(UsageError, match="commit is 0123456789 with changes not committed"):
        results.read(tmp_path / "x.json")
    assert "refused: " in results.describe(tmp_path / "x.json")
    versions["commit"] = COMMIT
    clean = results.new("campaign", "a command", {}, cases=[{"name": "a"}], outcomes=[{}])
    assert results.write(tmp_path / "x.json", clean) == f"wrote {tmp_path / 'x.json'}"


def test_numbers_are_written_as_json_has_them():
    values = {1: np.float32(0.1), "a": (np.arange(2), np.nan), "b": 1.23456789, "c": True}
    wanted = {"1": 0.1, "a": [[0, 1], None], "b": 1.234568, "c": True}
    assert results.plain(values) == wanted
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.dumps({"a": float("nan")})


def test_lists_of_numbers_take_one_line_and_texts_stay_as_they_are():
    content = {"a": [1, 2], "b": [["x  [y", 'q"]\\'], [{"c": []}]], "d": "[ 1,\n  2 ]"}
    text = results.dumps(content)
    assert json.loads(text) == content
    assert ' "a": [ 1, 2 ],\n' in text and '["x  [y"' in text.replace("[ ", "[")


def test_a_file_is_described_in_a_few_lines(tmp_path):
    for name, content in EVERY.items():
        path = tmp_path / f"{name}.json"
        results.write(path, content)
        text = results.describe(path)
        assert content["command"] in text and COMMIT in text and "refused" not in text
        assert len(text.splitlines()) < 9
    text = results.describe(tmp_path / "learning.json")
    assert "mpail on navigation: return of each seed 820, 710" in text


def test_reasons_are_read_by_name():
    assert results.absent(["bc: no actions: none"]) == {"bc": "no actions: none"}
    for wrong in ("bc", "bc:", "random:slow"):
        with pytest.raises(UsageError, match="write NAME:WHY, where NAME is one of"):
            results.absent([wrong])


def test_nothing_tuned_is_said_as_nothing():
    said = learning.said(learning.Tuning(trials=0))
    assert said == {"trials": 0, "settings": "nothing", "on": "nothing"}
    assert learning.said(learning.Tuning())["trials"] is None
