"""Methods with latent models on pendulum, small enough for two cores: `pendulum.py:iqmpc`.

Demonstrations come from a trained expert:

    python -m experiments.expert --config=experiments/configs/expert.py:pendulum \\
        --logdir=runs/pendulum_expert --out=demos/pendulum.npz --episodes=4
"""

import dataclasses
from typing import Any

from planil_jax import config, experiment
from planil_jax.agents import cmil, iqmpc, mpail2, tdmpc2
from planil_jax.agents.common import latent_planning, sequences
from planil_jax.models import rssm
from planil_jax.nets import heads, mlp
from planil_jax.nets import latent as networks
from planil_jax.nets import rssm as rssm_networks
from planil_jax.planners import mppi
from planil_jax.training import loop, run


def small(horizon: int = 3, recency_exponent: float = 1.0) -> dict[str, Any]:
    """Sizes and planner; a plan and a sequence are `horizon` steps long."""
    return {
        "network": networks.Config(latent=32, encoder=(64,), hidden=(64, 64)),
        "planner": mppi.Config(
            samples=64,
            horizon=horizon,
            iterations=3,
            elites=16,
            sampling="gaussian",
            noise=(2.0,),
            adapt_spread=True,
            explore="noise",
        ),
        "replay": sequences.Config(
            capacity=10_000, batch=128, recency_exponent=recency_exponent
        ),
        "horizon": horizon,
        "ema_rate": 0.2,
    }


def world(**fields: Any) -> cmil.Config:
    """CMIL with a small world model; its demonstrations are of --episodes=10."""
    one, two = (mlp.Config(hidden=(64,) * count, activation="elu") for count in (1, 2))
    settings: dict[str, Any] = {
        "model": rssm.Config(
            network=rssm_networks.Config(deter=64, stoch=8, hidden=64, heads=5),
            vectors=one,
        ),
        "policy": heads.Config(network=two, std_low=0.1, std_of_state=True),
        "discriminator": cmil.DiscriminatorConfig(network=two),
        "critic": two,
        "kl": cmil.KlConfig(weight=0.1),
        "replay": cmil.ReplayConfig(capacity=20_000, length=20, batch=16),
        "optimizer": cmil.OptimizerConfig(model_lr=1e-3, critic_lr=1e-3, policy_lr=3e-4),
    }
    return cmil.Config(**settings | fields)


# IQ-MPC's replay favours the old, or it soon forgets what is not the expert.
_IQMPC = iqmpc.Config(**small(recency_exponent=3.0), critic_subset=5)
_MPAIL2 = mpail2.Config(
    **small(5),
    reward=mlp.Config(hidden=(64, 64), activation="silu"),
    planning=latent_planning.Planning(temperature=0.5),
    optimizer=mpail2.Optimizer(encoder_lr_scale=1.0),
    gradient_penalty=1.0,
)
_POLICY = latent_planning.Planning(enabled=False)
SETTINGS: dict[str, Any] = {
    # So much entropy keeps a policy that drives at the bounds from staying there.
    "cmil": world(entropy_coef=0.1),
    "vmail": cmil.vmail(world(entropy_coef=0.1)),
    "iqmpc": _IQMPC,
    "mpail2": _MPAIL2,
    "tdmpc2": tdmpc2.Config(**small()),
    # Variants: what becomes of IQ-MPC without one of its choices, or with another.
    "iqmpc/value": dataclasses.replace(_IQMPC, objective="value"),
    "iqmpc/penalty": dataclasses.replace(_IQMPC, gradient_penalty=0.1),
    "iqmpc/alpha=0.1": dataclasses.replace(_IQMPC, alpha=0.1),
    "iqmpc/alpha=2": dataclasses.replace(_IQMPC, alpha=2.0),
    "iqmpc/policy": dataclasses.replace(_IQMPC, planning=_POLICY),
    # Rates that fall once it drives like the expert, before critics tell the two apart.
    "iqmpc/steady": dataclasses.replace(
        _IQMPC,
        optimizer=latent_planning.Optimizer(lr_hold=2_000, lr_half_life=500),
        expert_noise=0.1,
    ),
    "mpail2/policy": dataclasses.replace(_MPAIL2, planning=_POLICY),
    "mpail2/penalty=0": dataclasses.replace(_MPAIL2, gradient_penalty=0.0),
}
BC = {
    "loop": loop.Config(num_envs=1, steps=1, rounds=30),
    "run": run.Config(total_steps=30, evaluation_episodes=20),
}
WORLD = {
    "loop": loop.Config(num_envs=1, steps=50, rounds=20),
    "run": run.Config(total_steps=10_000, evaluation_episodes=20),
}


MAIL = {
    "loop": loop.Config(num_envs=1, steps=100, rounds=10),
    "run": run.Config(total_steps=10_000, evaluation_episodes=20, seeds_by="map"),
}


def get_config(method: str = "iqmpc"):
    settings: dict[str, Any] = {
        "environment": "pendulum",
        "loop": loop.Config(num_envs=1, steps=25, rounds=8),
        "run": run.Config(total_steps=3_000, evaluation_episodes=20),
    }
    if method in SETTINGS:
        settings["agent"] = SETTINGS[method]
    if method == "bc":
        settings |= BC
    if method == "mail":
        settings |= MAIL
    if method in ("cmil", "vmail"):
        settings |= WORLD
    return config.to_config_dict(
        experiment.for_method(method.partition("/")[0], **settings)
    )
