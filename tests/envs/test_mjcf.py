"""A sliding block with a known motion, and an arm that is compared with MuJoCo in C."""

import functools
import math

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.base import UsageError
from planil_jax.envs import mjcf, registry

BLOCK = """
<mujoco>
  <option timestep="0.02" gravity="0 0 -10"/>
  <worldbody>
    <body>
      <joint name="slide" type="slide" axis="1 0 0"/>
      <geom type="box" size=".1 .1 .1" mass="2" friction="0.5"/>
      <site name="corner" pos="0.1 0 0"/>
    </body>
  </worldbody>
  <actuator><motor name="push" joint="slide" ctrlrange="-4 4"/></actuator>
  <sensor><jointvel joint="slide"/><jointactuatorfrc joint="slide"/></sensor>
</mujoco>
"""
ARM = """
<mujoco>
  <option timestep="0.01" integrator="implicitfast"/>
  <worldbody>
    <body>
      <joint name="shoulder" axis="0 1 0" damping=".05"/>
      <geom type="capsule" size=".02" fromto="0 0 0 .3 0 0" mass=".4" contype="0"/>
      <body pos=".3 0 0">
        <joint name="elbow" axis="0 1 0" damping=".05" range="-2 2" limited="true"/>
        <geom type="capsule" size=".02" fromto="0 0 0 .2 0 0" mass=".2" contype="0"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="shoulder" joint="shoulder" kp="8" kv=".4" ctrlrange="-1.5 1.5"/>
    <general joint="elbow" ctrlrange="-1 1" dyntype="filterexact" dynprm=".05"/>
  </actuator>
  <keyframe><key qpos=".5 -1" qvel="0 1" act=".2" ctrl="0 0"/></keyframe>
</mujoco>
"""


def block_observe(data):
    """Position, the corner's position, velocity twice and the motor's force."""
    return jnp.stack([data.qpos[0], data.site_xpos[0, 0], data.qvel[0], *data.sensordata])


def block(xml=BLOCK, observe=block_observe, **options):
    names = options.pop("names", ("x", "corner", "v", "v measured", "force"))
    options = {"control_period": 0.06, "episode_length": 4} | options
    return mjcf.make("block", xml, observe, names, **options)


def throw(key, data):
    return data.replace(qvel=jax.random.uniform(key, (1,), jnp.float32, 1.0, 2.0))


ENGINES = ("c", "mjx")
on_both = pytest.mark.parametrize("engine", ENGINES)


@functools.cache
def thrown(engine):
    """The block under five actions: where it starts and its transitions `[5]`, as numpy."""
    env = block(
        engine=engine,
        reset=throw,
        reward=lambda data, action, after: (
            jnp.stack([data.qvel[0], action[0], after.site_xpos[0, 0], 100 * after.time])
            @ jnp.array([1.0, 1000.0, 1.0, 1.0])
        ),
        terminal=lambda data: data.qpos[0] > 0.25,
    )

    def roll(key, actions):
        start = env.reset(key)
        return start, jax.lax.scan(env.step, start, actions)[1]

    actions = jnp.array([[1.0], [-2.0], [9.0], [0.5], [0.0]])
    start_and_transitions = jax.jit(roll)(jax.random.key(0), actions)
    return jax.tree.map(np.array, start_and_transitions)


def euler(speed):
    """x and v after each of the actions, by hand: three substeps of 0.02 s, 2 kg."""
    x, rows = 0.0, []
    for force in (1.0, -2.0, 4.0, 0.5, 0.0):
        for _ in range(3):
            speed += 0.02 * force / 2
            x += 0.02 * speed
        rows.append([x, speed, force])
    return np.array(rows)


@on_both
def test_an_action_is_clipped_and_constant_for_the_control_period(engine):
    start, transition = thrown(engine)
    x, speed, force = euler(start.obs[2]).T
    rows = np.stack([x, x + 0.1, speed, speed, force], axis=1)
    np.testing.assert_allclose(transition.next_obs, rows, atol=1e-5)
    np.testing.assert_array_equal(transition.action[2], 9.0)  # recorded as it was asked for
    np.testing.assert_allclose(transition.obs[1:], transition.next_obs[:-1])


