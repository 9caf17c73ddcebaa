"""Lists the environments, one line each.

    planil envs

A name that ends in "/*" is a family, such as brax/hopper of brax/*. Options follow a name:
navigation:steering_gain=0.45,start=field.
"""

from planil_jax import envs, registry
from planil_jax.cli import app

COMPUTE = False


def define_flags() -> None:
    """It has none."""


def main() -> None:
    names = registry.environments()
    print(app.columns([(name, envs.about(name) or "an environment") for name in names]))
