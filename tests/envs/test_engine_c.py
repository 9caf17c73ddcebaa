"""MuJoCo in C as pure functions: equal to a plain loop of mj_step, to the last bit."""

import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from planil_jax.base import UsageError
from planil_jax.envs import engine_c, mjcf, navigation_mjx

WHOLE = int(mujoco.mjtState.mjSTATE_INTEGRATION)
SUBSTEPS, STEPS, BATCH = 5, 12, 13
# A ball that falls on a ground, beside a pendulum with a motor and sensors.
BALL = """
<mujoco>
  <option timestep="0.004"/>
  <worldbody>
    <geom type="plane" size="1 1 .1"/>
    <body name="ball" pos="0 0 .12">
      <freejoint/>
      <geom name="ball" size=".1" mass="1"/><site name="top" pos="0 0 .1"/>
    </body>
    <body pos="0 .5 1">
      <joint name="hinge" axis="0 1 0"/>
      <geom type="capsule" size=".02" fromto="0 0 0 0 0 -.4" mass=".3"/>
    </body>
  </worldbody>
  <actuator><motor name="motor" joint="hinge" ctrlrange="-1 1"/></actuator>
  <sensor>
    <accelerometer site="top"/><framepos objtype="site" objname="top"/>
    <actuatorfrc actuator="motor"/>
  </sensor>
</mujoco>
"""
COMPUTED = ("sensordata", "site_xpos", "geom_xmat", "cvel", "qacc", "cfrc_ext")
CONTACTS = ("ncon", "contact.dist", "contact.geom", "contact.frame", "contact.dim")


@functools.cache
def model_of(name: str) -> mujoco.MjModel:
    return navigation_mjx.model() if name == "car" else mjcf.load(BALL)


def engine_of(name: str, fields=("qpos", "qvel"), **options) -> engine_c.Engine:
    return engine_c.make(name, model_of(name), SUBSTEPS, fields, **options)


def starts(engine, batch: int = BATCH):
    """States `[B]` at different speeds."""
    size = engine.home.values["qvel"].shape
    speeds = jax.random.uniform(jax.random.key(0), (batch, *size), minval=-0.5, maxval=0.5)
    return jax.vmap(lambda qvel: engine.start(engine.home.replace(qvel=qvel)))(speeds)


def controls(engine, batch: int = BATCH, steps: int = STEPS):
    shape = steps, batch, *engine.home.values["ctrl"].shape
    return jax.random.uniform(jax.random.key(1), shape, minval=-1.0, maxval=1.0)


def roll(engine, states, ctrls):
    """All states on the way, `[T, B]`."""

    def step(states, ctrl):
        states = jax.vmap(engine.step)(states, ctrl)
        return states, states

    return jax.jit(lambda *inputs: jax.lax.scan(step, *inputs)[1])(states, ctrls)


def doubles(state) -> np.ndarray:
    return np.array(state.bits).view(np.float64)


def by_hand(name, state, ctrls):
    """MuJoCo's data after each control step of one line, by a plain loop; an iterator."""
    model = model_of(name)
    data = mujoco.MjData(model)
    mujoco.mj_setState(model, data, doubles(state), WHOLE)
    for ctrl in np.array(ctrls, np.float64):
        data.ctrl[:] = ctrl
        for _ in range(SUBSTEPS):
            mujoco.mj_step(model, data)
        yield model, data


