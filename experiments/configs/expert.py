"""Experts by environment: `expert.py:pendulum`; PPO where no engine was tuned."""

from planil_jax import config, experiment, recipes
from planil_jax.compose import compose
from planil_jax.recipes import experts


def get_config(environment: str = "pendulum"):
    for method in ("sac", "ppo"):
        if recipes.find(method, environment):
            return config.to_config_dict(compose(method, environment)[0])
    usual = experiment.for_method("ppo", environment=environment, **experts.USUAL)
    return config.to_config_dict(usual)
