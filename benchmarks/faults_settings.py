"""Methods at the smallest sizes that run, for the campaign: `faults_settings.py:mpail`."""

import dataclasses
from typing import Any

from planil_jax import config, experiment
from planil_jax.training import loop, run

ENVIRONMENT = "point_mass:episode_length=6"
METHODS = ("bc", "mpail", "mpail2", "iqmpc", "cmil")
LOOP = loop.Config(num_envs=2, steps=4, rounds=1, resets=2)
RUN = run.Config(evaluate_every=1, evaluation_episodes=2, checkpoint_every=1, keep_best=1)
# Field of a method's settings -> its value, or that of the one layer that it lists.
SIZES = {
    **{"hidden": 8, "encoder": 8, "latent": 8, "critics": 2, "members": 2},
    **{"deter": 8, "stoch": 4, "heads": 2},
    **{"samples": 8, "horizon": 2, "iterations": 1, "proposals": 2, "elites": 4},
    **{"batch": 8, "value_batch": 8, "member_batch": 8, "capacity": 12, "length": 4},
    **{"gradient_steps": 2, "discriminator_steps": 2, "value_steps": 2},
    **{"seed_steps": 8, "updates_per_step": 0.25, "pretrain_steps": 1, "bc_steps": 1},
}


def get_config(method: str = "bc"):
    settings = experiment.for_method(
        method, environment=ENVIRONMENT, seeds=2, loop=LOOP, run=RUN
    )
    small = dataclasses.replace(settings, agent=smallest(settings.agent))
    return config.to_config_dict(small)


def smallest(node: Any) -> Any:
    """Settings with the fields of SIZES set, wherever in them they are."""
    changed = {}
    for field in dataclasses.fields(node):
        value, size = getattr(node, field.name), SIZES.get(field.name)
        if dataclasses.is_dataclass(value):
            changed[field.name] = smallest(value)
        elif size is not None and value is not None:
            changed[field.name] = (size,) if isinstance(value, tuple) else size
    return dataclasses.replace(node, **changed)
