"""Settings tuned for a method in an environment, by name.

A recipe is of a method in an environment with the options that it was tuned with. A method
may have several there, told apart by a variant: "mpail2" and "mpail2/small". Each module
beside this one holds those of a family of environments, all in `RECIPES`: environment ->
method or method/variant -> fields of the Experiment. Those of the engines, which make
experts, lie in `experts`.

A recipe says how to learn in an environment, never which: its fields are among agent, loop
and run. A module imports no other recipe; what several share lies in `sizes`.
"""

import importlib
from typing import Any, NamedTuple

_ENGINES = ("ppo", "sac")  # their recipes lie in `experts`
_MODULES = {  # environment without its options -> module of its imitators' recipes
    "navigation": "navigation",
    "navigation_mjx": "navigation",
    "course": "course",
    "pendulum": "pendulum",
    "kitchen": "kitchen",
    "gym/Hopper": "gym",
    "gym/Walker2d": "gym",
    "gym/Ant": "gym",
    "playground/CartpoleSwingup": "cartpole",
    "playground/CheetahRun": "suite",
    "playground/WalkerRun": "suite",
    "playground/HopperHop": "suite",
}


class Recipe(NamedTuple):
    """Tuned settings, and what they were tuned for."""

    environment: str  # with the options that it was tuned with
    method: str  # maybe with a variant
    fields: dict[str, Any]  # of the Experiment: agent, loop, run


def settings(method: str, environment: str) -> dict[str, Any]:
    """Fields of the Experiment that trains a method in an environment.

    Args:
      method: its name, maybe with a variant: "mpail2/small".
      environment: its name, maybe with options. Which options is not asked, but whether
        it shows pictures: where "pixels" is among them, the recipe is one for pictures.

    Returns:
      Such as {"agent": mpail.Config(...), "loop": ..., "run": ...}; empty where there is no
      recipe, and the method's defaults are taken.
    """
    found = find(method, environment)
    return dict(found.fields) if found else {}


def find(method: str, environment: str) -> Recipe | None:
    """The recipe of a method in an environment, for `settings`; None: there is none."""
    stem, pictures = _kind(environment)
    module = "experts" if method in _ENGINES else _MODULES.get(stem)
    for recipe in _read(module) if module else []:
        if (recipe.method, *_kind(recipe.environment)) == (method, stem, pictures):
            return recipe
    return None


def names() -> list[tuple[str, str]]:
    """Environment and method of every recipe, each as it was tuned."""
    modules = dict.fromkeys([*_MODULES.values(), "experts"])
    return [recipe[:2] for module in modules for recipe in _read(module)]


def methods(environment: str) -> list[str]:
    """The methods, with their variants, that have a recipe in an environment."""
    kind = _kind(environment)
    return [method for tuned, method in names() if _kind(tuned) == kind]


def _read(module: str) -> list[Recipe]:
    """The recipes of a module, which is imported when it is first asked."""
    found = importlib.import_module(f"{__name__}.{module}").RECIPES
    return [Recipe(env, *row) for env, rows in found.items() for row in rows.items()]


def _kind(environment: str) -> tuple[str, bool]:
    """The name of an environment without its options, and whether it shows pictures."""
    stem, _, text = environment.partition(":")
    options = dict(option.partition("=")[::2] for option in text.split(","))
    return stem, options.get("pixels", "0") != "0"
