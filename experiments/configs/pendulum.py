"""Methods on pendulum, each by its recipe, small enough for two cores: `pendulum.py:iqmpc`.

Demonstrations come from a trained expert:

    python -m experiments.expert --config=experiments/configs/expert.py:pendulum \\
        --logdir=runs/pendulum_expert --out=demos/pendulum.npz --episodes=4
"""

from planil_jax import config
from planil_jax.compose import compose


def get_config(method: str = "iqmpc"):
    return config.to_config_dict(compose(method, "pendulum")[0])
