"""Sizes that recipes share: small latent models, a small world model, tiles.

And one method for cars. Each is small enough for two cores.
"""

from typing import Any, Literal

from planil_jax.agents import adversarial, cmil, iqmpc, mpail2
from planil_jax.agents.common import latent_planning, ppo, sequences
from planil_jax.models import rssm
from planil_jax.nets import conv, heads, mlp
from planil_jax.nets import latent as networks
from planil_jax.nets import rssm as rssm_networks
from planil_jax.planners import mppi


def latent(horizon: int = 3, recency_exponent: float = 1.0) -> dict[str, Any]:
    """Fields of agents with a latent model: sizes, planner and replay.

    Args:
      horizon: steps of a plan and of a sequence that is learned from.
      recency_exponent: how much the replay favours the old.
    """
    return {
        "network": networks.Config(latent=32, encoder=(64,), hidden=(64, 64)),
        "planner": mppi.Config(
            samples=64,
            horizon=horizon,
            iterations=3,
            elites=16,
            sampling="gaussian",
            noise=(2.0,),
            adapt_std=True,
            explore="noise",
        ),
        "replay": sequences.Config(
            capacity=10_000, batch=128, recency_exponent=recency_exponent
        ),
        "horizon": horizon,
        "ema_rate": 0.2,
    }


def wider_latent() -> dict[str, Any]:
    """As `latent`, twice as wide, for bodies of several joints."""
    network = networks.Config(latent=64, encoder=(128,), hidden=(128, 128))
    return latent() | {"network": network, "ema_rate": 0.05}


def small_iqmpc(**fields: Any) -> iqmpc.Config:
    """IQ-MPC with a small latent model.

    Its replay favours old steps. Otherwise it soon forgets how a learner differs from the
    expert.
    """
    return iqmpc.Config(**latent(recency_exponent=3.0), critic_subset=5, **fields)


def steady_iqmpc() -> iqmpc.Config:
    """IQ-MPC with rates that fall once it drives like the expert.

    They fall before critics distinguish learner and expert.
    """
    rates = latent_planning.Optimizer(lr_hold=2_000, lr_half_life=500)
    return small_iqmpc(optimizer=rates, expert_noise=0.1)


def small_mpail2(**fields: Any) -> mpail2.Config:
    """MPAIL2 with a small latent model, and plans of five steps."""
    settings: dict[str, Any] = {
        "reward": mlp.Config(hidden=(64, 64), activation="silu"),
        "planning": latent_planning.Planning(temperature=0.5),
        "optimizer": mpail2.Optimizer(encoder_lr_scale=1.0),
        "gradient_penalty": 1.0,
    }
    return mpail2.Config(**latent(5) | settings | fields)


def world(**fields: Any) -> cmil.Config:
    """CMIL with a small world model; its demonstrations are ten episodes."""
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


def tiles() -> conv.Config:
    """Pictures as tiles of 8 × 8 pixels: a tenth of a convolution's time on two cores."""
    return conv.Config(filters=32, patch_size=8)


def car_policy(
    form: Literal["gail", "gaifo", "airl"],
    learning_rate: float = 1e-3,
    gradient_steps: int = 64,
    **fields: Any,
) -> adversarial.Config:
    """A policy that drives a car, of a discriminator's form.

    Args:
      learning_rate: of PPO.
      gradient_steps: of the discriminator a round.
    """
    return adversarial.Config(
        form=form,
        learner=ppo.Config(learning_rate=learning_rate, minibatches=8),
        learning_rate=1e-3,
        gradient_steps=gradient_steps,
        **fields,
    )
