"""Nine settings of every method on navigation, by which those of navigation.py were chosen.

    python -m experiments.compare --config=experiments/configs/tune_navigation.py \\
        --logdir=runs/tune

The same demonstrations as in compare_navigation.py, other seeds (100 and 101). Chosen is
what needs the fewest steps to 95% of the expert's return, a seed that never gets there
counting as all its steps; of cloning, which takes none, what arrives from most of the
field.
"""

import itertools

from planil_jax import config
from planil_jax.evaluation import compare

# field -> values that are tried: a grid of nine
POLICY = {
    "agent.learner.learning_rate": (3e-4, 1e-3, 3e-3),
    "agent.gradient_steps": (16, 64, 128),
}
GRIDS: dict[str, dict[str, tuple]] = {
    "mpail": {
        "agent.discriminator_steps": (64, 128, 256),
        "agent.optimizer.lr_half_life": (4, 8, 16),
        "run.total_steps": (1_500,),
        "run.evaluate_every": (1,),
    },
    "gaifo": POLICY,
    "gail": POLICY,
    "airl": POLICY,
    "irl_mpc": {
        "agent.gradient_penalty": (0.1, 1.0, 10.0),
        "agent.temperature": (0.1, 1.0, 10.0),
    },
    "bc": {
        "agent.weight_decay": (1e-4, 1e-2, 1e-1),
        "agent.gradient_steps": (25, 100, 400),
    },
}


def variants(method: str) -> list[str]:
    """The method with each point of its grid, as experiments.compare names them."""
    grid = GRIDS[method].items()
    axes = [[f"{field}={value}" for value in tried] for field, tried in grid]
    return [f"{method}:{','.join(point)}" for point in itertools.product(*axes)]


def get_config():
    return config.to_config_dict(
        compare.Comparison(
            tasks=("navigation",),
            methods=tuple(variant for method in GRIDS for variant in variants(method)),
            seed=100,
            seeds=2,
            field=40.0,
        )
    )
