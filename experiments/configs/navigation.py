"""Methods on navigation, each at its settings: `navigation.py:gaifo`; MPAIL by default.

Where a method has its settings from: nine of each were tried with the same demonstrations
and other seeds than those that are compared, by tune_navigation.py, after coarser trials of
which BUILD_NOTES.md tells.
"""

import dataclasses
from typing import Literal

from experiments.configs import pendulum
from planil_jax import config, experiment
from planil_jax.agents import adversarial, bc, mpail, mpail2, ppo
from planil_jax.training import loop, run

LOOP = loop.Config(num_envs=2, steps=100, rounds=1)
RUN = run.Config(total_steps=24_000, evaluate_every=1, checkpoint_every=20)


def policy(
    form: Literal["gail", "gaifo", "airl"],
    learning_rate: float = 1e-3,
    gradient_steps: int = 64,
    **fields,
) -> dict:
    """Settings of a discriminator's form: PPO's rate, and the discriminator's steps."""
    learner = ppo.Config(learning_rate=learning_rate, minibatches=8)
    agent = adversarial.Config(
        form=form, learner=learner, learning_rate=1e-3, gradient_steps=gradient_steps
    )
    return {"agent": dataclasses.replace(agent, **fields), "loop": LOOP, "run": RUN}


SETTINGS = {
    "mpail": {
        "agent": mpail.Config(
            discriminator_steps=256, value_steps=128, temperature_rounds=10
        ),
        "loop": loop.Config(num_envs=1, steps=25, rounds=2),
        "run": run.Config(total_steps=4_000, evaluate_every=1, checkpoint_every=10),
    },
    "gail": policy("gail", learning_rate=3e-4, gradient_steps=128),
    "gaifo": policy("gaifo", gradient_steps=128),
    "airl": policy("airl"),
    "irl_mpc": policy("gaifo", deploy="planner", gradient_penalty=0.1, temperature=10.0)
    | {"run": dataclasses.replace(RUN, evaluate_every=10)},  # which is dear
    # The old favoured, or the learner's own good driving fills the replay and the reward
    # forgets what is not the expert.
    "mpail2": {
        "agent": dataclasses.replace(
            pendulum.SETTINGS["mpail2"],
            replay=dataclasses.replace(
                pendulum.SETTINGS["mpail2"].replay, recency_exponent=3.0
            ),
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


def get_config(method: str = "mpail", environment: str = "navigation"):
    settings = {"environment": environment, **SETTINGS.get(method, {})}
    return config.to_config_dict(experiment.for_method(method, **settings))
