"""Whether an environment can be used: its specification is checked where it is made."""

import math
import numbers
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from planil_jax.base import Environment, EnvSpec, EnvState, UsageError


def check_spec(spec: EnvSpec, actions: Sequence[str] = ()) -> None:
    """Checks names, action bounds and times of an environment.

    `envs.make` and `mjcf.make` call it. Call it on `env.spec` of any other environment.

    Args:
      spec: of the environment.
      actions: names of the action entries for messages; without them "action entry 0".

    Raises:
      UsageError: the observation has no names or the same name twice; the action has no
        entries, or bounds that differ in number, are not finite, or are not increasing;
        the episode has no steps; the control period is not a positive number of seconds.
    """
    _check_names(spec)
    _check_bounds(spec, actions)
    length, period = spec.episode_length, spec.control_period
    if not isinstance(length, numbers.Integral) or length < 1:
        _refuse(spec, f"episode_length must be a whole number >= 1, not {length!r}")
    if not _is_finite(period) or period <= 0:
        _refuse(spec, f"control_period must be more than 0 seconds, not {period!r}")


def check_functions(env: Environment) -> None:
    """Checks what `reset` and `step` return, by their shapes alone.

    Raises:
      UsageError: one of them fails on what the other or the specification gives, returns
        an observation of another shape, or `step` changes the state's structure.
    """
    spec = env.spec
    key = jax.eval_shape(lambda: jax.random.key(0))
    action = jax.ShapeDtypeStruct((spec.action_size,), jnp.float32)
    state = traced(spec.name, "reset(key)", env.reset, key)
    if not isinstance(state, EnvState):
        _refuse(spec, f"reset(key) must return an EnvState, not {type(state).__name__}")
    returned = traced(spec.name, "step(state, action)", env.step, state, action)
    if not (isinstance(returned, tuple) and len(returned) == 2):
        _refuse(spec, "step(state, action) must return (EnvState, Transition)")
    after, transition = returned
    wanted = tuple(spec.image or (spec.observation_size,))
    for name, obs in {
        "reset's obs": state.obs,
        "step's obs": after.obs,
        "the transition's next_obs": transition.next_obs,
    }.items():
        if jnp.shape(obs) != wanted:
            _refuse(spec, f"{name} has the shape {jnp.shape(obs)}, not {wanted}")
    kinds, kinds_after = (dict(_kinds(each)) for each in (state, after))
    for path in kinds | kinds_after:
        before, now = kinds.get(path, "absent"), kinds_after.get(path, "absent")
        if before != now:
            _refuse(spec, f"reset's state{path} is {before}, but step's is {now}")


def _kinds(state: EnvState) -> Iterator[tuple[str, str]]:
    """Where each leaf of a state lies, and what it is: ".time", "int32[]"."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        yield jax.tree_util.keystr(path), f"{leaf.dtype}{list(leaf.shape)}"


def traced(name: str, what: str, function: Callable, *inputs: Any, given: str = "") -> Any:
    """What a user's function returns, as shapes; its own errors become a UsageError.

    Args:
      name: of the environment.
      what: the call, for messages: "reset(key)".
      given: what the function is given, for messages: "; it is called as …".
    """
    try:
        return jax.eval_shape(function, *inputs)
    except UsageError:
        raise
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else ""
        raise UsageError(
            f"environment {name!r}: {what} fails ({type(error).__name__}: {first}){given}."
        ) from error


def _check_names(spec: EnvSpec) -> None:
    if spec.image is not None:
        return  # an image has no named entries
    names = spec.observation_names
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        _refuse(spec, f"observation_names must be a tuple of names, not {names!r}")
    if not names:
        _refuse(spec, "observation_names is empty; name each entry of the observation")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        _refuse(
            spec, f"the observation name {repeated[0]!r} occurs twice; rename one entry"
        )


def _check_bounds(spec: EnvSpec, actions: Sequence[str]) -> None:
    low, high = _sequence(spec, "action_low"), _sequence(spec, "action_high")
    if len(low) != len(high):
        _refuse(
            spec,
            f"action_low has {len(low)} entries and action_high has {len(high)}; "
            "give each action entry both bounds",
        )
    if not low:
        _refuse(spec, "action_low is empty; an action needs at least one entry")
    for i, (lower, upper) in enumerate(zip(low, high, strict=True)):
        if not (_is_finite(lower) and _is_finite(upper) and lower < upper):
            who = actions[i] if actions else f"action entry {i}"
            _refuse(
                spec,
                f"the bounds of {who} are {lower} and {upper}; they must be finite, "
                "and the lower one less than the upper one",
            )


def _sequence(spec: EnvSpec, field: str) -> tuple[Any, ...]:
    try:
        return tuple(getattr(spec, field))
    except TypeError:
        value = getattr(spec, field)
        _refuse(spec, f"{field} must be a tuple of numbers, not {value!r}")


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except TypeError:
        return False


def _refuse(spec: EnvSpec, what: str) -> NoReturn:
    raise UsageError(f"environment {spec.name!r}: {what}.")
