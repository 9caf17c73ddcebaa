"""A robot of your own: an environment from an MJCF model and a few small functions, on MJX.

    data' = MuJoCo(data, action), repeated until the control period is over
    obs = observe(data'),  reward(data, action, data'),  terminal(data')

An action holds one control per actuator, within its `ctrlrange`. `reset`, `observe`,
`reward` and `terminal` receive a whole `mjx.Data`, with positions, velocities, sensors and
forces of the same moment. `expert_cost`, `success` and `recover` receive observations. XLA
computes only the fields that a function reads. From step to step the environment carries
the fields of `Physics` and nothing else.

    model = mjcf.load("arm.xml")
    tip = model.site("tip").id
    names = ("x [m]", "y [m]", "z [m]")
    env = mjcf.make(
        "arm", model, lambda data: data.site_xpos[tip], names, control_period=0.05
    )
"""

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from planil_jax.base import Dynamics, Environment, EnvSpec, EnvState, Transition, UsageError
from planil_jax.envs.checks import check_spec, traced
from planil_jax.envs.quiet import mjx


@struct.dataclass
class Physics:
    """What MuJoCo carries from one control step to the next; float32."""

    qpos: jax.Array  # [nq] positions, metres and radians
    qvel: jax.Array  # [nv] velocities
    act: jax.Array  # [na] states of the actuators
    ctrl: jax.Array  # [nu] the last action
    mocap_pos: jax.Array  # [nmocap, 3] bodies that the user places, metres
    mocap_quat: jax.Array  # [nmocap, 4]
    qacc_warmstart: jax.Array  # [nv] accelerations from which the solver starts


_CARRIED = tuple(Physics.__dataclass_fields__)


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
      reset: (key, data) -> data with `qpos`, `qvel` or other fields of `Physics` replaced.
        Its argument is the model at its first keyframe, or in its initial pose if it has
        none. None: every episode starts there.
      reward: (data, action `[U]` within its bounds, next_data) -> []. None: it is 0.
      terminal: (next_data) -> [] bool, whether the task is over. None: it never is.
      episode_length: control steps until truncation, at least 1.
      prior, expert_cost, success: as in `base.Environment`.
      recover: (obs `[O]`) -> (qpos `[nq]`, qvel `[nv]`), where an observation determines
        both. With it a planner can start from an observation alone. The other fields of
        `Physics` are those of the first keyframe or the initial pose.
      mass, friction, gravity: scale factors, as for `load`; only for an MJCF file or text.

    Raises:
      UsageError: the model is missing, faulty or more than MJX can simulate; the control
        period is not a multiple of its timestep; an actuator has no `ctrlrange`; the
        specification fails `envs.check_spec`; or a function fails, or returns something
        else than is stated here.
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
    model_mjx = _put(name, model)
    blank = mjx.make_data(model_mjx)
    home = _home(model, blank)

    def forward(physics: Physics, time: jax.Array) -> mjx.Data:
        """The whole data, computed from the carried fields."""
        data = _restore(blank, physics)
        data = data.replace(time=control_period * time.astype(jnp.float32))
        data = mjx.forward(model_mjx, data)
        return mjx.sensor_acc(model_mjx, data)  # forward omits it without constraints

    def make_state(physics: Physics, time: jax.Array) -> tuple[EnvState, mjx.Data]:
        data = forward(physics, time)
        obs = jnp.asarray(observe(data), jnp.float32)
        return EnvState(sim=physics, obs=obs, time=time), data

    def start(key: jax.Array) -> EnvState:
        data = home if reset is None else reset(key, home)
        return make_state(_carried(data), jnp.zeros((), jnp.int32))[0]

    def recover_state(obs: jax.Array) -> EnvState:
        assert recover is not None
        qpos, qvel = (jnp.asarray(part, jnp.float32) for part in recover(obs))
        physics = _carried(home.replace(qpos=qpos, qvel=qvel))
        return make_state(physics, jnp.zeros((), jnp.int32))[0]

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        ctrl = jnp.clip(jnp.asarray(action, jnp.float32), jnp.array(low), jnp.array(high))

        def substep(physics: Physics, _) -> tuple[Physics, None]:
            return _carried(mjx.step(model_mjx, _restore(blank, physics))), None

        physics = state.sim.replace(ctrl=ctrl)
        physics = jax.lax.scan(substep, physics, length=substeps)[0]
        next_state, next_data = make_state(physics, state.time + 1)
        step_reward = jnp.zeros((), jnp.float32)
        if reward is not None:
            data = forward(state.sim, state.time)
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

    data = jax.eval_shape(lambda: mjx.forward(model_mjx, home))
    obs = jax.ShapeDtypeStruct((spec.observation_size,), np.float32)
    act = jax.ShapeDtypeStruct((spec.action_size,), np.float32)
    _check_reset(name, reset, home)
    _check_observe(name, observe, data, spec.observation_names)
    _check_scalar(name, "reward", float, reward, data, act, data)
    _check_scalar(name, "terminal", bool, terminal, data)
    _check_scalar(name, "expert_cost", float, expert_cost, obs, act, obs)
    _check_scalar(name, "success", bool, success, obs)
    _check_recover(name, recover, obs, home)
    return Environment(
        spec,
        start,
        step,
        prior,
        expert_cost,
        success,
        recover=recover and recover_state,
    )


