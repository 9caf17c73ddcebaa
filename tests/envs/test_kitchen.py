"""The kitchen: its arm's lengths and its demonstrator's success, on MuJoCo in C."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.envs import kitchen
from planil_jax.evaluation import expert_policies

READY = np.array(kitchen._READY)


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return kitchen.model()


def placed(model, joints) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos[:7] = joints
    mujoco.mj_forward(model, data)
    return data


def test_the_arm_has_the_lengths_of_its_table(model):
    """Stretched upwards the flange's axis is at 0.333 + 0.316 + 0.384 m, less a finger that
    hangs beside it by 0.088 m."""
    tip = placed(model, np.zeros(7)).site("tip").xpos
    np.testing.assert_allclose(tip, [0.088, 0.0, 1.033 - kitchen._FINGER[1]], atol=1e-9)


def test_the_finger_points_down_along_the_demonstration(model):
    for joints in kitchen.demonstration()[::5]:
        axis = placed(model, joints).site("tip").xmat.reshape(3, 3)[:, 2]
        assert axis[2] < -0.95


def test_the_demonstration_is_within_the_action_bounds():
    path = kitchen.demonstration()
    assert np.abs(np.diff(path, axis=0)).max() < 1.0 * kitchen.PERIOD
    assert len(path) <= kitchen.LENGTH


def driven(model, actions) -> np.ndarray:
    """Positions `[T, 10]` of all joints under actions, on MuJoCo in C."""
    data = placed(model, READY)
    data.act[:] = READY
    data.qpos[-1] = kitchen._LIGHT
    positions, steps = [], round(kitchen.PERIOD / model.opt.timestep)
    for action in actions:
        data.ctrl[:] = action
        for _ in range(steps):
            mujoco.mj_step(model, data)
        positions.append(data.qpos.copy())
    return np.array(positions)


def test_the_demonstrator_does_all_subtasks_and_zero_actions_do_none(model):
    velocities = np.diff(kitchen.demonstration(), axis=0) / kitchen.PERIOD
    done = np.asarray(kitchen.solved(jnp.asarray(driven(model, velocities))))
    assert not done[0].any() and done[-1].all()
    first = done.argmax(axis=0)
    assert first[0] < first[1] < first[2]
    idle = driven(model, np.zeros((40, 7)))
    assert not np.asarray(kitchen.solved(jnp.asarray(idle))).any()
    np.testing.assert_allclose(idle[-1, :7], READY, atol=0.02)  # nothing sags


def test_in_c_the_demonstrator_succeeds_in_the_environment_itself():
    env = envs.make("kitchen", engine="c")

    def drive(key):
        def step(state, _):
            state, transition = env.step(state, env.demonstrator(state))
            return state, (transition.reward, env.success(transition.next_obs))

        return jax.lax.scan(step, env.reset(key), length=kitchen.LENGTH)[1]

    keys = jax.random.split(jax.random.key(0), 4)
    reward, success = jax.jit(jax.vmap(drive))(keys)
    assert success[:, -1].all() and not success[:, 0].any()
    np.testing.assert_array_equal(reward[:, -1], 3.0)


def test_episodes_start_in_the_documented_pose():
    """Its steps and pictures are driven by a command; MJX takes long to compile."""
    env = envs.make("kitchen", wobble=0.1)
    states = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 8))
    off = np.abs(np.asarray(states.obs[:, :7]) - READY)
    assert 0.02 < off.max() <= 0.1
    np.testing.assert_allclose(states.sim.act, states.obs[:, :7], atol=1e-6)
    assert not np.asarray(kitchen.solved(states.obs)).any()
    moved = states.replace(obs=states.obs.at[:, -2].set(kitchen.WANTED[1]))
    assert env.subtasks.names[1] == "cabinet"
    assert env.subtasks.done(moved).tolist() == [[False, True, False]] * 8
    expert = expert_policies.make_expert("kitchen", env)
    one = jax.tree.map(lambda leaf: leaf[0], states)
    action, _ = expert.act((), (), one, jax.random.key(0), False)
    assert action.shape == (7,) and np.abs(action).max() <= 1.0
    assert envs.make("kitchen:tremble=0.1").demonstrator is not None
