"""Playground's swing-ups by planning alone, through the true physics, without learning."""

import jax
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.evaluation import expert_policies
from planil_jax.training import loop

pytest.importorskip("mujoco_playground")


@pytest.mark.parametrize(
    ("task", "starts", "least"),
    [("CartpoleSwingup", 4, 600), ("PendulumSwingup", 4, 700)],
)
def test_every_start_swings_up(task, starts, least):
    """All returns, of at most 1000, are above `least`, and the pole is up at the end."""
    name = f"playground/{task}:action_repeat=4"
    env = envs.make(name)
    expert = expert_policies.make_expert(name, env)
    keys = jax.random.split(jax.random.key(1), starts)
    rolled, alive = jax.jit(lambda keys: loop.evaluate(expert, env, (), keys))(keys)
    returns = np.sum(np.asarray(rolled.reward * alive), axis=1)
    print(f"{task}: {np.round(returns)}")
    assert returns.min() > least
    assert rolled.reward[:, -20:].mean() > 0.8 * 4  # four physics steps a step
