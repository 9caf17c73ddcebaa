"""MuJoCo's renderer: its settings, and its images where there is OpenGL."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.base import UsageError, UserError
from planil_jax.data import demos
from planil_jax.envs import mjcf, mjcf_scene, mujoco_renderer, registry, scenes
from planil_jax.evaluation import collect, expert_policies
from planil_jax.reporting import film

BALL = """
<mujoco>
  <option timestep="0.05" gravity="0 0 0"><flag constraint="disable"/></option>
  <visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual>
  <asset><mesh name="wedge" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset>
  <worldbody>
    <camera name="front" pos="0 -4 0" xyaxes="1 0 0 0 0 1"/>
    <camera name="back" pos="0 4 0" xyaxes="-1 0 0 0 0 1"/>
    <body name="mark" mocap="true" pos="0 0 1">
      <geom size=".2" rgba="0 1 0 1" contype="0" conaffinity="0"/>
    </body>
    <body>
      <joint name="rail" type="slide" axis="1 0 0" damping="1"/>
      <geom name="ball" {shape} mass=".1" rgba="1 0 0 1" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <actuator><motor joint="rail" ctrlrange="-1 1"/></actuator>
</mujoco>
"""
NAME, SIZE, LENGTH = "renderer/ball", 32, 4
SPHERE, WEDGE = 'size=".3"', 'type="mesh" mesh="wedge"'
VIEW = scenes.View(height=SIZE, width=SIZE)


@pytest.fixture
def ball(monkeypatch):
    """Registers a ball of a shape on a rail, and returns its model."""

    def register(shape=SPHERE):
        model = mjcf.load(BALL.format(shape=shape))

        def reset(key, data):
            moved = jax.random.uniform(key, (1,), minval=-1.0, maxval=1.0)
            return data.replace(qpos=moved, mocap_pos=data.mocap_pos - 0.5)

        def make():
            env = mjcf.make(
                NAME,
                model,
                lambda data: data.qpos,
                ("x [m]",),
                control_period=0.1,
                episode_length=LENGTH,
                reset=reset,
                reward=lambda data, action, after: -jnp.abs(after.qpos[0]),
            )
            return env._replace(demonstrator=lambda state: -jnp.sign(state.sim.qpos))

        monkeypatch.setitem(registry._MAKERS, NAME, make)
        monkeypatch.setitem(scenes._SCENES, NAME, mjcf_scene.of_mjcf(model))
        return model

    return register


@pytest.fixture
def graphics(ball):
    """Skips where there is no OpenGL."""
    ball()
    try:
        mujoco_renderer.require_opengl(mujoco_renderer.render_spec(NAME, VIEW))
    except UserError as error:
        pytest.skip(str(error))


def collected(tmp_path, environment, **more):
    path = str(tmp_path / "recorded.npz")
    collect.collect(environment, path, 2, 1, True, unlearned=True, **more)
    return demos.read(path)


# --------------------------------------------------------------------------- without OpenGL


def test_an_environment_with_poses_observes_its_bodies_and_steps_as_before(ball):
    model = ball()
    env = envs.make(NAME, action_repeat=2)
    posed = mujoco_renderer.with_poses(env, mujoco_renderer.render_spec(NAME, VIEW))
    both = jax.jit(lambda key: (env.reset(key), posed.reset(key)))
    start, posed_start = both(jax.random.key(3))
    x = float(start.obs[0])
    np.testing.assert_allclose(posed_start.obs, [x, -0.5, -0.5, 0.5, 1, 0, 0, 0], atol=1e-6)
    action = jnp.ones((1,))
    _, plain = jax.jit(env.step)(start, action)
    _, transition = jax.jit(posed.step)(posed_start, action)
    np.testing.assert_allclose(transition.next_obs[0], plain.next_obs[0], atol=1e-6)
    np.testing.assert_allclose(transition.obs, posed_start.obs)
    np.testing.assert_allclose(transition.reward, plain.reward, atol=1e-6)

    data = mujoco.MjData(model)
    mujoco_renderer.pose(model, data, np.asarray(posed_start.obs))
    np.testing.assert_allclose(data.geom("ball").xpos, [x, 0, 0], atol=1e-6)
    np.testing.assert_allclose(data.geom_xpos[0], [-0.5, -0.5, 0.5], atol=1e-6)


def test_an_environment_that_cannot_be_drawn_is_refused_in_one_sentence(ball):
    ball()
    with pytest.raises(UsageError, match="'pendulum' is no MuJoCo model"):
        mujoco_renderer.render_spec("pendulum", VIEW)
    with pytest.raises(UsageError, match="no camera 'frnt'. Did you mean front"):
        mujoco_renderer.render_spec(NAME, scenes.View(camera="frnt"))
    with pytest.raises(UsageError, match=f"--renderer=mujoco.*--env={NAME}:pixels=64"):
        collect.collect(NAME, "x.npz", 1, 1, True, renderer="mujoco")
    with pytest.raises(UsageError, match="renderer is one of raycast, mujoco, not 'gl'"):
        collect.collect(NAME, "x.npz", 1, 1, True, renderer="gl")


def test_without_opengl_nothing_is_computed_and_the_packages_are_named(
    ball, tmp_path, monkeypatch
):
    def missing():
        raise AttributeError("'NoneType' object has no attribute 'eglQueryString'")

    ball()
    monkeypatch.setattr(mujoco_renderer, "_platform", missing)
    monkeypatch.setattr(expert_policies, "rollout", None)
    with pytest.raises(UserError, match="libegl1.*libosmesa6.*MUJOCO_GL=osmesa"):
        collected(tmp_path, f"{NAME}:pixels={SIZE}", renderer="mujoco")
    assert list(tmp_path.iterdir()) == []


def test_the_size_and_the_camera_are_those_of_the_environments_name():
    name = "kitchen:wobble=0,pixels=48,frames=1,camera=front"
    view = collect._asked_view(name, "mujoco")
    assert view == scenes.View(height=48, width=48, camera="front")


# ------------------------------------------------------------------------------ with OpenGL


def test_the_renderer_draws_the_episodes_that_the_ray_caster_draws(graphics, tmp_path):
    """Red and green pixels agree, except at edges."""
    name = f"{NAME}:pixels={SIZE},frames=2"
    cast, cast_card = collected(tmp_path, name)
    drawn, card = collected(tmp_path, name, renderer="mujoco")
    assert card.image == cast_card.image == (SIZE, SIZE, 3)
    assert card.note == f"frames drawn by MuJoCo {mujoco.__version__}"
    assert cast_card.note == "frames drawn by the ray caster"
    assert card.expert == cast_card.expert and len(drawn) == 2
    for one, other in zip(cast, drawn, strict=True):
        np.testing.assert_allclose(one.actions, other.actions, atol=1e-5)
        np.testing.assert_allclose(one.rewards, other.rewards, atol=1e-5)
        assert one.obs.shape == other.obs.shape == (LENGTH + 1, SIZE, SIZE, 3)
        for channel in (0, 1):
            masks = one.obs[..., channel] > 100, other.obs[..., channel] > 100
            assert np.mean(masks[0] != masks[1]) < 0.005 < 0.01 < np.mean(masks[0])
    assert np.any(drawn[0].obs[0] != drawn[1].obs[0])


def test_the_camera_is_the_one_that_is_named(graphics):
    positions = np.array([[1.0, -0.5, -0.5, 0.5, 1, 0, 0, 0]])
    columns = []
    for camera in ("front", "back"):
        view = scenes.View(height=48, width=64, camera=camera)
        spec = mujoco_renderer.render_spec(NAME, view)
        ((frame,),) = mujoco_renderer.draw(spec, [positions])
        assert frame.shape == (48, 64, 3)
        columns.append(np.argwhere(frame[..., 0] > 100).mean(axis=0)[1])
    assert columns[0] > 40 and columns[1] < 24  # right from the front, left from behind


def test_meshes_are_drawn_that_the_ray_caster_refuses(graphics, ball, tmp_path):
    ball(WEDGE)
    name = f"{NAME}:pixels={SIZE}"
    with pytest.raises(UsageError, match="move ball to group 3"):
        envs.make(name)
    (episode, _), _ = collected(tmp_path, name, renderer="mujoco")
    assert np.mean(episode.obs[..., 0] > 100) > 0.01


def test_an_episode_is_filmed(graphics):
    expert = expert_policies.scripted_expert(NAME)
    frames, seconds = film.film(expert, scenes.View(height=40, width=40), episode=1)
    assert frames.shape == (LENGTH + 1, 40, 40, 3) and seconds == pytest.approx(0.4)
    assert np.any(frames[0] != frames[-1])
