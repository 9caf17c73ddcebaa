"""A kitchen: an arm opens a microwave and a cabinet, and turns on a light.

A seven-joint arm with the proportions of a Franka Panda stands in front of three appliances
with one joint each. Its hand is a finger that points down and hooks behind their handles.
Only finger and handles collide.

Observation: angles of the arm's 7 joints (rad), microwave door (rad), cabinet door (m) and
light switch (rad). Velocities and servo targets are not observed, so there is no `recover`.
Action: velocities of the 7 joints in [-1, 1] rad/s, held for 0.1 s.
Reward: the number of appliances that are done, 0 to 3: door open by 0.6 rad, cabinet by
0.15 m, switch turned by 0.3 rad. Each is a subtask; success is all three.
End: by time alone, after 130 steps.

    x away from the arm, y to its left, z up, metres; the fronts of the appliances at x =
    0.62

The demonstrator leads the finger along waypoints. Inverse kinematics turns them into joint
angles once, when the environment is made.

Source: the task class of Franka Kitchen, Gupta et al. 2019, arXiv 1910.11956; the arm's
lengths and limits after the maker's Denavit-Hartenberg table.
Departures: a finger for a hand, and three appliances with light joints.
"""

import functools
import math

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from planil_jax.base import Environment, EnvState, Subtasks
from planil_jax.envs import mjcf
from planil_jax.envs.quiet import mjx
from planil_jax.envs.wrappers import innermost

PERIOD = 0.1  # seconds
LENGTH = 130  # control steps
# Denavit-Hartenberg parameters (Craig) of each joint: a and d in metres, α in radians; and
# the range of its angle.
_ARM = (
    (0.0, 0.333, 0.0, (-2.89, 2.89)),
    (0.0, 0.0, -math.pi / 2, (-1.76, 1.76)),
    (0.0, 0.316, math.pi / 2, (-2.89, 2.89)),
    (0.0825, 0.0, math.pi / 2, (-3.07, -0.07)),
    (-0.0825, 0.384, -math.pi / 2, (-2.89, 2.89)),
    (0.0, 0.0, math.pi / 2, (-0.01, 3.75)),
    (0.088, 0.0, math.pi / 2, (-2.89, 2.89)),
)
_READY = (0.0, -0.9, 0.0, -2.5, 0.0, 1.6, 0.785)  # joint angles at a reset, radians
_FINGER = (0.10, 0.22)  # both ends of the finger on the axis of the last joint, metres
# The appliances, and how far each has to be moved: [rad], [m], [rad].
APPLIANCES = ("microwave", "cabinet", "light")
WANTED = (0.6, 0.15, 0.3)
NAMES = (
    *(f"joint {n + 1} [rad]" for n in range(len(_ARM))),
    "microwave [rad]",
    "cabinet [m]",
    "light [rad]",
)
_HINGE = (0.62, -0.45)  # x and y of the microwave's hinge, metres
_BAR = (-0.06, 0.31)  # x and y of its handle relative to the hinge, metres
_LIGHT = -0.35  # angle of the switch when the light is off, radians


def make(
    episode_length: int = LENGTH, wobble: float = 0.05, engine: str = "auto"
) -> Environment:
    """The kitchen.

    Args:
      episode_length: control steps of 0.1 s.
      wobble: half width of the uniform noise on the arm's joints at a reset, radians.
      engine: of the physics, see `envs.engines`.
    """
    arm = len(_ARM)

    def reset(key: jax.Array, data: mjx.Data) -> mjx.Data:
        noise = jax.random.uniform(key, (arm,), minval=-wobble, maxval=wobble)
        joints = jnp.asarray(_READY) + noise
        qpos = jnp.concatenate([joints, jnp.array([0.0, 0.0, _LIGHT])])
        return data.replace(qpos=qpos, act=joints)

    env = mjcf.make(
        "kitchen",
        model(),
        lambda data: data.qpos,
        NAMES,
        control_period=PERIOD,
        reset=reset,
        reward=lambda data, action, next_data: jnp.sum(
            solved(next_data.qpos), dtype=jnp.float32
        ),
        episode_length=episode_length,
        success=lambda obs: jnp.all(solved(obs)),
        engine=engine,
    )
    return env._replace(
        demonstrator=functools.partial(_demonstrate, demonstration()),
        subtasks=Subtasks(APPLIANCES, lambda state: solved(innermost(state).obs)),
    )


def solved(obs: jax.Array) -> jax.Array:
    """Which appliances are done, `[..., 3]` bool, of observations `[..., 10]`."""
    moved = obs[..., -3:] - jnp.array([0.0, 0.0, _LIGHT])
    return moved >= jnp.asarray(WANTED)


