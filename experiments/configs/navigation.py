"""Methods on navigation, each at its settings: `navigation.py:gaifo`; MPAIL by default."""

from experiments import experiment
from planil_jax import config
from planil_jax.training import loop

# Off the defaults, by method.
SETTINGS = {
    "bc": {"loop": loop.Config(environments=1, steps=1, rounds=10)},
}


def get_config(method: str = "mpail"):
    return config.thaw(
        experiment.of_method(method, environment="navigation", **SETTINGS.get(method, {}))
    )
