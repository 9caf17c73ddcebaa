"""Methods on navigation, each by its recipe: `navigation.py:gaifo`; MPAIL by default."""

from planil_jax import config
from planil_jax.compose import compose


def get_config(method: str = "mpail"):
    return config.to_config_dict(compose(method, "navigation")[0])
