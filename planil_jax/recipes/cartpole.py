"""Recipes of Playground's CartpoleSwingup, for two cores.

Agents are as small as on pendulum. IQ-MPC's latent model is twice as wide, its encoder
learns slowly, and its rates halve in the end.
"""

from typing import Any

from planil_jax.agents import cmil, iqmpc, tdmpc2
from planil_jax.agents.common import latent_planning
from planil_jax.recipes import sizes
from planil_jax.training import loop, run

_RUN = run.Config(total_steps=5_000, evaluation_episodes=10)
_LATENT = {"loop": loop.Config(num_envs=1, steps=25, rounds=8, resets=8), "run": _RUN}
_WORLD = {"loop": loop.Config(num_envs=1, steps=50, rounds=20, resets=8), "run": _RUN}
_CLONING = {
    "loop": loop.Config(num_envs=1, steps=1, rounds=30),
    "run": run.Config(total_steps=30, evaluation_episodes=20),
}
_CMIL = sizes.world(entropy_coef=0.1)
_IQMPC = iqmpc.Config(
    **sizes.wider_latent() | {"ema_rate": 0.2},
    optimizer=latent_planning.Optimizer(
        encoder_lr_scale=0.05, lr_hold=8_000, lr_half_life=1_000
    ),
    critic_subset=5,
    expert_noise=0.1,
)

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "playground/CartpoleSwingup:action_repeat=4": {
        "iqmpc": {
            "agent": _IQMPC,
            "loop": loop.Config(num_envs=4, steps=25, rounds=5, resets=8),
            "run": run.Config(total_steps=14_000, evaluate_every=8, evaluation_episodes=4),
        },
        "iqmpc/steady": _LATENT | {"agent": sizes.steady_iqmpc()},
        "mpail2": _LATENT | {"agent": sizes.small_mpail2()},
        "tdmpc2": _LATENT | {"agent": tdmpc2.Config(**sizes.latent())},
        "cmil": _WORLD | {"agent": _CMIL},
        "vmail": _WORLD | {"agent": cmil.vmail(_CMIL)},
        "mail": {
            "loop": loop.Config(num_envs=1, steps=100, rounds=10, resets=8),
            "run": _RUN,
        },
        "bc": _CLONING,
        "bc/holdout": sizes.held_out(_CLONING),
    }
}
