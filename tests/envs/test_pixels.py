import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.base import EnvState, UsageError
from planil_jax.envs import navigation, pendulum, pixels, point_mass, probes, scenes
from planil_jax.models import simulator

STEPS, SIZE = 6, 16
ACTIONS = jnp.asarray(np.random.default_rng(0).uniform(-2, 2, (STEPS, 1)), jnp.float32)


@functools.cache
def rolled(name):
    """The start, and the states and transitions `[STEPS]` under ACTIONS."""
    env = envs.make(name)

    def roll(key):
        def step(state, action):
            next_state, transition = env.step(state, action)
            return next_state, (next_state, transition)

        start = env.reset(key)
        return start, *jax.lax.scan(step, start, ACTIONS)[1]

    return jax.jit(roll)(jax.random.key(0))


SEEN = f"pendulum:pixels={SIZE},episode_length=5"


def test_an_image_has_the_shape_and_dtype_of_the_specification():
    env = envs.make("pendulum:pixels=24,frames=2")
    assert env.spec.image == (24, 24, 6) and env.spec.observation_names == ()
    state = jax.eval_shape(env.reset, jax.random.key(0))
    assert state.obs.shape == (24, 24, 6) and state.obs.dtype == jnp.uint8
    usual = envs.make("pendulum", pixels=64).spec
    assert usual.image == (64, 64, 9)
    bare = envs.make("pendulum").spec
    kept = bare._replace(observation_names=(), image=(64, 64, 9))
    assert usual == kept and bare.image is None


def test_physics_rewards_and_ends_are_those_of_the_environment():
    bare_start, bare_states, bare_transition = rolled("pendulum:episode_length=5")
    start, states, transition = rolled(SEEN)
    for one, other in ((bare_start, start.sim.inner), (bare_states, states.sim.inner)):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), one, other)
    for field in ("action", "reward", "terminal", "truncated"):
        expected = getattr(bare_transition, field)
        np.testing.assert_allclose(getattr(transition, field), expected, rtol=1e-6)
    assert transition.truncated.tolist() == [False] * 4 + [True] * 2
    np.testing.assert_array_equal(states.time, bare_states.time)


def test_the_newest_frame_is_last_and_the_first_frame_is_repeated():
    start, states, _ = rolled(SEEN)
    frames = np.split(np.asarray(start.obs), 3, axis=-1)
    assert all(np.array_equal(frames[0], frame) for frame in frames)
    stacks = np.concatenate([np.asarray(start.obs)[None], states.obs])
    for t in range(1, STEPS + 1):
        np.testing.assert_array_equal(stacks[t][..., :6], stacks[t - 1][..., 3:])
        assert not np.array_equal(stacks[t][..., 6:], stacks[t][..., 3:6])
    draw = jax.jit(scenes.pendulum("pendulum", scenes.View(height=SIZE, width=SIZE)))
    last = draw(jax.tree.map(lambda leaf: leaf[-1], states.sim.inner.sim))
    difference = np.abs(np.int32(stacks[-1][..., 6:]) - np.int32(last))
    assert np.mean(difference > 2) < 0.01  # a pixel on an edge


def test_a_transition_holds_the_images_before_and_after_it():
    start, states, transition = rolled(SEEN)
    np.testing.assert_array_equal(transition.obs[0], start.obs)
    np.testing.assert_array_equal(transition.obs[1:], states.obs[:-1])
    np.testing.assert_array_equal(transition.next_obs, states.obs)


def test_a_step_keeps_the_dtypes_of_the_state_and_none_is_weak():
    env = envs.make(SEEN)
    start = jax.eval_shape(env.reset, jax.random.key(0))
    next_state, _ = jax.eval_shape(env.step, start, ACTIONS[0])
    assert jax.tree.structure(start) == jax.tree.structure(next_state)
    for before, after in zip(
        jax.tree.leaves(start), jax.tree.leaves(next_state), strict=True
    ):
        assert (before.shape, before.dtype) == (after.shape, after.dtype)
        assert not before.weak_type and not after.weak_type


