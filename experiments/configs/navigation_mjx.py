"""Methods on navigation with the simulated car of wheels and tyres; settings as there.

Policies are trained for half as long and evaluated half as often, since physics is dear.
"""

import dataclasses

from experiments import experiment
from experiments.configs import navigation
from planil_jax import config


def get_config(method: str = "mpail"):
    settings = navigation.SETTINGS[method]
    if method not in ("mpail", "bc"):
        shorter = dataclasses.replace(navigation.RUN, total_steps=12_000, evaluate_every=2)
        settings = settings | {"run": shorter}
    settings = {"environment": "navigation_mjx", **settings}
    return config.thaw(experiment.of_method(method, **settings))
