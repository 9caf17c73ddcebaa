"""The small experts that are kept beside the recipes."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from planil_jax.data import expert_file
from planil_jax.evaluation import expert_policies, saved_experts

FILES = sorted((Path(__file__).parents[2] / "experiments/experts").glob("*.npz"))


def test_all_are_small():
    sizes = [file.stat().st_size for file in FILES]
    assert FILES and max(sizes) < 700_000 and sum(sizes) < 5_000_000


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_expert_says_where_it_comes_from_and_returns_what_it_says(file):
    """By other rounding single episodes may differ; the mean within a tenth."""
    weights, _, card = expert_file.read(file)
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    assert re.fullmatch("[0-9a-f]{40}", card.commit)
    assert card.command.startswith("planil expert ")
    trained = saved_experts.load(file)
    keys = jax.random.split(jax.random.key(24301), 64)
    assert card.starts == "jax.random.split(jax.random.key(24301), 64)"
    returns = expert_policies.returns(expert_policies.from_run(trained), keys)
    np.testing.assert_allclose(returns.mean(), np.mean(card.returns), rtol=0.1)