def test_a_model_without_images_starts_from_the_inner_state():
    _, states, _ = rolled(SEEN)
    last = jax.tree.map(lambda leaf: leaf[-1], states)
    z = simulator.make(pendulum.make()).start((), last)
    np.testing.assert_array_equal(z.obs, last.sim.inner.obs)


def test_action_wrappers_are_inside_the_image_wrapper():
    env = envs.make("pendulum:pixels=8,tremble=0.5,action_repeat=2,action_delay=1")
    assert env.spec.image == (8, 8, 9) and env.spec.control_period == 0.1
    state = jax.eval_shape(env.reset, jax.random.key(0))
    assert state.obs.shape == (8, 8, 9)
    depth = 0
    while isinstance(getattr(state.sim, "inner", None), EnvState):
        state, depth = state.sim.inner, depth + 1
    assert depth == 4 and state.obs.shape == (3,)


# --------------------------------------------------------------------------------- scenes


def picture(scene, name, sim, camera="", size=64):
    draw = scene(name, scenes.View(height=size, width=size, camera=camera))
    return np.int32(jax.jit(draw)(jax.tree.map(jnp.float32, sim)))


def middle(mask):
    """Mean position of a mask's pixels, right of and above the middle of the image."""
    rows, columns = np.nonzero(mask)
    assert len(rows)
    height, width = mask.shape
    return columns.mean() + 0.5 - width / 2, height / 2 - rows.mean() - 0.5


def reddish(image):
    return image[..., 0] > 2 * image[..., 1]


def test_a_pendulum_is_drawn_at_its_angle():
    draw = jax.jit(jax.vmap(scenes.pendulum("pendulum", scenes.View())))
    angles = jnp.linspace(-3.0, 3.0, 7)
    image = np.int32(draw(pendulum.Pendulum(angles, jnp.zeros(7))))
    for angle, one in zip(np.asarray(angles), image, strict=True):
        right, up = middle(one[..., 0] > one[..., 2] + 20)  # the rod is brown
        # The rod's middle is half a metre from the pin; a metre at 4 m is 25.4 pixels.
        length = 0.5 * 32 / math.tan(math.radians(17.5)) / 4
        assert abs(right + length * math.sin(angle)) < 1.5
        assert abs(up - length * math.cos(angle)) < 1.5


def test_a_point_mass_is_drawn_at_its_position():
    image = picture(scenes.point_mass, "point_mass", point_mass.Point(1.0, -0.5, 0.0, 0.0))
    right, up = middle((image[..., 0] > image[..., 2] + 20) & ~reddish(image))
    assert abs(right - 16) < 1 and abs(up + 8) < 1  # 16 pixels a metre
    right, up = middle(reddish(image))
    assert abs(right) < 0.6 and abs(up) < 0.6


def car(x, y, heading):
    zero = 0.0
    return navigation.Car(x, y, heading, zero, zero, zero, zero)


def test_the_car_is_drawn_at_its_pose():
    for x, y, heading in [(0.0, 0.0, 0.0), (2.0, 8.0, 2.0), (9.0, 1.0, -1.5)]:
        image = picture(scenes.navigation_car, "navigation", car(x, y, heading))
        brown = (image[..., 0] > image[..., 2] + 20) & ~reddish(image)
        nose = image.min(axis=-1) > 180
        pixel = 64 / 18  # a metre; the picture's middle is (5, 5)
        for mask, ahead in ((brown | nose, 0.64), (nose, 1.2)):
            right, up = middle(mask)
            assert abs(right - pixel * (x + ahead * math.cos(heading) - 5)) < 1.2
            assert abs(up - pixel * (y + ahead * math.sin(heading) - 5)) < 1.2
        right, up = middle(reddish(image))
        assert abs(right - pixel * 5) < 0.6 and abs(up - pixel * 5) < 0.6


