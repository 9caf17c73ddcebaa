"""DeepMind's control suite on Playground, from numbers: `suite.py:CheetahRun/iqmpc`.

    python -m experiments.expert --config=experiments/configs/suite.py:CheetahRun/sac \\
        --logdir=runs/cheetah_expert --out=demos/cheetah100.npz --episodes=100
    python -m experiments.train --config=experiments/configs/suite.py:CheetahRun/iqmpc \\
        --demos=demos/cheetah100.npz --seeds=3 --logdir=runs/cheetah

`iqmpc` is of a size for a GPU, `iqmpc/small` for two cores. HopperHop's expert learns from
a reward of its own, since the task's is 0 until a hopper stands, and then shows the task:

    python -m experiments.train --config=experiments/configs/suite.py:HopperHop/sac \\
        --logdir=runs/hop_expert
    python -m experiments.collect --run=runs/hop_expert --which=best --episodes=100 \\
        --env=playground/HopperHop:action_repeat=2 --actions --out=demos/hop100.npz
"""

import dataclasses
from typing import Any

from experiments.configs import pendulum
from planil_jax import config, experiment
from planil_jax.agents import bc, iqmpc, sac
from planil_jax.agents.common import latent_planning, sequences
from planil_jax.base import UsageError
from planil_jax.nets import heads, mlp
from planil_jax.nets import latent as networks
from planil_jax.training import loop, run

# An action lasts 0.04 to 0.05 s, an episode 10 to 25 s.
REPEATS = {"CheetahRun": 4, "WalkerRun": 2, "HopperHop": 2}


def large(size: int) -> dict[str, Any]:
    """Latent states and layers of so many units, and plans half as many as the papers'."""
    small = pendulum.small()
    planner = small["planner"]
    return small | {
        "network": networks.Config(latent=size, encoder=(256,), hidden=(size, size)),
        "planner": dataclasses.replace(planner, samples=256, iterations=4, elites=32),
        "replay": sequences.Config(capacity=25_000),
        "ema_rate": 0.05,
        "seed_steps": 2_000,
    }


SMALL = pendulum.small() | {
    "network": networks.Config(latent=64, encoder=(128,), hidden=(128, 128)),
    "ema_rate": 0.05,
}
SETTINGS: dict[str, Any] = {
    "sac": {
        "agent": sac.Config(
            policy=heads.Config(
                network=mlp.Config(hidden=(256, 256)), std=1.0, std_of_state=True
            ),
            critic=mlp.Config(hidden=(256, 256)),
            gradient_steps=800,
            batch=256,
            capacity=10_000,
            learning_rate=6e-4,
        ),
        "loop": loop.Config(num_envs=64, steps=25, rounds=5, resets=64),
        "run": run.Config(total_steps=400_000),
    },
    "iqmpc": {
        "agent": iqmpc.Config(
            **large(256),
            optimizer=latent_planning.Optimizer(lr_hold=30_000, lr_half_life=8_000),
            updates_per_step=0.5,
            critic_subset=5,
            expert_noise=0.1,
        ),
        "loop": loop.Config(num_envs=16, steps=25, rounds=5, resets=16),
        "run": run.Config(total_steps=114_000, evaluation_episodes=8),
    },
    "iqmpc/small": {
        "agent": iqmpc.Config(**SMALL, critic_subset=5, expert_noise=0.1),
        "loop": loop.Config(num_envs=4, steps=25, rounds=5, resets=8),
        "run": run.Config(total_steps=24_000, evaluate_every=8, evaluation_episodes=4),
    },
    "bc": {
        "agent": bc.Config(),
        "loop": loop.Config(num_envs=1, steps=1, rounds=30),
        "run": run.Config(total_steps=30),
    },
}


def get_config(what: str = "CheetahRun/iqmpc"):
    task, _, method = what.partition("/")
    if task not in REPEATS or (method or "iqmpc") not in SETTINGS:
        raise UsageError(
            f"suite.py:{what}: name one of {', '.join(REPEATS)}, and after a / one of "
            f"{', '.join(SETTINGS)}."
        )
    environment = f"playground/{task}:action_repeat={REPEATS[task]}"
    settings = {"environment": environment, **SETTINGS[method or "iqmpc"]}
    if (task, method) == ("HopperHop", "sac"):
        settings |= {
            "environment": f"{environment},shaped=True",
            "run": run.Config(total_steps=800_000),
        }
    name = (method or "iqmpc").partition("/")[0]
    return config.to_config_dict(experiment.for_method(name, **settings))
