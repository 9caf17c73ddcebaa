"""Contracts of variants of agents, and MPAIL with a true or a learned model."""

import pytest

from tests import test_agents as contracts
from tests import tiny
from tests.agents import test_mpail

KEPT = [
    case for name, model in tiny.KIN.items() for case in contracts.cases(name, like=model)
]


@pytest.mark.parametrize("contract, case", KEPT)
def test_contract(contract, case):
    contract(**case)


@pytest.mark.parametrize("learned_model", [False, True])
def test_with_the_true_model_or_a_learned_one_mpail_ends_where_its_demonstrators_do(
    learned_model,
):
    test_mpail.ends_where_its_demonstrators_do(learned_model)
