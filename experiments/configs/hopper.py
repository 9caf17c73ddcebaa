"""Methods on Gymnasium's Hopper from public demonstrations: `hopper.py:gail`.

    python -m experiments.convert --source=hopper.npz --env=gym/Hopper \\
        --out=demos/hopper4.npz
    python -m experiments.train --config=experiments/configs/hopper.py:gail \\
        --demos=demos/hopper4.npz --logdir=runs/hopper_gail

GAIL's reward pays for staying alive, since a hopper that falls ends its episode; with the
logit, negative everywhere at first, it learns to fall. MPAIL plans 0.1 s ahead through the
physics themselves, 384 steps of which every decision costs: few decisions a second on two
cores, so it evaluates at the end alone.
"""

from experiments import experiment
from planil_jax import config
from planil_jax.agents import adversarial, mpail, ppo
from planil_jax.planners import mppi
from planil_jax.training import loop, run

MANY = loop.Config(environments=256, steps=32, rounds=8, resets=64)
SETTINGS = {
    "gail": {
        "agent": adversarial.Config(
            form="gail",
            reward="gail_pos",
            learner=ppo.Config(epochs=4, minibatches=16),
        ),
        "loop": MANY,
        "run": run.Config(total_steps=850_000),
    },
    "mpail": {
        "agent": mpail.Config(
            planner=mppi.Config(samples=32, horizon=12, iterations=1, noise=(0.3,)),
            discriminator_steps=128,
            value_steps=128,
            rate_half_life=40,
        ),
        "loop": loop.Config(environments=4, steps=50, rounds=2, resets=8),
        "run": run.Config(total_steps=8_000, evaluate_every=0, evaluation_episodes=1),
    },
}


def get_config(method: str = "gail"):
    settings = {"environment": "gym/Hopper", **SETTINGS.get(method, {})}
    return config.thaw(experiment.of_method(method, **settings))
