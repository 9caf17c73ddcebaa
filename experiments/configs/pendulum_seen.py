"""Methods on pendulum from pictures, small enough for two cores: `pendulum_seen.py:iqmpc`.

Demonstrations are those of an expert that was trained on numbers:

    python -m experiments.expert --config=experiments/configs/expert.py:pendulum \\
        --logdir=runs/pendulum_expert --out=demos/pendulum.npz
    python -m experiments.collect --run=runs/pendulum_expert --episodes=10 --actions \\
        --env=pendulum:pixels=48 --out=demos/pendulum_seen.npz

World models draw what they see, so theirs are of 64 × 64, one frame at a time
(--env=pendulum:pixels=64,frames=1). They read and draw tiles, which takes a tenth of the
time of convolutions on two cores.
"""

import dataclasses
from typing import Any

from experiments.configs import pendulum
from planil_jax import config, experiment
from planil_jax.agents import bc, cmil
from planil_jax.nets import conv
from planil_jax.training import loop, run

ENVIRONMENT = "pendulum:pixels=48"  # the last three frames
EYE = conv.Config(filters=16)
TILES = conv.Config(filters=32, patch_size=8)


def _seeing(agent: Any) -> Any:
    """With eyes, smaller batches, and a gradient step for every other step."""
    return dataclasses.replace(
        agent,
        network=dataclasses.replace(agent.network, encoder_conv=EYE),
        replay=dataclasses.replace(agent.replay, batch=32, capacity=5_000),
        optimizer=dataclasses.replace(agent.optimizer, encoder_lr_scale=1.0),
        updates_per_step=0.5,
    )


def world() -> cmil.Config:
    """CMIL with eyes."""
    agent = pendulum.world(
        kl=cmil.KlConfig(),
        optimizer=cmil.OptimizerConfig(model_lr=3e-3, critic_lr=1e-3, policy_lr=3e-4),
        pretrain_steps=500,
        updates_per_step=0.3,
    )
    model = dataclasses.replace(agent.model, pictures=TILES)
    return dataclasses.replace(agent, model=model)


SETTINGS: dict[str, Any] = {
    "iqmpc": _seeing(pendulum.SETTINGS["iqmpc"]),
    "mpail2": _seeing(pendulum.SETTINGS["mpail2"]),
    "bc": bc.Config(encoder_conv=EYE, batch=32),
    "cmil": world(),
    "vmail": cmil.vmail(world()),
}
WORLD = {
    "environment": "pendulum:pixels=64,frames=1",
    "loop": loop.Config(num_envs=1, steps=50, rounds=20, resets=2),
    "run": run.Config(total_steps=15_000, evaluation_episodes=20, seeds_by="map"),
}


def get_config(method: str = "iqmpc"):
    settings = pendulum.get_config(method).copy_and_resolve_references()
    frozen = experiment.from_config_dict(settings)
    fields: dict[str, Any] = {
        "environment": ENVIRONMENT,
        "loop": dataclasses.replace(frozen.loop, resets=4),  # each of which is drawn
    }
    if method in SETTINGS:
        fields["agent"] = SETTINGS[method]
    if method in ("cmil", "vmail"):
        fields |= WORLD
    elif method != "bc":
        fields["run"] = run.Config(total_steps=3_000, evaluation_episodes=10)
    return config.to_config_dict(dataclasses.replace(frozen, **fields))
