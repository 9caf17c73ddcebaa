"""The kitchen, seen: three appliances, from pictures alone: `kitchen.py:cmil`.

    python -m experiments.collect --env=kitchen:pixels=64,frames=1 --episodes=10 \\
        --actions --out=demos/kitchen.npz
    python -m experiments.train --config=experiments/configs/kitchen.py:cmil \\
        --demos=demos/kitchen.npz --seeds=3 --logdir=runs/kitchen

Of a size for a GPU. The return of an episode is the sum over its steps of how many of the
three are done, so a policy that does nothing has 0.
"""

from typing import Any

from experiments import experiment
from planil_jax import config
from planil_jax.agents import bc, cmil
from planil_jax.training import loop, run

WORLD = cmil.Config(
    ratio=0.2, batch=16, cloning=10.0, clone=1000, pretrain=500, capacity=2_000
)
SETTINGS: dict[str, Any] = {
    "cmil": WORLD,
    "vmail": cmil.vmail(WORLD),
    "bc": bc.Config(),
}


def get_config(method: str = "cmil"):
    settings: dict[str, Any] = {
        "environment": "kitchen:pixels=64,frames=1",
        "agent": SETTINGS[method],
        "loop": loop.Config(environments=32, steps=65, rounds=1, resets=32),
        "run": run.Config(total_steps=30_000, evaluation_episodes=8),
    }
    if method == "bc":
        settings["loop"] = loop.Config(environments=1, steps=1, rounds=30)
        settings["run"] = run.Config(total_steps=30, evaluation_episodes=8)
    return config.thaw(experiment.of_method(method, **settings))
