"""Environments by name: `envs.make("navigation")`; other packages `register` their own.

Where a maker below is a string, its module is imported at the first use. Importing this
package therefore imports no physics engine.
"""

from planil_jax.envs import course, navigation, pendulum, point_mass, probes
from planil_jax.envs.checks import check_spec
from planil_jax.envs.registry import hold, make, names, register

__all__ = ["check_spec", "hold", "make", "names", "register"]

register("navigation", navigation.make)
register("pendulum", pendulum.make)
register("point_mass", point_mass.make)
register("probe/one_step", probes.one_step)
register("probe/countdown", probes.countdown)
register("course", course.make)
register("course_mjx", "planil_jax.envs.navigation_mjx:make_course")
register("navigation_mjx", "planil_jax.envs.navigation_mjx:make")
register("kitchen", "planil_jax.envs.kitchen:make")
register("brax/*", "planil_jax.envs.brax_env:make_brax")
register("playground/*", "planil_jax.envs.brax_env:make_playground")
register("gym/*", "planil_jax.envs.gym_mjx:make")
