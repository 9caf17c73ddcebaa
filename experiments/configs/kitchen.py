"""The kitchen, seen: three appliances, from pictures alone: `kitchen.py:cmil`.

    python -m experiments.collect --env=kitchen:pixels=64,frames=1 --episodes=10 \\
        --actions --out=demos/kitchen.npz
    python -m experiments.train --config=experiments/configs/kitchen.py:cmil \\
        --demos=demos/kitchen.npz --seeds=3 --logdir=runs/kitchen

Of a size for a GPU; `kitchen.py:cmil/small` for two cores. The return of an episode is the
sum over its steps of how many of the three are done: of a policy that does nothing it is 0.
"""

from typing import Any

from experiments.configs import pendulum, pendulum_seen
from planil_jax import config, experiment
from planil_jax.agents import bc, cmil
from planil_jax.base import UsageError
from planil_jax.models import rssm
from planil_jax.nets import rssm as networks
from planil_jax.training import loop, run

WORLD = cmil.Config(
    updates_per_step=0.2,
    bc_coef=10.0,
    bc_steps=1000,
    pretrain_steps=500,
    replay=cmil.ReplayConfig(capacity=2_000, batch=16),
)
TILES = pendulum_seen.TILES
SMALL = pendulum.world(
    model=rssm.Config(
        network=networks.Config(deter=128, stoch=16, hidden=128, heads=5), pictures=TILES
    ),
    kl=cmil.KlConfig(),
    bc_coef=10.0,
    bc_steps=1000,
    pretrain_steps=1000,
    updates_per_step=0.5,
    replay=cmil.ReplayConfig(capacity=2_000, length=20, batch=16),
)
SETTINGS: dict[str, Any] = {
    "cmil": WORLD,
    "vmail": cmil.vmail(WORLD),
    "bc": bc.Config(),
    "cmil/small": SMALL,
    "vmail/small": cmil.vmail(SMALL),
    "bc/small": bc.Config(encoder_conv=TILES, batch=64),
}
ENVIRONMENTS = {"": 32, "small": 4}


def get_config(method: str = "cmil"):
    if method not in SETTINGS:
        raise UsageError(f"kitchen.py:{method}: name one of {', '.join(SETTINGS)}.")
    name, _, size = method.partition("/")
    num_envs = ENVIRONMENTS[size]
    settings: dict[str, Any] = {
        "environment": "kitchen:pixels=64,frames=1",
        "agent": SETTINGS[method],
        "loop": loop.Config(num_envs=num_envs, steps=65, rounds=1, resets=num_envs),
        "run": run.Config(
            total_steps=7_800 if size else 30_000,
            evaluate_every=10 if size else 5,
            evaluation_episodes=8,
        ),
    }
    if name == "bc":
        settings["loop"] = loop.Config(num_envs=1, steps=1, rounds=30, resets=1)
        settings["run"] = run.Config(total_steps=30, evaluation_episodes=8)
    return config.to_config_dict(experiment.for_method(name, **settings))