@on_both
def test_the_reward_takes_the_data_before_the_bounded_action_and_the_data_after(engine):
    start, transition = thrown(engine)
    x, speed, force = euler(start.obs[2]).T
    before = np.concatenate([start.obs[2:3], speed[:-1]])
    seconds = 0.06 * np.arange(1, 6)
    expected = before + 1000 * force + (x + 0.1) + 100 * seconds
    np.testing.assert_allclose(transition.reward, expected, rtol=1e-5)


@on_both
def test_terminal_comes_from_the_function_and_truncated_from_the_clock(engine):
    start, transition = thrown(engine)
    x = euler(start.obs[2])[:, 0]
    assert 0 < (x > 0.25).sum() < 5
    np.testing.assert_array_equal(transition.terminal, x > 0.25)
    np.testing.assert_array_equal(transition.truncated, [False, False, False, True, True])


@on_both
def test_reset_draws_a_start_and_agrees_with_step_in_dtypes(engine):
    env = block(reset=throw, engine=engine)
    draw = jax.jit(jax.vmap(env.reset))
    starts = draw(jax.random.split(jax.random.key(0), 20)).obs
    assert 1.0 <= starts[:, 2].min() < 1.2 and 1.8 < starts[:, 2].max() <= 2.0
    reset = jax.eval_shape(env.reset, jax.random.key(0))
    action = jax.ShapeDtypeStruct((1,), jnp.float32)
    stepped, transition = jax.eval_shape(env.step, reset, action)
    assert jax.tree.map(repr, reset) == jax.tree.map(repr, stepped)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((reset, transition)))


@on_both
def test_the_arm_moves_as_in_mujoco_from_its_keyframe(engine):
    model = mjcf.load(ARM, mass=1.5)
    env = mjcf.make(
        "arm",
        model,
        lambda data: jnp.concatenate([data.qpos, data.qvel, data.act]),
        ("shoulder", "elbow", "shoulder rate", "elbow rate", "elbow torque"),
        control_period=0.03,
        engine=engine,
    )
    start = jax.jit(env.reset)(jax.random.key(0))
    np.testing.assert_allclose(start.obs, [0.5, -1.0, 0.0, 1.0, 0.2])
    actions = np.random.default_rng(0).uniform(-1.5, 1.5, (10, 2)).astype(np.float32)
    roll = jax.jit(lambda s, a: jax.lax.scan(env.step, s, a)[1])
    data, rows = mujoco.MjData(model), []
    mujoco.mj_resetDataKeyframe(model, data, 0)
    for action in actions:
        data.ctrl[:] = action
        mujoco.mj_step(model, data, 3)
        rows.append([*data.qpos, *data.qvel, *data.act])
    tolerance = {"c": 1e-6, "mjx": 1e-3}[engine]
    np.testing.assert_allclose(
        roll(start, actions).next_obs, rows, rtol=tolerance, atol=tolerance
    )


def test_sizes_and_bounds_come_from_the_model():
    spec = block().spec
    assert (spec.name, spec.observation_size, spec.action_size) == ("block", 5, 1)
    assert (spec.action_low, spec.action_high) == ((-4.0,), (4.0,))
    assert (spec.episode_length, spec.control_period) == (4, 0.06)


def test_scale_factors_change_masses_inertias_friction_and_gravity():
    plain, scaled = mjcf.load(BLOCK), mjcf.load(BLOCK, mass=3, friction=0.5, gravity=0.1)
    assert scaled.body_mass[1] == pytest.approx(6.0)
    np.testing.assert_allclose(scaled.body_inertia, 3 * plain.body_inertia)
    np.testing.assert_allclose(scaled.body_subtreemass, 3 * plain.body_subtreemass)
    assert scaled.geom_friction[0, 0] == pytest.approx(0.25)
    np.testing.assert_allclose(scaled.opt.gravity, [0, 0, -1.0])


