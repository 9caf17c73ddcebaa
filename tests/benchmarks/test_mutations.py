import pytest

from benchmarks import mutations

pytestmark = pytest.mark.fast

READERS = ("demonstrations", "source", "expert")


def test_changed_files_are_read_as_they_were_written_or_refused_in_a_sentence():
    """Every change of each kind once, of three kinds of files."""
    cases, outcomes = mutations.run(600, 1)
    chosen = [n for n, case in enumerate(cases) if case.kind in READERS]
    assert len({(cases[n].kind, cases[n].change) for n in chosen}) > 300
    assert mutations.faults([cases[n] for n in chosen], [outcomes[n] for n in chosen]) == []
    counts = mutations.table(cases, outcomes)
    for kind in READERS:
        assert counts[kind][mutations.REFUSED] > 80
        assert counts[kind][mutations.EQUAL] > 5


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
