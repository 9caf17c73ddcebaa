"""MuJoCo in JAX as pure functions, part of the compiled program.

From step to step the environment carries `Physics`, and nothing else of the data. XLA
computes only the fields that a function reads.

Source: MuJoCo XLA, https://mujoco.readthedocs.io/en/stable/mjx.html.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from planil_jax.base import UsageError
from planil_jax.envs.engines import Engine
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
    # those of SETTABLE that a `reset` sets; they stay as they are, but for the time
    extra: dict[str, jax.Array] = struct.field(default_factory=dict)


CARRIED = tuple(field for field in Physics.__dataclass_fields__ if field != "extra")
# Further fields that a `reset` may set.
SETTABLE = ("time", "qfrc_applied", "xfrc_applied", "eq_active", "userdata")


def make(
    name: str,
    model: mujoco.MjModel,
    substeps: int,
    control_period: float,
    extra: Iterable[str] = (),
) -> Engine:
    """The engine of a model.

    Args:
      name: of the environment, for messages.
      substeps: of MuJoCo in a control step.
      control_period: of a control step, seconds.
      extra: fields of SETTABLE that are carried too.

    Raises:
      UsageError: MJX cannot simulate the model; the message names the feature.
    """
    placed = _put(name, model)
    blank = mjx.make_data(placed)
    extra = tuple(extra)

    def carried(data: mjx.Data) -> Physics:
        fields = {field: getattr(data, field) for field in CARRIED}
        return Physics(**fields, extra={field: getattr(data, field) for field in extra})

    def restored(physics: Physics) -> mjx.Data:
        fields = {field: getattr(physics, field) for field in CARRIED}
        return blank.replace(**fields, **physics.extra)

    def step(physics: Physics, ctrl: jax.Array) -> Physics:
        def substep(physics: Physics, _) -> tuple[Physics, None]:
            after = carried(mjx.step(placed, restored(physics)))
            return replace(after, extra=physics.extra), None

        return jax.lax.scan(substep, replace(physics, ctrl=ctrl), length=substeps)[0]

    def data(physics: Physics, time: jax.Array) -> mjx.Data:
        """The whole data, computed from the carried fields."""
        data = restored(physics)
        seconds = control_period * time.astype(jnp.float32)
        seconds += physics.extra.get("time", 0.0)
        data = mjx.forward(placed, data.replace(time=seconds))
        return mjx.sensor_acc(placed, data)  # forward omits it without constraints

    return Engine(_home(model, blank), carried, step, data)


def set_by(reset: Callable, home: mjx.Data) -> tuple[str, ...]:
    """The fields of SETTABLE that a reset returns other than it was given them."""
    found: list[str] = []

    def watched(key: jax.Array, data: mjx.Data) -> None:
        after = reset(key, data)
        found.extend(
            field for field in SETTABLE if getattr(after, field) is not getattr(data, field)
        )

    jax.eval_shape(watched, jax.random.key(0), home)
    return tuple(found)


def _home(model: mujoco.MjModel, blank: mjx.Data) -> mjx.Data:
    """Data at the first keyframe, or in the initial pose of a model without keyframes."""
    data = mujoco.MjData(model)
    if model.nkey:
        mujoco.mj_resetDataKeyframe(model, data, 0)
    values = {field: np.asarray(getattr(data, field), np.float32) for field in CARRIED}
    return blank.replace(**{field: jnp.asarray(value) for field, value in values.items()})


# Sizes and options of a model that MJX takes and does not heed -> what they are.
_IGNORED = {
    "nhistory": "delays of actuators or sensors",
    "nplastic": "springs that yield",
}


def _put(name: str, model: mujoco.MjModel) -> mjx.Model:
    """The model for MJX.

    Raises:
      UsageError: it uses a feature that MJX lacks; the message names the feature.
    """
    ignored = [what for size, what in _IGNORED.items() if getattr(model, size, 0)]
    if model.opt.noslip_iterations:
        ignored.append("noslip_iterations")
    if ignored:
        raise UsageError(
            f"environment {name!r}: its MJCF has {' and '.join(ignored)}, which MJX would "
            "leave out: choose engine=c, or take them out of the MJCF."
        )
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
            f"{feature.rstrip('.')}; choose engine=c, or replace it in the "
            "MJCF."
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
