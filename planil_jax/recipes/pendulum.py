"""Recipes of pendulum with latent models, from numbers and from pictures, for two cores.

Demonstrations are those of an expert that was trained on numbers, see `experts`. Planners
and cloning see the last three frames of 48 × 48 pixels. World models draw what they see, so
that theirs are of 64 × 64, one frame at a time; they read and draw tiles.
"""

import dataclasses
from typing import Any

from planil_jax.agents import bc, cmil, iqmpc, mpail2, tdmpc2
from planil_jax.nets import conv
from planil_jax.recipes import sizes
from planil_jax.training import loop, run

# ---------------------------------------------------------------------------- from numbers

_LATENT = {
    "loop": loop.Config(num_envs=1, steps=25, rounds=8),
    "run": run.Config(total_steps=3_000, evaluation_episodes=20),
}
_WORLD = {
    "loop": loop.Config(num_envs=1, steps=50, rounds=20),
    "run": run.Config(total_steps=10_000, evaluation_episodes=20),
}
_CLONING = {
    "loop": loop.Config(num_envs=1, steps=1, rounds=30),
    "run": run.Config(total_steps=30, evaluation_episodes=20),
}
# This much entropy keeps the policy from staying at the bounds of the action.
_CMIL = sizes.world(entropy_coef=0.1)
_NUMBERS: dict[str, dict[str, Any]] = {
    "iqmpc": _LATENT | {"agent": sizes.small_iqmpc()},
    "iqmpc/steady": _LATENT | {"agent": sizes.steady_iqmpc()},
    "mpail2": _LATENT | {"agent": sizes.small_mpail2()},
    "tdmpc2": _LATENT | {"agent": tdmpc2.Config(**sizes.latent())},
    "cmil": _WORLD | {"agent": _CMIL},
    "vmail": _WORLD | {"agent": cmil.vmail(_CMIL)},
    "mail": {
        "loop": loop.Config(num_envs=1, steps=100, rounds=10),
        "run": run.Config(total_steps=10_000, evaluation_episodes=20, seeds_by="map"),
    },
    "bc": _CLONING,
    "bc/holdout": sizes.held_out(_CLONING),
}

# --------------------------------------------------------------------------- from pictures

_CONVOLUTIONS = conv.Config(filters=16)


def _of_pictures(agent: Any) -> iqmpc.Config | mpail2.Config:
    """A latent planner that reads pictures.

    It has smaller batches, and a gradient step for every other step.
    """
    return dataclasses.replace(
        agent,
        network=dataclasses.replace(agent.network, encoder_conv=_CONVOLUTIONS),
        replay=dataclasses.replace(agent.replay, batch=32, capacity=5_000),
        optimizer=dataclasses.replace(agent.optimizer, encoder_lr_scale=1.0),
        updates_per_step=0.5,
    )


def _world_of_pictures() -> cmil.Config:
    """CMIL that reads and draws pictures."""
    agent = sizes.world(
        kl=cmil.KlConfig(),
        optimizer=cmil.OptimizerConfig(model_lr=3e-3, critic_lr=1e-3, policy_lr=3e-4),
        pretrain_steps=500,
        updates_per_step=0.3,
    )
    model = dataclasses.replace(agent.model, pictures=sizes.tiles())
    return dataclasses.replace(agent, model=model)


_LATENT_OF_PICTURES = {
    "loop": loop.Config(num_envs=1, steps=25, rounds=8, resets=4),  # each is drawn
    "run": run.Config(total_steps=3_000, evaluation_episodes=10),
}
_WORLD_OF_PICTURES = {
    "loop": loop.Config(num_envs=1, steps=50, rounds=20, resets=2),
    "run": run.Config(total_steps=15_000, evaluation_episodes=20, seeds_by="map"),
}
_CLONING_OF_PICTURES = {
    "agent": bc.Config(encoder_conv=_CONVOLUTIONS, batch=32),
    "loop": loop.Config(num_envs=1, steps=1, rounds=30, resets=4),
    "run": run.Config(total_steps=30, evaluation_episodes=20),
}

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "pendulum": _NUMBERS,
    "pendulum:pixels=48": {
        "iqmpc": _LATENT_OF_PICTURES | {"agent": _of_pictures(sizes.small_iqmpc())},
        "mpail2": _LATENT_OF_PICTURES | {"agent": _of_pictures(sizes.small_mpail2())},
        "bc": _CLONING_OF_PICTURES,
        "bc/holdout": sizes.held_out(_CLONING_OF_PICTURES, 3_000),
    },
    "pendulum:pixels=64,frames=1": {
        "cmil": _WORLD_OF_PICTURES | {"agent": _world_of_pictures()},
        "vmail": _WORLD_OF_PICTURES | {"agent": cmil.vmail(_world_of_pictures())},
    },
}
