"""Methods on Playground's CartpoleSwingup, each by its recipe: `cartpole.py:iqmpc`.

Demonstrations come from a trained expert:

    python -m experiments.expert --logdir=runs/cartpole_expert --out=demos/cartpole.npz \\
        --config=experiments/configs/expert.py:playground/CartpoleSwingup:action_repeat=4
"""

from planil_jax import config
from planil_jax.compose import compose


def get_config(method: str = "iqmpc"):
    environment = "playground/CartpoleSwingup:action_repeat=4"
    return config.to_config_dict(compose(method, environment)[0])
