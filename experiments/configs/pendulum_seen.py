"""Methods on pendulum from pictures, each by its recipe: `pendulum_seen.py:iqmpc`.

Demonstrations are those of an expert that was trained on numbers:

    python -m experiments.expert --config=experiments/configs/expert.py:pendulum \\
        --logdir=runs/pendulum_expert --out=demos/pendulum.npz
    python -m experiments.collect --run=runs/pendulum_expert --episodes=10 --actions \\
        --env=pendulum:pixels=48 --out=demos/pendulum_seen.npz

World models draw what they see, so that theirs are of 64 × 64, one frame at a time
(--env=pendulum:pixels=64,frames=1).
"""

from planil_jax import config
from planil_jax.compose import compose


def get_config(method: str = "iqmpc"):
    draws = method in ("cmil", "vmail")
    environment = "pendulum:pixels=64,frames=1" if draws else "pendulum:pixels=48"
    return config.to_config_dict(compose(method, environment)[0])
