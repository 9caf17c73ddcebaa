import errno
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from planil_jax.base import EnvState, TrainState, UsageError, UserError
from planil_jax.training import checkpoint, files


@struct.dataclass
class State:
    params: dict
    optimiser: tuple
    history: jax.Array
    noise_key: jax.Array


def make_state(fill=0.0, width=3):
    """Two seeds; every dtype that is used, and a history of no length."""
    params = {
        "a/b": jnp.full((2, width), fill, jnp.float32),
        "half": jnp.full((2,), 0.1, jnp.bfloat16),
    }
    agent = State(
        params=params,
        optimiser=(jnp.arange(2, dtype=jnp.int32), (), jnp.array([True, False])),
        history=jnp.zeros((2, 0, 4), jnp.float32),
        noise_key=jax.random.split(jax.random.key(3), 2),
    )
    env = EnvState(
        sim=jnp.arange(8, dtype=jnp.uint8).reshape(2, 4),
        obs=jnp.array([[jnp.inf, -0.0], [jnp.nan, 1e-42]], jnp.float32),
        time=jnp.zeros((2,), jnp.int32),
    )
    key = jax.random.split(jax.random.key(4, impl="rbg"), 2)
    return TrainState(agent=agent, env=env, carry=(), key=key)


def save(directory, step, fill=0.0, **options):
    return checkpoint.save(directory, make_state(fill), step=step, round_=step, **options)


def restore(directory, template=None) -> checkpoint.Restored:
    restored = checkpoint.restore_latest(directory, template or make_state())
    assert restored is not None
    return restored


def filling(restored):
    return float(restored.state.agent.params["a/b"][0, 0])


