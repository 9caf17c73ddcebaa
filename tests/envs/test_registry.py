import jax
import pytest

from planil_jax import envs
from planil_jax.base import UsageError
from planil_jax.envs import point_mass, registry


@pytest.fixture(autouse=True)
def _a_table_of_our_own(monkeypatch):
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))


def refusal(name: str, **options) -> str:
    with pytest.raises(UsageError) as caught:
        envs.make(name, **options)
    return str(caught.value)


def test_every_registered_name_makes_an_environment_of_that_name():
    for name in envs.names():
        if name.endswith("/*"):
            continue
        env = envs.make(name)
        assert env.spec.name == name
        state = jax.eval_shape(env.reset, jax.random.key(0))
        assert state.obs.shape == (env.spec.observation_size,)


def test_an_unknown_name_is_told_the_nearest_and_all_there_are():
    message = refusal("navigaton")
    assert message.startswith("no environment 'navigaton'. Did you mean 'navigation'?")
    assert message.endswith(f"There are: {', '.join(sorted(envs.names()))}.")


def test_a_name_near_to_none_gets_no_hint():
    assert "Did you mean" not in refusal("zzz")


def test_an_unknown_option_is_told_the_options_there_are():
    message = refusal("point_mass", length=3)
    assert "'length'" in message
    assert message.endswith("It has: episode_length, action_bound.")


def test_an_environment_without_options_says_so():
    assert refusal("probe/one_step", length=3).endswith("It has: none.")


def test_options_can_be_a_part_of_the_name():
    env = envs.make("navigation:start=field,field=80,episode_length=7")
    assert env.spec.episode_length == 7
    far = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 64)).obs[:, :2]
    assert 30.0 < abs(far).max() <= 40.0
    assert (
        envs.make("navigation:episode_length=7", episode_length=5).spec.episode_length == 5
    )


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("point_mass:episode_length", "option=value"),
        ("point_mass:episode_length=1.5", "episode_length must be int, not '1.5'"),
        ("point_mass:action_bound=much", "action_bound must be float, not 'much'"),
        ("point_mass:episode_lenght=3", "Did you mean episode_length?"),
    ],
)
def test_an_option_in_the_name_that_cannot_be_is_refused_by_name(name, named):
    assert named in refusal(name)


def test_a_family_is_told_the_rest_of_the_name_and_its_options():
    asked = []

    def family(task: str, size: float = 1.0):
        asked.append((task, size))
        return point_mass.make()

    envs.register("outside/*", family)
    envs.make("outside/cart/fast:size=2")
    assert asked == [("cart/fast", 2.0)]
    assert "no environment 'outside/'" in refusal("outside/")
    assert refusal("outside/cart", task="x").endswith("It has: size.")


def test_a_maker_can_be_imported_when_it_is_first_used():
    envs.register("outside/late", "planil_jax.envs.point_mass:make")
    assert envs.make("outside/late").spec.name == "point_mass"


def test_an_option_arrives():
    assert envs.make("point_mass", episode_length=7).spec.episode_length == 7


def test_an_outside_package_can_register_and_make_its_own():
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
