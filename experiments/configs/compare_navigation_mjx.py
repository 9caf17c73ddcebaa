"""MPAIL beside policies and cloning on navigation with MJX physics."""

from planil_jax import config
from planil_jax.evaluation import compare


def get_config():
    return config.to_config_dict(
        compare.Comparison(
            tasks=("navigation_mjx",),
            methods=("mpail", "gaifo", "gail", "bc", "bc/holdout"),
            seeds=3,
            field=40.0,
        )
    )
