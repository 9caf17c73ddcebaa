"""Any method with its own defaults: `default.py:gaifo`; the command line says the rest."""

from experiments import experiment
from planil_jax import config


def get_config(method: str = "mpail"):
    return config.thaw(experiment.of_method(method))
