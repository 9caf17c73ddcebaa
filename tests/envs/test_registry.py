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
