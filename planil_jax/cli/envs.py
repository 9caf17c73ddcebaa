"""Lists the environments, one line each.

    planil envs

A name that ends in "/*" is a family, such as brax/hopper of brax/*. Options follow a name:
navigation:steering_gain=0.45,start=field.
"""

import ast
import importlib.util

from planil_jax import registry
from planil_jax.cli import app
from planil_jax.envs.registry import maker

COMPUTE = False


def define_flags() -> None:
    """It has none."""


def main() -> None:
    print(app.columns([(name, _line(name)) for name in registry.environments()]))


def _line(name: str) -> str:
    """The first line of the make function's docstring; physics engines stay unopened."""
    make = maker(name)
    if callable(make):
        return app.first_line(make.__doc__)
    module, _, function = make.partition(":")
    try:
        found = importlib.util.find_spec(module)
    except ImportError as error:
        return f"cannot be imported: {error}"
    if found is None or found.origin is None:
        return f"cannot be imported: there is no module {module}"
    with open(found.origin, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return app.first_line(ast.get_docstring(node) or ast.get_docstring(tree))
    return f"there is no function {function} in {module}"