def one(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


@pytest.mark.parametrize("name", ["car", "ball"])
@pytest.mark.parametrize("fields", [(), COMPUTED])
def test_it_equals_a_plain_loop_of_mj_step_to_the_last_bit(name, fields):
    engine = engine_of(name, ("qpos", *fields))
    first, ctrls = starts(engine), controls(engine)
    visited = roll(engine, first, ctrls)
    for line in (0, BATCH - 1):
        rows = doubles(one(visited, (slice(None), line)))
        for row, (model, data) in zip(
            rows, by_hand(name, one(first, line), ctrls[:, line]), strict=True
        ):
            expected = np.zeros_like(row)
            mujoco.mj_getState(model, data, expected, WHOLE)
            np.testing.assert_array_equal(row, expected)
    assert np.abs(np.diff(np.array(visited.qpos), axis=0)).max() > 1e-3  # it moved


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_bits_are_the_same_in_any_batch_order_and_number_of_threads(threads):
    fields = "qpos", *COMPUTED, *CONTACTS
    engine = engine_of("ball", fields, threads=1)
    first, ctrls = starts(engine), controls(engine)
    whole = roll(engine, first, ctrls)
    order = np.random.default_rng(0).permutation(BATCH)
    again = engine_of("ball", fields, threads=threads)
    shuffled = roll(again, one(first, order), ctrls[:, order])
    alone = roll(again, one(first, slice(2, 3)), ctrls[:, 2:3])
    for name, leaf in jax.tree_util.tree_leaves_with_path(whole):
        for other, lines in ((shuffled, order), (alone, slice(2, 3))):
            found = dict(jax.tree_util.tree_leaves_with_path(other))[name]
            np.testing.assert_array_equal(leaf[:, lines], found, err_msg=str(name))


def test_nested_batches_are_one_call_and_equal_a_flat_one(monkeypatch):
    engine = engine_of("ball")
    first, ctrls = starts(engine, 6), controls(engine, 6, 1)[0]
    calls = []
    step = engine_c._Simulator.step
    monkeypatch.setattr(
        engine_c._Simulator,
        "step",
        lambda self, bits, ctrl: calls.append(np.shape(bits)) or step(self, bits, ctrl),
    )
    flat = jax.vmap(engine.step)(first, ctrls)
    square = jax.tree.map(lambda leaf: leaf.reshape(2, 3, *leaf.shape[1:]), (first, ctrls))
    nested = jax.vmap(jax.vmap(engine.step))(*square)
    assert calls == [(6, nested.bits.shape[-1]), (2, 3, nested.bits.shape[-1])]
    np.testing.assert_array_equal(nested.bits.reshape(flat.bits.shape), flat.bits)


def test_a_start_holds_the_fields_that_are_set_and_home_else():
    engine = engine_of("ball", ("qpos", "qvel", "site_xpos"))
    home = engine.home
    moved = home.qpos.at[0].set(0.25)
    state = jax.jit(lambda: engine.start(home.replace(qpos=moved)))()
    np.testing.assert_array_equal(state.qpos, moved)
    np.testing.assert_array_equal(state.qvel, np.zeros(7))
    np.testing.assert_allclose(state.site_xpos, [[0.25, 0, 0.22]], atol=1e-6)
    np.testing.assert_array_equal(engine.start(home).qpos, home.qpos)


def test_computed_fields_are_of_the_moment_after_the_step():
    engine = engine_of("ball", COMPUTED)
    first, ctrls = starts(engine, 1), controls(engine, 1)
    visited = roll(engine, first, ctrls)
    steps = by_hand("ball", one(first, 0), ctrls[:, 0])
    for index, (model, data) in enumerate(steps):
        after = mujoco.MjData(model)
        state = np.zeros(mujoco.mj_stateSize(model, WHOLE))
        mujoco.mj_getState(model, data, state, WHOLE)
        mujoco.mj_setState(model, after, state, WHOLE)
        mujoco.mj_forward(model, after)
        mujoco.mj_rnePostConstraint(model, after)
        for field in COMPUTED:
            found = one(visited, (index, 0)).fields[field]
            expected = np.reshape(getattr(after, field), found.shape)
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6, err_msg=field)


def test_contacts_have_a_fixed_number_of_rows_and_those_without_are_marked():
    engine = engine_of("ball", ("qpos", *CONTACTS), contacts=3)
    data = engine.data(engine.start(engine.home), jnp.int32(0))  # above the ground
    assert data.ncon == 0 and data._impl.contact.dist.tolist() == [engine_c.FAR] * 3
    assert data.contact.geom.tolist() == [[-1, -1]] * 3
    low = engine.home.replace(qpos=engine.home.qpos.at[2].set(0.09))
    data = engine.data(engine.start(low), jnp.int32(0))
    np.testing.assert_allclose(data.contact.dist, [-0.01, 1, 1], atol=1e-6)
    assert data.ncon == 1 and data.contact.dim.tolist() == [3, 0, 0]
    assert data.contact.geom.tolist() == [[0, 1], [-1, -1], [-1, -1]]
    np.testing.assert_allclose(data.contact.frame[0, 0], [0, 0, 1], atol=1e-6)
    assert data.contact.geom.dtype == jnp.int32


def test_more_contacts_than_there_is_room_for_are_an_error_that_names_the_mend():
    engine = engine_of("car", ("contact.dist",), contacts=2)
    with pytest.raises(jax.errors.JaxRuntimeError, match="pass contacts=8"):
        jax.block_until_ready(
            functools.reduce(
                lambda state, _: engine.step(state, jnp.zeros(2)),
                range(10),
                engine.start(engine.home),
            )
        )


