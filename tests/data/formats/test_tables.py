"""Logs in CSV and parquet, resampled; LeRobot and Hugging Face datasets by pyarrow."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from planil_jax.base import UsageError
from planil_jax.data.formats import select, timing
from planil_jax.data.formats.recording import Recording
from tests.data.formats.reading import SPEC, read, refused

pytestmark = pytest.mark.fast

MAP = {"px": "x [m]", "py [cm]": "y"}


def log(rows=9, period=0.05, **changes):
    """A log of two entries and an action, every `period` seconds."""
    t = period * np.arange(rows)
    return {
        "t": t,
        "px": 2 * t,
        "py [cm]": 100 * t**2,
        "ux": np.arange(rows) / 10,
        "uy": np.zeros(rows),
        "what": ["a"] * rows,
    } | changes


def write(path, columns):
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
        return path
    with open(path, "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(columns)
        lines.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_a_log_is_resampled_to_the_control_period(tmp_path, name):
    path = write(tmp_path / name, log())
    (episode,), card, notes = read(path, time="t", names=MAP, actions=("ux", "uy"))
    t = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(episode.obs, np.stack([2 * t, t**2], 1), atol=1e-6)
    # Each action is held for 0.05 s; two of them make a step.
    np.testing.assert_allclose(episode.actions[:, 0], [0.05, 0.25, 0.45, 0.65], atol=1e-6)
    assert card.observation_names == ("x [m]", "y [m]") and card.control_period == 0.1
    assert set(notes) == {
        "left unread: what.",
        "2 of 4 entries of point_mass are there: x [m], y [m].",
        "'py [cm]' was converted to 'y [m]'.",
        "the action in the last row of an episode, which ends there, is left out.",
        "resampled from every 0.05 s to every 0.1 s: observations linearly, an action as "
        "its mean over a step.",
    }


def test_rows_between_the_samples_are_interpolated_whatever_the_ratio(tmp_path):
    """Every 0.03 s: no sample falls on a row but the first and those of 0.3 s."""
    path = write(tmp_path / "log.csv", log(rows=12, period=0.03))
    (episode,), _, notes = read(path, time="t", names={"px": "x [m]"}, actions=("ux", "uy"))
    np.testing.assert_allclose(episode.obs[:, 0], [0.0, 0.2, 0.4, 0.6], atol=1e-6)
    # 0.1 s are three rows and a third of the fourth: (0 + .1 + .2) .03 + .3 .01 = .012
    np.testing.assert_allclose(episode.actions[0, 0], 0.12, atol=1e-6)
    assert "ends of less than a step, left out: 1." in notes


def test_rows_at_the_control_period_stay_as_they_are(tmp_path):
    path = write(tmp_path / "log.csv", log(period=0.1))
    (episode,), _, notes = read(path, time="t", names={"px": "x [m]"})
    assert episode.length == 8 and not any("resampled" in note for note in notes)
    by_period = write(tmp_path / "no_times.csv", log(rows=9, period=0.05))
    (episode,), _, notes = read(by_period, period=0.05, names={"px": "x [m]"})
    assert episode.length == 4 and any("resampled" in note for note in notes)


def test_angles_take_the_shorter_way():
    degrees = np.array([170.0, 178.0, -174.0, -166.0])
    times = np.array([0.0, 0.1, 0.2, 0.3])
    both = {"a [deg]": degrees, "a [rad]": np.radians(degrees), "a [m]": degrees}
    recording = Recording("one", obs=both, times=times)
    found = timing.resampled(recording, 0.15).obs
    np.testing.assert_allclose(found["a [deg]"], [170.0, -178.0, -166.0])
    np.testing.assert_allclose(np.degrees(found["a [rad]"]), [170.0, -178.0, -166.0])
    np.testing.assert_allclose(found["a [m]"], [170.0, 2.0, -166.0])
    positive = Recording("one", obs={"a [deg]": degrees % 360}, times=times)
    found = timing.resampled(positive, 0.15).obs["a [deg]"]
    np.testing.assert_allclose(found, [170.0, 182.0, 194.0])
    turns = np.array([0.0, 300.0, 600.0, 900.0])  # it counts its turns
    found = timing.resampled(Recording("one", obs={"a [deg]": turns}, times=times), 0.15)
    np.testing.assert_allclose(found.obs["a [deg]"], [0.0, 450.0, 900.0])


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (
            [0, 0.05, 0.05, 0.1],
            "row 2: its time stamp, 0.05 s, is there twice: keep one of",
        ),
        (
            [0, 0.1, 0.05, 0.15],
            "row 2: its time stamp, 0.05 s, is before the last: sort th",
        ),
        ([0, 0.1, "", 0.15], "row 2: its time stamp, nan s, is no time: leave the row out"),
        (
            [0, 0.1, 0.8, 0.9],
            "nothing was recorded for 0.7 s after row 1, where 0.2 s are a",
        ),
        (
            [0, 0.1, "x", 0.9],
            ", line 4: 't' is 'x', where a number is wanted: mend the lin",
        ),
    ],
)
def test_time_stamps_are_checked(tmp_path, times, message):
    path = write(tmp_path / "log.csv", log(rows=4, t=times))
    assert message in refused(path, time="t", names={"px": "x [m]"})


def test_gaps_and_a_column_separate_episodes(tmp_path):
    times = [0, 0.1, 0.2, 1.0, 1.1, 1.2, 1.3, 9.0]
    path = write(tmp_path / "log.csv", log(rows=8, t=times, run=list("aaaaabbb")))
    options = {"time": "t", "names": {"px": "x [m]"}, "actions": ("ux", "uy")}
    episodes, _, notes = read(path, split_gaps=True, skip_empty=True, **options)
    assert [episode.length for episode in episodes] == [2, 3]
    assert "episodes without transitions, left out: 1." in notes
    episodes, _, _ = read(path, split_by="run", max_gap=10.0, **options)
    assert [episode.length for episode in episodes] == [11, 78]
    message = refused(path, split_by="run", **options)
    assert (
        "run a: nothing was recorded for 0.8 s after row 2, where 0.2 s are all" in message
    )
    path = write(tmp_path / "log.csv", log(rows=4, run=list("abab")))
    message = refused(path, split_by="run", names={"px": "x [m]"})
    assert "row 2: run is a again, after other episodes: sort the rows by run" in message


@pytest.mark.parametrize(
    ("stamps", "unit"),
    [
        (["2026-03-01T12:00:00.00Z", "2026-03-01T12:00:00.10Z"], "s"),
        ([1772366400000000000, 1772366400100000000], "ns"),
        ([5000, 5100], "ms"),
    ],
)
def test_times_come_in_several_forms(tmp_path, stamps, unit):
    path = write(tmp_path / "log.csv", log(rows=2, t=stamps))
    (episode,), _, notes = read(path, time="t", time_unit=unit, names={"px": "x [m]"})
    assert episode.length == 1 and not any("resampled" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no names in its first line"),
        ("1,2\n3,4\n", "has no names in its first line"),
        ("px,px\n3,4\n", "column 1 has the name 'px' twice"),
        ("px,\n3,4\n", "column 1 has no name"),
        ("px,q\n3,4\n5\n", "line 3, has 1 cells and 2 columns have names"),
        ("px,q\n3,4\nnan,5\n", "the log, row 1: x [m] is nan, which is not finite"),
        ("px,q\n3,4\n,5\n", "the log, row 1: x [m] is nan, which is not finite"),
        ("px,q\n3,4\nno,5\n", "line 3: 'px' is 'no', where a number is wanted"),
        ("px,q\n", "the log has no transitions"),
        ("py,q\n3,4\n", "has no column 'px'; it has py, q."),
        ("px,q\n3,\xff\n", "is no text in UTF-8"),
    ],
)
def test_a_csv_that_is_not_sound_is_refused(tmp_path, text, message):
    path = tmp_path / "log.csv"
    path.write_bytes(text.encode("latin-1"))
    assert message in refused(path, names={"px": "x [m]"})


def test_names_are_those_of_the_environment_or_of_the_map(tmp_path):
    columns = {name: np.zeros(3) for name in ("x", "y [m]", "z")}
    path = write(tmp_path / "log.csv", columns)
    assert read(path)[1].observation_names == ("x [m]", "y [m]")
    assert "point_mass observes no 'w'; it obs" in refused(path, names={"z": "w"})
    two = {"x": "x [m]", "z": "x [m]"}
    assert "'x [m]' is to be two columns" in refused(path, names=two)
    path = write(tmp_path / "log.csv", {"x [kg]": np.zeros(3)})
    assert "'x [kg]' is in kg and 'x [m]' in m, and the one is not" in refused(path)
    path = write(tmp_path / "log.csv", {"a": np.zeros(3)})
    assert "log.csv holds a, and point_mass observes 'x [m]', 'y [m]'," in refused(path)


@pytest.mark.parametrize(
    ("theirs", "ours", "factor"),
    [
        ("x [mm]", "x [m]", 1e-3),
        ("yaw [deg]", "yaw [rad]", np.pi / 180),
        ("v [km/h]", "v [m/s]", 1 / 3.6),
        ("x", "x [m]", 1.0),
        ("x [widgets]", "x [widgets]", 1.0),
    ],
)
def test_units_in_brackets_are_converted(theirs, ours, factor):
    assert select.factor(theirs, ours, "it") == pytest.approx(factor)


# --------------------------------------------------------------------------------- LeRobot


def lerobot(tmp_path, version="v2.1", **info):
    """Two episodes of 4 and 3 frames; v2 has a file an episode, v3 one for all."""
    root = tmp_path / "points"
    names = ["x", "y", "x velocity", "y velocity"]
    features = {
        "observation.state": {"dtype": "float32", "shape": [4], "names": names},
        "observation.images.top": {"dtype": "video", "shape": [8, 8, 3], "names": None},
        "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["ux", "uy"]}},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    }
    told = {"codebase_version": version, "fps": 10, "features": features}
    told |= {"total_episodes": 2, "total_frames": 7} | info
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta" / "info.json").write_text(json.dumps(told))
    episodes = [np.zeros(4, int), np.ones(3, int)]
    parts = [np.concatenate(episodes)] if version.startswith("v3") else episodes
    for n, index in enumerate(parts):
        frame = np.concatenate([np.arange((index == k).sum()) for k in (0, 1)])
        state = np.stack([frame / 10, index, frame * 0, frame * 0], 1).astype(np.float32)
        actions = np.stack([frame / 10, -frame / 10], 1).astype(np.float32)

        def lists(rows):
            return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])

        table = pa.table(
            {
                "observation.state": lists(state),
                "action": lists(actions),
                "timestamp": (frame / 10).astype(np.float32),
                "episode_index": index,
                "next.done": frame == 3 - index,
            }
        )
        path = root / "data" / "chunk-000" / f"file_{n:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
    return root


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_a_lerobot_dataset_is_read(tmp_path, version):
    episodes, card, notes = read(lerobot(tmp_path, version))
    assert [episode.length for episode in episodes] == [3, 2]
    np.testing.assert_allclose(episodes[1].obs[:, :2], [[0, 1], [0.1, 1], [0.2, 1]])
    np.testing.assert_allclose(episodes[0].actions[2], [0.2, -0.2])
    assert card.observation_names == SPEC.observation_names
    assert notes[0] == (
        "left unread, because their frames are not decoded: observation.images.top."
    )
    assert notes[1] == (
        "taken as entries by the ends of their names: observation.state.x, "
        "observation.state.y, observation.state.x velocity, observation.state.y velocity."
    )
    assert "is not in the source: 2." in notes[2] and len(notes) == 3


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"total_episodes": 3}, "says total_episodes 3, and its data have 2"),
        ({"total_frames": 70}, "says total_frames 70, and its data have 7"),
        ({"codebase_version": "v1.6"}, "says version 'v1.6', where v2 or v3 and"),
        ({"features": None}, "where v2 or v3 and `features` are wanted"),
    ],
)
def test_a_lerobot_dataset_that_lies_is_refused(tmp_path, info, message):
    assert message in refused(lerobot(tmp_path, **info))


def test_a_lerobot_dataset_that_is_cut_short_is_refused(tmp_path):
    root = lerobot(tmp_path)
    (file, *_) = (root / "data").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-40])
    assert "damaged or cut short (" in refused(root)
    (root / "meta" / "info.json").write_text("{")
    assert "is no sound JSON" in refused(root)


# ---------------------------------------------------------------------------- Hugging Face


def huggingface(tmp_path, **changes):
    """What `Dataset.save_to_disk` writes for trajectories of imitation."""
    root = tmp_path / "trajectories"
    root.mkdir(exist_ok=True)
    columns = {
        "obs": [np.full((4, 4), 0.1).tolist(), np.full((3, 4), 0.2).tolist()],
        "acts": [np.full((3, 2), 0.3).tolist(), np.full((2, 2), 0.4).tolist()],
        "infos": [['{"py/object": "x"}'] * 3, ["{}"] * 2],
        "terminal": [True, False],
        "rews": [[1.0, 1.0, 1.0], [2.0, 2.0]],
    } | changes
    name = "data-00000-of-00001.arrow"
    table = pa.table(columns)
    with pa.OSFile(str(root / name), "w") as file:
        with pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    (root / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    (root / "dataset_info.json").write_text("{}")
    return root


def test_trajectories_of_imitation_are_read_and_no_info_is_unpickled(tmp_path):
    episodes, card, notes = read(huggingface(tmp_path))
    assert [episode.length for episode in episodes] == [3, 2]
    assert [episode.terminal for episode in episodes] == [True, False]
    assert card.returns == (3.0, 4.0)
    np.testing.assert_allclose(episodes[1].actions, np.full((2, 2), 0.4), rtol=1e-6)
    assert notes == ["left unread: infos."]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs": [[[0.0] * 4] * 4, [[0.0] * 4]]}, "episode 1: acts.0 has 2 rows and the o"),
        (
            {"obs": [[[0.0] * 4] * 4, [[0.0] * 4, [0.0]]]},
            "obs of episode 1 holds lists of 1",
        ),
        ({"obs": [[[0.0] * 4] * 4, None]}, "obs of episode 1 is empty: leave the episode"),
        ({"obs": ["a", "b"]}, "obs of episode 0 is no list, but s"),
    ],
)
def test_a_trajectory_that_does_not_fit_is_refused(tmp_path, changes, message):
    assert message in refused(huggingface(tmp_path, **changes))


def test_a_dataset_is_read_from_its_own_directory_alone(tmp_path):
    root = huggingface(tmp_path)
    state = {"_data_files": [{"filename": "../secret.arrow"}]}
    (root / "state.json").write_text(json.dumps(state))
    assert "names the file '../secret.arrow', which is not in the directory" in refused(
        root
    )
    (root / "state.json").write_text("{}")
    assert "state.json names no data files" in refused(root)


@pytest.mark.parametrize("kind", ["log.csv", "log.parquet", "arrow"])
def test_a_file_that_is_cut_short_is_refused_wherever_it_is_cut(tmp_path, kind):
    if kind == "arrow":
        source, options = huggingface(tmp_path), {}
        file = source / "data-00000-of-00001.arrow"
    else:
        source = file = write(tmp_path / kind, log())
        options = {"time": "t", "names": MAP, "actions": ("ux", "uy")}
    whole, (complete, _, _) = file.read_bytes(), read(source, **options)
    for share in np.linspace(0, 0.98, 15):
        file.write_bytes(whole[: int(share * len(whole))])
        try:
            episodes, _, _ = read(source, **options)
        except UsageError as error:
            assert str(error).startswith(str(tmp_path)) and "\n" not in str(error)
        else:  # cut between two lines of a log, or in the marks at an Arrow stream's end
            assert kind != "log.parquet"
            for found, expected in zip(episodes, complete, strict=False):
                np.testing.assert_array_equal(found.obs, expected.obs[: len(found.obs)])
