"""Operations of matrix products and convolutions in a program, counted from its jaxpr.

Two for each multiplication with its addition. What is elementwise is not counted. A scan
counts as often as it turns; a loop whose number of turns is not known as once; of the
branches of a condition the dearest counts.
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
        each = math.prod(kernel) / outputs
        return 2.0 * math.prod(_shape(equation.outvars[0])) * each
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
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, core.ClosedJaxpr):
                found.append(each.jaxpr)
            elif isinstance(each, core.Jaxpr):
                found.append(each)
    return found
