"""Recipes of the kitchen from pictures alone: three appliances.

They are of a size for a GPU; the variants "small" are for two cores. The return of an
episode is the sum over its steps of how many of the three are done: that of a policy that
does nothing is 0.
"""

from typing import Any

from planil_jax.agents import bc, cmil
from planil_jax.models import rssm
from planil_jax.nets import rssm as networks
from planil_jax.recipes import sizes
from planil_jax.training import loop, run

_LARGE = cmil.Config(
    updates_per_step=0.2,
    bc_coef=10.0,
    bc_steps=1000,
    pretrain_steps=500,
    replay=cmil.ReplayConfig(capacity=2_000, batch=16),
)
_SMALL = sizes.world(
    model=rssm.Config(
        network=networks.Config(deter=128, stoch=16, hidden=128, heads=5),
        pictures=sizes.tiles(),
    ),
    kl=cmil.KlConfig(),
    bc_coef=10.0,
    bc_steps=1000,
    pretrain_steps=1000,
    updates_per_step=0.5,
    replay=cmil.ReplayConfig(capacity=2_000, length=20, batch=16),
)
_IN_LARGE = {
    "loop": loop.Config(num_envs=32, steps=65, rounds=1, resets=32),
    "run": run.Config(total_steps=30_000, evaluate_every=5, evaluation_episodes=8),
}
_IN_SMALL = {
    "loop": loop.Config(num_envs=4, steps=65, rounds=1, resets=4),
    "run": run.Config(total_steps=7_800, evaluate_every=10, evaluation_episodes=8),
}
_LARGE_CLONING: dict[str, Any] = {
    "agent": bc.Config(),
    "loop": loop.Config(num_envs=1, steps=1, rounds=30, resets=1),
    "run": run.Config(total_steps=30, evaluation_episodes=8),
}
_SMALL_CLONING = _LARGE_CLONING | {"agent": bc.Config(encoder_conv=sizes.tiles(), batch=64)}

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "kitchen:pixels=64,frames=1": {
        "cmil": _IN_LARGE | {"agent": _LARGE},
        "vmail": _IN_LARGE | {"agent": cmil.vmail(_LARGE)},
        "bc": _LARGE_CLONING,
        "bc/holdout": sizes.held_out(_LARGE_CLONING, 3_000),
        "cmil/small": _IN_SMALL | {"agent": _SMALL},
        "vmail/small": _IN_SMALL | {"agent": cmil.vmail(_SMALL)},
        "bc/small": _SMALL_CLONING,
        "bc/small_holdout": sizes.held_out(_SMALL_CLONING, 3_000),
    }
}
