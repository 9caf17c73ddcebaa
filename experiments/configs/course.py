"""Methods on a course, each by its recipe: `course.py:mpail`."""

from planil_jax import config
from planil_jax.compose import compose


def get_config(method: str = "mpail"):
    return config.to_config_dict(compose(method, "course")[0])
