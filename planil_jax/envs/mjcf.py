"""A robot of your own: an environment from an MJCF model and a few small functions, on MJX.

    data' = MuJoCo(data, action), repeated until the control period is over
    obs = observe(data'),  reward(data, action, data'),  terminal(data')

The action is what the model's actuators take, within their `ctrlrange`. Every function is
given a whole `mjx.Data`, with positions, velocities, sensors and forces all of that one
moment; what no function reads is not computed. From step to step only the simulator's own
state is carried.

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
from mujoco import mjx

from planil_jax.base import Dynamics, Environment, EnvSpec, EnvState, Transition, UsageError


@struct.dataclass
class Physics:
    """What MuJoCo carries from one control step to the next; float32."""

    qpos: jax.Array  # [nq] positions, metres and radians
    qvel: jax.Array  # [nv] velocities
    act: jax.Array  # [na] states of the actuators
    ctrl: jax.Array  # [nu] the last action
    mocap_pos: jax.Array  # [nmocap, 3] bodies that are placed, not simulated
    mocap_quat: jax.Array  # [nmocap, 4]
    qacc_warmstart: jax.Array  # [nv] where the solver begins


_CARRIED = tuple(Physics.__dataclass_fields__)


def load(
    xml: str, mass: float = 1.0, friction: float = 1.0, gravity: float = 1.0
) -> mujoco.MjModel:
    """Compiles an MJCF model; scale factors make a robot that differs from its model.

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
    """A copy of a model with other physics, and the constants that follow from them.

    Args:
      model: stays as it is.
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
    mass: float = 1.0,
    friction: float = 1.0,
    gravity: float = 1.0,
) -> Environment:
    """An environment whose physics is an MJCF model.

    Args:
      name: of the environment, in messages and files.
      xml: path of a file that ends in ".xml", MJCF text, or a model of `load`, which is
        copied.
      observe: (data) -> `[O]`, what an agent may see.
      observation_names: one an entry of the observation, with its unit.
      control_period: seconds that an action is held; a multiple of the model's timestep.
      reset: (key, data) -> data with `qpos`, `qvel` and whatever else is carried (see
        `Physics`) replaced. It is given the model's first keyframe, or else its initial
        pose; without it every episode starts there.
      reward: (data, action `[U]` within its bounds, next_data) -> []; 0 without it.
      terminal: (next_data) -> [] bool, the task is over; never without it.
      episode_length: control steps until truncation.
      prior, expert_cost, success: as in `base.Environment`.
      mass, friction, gravity: scale factors, as for `load`; of an MJCF file or text alone.

    Raises:
      UsageError: the model is missing, faulty or more than MJX can simulate, the control
        period is no multiple of its timestep, an actuator has no `ctrlrange`, or a function
        returns something else than is stated here.
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
    substeps = _substeps(name, control_period, model.opt.timestep)
    low, high = _action_bounds(name, model)
    spec = EnvSpec(
        name=name,
        observation_names=tuple(observation_names),
        action_low=low,
        action_high=high,
        episode_length=episode_length,
        control_period=control_period,
        terminates=terminal is not None,
    )
    model_mjx = _put(name, model)
    blank = mjx.make_data(model_mjx)
    home = _home(model, blank)

    def whole(physics: Physics, time: jax.Array) -> mjx.Data:
        """All of the data that follows from what is carried."""
        data = _restore(blank, physics)
        data = data.replace(time=control_period * time.astype(jnp.float32))
        data = mjx.forward(model_mjx, data)
        return mjx.sensor_acc(model_mjx, data)  # forward omits it without constraints

    def settle(physics: Physics, time: jax.Array) -> tuple[EnvState, mjx.Data]:
        data = whole(physics, time)
        obs = jnp.asarray(observe(data), jnp.float32)
        return EnvState(sim=physics, obs=obs, time=time), data

    def start(key: jax.Array) -> EnvState:
        data = home if reset is None else reset(key, home)
        return settle(_carried(data), jnp.zeros((), jnp.int32))[0]

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        ctrl = jnp.clip(jnp.asarray(action, jnp.float32), jnp.array(low), jnp.array(high))

        def substep(physics: Physics, _) -> tuple[Physics, None]:
            return _carried(mjx.step(model_mjx, _restore(blank, physics))), None

        physics = state.sim.replace(ctrl=ctrl)
        physics = jax.lax.scan(substep, physics, length=substeps)[0]
        following, data = settle(physics, state.time + 1)
        rewarded = jnp.zeros((), jnp.float32)
        if reward is not None:
            before = whole(state.sim, state.time)
            rewarded = jnp.asarray(reward(before, ctrl, data), jnp.float32)
        ended = jnp.zeros((), bool) if terminal is None else jnp.asarray(terminal(data))
        transition = Transition(
            obs=state.obs,
            action=action,
            next_obs=following.obs,
            reward=rewarded,
            terminal=ended,
            truncated=following.time >= episode_length,
        )
        return following, transition

    data = jax.eval_shape(lambda: mjx.forward(model_mjx, home))
    obs = jax.ShapeDtypeStruct((spec.observation_size,), np.float32)
    act = jax.ShapeDtypeStruct((spec.action_size,), np.float32)
    _check_reset(name, reset, home)
    _check_observe(name, observe, data, spec.observation_names)
    _check_scalar(name, "reward", float, reward, data, act, data)
    _check_scalar(name, "terminal", bool, terminal, data)
    _check_scalar(name, "expert_cost", float, expert_cost, obs, act, obs)
    _check_scalar(name, "success", bool, success, obs)
    return Environment(spec, start, step, prior, expert_cost, success)


