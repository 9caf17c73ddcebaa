import sys
import types
from dataclasses import replace
from importlib import resources

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.base import UsageError, UserError
from planil_jax.envs import engine_c, gym_c, gym_mjx, gym_robots

STEPS = 20
pytest.importorskip("gymnasium")


def compiled(function, *examples):
    return jax.jit(function).lower(*examples).compile()


def theirs_of(task):
    """Gymnasium's environment, on MuJoCo in C. It imports a video library without need."""
    with pytest.MonkeyPatch.context() as patch:
        try:
            import imageio  # noqa: F401  a part of another of Gymnasium's extras
        except ImportError:
            patch.setitem(sys.modules, "imageio", types.ModuleType("imageio"))
        import gymnasium

        env = gymnasium.make(f"{task}-v5").unwrapped
        env.reset(seed=0)
        return env


@pytest.fixture(scope="module", params=["c", "mjx"])
def hopper(request):
    """(environment, its compiled reset and step), on each engine."""
    env = envs.make("gym/Hopper", episode_length=5, engine=request.param)
    key, action = jax.random.key(0), jnp.zeros((3,), jnp.float32)
    reset = compiled(env.reset, key)
    return env, reset, compiled(env.step, reset(key), action)


@pytest.fixture(scope="module")
def theirs():
    """Gymnasium's Hopper-v5."""
    env = theirs_of("Hopper")
    yield env
    env.close()


def placed(state, qpos, qvel):
    """The state with its body at another pose and speed."""
    if isinstance(state.sim, engine_c.State):
        doubles = np.array(state.sim.bits).view(np.float64)  # time, qpos, qvel, ...
        doubles[1:13] = [*qpos, *qvel]
        fields = {"qpos": jnp.asarray(qpos, jnp.float32)}
        fields["qvel"] = jnp.asarray(qvel, jnp.float32)
        bits = jnp.asarray(doubles.view(np.uint32))
        return replace(state, sim=engine_c.State(bits=bits, fields=fields))
    body = replace(
        state.sim, qpos=jnp.asarray(qpos, jnp.float32), qvel=jnp.asarray(qvel, jnp.float32)
    )
    return replace(state, sim=body)


def test_an_episode_of_hopper_is_gymnasium_s_on_mujoco_in_c(hopper, theirs):
    env, reset, step = hopper
    state = reset(jax.random.key(1))
    theirs.set_state(np.float64(state.sim.qpos), np.float64(state.sim.qvel))
    np.testing.assert_allclose(state.obs, theirs._get_obs(), atol=1e-6)
    rng, ends = np.random.default_rng(0), []
    for _ in range(2 * STEPS):
        action = rng.uniform(-1, 1, 3).astype(np.float32)
        state, transition = step(state, action)
        obs, reward, terminal, _, _ = theirs.step(action)
        # Single precision against double, with contacts: 1e-4 of entries up to 10.
        tolerance = {"c": 1e-5, "mjx": 1e-4}[env.engine]
        np.testing.assert_allclose(transition.next_obs, obs, atol=tolerance)
        np.testing.assert_allclose(transition.reward, reward, atol=tolerance)
        assert bool(transition.terminal) == terminal
        ends.append(terminal)
    assert not ends[0] and ends[-1]  # it fell in between


@pytest.mark.parametrize(
    ("qpos", "qvel"),
    [
        ([3.0, 0.75, 0.1, -0.5, -0.5, 0.3], [5.0, -9.0, 2.0, 15.0, -30.0, 12.0]),
        ([0.0, 1.25, 0.25, 0.0, 0.0, 0.0], [0.0] * 6),
        ([0.0, 1.25, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 150.0]),
    ],
)
def test_clipped_speeds_and_unhealthy_states_are_gymnasium_s(hopper, theirs, qpos, qvel):
    _, reset, step = hopper
    theirs.set_state(np.array(qpos), np.array(qvel))
    action = np.array([0.5, -1.0, 2.0], np.float32)  # one is outside its bound
    _, transition = step(placed(reset(jax.random.key(0)), qpos, qvel), action)
    obs, reward, terminal, _, _ = theirs.step(action)
    np.testing.assert_allclose(transition.next_obs, obs, atol=2e-3)
    np.testing.assert_allclose(transition.reward, reward, atol=2e-3)
    assert bool(transition.terminal) == terminal


