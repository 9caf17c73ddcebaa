"""MPAIL beside policies and cloning on navigation with MJX physics."""

from planil_jax import config
from planil_jax.evaluation import compare, learning


def get_config():
    return config.to_config_dict(
        compare.Comparison(
            tasks=("navigation_mjx",),
            methods=("mpail", "gaifo", "gail", "bc"),
            seeds=3,
            field=40.0,
            tuned=learning.Tuning(
                trials=9,
                settings="tune_navigation.py: fewest steps to 95%, of bc the most arrivals",
                on="navigation, not this task, seeds 100 and 101",
            ),
        )
    )
