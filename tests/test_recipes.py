"""Settings tuned for a method in an environment."""

import ast
import importlib
from pathlib import Path

import pytest

from planil_jax import config, experiment, recipes, registry
from planil_jax.agents import mpail
from planil_jax.base import UsageError
from planil_jax.compose import compose

FOLDER = Path(recipes.__file__).parent
NAMES = recipes.names()
MODULES = sorted(set(path.stem for path in FOLDER.glob("*.py")) - {"__init__", "sizes"})


# -------------------------------------------------------------------------- every recipe


def test_every_module_of_recipes_is_listed_and_no_pair_twice():
    written = [
        (environment, method)
        for module in MODULES
        for environment, rows in importlib.import_module(
            f"planil_jax.recipes.{module}"
        ).RECIPES.items()
        for method in rows
    ]
    assert sorted(written) == sorted(NAMES)
    assert len(set(NAMES)) == len(NAMES) > 50


@pytest.mark.parametrize(("environment", "method"), NAMES)
def test_a_recipe_is_found_by_its_names_and_freezes_without_complaint(environment, method):
    found = recipes.find(method, environment)
    assert found is not None and (found.environment, found.method) == (environment, method)
    assert found.fields and set(found.fields) <= {"agent", "loop", "run"}
    plain = method.partition("/")[0]
    assert plain in registry.methods()
    chosen, notes = compose(method, environment)
    assert notes == [f"settings: the recipe of {method} in {environment}"]
    assert (chosen.method, chosen.environment) == (plain, environment)
    assert isinstance(chosen.agent, type(registry.method(plain).config))
    assert {name: getattr(chosen, name) for name in found.fields} == found.fields
    assert experiment.from_json(experiment.to_json(chosen)) == chosen
    assert experiment.from_config_dict(config.to_config_dict(chosen)) == chosen


@pytest.mark.parametrize("module", MODULES)
def test_a_recipe_imports_no_other_recipe(module):
    tree = ast.parse((FOLDER / f"{module}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and "recipes" in (node.module or ""):
            assert node.module == "planil_jax.recipes"
            assert [alias.name for alias in node.names] == ["sizes"]


# --------------------------------------------------------------------------- looking up


def test_where_there_is_no_recipe_there_are_no_fields():
    assert recipes.settings("bc", "point_mass") == {}
    assert recipes.settings("cmil", "navigation") == {}
    assert recipes.settings("nonsense", "navigation") == {}
    assert recipes.settings("mpail", "object/navigation") == {}
    assert recipes.methods("point_mass") == []


def test_options_do_not_matter_but_for_pictures():
    plain = recipes.settings("iqmpc", "pendulum")
    assert recipes.settings("iqmpc", "pendulum:tremble=0.02") == plain
    assert recipes.settings("iqmpc", "pendulum:pixels=0") == plain
    pictures = recipes.settings("iqmpc", "pendulum:tremble=0.02,pixels=64")
    assert pictures["agent"].network.encoder_conv.filters == 16
    assert plain["agent"].network.encoder_conv != pictures["agent"].network.encoder_conv
    assert recipes.settings("cmil", "kitchen") == {}
    assert recipes.settings("cmil", "kitchen:pixels=64") != {}


def test_fields_that_were_asked_for_may_be_changed():
    fields = recipes.settings("mpail", "navigation")
    del fields["agent"]
    assert "agent" in recipes.settings("mpail", "navigation")


def test_the_environment_asked_for_is_taken_and_the_tuned_one_said():
    chosen, notes = compose("iqmpc", "playground/CheetahRun")
    assert chosen.environment == "playground/CheetahRun"
    tuned = "playground/CheetahRun:action_repeat=4"
    assert notes == [f"settings: the recipe of iqmpc in {tuned}"]


# ---------------------------------------------------------------------------- composing


def test_without_a_recipe_the_defaults_are_taken_and_said():
    chosen, notes = compose("bc", "point_mass")
    assert chosen == experiment.for_method("bc", environment="point_mass")
    assert notes == [
        "settings: the defaults of bc; there is no recipe for it in point_mass"
    ]
    chosen, notes = compose("mpail", "navigation", recipe=False)
    assert chosen == experiment.for_method("mpail", environment="navigation")
    assert notes == ["settings: the defaults of mpail"]


def test_settings_that_are_given_go_above_the_recipe_s():
    given = mpail.Config(discount=0.5)
    chosen, notes = compose(given, "navigation")
    fields = recipes.settings("mpail", "navigation")
    assert chosen.agent == given and chosen.method == "mpail"
    assert (chosen.loop, chosen.run) == (fields["loop"], fields["run"])
    assert notes == [
        "settings: mpail as given; loop and run are of the recipe of mpail in navigation"
    ]


@pytest.mark.parametrize(
    ("method", "environment", "recipe", "sentence"),
    [
        ("mpial", "navigation", True, "no method 'mpial'. Did you mean mpail"),
        ("mpial/small", "navigation", True, "no method 'mpial'"),
        (
            "mpail2/smal",
            "gym/Hopper",
            True,
            "no recipe 'mpail2/smal' in gym/Hopper. Did you mean mpail2/small",
        ),
        ("bc/small", "point_mass", True, "There is none there: say bc."),
        ("mpail2/small", "gym/Hopper", False, "recipes are switched off: say mpail2."),
    ],
)
def test_a_method_or_a_variant_that_is_not_there_is_refused(
    method, environment, recipe, sentence
):
    with pytest.raises(UsageError, match=sentence):
        compose(method, environment, recipe)
