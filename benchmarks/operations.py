"""Operations of matrix products and convolutions in a program, counted from its jaxpr.

A multiplication with its addition counts as two; elementwise operations are not counted. A
scan counts once for each of its steps, a loop of unknown length once. Of the branches of a
condition the most expensive one counts.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core


def count(fn: Callable, *args: Any) -> float:
    """Operations of `fn(*args)`; arrays or ShapeDtypeStructs."""
    return _of_jaxpr(jax.make_jaxpr(fn)(*args).jaxpr)


def _of_jaxpr(jaxpr: core.Jaxpr) -> float:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: core.JaxprEqn) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return of_product(equation)
    if name == "conv_general_dilated":
        kernel = _shape(equation.invars[1])
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        per_output = math.prod(kernel) / outputs
        return 2.0 * math.prod(_shape(equation.outvars[0])) * per_output
    within = [_of_jaxpr(inner) for inner in _inner(params)]
    if name == "cond":
        return max(within, default=0.0)
    return sum(within) * params.get("length", 1)


def of_product(equation: core.JaxprEqn) -> float:
    """Operations of a `dot_general`."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = _shape(equation.invars[0])
    depth = math.prod(shape[axis] for axis in contracted)
    return 2.0 * math.prod(_shape(equation.outvars[0])) * depth


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _inner(params: dict[str, Any]) -> list[core.Jaxpr]:
    """The programs within an equation."""
    found = []
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, core.Jaxpr):
                found.append(item)
    return found
