"""Minari, robomimic and D4RL, in files that h5py writes."""

import sys

import h5py
import numpy as np
import pytest

import planil_jax as pj
from planil_jax import envs
from planil_jax.base import UsageError, UserError
from tests.data.formats.reading import SPEC, read, refused

pytestmark = pytest.mark.fast

LENGTHS = (3, 5)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-0.9, 0.9, shape)


def minari(tmp_path, **changes):
    """A dataset's directory, as Minari 0.5 lays it out."""
    path = tmp_path / "points-v0" / "data" / "main_data.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["total_episodes"] = len(LENGTHS)
        for n, length in enumerate(LENGTHS):
            arrays = {
                "observations": numbers(length + 1, 4, seed=n),
                "actions": numbers(length, 2, seed=10 + n).astype(np.float32),
                "rewards": np.ones(length),
                "terminations": np.arange(length) == (length - 1 if n == 0 else -1),
                "truncations": np.arange(length) == (length - 1 if n == 1 else -1),
            } | (changes if n == 1 else {})
            group = file.create_group(f"episode_{n}")
            group.attrs["id"] = n
            for name, array in arrays.items():
                if array is not None:
                    group[name] = array
    return path.parent.parent


def robomimic(tmp_path, following=True, **changes):
    path = tmp_path / "low_dim.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for n in (2, 10):  # demo_10 is after demo_2, though not by the alphabet
            group = data.create_group(f"demo_{n}")
            group.attrs["num_samples"] = n
            whole = {"vel": numbers(n + 1, 2, seed=n), "pos": numbers(n + 1, 2, seed=n + 1)}
            for name, array in whole.items():
                group[f"obs/{name}"] = array[:-1]
                if following:
                    group[f"next_obs/{name}"] = array[1:]
            group["actions"] = numbers(n, 2, seed=n + 2)
            group["dones"] = (np.arange(n) == n - 1).astype(np.int64)
            group["rewards"] = np.zeros(n)
            for name, array in changes.items():
                place = name.replace("__", "/")
                del group[place]
                group[place] = array
    return path


def d4rl(path, **changes):
    """Episodes of 3, 4 and 3 steps; the first ends for good, the last is cut."""
    obs = np.concatenate([numbers(n + 1, 4, seed=n) for n in (3, 4, 3)])
    ends = np.array([3, 8, 12])  # rows of `obs` that nothing follows
    arrays = {
        "observations": np.delete(obs, ends, 0),
        "next_observations": np.delete(obs, [0, 4, 9], 0),
        "actions": numbers(10, 2),
        "rewards": np.arange(10.0),
        "terminals": np.arange(10) == 2,
        "timeouts": np.arange(10) == 6,
    } | changes
    arrays = {name: array for name, array in arrays.items() if array is not None}
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return path, obs


def test_a_minari_dataset_is_read(tmp_path):
    source = minari(tmp_path)
    episodes, card, notes = read(source)
    assert notes == [] and card.returns == (3.0, 5.0)
    assert [episode.length for episode in episodes] == [3, 5]
    assert [episode.terminal for episode in episodes] == [True, False]
    np.testing.assert_array_equal(episodes[1].obs, numbers(6, 4, seed=1).astype("f4"))
    np.testing.assert_array_equal(
        episodes[1].actions, numbers(5, 2, seed=11).astype(np.float32)
    )
    assert card.observation_names == SPEC.observation_names
    by_file = read(source / "data" / "main_data.hdf5")[0]
    np.testing.assert_array_equal(by_file[0].obs, episodes[0].obs)


def test_dictionaries_of_a_minari_dataset_are_columns_by_names(tmp_path):
    path = minari(tmp_path) / "data" / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        for n, length in enumerate(LENGTHS):
            group = file[f"episode_{n}"]
            del group["observations"]
            group["observations/goal"] = np.zeros((length + 1, 2))
            group["observations/arm/place"] = numbers(length + 1, 2, seed=n)
    episodes, card, notes = read(path, names={"arm/place.1": "x [m]"})
    assert card.observation_names == ("x [m]",)
    np.testing.assert_allclose(episodes[1].obs[:, 0], numbers(6, 2, seed=1)[:, 1], 1e-6)
    assert notes == [
        "left unread: arm/place.0, goal.0, goal.1.",
        "1 of 4 entries of point_mass are there: x [m].",
    ]
    message = refused(path)
    assert "holds arm/place.0, arm/place.1, goal.0, goal.1, and point_mass obs" in message
    ordered = read(path, names=("goal", "arm/place"))[0]
    np.testing.assert_array_equal(ordered[0].obs[:, :2], np.zeros((4, 2)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"observations": np.full((6, 4), np.nan)},
            "episode_1, row 0: x [m] is nan, which",
        ),
        ({"observations": np.zeros((4, 4))}, "episode_1: actions.0 has 5 rows and the obs"),
        ({"observations": np.zeros((6, 3))}, "episode_1 holds 3 observation entries, obs"),
        ({"observations": None}, "episode_1 has no observations"),
        ({"actions": None}, "episode 1 has no actions, and others have"),
        ({"actions": np.full((5, 2), 3.0)}, "episode_1, step 0: actions.0 is 3, outside p"),
        ({"actions": np.zeros((5, 3))}, "episode_1 holds 3 action entries, actions.0, act"),
        (
            {"observations": np.zeros((0, 4)), "actions": np.zeros((0, 2))},
            "episode_1 has no tr",
        ),
        ({"rewards": np.zeros(2)}, "episode_1: rewards has 2 rows and the observations h"),
        ({"actions": np.array([b"x"] * 5)}, "episode_1/actions is of type |S1, where numb"),
    ],
)
def test_a_wrong_episode_is_named_and_can_be_left_out(tmp_path, changes, message):
    source = minari(tmp_path, **changes)
    assert message in refused(source)
    if "others have" in message:
        return
    episodes, _, notes = read(source, drop_invalid=True)
    assert [episode.length for episode in episodes] == [3]
    assert len(notes) == 1 and notes[0].startswith(f"left out: {source}: episode_1")


