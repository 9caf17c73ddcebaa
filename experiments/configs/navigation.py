"""Methods on navigation, each at its settings: `navigation.py:gaifo`; MPAIL by default.

They were found for few interactions, with the same four demonstrations and other seeds
than those that are compared; BUILD_NOTES.md tells what was tried.
"""

import dataclasses

from experiments import experiment
from planil_jax import config
from planil_jax.agents import adversarial, bc, mpail, ppo
from planil_jax.training import loop, run

LEARNER = ppo.Config(rate=1e-3, minibatches=8)
LOOP = loop.Config(environments=2, steps=100, rounds=1)
RUN = run.Config(total_steps=24_000, evaluate_every=1, checkpoint_every=20)


def policy(form: str, deploy: str = "policy", evaluate_every: int = 1) -> dict:
    agent = adversarial.Config(
        form=form, deploy=deploy, learner=LEARNER, rate=1e-3, steps=64
    )
    evaluated = dataclasses.replace(RUN, evaluate_every=evaluate_every)
    return {"agent": agent, "loop": LOOP, "run": evaluated}


SETTINGS = {
    "mpail": {
        "agent": mpail.Config(
            discriminator_steps=128, value_steps=128, temperature_rounds=10
        ),
        "loop": loop.Config(environments=1, steps=25, rounds=2),
        "run": run.Config(total_steps=4_000, evaluate_every=1, checkpoint_every=10),
    },
    "gail": policy("gail"),
    "gaifo": policy("gaifo"),
    "airl": policy("airl"),
    "irl_mpc": policy("gaifo", "planner", evaluate_every=10),  # which is dear
    "bc": {
        "agent": bc.Config(),
        "loop": loop.Config(environments=1, steps=1, rounds=20),
        "run": run.Config(total_steps=20, evaluate_every=1),
    },
}


def get_config(method: str = "mpail", environment: str = "navigation"):
    settings = {"environment": environment, **SETTINGS.get(method, {})}
    return config.thaw(experiment.of_method(method, **settings))
