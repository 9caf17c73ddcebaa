"""World models and cloning on pendulum from pictures of 64 × 64 pixels, on two cores.

    python -m experiments.compare --config=experiments/configs/compare_seen.py \\
        --demos=demos/pendulum_seen.npz --logdir=runs/compare_seen

Demonstrations are ten of an expert that was trained on numbers, see pendulum_seen.py. World
models see one frame at a time; cloning, which remembers nothing, sees the last three. All
read by the same tiles.
"""

from planil_jax import config
from planil_jax.evaluation import compare

CLONING = tuple(
    f"{method}:environment=pendulum:pixels=64,agent.encoder_conv.patch_size=8,"
    "agent.encoder_conv.filters=32,run.seeds_by=map"
    for method in ("bc", "bc/holdout")
)


def get_config():
    plan = compare.Comparison(
        tasks=("pendulum:pixels=64,frames=1",),
        methods=("cmil", "vmail", *CLONING),
        seeds=3,
        expert=False,
        episodes=20,
    )
    return config.to_config_dict(plan)
