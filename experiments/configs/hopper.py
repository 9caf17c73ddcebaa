"""Methods on Gymnasium's Hopper from public demonstrations, by recipe: `hopper.py:gail`.

    python -m experiments.convert --source=hopper.npz --env=gym/Hopper \\
        --out=demos/hopper4.npz
    python -m experiments.train --config=experiments/configs/hopper.py:gail \\
        --demos=demos/hopper4.npz --logdir=runs/hopper_gail

`mpail2` is of a size for a GPU, `mpail2/small` for two cores.
"""

from planil_jax import config
from planil_jax.compose import compose


def get_config(method: str = "gail"):
    return config.to_config_dict(compose(method, "gym/Hopper")[0])
