"""Recipes of navigation, and of navigation with the simulated car of wheels and tyres.

Nine settings of each method were tried by experiments/configs/tune_navigation.py, with the
same demonstrations and other seeds than in the comparison. BUILD_NOTES.md describes coarser
trials before these.

With simulated physics policies are trained for half as long and evaluated half as often,
since a step takes long.
"""

import dataclasses
from typing import Any

from planil_jax.agents import bc, mpail, mpail2
from planil_jax.agents.common import sequences
from planil_jax.recipes import sizes
from planil_jax.training import loop, run

_LOOP = loop.Config(num_envs=2, steps=100, rounds=1)
_RUN = run.Config(total_steps=24_000, evaluate_every=1, checkpoint_every=20)
_POLICY = {"loop": _LOOP, "run": _RUN}
_HALF = {"run": dataclasses.replace(_RUN, total_steps=12_000, evaluate_every=2)}

_METHODS: dict[str, dict[str, Any]] = {
    "mpail": {
        "agent": mpail.Config(
            discriminator_steps=256, value_steps=128, temperature_rounds=10
        ),
        "loop": loop.Config(num_envs=1, steps=25, rounds=2),
        # Evaluated every 200 steps, as the policies are.
        "run": run.Config(total_steps=4_000, evaluate_every=4, checkpoint_every=8),
    },
    "gail": _POLICY
    | {"agent": sizes.car_policy("gail", learning_rate=3e-4, gradient_steps=128)},
    "gaifo": _POLICY | {"agent": sizes.car_policy("gaifo", gradient_steps=128)},
    "airl": _POLICY | {"agent": sizes.car_policy("airl")},
    "irl_mpc": {
        "agent": sizes.car_policy(
            "gaifo", deploy="planner", gradient_penalty=0.1, temperature=10.0
        ),
        "loop": _LOOP,
        "run": dataclasses.replace(_RUN, evaluate_every=10),  # planning takes long
    },
    # The replay favours old steps. Otherwise the learner's good driving fills it, and the
    # reward forgets how a learner differs from the expert.
    "mpail2": {
        "agent": sizes.small_mpail2(
            replay=sequences.Config(capacity=10_000, batch=128, recency_exponent=3.0),
            optimizer=mpail2.Optimizer(lr_hold=3_000, lr_half_life=2_000),
        ),
        "loop": loop.Config(num_envs=2, steps=50, rounds=5),
        "run": run.Config(total_steps=15_000, evaluate_every=2),
    },
    "bc": {
        "agent": bc.Config(gradient_steps=25, weight_decay=0.1),
        "loop": loop.Config(num_envs=1, steps=1, rounds=20),
        "run": run.Config(total_steps=20, evaluate_every=1),
    },
}

RECIPES = {
    "navigation": _METHODS,
    "navigation_mjx": {
        method: fields if method in ("mpail", "bc") else fields | _HALF
        for method, fields in _METHODS.items()
    },
}