def _carried(data: mjx.Data) -> Physics:
    return Physics(**{field: getattr(data, field) for field in _CARRIED})


def _restore(blank: mjx.Data, physics: Physics) -> mjx.Data:
    return blank.replace(**{field: getattr(physics, field) for field in _CARRIED})


def _home(model: mujoco.MjModel, blank: mjx.Data) -> mjx.Data:
    """Data at the first keyframe, or else at the model's initial pose."""
    data = mujoco.MjData(model)
    if model.nkey:
        mujoco.mj_resetDataKeyframe(model, data, 0)
    values = {field: np.asarray(getattr(data, field), np.float32) for field in _CARRIED}
    return blank.replace(**{field: jnp.asarray(value) for field, value in values.items()})


def _compile(xml: str) -> mujoco.MjModel:
    is_file = xml.endswith(".xml")
    if not is_file and "<" not in xml:
        raise UsageError(
            "an MJCF model is the path of a file that ends in .xml, or MJCF text, "
            f"not {xml!r}."
        )
    where = xml if is_file else "the MJCF text"
    try:
        if is_file:
            with open(xml, "rb"):  # MuJoCo's own message for an absent file says less
                pass
            return mujoco.MjModel.from_xml_path(xml)
        return mujoco.MjModel.from_xml_string(xml)
    except OSError as error:
        raise UsageError(f"cannot read {where}: {error.strerror}.") from None
    except ValueError as error:
        reason = ", ".join(str(error).removeprefix("Error: ").split("\n")).rstrip(" ,.")
        raise UsageError(f"MuJoCo cannot compile {where}: {reason}.") from None


def _substeps(name: str, period: float, timestep: float) -> int:
    count = round(period / timestep)
    if count < 1 or abs(count * timestep - period) > 1e-6 * period:
        raise UsageError(
            f"environment {name!r}: a control_period of {period:g} s is no multiple of the "
            f"model's timestep, {timestep:g} s; change either."
        )
    return count


def _action_bounds(
    name: str, model: mujoco.MjModel
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if model.nu == 0:
        raise UsageError(f"environment {name!r}: its MJCF has no actuators; add one.")
    unbounded = [
        model.actuator(i).name or f"number {i}"
        for i in range(model.nu)
        if not model.actuator_ctrllimited[i]
    ]
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
      UsageError: it uses what MJX lacks; the message names it.
    """
    try:
        placed = mjx.put_model(model, impl="jax")
        jax.eval_shape(lambda: mjx.step(placed, mjx.make_data(placed)))
    except NotImplementedError as error:
        lacking = re.sub(
            r"<?(mjt\w+)\.(mj\w+)(: \d+>)?",
            lambda match: _named(model, match[1], match[2]),
            str(error),
        )
        raise UsageError(
            f"environment {name!r}: its MJCF uses what MJX cannot simulate: "
            f"{lacking.rstrip('.')}; replace it in the MJCF."
        ) from None
    return placed


# Enumeration -> the arrays of a model that hold its values, and what they belong to.
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
    """Words for mjtSensor.mjSENS_USER and who uses it: "sensor user (of gps)"."""
    words = f"{enumeration.removeprefix('mjt')} {member.partition('_')[2]}".lower()
    if enumeration not in _USERS:
        return words
    array, kind = _USERS[enumeration]
    value = int(getattr(getattr(mujoco, enumeration), member))
    ids = np.flatnonzero(getattr(model, array) == value)
    named = [mujoco.mj_id2name(model, kind, int(i)) for i in ids]
    return f"{words} (of {', '.join(filter(None, named))})" if any(named) else words


def _check_reset(name: str, reset: Callable | None, home: mjx.Data) -> None:
    if reset is None:
        return
    told = jax.eval_shape(reset, jax.random.key(0), home)
    if not isinstance(told, mjx.Data):
        raise UsageError(
            f"environment {name!r}: reset must return the data that it is given, with qpos "
            f"and qvel replaced, not {_described(told)}."
        )
    for field in _CARRIED:
        wanted, got = getattr(home, field), getattr(told, field)
        if got.shape != wanted.shape or got.dtype != wanted.dtype:
            raise UsageError(
                f"environment {name!r}: reset must leave {field} "
                f"{_described(wanted)}, and returned {_described(got)}."
            )


def _check_observe(
    name: str, observe: Callable, data: mjx.Data, names: tuple[str, ...]
) -> None:
    told = jax.eval_shape(observe, data)
    shape = getattr(told, "shape", None)
    if shape is not None and len(shape) == 1 and shape != (len(names),):
        raise UsageError(
            f"environment {name!r}: observe returned {shape[0]} entries and there are "
            f"{len(names)} observation_names; give each entry a name."
        )
    _require(name, "observe", told, (len(names),), float)


def _check_scalar(
    name: str, role: str, kind: type, function: Callable | None, *arguments: Any
) -> None:
    if function is not None:
        _require(name, role, jax.eval_shape(function, *arguments), (), kind)


def _require(name: str, role: str, told: Any, shape: tuple[int, ...], kind: type) -> None:
    """Holds what a function returned against what it should: a shape, numbers or a bool."""
    wanted = jax.ShapeDtypeStruct(shape, np.bool_ if kind is bool else np.float32)
    fits = isinstance(told, jax.ShapeDtypeStruct) and told.shape == shape
    if not fits or (told.dtype == np.bool_) != (kind is bool):
        raise UsageError(
            f"environment {name!r}: {role} must return {_described(wanted)}, not "
            f"{_described(told)}."
        )


def _described(told: Any) -> str:
    if hasattr(told, "shape"):
        return f"an array of shape {told.shape} and type {told.dtype}"
    return f"a {type(told).__name__}"
