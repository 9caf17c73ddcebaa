"""A robot of your own: an environment from an MJCF model and a few small functions.

    data' = MuJoCo(data, action), repeated until the control period is over
    obs = observe(data'),  reward(data, action, data'),  terminal(data')

An action holds one control per actuator, within its `ctrlrange`. `reset`, `observe`,
`reward` and `terminal` receive a whole `mjx.Data`, with positions, velocities, sensors and
forces of the same moment. `expert_cost`, `success` and `recover` receive observations.

The model is stepped by MuJoCo in C or by MJX; see `engines`. In C the functions receive an
`engine_c.Data`, which has the same fields and computes those that they read.

    model = mjcf.load("arm.xml")
    tip = model.site("tip").id
    names = ("x [m]", "y [m]", "z [m]")
    env = mjcf.make(
        "arm", model, lambda data: data.site_xpos[tip], names, control_period=0.05
    )
"""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from planil_jax.base import Dynamics, Environment, EnvSpec, EnvState, Transition, UsageError
from planil_jax.envs import engine_c, engine_mjx, engines
from planil_jax.envs.checks import check_spec, traced
from planil_jax.envs.engine_mjx import Physics as Physics
from planil_jax.envs.engines import Engine
from planil_jax.envs.quiet import mjx


def load(
    xml: str, mass: float = 1.0, friction: float = 1.0, gravity: float = 1.0
) -> mujoco.MjModel:
    """Compiles an MJCF model, with scaled masses, friction or gravity if asked for.

    Args:
      xml: path of a file that ends in ".xml", or the MJCF text itself.
      mass: factor on all masses and inertias.
      friction: factor on the friction of all geoms and pairs.
      gravity: factor on gravity.

    Raises:
      UsageError: there is no such file, MuJoCo cannot compile it, or a factor is out of
        range.
    """
    model = _compile(xml)
    if not (mass > 0 and friction >= 0):
        raise UsageError(
            "an MJCF model needs a mass factor above 0 and a friction factor of 0 or more, "
            f"not mass={mass} and friction={friction}."
        )
    return scale_physics(model, mass, friction, gravity)


