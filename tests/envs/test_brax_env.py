import sys
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.base import UsageError, UserError
from planil_jax.envs import brax_env, mjcf

BRAX, PLAYGROUND = "brax/inverted_pendulum/spring", "playground/PendulumSwingup"
STEPS, LENGTH = 25, 20


def compiled(function, *examples):
    return jax.jit(function).lower(*examples).compile()


def library(name: str):
    """The environment of the library itself."""
    if name == BRAX:
        from brax import envs as brax_envs

        return brax_envs.get_environment("inverted_pendulum", backend="spring")
    from mujoco_playground import registry

    return registry.load("PendulumSwingup", config_overrides={"impl": "jax"})


@pytest.fixture(scope="module", params=[BRAX, PLAYGROUND])
def episode(request):
    """(environment, its start and transitions `[T]`, the library's)."""
    env, theirs = envs.make(request.param, episode_length=LENGTH), library(request.param)

    def both(key, actions):
        def plain(state, action):
            now = theirs.step(state, action)
            now = jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), now, state)
            return now, (now.obs, now.reward, now.done)

        begun = theirs.reset(jax.random.key_data(key))
        begun = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), begun)
        start = env.reset(key)
        transition = jax.lax.scan(env.step, start, actions)[1]
        return start, transition, begun.obs, jax.lax.scan(plain, begun, actions)[1]

    push = jnp.ones((STEPS, env.spec.action_size), jnp.float32)
    key = jax.random.key(3)
    return env, *compiled(both, key, push)(key, push)


def test_an_episode_equals_the_library_s_step_by_step(episode):
    env, start, transition, first, (obs, reward, done) = episode

    def same(found, wanted):
        # But for rounding: the two loops fuse operations differently.
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)

    same(start.obs, first)
    same(transition.obs[0], first)
    same(transition.obs[1:], obs[:-1])
    # Also at ends: next_obs is the observation before the reset.
    same(transition.next_obs, obs)
    same(transition.reward, reward)
    np.testing.assert_array_equal(transition.terminal, done > 0)
    assert np.ptp(obs, axis=0).max() > 0.1  # it moved


def test_truncation_and_termination_are_separate(episode):
    env, _, transition, _, _ = episode
    np.testing.assert_array_equal(transition.truncated, np.arange(1, STEPS + 1) >= LENGTH)
    if env.spec.name == BRAX:  # pushed steadily, its pole falls over before the end
        assert 1 < np.argmax(transition.terminal) < LENGTH - 1 and transition.terminal.any()
    else:
        assert not transition.terminal.any()


def test_the_specification_has_the_given_name_and_the_library_s_sizes(episode):
    env, start, _, _, _ = episode
    assert env.spec.control_period == 0.02
    assert env.spec.observation_names == tuple(f"obs {i}" for i in range(start.obs.size))
    assert (env.spec.action_low, env.spec.action_high) == ((-1.0,), (1.0,))
    assert envs.make(env.spec.name).spec.episode_length == 1000


@pytest.mark.parametrize("name", [BRAX, "brax/inverted_pendulum/mjx", PLAYGROUND])
def test_a_step_keeps_the_dtypes_of_the_state_and_none_is_weak(name):
    env = envs.make(name)
    start = jax.eval_shape(env.reset, jax.random.key(0))
    action = jax.ShapeDtypeStruct((env.spec.action_size,), jnp.float32)
    next_state, transition = jax.eval_shape(env.step, start, action)
    assert jax.tree.structure(start) == jax.tree.structure(next_state)
    for before, after in zip(
        jax.tree.leaves(start), jax.tree.leaves(next_state), strict=True
    ):
        assert (before.shape, before.dtype) == (after.shape, after.dtype)
    leaves = jax.tree.leaves((start, next_state, transition))
    assert not any(leaf.weak_type for leaf in leaves)
    assert (transition.terminal.dtype, transition.reward.dtype) == (bool, jnp.float32)


# ------------------------------------------------------------------------- other physics


def changes(name: str, settle, action: float, *options, steps: int = 1):
    """The change of the observation `[O]` in the first steps, for every set of options."""
    made = [envs.make(name, **kwargs) for kwargs in options]

    def change(key):
        start = settle(made[0].reset(key))
        push = jnp.full((steps, 1), action)
        return [jax.lax.scan(env.step, start, push)[0].obs - start.obs for env in made]

    key = jax.random.key(0)
    return compiled(change, key)(key)


def test_gravity_and_mass_of_a_playground_task_are_scaled():
    def horizontal(state):
        data = state.sim.data
        data = data.replace(qpos=jnp.full((1,), jnp.pi / 2), qvel=jnp.zeros((1,)))
        return replace(
            state, obs=jnp.array([0.0, 1.0, 0.0]), sim=state.sim.replace(data=data)
        )

    plain, none, half, heavy = changes(
        PLAYGROUND, horizontal, 0.0, {}, {"gravity": 0.0}, {"gravity": 0.5}, {"mass": 2.0}
    )
    # The speed after one step from rest is dt g / l, less the damper's share.
    assert abs(plain[2]) > 0.1
    np.testing.assert_allclose(none[2], 0.0, atol=1e-5)
    np.testing.assert_allclose(half[2] / plain[2], 0.5, rtol=0.01)
    np.testing.assert_allclose(heavy[2] / plain[2], 1.0, rtol=0.01)  # all bodies fall alike
    pushed, heavy = changes(
        PLAYGROUND, horizontal, 1.0, {"gravity": 0.0}, {"gravity": 0.0, "mass": 2.0}
    )
    np.testing.assert_allclose(heavy[2] / pushed[2], 0.5, rtol=0.02)


