"""Who may import whom, read from the source; only one subprocess imports anything."""

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "planil_jax"
SHARED_BY_AGENTS = "common"  # of agents/, what an agent may import
# The parts of the package, floor by floor. A part may import those below, and a part of
# `SHARED` also its neighbours. The bare package ("") is its `__version__` and `__file__`.
FLOORS = (
    ("base", "comments", "config", "precision"),
    ("envs", "nets", "losses", "planners", "data"),
    ("models",),
    ("agents",),
    ("training",),
    ("registry", "recipes", "experiment", "compose", "sweep", "runs", "launch"),
    ("evaluation", "deploy"),
    ("reporting",),
    ("api",),
    ("cli",),
)
SHARED = ("registry", "recipes", "experiment", "compose", "sweep", "runs", "launch")
# Narrower than the floors say.
ONLY = {
    "base": set(),
    "comments": set(),
    "config": {"", "base", "comments"},
    "precision": set(),
    "envs": {"base", "config"},
    "nets": {"base", "config"},
    "losses": {"base", "config"},
    "planners": {"base", "config"},
    "data": {"", "base", "config"},
    "models": {"base", "config", "nets"},
    "training": {"", "base", "config", "data"},
    "": {"agents", "api", "base", "data", "deploy", "envs", "planners", "registry"},
}


def _allowed() -> dict[str, set[str]]:
    """Part of the package -> the parts that it may import besides itself."""
    allowed: dict[str, set[str]] = {"": set()}
    below: set[str] = set()
    for floor in FLOORS:
        for part in floor:
            neighbours = set(floor) if part in SHARED else set()
            allowed[part] = below | neighbours | {""}
        below |= set(floor)
    return allowed | ONLY


ALLOWED = _allowed()

# Outside module -> the only places that may import it.
KEPT_IN = {
    "brax": ("envs.",),
    "mujoco": ("envs.",),
    "mujoco_playground": ("envs.",),
    "flax.linen": ("nets.",),
    "flax.nnx": ("nets.",),
    "haiku": ("nets.",),
    "equinox": ("nets.",),
    "orbax": ("training.checkpoint",),
    "tensorboardX": ("training.report",),
    "gymnasium": ("envs.",),
    "absl": ("cli.",),
    "matplotlib": ("reporting.",),
    "imageio": ("reporting.",),
    "time": (
        "training.report",
        "training.checkpoint",
        "training.signals",
        "evaluation.results",
        "reporting.",
    ),
    "datetime": ("training.report", "training.checkpoint", "reporting."),
    "random": (),
    "os": (
        "data.demo_file",
        "envs.engine_c",
        "envs.mujoco_renderer",
        "training.",
        "runs.",
        "launch.",
        "reporting.",
        "evaluation.",
        "cli.",
    ),
    "io": ("data.", "envs.quiet", "training.", "reporting."),
    "pathlib": (
        "data.",
        "training.",
        "runs.",
        "launch.",
        "evaluation.",
        "deploy.",
        "reporting.",
        "api.",
        "cli.",
    ),
    "shutil": ("training.", "launch.", "reporting."),
    "subprocess": ("training.",),
    "sys": ("envs.mujoco_renderer", "training.", "registry.", "cli."),
}


def sources(*folders: str) -> dict[str, ast.Module]:
    """The trees of all modules below the folders, by their dotted names."""
    trees = {}
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            trees[name] = ast.parse(file.read_text(), str(file))
    return trees


