import numpy as np
import pytest

from planil_jax import envs
from planil_jax.base import UsageError
from planil_jax.data import demos, formats

pytestmark = pytest.mark.fast

LENGTHS = np.array([3, 5])


def convert(source, environment, path, count):
    spec = envs.make(environment).spec
    return formats.convert(source, environment, spec, path, count)[0]


def source(tmp_path, **changes):
    """Two episodes of point_mass, one after another, in arrays as others write them."""
    rng = np.random.default_rng(0)
    arrays = {
        "obs": rng.normal(size=(LENGTHS.sum() + 2, 4)).astype(np.float32),
        "acts": rng.uniform(-0.5, 0.5, (LENGTHS.sum(), 2)).astype(np.float32),
        "rews": np.arange(LENGTHS.sum(), dtype=np.float32),
        "lengths": LENGTHS,
        "terminal": np.array([True, False]),
    } | changes
    path = tmp_path / "theirs.npz"
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return str(path), arrays


def test_episodes_are_cut_where_they_end(tmp_path):
    path, arrays = source(tmp_path)
    out = str(tmp_path / "ours.npz")
    card = convert(path, "point_mass", out, 2)
    assert card.returns == (3.0, 25.0)
    first, second = demos.read(out)[0]
    np.testing.assert_array_equal(first.obs, arrays["obs"][:4])
    np.testing.assert_array_equal(second.obs, arrays["obs"][4:])
    np.testing.assert_array_equal(second.actions, arrays["acts"][3:])
    assert first.terminal and not second.terminal
    loaded = demos.load(out, envs.make("point_mass").spec)
    assert loaded.length.tolist() == [3, 5]


def test_the_first_episodes_can_be_converted_alone_and_without_actions(tmp_path):
    path, _ = source(tmp_path, acts=None)
    out = str(tmp_path / "ours.npz")
    convert(path, "point_mass", out, 1)
    (episode,) = demos.read(out)[0]
    assert episode.actions is None and episode.length == 3


def test_choices_may_be_given_by_their_numbers(tmp_path):
    name, numbers = "pendulum:choices=3", np.array([0, 2, 1, 1, 0, 2, 2, 0])
    obs = np.zeros((LENGTHS.sum() + 2, 3), np.float32)
    path, _ = source(tmp_path, obs=obs, acts=numbers)
    out = str(tmp_path / "ours.npz")
    convert(path, name, out, 2)
    loaded = demos.load(out, envs.make(name).spec)
    np.testing.assert_array_equal(loaded.actions[0, :3].argmax(1), numbers[:3])
    np.testing.assert_array_equal(loaded.actions[1].argmax(1), numbers[3:])
    path, _ = source(tmp_path, obs=obs, acts=numbers + 1)
    with pytest.raises(UsageError, match="acts are 1 to 3, where .* its 3 choices from 0"):
        convert(path, name, out, 2)


@pytest.mark.parametrize(
    ("changes", "count", "message"),
    [
        ({"obs": np.zeros((10, 3))}, 2, "obs is (10, 3), where its lengths and point_mass"),
        ({"acts": np.zeros((8, 3))}, 2, "acts is (8, 3), where its lengths and point_mass"),
        ({"rews": np.zeros(7)}, 2, "rews is (7,), where"),
        ({"terminal": np.zeros(3)}, 2, "terminal is (3,), where"),
        ({"lengths": None}, 2, "lacks 'lengths'; it holds obs"),
        ({}, 3, "has 2 episodes, not 3"),
        ({"obs": np.array([{}])}, 2, "obs is an array of objects (pickled objects are never loaded"),
    ],
)
def test_unsuitable_arrays_are_refused_in_one_sentence(tmp_path, changes, count, message):
    path, _ = source(tmp_path, **changes)
    with pytest.raises(UsageError) as caught:
        convert(path, "point_mass", str(tmp_path / "ours.npz"), count)
    assert message in str(caught.value) and "\n" not in str(caught.value)
