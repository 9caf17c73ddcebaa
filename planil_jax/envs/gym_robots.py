"""The robots of Gymnasium's MuJoCo tasks, from its files."""

from importlib import resources

import mujoco

from planil_jax.base import missing_extra
from planil_jax.envs.mjcf import scale_physics


def load(
    task: str, file: str, mass: float = 1.0, friction: float = 1.0, gravity: float = 1.0
) -> mujoco.MjModel:
    """The robot of a task, with factors as of `mjcf.load`.

    Raises:
      UserError: Gymnasium's files are not installed.
    """
    try:
        folder = resources.files("gymnasium").joinpath("envs", "mujoco", "assets")
        text = folder.joinpath(file).read_text()
    except (ImportError, FileNotFoundError):
        raise missing_extra(
            f"environment 'gym/{task}'", "Gymnasium 1.0 or later", "gymnasium"
        ) from None
    model = mujoco.MjModel.from_xml_string(text)
    return scale_physics(model, mass, friction, gravity)


def names(model: mujoco.MjModel, *, hidden: int) -> tuple[str, ...]:
    """A name with its unit for each position but the first ones, and each velocity."""
    qpos, qvel = [], []
    for joint in range(model.njnt):
        name = model.joint(joint).name
        kind = model.jnt_type[joint]
        if kind == mujoco.mjtJoint.mjJNT_FREE:
            qpos += [f"{name} {axis} [m]" for axis in "xyz"]
            qpos += [f"{name} quaternion {axis}" for axis in "wxyz"]
            qvel += [f"{name} {axis} velocity [m/s]" for axis in "xyz"]
            qvel += [f"{name} {axis} turn [rad/s]" for axis in "xyz"]
        else:
            unit = "m" if kind == mujoco.mjtJoint.mjJNT_SLIDE else "rad"
            qpos.append(f"{name} [{unit}]")
            qvel.append(f"{name} velocity [{unit}/s]")
    return (*qpos[hidden:], *qvel)