@functools.cache
def imports(tree: ast.Module, module: str, is_package: bool = False) -> set[str]:
    """Dotted names that a module imports; `from a import b` is "a.b", also if relative."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            stem = node.module or ""
            if node.level:
                here = module.split(".")
                here = here[: len(here) - node.level + is_package]
                stem = ".".join([*here, *filter(None, [node.module])])
            found |= {f"{stem}.{alias.name}" for alias in node.names}
    return found


@functools.cache
def attributes(tree: ast.Module) -> set[str]:
    """All that a module reads by dots, as it is written: "jax.numpy.zeros"."""
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(parent + ".")


def part_of(name: str) -> str:
    """The part of the package that "planil_jax.agents.mpail.make" belongs to: "agents"."""
    part = (name.split(".") + [""])[1]
    return part if part in ALLOWED else ""


def trespasses(tree: ast.Module, module: str, is_package: bool = False) -> set[str]:
    """Imports within the package that the floors forbid."""
    here = part_of(module)
    found = set()
    for name in imports(tree, module, is_package):
        if not within(name, "planil_jax"):
            continue
        there = part_of(name)
        if there == here == "agents":
            agent = (name.split(".") + [""])[2]
            if not (agent == SHARED_BY_AGENTS or within(name, module)):
                found.add(name)
        elif there != here and there not in ALLOWED[here]:
            found.add(name)
    return found


MODULES = sources("planil_jax")
PACKAGES = {name for name in MODULES if (ROOT / Path(*name.split("."))).is_dir()}


@pytest.mark.parametrize(
    ("module", "line", "forbidden"),
    [
        ("planil_jax.envs.car", "from planil_jax.nets import mlp", True),
        ("planil_jax.envs.car", "from planil_jax import nets", True),
        ("planil_jax.envs.car", "import planil_jax.nets.mlp", True),
        ("planil_jax.envs.car", "from ..nets import mlp", True),
        ("planil_jax.envs.car", "def f():\n    from planil_jax.nets import mlp", True),
        ("planil_jax.envs.car", "from . import registry", False),
        ("planil_jax.envs.car", "from planil_jax import __version__", True),
        ("planil_jax.data.demos", "from planil_jax import __version__, config", False),
        ("planil_jax.base", "from planil_jax import config", True),
        ("planil_jax.losses.a", "from planil_jax.nets import mlp", True),
        ("planil_jax.models.latent", "from planil_jax.losses import returns", True),
        ("planil_jax.agents.dac", "from planil_jax.agents import sac", True),
        ("planil_jax.agents.dac", "from planil_jax.agents import mpail", True),
        ("planil_jax.agents.dac", "from planil_jax.agents.mpail import make", True),
        ("planil_jax.agents.dac", "from planil_jax.training import loop", True),
        ("planil_jax.agents.dac", "from planil_jax.agents.common import actions", False),
        ("planil_jax.training.run", "from planil_jax import agents", True),
        ("planil_jax.evaluation.a", "from planil_jax.reporting import figures", True),
        ("planil_jax.evaluation.a", "from planil_jax import runs", False),
        ("planil_jax.registry", "from planil_jax import recipes", False),
        ("planil_jax.runs", "from planil_jax import evaluation", True),
        ("planil_jax.reporting.a", "from planil_jax import api", True),
        ("planil_jax.training.run", "from planil_jax.nets import mlp", True),
    ],
)
def test_the_walker_sees_a_forbidden_import_however_it_is_written(module, line, forbidden):
    assert bool(trespasses(ast.parse(line), module)) == forbidden


def test_the_walker_finds_every_module():
    assert len(MODULES) == len(list(PACKAGE.rglob("*.py")))
    assert {"planil_jax", "planil_jax.base", "planil_jax.agents.mpail"} <= set(MODULES)


def test_every_part_of_the_package_stands_on_a_floor():
    parts = {name.split(".")[1] for name in MODULES if "." in name}
    assert parts <= set(ALLOWED)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_own_part_and_the_floors_that_it_stands_on(module):
    assert trespasses(MODULES[module], module, module in PACKAGES) == set()


def test_no_module_reaches_through_the_bare_package():
    """`import planil_jax` followed by `planil_jax.agents` would escape the floors."""
    reached = {
        attribute
        for tree in MODULES.values()
        for attribute in attributes(tree)
        if attribute.startswith("planil_jax.")
    }
    assert reached <= {"planil_jax.__version__", "planil_jax.__file__"}


@pytest.mark.parametrize("outside", KEPT_IN)
def test_an_outside_module_is_imported_only_where_it_is_kept(outside):
    homes = tuple(f"planil_jax.{home}" for home in KEPT_IN[outside])
    users = {
        module
        for module, tree in MODULES.items()
        if any(within(name, outside) for name in imports(tree, module))
    }
    assert {user for user in users if not f"{user}.".startswith(homes)} == set()


def test_only_the_command_line_and_the_report_of_a_run_print():
    printers = {
        module
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("print", "input", "breakpoint")
    }
    printers = {module for module in printers if not within(module, "planil_jax.cli")}
    assert printers <= {"planil_jax.training.report"}


# One switches 64 bits off, the other reads which OpenGL MuJoCo is to use.
SETS = ("planil_jax.precision", "planil_jax.envs.mujoco_renderer")
# MuJoCo in C is a pure function that is called back.
CALLS_BACK = {("planil_jax.envs.engine_c", "jax.pure_callback")}


def test_no_module_calls_back_to_the_host_or_writes_a_setting():
    forbidden = (
        "jax.debug",
        "jax.pure_callback",
        "jax.experimental.io_callback",
        "jax.config.update",
        "os.environ",
        "os.putenv",
    )
    guilty = {
        (module, word)
        for module, tree in MODULES.items()
        if not within(module, "planil_jax.cli") and module not in SETS
        for word in attributes(tree) | imports(tree, module, module in PACKAGES)
        if any(within(word, one) for one in forbidden)
    }
    assert guilty == CALLS_BACK


def test_nothing_is_pickled_or_unpickled():
    guilty = set()
    for module, tree in sources("planil_jax", "experiments", "benchmarks").items():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                    guilty.add(f"{module}: allow_pickle")
        names = {name.split(".")[0] for name in imports(tree, module)}
        if names & {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve"}:
            guilty.add(f"{module}: pickle")
    assert guilty == set()


def test_importing_the_package_sets_no_environment_variable_and_no_jax_config():
    """Outside libraries are imported first, since some of them set variables."""
    outside = {
        name
        for module, tree in MODULES.items()
        for name in imports(tree, module, module in PACKAGES)
        if not within(name, "planil_jax")
    }
    program = f"""
import contextlib, importlib, json, os
for name in {sorted(outside)!r}:
    while name:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
        name = name.rpartition(".")[0]
import jax
def settings():
    config = {{name: repr(value) for name, value in jax.config.values.items()}}
    return dict(os.environ) | config
before = settings()
for name in {sorted(MODULES)!r}:
    importlib.import_module(name)
after = settings()
changed = [name for name in before | after if before.get(name) != after.get(name)]
print(json.dumps([changed, len(before)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    changed, count = json.loads(done.stdout.splitlines()[-1])
    assert changed == []
    assert count > 100  # so that the comparison is not empty