def scale_physics(
    model: mujoco.MjModel, mass: float = 1.0, friction: float = 1.0, gravity: float = 1.0
) -> mujoco.MjModel:
    """A copy of a model with scaled physics; constants derived from masses are updated.

    Args:
      model: is not changed.
      mass: factor of all masses and inertias.
      friction: factor of all coefficients of friction between geoms.
      gravity: factor of gravity.
    """
    model = copy.deepcopy(model)
    model.geom_friction[:] *= friction
    model.pair_friction[:] *= friction
    model.opt.gravity[:] *= gravity
    if mass != 1.0:
        model.body_mass[:] *= mass
        model.body_inertia[:] *= mass
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def make(
    name: str,
    xml: str | mujoco.MjModel,
    observe: Callable[[mjx.Data], jax.Array],
    observation_names: Sequence[str],
    *,
    control_period: float,
    reset: Callable[[jax.Array, mjx.Data], mjx.Data] | None = None,
    reward: Callable[[mjx.Data, jax.Array, mjx.Data], jax.Array] | None = None,
    terminal: Callable[[mjx.Data], jax.Array] | None = None,
    episode_length: int = 1000,
    prior: Dynamics | None = None,
    expert_cost: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None,
    success: Callable[[jax.Array], jax.Array] | None = None,
    recover: Callable[[jax.Array], tuple[jax.Array, jax.Array]] | None = None,
    mass: float = 1.0,
    friction: float = 1.0,
    gravity: float = 1.0,
    engine: str = "auto",
    contacts: int = engine_c.CONTACTS,
) -> Environment:
    """An environment whose physics is an MJCF model.

    Args:
      name: of the environment, in messages and files.
      xml: path of a file that ends in ".xml", MJCF text, or a model from `load`, which is
        copied.
      observe: (data) -> `[O]`, what an agent may see.
      observation_names: a name with its unit for each entry of the observation.
      control_period: seconds for which an action is held; a multiple of the model's
        timestep.
      reset: (key, data) -> data with `qpos`, `qvel` or other fields of the state replaced,
        by `data.replace`: act, ctrl, qacc_warmstart, mocap_pos, mocap_quat, xfrc_applied,
        qfrc_applied, eq_active, userdata or time. Its argument is the model at its first
        keyframe, or in its initial pose if it has none. None: every episode starts there.
      reward: (data, action `[U]` within its bounds, next_data) -> []. None: it is 0.
      terminal: (next_data) -> [] bool, whether the task is over. None: it never is.
      episode_length: control steps until truncation, at least 1.
      prior, expert_cost, success: as in `base.Environment`.
      recover: (obs `[O]`) -> (qpos `[nq]`, qvel `[nv]`), where an observation determines
        both. With it a planner can start from an observation alone. The other fields of
        `Physics` are those of the first keyframe or the initial pose.
      mass, friction, gravity: scale factors, as for `load`; only for an MJCF file or text.
      engine: what steps the model: "c", "mjx" or "auto"; see `envs.engines`.
      contacts: of engine c: rows of `data.contact`, the most contacts that a state may
        have where a function reads them.

    Raises:
      UsageError: the model is missing, faulty or more than the engine can simulate; the
        control period is not a multiple of its timestep; an actuator has no `ctrlrange`;
        the specification fails `envs.check_spec`; a function fails, or returns something
        else than is stated here; it reads a field that MuJoCo in C does not give; or
        there is no such engine.
    """
    if isinstance(xml, str):
        model = load(xml, mass, friction, gravity)
    elif (mass, friction, gravity) == (1.0, 1.0, 1.0):
        model = copy.copy(xml)
    else:
        raise UsageError(
            f"environment {name!r}: give mass, friction and gravity to mjcf.load, which "
            "made the model."
        )
    engine = engines.resolve(name, engine)
    low, high = _action_bounds(name, model)
    spec = EnvSpec(
        name=name,
        observation_names=_names(observation_names),
        action_low=low,
        action_high=high,
        episode_length=episode_length,
        control_period=control_period,
        terminates=terminal is not None,
    )
    check_spec(spec, [f"actuator {actuator}" for actuator in _actuators(model)])
    substeps = _substeps(name, control_period, model.opt.timestep)
    functions = _Functions(observe, reset, reward, terminal, expert_cost, success, recover)
    if engine == "c":
        physics = _in_c(spec, model, substeps, functions, contacts)
    else:
        physics = _in_mjx(spec, model, substeps, functions)

    def make_state(sim: Any, time: jax.Array) -> tuple[EnvState, Any]:
        data = physics.data(sim, time)
        obs = jnp.asarray(observe(data), jnp.float32)
        return EnvState(sim=sim, obs=obs, time=time), data

    def start(key: jax.Array) -> EnvState:
        data = physics.home if reset is None else reset(key, physics.home)
        return make_state(physics.start(data), jnp.zeros((), jnp.int32))[0]

    def recover_state(obs: jax.Array) -> EnvState:
        assert recover is not None
        qpos, qvel = (jnp.asarray(part, jnp.float32) for part in recover(obs))
        data = physics.home.replace(qpos=qpos, qvel=qvel)
        return make_state(physics.start(data), jnp.zeros((), jnp.int32))[0]

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        ctrl = jnp.clip(jnp.asarray(action, jnp.float32), jnp.array(low), jnp.array(high))
        sim = physics.step(state.sim, ctrl)
        next_state, next_data = make_state(sim, state.time + 1)
        step_reward = jnp.zeros((), jnp.float32)
        if reward is not None:
            data = physics.data(state.sim, state.time)
            step_reward = jnp.asarray(reward(data, ctrl, next_data), jnp.float32)
        ended = jnp.zeros((), bool)
        if terminal is not None:
            ended = jnp.asarray(terminal(next_data))
        transition = Transition(
            obs=state.obs,
            action=action,
            next_obs=next_state.obs,
            reward=step_reward,
            terminal=ended,
            truncated=next_state.time >= episode_length,
        )
        return next_state, transition

    return Environment(
        spec,
        start,
        step,
        prior,
        expert_cost,
        success,
        recover=recover and recover_state,
        engine=engine,
    )


class _Functions(NamedTuple):
    """The functions of an environment, as `make` is given them."""

    observe: Callable
    reset: Callable | None
    reward: Callable | None
    terminal: Callable | None
    expert_cost: Callable | None
    success: Callable | None
    recover: Callable | None


def _in_mjx(
    spec: EnvSpec, model: mujoco.MjModel, substeps: int, functions: _Functions
) -> Engine:
    """The model on MJX, where the functions were found to fit it."""
    make_engine = functools.partial(
        engine_mjx.make, spec.name, model, substeps, spec.control_period
    )
    physics = make_engine()
    time = jax.ShapeDtypeStruct((), np.int32)
    data = jax.eval_shape(physics.data, physics.start(physics.home), time)
    _check_functions(spec, functions, physics.home, data)
    if functions.reset is None:
        return physics
    extra = engine_mjx.set_by(functions.reset, physics.home)
    return make_engine(extra) if extra else physics


