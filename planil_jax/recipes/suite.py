"""Recipes of DeepMind's control suite on Playground, from numbers.

"iqmpc" is of a size for a GPU, "iqmpc/small" for two cores. An action lasts 0.04 to 0.05 s,
an episode 10 to 25 s.
"""

import dataclasses
from typing import Any

from planil_jax.agents import bc, iqmpc
from planil_jax.agents.common import latent_planning, sequences
from planil_jax.nets import latent as networks
from planil_jax.recipes import sizes
from planil_jax.training import loop, run


def _large(size: int) -> dict[str, Any]:
    """Latent states and layers of so many units, and plans half as many as the papers'."""
    small = sizes.latent()
    planner = dataclasses.replace(small["planner"], samples=256, iterations=4, elites=32)
    return small | {
        "network": networks.Config(latent=size, encoder=(256,), hidden=(size, size)),
        "planner": planner,
        "replay": sequences.Config(capacity=25_000),
        "ema_rate": 0.05,
        "seed_steps": 2_000,
    }


_CLONING = {
    "agent": bc.Config(),
    "loop": loop.Config(num_envs=1, steps=1, rounds=30),
    "run": run.Config(total_steps=30),
}
_METHODS: dict[str, dict[str, Any]] = {
    "iqmpc": {
        "agent": iqmpc.Config(
            **_large(256),
            optimizer=latent_planning.Optimizer(lr_hold=30_000, lr_half_life=8_000),
            updates_per_step=0.5,
            critic_subset=5,
            expert_noise=0.1,
        ),
        "loop": loop.Config(num_envs=16, steps=25, rounds=5, resets=16),
        "run": run.Config(total_steps=114_000, evaluation_episodes=8),
    },
    "iqmpc/small": {
        "agent": iqmpc.Config(**sizes.wider_latent(), critic_subset=5, expert_noise=0.1),
        "loop": loop.Config(num_envs=4, steps=25, rounds=5, resets=8),
        "run": run.Config(total_steps=24_000, evaluate_every=8, evaluation_episodes=4),
    },
    "bc": _CLONING,
    "bc/holdout": sizes.held_out(_CLONING),
}

RECIPES = {
    "playground/CheetahRun:action_repeat=4": _METHODS,
    "playground/WalkerRun:action_repeat=2": _METHODS,
    "playground/HopperHop:action_repeat=2": _METHODS,
}