def test_truncation_and_termination_are_separate(hopper):
    _, reset, step = hopper
    state = reset(jax.random.key(0))
    ends = []
    for _ in range(6):
        state, transition = step(state, jnp.zeros((3,)))
        ends.append((bool(transition.truncated), bool(transition.terminal)))
    assert ends == [(False, False)] * 4 + [(True, False)] * 2


def test_a_step_keeps_the_dtypes_of_the_state_and_none_is_weak(hopper):
    env, _, _ = hopper
    start = jax.eval_shape(env.reset, jax.random.key(0))
    next_state, transition = jax.eval_shape(env.step, start, jnp.zeros((3,)))
    assert jax.tree.structure(start) == jax.tree.structure(next_state)
    for before, after in zip(
        jax.tree.leaves(start), jax.tree.leaves(next_state), strict=True
    ):
        assert (before.shape, before.dtype) == (after.shape, after.dtype)
    leaves = jax.tree.leaves((start, next_state, transition))
    assert not any(leaf.weak_type for leaf in leaves)


def test_the_prior_recovers_all_but_the_position_on_the_ground(hopper):
    env, reset, step = hopper
    state = placed(
        reset(jax.random.key(2)),
        [7.0, 1.3, 0.1, -0.2, -0.3, 0.2],
        [1.0, -0.5, 0.2, 3.0, -9.0, 4.0],
    )
    state = replace(state, obs=env.prior.observe((), state.sim))
    body = env.prior.recover((), state.obs)
    np.testing.assert_array_equal(body.qpos, [0.0, *state.sim.qpos[1:]])
    np.testing.assert_array_equal(body.qvel, state.sim.qvel)
    action = jnp.array([0.3, -0.6, 0.9])
    expected = step(state, action)[1].next_obs
    predicted = step(replace(state, sim=body), action)[0].sim
    np.testing.assert_allclose(env.prior.observe((), predicted), expected, atol=1e-4)


def test_a_state_recovered_from_an_observation_steps_like_the_original(hopper):
    env, reset, step = hopper
    state = placed(
        reset(jax.random.key(2)),
        [7.0, 1.3, 0.1, -0.2, -0.3, 0.2],
        [1.0, -0.5, 0.2, 3.0, -9.0, 4.0],
    )
    state = replace(state, obs=env.prior.observe((), state.sim))
    recovered = env.recover(state.obs)
    action = jnp.array([0.3, -0.6, 0.9])
    original, copy = step(state, action)[1], step(recovered, action)[1]
    np.testing.assert_array_equal(copy.obs, state.obs)
    # The original starts the solver at its warm start, and the copy at 0.
    np.testing.assert_allclose(copy.next_obs, original.next_obs, atol=1e-4)
    # The speed in the reward is a difference of x, which is 7 m and 0 m.
    np.testing.assert_allclose(copy.reward, original.reward, atol=1e-3)
    assert int(recovered.time) == 0


def drift(model, numbers):
    """Replaces the physics in tests of everything else: every speed grows by u₀."""
    return lambda body, action: replace(body, qvel=body.qvel + action[0])


MJX = {"engine": "mjx"}  # whose physics are replaced


@pytest.fixture
def without_physics(monkeypatch):
    monkeypatch.setattr(gym_mjx, "_physics", drift)


def test_the_prior_starts_from_the_whole_state_and_steps_as_the_task_does(without_physics):
    env = envs.make("gym/Hopper", **MJX)
    state = env.reset(jax.random.key(2))
    body = env.prior.start((), state)
    assert body is state.sim
    action = jnp.array([0.5, 0.0, 0.0])
    expected = env.step(state, action)[1].next_obs
    predicted = env.prior.step((), body, action, jax.random.key(0))
    np.testing.assert_array_equal(env.prior.observe((), predicted), expected)
    np.testing.assert_allclose(expected[5:], state.obs[5:] + 0.5, atol=1e-6)


