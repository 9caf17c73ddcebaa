"""Latent models on pendulum, beside cloning and without some of what they are made of.

    python -m experiments.compare --config=experiments/configs/compare_pendulum.py \\
        --demos=demos/pendulum.npz --logdir=runs/compare_pendulum

Demonstrations come from a trained expert, see experiments/configs/pendulum.py; the scripted
one, whose return is not shown, drives with more noise than there is to learn.
"""

from experiments import compare
from planil_jax import config


def get_config():
    return config.thaw(
        compare.Comparison(
            tasks=("pendulum",),
            methods=(
                "iqmpc",
                "iqmpc/policy",
                "iqmpc/value",
                "iqmpc/penalty",
                "iqmpc/alpha=0.1",
                "iqmpc/alpha=2",
                "mpail2",
                "mpail2/policy",
                "mpail2/penalty=0",
                "bc",
            ),
            seeds=3,
            expert=False,
            episodes=20,
        )
    )
