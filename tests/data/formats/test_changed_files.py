"""Sources of every kind with bytes changed or missing: read, or refused in a sentence."""

import random

import numpy as np
import pytest

from planil_jax.base import UserError
from tests.data.formats import test_hdf5, test_tables

pytestmark = pytest.mark.fast

CHANGES = 60  # of each file


def log(tmp_path, name):
    path = test_tables.write(tmp_path / name, test_tables.log())
    columns = {"names": test_tables.MAP, "actions": ("ux", "uy")}
    return path, path, {"time": "t"} | columns


def sources(tmp_path, kind):
    """The source, the file in it that is changed, and how it is read."""
    if kind in ("log.csv", "log.parquet"):
        return log(tmp_path, kind)
    if kind in ("d4rl.hdf5", "d4rl.npz"):
        path, _ = test_hdf5.d4rl(tmp_path / kind)
        return path, path, {}
    if kind == "robomimic":
        path = test_hdf5.robomimic(tmp_path)
        return path, path, {"names": ("pos", "vel")}
    make, file = {
        "minari": (test_hdf5.minari, "data/main_data.hdf5"),
        "lerobot": (test_tables.lerobot, "data/chunk-000/file_000000.parquet"),
        "lerobot info": (test_tables.lerobot, "meta/info.json"),
        "hugging face": (test_tables.huggingface, "data-00000-of-00001.arrow"),
        "hugging face state": (test_tables.huggingface, "state.json"),
    }[kind]
    root = make(tmp_path)
    return root, root / file, {}


def changed(rng, whole):
    content, at = bytearray(whole), rng.randrange(len(whole))
    match rng.randrange(4):
        case 0:
            content[at] = rng.randrange(256)
        case 1:
            content = content[:at]
        case 2:
            del content[at : at + rng.randrange(1, 64)]
        case 3:
            content[at : at + 8] = bytes([rng.choice([0, 127, 255])]) * 8
    return bytes(content)


@pytest.mark.parametrize(
    "kind",
    [
        *("minari", "robomimic", "d4rl.hdf5", "d4rl.npz", "log.csv", "log.parquet"),
        *("lerobot", "lerobot info", "hugging face", "hugging face state"),
    ],
)
def test_a_changed_file_is_read_or_refused_in_a_sentence_that_names_it(tmp_path, kind):
    source, file, options = sources(tmp_path, kind)
    whole, rng = file.read_bytes(), random.Random(kind)
    assert test_hdf5.read(source, **options)[0]
    refused = 0
    for _ in range(CHANGES):
        file.write_bytes(changed(rng, whole))
        try:
            episodes, card, _ = test_hdf5.read(source, **options)
        except UserError as error:
            refused += 1
            assert str(tmp_path) in str(error) and "\n" not in str(error)
        else:
            for episode in episodes:
                assert episode.obs.shape == (
                    episode.length + 1,
                    len(card.observation_names),
                )
                assert np.isfinite(episode.obs).all()
    assert refused > CHANGES // 4  # so that something is tested
