"""Methods on a course, trained with the car of navigation.

A course is followed by what lies a second or two ahead: plans are longer, values discount
more, and the discriminator may be steeper than where a far goal is sought.
"""

from experiments import experiment
from experiments.configs import navigation
from planil_jax import config
from planil_jax.agents import mpail
from planil_jax.planners import mppi
from planil_jax.training import loop, run

MPAIL = mpail.Config(
    planner=mppi.Config(samples=256, horizon=15),
    discriminator_steps=128,
    value_steps=128,
    temperature_rounds=10,
    sharpness=4.0,
    discount=0.8,
    imagined_discount=0.8,
    imagined_spread=1.0,
    rate_half_life=40,
)
SETTINGS = navigation.SETTINGS | {
    "mpail": {
        "agent": MPAIL,
        "loop": loop.Config(environments=1, steps=50, rounds=10),
        "run": run.Config(total_steps=6_000, evaluate_every=2, checkpoint_every=4),
    },
}


def get_config(method: str = "mpail"):
    settings = {"environment": "course", **SETTINGS[method]}
    return config.thaw(experiment.of_method(method, **settings))
