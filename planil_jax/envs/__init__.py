"""Environments, by name: `envs.make("navigation")`; outside packages `register` theirs."""

from planil_jax.envs import navigation, pendulum, point_mass, probes
from planil_jax.envs.registry import make, names, register

__all__ = ["make", "names", "register"]

register("navigation", navigation.make)
register("pendulum", pendulum.make)
register("point_mass", point_mass.make)
register("probe/one_step", probes.one_step)
register("probe/countdown", probes.countdown)