def test_an_episode_without_transitions_is_left_out_where_that_is_asked_for(tmp_path):
    changes = {name: np.zeros(0, bool) for name in ("terminations", "truncations")}
    changes |= {
        "rewards": np.zeros(0),
        "observations": np.zeros((1, 4)),
        "actions": np.zeros((0, 2)),
    }
    source = minari(tmp_path, **changes)
    assert "episode_1 has no transitions: leave such" in refused(source)
    episodes, _, notes = read(source, skip_empty=True)
    assert len(episodes) == 1
    assert notes == ["episodes without transitions, left out: 1."]
    assert "has 1 episodes, not 2" in refused(source, count=2, skip_empty=True)


def test_robomimic_is_read_in_the_order_of_its_demonstrations(tmp_path):
    source = robomimic(tmp_path)
    episodes, _, notes = read(source, names=("pos", "vel"))
    assert [episode.length for episode in episodes] == [2, 10]
    expected = np.concatenate([numbers(11, 2, seed=11), numbers(11, 2, seed=10)], 1)
    np.testing.assert_array_equal(episodes[1].obs, expected.astype(np.float32))
    assert not any(episode.terminal for episode in episodes)  # the task never ends early
    assert notes == []
    assert "say which is which with names={theirs: ours}" in refused(source)


def test_without_what_followed_the_last_action_is_left_out_and_it_is_said(tmp_path):
    source = robomimic(tmp_path, following=False)
    episodes, _, notes = read(source, names=("pos", "vel"))
    assert [episode.length for episode in episodes] == [1, 9]
    assert notes == [
        "last actions and rewards left out, because what they led to is not in the source: "
        "2."
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs__pos": np.zeros((7, 2))}, "demo_2 says that it has 2 samples, and has 2, 7"),
        ({"next_obs__pos": np.zeros((2, 2))}, "demo_2: next_obs/pos of row 0 is not the o"),
        ({"actions": np.zeros((9, 2))}, "demo_2: actions.0 has 9 rows"),
    ],
)
def test_what_robomimic_says_is_held_against_what_there_is(tmp_path, changes, message):
    source = robomimic(tmp_path, **changes)
    assert message in refused(source, names=("pos", "vel"))


@pytest.mark.parametrize("name", ["d4rl.hdf5", "d4rl.npz"])
def test_steps_of_all_episodes_are_cut_where_they_end(tmp_path, name):
    source, obs = d4rl(tmp_path / name)
    episodes, card, _ = read(source)
    assert [episode.length for episode in episodes] == [3, 4, 3]
    assert [episode.terminal for episode in episodes] == [True, False, False]
    assert card.returns == (3.0, 18.0, 24.0)
    together = np.concatenate([episode.obs for episode in episodes])
    np.testing.assert_array_equal(together, obs.astype(np.float32))
    source, _ = d4rl(tmp_path / name, next_observations=None)
    episodes, _, notes = read(source)
    assert [episode.length for episode in episodes] == [2, 3, 2]
    assert not any(episode.terminal for episode in episodes)
    assert "left out, because what they led to is not in the source: 3." in notes[0]
    assert notes[1] == "ends for good that count as by time, for the same reason: 1."


def test_an_end_that_is_not_told_is_found_by_what_followed(tmp_path):
    source, _ = d4rl(tmp_path / "d4rl.hdf5", timeouts=None)
    message = refused(source)
    assert "episode 1 (from row 3): next_observations of row 3 is not the obser" in message
    assert [e.length for e in read(source, drop_invalid=True)[0]] == [3]
    assert [e.length for e in read(source, split_gaps=True)[0]] == [3, 4, 3]


