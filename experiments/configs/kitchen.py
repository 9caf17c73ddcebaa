"""The kitchen from pictures alone, by its recipes: `kitchen.py:cmil`.

    python -m experiments.collect --env=kitchen:pixels=64,frames=1 --episodes=10 \\
        --actions --out=demos/kitchen.npz
    python -m experiments.train --config=experiments/configs/kitchen.py:cmil \\
        --demos=demos/kitchen.npz --seeds=3 --logdir=runs/kitchen

`kitchen.py:cmil` is of a size for a GPU, `kitchen.py:cmil/small` for two cores.
"""

from planil_jax import config
from planil_jax.compose import compose


def get_config(method: str = "cmil"):
    return config.to_config_dict(compose(method, "kitchen:pixels=64,frames=1")[0])
