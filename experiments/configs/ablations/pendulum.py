"""Pendulum's recipes without one of their choices, or with another: what becomes of them.

`ablations/pendulum.py:iqmpc/value`; what is no ablation is the recipe of that name.
"""

import dataclasses
from typing import Any

from planil_jax import config
from planil_jax.agents.common import latent_planning
from planil_jax.compose import compose

_POLICY = latent_planning.Planning(enabled=False)
ABLATIONS: dict[str, dict[str, Any]] = {  # name -> fields of the agent
    "iqmpc/value": {"objective": "value"},
    "iqmpc/penalty": {"gradient_penalty": 0.1},
    "iqmpc/alpha=0.1": {"alpha": 0.1},
    "iqmpc/alpha=2": {"alpha": 2.0},
    "iqmpc/policy": {"planning": _POLICY},
    "mpail2/policy": {"planning": _POLICY},
    "mpail2/penalty=0": {"gradient_penalty": 0.0},
}


def get_config(method: str = "iqmpc/value"):
    changes = ABLATIONS.get(method, {})
    recipe = method.partition("/")[0] if changes else method
    settings, _ = compose(recipe, "pendulum")
    agent = dataclasses.replace(settings.agent, **changes)
    return config.to_config_dict(dataclasses.replace(settings, agent=agent))