def _in_c(
    spec: EnvSpec,
    model: mujoco.MjModel,
    substeps: int,
    functions: _Functions,
    contacts: int,
) -> Engine:
    """The model in C, whose states hold the fields that the functions read."""
    read: set[str] = set(engine_mjx.CARRIED)
    data = engine_c.template(spec.name, model, contacts, read)
    home = engine_c.template(spec.name, model, contacts)
    _check_functions(spec, functions, home, data)
    return engine_c.make(spec.name, model, substeps, read, contacts)


def _check_functions(spec: EnvSpec, functions: _Functions, home: Any, data: Any) -> None:
    """Refuses functions that fail, or return something else than is stated.

    Args:
      home: the data that `reset` is given.
      data: the data that the others are given, as shapes.
    """
    name = spec.name
    obs = jax.ShapeDtypeStruct((spec.observation_size,), np.float32)
    act = jax.ShapeDtypeStruct((spec.action_size,), np.float32)
    _check_reset(name, functions.reset, home)
    _check_observe(name, functions.observe, data, spec.observation_names)
    _check_scalar(name, "reward", float, functions.reward, data, act, data)
    _check_scalar(name, "terminal", bool, functions.terminal, data)
    _check_scalar(name, "expert_cost", float, functions.expert_cost, obs, act, obs)
    _check_scalar(name, "success", bool, functions.success, obs)
    _check_recover(name, functions.recover, obs, home)


def _compile(xml: str) -> mujoco.MjModel:
    """The model of an MJCF file or text; its faults become a UsageError."""
    is_file = xml.endswith(".xml")
    if not is_file and "<" not in xml:
        raise UsageError(
            "an MJCF model is the path of a file that ends in .xml, or MJCF text, "
            f"not {xml!r}."
        )
    where = xml if is_file else "the MJCF text"
    try:
        if is_file:
            with open(xml, "rb"):  # names the cause; MuJoCo's message does not
                pass
            return mujoco.MjModel.from_xml_path(xml)
        return mujoco.MjModel.from_xml_string(xml)
    except OSError as error:
        raise UsageError(f"cannot read {where}: {error.strerror}.") from None
    except ValueError as error:
        reason = ", ".join(str(error).removeprefix("Error: ").split("\n")).rstrip(" ,.")
        raise UsageError(f"MuJoCo cannot compile {where}: {reason}.") from None