def _demonstrate(path: np.ndarray, state: EnvState) -> jax.Array:
    """The action `[7]` that follows a path of joint angles `[T + 1, 7]` in time."""
    angles = jnp.asarray(path, jnp.float32)
    next_angles = angles[jnp.minimum(state.time + 1, len(path) - 1)]
    # `act` is the position that the servos are at.
    return jnp.clip((next_angles - state.sim.act) / PERIOD, -1.0, 1.0)


# ------------------------------------------------------------------------- demonstrations


@functools.cache
def demonstration() -> np.ndarray:
    """Joint angles `[T + 1, 7]` along the waypoints, one row a control step.

    The path is slowed down where a joint would turn faster than 0.8 rad/s.
    """
    angles = _angles(_path())
    turns = np.abs(np.diff(angles, axis=0)).max(axis=1) / (0.8 * PERIOD)
    when = np.concatenate([[0.0], np.cumsum(np.maximum(turns, 1.0))])  # control steps
    steps = np.arange(math.ceil(when[-1]) + 1)
    return np.stack([np.interp(steps, when, joint) for joint in angles.T], axis=1)


def _path() -> np.ndarray:
    """The path of the fingertip, `[T + 1, 3]` metres, at no more than 0.3 m/s."""
    x, y = _HINGE
    points = [
        (0.28, 0.0, 0.45),
        (0.50, -0.14, 0.50),
        (x - 0.03, y + 0.31, 0.48),
        (x - 0.03, y + 0.31, 0.30),
    ]
    radius, start = math.hypot(0.03, 0.31), math.atan2(0.31, -0.03)
    for turn in np.linspace(0.0, 0.85, 12)[1:]:
        angle = start + turn
        points.append((x + radius * math.cos(angle), y + radius * math.sin(angle), 0.30))
    px, py, _ = points[-1]
    points += [(px + 0.03, py + 0.02, 0.34), (px + 0.03, py + 0.02, 0.55)]
    points += [(0.56, -0.03, 0.66), (0.56, -0.03, 0.52), (0.56, 0.23, 0.52)]
    points += [(0.50, 0.20, 0.52), (0.50, 0.30, 0.40), (0.555, 0.30, 0.32)]
    points += [(0.555, 0.43, 0.32), (0.50, 0.40, 0.40)]
    path = [np.array(points[0])]
    for a, b in zip(points[:-1], points[1:], strict=True):
        count = max(1, math.ceil(math.dist(a, b) / (0.3 * PERIOD)))
        path += [np.array(a) + (np.subtract(b, a)) * k / count for k in range(1, count + 1)]
    return np.array(path)


def _angles(path: np.ndarray) -> np.ndarray:
    """Joint angles `[T, 7]` of a path of the fingertip `[T, 3]`; the finger points down.

    Inverse kinematics by damped least squares from row to row. The null space is used to
    stay near the initial pose.
    """
    kitchen = model()
    data, tip = mujoco.MjData(kitchen), kitchen.site("tip").id
    translation, rotation = np.zeros((3, kitchen.nv)), np.zeros((3, kitchen.nv))
    joints, found = np.array(_READY), []
    low, high = np.array([limits for *_, limits in _ARM]).T
    for point in path:
        for _ in range(50):
            data.qpos[:7] = joints
            mujoco.mj_kinematics(kitchen, data)
            mujoco.mj_comPos(kitchen, data)
            mujoco.mj_jacSite(kitchen, data, translation, rotation, tip)
            down = np.cross(data.site_xmat[tip].reshape(3, 3)[:, 2], [0.0, 0.0, -1.0])
            error = np.concatenate([point - data.site_xpos[tip], 0.3 * down[:2]])
            jacobian = np.concatenate([translation[:, :7], 0.3 * rotation[:2, :7]])
            damped = jacobian @ jacobian.T + 1e-3 * np.eye(5)
            inverse = jacobian.T @ np.linalg.inv(damped)
            rest = 0.02 * (np.array(_READY) - joints)
            step = inverse @ error + rest - inverse @ (jacobian @ rest)
            joints = np.clip(joints + np.clip(step, -0.05, 0.05), low, high)
        found.append(joints)
    return np.array(found)


# ---------------------------------------------------------------------------------- model


@functools.cache
def model() -> mujoco.MjModel:
    """The MuJoCo model of the kitchen."""
    return mjcf.load(_xml())