def _carried(data: mjx.Data) -> Physics:
    """The fields of the data that are carried from step to step."""
    return Physics(**{field: getattr(data, field) for field in _CARRIED})


def _restore(blank: mjx.Data, physics: Physics) -> mjx.Data:
    """Data with the carried fields; the others are blank."""
    return blank.replace(**{field: getattr(physics, field) for field in _CARRIED})


def _home(model: mujoco.MjModel, blank: mjx.Data) -> mjx.Data:
    """Data at the first keyframe, or in the initial pose of a model without keyframes."""
    data = mujoco.MjData(model)
    if model.nkey:
        mujoco.mj_resetDataKeyframe(model, data, 0)
    values = {field: np.asarray(getattr(data, field), np.float32) for field in _CARRIED}
    return blank.replace(**{field: jnp.asarray(value) for field, value in values.items()})


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
    """Names of the actuators, or their numbers where they have none."""
    return [model.actuator(i).name or f"number {i}" for i in range(model.nu)]


def _substeps(name: str, period: float, timestep: float) -> int:
    """How many timesteps of the model make a control period."""
    count = round(period / timestep)
    if count < 1 or abs(count * timestep - period) > 1e-6 * period:
        raise UsageError(
            f"environment {name!r}: a control_period of {period:g} s is not a multiple of "
            f"the model's timestep, {timestep:g} s; change one of them."
        )
    return count


def _action_bounds(
    name: str, model: mujoco.MjModel
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The lower and upper ends of every actuator's `ctrlrange`."""
    if model.nu == 0:
        raise UsageError(f"environment {name!r}: its MJCF has no actuators; add one.")
    limited = zip(_actuators(model), model.actuator_ctrllimited, strict=True)
    unbounded = [actuator for actuator, is_limited in limited if not is_limited]
    if unbounded:
        raise UsageError(
            f"environment {name!r}: actuators need a ctrlrange in the MJCF, and there is "
            f"none for {', '.join(unbounded)}."
        )
    low, high = model.actuator_ctrlrange.T.tolist()
    return tuple(low), tuple(high)


def _put(name: str, model: mujoco.MjModel) -> mjx.Model:
    """The model for MJX.

    Raises:
      UsageError: it uses a feature that MJX lacks; the message names the feature.
    """
    try:
        placed = mjx.put_model(model, impl="jax")
        jax.eval_shape(lambda: mjx.step(placed, mjx.make_data(placed)))
    except NotImplementedError as error:
        feature = re.sub(
            r"<?(mjt\w+)\.(mj\w+)(: \d+>)?",
            lambda match: _named(model, match[1], match[2]),
            str(error),
        )
        raise UsageError(
            f"environment {name!r}: its MJCF uses what MJX cannot simulate: "
            f"{feature.rstrip('.')}; replace it in the MJCF."
        ) from None
    return placed


# Enumeration -> the array of a model that holds its values, and the kind of its elements.
_USERS = {
    "mjtGeom": ("geom_type", mujoco.mjtObj.mjOBJ_GEOM),
    "mjtSensor": ("sensor_type", mujoco.mjtObj.mjOBJ_SENSOR),
    "mjtEq": ("eq_type", mujoco.mjtObj.mjOBJ_EQUALITY),
    "mjtBias": ("actuator_biastype", mujoco.mjtObj.mjOBJ_ACTUATOR),
    "mjtDyn": ("actuator_dyntype", mujoco.mjtObj.mjOBJ_ACTUATOR),
    "mjtGain": ("actuator_gaintype", mujoco.mjtObj.mjOBJ_ACTUATOR),
    "mjtTrn": ("actuator_trntype", mujoco.mjtObj.mjOBJ_ACTUATOR),
}


def _named(model: mujoco.MjModel, enumeration: str, member: str) -> str:
    """Words for a feature and its users: mjSENS_USER is "sensor user (of gps)"."""
    words = f"{enumeration.removeprefix('mjt')} {member.partition('_')[2]}".lower()
    if enumeration not in _USERS:
        return words
    array, kind = _USERS[enumeration]
    value = int(getattr(getattr(mujoco, enumeration), member))
    ids = np.flatnonzero(getattr(model, array) == value)
    named = [mujoco.mj_id2name(model, kind, int(i)) for i in ids]
    return f"{words} (of {', '.join(filter(None, named))})" if any(named) else words


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
    return traced(name, role, function, *inputs, given=given)


def _check_reset(name: str, reset: Callable | None, home: mjx.Data) -> None:
    if reset is None:
        return
    data = _traced(name, "reset", reset, jax.random.key(0), home)
    if not isinstance(data, mjx.Data):
        raise UsageError(
            f"environment {name!r}: reset must return its data with qpos and qvel "
            f"replaced, not {_described(data)}."
        )
    for field in _CARRIED:
        before, after = getattr(home, field), getattr(data, field)
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


def _check_recover(name: str, recover: Callable | None, obs: Any, home: mjx.Data) -> None:
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
