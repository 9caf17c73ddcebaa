"""MPAIL beside policies and cloning on navigation with MJX physics."""

from experiments import compare
from planil_jax import config


def get_config():
    return config.thaw(
        compare.Comparison(
            tasks=("navigation_mjx",),
            methods=("mpail", "gaifo", "gail", "bc"),
            seeds=3,
            field=40.0,
        )
    )
