"""Methods on navigation with the simulated car of wheels and tyres; settings as there.

Policies are trained for half as long and evaluated half as often, since physics is dear.
"""

import dataclasses

from experiments.configs import navigation
from planil_jax import config, experiment


def get_config(method: str = "mpail"):
    settings = navigation.SETTINGS[method]
    if method not in ("mpail", "bc"):
        shorter = dataclasses.replace(navigation.RUN, total_steps=12_000, evaluate_every=2)
        settings = settings | {"run": shorter}
    settings = {"environment": "navigation_mjx", **settings}
    return config.to_config_dict(experiment.for_method(method, **settings))
