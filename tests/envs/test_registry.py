import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.base import UsageError
from planil_jax.envs import point_mass, registry, wrappers

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def _a_copy_of_the_registry(monkeypatch):
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))


def refusal(name: str, **options) -> str:
    with pytest.raises(UsageError) as caught:
        envs.make(name, **options)
    return str(caught.value)


def test_an_unknown_name_is_refused_with_the_nearest_and_all_names():
    message = refusal("navigaton")
    assert message.startswith("no environment 'navigaton'. Did you mean navigation")
    assert f"There are: {', '.join(sorted(envs.names()))}. " in message
    assert message.endswith(
        "pj.register_env in every process, or an entry point of planil_jax.envs."
    )


def test_a_name_similar_to_none_gets_no_hint():
    assert "Did you mean" not in refusal("zzz")


def test_an_unknown_option_is_refused_with_the_known_options():
    message = refusal("point_mass", length=3)
    assert "'length'" in message
    assert "It has: episode_length, action_bound; and as every environment:" in message
    wrappers = "action_repeat, observe, action_delay, tremble, choices, "
    wrappers += "observation_noise, "
    assert message.endswith(f"{wrappers}pixels, frames, camera.")


def test_an_environment_without_options_says_so():
    assert "It has: none; and as" in refusal("probe/one_step", length=3)


def test_a_misspelt_wrapper_gets_a_hint():
    assert "Did you mean action_repeat" in refusal("point_mass:action_repaet=2")


@pytest.mark.parametrize("written", [True, False])
def test_every_environment_takes_wrappers_in_its_name_and_as_keywords(written):
    options = {"action_repeat": 2, "action_delay": 1, "tremble": 0.25}
    options |= {"observation_noise": 0.05, "observe": "0+1+4+5", "start": "field"}
    text = ",".join(f"{option}={value}" for option, value in options.items())
    name = f"navigation:{text}" if written else "navigation"
    env = envs.make(name, **({} if written else options))
    assert env.spec.episode_length == 50
    names = ("x [m]", "y [m]", "forward speed [m/s]", "sideways speed [m/s]")
    assert env.spec.observation_names == names
    state = env.reset(jax.random.key(0))
    layers = []
    while isinstance(state.sim, wrappers.Wrapped):
        layers.append(state.sim.memory)
        state = state.sim.inner
    noise_key, tremble_key, queue, masked, repeated = layers  # from the outside in
    assert noise_key.shape == tremble_key.shape == () and queue.shape == (1, 2)
    assert masked == repeated == ()
    assert abs(state.obs[:2]).max() > 1.0  # the option of the environment arrived as well


def test_choices_are_outside_the_other_action_wrappers():
    """So that a delayed choice is a torque of 0 until it arrives."""
    env = envs.make("pendulum:choices=3,action_delay=1")
    start = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(start.sim.memory, [[0.0]])
    next_state, transition = env.step(start, np.eye(3, dtype=np.float32)[2])
    np.testing.assert_array_equal(next_state.sim.memory, [[2.0]])
    np.testing.assert_array_equal(transition.action, [0, 0, 1])


def test_default_options_add_no_wrapper():
    env = envs.make("point_mass:action_repeat=1,tremble=0,observation_noise=0.0")
    assert isinstance(env.reset(jax.random.key(0)).sim, point_mass.Point)


def test_an_environment_takes_an_option_with_the_name_of_a_wrapper():
    def outside(action_repeat: int = 3):
        return point_mass.make(episode_length=action_repeat)

    envs.register("outside/frames", outside)
    env = envs.make("outside/frames:action_repeat=7")
    assert env.spec.episode_length == 7
    assert isinstance(env.reset(jax.random.key(0)).sim, point_mass.Point)


