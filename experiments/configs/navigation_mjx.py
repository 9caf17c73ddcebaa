"""Methods on navigation with the simulated car of wheels and tyres, each by its recipe."""

from planil_jax import config
from planil_jax.compose import compose


def get_config(method: str = "mpail"):
    return config.to_config_dict(compose(method, "navigation_mjx")[0])
