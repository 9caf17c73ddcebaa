"""Gradients by horizon: at a horizon of one step they do not depend on the model."""

import pytest

from benchmarks import unroll
from planil_jax import envs
from planil_jax.base import UsageError


def test_physics_and_model_agree_about_the_first_cost():
    rows = unroll.measure(envs.make("point_mass"), (1,), starts=2, seeds=1, model_steps=1)
    assert [row["through"] for row in rows] == ["physics", "model"]
    assert rows[0]["median"] == pytest.approx(rows[1]["median"], rel=1e-4)
    assert rows[0]["median"] > 0 and rows[0]["finite"] == rows[1]["finite"] == 1


def test_an_environment_whose_observation_does_not_determine_the_state_is_refused():
    env = envs.make("pendulum:tremble=0.1")
    with pytest.raises(UsageError, match="cannot recover its state from one"):
        unroll.measure(env, (1,), starts=2, seeds=1, model_steps=1)