def test_lines_that_are_not_finite_become_nan_and_leave_the_others_alone():
    engine = engine_of("ball", ("qpos", "site_xpos"))
    first, ctrls = starts(engine, 3), controls(engine, 3, 2)
    sound = roll(engine, first, ctrls)
    broken = roll(engine, first, ctrls.at[0, 1].set(jnp.nan))
    for line in (0, 2):
        np.testing.assert_array_equal(broken.bits[:, line], sound.bits[:, line])
    assert np.isnan(broken.qpos[:, 1]).all() and np.isnan(broken.site_xpos[:, 1]).all()
    assert np.isfinite(np.array(sound.qpos)).all()


def test_a_step_has_no_derivative_and_says_so():
    engine = engine_of("ball")
    state = engine.start(engine.home)
    with pytest.raises(ValueError, match="do not support"):
        jax.grad(lambda ctrl: engine.step(state, ctrl).qpos.sum())(jnp.zeros(1))


# ------------------------------------------------------------------ the data of functions

MAKE = {"control_period": 0.02, "engine": "c"}


def make(observe, names=("x",), **options):
    return mjcf.make("ball", BALL, observe, names, **(MAKE | options))


def said(*arguments, **options) -> str:
    with pytest.raises(UsageError) as caught:
        make(*arguments, **options)
    message = str(caught.value)
    assert message.startswith("environment 'ball': ") and message.endswith(".")
    return message


def test_the_state_holds_what_the_functions_read_and_little_else():
    env = make(
        lambda data: data.site_xpos[0],
        ("x", "y", "z"),
        reward=lambda data, action, after: after.sensordata[0] - data.cvel[1, 0],
        terminal=lambda data: jnp.any(data._impl.contact.dist < 0),
    )
    fields = set(env.reset(jax.random.key(0)).sim.fields)
    read = {"site_xpos", "sensordata", "cvel", "contact.dist"}
    assert fields - set(mjcf.Physics.__dataclass_fields__) == read


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"observe": lambda data: data._impl.efc_J[0]}, ["'efc_J'", "engine=mjx"]),
        ({"observe": lambda data: data.site_xpo[0]}, ["'site_xpo'", "mean site_xpos"]),
        ({"reward": lambda d, a, n: d.qfrc_inverse[0]}, ["'qfrc_inverse'"]),
        ({"terminal": lambda data: data.contact.H[0] > 0}, ["'contact.H'"]),
        ({"reset": lambda key, data: data.replace(xpos=0)}, ["'xpos'", "qpos", "mocap"]),
        ({"reset": lambda key, data: setattr(data, "qpos", 0)}, ["data.replace(qpos=...)"]),
    ],
)
def test_a_field_that_c_does_not_give_is_refused_by_its_name(options, words):
    message = said(options.pop("observe", lambda data: data.qpos[:1]), **options)
    assert all(word in message for word in words), message


def test_a_model_whose_state_mujoco_does_not_tell_is_refused():
    xml = BALL.replace("<worldbody>", '<option><flag sleep="enable"/></option><worldbody>')
    with pytest.raises(UsageError, match="sleep"):
        mjcf.make("ball", xml, lambda data: data.qpos[:1], ("x",), **MAKE)


def test_the_model_is_copied_and_its_later_changes_do_not_matter():
    model = mjcf.load(BALL)
    engine = engine_c.make("ball", model, 1)
    flags = int(model.opt.disableflags)
    before = engine.step(engine.start(engine.home), jnp.zeros(1))
    assert flags == int(mjcf.load(BALL).opt.disableflags)
    model.opt.gravity[:] = 0
    after = engine.step(engine.start(engine.home), jnp.zeros(1))
    np.testing.assert_array_equal(before.bits, after.bits)


@pytest.mark.parametrize("field", ["xpos", "geom_xmat", "site_xpos", "qacc", "cvel"])
def test_shapes_are_those_of_mjx(field):
    env = make(lambda data: getattr(data, field).ravel()[:1])
    shape = jax.eval_shape(env.reset, jax.random.key(0)).sim.fields[field].shape
    from planil_jax.envs.quiet import mjx

    data = jax.eval_shape(
        lambda: mjx.make_data(mjx.put_model(model_of("ball"), impl="jax"))
    )
    assert shape == getattr(data, field).shape
