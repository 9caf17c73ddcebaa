"""Images in files, demonstrations and the replay, compared with the rollout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import envs
from planil_jax.agents.common import sequences
from planil_jax.base import UsageError
from planil_jax.data import demos
from planil_jax.evaluation import collect, expert_policies
from planil_jax.nets import conv

SIZE = 8
ENV = envs.make(f"pendulum:pixels={SIZE},frames=3,episode_length=6")
CARD = demos.Card(
    environment="pendulum",
    control_period=ENV.spec.control_period,
    image=(SIZE, SIZE, 3),
    action_low=ENV.spec.action_low,
    action_high=ENV.spec.action_high,
)


@pytest.fixture(scope="module")
def rollout():
    """14 steps of two environments, restarted where an episode ends."""

    def one(key):
        def step(state, key):
            action = jax.random.uniform(key, (1,), minval=-2.0, maxval=2.0)
            next_state, transition = ENV.step(state, action)
            fresh = ENV.reset(key)
            next_state = jax.tree.map(
                lambda a, b: jnp.where(transition.truncated, a, b), fresh, next_state
            )
            return next_state, transition

        return jax.lax.scan(step, ENV.reset(key), jax.random.split(key, 14))[1]

    rollouts = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 2))
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), rollouts)


def episodes(rollout) -> list[demos.Episode]:
    """The two whole episodes of the first environment."""
    cut = [
        jax.tree.map(lambda leaf, s=s: np.asarray(leaf[s : s + 6, 0]), rollout)
        for s in (0, 6)
    ]
    return [
        demos.Episode(
            obs=np.concatenate([episode.obs[:1], episode.next_obs])[..., -3:],
            actions=episode.action,
            rewards=episode.reward,
            terminal=False,
        )
        for episode in cut
    ]


def test_a_file_of_images_gives_back_the_observations(rollout, tmp_path):
    path = tmp_path / "images.npz"
    demos.save(path, episodes(rollout), CARD)
    loaded = demos.load(path, ENV.spec)
    assert loaded.obs.shape == (2, 7, SIZE, SIZE, 3) and loaded.obs.dtype == jnp.uint8
    assert loaded.observed == ()
    episode, step = jnp.divmod(jnp.arange(12), 6)
    for offset, wanted in ((0, rollout.obs), (1, rollout.next_obs)):
        stacked = demos.observations_at(loaded, episode, step + offset, frames=3)
        np.testing.assert_array_equal(stacked, wanted[:12, 0])
    assert "red" in demos.describe(path)


def test_samples_of_images_are_stacked(rollout, tmp_path):
    path = tmp_path / "images.npz"
    demos.save(path, episodes(rollout), CARD)
    loaded, key = demos.load(path, ENV.spec), jax.random.key(1)
    obs, _, next_obs, _ = demos.sample(loaded, key, 16, frames=3)
    pairs = demos.sample_pairs(loaded, key, 16, frames=3)
    np.testing.assert_array_equal(obs, pairs[0])
    np.testing.assert_array_equal(next_obs, pairs[1])
    # The newest frame becomes the second newest.
    np.testing.assert_array_equal(obs[..., 3:], next_obs[..., :6])
    obs, _, _ = demos.sample_sequences(loaded, key, 16, 4, frames=3)
    assert obs.shape == (5, 16, SIZE, SIZE, 9)
    np.testing.assert_array_equal(obs[:-1, ..., 3:], obs[1:, ..., :6])


@pytest.mark.parametrize(
    "name, message",
    [
        ("pendulum", "pictures of 8 × 8, but pendulum shows numbers"),
        (
            "pendulum:pixels=16",
            "holds pictures of 8 × 8, but pendulum shows pictures of 16",
        ),
    ],
)
def test_images_of_another_size_are_refused(rollout, tmp_path, name, message):
    path = tmp_path / "images.npz"
    demos.save(path, episodes(rollout), CARD)
    with pytest.raises(UsageError, match=message):
        demos.load(path, envs.make(name).spec)


def test_vectors_are_refused_where_the_environment_shows_images(rollout, tmp_path):
    path = tmp_path / "vectors.npz"
    vectors = [
        dataclasses.replace(episode, obs=np.zeros((7, 3), np.float32))
        for episode in episodes(rollout)
    ]
    names = envs.make("pendulum").spec.observation_names
    demos.save(path, vectors, dataclasses.replace(CARD, image=(), observation_names=names))
    with pytest.raises(UsageError, match="holds numbers, but .* shows pictures of 8 × 8"):
        demos.load(path, ENV.spec)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda obs: obs.astype(np.float32), "float32"),  # type
        (lambda obs: np.moveaxis(obs, -1, 1), "shape"),  # order of channels
        (lambda obs: obs[:, :-1], "shape"),  # size
    ],
)
def test_images_of_wrong_dtype_or_shape_are_refused(rollout, tmp_path, spoil, message):
    spoilt = [
        dataclasses.replace(episode, obs=spoil(episode.obs))
        for episode in episodes(rollout)
    ]
    with pytest.raises(UsageError, match=message):
        demos.save(tmp_path / "spoilt.npz", spoilt, CARD)


def test_sequences_from_replay_are_sequences_of_the_rollout(rollout, monkeypatch):
    """Each frame is stored once; sequences stay within episodes."""
    monkeypatch.setattr(conv, "random_shift", lambda key, image: image)
    sampler = sequences.make(ENV.spec, sequences.Config(batch=64, capacity=14), horizon=3)
    replay = sequences.empty_replay(sampler, num_envs=2)
    replay = sequences.insert(sampler, replay, rollout)
    assert replay.steps["obs"].shape == (14, 2, SIZE, SIZE, 3)
    assert "next_obs" not in replay.steps
    valid = sequences.valid_starts(sampler, replay)
    batch = sequences.sample_replay(sampler, replay, valid, jax.random.key(3))
    assert batch.obs.shape == (4, 64, SIZE, SIZE, 9)
    frames, acted = (
        np.asarray(rollout.obs),
        np.asarray(sampler.scaling.to_unit_interval(rollout.action)),
    )
    starts = set()
    for obs, actions in zip(
        np.moveaxis(batch.obs, 1, 0), np.moveaxis(batch.actions, 1, 0), strict=True
    ):
        at = [
            (t, e)
            for t in range(11)
            for e in range(2)
            if (frames[t : t + 4, e] == obs).all()
            and (acted[t : t + 3, e] == actions).all()
        ]
        assert len(at) == 1
        assert at[0][0] // 6 == (at[0][0] + 3) // 6  # of one episode
        starts.add(at[0])
    assert len(starts) == 12  # 3 + 3 + 0 starts of each environment, all of them drawn


def test_images_are_shifted_for_learning(rollout):
    sampler = sequences.make(ENV.spec, sequences.Config(batch=4, capacity=14), horizon=2)
    replay = sequences.empty_replay(sampler, num_envs=2)
    replay = sequences.insert(sampler, replay, rollout)
    valid = sequences.valid_starts(sampler, replay)
    batch = sequences.sample_replay(sampler, replay, valid, jax.random.key(3))
    originals = {
        tuple(np.ravel(image)) for image in np.asarray(rollout.obs).reshape(28, -1)
    }
    moved = [tuple(row) not in originals for row in np.asarray(batch.obs).reshape(12, -1)]
    assert sum(moved) > 8


def test_a_task_that_can_end_early_is_refused_with_images():
    spec = ENV.spec._replace(image=(64, 64, 9), terminates=True)
    with pytest.raises(UsageError, match="can end early.*leave out its option pixels"):
        sequences.make(spec, sequences.Config(), horizon=3)


def test_an_expert_of_vectors_can_demonstrate_in_images(tmp_path):
    path = str(tmp_path / "images.npz")
    name = "pendulum:pixels=16,frames=2,episode_length=5"
    card = collect.collect(name, path, 2, seed=1, actions=True, unlearned=True)
    assert card.image == (16, 16, 3) and card.observation_names == ()
    same = str(tmp_path / "vectors.npz")
    card = collect.collect(
        "pendulum:episode_length=5", same, 2, seed=1, actions=True, unlearned=True
    )
    (images, _), (vectors, _) = demos.read(path), demos.read(same)
    for picture, number in zip(images, vectors, strict=True):
        # The planner lets the rounding of the two programs grow tenfold a step.
        np.testing.assert_allclose(picture.actions[:2], number.actions[:2], atol=1e-4)
        assert picture.obs.shape == (6, 16, 16, 3) and picture.obs.std() > 0


def test_options_of_images_can_be_removed_from_a_name():
    assert (
        expert_policies.without_pixels("pendulum:pixels=64,frames=3,camera=back")
        == "pendulum"
    )
    named = "playground/CheetahRun:action_repeat=2,pixels=64,tremble=0.1"
    assert (
        expert_policies.without_pixels(named)
        == "playground/CheetahRun:action_repeat=2,tremble=0.1"
    )