def test_a_model_is_read_from_a_file_and_registered_from_outside(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))
    path = tmp_path / "block.xml"
    path.write_text(BLOCK)

    def make(episode_length: int = 7):
        return block(str(path), episode_length=episode_length)

    envs.register("my/robot", make)
    assert envs.make("my/robot:episode_length=9").spec.episode_length == 9


# -------------------------------------------------------------------------------- errors


def said(make_fn, *arguments, **options) -> str:
    with pytest.raises(UsageError) as caught:
        make_fn(*arguments, **options)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message
    return message


def edited(old: str, new: str) -> str:
    assert old in BLOCK
    return BLOCK.replace(old, new)


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        (edited("<motor", "<rotor"), ["the MJCF text", "unrecognized element", "rotor"]),
        (edited('mass="2"', 'mass="0"'), ["mass and inertia"]),
        ("absent.xml", ["absent.xml", "No such file"]),
        ("robot.urdf", ["'robot.urdf'", ".xml"]),
    ],
)
def test_a_faulty_or_missing_model_is_refused_with_the_reason(xml, words):
    message = said(mjcf.load, xml)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        (edited("<sensor>", '<sensor><user name="gps" dim="5"/>'), ["sensor user", "gps"]),
        (edited("<option ", '<option integrator="implicit" '), ["integrator implicit"]),
        (edited("<option ", '<option solver="PGS" '), ["solver pgs"]),
    ],
)
def test_a_feature_that_mjx_lacks_is_named(xml, words):
    message = said(block, xml, engine="mjx")
    assert (
        "MJX" in message
        and "engine=c" in message
        and all(word in message for word in words)
    ), message


def test_an_actuator_without_a_range_is_named():
    assert "push" in said(block, edited('ctrlrange="-4 4"', ""))
    start, end = BLOCK.index("<actuator>"), BLOCK.index("<sensor>")
    assert "no actuators" in said(block, BLOCK[:start] + BLOCK[end:])


@pytest.mark.parametrize("period", [0.05, 0.01])
def test_a_control_period_must_be_a_multiple_of_the_timestep(period):
    message = said(block, control_period=period)
    assert f"{period:g} s" in message and "0.02 s" in message


@pytest.mark.parametrize(
    ("xml", "options", "words"),
    [
        (edited('"-4 4"', '"-inf inf"'), {}, ["actuator push", "-inf and inf"]),
        (edited('"-4 4"', '"-4 inf"'), {}, ["actuator push", "-4.0 and inf"]),
        (BLOCK, {"control_period": 0.0}, ["control_period", "0.0"]),
        (BLOCK, {"control_period": -0.02}, ["control_period", "-0.02"]),
        (BLOCK, {"control_period": math.nan}, ["control_period", "nan"]),
        (BLOCK, {"control_period": math.inf}, ["control_period", "inf"]),
        (BLOCK, {"episode_length": 0}, ["episode_length", ">= 1", "0"]),
        (BLOCK, {"names": ()}, ["observation_names", "empty"]),
        (BLOCK, {"names": ("x", "y", "x", "v", "w")}, ["'x'", "twice"]),
        (BLOCK, {"names": "xycvw"}, ["observation_names", "'xycvw'"]),
    ],
)
def test_a_specification_that_cannot_be_used_is_refused(xml, options, words):
    message = said(block, xml, **options)
    assert message.startswith("environment 'block': ")
    assert all(word in message for word in words), message


