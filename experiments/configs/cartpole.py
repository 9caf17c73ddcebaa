"""Methods on Playground's CartpoleSwingup, as small as on pendulum, but `cartpole.py:iqmpc`
of CheetahRun's size for two cores, with a slow encoder and rates that halve in the end.

Demonstrations come from a trained expert:

    python -m experiments.expert --logdir=runs/cartpole_expert --out=demos/cartpole.npz \\
        --config=experiments/configs/expert.py:playground/CartpoleSwingup:action_repeat=4
"""

import dataclasses
from typing import Any

from experiments.configs import pendulum, suite
from planil_jax import config, experiment
from planil_jax.agents.common import latent_planning
from planil_jax.training import run

ENVIRONMENT = "playground/CartpoleSwingup:action_repeat=4"


def get_config(method: str = "iqmpc"):
    settings = experiment.from_config_dict(pendulum.get_config(method))
    fields: dict[str, Any] = {"environment": ENVIRONMENT}
    if method != "bc":
        fields["loop"] = dataclasses.replace(settings.loop, resets=8)
        fields["run"] = run.Config(total_steps=5_000, evaluation_episodes=10)
    if method == "iqmpc":
        small = suite.SETTINGS["iqmpc/small"]
        optimizer = latent_planning.Optimizer(
            encoder_lr_scale=0.05, lr_hold=8_000, lr_half_life=1_000
        )
        fields["agent"] = dataclasses.replace(
            small["agent"], optimizer=optimizer, ema_rate=0.2
        )
        fields["loop"] = small["loop"]
        fields["run"] = run.Config(
            total_steps=14_000, evaluate_every=8, evaluation_episodes=4
        )
    return config.to_config_dict(dataclasses.replace(settings, **fields))
