"""Experts by environment: `expert.py:pendulum`; PPO where nothing else is known."""

from experiments.configs import suite
from planil_jax import config, experiment
from planil_jax.agents import ppo
from planil_jax.training import loop, run

# By environment: the engine, and what is off its defaults.
EXPERTS = {
    "pendulum": (
        "sac",
        {
            "loop": loop.Config(num_envs=2, steps=100, rounds=5),
            "run": run.Config(total_steps=20_000),
        },
    ),
    "playground/CartpoleSwingup:action_repeat=4": (
        "sac",
        {
            "loop": loop.Config(num_envs=4, steps=125, rounds=4, resets=8),
            "run": run.Config(total_steps=60_000),
        },
    ),
    "brax/inverted_pendulum": (
        "ppo",
        {
            "loop": loop.Config(num_envs=32, steps=64, rounds=8),
            "run": run.Config(total_steps=500_000),
        },
    ),
    # From one evaluation to the next these can fall: demonstrate by --which=best.
    "gym/Walker2d": ("sac", suite.SETTINGS["sac"]),
    "gym/Ant:contact_forces=False": (
        "sac",
        suite.SETTINGS["sac"] | {"run": run.Config(total_steps=480_000)},
    ),
}
USUAL = (
    "ppo",
    {
        "agent": ppo.Config(learning_rate=1e-3),
        "loop": loop.Config(num_envs=32, steps=200, rounds=5),
        "run": run.Config(total_steps=1_000_000),
    },
)


def get_config(environment: str = "pendulum"):
    method, settings = EXPERTS.get(environment, USUAL)
    return config.to_config_dict(
        experiment.for_method(method, environment=environment, **settings)
    )
