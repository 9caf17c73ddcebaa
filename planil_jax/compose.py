"""The experiment of a method in an environment: by its recipe, or else by its defaults."""

from typing import Any

from planil_jax import experiment, recipes, registry
from planil_jax.base import UsageError, did_you_mean


def compose(
    method: Any, environment: str, recipe: bool = True
) -> tuple[experiment.Experiment, list[str]]:
    """The experiment that trains a method in an environment.

    Args:
      method: a name of `registry.methods()`; or with a variant that has a recipe in the
        environment, "mpail2/small"; or a method's own settings, `mpail.Config(...)`.
      environment: its name, maybe with options.
      recipe: whether settings tuned for the two are taken, where there are such.

    Returns:
      The experiment; and sentences that say which settings were taken.

    Raises:
      UsageError: there is no such method, or no such variant.
    """
    name = method if isinstance(method, str) else registry.method_of(method)
    plain = name if name in registry.methods() else name.partition("/")[0]
    module = registry.foreign_module(plain)
    found = recipes.find(name, environment) if recipe else None
    if found is None and name != plain:
        raise UsageError(_no_variant(name, plain, environment, recipe))
    fields = dict(found.fields) if found else {}
    source = f"the defaults of {name}"
    if found:
        source = f"the recipe of {name} in {found.environment}"
    if not isinstance(method, str):
        fields["agent"] = method
        note = f"settings: {name} as given; loop and run are of {source}"
    elif found or not recipe:
        note = f"settings: {source}"
    else:
        note = f"settings: {source}; there is no recipe for it in {environment}"
    fields |= {"environment": environment, "module": module}
    return experiment.for_method(plain, **fields), [note]


def _no_variant(name: str, plain: str, environment: str, recipe: bool) -> str:
    if not recipe:
        return f"{name} is a recipe, and recipes are switched off: say {plain}."
    known = recipes.methods(environment)
    hint, listed = did_you_mean(name, known), ", ".join(known)
    there = f"There are: {listed}." if known else f"There is none there: say {plain}."
    return f"no recipe {name!r} in {environment}.{hint} {there}"
