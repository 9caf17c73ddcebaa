"""Recipes of a course, which the car of navigation drives along.

A course is followed closely and slowly. MPAIL and the planner of IRL-MPC therefore try
plans with little noise. MPAIL's values discount more, and its discriminator is larger and
steeper than where a far goal is sought. The other methods learn as in navigation.
"""

import dataclasses
from typing import Any

from planil_jax.agents import bc, mpail, mpail2
from planil_jax.agents.common import sequences
from planil_jax.nets import mlp
from planil_jax.planners import mppi
from planil_jax.recipes import sizes
from planil_jax.training import loop, run

_PLANNER = mppi.Config(samples=256, horizon=12, noise=(0.05, 0.15))
_LOOP = loop.Config(num_envs=2, steps=100, rounds=1)
_RUN = run.Config(total_steps=24_000, evaluate_every=1, checkpoint_every=20)
_POLICY = {"loop": _LOOP, "run": _RUN}
_CLONING: dict[str, Any] = {
    "agent": bc.Config(gradient_steps=25, weight_decay=0.1),
    "loop": loop.Config(num_envs=1, steps=1, rounds=20),
    "run": run.Config(total_steps=20, evaluate_every=1),
}

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "course": {
        "mpail": {
            "agent": mpail.Config(
                planner=_PLANNER,
                discriminator=mlp.Config(hidden=(128, 128), activation="leaky_relu"),
                discriminator_steps=384,
                value_steps=128,
                temperature_rounds=10,
                input_scale=12.0,
                discount=0.8,
                imagination=mpail.Imagination(discount=0.8, spread=1.0),
                optimizer=mpail.OptimizerOptions(lr_half_life=40),
            ),
            "loop": loop.Config(num_envs=1, steps=50, rounds=10),
            "run": run.Config(total_steps=8_000, evaluate_every=2, checkpoint_every=4),
        },
        "gail": _POLICY
        | {"agent": sizes.car_policy("gail", learning_rate=3e-4, gradient_steps=128)},
        "gaifo": _POLICY | {"agent": sizes.car_policy("gaifo", gradient_steps=128)},
        "airl": _POLICY | {"agent": sizes.car_policy("airl")},
        "irl_mpc": {
            "agent": sizes.car_policy(
                "gaifo",
                deploy="planner",
                planner=_PLANNER,
                gradient_penalty=0.1,
                temperature=10.0,
            ),
            "loop": _LOOP,
            "run": dataclasses.replace(_RUN, evaluate_every=10),  # planning takes long
        },
        "mpail2": {
            "agent": sizes.small_mpail2(
                replay=sequences.Config(capacity=10_000, batch=128, recency_exponent=3.0),
                optimizer=mpail2.Optimizer(lr_hold=3_000, lr_half_life=2_000),
            ),
            "loop": loop.Config(num_envs=2, steps=50, rounds=5),
            "run": run.Config(total_steps=15_000, evaluate_every=2),
        },
        "bc": _CLONING,
        "bc/holdout": sizes.held_out(_CLONING),
    }
}
