"""Config files: thin, and of the package's recipes."""

import ast
import importlib
from pathlib import Path

import pytest

from experiments.configs.ablations import pendulum as ablations
from planil_jax import config, experiment, recipes
from planil_jax.compose import compose

FOLDER = Path(__file__).parents[2] / "experiments/configs"
FILES = {  # environment of a recipe -> the config file of its imitators
    "navigation": "navigation",
    "navigation_mjx": "navigation_mjx",
    "course": "course",
    "pendulum": "pendulum",
    "pendulum:pixels=48": "pendulum_seen",
    "pendulum:pixels=64,frames=1": "pendulum_seen",
    "kitchen:pixels=64,frames=1": "kitchen",
    "gym/Hopper": "hopper",
    "gym/Ant:contact_forces=False": "ant",
    "playground/CartpoleSwingup:action_repeat=4": "cartpole",
}
SUITE = ("CheetahRun", "WalkerRun", "HopperHop")
WITHOUT = {  # compared only
    ("gym/Walker2d", method) for method in ("gail", "mail", "bc", "bc/holdout")
}


def argument(environment: str, method: str) -> tuple[str, str]:
    """The config file of a recipe, and what follows its name."""
    task = environment.partition(":")[0].removeprefix("playground/")
    if task in SUITE:
        return "suite", f"{task}/{method}"
    if method in ("sac", "ppo"):
        return "expert", environment
    return FILES[environment], method


def of_file(file: str, argument: str) -> experiment.Experiment:
    module = importlib.import_module(f"experiments.configs.{file}")
    return experiment.from_config_dict(module.get_config(argument))


@pytest.mark.parametrize(
    ("environment", "method"), [pair for pair in recipes.names() if pair not in WITHOUT]
)
def test_a_config_file_equals_what_the_library_composes(environment, method):
    composed, _ = compose(method, environment)
    assert of_file(*argument(environment, method)) == composed


@pytest.mark.parametrize("method", ["mpail2", "mpail2/small"])
def test_the_ant_is_the_hopper_s_but_for_critics_scores_and_ends(method):
    there, here = of_file("hopper", method), of_file("ant", method)
    differences = dict(line.split(": ", 1) for line in config.differences(there, here))
    assert differences == {
        "environment": "'gym/Hopper' there, 'gym/Ant:contact_forces=False' here",
        "agent.target_rate": "0.05 there, 0.01 here",
        "agent.gradient_penalty": "5.0 there, 1.0 here",
        "agent.td_lambda": "0.8 there, 0.0 here",
        "agent.q_weight": "0.5 there, 0.0 here",
        "agent.accept_if_all_critics_prefer": "True there, False here",
        "agent.value_scale": "10.0 there, 1.0 here",
        "agent.absorbing": "True there, False here",
    }


@pytest.mark.parametrize("method", ablations.ABLATIONS)
def test_an_ablation_differs_from_its_recipe_where_it_says(method):
    ablated = experiment.from_config_dict(ablations.get_config(method))
    plain, _ = compose(method.partition("/")[0], "pendulum")
    differences = config.differences(plain, ablated)
    fields = ablations.ABLATIONS[method]
    assert differences
    for line in differences:
        assert line.startswith(tuple(f"agent.{field}" for field in fields))


def test_what_is_no_ablation_is_the_recipe():
    recipe, _ = compose("iqmpc/steady", "pendulum")
    assert experiment.from_config_dict(ablations.get_config("iqmpc/steady")) == recipe


def test_an_environment_without_a_tuned_engine_has_ppo():
    usual = of_file("expert", "gym/Hopper")
    assert (usual.method, usual.environment) == ("ppo", "gym/Hopper")
    assert usual.run.total_steps == 1_000_000


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.stem)
def test_a_config_file_imports_no_other(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("experiments")
            assert not node.level
