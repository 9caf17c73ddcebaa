"""Ant's forces on MJX against MuJoCo in C, and where they differ."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from mujoco import mjx

from planil_jax.envs import gym_robots

pytest.importorskip("gymnasium")
STEPS = 60  # an episode
FLATTEST = 0.5  # sine of a capsule's tilt below which MJX turns its friction pyramid


def touching(model: mujoco.MjModel, data: mujoco.MjData) -> float:
    """Sine of the angle to the vertical of the steepest capsule on the ground."""
    capsule = mujoco.mjtGeom.mjGEOM_CAPSULE
    found = [
        np.linalg.norm(data.geom_xmat[geom].reshape(3, 3)[:2, 2])
        for geom in (data.contact[i].geom[1] for i in range(data.ncon))
        if model.geom_type[geom] == capsule
    ]
    return min(found, default=1.0)


def test_ant_departs_from_mujoco_in_c_where_a_steep_capsule_touches_and_nowhere_else():
    """In C a tangent of the contact lies along the capsule; in MJX only below 60°."""
    model = gym_robots.load("Ant", "ant.xml")
    forward = jax.jit(mjx.forward)
    placed, blank = mjx.put_model(model), mjx.make_data(model)
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    errors, tilts = [], []
    for _ in range(2):
        mujoco.mj_resetData(model, data)
        data.qpos[7:] += rng.uniform(-0.1, 0.1, 8)
        for _ in range(STEPS):
            data.ctrl[:] = rng.uniform(-1, 1, 8)
            mujoco.mj_forward(model, data)
            here = {
                name: jnp.asarray(getattr(data, name), jnp.float32)
                for name in ("qpos", "qvel", "ctrl", "qacc_warmstart")
            }
            found = forward(placed, blank.replace(**here)).qacc
            errors.append(np.abs(found - data.qacc).max() / np.abs(data.qacc).max())
            tilts.append(touching(model, data))
            mujoco.mj_step(model, data, 5)
    errors, steep = np.array(errors), np.array(tilts) < FLATTEST
    assert 5 <= steep.sum() <= len(steep) - 20
    assert errors[~steep].max() < 0.01
    assert errors[steep].max() > 0.05
