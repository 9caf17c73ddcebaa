"""Latent models on pendulum, beside cloning and without some of what they are made of.

    python -m experiments.compare --config=experiments/configs/compare_pendulum.py \\
        --demos=demos/pendulum.npz --logdir=runs/compare_pendulum

Demonstrations come from a trained expert, see experiments/configs/pendulum.py; the scripted
one, whose return is not shown, drives with more noise than there is to learn. With 100 of
them, `compare_pendulum.py:few` asks how many it takes, and `compare_pendulum.py:tremble`
what a hand does that trembles at every hundredth or fiftieth step.
"""

from planil_jax import config
from planil_jax.evaluation import compare

TASK = "experiments/configs/ablations/pendulum.py"  # and the recipes
METHODS: dict[str, tuple[str, ...]] = {
    "parts": (
        "iqmpc",
        "iqmpc/policy",
        "iqmpc/steady",
        "iqmpc/value",
        "iqmpc/penalty",
        "iqmpc/alpha=0.1",
        "iqmpc/alpha=2",
        "mpail2",
        "mpail2/policy",
        "mpail2/penalty=0",
        "bc",
        "bc/holdout",
    ),
    "few": tuple(
        f"{method}:episodes={count}"
        for method in ("iqmpc", "bc", "bc/holdout")
        for count in (100, 50, 10, 5)
    ),
    "tremble": tuple(
        f"{method}:environment=pendulum:tremble={share}"
        for method in ("iqmpc", "mpail2", "bc", "bc/holdout")
        for share in (0.01, 0.02)
    ),
}


def get_config(which: str = "parts"):
    plan = compare.Comparison(
        tasks=(TASK,), methods=METHODS[which], seeds=3, expert=False, episodes=20
    )
    return config.to_config_dict(plan)
