"""Contracts of variants of agents, and MPAIL with a true or a learned model."""

import itertools

import pytest

from tests import test_agents as contracts
from tests import tiny
from tests.agents import test_mpail


def kept() -> list:
    """Every variant in KIN with every contract that its original passes."""
    found = []
    for title, contract in vars(contracts).items():
        marks = {mark.args[0]: mark.args[1] for mark in getattr(contract, "pytestmark", [])}
        tried = marks.pop("name", [])
        fields = [x for key in marks for x in ([key] if type(key) is str else key)]
        names = [name for name, model in tiny.KIN.items() if model in tried]
        for name, *values in itertools.product(names, *marks.values()):
            flat = [
                x for value in values for x in (value if type(value) is tuple else [value])
            ]
            case = {"name": name} | dict(zip(fields, flat, strict=True))
            words = "-".join([title, *map(str, case.values())])
            found.append(pytest.param(contract, case, id=words))
    return found


@pytest.mark.parametrize("contract, case", kept())
def test_contract(contract, case):
    contract(**case)


@pytest.mark.parametrize("learned_model", [False, True])
def test_with_the_true_model_or_a_learned_one_mpail_ends_where_its_demonstrators_do(
    learned_model,
):
    test_mpail.ends_where_its_demonstrators_do(learned_model)