def test_options_can_be_a_part_of_the_name():
    env = envs.make("navigation:start=field,field=80,episode_length=7")
    assert env.spec.episode_length == 7
    far = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 64)).obs[:, :2]
    assert 30.0 < abs(far).max() <= 40.0
    short = envs.make("navigation:episode_length=7", episode_length=5)
    assert short.spec.episode_length == 5


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("point_mass:episode_length", "option=value"),
        ("point_mass:episode_length=1.5", "episode_length must be int, not '1.5'"),
        ("point_mass:action_bound=much", "action_bound must be float, not 'much'"),
        ("point_mass:episode_lenght=3", "Did you mean episode_length?"),
        ("point_mass:action_repeat=half", "action_repeat must be int, not 'half'"),
        ("point_mass:action_repeat=0", "action_repeat must be a whole number >= 1"),
        (
            "pendulum:action_delay=1,action_delay=2",
            "option action_delay is given twice, as 1 and as 2: leave one out.",
        ),
        ("point_mass:episode_length=3,episode_length=3", "episode_length is given twice"),
        ("point_mass:observe=0+x", "as in observe=0+1, not '0+x'"),
        ("point_mass:observe=0+4", "observe must be different entries of 0 to 3"),
    ],
)
def test_an_impossible_option_in_the_name_is_refused_by_name(name, named):
    assert named in refusal(name)


def test_a_family_gets_the_rest_of_the_name_and_its_options():
    asked = []

    def family(task: str, size: float = 1.0):
        asked.append((task, size))
        return point_mass.make()

    envs.register("outside/*", family)
    envs.make("outside/cart/fast:size=2")
    assert asked == [("cart/fast", 2.0)]
    assert "no environment 'outside/'" in refusal("outside/")
    assert "It has: size; and as" in refusal("outside/cart", task="x")


def test_a_maker_can_be_imported_at_its_first_use():
    envs.register("outside/late", "planil_jax.envs.point_mass:make")
    assert envs.make("outside/late").spec.name == "point_mass"


def test_an_option_reaches_the_maker():
    assert envs.make("point_mass", episode_length=7).spec.episode_length == 7


def test_physics_use_float32_products():
    """A GPU rounds factors to ten bits by default."""

    def outside():
        env = point_mass.make()

        def turned(state, action):
            next_state, transition = env.step(state, action)
            obs = next_state.obs
            return next_state.replace(obs=jnp.outer(obs, obs) @ obs), transition

        return env._replace(step=turned)

    envs.register("outside/turned", outside)
    for env, precise in (outside(), False), (envs.make("outside/turned"), True):
        state = jax.eval_shape(env.reset, jax.random.key(0))
        action = jnp.zeros(env.spec.action_size)
        program = str(jax.make_jaxpr(env.step)(state, action))
        assert "dot_general" in program
        assert ("Precision.HIGHEST" in program) == precise


def test_another_package_can_register_an_environment():
    def outside(episode_length: int = 9):
        return point_mass.make(episode_length)

    envs.register("outside/car", outside)
    assert "outside/car" in envs.names()
    assert envs.make("outside/car").spec.episode_length == 9
    assert envs.make("outside/car", episode_length=2).spec.episode_length == 2
    assert "outside/car" in refusal("outside/cart")


def test_a_name_cannot_be_taken_twice():
    with pytest.raises(ValueError, match="'point_mass'"):
        envs.register("point_mass", lambda: None)
    assert envs.make("point_mass").spec.name == "point_mass"


def test_registering_the_same_function_again_changes_nothing():
    before = envs.names()
    envs.register("point_mass", point_mass.make)
    assert envs.names() == before


def test_a_file_that_is_run_twice_registers_twice(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from planil_jax import envs\n"
        "from planil_jax.envs import point_mass\n"
        "def make():\n    return point_mass.make(3)\n"
        "envs.register('outside/mine', make)\n"
    )
    runpy.run_path(str(file))
    runpy.run_path(str(file))
    assert envs.make("outside/mine").spec.episode_length == 3


def test_an_option_that_may_be_none_has_the_type_of_its_annotation():
    lengths = []

    def outside(episode_length: int | None = None):
        lengths.append(episode_length)
        return point_mass.make(5)

    envs.register("outside/optional", outside)
    envs.make("outside/optional:episode_length=none")
    envs.make("outside/optional:episode_length=7")
    assert lengths == [None, 7]
    message = refusal("outside/optional:episode_length=long")
    assert "option episode_length must be int, not 'long'" in message
