"""MPAIL beside policies and cloning on navigation, in and out of distribution."""

from planil_jax import config
from planil_jax.evaluation import compare, learning


def get_config():
    return config.to_config_dict(
        compare.Comparison(
            tasks=("navigation",),
            methods=("mpail", "irl_mpc", "gaifo", "gail", "airl", "bc"),
            field=40.0,
            tuned=learning.Tuning(
                trials=9,
                settings="tune_navigation.py: fewest steps to 95%, of bc the most arrivals",
                on="navigation, the same demonstrations, seeds 100 and 101",
            ),
        )
    )
