"""MPAIL beside policies and cloning on navigation, in and out of distribution."""

from experiments import compare
from planil_jax import config


def get_config():
    return config.thaw(
        compare.Comparison(
            tasks=("navigation",),
            methods=("mpail", "irl_mpc", "gaifo", "gail", "airl", "bc"),
            field=40.0,
        )
    )
