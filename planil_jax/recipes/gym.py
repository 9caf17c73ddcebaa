"""Recipes of Gymnasium's Hopper, Walker2d and Ant.

GAIL's reward pays for staying alive, since a hopper that falls ends its episode; with the
logit, negative everywhere at first, it learns to fall. MPAIL plans 0.1 s ahead through the
physics themselves, 384 steps of which every decision costs: few decisions a second on two
cores, so it evaluates at the end alone. "mpail2" is of a size for a GPU, "mpail2/small" for
two cores, with rates that fall from 75,000 steps on: what it finds at rates that stay
it can lose again.

The ant learns as the hopper does, but that critics learn as published, plans are scored as
published, and an end is worth 0. An ant that explores ends its episodes too, and from what
the hopper's ends are worth it learns to lie still. The walker takes the hopper's settings.
"""

import dataclasses
from typing import Any

from planil_jax.agents import adversarial, mail, mpail, mpail2
from planil_jax.agents.common import latent_planning, ppo, sequences
from planil_jax.nets import latent as networks
from planil_jax.nets import mlp
from planil_jax.planners import mppi
from planil_jax.recipes import sizes
from planil_jax.training import loop, run


def _mpail2(
    size: int,
    samples: int,
    batch: int = 256,
    lr_hold: int = 0,
    lr_half_life: int | None = None,
) -> mpail2.Config:
    """MPAIL2 with layers of `size` units, and `samples` plans in an iteration.

    Latent states keep their size. The gradient penalty holds the reward's slope at 1, so
    the distance of two states bounds the difference of their rewards. With a penalty of 1
    the slope is 2.5 to 3 while the hopper falls, and the reward's scale grows with it.

    Half of a plan's score is the critics' value of its first action. With the model alone
    the planner exploits the model's errors, and the hopper falls within a dozen steps where
    its policy alone hops on. Critics are also wrong about rare actions, but each in another
    way: without exploration a plan must be preferred by all of them.
    """
    planner = dataclasses.replace(
        mpail2.Config().planner,
        samples=samples,
        elites=samples // 8,
        horizon=5,
        iterations=3,
    )
    network = networks.Config(latent=256, encoder=(256,), hidden=(size, size))
    return mpail2.Config(
        network=network,
        planner=planner,
        planning=latent_planning.Planning(temperature=0.5),
        replay=sequences.Config(capacity=20_000, batch=batch),
        optimizer=mpail2.Optimizer(
            encoder_lr_scale=1.0, lr_hold=lr_hold, lr_half_life=lr_half_life
        ),
        horizon=5,
        initial_temperature=0.1,
        discount=0.99,
        updates_per_step=0.5,
        ema_rate=0.5,
        target_rate=0.05,
        seed_steps=2_000,
        reward=mlp.Config(hidden=(size, size), activation="silu"),
        gradient_penalty=5.0,
        td_lambda=0.8,
        q_weight=0.5,
        accept_if_all_critics_prefer=True,
        value_scale=10.0,
    )


def _ant(agent: mpail2.Config) -> mpail2.Config:
    """The hopper's agent with an ant's critics, score and ends."""
    return dataclasses.replace(
        agent,
        target_rate=0.01,
        gradient_penalty=1.0,
        td_lambda=0.0,
        q_weight=0.0,
        accept_if_all_critics_prefer=False,
        value_scale=1.0,
        absorbing=False,
    )


_LARGE = _mpail2(256, 256)
_SMALL = _mpail2(128, 64, batch=128, lr_hold=37_500, lr_half_life=12_500)
_IN_LARGE = {
    "loop": loop.Config(num_envs=32, steps=25, rounds=5, resets=32),
    "run": run.Config(total_steps=200_000, evaluation_episodes=8),
}
_IN_SMALL = {
    "loop": loop.Config(num_envs=8, steps=25, rounds=10, resets=16),
    "run": run.Config(total_steps=125_000, evaluation_episodes=4),
}
_CLONING = {
    "loop": loop.Config(num_envs=1, steps=1, rounds=30),
    "run": run.Config(total_steps=30, evaluation_episodes=8),
}
_POLICIES: dict[str, dict[str, Any]] = {
    "gail": {
        "agent": adversarial.Config(
            form="gail",
            reward="gail_pos",
            learner=ppo.Config(epochs=4, minibatches=16),
        ),
        "loop": loop.Config(num_envs=256, steps=32, rounds=8, resets=64),
        "run": run.Config(total_steps=850_000),
    },
    "mail": {
        "agent": mail.Config(updates_per_step=0.1),
        "loop": loop.Config(num_envs=16, steps=50, rounds=5, resets=16),
        "run": run.Config(total_steps=100_000, evaluation_episodes=8),
    },
    "bc": _CLONING,
    "bc/holdout": sizes.held_out(_CLONING),
}
_MPAIL = {
    "agent": mpail.Config(
        planner=mppi.Config(samples=32, horizon=12, iterations=1, noise=(0.3,)),
        discriminator_steps=128,
        value_steps=128,
        optimizer=mpail.OptimizerOptions(lr_half_life=40),
    ),
    "loop": loop.Config(num_envs=4, steps=50, rounds=2, resets=8),
    "run": run.Config(total_steps=8_000, evaluate_every=None, evaluation_episodes=1),
}

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "gym/Hopper": _POLICIES
    | {
        "mpail": _MPAIL,
        "mpail2": _IN_LARGE | {"agent": _LARGE},
        "mpail2/small": _IN_SMALL | {"agent": _SMALL},
    },
    "gym/Walker2d": _POLICIES,
    "gym/Ant:contact_forces=False": {
        "mpail2": _IN_LARGE | {"agent": _ant(_LARGE)},
        "mpail2/small": _IN_SMALL | {"agent": _ant(_SMALL)},
    },
}
