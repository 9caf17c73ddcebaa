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
    with pytest.raises(
        UsageError, match="actions are 1 to 3, where .* its 3 choices from 0"
    ):
        convert(path, name, out, 2)


@pytest.mark.parametrize(
    ("changes", "count", "message"),
    [
        (
            {"obs": np.zeros((10, 3))},
            2,
            "holds 3 observation entries, obs.0, obs.1, obs.2, where p",
        ),
        (
            {"acts": np.zeros((8, 3))},
            2,
            "holds 3 action entries, acts.0, acts.1, acts.2, where poi",
        ),
        ({"rews": np.zeros(7)}, 2, "rews is (7,), where"),
        ({"terminal": np.zeros(3, bool)}, 2, "terminal is (3,), where"),
        ({"terminal": np.zeros(2)}, 2, "type float64, where bools are wanted"),
        ({"terminal": np.array(["False"] * 2)}, 2, "type <U5, where bools are wanted"),
        ({"acts": np.ones((8, 2)) * 1j}, 2, "type complex128, where numbers are wanted"),
        (
            {"acts": np.full((8, 2), np.inf)},
            2,
            "episode 0, row 0: acts.0 is inf, which is not finite: ",
        ),
        (
            {"acts": np.full((8, 2), 90.0)},
            2,
            "acts.0 is 90, outside point_mass's bounds [-1, 1], as ",
        ),
        ({"lengths": np.array([-3, 11])}, 2, "lengths must say of one episode or more"),
        ({"lengths": np.array([0, 8])}, 2, "episode 0 has no transitions: leave such"),
        ({"lengths": None}, 2, "lacks 'lengths'; it holds obs"),
        ({}, 3, "has 2 episodes, not 3"),
        ({"obs": np.array([{}])}, 2, "obs is an array of objects (pickled objects are nev"),
    ],
)
def test_unsuitable_arrays_are_refused_in_one_sentence(tmp_path, changes, count, message):
    path, _ = source(tmp_path, **changes)
    with pytest.raises(UsageError) as caught:
        convert(path, "point_mass", str(tmp_path / "ours.npz"), count)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_actions_are_clipped_where_that_is_asked_for_and_it_is_said(tmp_path):
    acts = np.zeros((8, 2))
    acts[1, 0], acts[4, 1], acts[5, 1] = 90.0, -90.0, 1 + 1e-6
    path, _ = source(tmp_path, acts=acts)
    out, spec = str(tmp_path / "ours.npz"), envs.make("point_mass").spec
    _, notes = formats.convert(path, "point_mass", spec, out, 2, formats.Options(clip=True))
    assert notes == ["2 of 16 numbers of actions were clipped to their bounds."]
    first, second = demos.read(out)[0]
    assert first.actions[1, 0] == 1 and second.actions[1, 1] == -1
    acts[2, 0] = np.nan
    path, _ = source(tmp_path, acts=acts)
    with pytest.raises(
        UsageError, match="episode 0, row 2: acts.0 is nan, which is not finite"
    ):
        formats.convert(path, "point_mass", spec, out, 2, formats.Options(clip=True))


def test_indices_take_the_place_of_lengths_and_other_arrays_are_left_unread(tmp_path):
    path, _ = source(tmp_path)
    ours, theirs = str(tmp_path / "ours.npz"), str(tmp_path / "indices.npz")
    spec = envs.make("point_mass").spec
    convert(path, "point_mass", ours, 2)
    path, _ = source(
        tmp_path, lengths=None, indices=np.array([3]), infos=np.array([{}, {}])
    )
    _, notes = formats.convert(path, "point_mass", spec, theirs, 2)
    assert notes == ["left unread: infos."]
    for one, other in zip(demos.read(ours)[0], demos.read(theirs)[0], strict=True):
        np.testing.assert_array_equal(one.obs, other.obs)
        np.testing.assert_array_equal(one.actions, other.actions)


def test_episodes_without_transitions_are_left_out_where_that_is_asked_for(tmp_path):
    lengths, obs = np.array([3, 0, 5]), np.arange(44.0).reshape(11, 4)
    path, _ = source(tmp_path, lengths=lengths, obs=obs, terminal=None)
    out, spec = str(tmp_path / "ours.npz"), envs.make("point_mass").spec
    with pytest.raises(UsageError, match="theirs.npz: episode 1 has no transitions"):
        formats.convert(path, "point_mass", spec, out, 2)
    _, notes = formats.convert(
        path, "point_mass", spec, out, 2, formats.Options(skip_empty=True)
    )
    assert notes == ["episodes without transitions, left out: 1."]
    first, second = demos.read(out)[0]
    np.testing.assert_array_equal(first.obs, obs[:4])
    np.testing.assert_array_equal(second.obs, obs[5:])
