"""MPAIL2 on Gymnasium's Ant: `ant.py:mpail2`, or `ant.py:mpail2/small` for two cores.

    python -m experiments.train --config=experiments/configs/ant.py:mpail2/small \\
        --demos=demos/ant20.npz --logdir=runs/ant

`expert.py:gym/Ant:contact_forces=False` is an expert to demonstrate it.

As the hopper's, but that critics learn as published, plans are scored as published, and an
end is worth 0. An ant that explores ends its episodes too, and from what the hopper's ends
are worth it learns to lie still.
"""

import dataclasses

from experiments.configs import hopper
from planil_jax import config, experiment
from planil_jax.agents import mpail2


def _ant(agent: mpail2.Config) -> mpail2.Config:
    """The hopper's agent with an ant's critics, score and ends."""
    return dataclasses.replace(
        agent,
        target_rate=0.01,
        gradient_penalty=1.0,
        td_lambda=0.0,
        q_weight=0.0,
        accept_if_all_critics_prefer=False,
        value_scale=1.0,
        absorbing=False,
    )


def get_config(method: str = "mpail2"):
    settings = dict(hopper.SETTINGS.get(method, {}))
    if isinstance(agent := settings.get("agent"), mpail2.Config):
        settings["agent"] = _ant(agent)
    settings["environment"] = "gym/Ant:contact_forces=False"
    return config.to_config_dict(
        experiment.for_method(method.partition("/")[0], **settings)
    )