@pytest.mark.parametrize("task", ["Walker2d", "HalfCheetah", "Ant", *gym_c.TASKS])
def test_in_c_every_task_is_gymnasium_s_step_by_step(task):
    env, theirs = envs.make(f"gym/{task}", engine="c"), theirs_of(task)
    assert env.spec.observation_size == theirs.observation_space.shape[0]
    assert env.spec.control_period == pytest.approx(theirs.dt)
    import gymnasium

    steps = gymnasium.spec(f"{task}-v5").max_episode_steps
    assert env.spec.episode_length == steps
    np.testing.assert_allclose(env.spec.action_high, theirs.action_space.high)
    ends = []
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    rng = np.random.default_rng(0)
    for key in range(2):
        theirs.reset(seed=key)
        state = reset(jax.random.key(key))
        theirs.set_state(np.float64(state.sim.qpos), np.float64(state.sim.qvel))
        theirs.data.qacc_warmstart[:] = 0  # a fresh start, as ours is
        np.testing.assert_allclose(state.obs, theirs._get_obs(), atol=1e-6)
        for _ in range(STEPS):
            low, high = env.spec.action_low, env.spec.action_high
            action = rng.uniform(low, high).astype(np.float32)
            state, transition = step(state, action)
            obs, reward, terminal, _, _ = theirs.step(action)
            np.testing.assert_allclose(transition.next_obs, obs, rtol=1e-6, atol=1e-5)
            np.testing.assert_allclose(transition.reward, reward, atol=1e-5)
            assert bool(transition.terminal) == terminal
            ends.append(terminal)
    assert env.spec.terminates or not any(ends)
    theirs.close()


# --------------------------------------------------------------------------- all the tasks

SIZES = {"Hopper": (11, 3), "Walker2d": (17, 6), "HalfCheetah": (17, 6), "Ant": (105, 8)}
PERIODS = {"Hopper": 0.008, "Walker2d": 0.008, "HalfCheetah": 0.05, "Ant": 0.05}


@pytest.mark.parametrize("task", SIZES)
@pytest.mark.parametrize("engine", ["c", "mjx"])
def test_sizes_names_bounds_and_period_are_those_documented(task, engine, without_physics):
    spec = envs.make(f"gym/{task}", engine=engine).spec
    assert (spec.observation_size, spec.action_size) == SIZES[task]
    assert len(set(spec.observation_names)) == spec.observation_size
    assert spec.name == f"gym/{task}" and spec.episode_length == 1000
    assert set(spec.action_low) == {-1.0} and set(spec.action_high) == {1.0}
    assert spec.control_period == PERIODS[task]


@pytest.mark.parametrize("engine", ["c", "mjx"])
@pytest.mark.parametrize("task", SIZES)
def test_resets_are_as_near_to_rest_as_documented(task, engine, without_physics):
    noise = {"Hopper": 5e-3, "Walker2d": 5e-3, "HalfCheetah": 0.1, "Ant": 0.1}[task]
    keys = jax.random.split(jax.random.key(0), 400)
    for factor in (0.5,) if task == "Hopper" else (1.0,):
        env = envs.make(f"gym/{task}", reset_noise=factor, engine=engine)
        states = compiled(jax.vmap(env.reset), keys)(keys)
        rest = gym_robots.load(task, gym_mjx.TASKS[task].file).qpos0
        moved, speed = np.array(states.sim.qpos - rest), np.array(states.sim.qvel)
        # The extremes of 400 uniform draws come within 5 % of the ends (a miss: 1e-9).
        assert (np.abs(moved) <= noise * factor * 1.001).all()
        assert 0.95 * noise * factor < np.abs(moved).max()
        if task in ("HalfCheetah", "Ant"):  # at least 3600 normal draws
            np.testing.assert_allclose(speed.std(), noise * factor, rtol=0.06)
            assert np.abs(speed).max() > 2 * noise * factor
        else:
            assert 0.95 * noise * factor < np.abs(speed).max() <= noise * factor * 1.001
        assert states.obs.shape == (400, SIZES[task][0])


