from types import SimpleNamespace

import pytest

from benchmarks import mutations
from planil_jax.base import UserError
from planil_jax.evaluation import results

pytestmark = pytest.mark.fast


def test_changed_files_are_read_as_they_were_written_or_refused_in_a_sentence():
    """Every change of each kind of files at least once; the manifests among them have a
    seal that does not hold, or one that somebody put there afterwards."""
    cases, outcomes = mutations.run(600, 1)
    assert len({(case.kind, case.change) for case in cases}) > 360
    assert mutations.faults(cases, outcomes) == []
    counts = mutations.table(cases, outcomes)
    assert len(counts) == len(mutations.KINDS)
    for of_kind in counts.values():
        assert of_kind[mutations.REFUSED] > 80
        assert of_kind[mutations.EQUAL] > 1


def test_a_refusal_that_does_not_name_the_file_is_a_fault(monkeypatch):
    def refuse(base):
        if base.path.read_bytes() != base.content:
            raise UserError("a file is damaged.")
        return "the same", ""

    monkeypatch.setattr(mutations, "_read", refuse)
    cases, outcomes = mutations.run(30, 0)
    verdicts = {outcome.verdict for outcome in outcomes}
    assert mutations.UNEXPECTED in verdicts and mutations.REFUSED not in verdicts
    assert "no name of the file" in mutations.faults(cases, outcomes)[0]


def test_the_changes_of_a_kind_are_known_by_their_layers():
    for kind, layers in [
        ("manifest", {"bytes", "json"}),
        ("source", {"bytes", "array", "number", "header", "zip"}),
        ("expert", {"bytes", "json", "array", "number", "header", "zip"}),
    ]:
        named = mutations.of_kind(kind)
        assert {name.split(":")[0] for name in named} == layers
        assert len(named) == {"manifest": 31, "source": 103, "expert": 122}[kind]


def test_what_was_found_is_a_campaign_among_the_results(monkeypatch, tmp_path):
    monkeypatch.setattr(mutations, "FLAGS", SimpleNamespace(count=10, seed=3, first=0))
    cases, outcomes = mutations.run(10, 3)
    content = mutations.content(cases, outcomes)
    results.check_fields(content, "mutations.json")
    assert [case["name"] for case in content["cases"]] == list(
        mutations.table(cases, outcomes)
    )
    assert sum(outcome["cases"] for outcome in content["outcomes"]) == 10


def test_a_case_can_be_repeated_alone():
    cases, outcomes = mutations.run(20, 2)
    (case,), (outcome,) = mutations.run(1, 2, first=13)
    assert case == cases[13] and outcome.verdict == outcomes[13].verdict


def test_what_is_silently_wrong_is_seen(monkeypatch):
    """Readers that return the same whatever is there."""
    monkeypatch.setattr(mutations, "_read", lambda base: ("the same", ""))
    cases, outcomes = mutations.run(300, 0)
    found = {outcome.verdict for outcome in outcomes}
    assert found == {mutations.EQUAL, mutations.SILENT}
    assert len(mutations.faults(cases, outcomes)) > 50
