"""Any method with its own defaults: `default.py:gaifo`; the command line says the rest."""

from planil_jax import config, experiment


def get_config(method: str = "mpail"):
    return config.to_config_dict(experiment.for_method(method))