@pytest.mark.parametrize("task", gym_c.TASKS)
def test_tasks_in_c_name_every_entry_and_recover_what_an_observation_shows(task):
    env = envs.make(f"gym/{task}")
    spec = env.spec
    assert (env.engine, spec.name) == ("c", f"gym/{task}")
    state = jax.jit(env.reset)(jax.random.key(1))
    assert state.obs.shape == (spec.observation_size,)
    with pytest.raises(UsageError, match="runs on engine c alone, not on 'mjx'"):
        envs.make(f"gym/{task}:engine=mjx")
    if task == "Pusher":
        assert env.recover is None
        return
    recovered = jax.jit(env.recover)(state.obs)
    hidden = {"Humanoid": 2, "Swimmer": 2}.get(task, 0)
    for field, first in (("qpos", hidden), ("qvel", 0)):
        np.testing.assert_allclose(
            recovered.sim.fields[field][first:], state.sim.fields[field][first:], atol=1e-6
        )
    np.testing.assert_allclose(recovered.obs, state.obs, rtol=1e-5, atol=1e-5)


def test_targets_and_objects_start_where_gymnasium_puts_them():
    keys = jax.random.split(jax.random.key(0), 500)
    target = jax.jit(jax.vmap(envs.make("gym/Reacher").reset))(keys).sim.qpos[:, 2:]
    distance = np.linalg.norm(target, axis=1)
    assert 0.19 < distance.max() <= 0.2
    np.testing.assert_allclose((distance < 0.1).mean(), 0.25, atol=0.08)  # uniform
    place = jax.jit(jax.vmap(envs.make("gym/Pusher").reset))(keys).sim.qpos[:, 7:9]
    assert 0.17 < np.linalg.norm(place, axis=1).min() < 0.18
    assert (place >= np.array([-0.3, -0.2])).all() and (place <= np.array([0.0, 0.2])).all()
    assert (place[:, 0].min() < -0.28) and (np.abs(place[:, 1]).max() > 0.18)


def test_ant_can_leave_its_contact_forces_out(without_physics):
    env = envs.make("gym/Ant", contact_forces=False, **MJX)
    assert env.spec.observation_size == 27
    state = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(state.obs[:13], state.sim.qpos[2:])
    np.testing.assert_array_equal(state.obs[13:], state.sim.qvel)


def test_factors_scale_the_model_that_is_stepped(monkeypatch):
    put = []
    monkeypatch.setattr(gym_mjx, "_physics", lambda model, numbers: put.append(model))
    envs.make("gym/HalfCheetah", **MJX)
    envs.make("gym/HalfCheetah:mass=2,friction=0.5,gravity=0.1", **MJX)
    plain, scaled = put
    np.testing.assert_allclose(plain.body_mass.sum(), 14.0)  # the file says so
    np.testing.assert_allclose(scaled.body_mass, 2 * plain.body_mass)
    np.testing.assert_allclose(scaled.geom_friction[0], [0.2, 0.05, 0.05])
    np.testing.assert_allclose(scaled.opt.gravity[2], -0.981)


def test_pictures_show_robots_that_mjx_cannot_take():
    env = envs.make("gym/Humanoid:pixels=24")
    state = jax.jit(env.reset)(jax.random.key(0))
    assert state.obs.shape == (24, 24, 9) and np.array(state.obs).std() > 5


# ------------------------------------------------------------------------------- refusals


def test_an_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="'gym/Hoper'. Did you mean Hopper") as caught:
        envs.make("gym/Hoper")
    known = ", ".join((*gym_mjx.TASKS, *gym_c.TASKS))
    assert str(caught.value).endswith(f"There are: {known}.")


@pytest.mark.parametrize("missing", [ModuleNotFoundError, FileNotFoundError])
def test_without_gymnasium_s_files_the_extra_is_named(monkeypatch, missing):
    def files(package):
        raise missing(package)

    monkeypatch.setattr(resources, "files", files)
    with pytest.raises(UserError, match=r'pip install "planil_jax\[gymnasium\]"'):
        envs.make("gym/Hopper")


def test_the_robot_is_gymnasium_s_file_unchanged():
    model = gym_robots.load("Hopper", "hopper.xml")
    assert (model.nq, model.nv, model.nu) == (6, 6, 3)
    assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