def test_a_file_that_lies_is_refused(tmp_path):
    source = minari(tmp_path)
    path = source / "data" / "main_data.hdf5"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged or cut short (" in refused(path)
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        file.attrs["total_episodes"] = 7
    assert "says that it holds 7 episodes, and has 2" in refused(source)
    with h5py.File(path, "a") as file:
        file.attrs["total_episodes"] = 2
        del file["episode_1/observations"]
        file["episode_1"].create_dataset("observations", (6, 4), "f8", chunks=(3, 4))
    assert "claims a shape of (6, 4), but not all of it was written" in refused(path)


def test_links_out_of_a_file_are_not_followed(tmp_path):
    path = minari(tmp_path) / "data" / "main_data.hdf5"
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.zeros((6, 4))
    with h5py.File(path, "a") as file:
        del file["episode_1/observations"]
        target = h5py.ExternalLink(str(tmp_path / "other.h5"), "secret")
        file["episode_1/observations"] = target
    assert "episode_1/observations is a link, and links are not followed" in refused(path)


def test_another_layout_is_answered_with_the_ones_that_are_read(tmp_path):
    path = tmp_path / "theirs.hdf5"
    with h5py.File(path, "w") as file:
        file["states"] = np.zeros(3)
    assert "holds states, and is laid out neither as of Minari" in refused(path)


def test_a_name_that_is_no_path_is_not_looked_up_elsewhere():
    with pytest.raises(
        UsageError, match="remote datasets are not fetched: download it fir"
    ):
        pj.load_demos("D4RL/door/human-v2")


def test_pairs_that_are_kept_are_episodes_of_one_step(tmp_path):
    source, obs = d4rl(tmp_path / "d4rl.hdf5")
    episodes, card, notes = read(source, every=2)
    starts = [0, 2, 4, 6, 10]  # rows of `obs`; episode 2 of 3 begins at 2 * 2 // 3 = 1
    assert [episode.length for episode in episodes] == [1] * 5
    together = np.stack([episode.obs for episode in episodes])
    expected = np.stack([obs[row : row + 2] for row in starts])
    np.testing.assert_array_equal(together, expected.astype(np.float32))
    assert [e.terminal for e in episodes] == [False, True, False, False, False]
    assert card.returns == ()
    assert notes == [
        "one of every 2 pairs was kept of 3 episodes, whose mean return is 15; each is an "
        "episode of one step, and returns are unknown."
    ]


def test_without_an_environment_the_demonstrations_are_completed_where_they_are_used(
    tmp_path,
):
    demos = pj.load_demos(minari(tmp_path))
    assert demos.card.observation_names == () and demos.card.environment == ""
    demos.completed(SPEC).save(tmp_path / "ours.npz")
    again = pj.load_demos(tmp_path / "ours.npz")
    assert again.card.observation_names == SPEC.observation_names
    pairs = pj.load_demos(tmp_path / "ours.npz", every=3)
    assert pairs.card.observation_names == SPEC.observation_names
    assert len(pairs) == 3
    np.testing.assert_array_equal(pairs.episodes[0].obs, again.episodes[0].obs[:2])


def test_decoded_frames_are_pictures(tmp_path):
    spec = envs.make("pendulum:pixels=16").spec
    frames = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), np.uint8)
    path = tmp_path / "image.hdf5"
    with h5py.File(path, "w") as file:
        group = file.create_group("data/demo_0")
        group["obs/view"], group["next_obs/view"] = frames[:-1], frames[1:]
        group["obs/other"] = np.zeros((2, 8, 8, 3), np.uint8)
        group["next_obs/other"] = np.zeros((2, 8, 8, 3), np.uint8)
        group["actions"] = np.zeros((2, 1))
    (episode,), card, notes = read(path, spec=spec)
    np.testing.assert_array_equal(episode.obs, frames)
    assert episode.obs.dtype == np.uint8 and card.image == (16, 16, 3)
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs/view"], file["data/demo_0/next_obs/view"]
    with pytest.raises(
        UsageError, match=r"other \(8, 8, 3\) of decoded frames, where pend"
    ):
        read(path, spec=spec)


def test_texts_among_the_observations_are_left_unread_and_it_is_said(tmp_path):
    path = robomimic(tmp_path)
    with h5py.File(path, "a") as file:
        file["data/demo_2/obs/mission"] = [b"lift", b"lift"]
    notes = read(path, names=("pos", "vel"))[2]
    assert notes == ["left unread: mission."]


@pytest.mark.parametrize(
    ("module", "extra", "name"),
    [("h5py", "hdf5", "a.hdf5"), ("pyarrow", "tables", "a.parquet")],
)
def test_the_extra_that_is_not_installed_is_named(
    tmp_path, monkeypatch, module, extra, name
):
    path = tmp_path / name
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        UserError, match=rf'{module}, which is not .*planil_jax\[{extra}\]"'
    ):
        read(path)