def test_the_chasing_camera_shows_the_goal_on_the_correct_side():
    for turn in (-0.4, 0.0, 0.4):  # radians that the goal is to the left
        heading = math.pi / 4 - turn
        image = picture(
            scenes.navigation_car, "navigation", car(3.0, 3.0, heading), "chase"
        )
        right, _ = middle(reddish(image))
        expected = -32 * math.tan(turn) / math.tan(math.radians(30))
        assert abs(right - expected) < 0.25 * abs(expected) + 1.5
        brown = (image[..., 0] > image[..., 2] + 20) & ~reddish(image)
        right, up = middle(brown)
        assert abs(right) < 1 and up < 0  # the car itself, before the camera and below it


@pytest.mark.parametrize("name", ["gym/Hopper", "brax/inverted_pendulum/spring"])
def test_tasks_of_the_libraries_can_be_rendered(name):
    env = envs.make(f"{name}:pixels=10,frames=1")
    assert jax.eval_shape(env.reset, jax.random.key(0)).obs.shape == (10, 10, 3)


def test_tasks_of_playground_can_be_rendered():
    pytest.importorskip("mujoco_playground")
    env = envs.make("playground/CartpoleBalance:pixels=10,camera=lookatcart")
    assert env.spec.image == (10, 10, 9)
    assert jax.eval_shape(env.reset, jax.random.key(0)).obs.shape == (10, 10, 9)


def test_a_registered_scene_is_rendered(monkeypatch):
    monkeypatch.setattr(scenes, "_SCENES", dict(scenes._SCENES))

    def grey(name, view):
        assert name == "probe/one_step"
        shade = {"": 100, "dark": 10}[view.camera]
        return lambda sim: jnp.full((view.height, view.width, 3), shade, jnp.uint8)

    scenes.register("probe/one_step", grey)
    bright = envs.make("probe/one_step:pixels=4").reset(jax.random.key(0)).obs
    dark = envs.make("probe/one_step:pixels=4,camera=dark").reset(jax.random.key(0)).obs
    assert (int(bright.max()), int(dark.max()), dark.shape) == (100, 10, (4, 4, 9))
    given = pixels.wrap(probes.one_step(), 5, grey, frames=1)
    assert given.reset(jax.random.key(0)).obs.shape == (5, 5, 3)


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pendulum:pixels=64,observe=0", "option observe needs an observation with entri"),
        ("pendulum:observation_noise=0.1,pixels=64", "leave out that option or pixels"),
        ("pendulum:frames=2", "option frames needs option pixels beside it"),
        ("pendulum:pixels=-1", "option pixels must be a whole number >= 1, not -1"),
        ("pendulum:pixels=8,frames=0", "option frames must be a whole number >= 1, not 0"),
        ("pendulum:pixels=8.5", "option pixels must be int"),
        ("pendulum:pixels=8,camera=frnt", "no camera 'frnt'. Did you mean front"),
        ("probe/countdown:pixels=8", "has no scene to draw: give it one by scenes.regist"),
    ],
)
def test_impossible_image_options_are_refused(name, message):
    with pytest.raises(UsageError) as refusal:
        envs.make(name)
    assert message in str(refusal.value)


def test_an_image_environment_cannot_be_wrapped_again():
    with pytest.raises(UsageError, match="shows images already"):
        pixels.wrap(envs.make(SEEN))


def test_an_environment_keeps_an_option_with_the_name_of_a_wrapper_s_option():
    def make(camera: str = "mine"):
        spec = pendulum.make().spec._replace(name=f"pendulum {camera}")
        return pendulum.make()._replace(spec=spec)

    from planil_jax.envs import registry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_MAKERS", dict(registry._MAKERS))
        envs.register("filmed", make)
        assert envs.make("filmed:camera=yours").spec.name == "pendulum yours"