def _xml() -> str:
    """The MJCF text of the kitchen."""
    links, closing, actuators = [], [], []
    for n, (a, d, alpha, (low, high)) in enumerate(_ARM):
        x, y, z = a, -math.sin(alpha) * d, math.cos(alpha) * d
        if n and math.dist((x, y, z), (0, 0, 0)) > 0.01:
            links.append(
                f'<geom type="capsule" size="0.05" mass="1.5" fromto="0 0 0 {x} {y} {z}"/>'
            )
        links.append(
            f'<body name="link{n + 1}" pos="{x} {y} {z}" euler="{alpha} 0 0" gravcomp="1">'
            f'<joint name="joint{n + 1}" class="arm" range="{low} {high}"/>'
            '<geom type="sphere" size="0.06" mass="0.8"/>'
        )
        closing.append("</body>")
        actuators.append(
            f'<intvelocity joint="joint{n + 1}" kp="400" actrange="{low} {high}" '
            'ctrlrange="-1 1"/>'
        )
    near, far = _FINGER
    links.append(
        f'<geom type="capsule" size="0.045" mass="0.5" fromto="0 0 0 0 0 {near - 0.02}"/>'
        f'<geom class="finger" fromto="0 0 {near} 0 0 {far}"/>'
        f'<site name="tip" pos="0 0 {far}"/>'
    )
    x, y = _HINGE
    bx, by = _BAR
    return f"""
<mujoco model="kitchen">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="0.01" integrator="implicitfast" cone="pyramidal" solver="Newton"
          iterations="4" ls_iterations="6" jacobian="dense"/>
  <statistic center="0.4 0 0.4" extent="1.2"/>
  <visual><headlight ambient="0.4 0.4 0.4" diffuse="0.5 0.5 0.5"/></visual>
  <default>
    <geom contype="0" conaffinity="0" rgba="0.9 0.9 0.92 1"/>
    <default class="arm"><joint axis="0 0 1" damping="40" armature="0.3"/></default>
    <default class="finger">
      <geom type="capsule" size="0.012" mass="0.1" contype="1" friction="0.3"
            rgba="0.1 0.1 0.1 1"/>
    </default>
    <default class="handle">
      <geom type="capsule" size="0.01" mass="0.1" conaffinity="1" friction="0.3"
            rgba="0.15 0.3 0.75 1"/>
    </default>
  </default>
  <worldbody>
    <light pos="0 0 2.5" dir="0.3 0 -1" directional="true" diffuse="0.4 0.4 0.4"/>
    <camera name="front" pos="-0.55 -0.75 1.15" mode="targetbody" target="middle"/>
    <body name="middle" pos="0.5 -0.02 0.38"/>
    <geom type="plane" size="2 2 0.1" rgba="0.55 0.5 0.45 1"/>
    <geom type="box" size="0.05 0.9 0.5" pos="0.95 0 0.5" rgba="0.8 0.75 0.65 1"/>
    <geom type="cylinder" size="0.08 0.1" pos="0 0 0.1"/>
    <geom type="capsule" size="0.06" fromto="0 0 0.1 0 0 0.3"/>
    {"".join(links)}{"".join(closing)}
    <geom type="box" size="0.12 0.18 0.10" pos="0.76 -0.28 0.31" rgba="0.3 0.3 0.33 1"/>
    <body name="microwave" pos="{x} {y} 0.31">
      <joint name="microwave" type="hinge" axis="0 0 1" range="0 1.3" damping="1"
             frictionloss="0.1" armature="0.05"/>
      <geom type="box" size="0.01 0.17 0.10" pos="0 0.17 0" mass="0.8"
            rgba="0.75 0.25 0.2 1"/>
      <geom class="handle" fromto="{bx} {by} -0.08 {bx} {by} 0.08"/>
      <geom type="capsule" size="0.006" mass="0.02" fromto="0 {by} -0.08 {bx} {by} -0.08"/>
    </body>
    <geom type="box" size="0.12 0.25 0.10" pos="0.76 0.12 0.56" rgba="0.45 0.35 0.25 1"/>
    <body name="cabinet" pos="{x} 0.05 0.56">
      <joint name="cabinet" type="slide" axis="0 1 0" range="0 0.25" damping="15"
             frictionloss="0.5" armature="0.5"/>
      <geom type="box" size="0.01 0.10 0.10" pos="0 0.04 0" mass="0.8"
            rgba="0.85 0.65 0.2 1"/>
      <geom class="handle" fromto="-0.06 0 -0.07 -0.06 0 0.07"/>
      <geom type="capsule" size="0.006" mass="0.02" fromto="0 0 -0.07 -0.06 0 -0.07"/>
    </body>
    <geom type="box" size="0.01 0.05 0.06" pos="{x + 0.03} 0.37 0.32"/>
    <body name="light" pos="{x + 0.02} 0.37 0.32">
      <joint name="light" type="hinge" axis="0 0 -1" range="-0.5 0.5" damping="0.2"
             frictionloss="0.1" armature="0.01"/>
      <geom class="handle" fromto="0 0 0 -0.10 0 0" rgba="0.2 0.65 0.3 1"/>
    </body>
  </worldbody>
  <actuator>{"".join(actuators)}</actuator>
</mujoco>
"""