@on_both
def test_recovered_states_show_their_observation_and_step_like_the_original(engine):
    env = block(
        engine=engine,
        reset=throw,
        reward=lambda data, action, next_data: next_data.qvel[0],
        recover=lambda obs: (obs[:1], obs[2:3]),
    )

    def compare(key, action):
        state = env.reset(key)
        for _ in range(2):
            state, _ = env.step(state, action)
        recovered = env.recover(state.obs)
        return (state, *env.step(state, action)), (recovered, *env.step(recovered, action))

    (state, after, original), (recovered, recovered_after, copy) = jax.jit(compare)(
        jax.random.key(3), jnp.array([2.5])
    )
    assert (int(state.time), int(recovered.time)) == (2, 0)
    np.testing.assert_array_equal(recovered.sim.qpos, state.sim.qpos)
    np.testing.assert_array_equal(recovered.sim.qvel, state.sim.qvel)
    # The measured force is of the control, which is 0 in a recovered state.
    np.testing.assert_allclose(recovered.obs[:4], state.obs[:4], atol=1e-6)
    np.testing.assert_allclose(copy.next_obs, original.next_obs, atol=1e-5)
    np.testing.assert_allclose(copy.reward, original.reward, atol=1e-5)
    np.testing.assert_allclose(recovered_after.sim.qpos, after.sim.qpos, atol=1e-5)
    assert jax.tree.structure(recovered) == jax.tree.structure(state)
    for one, other in zip(jax.tree.leaves(recovered), jax.tree.leaves(state), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


def test_an_environment_recovers_states_only_if_it_is_given_the_function():
    assert block().recover is None


def number(*_):
    return jnp.float32(1.0)


def flag(*_):
    return jnp.bool_(True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"names": ("x",)}, ["observe", "5 entries", "1 observation_names"]),
        ({"observe": number}, ["observe", "(5,)", "shape ()"]),
        ({"observe": lambda data: (data.qpos, data.qvel)}, ["observe", "(5,)", "tuple"]),
        ({"reward": lambda *_: jnp.zeros(3)}, ["reward", "shape ()", "(3,)"]),
        ({"reward": flag}, ["reward", "float32", "bool"]),
        ({"terminal": number}, ["terminal", "bool", "float32"]),
        ({"success": number}, ["success", "bool", "float32"]),
        ({"expert_cost": lambda obs, *_: obs}, ["expert_cost", "shape ()", "(5,)"]),
        ({"reset": lambda key, data: data.qpos}, ["reset", "qpos", "(1,)"]),
        (
            {"reset": lambda key, data: data.replace(qvel=jnp.zeros(2))},
            ["reset", "qvel", "(1,)", "(2,)"],
        ),
        ({"recover": lambda obs: obs[:1]}, ["recover", "pair (qpos, qvel)", "(1,)"]),
        (
            {"recover": lambda obs: (obs[:1], obs[:2])},
            ["recover", "qvel as", "(1,)", "(2,)"],
        ),
        ({"recover": lambda obs: (obs[:3], obs[:1])}, ["recover", "qpos as", "(3,)"]),
        ({"xml": mjcf.load(BLOCK), "mass": 2.0}, ["mass", "mjcf.load"]),
    ],
)
@on_both
def test_a_function_with_a_wrong_return_value_is_named(engine, options, words):
    message = said(block, engine=engine, **options)
    assert "'block'" in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("role", "function", "given"),
    [
        ("terminal", lambda obs: obs[0] > 1, "(next_data), where next_data is an mjx.Data"),
        ("success", lambda data: data.qpos[0] > 1, "(obs), where obs is an observation"),
        ("expert_cost", lambda obs, action: 0.0, "(obs, action, next_obs), where next_obs"),
        ("reset", lambda data: data, "(key, data), where data is an mjx.Data"),
        ("recover", lambda: (), "(obs), where obs is an observation, not an mjx.Data"),
    ],
)
@on_both
def test_a_function_that_fails_is_named_with_what_it_is_given(
    engine, role, function, given
):
    message = said(block, engine=engine, **{role: function})
    assert message.startswith(f"environment 'block': {role} fails (")
    assert f"it is called as {role}{given}" in message


@on_both
def test_a_reward_may_be_a_plain_python_number(engine):
    env = block(reward=lambda *_: 1.0, terminal=lambda data: False, engine=engine)
    state = jax.eval_shape(env.reset, jax.random.key(0))
    transition = jax.eval_shape(env.step, state, jax.ShapeDtypeStruct((1,), jnp.float32))[1]
    assert (transition.reward.dtype, transition.terminal.dtype) == (jnp.float32, jnp.bool_)
    assert math.prod(transition.reward.shape) == 1


# ------------------------------------------------------- what a reset sets and models use

