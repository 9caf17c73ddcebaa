"""MPAIL on navigation, from four observation-only demonstrations."""

from experiments import experiment
from planil_jax import config


def get_config():
    return config.thaw(experiment.Experiment(environment="navigation"))