def flip_byte(path):
    """Flips the bits of one byte in the largest file."""
    largest = max(
        (p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 0xFF
    largest.write_bytes(data)


def truncate(path):
    largest = max(
        (p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    largest.write_bytes(largest.read_bytes()[:-7])


def lose_arrays(path):
    shutil.rmtree(path / "arrays")


def cut_manifest(path):
    manifest = path / "checkpoint.json"
    manifest.write_text(manifest.read_text()[:40])


# ---------------------------------------------------------------------------- restoring


def test_the_restored_state_is_the_saved_one_bit_for_bit(tmp_path):
    state = make_state(fill=1 / 3)
    checkpoint.save(tmp_path, state, step=20, round_=4, score=1.5)
    restored = restore(tmp_path, state)
    assert (restored.step, restored.round, restored.notices) == (20, 4, ())
    assert str(jax.tree.structure(restored.state)) == str(jax.tree.structure(state))
    for there, here in zip(
        jax.tree.leaves(restored.state), jax.tree.leaves(state), strict=True
    ):
        assert (there.shape, there.dtype) == (here.shape, here.dtype)
        assert there.sharding == here.sharding
        if jnp.issubdtype(here.dtype, jax.dtypes.prng_key):
            there, here = jax.random.key_data(there), jax.random.key_data(here)
        assert not there.weak_type
        assert np.asarray(there).tobytes() == np.asarray(here).tobytes()


def test_a_run_that_was_removed_is_not_begun_anew(tmp_path):
    with pytest.raises(UserError, match="No such file or directory"):
        save(tmp_path / "run" / "checkpoints", 4)
    assert not (tmp_path / "run").exists()


def test_a_template_may_be_shapes_alone(tmp_path):
    save(tmp_path, 1, fill=7.0)
    template = jax.eval_shape(make_state)
    assert filling(restore(tmp_path, template)) == 7.0


def test_restored_leaves_have_the_sharding_of_the_template(tmp_path):
    save(tmp_path, 1)
    device = jax.devices()[0]
    mesh = jax.sharding.Mesh(np.array([device]), ("seeds",))
    in_template = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("seeds"))
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=in_template),
        make_state(),
    )
    restored = restore(tmp_path, template)
    for leaf in jax.tree.leaves(restored.state):
        assert leaf.sharding == in_template and leaf.committed


def test_acting_parameters_come_without_the_rest(tmp_path):
    for step, score in ((1, 5.0), (2, 9.0), (3, None)):
        save(tmp_path, step, fill=step, score=score, keep_last=3)
    template = jax.eval_shape(make_state).agent.params

    def ask(which):
        restored = checkpoint.restore_params(tmp_path, template, which)
        assert restored.state.keys() == {"a/b", "half"}
        return restored.step, float(restored.state["a/b"][0, 0])

    assert ask("last") == (3, 3.0)
    assert ask("best") == (2, 2.0)
    assert ask(1) == (1, 1.0)
    with pytest.raises(UsageError, match="1, 2, 3"):
        ask(4)


def test_the_best_of_checkpoints_without_scores_is_refused(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2, score=float("nan"))
    with pytest.raises(UsageError, match="evaluated"):
        checkpoint.restore_params(tmp_path, make_state().agent.params, "best")


def test_no_checkpoint_is_none_for_a_run_and_an_error_for_an_evaluation(tmp_path):
    assert checkpoint.restore_latest(tmp_path / "absent", make_state()) is None
    with pytest.raises(UsageError, match="no checkpoint"):
        checkpoint.restore_params(tmp_path / "absent", make_state().agent.params)


# ------------------------------------------------------------------------ what is kept


def test_the_last_and_the_best_are_kept(tmp_path):
    scores = [3.0, 9.0, None, 8.0, 1.0, 2.0, float("nan")]
    for step, score in enumerate(scores, start=1):
        save(tmp_path, step, score=score, keep_last=2, keep_best=2)
    assert checkpoint.steps(tmp_path) == [2, 4, 6, 7]


def test_later_checkpoints_of_an_abandoned_run_are_dropped(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step, keep_last=3)
    save(tmp_path, 2, fill=5.0, keep_last=3)
    assert checkpoint.steps(tmp_path) == [1, 2]
    assert filling(restore(tmp_path)) == 5.0


def test_an_unfinished_save_is_ignored_and_removed(tmp_path):
    save(tmp_path, 1, fill=1.0)
    shutil.copytree(tmp_path / f"{1:012d}", tmp_path / f".unfinished-{2:012d}")
    assert checkpoint.steps(tmp_path) == [1]
    assert filling(restore(tmp_path)) == 1.0
    assert [path.name for path in tmp_path.iterdir()] == [f"{1:012d}"]


def test_an_evaluation_leaves_the_save_of_a_running_process_alone(tmp_path):
    save(tmp_path, 1)
    unfinished = tmp_path / f".unfinished-{2:012d}"
    unfinished.mkdir()
    checkpoint.restore_params(tmp_path, make_state().agent.params)
    assert unfinished.exists()


# ------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("damage", [flip_byte, truncate, lose_arrays, cut_manifest])
def test_a_damaged_checkpoint_is_passed_over_with_a_notice(tmp_path, damage):
    save(tmp_path, 1, fill=1.0)
    damage(save(tmp_path, 2, fill=2.0))
    restored = restore(tmp_path)
    assert (restored.step, filling(restored)) == (1, 1.0)
    (notice,) = restored.notices
    assert f"{2:012d} is damaged" in notice
    params = checkpoint.restore_params(tmp_path, make_state().agent.params)
    assert params.step == 1


def test_a_wrong_byte_is_noticed_where_orbax_would_not(tmp_path):
    noise = np.random.default_rng(0).standard_normal((2, 5000)).astype(np.float32)
    state = make_state().replace(carry=jnp.asarray(noise))
    flip_byte(checkpoint.save(tmp_path, state, step=1, round_=1))
    with pytest.raises(UserError, match="has changed since it was written"):
        restore(tmp_path, state)


def test_if_every_checkpoint_is_damaged_one_sentence_says_so(tmp_path):
    flip_byte(save(tmp_path, 1))
    cut_manifest(save(tmp_path, 2))
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        restore(tmp_path)


def test_another_format_is_refused_and_not_passed_over(tmp_path):
    save(tmp_path, 1)
    manifest = save(tmp_path, 2) / "checkpoint.json"
    changed = json.loads(manifest.read_text()) | {"format": 99, "planil_jax": "7.8"}
    del changed["crc32"]
    manifest.write_text(files.seal(json.dumps(changed)))
    with pytest.raises(UserError, match="format 99, written by planil_jax 7.8"):
        restore(tmp_path)


def without_half(state):
    params = {"a/b": state.agent.params["a/b"]}
    return state.replace(agent=state.agent.replace(params=params))


def with_more(state):
    params = state.agent.params | {"more": jnp.zeros((2,), jnp.int32)}
    return state.replace(agent=state.agent.replace(params=params))


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (make_state(width=4), r"params.a/b is float32\[2, 3\] there, float32\[2, 4\] here"),
        (without_half(make_state()), r"params.half is bfloat16\[2\] there, absent here"),
        (with_more(make_state()), r"params.more is absent there, int32\[2\] here"),
        (
            make_state().replace(key=jax.random.split(jax.random.key(0), 2)),
            r"key is key<rbg>\[2\] there, key<fry>\[2\] here",
        ),
    ],
)
def test_the_first_leaf_that_does_not_fit_is_named(tmp_path, template, says):
    save(tmp_path, 1)
    with pytest.raises(UserError, match=says):
        restore(tmp_path, template)


# ---------------------------------------------------------------------------- a full disk


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError(
            "RESOURCE_EXHAUSTED: write failed [OS error 28: No space left on device]"
        ),
    ],
)
def test_a_full_disk_is_one_sentence_and_keeps_the_last_checkpoint(
    tmp_path, monkeypatch, error
):
    kept = save(tmp_path, 1, fill=1.0)

    def full(path):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_checksums", full)
        with pytest.raises(UserError) as raised:
            save(tmp_path, 2)
    assert "the disk is full" in str(raised.value)
    assert f"{tmp_path}/000000000002/arrays could not be written" in str(raised.value)
    assert f"the last good checkpoint {kept} is kept" in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]
    assert filling(restore(tmp_path)) == 1.0


def test_a_checkpoint_larger_than_the_free_space_is_not_begun(tmp_path, monkeypatch):
    kept = save(tmp_path, 1, fill=1.0)
    room = shutil.disk_usage(tmp_path)._replace(free=50)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.shutil, "disk_usage", lambda path: room)
        patched.setattr(checkpoint, "_write", lambda *_: pytest.fail("it was begun"))
        with pytest.raises(UserError, match="the disk is full.* is kept"):
            save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]


def test_an_interrupted_save_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "_checksums", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="checkpoints.* could not be written"):
        save(tmp_path / "file" / "checkpoints", 1)