WELDED = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <body name="a" pos="0 0 1"><freejoint/><geom size=".1" mass="1"/></body>
    <body pos="1 0 2">
      <joint name="j" axis="0 1 0"/><geom size=".02" mass=".5" pos=".3 0 0"/>
    </body>
    <body name="hand" mocap="true"/>
  </worldbody>
  <equality><weld body1="a" active="false"/></equality>
  <actuator><motor joint="j" ctrlrange="-1 1"/></actuator>
  <size nuserdata="2"/>
</mujoco>
"""


@on_both
def test_whatever_a_reset_sets_is_carried_from_step_to_step(engine):
    """A weld that is turned on, a wind and a place of one's own, against MuJoCo in C."""

    def reset(key, data):
        return data.replace(
            eq_active=jnp.ones_like(data.eq_active),
            xfrc_applied=data.xfrc_applied.at[1, 0].set(5.0),
            qfrc_applied=data.qfrc_applied.at[6].set(0.2),
            mocap_pos=data.mocap_pos.at[0, 2].set(0.7),
            userdata=data.userdata.at[1].set(0.3),
            time=jnp.float32(2.0),
        )

    def observe(data):
        extra = jnp.stack([data.mocap_pos[0, 2], data.userdata[1], data.time])
        return jnp.concatenate([data.qpos, extra])

    env = mjcf.make(
        "welded",
        WELDED,
        observe,
        [f"q{i}" for i in range(8)] + ["hand", "note", "seconds"],
        control_period=0.02,
        reset=reset,
        engine=engine,
    )

    def roll(key):
        state = env.reset(key)
        return jax.lax.scan(env.step, state, jnp.zeros((15, 1)))[1].next_obs

    obs = jax.jit(roll)(jax.random.key(0))
    model = mjcf.load(WELDED)
    data = mujoco.MjData(model)
    data.eq_active[:], data.xfrc_applied[1, 0], data.qfrc_applied[6] = 1, 5, 0.2
    mujoco.mj_step(model, data, 30)
    assert data.qpos[2] > 0.95  # the weld holds it
    np.testing.assert_allclose(obs[-1, :8], data.qpos, atol=1e-3)
    np.testing.assert_allclose(obs[-1, 8:], [0.7, 0.3, 2.3], atol=1e-5)


@on_both
def test_inputs_of_an_actuator_without_a_range_are_named_and_then_bounded(engine):
    pid = '<pid name="servo" joint="slide" input="pos vel" kp="5" ctrlrange="-1 1"/>'
    xml = edited('<motor name="push" joint="slide" ctrlrange="-4 4"/>', pid)
    message = said(block, xml, engine=engine)
    assert "servo (input vel)" in message and "(input pos)" not in message
    model = mjcf.load(xml)
    model.actuator_ctrlrange[1] = -2, 2
    model.actuator_ctrllimited[1] = True
    if engine == "c":
        env = block(model, engine=engine)
        assert (env.spec.action_low, env.spec.action_high) == ((-1.0, -2.0), (1.0, 2.0))
    else:
        assert "MJX" in said(block, model, engine=engine)


def test_delays_that_mjx_would_leave_out_are_refused_there_and_happen_in_c():
    late = edited('ctrlrange="-4 4"', 'ctrlrange="-4 4" delay="0.06" nsample="6"')
    assert "delays" in said(block, late, engine="mjx")
    speeds = []
    for xml in (BLOCK, late):
        env = block(xml, engine="c")
        start = env.reset(jax.random.key(0))
        step = jax.lax.scan(env.step, start, jnp.ones((3, 1)))[1]
        speeds.append(step.next_obs[:, 2])
    np.testing.assert_allclose(speeds[0], [0.03, 0.06, 0.09], atol=1e-6)
    assert speeds[1][0] == 0 and speeds[1][-1] > 0.01


def test_an_unknown_engine_is_refused_with_those_there_are():
    message = said(block, engine="mxj")
    assert (
        "'mxj'" in message and "Did you mean mjx" in message and "auto, c, mjx" in message
    )


def test_the_engine_is_told_and_auto_is_c_on_a_cpu():
    assert [block(engine=engine).engine for engine in ("auto", "c", "mjx")] == [
        "c" if jax.default_backend() == "cpu" else "mjx",
        "c",
        "mjx",
    ]
