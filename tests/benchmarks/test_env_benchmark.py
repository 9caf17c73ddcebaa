import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from benchmarks import env as benchmark
from planil_jax import envs
from planil_jax.base import EnvState
from planil_jax.envs import gym_mjx, mjcf, pendulum

SLIDER = """
<mujoco><option timestep="0.01"/><worldbody><body><joint name="x" type="slide" axis="1 0 0"
damping="0.3"/><geom size="0.1" mass="2"/></body></worldbody><actuator><motor joint="x"
ctrlrange="-1 1" gear="3"/></actuator></mujoco>
"""


def setting(**changed):
    chosen = {"batch": 3, "steps": 4, "seconds": 0.0, "byte": 1e-3}
    return benchmark.Setting(**chosen | changed)


def test_the_scan_steps_every_environment_by_its_actions():
    env = pendulum.make(episode_length=3)
    starts, actions, _ = benchmark.inputs(env, setting())
    states, rewards, ends = jax.jit(benchmark.scan_of_steps(env))(starts, actions)
    for b in range(3):
        angle, speed = (float(leaf[b]) for leaf in (starts.sim.angle, starts.sim.speed))
        total = 0.0
        for torque in np.asarray(actions)[:, b, 0]:
            wrapped = (angle + np.pi) % (2 * np.pi) - np.pi
            total -= wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2
            speed = np.clip(speed + (15 * np.sin(angle) + 3 * torque) * 0.05, -8, 8)
            angle += speed * 0.05
        np.testing.assert_allclose(states.sim.angle[b], angle, rtol=1e-4)
        np.testing.assert_allclose(rewards[b], total, rtol=1e-4)
    assert ends.tolist() == [2, 2, 2]  # in the third step and in the fourth


def test_the_scan_of_resets_ends_with_the_states_of_the_last_keys():
    env = pendulum.make()
    starts, _, keys = benchmark.inputs(env, setting())
    states = jax.jit(benchmark.scan_of_resets(env))(starts, keys)
    expected = jax.vmap(env.reset)(keys[-1])
    np.testing.assert_allclose(states.obs, expected.obs, rtol=1e-6)
    assert not np.allclose(states.obs, starts.obs)


def test_a_row_counts_bytes_by_hand_and_needs_no_mujoco():
    row = benchmark.measure("pendulum", pendulum.make(), setting(byte=2.0))
    assert row["state_bytes"] == 4 * (2 + 3 + 1)  # angle and speed, obs, time
    assert row["floor_seconds"] == 3 * (2 * 24 + 4) * 2.0
    assert row["floor_share"] == pytest.approx(row["floor_seconds"] / row["step_seconds"])
    assert row["steps_per_second"] == pytest.approx(3 / row["step_seconds"])
    assert row["mujoco_steps_per_second"] is None
    assert " - " in benchmark.line(row)


@pytest.mark.parametrize("room", [1 << 26, 1])  # all steps in one call, or one a call
def test_mujoco_steps_from_the_same_starts_by_the_same_actions(room, monkeypatch):
    monkeypatch.setattr(benchmark, "OUTPUT_BYTES", room)
    model = mujoco.MjModel.from_xml_string(SLIDER)
    spec = pendulum.make().spec._replace(control_period=0.05)
    env = pendulum.make()._replace(spec=spec)
    physics = mjcf.Physics(
        qpos=jnp.array([[0.0], [2.0], [-1.0]]),
        qvel=jnp.array([[1.0], [0.0], [-3.0]]),
        **{
            name: jnp.zeros((3, 0))
            for name in ("act", "ctrl", "mocap_pos", "mocap_quat", "qacc_warmstart")
        },
    )
    starts = EnvState(sim=physics, obs=jnp.zeros((3, 1)), time=jnp.zeros((3,), jnp.int32))
    actions = jax.random.uniform(jax.random.key(0), (4, 3, 1), minval=-1.0)
    call = benchmark.native_call(model, env, starts, actions)
    for _ in range(2):  # every call from the starts
        states = call()
    for b in range(3):
        x, v = float(physics.qpos[b, 0]), float(physics.qvel[b, 0])
        for force in np.asarray(actions)[:, b, 0]:
            for _ in range(5):  # Euler, with damping implicit
                v += 0.01 * (3 * force - 0.3 * v) / (2 + 0.01 * 0.3)
                x += 0.01 * v
        np.testing.assert_allclose(states[b], [0.2, x, v], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("navigation_mjx", True),
        ("navigation_mjx:mass=2.0", False),  # the file has another mass
        ("gym/Hopper", True),
        ("pendulum", False),
        ("brax/hopper", False),
    ],
)
def test_mujoco_has_the_models_that_are_simulated_and_no_others(name, found):
    assert (benchmark.native_model(name) is not None) == found


def test_the_model_and_the_environment_have_the_same_substeps():
    model = benchmark.native_model("gym/Hopper")
    assert model is not None
    env = envs.make("pendulum")
    period = model.opt.timestep * gym_mjx.TASKS["Hopper"].frame_skip
    env = env._replace(spec=env.spec._replace(control_period=round(period, 9)))
    assert benchmark.substeps(model, env) == 4


def test_options_stay_with_their_environment():
    items = ["pendulum", "navigation:slip=0.1", "start=field", "brax/hopper"]
    expected = ["pendulum", "navigation:slip=0.1,start=field", "brax/hopper"]
    assert benchmark.names(items) == expected


def test_engines_are_rows_of_their_own_taken_in_turn():
    engines = benchmark.by_engine("gym/Hopper", ["c"])
    assert [env.engine for env in engines] == ["c"]
    assert len(benchmark.by_engine("pendulum", ["c", "mjx"])) == 1  # it has no choice
    assert len(benchmark.by_engine("gym/Hopper", ["c", "mjx"])) == 2
    (columns,) = benchmark.compare("gym/Hopper", engines, setting())
    assert columns["ratio_to_last"] == 1.0
    assert 0.1 < columns["ratio_to_rollout_processor"] < 2.0
