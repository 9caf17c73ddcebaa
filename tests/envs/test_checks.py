import math

import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.base import EnvSpec, UsageError
from planil_jax.envs import pendulum, point_mass, registry

INF, NAN = math.inf, math.nan
SPEC = EnvSpec(
    name="mine",
    observation_names=("x [m]", "v [m/s]"),
    action_low=(-1.0, 0.0),
    action_high=(1.0, 2.0),
    episode_length=10,
    control_period=0.1,
)


def refusal(**changed) -> str:
    with pytest.raises(UsageError) as caught:
        envs.check_spec(SPEC._replace(**changed))
    return str(caught.value)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"action_low": (-INF, 0.0)}, ["action entry 0", "-inf and 1.0"]),
        ({"action_high": (1.0, INF)}, ["action entry 1", "0.0 and inf"]),
        ({"action_low": (-1.0, NAN)}, ["action entry 1", "nan and 2.0"]),
        ({"action_high": (1.0, NAN)}, ["action entry 1", "0.0 and nan"]),
        ({"action_low": (-1.0, 3.0)}, ["action entry 1", "3.0 and 2.0"]),  # swapped
        ({"action_low": (1.0, 0.0)}, ["action entry 0", "1.0 and 1.0"]),  # equal
        ({"action_low": (-1.0, "0")}, ["action entry 1", "0 and 2.0"]),
        ({"action_low": (-1.0,)}, ["action_low has 1", "action_high has 2"]),
        ({"action_low": (), "action_high": ()}, ["action_low", "at least one"]),
        ({"action_low": -1.0}, ["action_low", "tuple of numbers", "-1.0"]),
        ({"episode_length": 0}, ["episode_length", ">= 1", "0"]),
        ({"episode_length": -3}, ["episode_length", "-3"]),
        ({"episode_length": 2.5}, ["episode_length", "2.5"]),
        ({"control_period": 0.0}, ["control_period", "0.0"]),
        ({"control_period": -0.1}, ["control_period", "-0.1"]),
        ({"control_period": NAN}, ["control_period", "nan"]),
        ({"control_period": INF}, ["control_period", "inf"]),
        ({"observation_names": ()}, ["observation_names", "empty"]),
        ({"observation_names": ("x", "v", "x")}, ["'x'", "twice"]),
        ({"observation_names": "xv"}, ["observation_names", "'xv'"]),
        ({"observation_names": ("x", 3)}, ["observation_names", "3"]),
    ],
)
def test_a_specification_that_cannot_be_used_is_refused_in_one_sentence(changed, words):
    message = refusal(**changed)
    assert message.startswith("environment 'mine': ")
    assert message.endswith(".") and "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"action_low": np.float32([-1, -1]), "action_high": np.float32([1, 1])},
        {"episode_length": np.int64(1)},
        {"observation_names": (), "image": (64, 64, 9)},
    ],
)
def test_a_usable_specification_is_accepted(changed):
    envs.check_spec(SPEC._replace(**changed))


def test_environments_are_checked_where_they_are_made_by_name(monkeypatch):
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))
    env = pendulum.make()
    unbounded = env._replace(spec=env.spec._replace(action_high=(INF,)))
    envs.register("outside/unbounded", lambda: unbounded)
    envs.register("outside/none", lambda: None)
    for name, words in {
        "pendulum:episode_length=0": "episode_length must be a whole number >= 1, not 0",
        "course:episode_length=-1": "episode_length must be a whole number >= 1, not -1",
        "point_mass:action_bound=0": "action entry 0 are -0.0 and 0.0",
        "point_mass:action_bound=-1": "action entry 0 are 1.0 and -1.0",
        "outside/unbounded": "action entry 0 are -2.0 and inf",
        "outside/none": "must return an Environment, not a NoneType",
    }.items():
        with pytest.raises(UsageError) as caught:
            envs.make(name)
        assert words in str(caught.value)


def broken(**functions):
    """The point mass with other functions."""
    return point_mass.make()._replace(**functions)


def stepping(change):
    """The point mass whose step returns a changed state and transition."""
    env = point_mass.make()
    return env._replace(step=lambda state, action: change(*env.step(state, action)))


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (
            point_mass.make()._replace(
                spec=point_mass.make().spec._replace(observation_names=tuple("abc"))
            ),
            "reset's obs has the shape (4,), not (3,)",
        ),
        (broken(reset=lambda key: jnp.zeros(4)), "reset(key) must return an EnvState"),
        (broken(step=lambda state, action: 1 / 0), "step(state, action) fails (ZeroDiv"),
        (stepping(lambda after, transition: after), "must return (EnvState, Transition)"),
        (
            stepping(lambda after, moved: (after.replace(time=after.time + 0.5), moved)),
            "reset's state.time is int32[], but step's is float32[]",
        ),
        (
            stepping(lambda after, moved: (after, moved.replace(next_obs=jnp.zeros(2)))),
            "the transition's next_obs has the shape (2,), not (4,)",
        ),
    ],
)
def test_an_object_whose_functions_make_no_environment_is_refused(env, words):
    with pytest.raises(UsageError) as caught:
        envs.hold(env)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_environment_is_not_held():
    with pytest.raises(UsageError, match="env must be a name or an Environment, not 3"):
        envs.hold(3)
    assert envs.hold(point_mass.make()) == "object/point_mass"
