"""MPAIL2 on Gymnasium's Ant, by recipe: `ant.py:mpail2`, or `ant.py:mpail2/small`.

    python -m experiments.train --config=experiments/configs/ant.py:mpail2/small \\
        --demos=demos/ant20.npz --logdir=runs/ant

`expert.py:gym/Ant:contact_forces=False` is an expert to demonstrate it.
"""

from planil_jax import config
from planil_jax.compose import compose


def get_config(method: str = "mpail2"):
    return config.to_config_dict(compose(method, "gym/Ant:contact_forces=False")[0])