def test_the_shaped_reward_of_the_hopper_grows_before_its_original_reward_does():
    def of(height, speed):
        env = SimpleNamespace(_height=lambda data: height, _speed=lambda data: speed)
        return float(brax_env._rise_first(env, SimpleNamespace(data=None)))

    rewards = [of(0.0, 2.0), of(0.35, 0.0), of(0.7, 0.0), of(0.35, 1.0), of(0.9, 3.0)]
    np.testing.assert_allclose(rewards, [0.0, 0.05, 0.2, 0.15, 1.0], rtol=1e-6)
    shaped = envs.make("playground/HopperHop:shaped=True")
    state = jax.eval_shape(shaped.reset, jax.random.key(0))
    step = jax.eval_shape(shaped.step, state, jnp.zeros((4,)))
    assert step[1].reward.shape == ()


def test_gravity_and_mass_of_a_brax_task_are_scaled():
    options = {}, {"gravity": 0.0}, {"gravity": 0.5}, {"mass": 2.0}
    plain, none, half, heavy = changes(BRAX, lambda state: state, 1.0, *options, steps=5)
    # The pushed pole leans by some tenths, so that what gravity adds to its speed (entry
    # 3) is nearly linear in gravity; the push moves a cart of twice the mass half as much.
    assert abs((plain - none)[3]) > 0.01
    np.testing.assert_allclose((half - none)[3] / (plain - none)[3], 0.5, rtol=0.1)
    np.testing.assert_allclose(heavy[2] / plain[2], 0.5, rtol=0.1)


def test_a_scaled_model_has_updated_constants_and_the_original_is_unchanged():
    xml = """<mujoco><worldbody><geom type="plane" size="1 1 1" friction="0.8 0.02 0.01"/>
      <body pos="0 0 1"><freejoint/><geom size="0.1" mass="3"/></body>
    </worldbody></mujoco>"""
    model = mujoco.MjModel.from_xml_string(xml)
    other = mjcf.scale_physics(model, mass=2.0, friction=0.5, gravity=0.25)
    np.testing.assert_allclose(other.body_mass, [0.0, 6.0])
    np.testing.assert_allclose(other.body_subtreemass, [6.0, 6.0])
    np.testing.assert_allclose(other.body_inertia, 2 * model.body_inertia)
    np.testing.assert_allclose(other.body_invweight0[1], model.body_invweight0[1] / 2)
    np.testing.assert_allclose(other.dof_M0, 2 * model.dof_M0)
    np.testing.assert_allclose(other.geom_friction[0], [0.4, 0.01, 0.005])
    np.testing.assert_allclose(other.opt.gravity, [0.0, 0.0, -9.81 / 4])
    np.testing.assert_allclose(model.body_mass, [0.0, 3.0])
    np.testing.assert_allclose(model.geom_friction[0], [0.8, 0.02, 0.01])


# ------------------------------------------------------------------------------- refusals


def refusal(name: str, **options) -> str:
    with pytest.raises(UsageError) as caught:
        envs.make(name, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("brax/hoper", "no task 'hoper'. Did you mean hopper"),
        ("brax/zzz", "It has: ant, halfcheetah, hopper, humanoid"),
        ("brax/hopper/sprin", "no back end 'sprin'. Did you mean spring?"),
        ("brax/hopper/warp", "It has: generalized, mjx, positional, spring."),
        ("brax/hopper/spring:mass=2", "choose generalized or mjx"),
        ("brax/hopper:backend=spring", "no option 'backend'"),
        ("playground/CheetaRun", "no task 'CheetaRun'. Did you mean CheetahRun?"),
        ("playground/zzz", "registry.ALL_ENVS"),
        ("playground/CheetahRun:impl=cuda", "impl must be jax or warp, not 'cuda'"),
        ("playground/CheetahRun:shaped=True", "Tasks that have one: HopperHop."),
    ],
)
def test_unknown_tasks_and_options_are_refused_by_name(name, named):
    assert named in refusal(name)


def test_without_playground_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco_playground", None)
    with pytest.raises(UserError) as caught:
        envs.make("playground/CheetahRun")
    assert str(caught.value) == (
        "environment 'playground/CheetahRun' needs MuJoCo Playground, which is not "
        'installed: pip install "planil_jax[playground]".'
    )


@pytest.mark.parametrize("task", ["PandaPickCube", "Go1JoystickFlatTerrain"])
def test_a_task_that_would_download_is_refused_without_a_download(
    task, monkeypatch, tmp_path
):
    from mujoco_playground._src import mjx_env

    if mjx_env.MENAGERIE_PATH.exists():
        pytest.skip("the robots' models are here")

    def download(*args):
        raise AssertionError("it tried to download")

    monkeypatch.setattr(mjx_env, "_clone_with_progress", download)
    message = refusal(f"playground/{task}")
    assert task in message and "ensure_menagerie_exists()" in message


def test_an_implementation_that_the_machine_lacks_is_refused(monkeypatch):
    from mujoco_playground._src import dm_control_suite

    def lacking(config):
        assert config.impl == "warp"
        raise RuntimeError("no such driver")

    monkeypatch.setitem(dm_control_suite._envs, "CheetahRun", lacking)
    message = refusal("playground/CheetahRun:impl=warp")
    assert "impl=warp (no such driver)" in message and "impl=jax" in message


def test_the_library_s_shared_configuration_is_unchanged():
    from mujoco_playground import registry

    before = registry.get_default_config("PendulumSwingup").to_dict()
    envs.make(PLAYGROUND, episode_length=7)
    assert registry.get_default_config("PendulumSwingup").to_dict() == before
    assert before["impl"] == "warp"
