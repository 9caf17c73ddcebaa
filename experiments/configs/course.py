"""Methods on a course, trained with the car of navigation.

A course is followed closely and slowly: plans are tried with little noise, values discount
more, and the discriminator is larger and steeper than where a far goal is sought.
"""

import dataclasses
from typing import Any

from experiments.configs import navigation
from planil_jax import config, experiment
from planil_jax.agents import mpail
from planil_jax.nets import mlp
from planil_jax.planners import mppi
from planil_jax.training import loop, run

PLANNER = mppi.Config(samples=256, horizon=12, noise=(0.05, 0.15))
MPAIL = mpail.Config(
    planner=PLANNER,
    discriminator=mlp.Config(hidden=(128, 128), activation="leaky_relu"),
    discriminator_steps=384,
    value_steps=128,
    temperature_rounds=10,
    input_scale=12.0,
    discount=0.8,
    imagination=mpail.Imagination(discount=0.8, spread=1.0),
    optimizer=mpail.OptimizerOptions(lr_half_life=40),
)
IRL_MPC: dict[str, Any] = navigation.SETTINGS["irl_mpc"]
SETTINGS: dict[str, Any] = navigation.SETTINGS | {
    "mpail": {
        "agent": MPAIL,
        "loop": loop.Config(num_envs=1, steps=50, rounds=10),
        "run": run.Config(total_steps=8_000, evaluate_every=2, checkpoint_every=4),
    },
    "irl_mpc": IRL_MPC | {"agent": dataclasses.replace(IRL_MPC["agent"], planner=PLANNER)},
}


def get_config(method: str = "mpail"):
    settings = {"environment": "course", **SETTINGS[method]}
    return config.to_config_dict(experiment.for_method(method, **settings))
