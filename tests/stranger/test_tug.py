"""The contracts of agents, kept by a method from outside the package."""

from collections.abc import Iterator

import pytest

from planil_jax import registry
from tests import test_agents as contracts
from tests import tiny
from tests.stranger import tug

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        others = {name: row for name, row in registry._ROWS.items() if name != "tug"}
        patch.setattr(registry, "_ROWS", others)
        registry.register_agent("tug", tug)
        patch.setitem(tiny.CONFIGS, "tug", tug.Config(steps=3, batch=16))
        yield
    registry.method.cache_clear()


def test_it_is_a_method_of_the_registry():
    assert registry.method("tug").config == tug.Config()
    assert "tug" in registry.methods() and "tug" not in contracts.METHODS


@pytest.mark.parametrize("contract, case", contracts.cases("tug", like="bc"))
def test_a_stranger_s_method_keeps_the_contract(contract, case):
    contract(**case)
