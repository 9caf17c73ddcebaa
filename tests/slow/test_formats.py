"""Files that Minari and Hugging Face's `datasets` write themselves.

Neither is in requirements.lock: `pip install minari datasets` first.
"""

import gymnasium
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.base import UsageError
from planil_jax.data import formats

SPEC = envs.make("pendulum").spec


def read(path):
    return formats.read(str(path), SPEC, None, formats.Options())


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_what_minari_collects_is_read(tmp_path, monkeypatch, data_format):
    minari = pytest.importorskip("minari", reason="pip install minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = minari.DataCollector(
        gymnasium.make("Pendulum-v1", max_episode_steps=20), data_format=data_format
    )
    rows = []
    for seed in range(3):
        obs, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        rows.append([obs])
        ended = False
        while not ended:
            obs, _, terminated, truncated, _ = env.step(env.action_space.sample())
            rows[-1].append(obs)
            ended = terminated or truncated
    env.create_dataset("pendulum/random-v0", algorithm_name="random")
    source = tmp_path / "pendulum" / "random-v0"
    if data_format == "arrow":
        with pytest.raises(
            UsageError, match="is a Minari dataset in Arrow, which is not r"
        ):
            read(source)
        return
    episodes, card, _ = read(source)
    assert [episode.length for episode in episodes] == [20, 20, 20]
    assert len(card.returns) == 3
    for episode, expected in zip(episodes, rows, strict=True):
        np.testing.assert_array_equal(episode.obs, np.array(expected))


def test_what_datasets_saves_is_read(tmp_path):
    datasets = pytest.importorskip("datasets", reason="pip install datasets")
    rng = np.random.default_rng(0)
    obs = [rng.normal(size=(length + 1, 3)).astype(np.float32) for length in (4, 7)]
    columns = {
        "obs": obs,
        "acts": [rng.uniform(-1, 1, (len(rows) - 1, 1)) for rows in obs],
        "infos": [["{}"] * (len(rows) - 1) for rows in obs],
        "terminal": [False, True],
        "rews": [np.ones(len(rows) - 1) for rows in obs],
    }
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "trajectories"))
    episodes, card, notes = read(tmp_path / "trajectories")
    assert card.returns == (4.0, 7.0) and notes == ["left unread: infos."]
    for episode, rows in zip(episodes, obs, strict=True):
        np.testing.assert_array_equal(episode.obs, rows)
