"""Lists the methods, one line each.

planil methods
"""

from planil_jax import registry
from planil_jax.base import UsageError
from planil_jax.cli import app

COMPUTE = False


def define_flags() -> None:
    """It has none."""


def main() -> None:
    print(app.columns([(name, _line(name)) for name in registry.methods()]))


def _line(name: str) -> str:
    """The first line of the docstring of the variant, or of the module."""
    try:
        module = registry.method(name).module
    except UsageError as error:
        return str(error)
    variant = getattr(module, registry.variant(name), None)
    return app.first_line((callable(variant) and variant.__doc__) or module.__doc__)
