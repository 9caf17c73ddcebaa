"""Recipes of the engines, which learn from a task's own reward and become its experts.

In Walker2d and Ant the return can fall from one evaluation to the next: demonstrate by the
best checkpoint (`--which=best`). HopperHop's reward is 0 until a hopper stands, so that its
expert learns from one that is shaped, and demonstrates the task without.
"""

from typing import Any

from planil_jax.agents import ppo, sac
from planil_jax.nets import heads, mlp
from planil_jax.training import loop, run

USUAL: dict[str, Any] = {  # PPO where no engine was tuned
    "agent": ppo.Config(learning_rate=1e-3),
    "loop": loop.Config(num_envs=32, steps=200, rounds=5),
    "run": run.Config(total_steps=1_000_000),
}


def _sac(total_steps: int = 400_000) -> dict[str, Any]:
    """SAC for bodies of several joints."""
    return {
        "agent": sac.Config(
            policy=heads.Config(
                network=mlp.Config(hidden=(256, 256)), std=1.0, std_of_state=True
            ),
            critic=mlp.Config(hidden=(256, 256)),
            gradient_steps=800,
            batch=256,
            capacity=10_000,
            learning_rate=6e-4,
        ),
        "loop": loop.Config(num_envs=64, steps=25, rounds=5, resets=64),
        "run": run.Config(total_steps=total_steps),
    }


RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "pendulum": {
        "sac": {
            "loop": loop.Config(num_envs=2, steps=100, rounds=5),
            "run": run.Config(total_steps=20_000),
        }
    },
    "playground/CartpoleSwingup:action_repeat=4": {
        "sac": {
            "loop": loop.Config(num_envs=4, steps=125, rounds=4, resets=8),
            "run": run.Config(total_steps=60_000),
        }
    },
    "brax/inverted_pendulum": {
        "ppo": {
            "loop": loop.Config(num_envs=32, steps=64, rounds=8),
            "run": run.Config(total_steps=500_000),
        }
    },
    "gym/Walker2d": {"sac": _sac()},
    "gym/Ant:contact_forces=False": {"sac": _sac(480_000)},
    "playground/CheetahRun:action_repeat=4": {"sac": _sac()},
    "playground/WalkerRun:action_repeat=2": {"sac": _sac()},
    "playground/HopperHop:action_repeat=2,shaped=True": {"sac": _sac(800_000)},
}