def _names(names: Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple; a single text stays a text, which `check_spec` refuses."""
    return names if isinstance(names, str) else tuple(names)  # type: ignore[return-value]


def _actuators(model: mujoco.MjModel) -> list[str]:
    """Words for each control: its actuator's name, or number where it has none.

    An actuator of MuJoCo 4 may have several inputs, each with a control of its own.
    """
    words = []
    for i in range(getattr(model, "nactuator", model.nu)):
        actuator = model.actuator(i).name or f"number {i}"
        inputs = model.actuator_ctrlnum[i] if hasattr(model, "nactuator") else 1
        if inputs == 1:
            words.append(actuator)
            continue
        names = [mujoco.mj_actuatorInputName(model, i, k) for k in range(inputs)]
        words += [f"{actuator} (input {name})" for name in names]
    return words


def _substeps(name: str, period: float, timestep: float) -> int:
    """How many timesteps of the model make a control period."""
    count = round(period / timestep)
    if count < 1 or abs(count * timestep - period) > 1e-6 * period:
        raise UsageError(
            f"environment {name!r}: a control_period of {period:g} s is not a multiple of "
            f"the model's timestep, {timestep:g} s; change one of them."
        )
    return count


# Where an actuator has several inputs, of which the MJCF bounds the first alone.
_SEVERAL = (
    " Bound further inputs in the model that mjcf.load returns: set its "
    "actuator_ctrlrange and actuator_ctrllimited."
)


def _action_bounds(
    name: str, model: mujoco.MjModel
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The lower and upper ends of every actuator's `ctrlrange`."""
    if model.nu == 0:
        raise UsageError(f"environment {name!r}: its MJCF has no actuators; add one.")
    limited = zip(_actuators(model), model.actuator_ctrllimited, strict=True)
    unbounded = [actuator for actuator, is_limited in limited if not is_limited]
    several = model.nu != getattr(model, "nactuator", model.nu)
    if unbounded:
        raise UsageError(
            f"environment {name!r}: actuators need a ctrlrange in the MJCF, and there is "
            f"none for {', '.join(unbounded)}.{_SEVERAL * several}"
        )
    low, high = model.actuator_ctrlrange.T.tolist()
    return tuple(low), tuple(high)


# Role of a user's function -> what it is given. "data" and "next_data" are an `mjx.Data`.
_INPUTS = {
    "reset": "(key, data)",
    "observe": "(data)",
    "reward": "(data, action, next_data)",
    "terminal": "(next_data)",
    "expert_cost": "(obs, action, next_obs)",
    "success": "(obs)",
    "recover": "(obs)",
}


def _traced(name: str, role: str, function: Callable, *inputs: Any) -> Any:
    """What a user's function returns, as shapes; a failing one is named with its inputs."""
    called = _INPUTS[role]
    kind = "an mjx.Data" if "data" in called else "an observation, not an mjx.Data"
    last = called.strip("()").split(", ")[-1]
    given = f"; it is called as {role}{called}, where {last} is {kind}"
    # Its fields in place of a data of C, whose values alone can be traced.
    plain = [each.values if isinstance(each, engine_c.Data) else each for each in inputs]

    def call(*values: Any) -> Any:
        return function(
            *(
                each.over(value) if isinstance(each, engine_c.Data) else value
                for each, value in zip(inputs, values, strict=True)
            )
        )

    return traced(name, role, call, *plain, given=given)


def _check_reset(name: str, reset: Callable | None, home: Any) -> None:
    if reset is None:
        return
    in_c = isinstance(home, engine_c.Data)

    def returned(key: jax.Array, data: Any) -> dict[str, Any]:
        """The fields that may be set, as the reset returns them."""
        after = reset(key, data)
        if not isinstance(after, type(home)):
            raise UsageError(
                f"environment {name!r}: reset must return its data with qpos and qvel "
                f"replaced, not {_described(after)}."
            )
        if in_c:
            return {field: jnp.asarray(after.values[field]) for field in after.replaced}
        fields = (*engine_mjx.CARRIED, *engine_mjx.SETTABLE)
        return {field: getattr(after, field) for field in fields}

    fields = _traced(name, "reset", returned, jax.random.key(0), home)
    for field, after in fields.items():
        before = home.values[field] if in_c else getattr(home, field)
        if after.shape != before.shape or after.dtype != before.dtype:
            raise UsageError(
                f"environment {name!r}: reset must return {field} as "
                f"{_described(before)}, not {_described(after)}."
            )


def _check_observe(
    name: str, observe: Callable, data: mjx.Data, names: tuple[str, ...]
) -> None:
    obs = _traced(name, "observe", observe, data)
    shape = getattr(obs, "shape", None)
    if shape is not None and len(shape) == 1 and shape != (len(names),):
        raise UsageError(
            f"environment {name!r}: observe returned {shape[0]} entries and there are "
            f"{len(names)} observation_names; give each entry a name."
        )
    _require(name, "observe", obs, (len(names),), float)


def _check_recover(name: str, recover: Callable | None, obs: Any, home: Any) -> None:
    if recover is None:
        return
    parts = _traced(name, "recover", recover, obs)
    if not isinstance(parts, (tuple, list)) or len(parts) != 2:
        raise UsageError(
            f"environment {name!r}: recover must return the pair (qpos, qvel), not "
            f"{_described(parts)}."
        )
    _require(name, "recover", parts[0], home.qpos.shape, float, "qpos as ")
    _require(name, "recover", parts[1], home.qvel.shape, float, "qvel as ")


def _check_scalar(
    name: str, role: str, kind: type, function: Callable | None, *arguments: Any
) -> None:
    if function is not None:
        _require(name, role, _traced(name, role, function, *arguments), (), kind)


def _require(
    name: str, role: str, value: Any, shape: tuple[int, ...], kind: type, part: str = ""
) -> None:
    """Refuses a function whose value has another shape, or is no number or no bool."""
    wanted = jax.ShapeDtypeStruct(shape, np.bool_ if kind is bool else np.float32)
    fits = isinstance(value, jax.ShapeDtypeStruct) and value.shape == shape
    if not fits or (value.dtype == np.bool_) != (kind is bool):
        raise UsageError(
            f"environment {name!r}: {role} must return {part}{_described(wanted)}, not "
            f"{_described(value)}."
        )


def _described(value: Any) -> str:
    """Words for an array's shape and type, or for the type of another value."""
    if hasattr(value, "shape"):
        return f"an array of shape {value.shape} and type {value.dtype}"
    return f"a {type(value).__name__}"
