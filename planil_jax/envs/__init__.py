"""Environments by name: `envs.make("navigation")`; other packages `register` their own.

Where a maker below is a string, its module is imported at the first use. Importing this
package therefore imports no physics engine.
"""

from planil_jax.envs import course, navigation, pendulum, point_mass, probes
from planil_jax.envs.checks import check_spec
from planil_jax.envs.registry import (
    OBJECT,
    about,
    hold,
    holds,
    make,
    names,
    register,
    with_option,
)

__all__ = [
    "OBJECT",
    "about",
    "check_spec",
    "hold",
    "holds",
    "make",
    "names",
    "register",
    "with_option",
]

register("navigation", navigation.make, "a car drives to a goal; analytic")
register("course", course.make, "the same car drives round a closed course")
register("pendulum", pendulum.make, "a pendulum swings up; analytic")
register("point_mass", point_mass.make, "a point mass comes to rest; small, for tests")
register("probe/one_step", probes.one_step, "one step with an observed reward; for tests")
register("probe/countdown", probes.countdown, "episodes that end early; for tests")
for _name, _module, _about in (
    ("course_mjx", "navigation_mjx:make_course", "the sprung car, round the course"),
    ("navigation_mjx", "navigation_mjx:make", "a car with wheels, springs, tyres"),
    ("kitchen", "kitchen:make", "an arm opens and turns on things in a kitchen"),
    ("brax/*", "brax_env:make_brax", "Brax: brax/hopper, brax/hopper/spring, ..."),
    ("playground/*", "brax_env:make_playground", "MuJoCo Playground's tasks"),
    ("gym/*", "gym_mjx:make", "Gymnasium's Hopper, Ant, Humanoid and others"),
):
    register(_name, f"planil_jax.envs.{_module}", _about)
