import dataclasses
import errno
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.base import Demonstrations, EnvSpec, UsageError
from planil_jax.data import demos

pytestmark = pytest.mark.fast

SPEC = EnvSpec(
    name="cart",
    observation_names=("x [m]", "v [m/s]", "angle [rad]"),
    action_low=(-1.0,),
    action_high=(1.0,),
    episode_length=10,
    control_period=0.1,
)
CARD = demos.Card(
    environment="cart",
    control_period=0.1,
    observation_names=SPEC.observation_names,
    action_low=(-1.0,),
    action_high=(1.0,),
    expert="by hand",
)


def episodes() -> list[demos.Episode]:
    """Two episodes, of 1 and 3 transitions, whose obs count up from 0."""
    obs = np.arange(18, dtype=np.float32).reshape(6, 3)
    return [
        demos.Episode(
            obs=obs[:2],
            actions=np.array([[0.5]], np.float32),
            rewards=np.array([2.0], np.float32),
            terminal=True,
        ),
        demos.Episode(
            obs=obs[2:],
            actions=np.array([[-1.0], [0.0], [1.0]], np.float32),
            rewards=np.array([1.0, 2.0, 4.0], np.float32),
            terminal=False,
        ),
    ]


@pytest.fixture
def path(tmp_path):
    """A valid file."""
    file = tmp_path / "made" / "here" / "cart.npz"
    demos.save(file, episodes(), CARD)
    return file


def rewrite(path, **changes) -> None:
    """Changes arrays of a saved file; None removes one."""
    with np.load(path) as archive:
        arrays = dict(archive) | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def change_card(path, **changes) -> None:
    with np.load(path) as archive:
        card = json.loads(archive["card"].item())
    rewrite(path, card=np.array(json.dumps(card | changes)))


def refusal(path, spec=SPEC) -> str:
    with pytest.raises(UsageError) as caught:
        demos.load(path, spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------------------- files


def test_a_file_gives_back_the_episodes_and_the_card(path):
    read, card = demos.read(path)
    assert card == dataclasses.replace(CARD, returns=(2.0, 7.0))
    for wanted, episode in zip(episodes(), read, strict=True):
        np.testing.assert_array_equal(episode.obs, wanted.obs)
        np.testing.assert_array_equal(episode.actions, wanted.actions)
        np.testing.assert_array_equal(episode.rewards, wanted.rewards)
        assert episode.terminal == wanted.terminal


def test_saving_leaves_one_file_and_no_temporary_ones(path):
    demos.save(path, episodes(), CARD)
    assert [file.name for file in path.parent.iterdir()] == ["cart.npz"]


def test_a_full_disk_leaves_the_old_file_unharmed(path, monkeypatch):
    before = path.read_bytes()

    def fill(file, **_):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fill)
    with pytest.raises(OSError, match="No space left") as caught:
        demos.save(path, episodes(), CARD)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["cart.npz"]


def test_episodes_that_do_not_fit_their_card_are_not_saved(tmp_path):
    card = dataclasses.replace(CARD, observation_names=("x [m]",))
    with pytest.raises(UsageError, match=r"obs of episode 0 has shape \(2, 3\)"):
        demos.save(tmp_path / "cart.npz", episodes(), card)
    half = [episodes()[0].replace(actions=None), episodes()[1]]
    with pytest.raises(UsageError, match="actions of episode 1"):
        demos.save(tmp_path / "cart.npz", half, CARD)
    with pytest.raises(UsageError, match="holds no episodes"):
        demos.save(tmp_path / "cart.npz", [], CARD)
    assert not (tmp_path / "cart.npz").exists()


def test_a_directory_is_not_saved_to(tmp_path):
    with pytest.raises(UsageError, match="is a directory: name a file in it, .*demos.npz"):
        demos.save(tmp_path, episodes(), CARD)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("there", "here", "noted"),
    [
        ("navigation", "navigation", False),
        ("navigation", "navigation:slip=0.3", False),
        ("navigation:slip=0.3", "navigation", False),
        ("", "navigation", False),
        ("navigation_mjx:field=80", "navigation", True),
    ],
)
def test_demonstrations_of_another_environment_are_noted(tmp_path, there, here, noted):
    card = dataclasses.replace(CARD, environment=there)
    demos.save(tmp_path / "some.npz", episodes(), card)
    notes = demos.origin_warnings(tmp_path / "some.npz", SPEC._replace(name=here))
    wanted = "note: the demonstrations were recorded in navigation_mjx, and are used in "
    assert notes == [f"{wanted}navigation."] * noted


def test_a_missing_file_is_refused_with_its_neighbours_and_the_mend(path):
    message = refusal(path.with_name("carts.npz"))
    assert "no demonstrations file" in message and "planil collect" in message
    assert f"Did you mean {path}?" in message


def test_a_directory_is_refused_with_its_files(path):
    assert refusal(path.parent).endswith(
        "is a directory: name a file in it. There are: cart.npz."
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused_as_damaged(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert f"{path} is damaged or cut short" in refusal(path)


def test_a_flipped_byte_is_refused_or_does_no_harm(path):
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole), 23):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            read, _ = demos.read(path)
        except UsageError as error:
            refused += str(path) in str(error)
        else:
            np.testing.assert_array_equal(read[1].obs, episodes()[1].obs)
    assert refused > 20


def test_pickles_are_refused_and_never_loaded(path):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("a pickle was loaded",)

    rewrite(path, obs=np.array([Trap()], object))
    assert "never loaded" in refusal(path)
    path.write_bytes(pickle.dumps(Trap()))
    assert "never loaded" in refusal(path)
    path.write_text("x,y\n1,2\n")
    assert "is not an .npz archive" in refusal(path)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    assert "is not an .npz archive" in refusal(path)


def test_a_foreign_npz_is_refused_with_its_arrays_and_those_required(path):
    np.savez(path, obs=np.zeros((3, 2)), acts=np.zeros((2, 1)))
    message = refusal(path)
    assert "is not a planil_jax demonstrations file: it holds obs, acts" in message
    assert "obs, length, terminal, card and maybe actions, rewards are wanted" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, "has format version 3, but this planil_jax reads up to 2"),
        ({"format": "other"}, "its card does not say 'planil_jax demonstrations'"),
        ({"control_period": "0.1"}, "control_period must be float, not '0.1'"),
        ({"control_period": 0}, "has a control period that is not above 0 s"),
        ({"returns": [1.0]}, "has not one return an episode"),
        ({"observation_names": ["x", "x", "y"]}, "names an observation entry twice"),
        ({"observation_names": ["x"]}, "obs of episode 0 has shape (2, 3)"),
        ({"action_low": []}, "gives an action one bound of two"),
    ],
)
def test_an_unsound_card_is_refused(path, changes, message):
    change_card(path, **changes)
    assert message in refusal(path)


def test_a_card_that_is_not_json_is_refused(path):
    rewrite(path, card=np.array("{"))
    assert "its card does not say" in refusal(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"length": np.array([1, 4])},
            "obs has 6 rows, but the lengths of the 2 episodes need",
        ),
        ({"length": np.array([0, 4])}, "episode 0 has no transitions"),
        ({"length": np.array([5, -1])}, "episode 1 has no transitions"),
        ({"length": np.zeros(0, int)}, "holds no episodes"),
        ({"length": np.array([1.0, 3.0])}, "length has shape (2,) and type float64"),
        ({"terminal": np.zeros(3, bool)}, "terminal has 3 rows"),
        ({"actions": np.zeros((5, 1))}, "actions has 5 rows"),
        ({"actions": np.zeros((4, 2))}, "actions of episode 0 has shape (1, 2)"),
        ({"obs": np.full((6, 3), 1e300)}, "step 0, entry 'x [m]': inf is not finite"),
    ],
)
def test_arrays_that_contradict_each_other_are_refused(path, changes, message):
    rewrite(path, **changes)
    assert message in refusal(path)


def test_a_number_that_is_not_finite_is_refused_by_episode_step_and_entry(path):
    obs = np.zeros((6, 3), np.float32)
    obs[4, 1] = np.nan  # row 4 is step 2 of episode 1
    rewrite(path, obs=obs)
    assert "obs of episode 1, step 2, entry 'v [m/s]': nan is not finite" in refusal(path)


def test_a_reward_that_is_not_finite_leaves_its_episode_s_return_unknown(path, tmp_path):
    first, second = episodes()
    second = second.replace(rewards=np.array([1.0, np.nan, 4.0], np.float32))
    demos.save(tmp_path / "nan.npz", [first, second], CARD)
    assert demos.read(tmp_path / "nan.npz")[1].returns == (2.0, None)
    assert "unknown" in demos.describe(tmp_path / "nan.npz")
    rewrite(path, rewards=np.array([np.inf, 1.0, 2.0, 4.0]))
    assert demos.read(path)[1].returns == (None, 7.0)


def test_rewards_are_not_read_where_methods_learn(path):
    sound = demos.load(path, SPEC)
    rewrite(path, rewards=np.array(["not", "a", "number", "here"]))
    jax.tree.map(np.testing.assert_array_equal, demos.load(path, SPEC), sound)
    with pytest.raises(UsageError, match="rewards has shape .* where numbers are wanted"):
        demos.read(path)


def test_positions_that_float32_cannot_hold_are_refused(tmp_path):
    far = np.cumsum(np.full((41, 3), 0.05), 0) + [0.0, 0.0, 5572094.0]
    episode = demos.Episode(obs=far)
    message = r"entry 'angle \[rad\]': float32 rounds by up to 0.25, .* subtract an origin"
    with pytest.raises(UsageError, match=message):
        demos.save(tmp_path / "far.npz", [episode], CARD)
    assert not (tmp_path / "far.npz").exists()
    near = far - [0.0, 0.0, 5572094.0]
    demos.save(tmp_path / "near.npz", [demos.Episode(obs=near)], CARD)
    np.testing.assert_allclose(demos.read(tmp_path / "near.npz")[0][0].obs, near, 1e-6)


@pytest.mark.parametrize("text", ["\x1b[31mred", "two\nlines", "\u202egpj", "x" * 1001])
def test_texts_that_cannot_be_shown_on_a_line_are_refused(path, text):
    change_card(path, expert=text)
    assert "expert of its card" in refusal(path) and refusal(path).isprintable()


def test_lengths_that_overflow_are_refused(path):
    rewrite(path, length=np.array([2**62, 2**62, 2**62, 2**62 + 2]))
    assert "the lengths of the 4 episodes need" in refusal(path)


# --------------------------------------------------------------------------------- loading


def test_loading_pads_with_the_last_observation(path):
    loaded = demos.load(path, SPEC)
    assert loaded.obs.shape == (2, 4, 3) and loaded.obs.dtype == jnp.float32
    np.testing.assert_array_equal(
        loaded.obs[0], [[0, 1, 2], [3, 4, 5], [3, 4, 5], [3, 4, 5]]
    )
    np.testing.assert_array_equal(loaded.obs[1, 3], [15, 16, 17])
    np.testing.assert_array_equal(loaded.actions[..., 0], [[0.5, 0, 0], [-1, 0, 1]])
    np.testing.assert_array_equal(loaded.length, [1, 3])
    np.testing.assert_array_equal(loaded.terminal, [True, False])
    assert loaded.observed == (0, 1, 2)


def test_entries_that_a_file_lacks_are_zero_and_absent_from_observed(tmp_path):
    path = tmp_path / "cart.npz"
    names = ("angle [rad]", "x [m]")  # in another order than the environment's
    thin = [
        episode.replace(obs=episode.obs[:, [2, 0]], actions=None, rewards=None)
        for episode in episodes()
    ]
    demos.save(path, thin, dataclasses.replace(CARD, observation_names=names))
    loaded = demos.load(path, SPEC)
    assert loaded.observed == (0, 2)
    np.testing.assert_array_equal(loaded.obs[0, :2], [[0, 0, 2], [3, 0, 5]])
    assert loaded.actions is None
    with pytest.raises(UsageError, match="^bc imitates actions"):
        demos.require_actions(loaded, "bc")


def test_demonstrations_with_actions_satisfy_a_method_that_needs_them(path):
    loaded = demos.load(path, SPEC)
    demos.require_actions(loaded, "bc")
    np.testing.assert_array_equal(loaded.actions[..., 0], [[0.5, 0, 0], [-1, 0, 1]])
    with pytest.raises(UsageError, match="^bc imitates actions"):
        demos.require_actions(loaded.replace(actions=None), "bc")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation_names": ("x [m]", "v [m/s]", "z [m]")}, "holds 'angle [rad]', but"),
        ({"control_period": 0.05}, "recorded every 0.1 s, but cart acts every 0.05 s"),
        ({"action_low": (-1.0,) * 2, "action_high": (1.0,) * 2}, "holds 1 actions a step"),
        (
            {"action_low": (-0.5,)},
            "episode 1, step 0, entry 0: -1 is outside cart's bounds",
        ),
    ],
)
def test_demonstrations_of_another_environment_are_refused(path, changes, message):
    assert message in refusal(path, SPEC._replace(**changes))


def choosing(count: int) -> EnvSpec:
    bounds = {"action_low": (0.0,) * count, "action_high": (1.0,) * count}
    return SPEC._replace(**bounds, discrete=True)


def chosen(tmp_path, rows) -> str:
    """A file with these actions, `[4, U]`."""
    rows = np.asarray(rows, np.float32)
    size = rows.shape[1]
    first, second = episodes()
    card = dataclasses.replace(CARD, action_low=(0.0,) * size, action_high=(1.0,) * size)
    path = tmp_path / "chosen.npz"
    pair = [first.replace(actions=rows[:1]), second.replace(actions=rows[1:])]
    demos.save(path, pair, card)
    return path


def test_choices_are_loaded_unchanged(tmp_path):
    path = chosen(tmp_path, np.eye(3)[[0, 2, 1, 1]])
    loaded = demos.load(path, choosing(3))
    np.testing.assert_array_equal(loaded.actions[1], np.eye(3)[[2, 1, 1]])


def test_continuous_actions_are_refused_by_an_environment_with_choices(path, tmp_path):
    text = refusal(path, choosing(3))
    assert text.startswith(f"{path}, of cart, holds actions that are 1 continuous number, ")
    assert "but cart takes one of 3 choices: record it there, with the opt" in text
    soft = chosen(tmp_path, np.full((4, 3), 0.3))
    assert "are 3 continuous numbers, but cart takes one of 3" in refusal(soft, choosing(3))


def test_choices_are_refused_by_continuous_environments_and_by_other_choices(tmp_path):
    path = chosen(tmp_path, np.eye(3)[[0, 2, 1, 1]])
    text = refusal(path)
    assert "holds actions that are one of 3 choices, but cart takes 1 continuous n" in text
    assert text.endswith("choose an environment with the option choices=3.")
    assert "one of 3 choices, but cart takes one of 4" in refusal(path, choosing(4))


def test_actions_outside_their_bounds_by_rounding_are_clipped(path):
    rewrite(path, actions=np.array([[1 + 1e-6], [0], [0], [0]], np.float32))
    assert demos.load(path, SPEC).actions.max() == 1.0


def test_describe_prints_the_card_the_episodes_and_the_ranges(path):
    page = demos.describe(path).splitlines()
    assert page[0] == str(path)
    assert "  expert          by hand" in page
    assert "  actions         within [-1, 1]" in page
    table = page.index("  episode  steps  return     ended")
    assert page[table + 1] == "  0            1     2.0  for good"
    assert page[table + 2] == "  1            3     7.0   by time"
    assert page[-3] == "  x [m]        0.000  7.500  15.000"


# -------------------------------------------------------------------------------- sampling


def small(terminal=(True, False)) -> Demonstrations:
    """Episodes of 1 and 3 transitions whose obs are 10 n + t, padded to 4 transitions."""
    obs = np.array([[0, 1, 1, 1, 1], [10, 11, 12, 13, 13]], np.float32)
    return Demonstrations(
        obs=jnp.array(obs[..., None]),
        actions=jnp.array(-obs[:, :-1, None]),
        length=jnp.array([1, 3], jnp.int32),
        terminal=jnp.array(terminal),
        observed=(0,),
    )


def test_transitions_marks_padding_as_invalid():
    obs, next_obs, valid = jax.jit(demos.transitions)(small())
    np.testing.assert_array_equal(obs[:, 0], [0, 1, 1, 1, 10, 11, 12, 13])
    np.testing.assert_array_equal(next_obs[:, 0], [1, 1, 1, 1, 11, 12, 13, 13])
    np.testing.assert_array_equal(valid, [1, 0, 0, 0, 1, 1, 1, 0])


def test_pairs_are_drawn_uniformly_and_never_from_padding():
    """4000 draws with each of 3 seeds: a share of 1/4 has a standard deviation of 0.007."""
    draw = jax.jit(jax.vmap(lambda key: demos.sample_pairs(small(), key, 4000)))
    obs, next_obs = draw(jax.random.split(jax.random.key(0), 3))
    np.testing.assert_array_equal(next_obs, obs + 1)
    for seed in obs[..., 0]:
        values, counts = np.unique(seed, return_counts=True)
        np.testing.assert_array_equal(values, [0, 10, 11, 12])
        np.testing.assert_allclose(counts / 4000, 0.25, atol=0.035)


def test_a_sample_holds_its_action_and_is_terminal_at_the_last_step_alone():
    obs, actions, next_obs, terminal = jax.jit(demos.sample, static_argnums=2)(
        small((False, True)), jax.random.key(1), 64
    )
    np.testing.assert_array_equal(actions, -obs)
    np.testing.assert_array_equal(next_obs, obs + 1)
    np.testing.assert_array_equal(terminal, obs[:, 0] == 12)
    assert terminal.any() and not terminal.all()


def test_a_sample_of_observations_alone_has_no_actions():
    assert demos.sample(small().replace(actions=None), jax.random.key(0), 2)[1] is None


def test_sequences_are_drawn_uniformly_and_lie_within_an_episode():
    """Only the second episode has sequences of 2 steps, from 10 and from 11."""
    draw = jax.jit(demos.sample_sequences, static_argnums=(2, 3))
    obs, actions, terminal = draw(small((False, True)), jax.random.key(0), 4000, 2)
    assert obs.shape == (3, 4000, 1) and actions.shape == (2, 4000, 1)
    np.testing.assert_array_equal(obs[1:], obs[:-1] + 1)
    np.testing.assert_array_equal(actions, -obs[:-1])
    np.testing.assert_array_equal(terminal, obs[:-1, :, 0] == 12)
    values, counts = np.unique(obs[0], return_counts=True)
    np.testing.assert_array_equal(values, [10, 11])
    np.testing.assert_allclose(counts / 4000, 0.5, atol=0.035)


def test_sequences_of_one_step_are_transitions():
    obs, _, _ = demos.sample_sequences(small(), jax.random.key(0), 4000, 1)
    values, counts = np.unique(obs[0], return_counts=True)
    np.testing.assert_array_equal(values, [0, 10, 11, 12])
    np.testing.assert_allclose(counts / 4000, 0.25, atol=0.035)


def test_demonstrations_shorter_than_a_sequence_are_refused():
    demos.require_length(small(), 3, "iqmpc")
    message = "^iqmpc learns from sequences of 4 steps, but the longest of these .* has 3: "
    with pytest.raises(UsageError, match=message):
        demos.require_length(small(), 4, "iqmpc")


def test_the_first_episodes_can_be_loaded_alone(path):
    one, all_ = demos.load(path, SPEC, first=1), demos.load(path, SPEC)
    assert one.length.tolist() == [1] and all_.length.tolist() == [1, 3]
    np.testing.assert_array_equal(one.obs[0], all_.obs[0, :2])


def test_more_episodes_than_there_are_are_refused(path):
    with pytest.raises(UsageError, match="holds 2 demonstrations, and 3 are asked for"):
        demos.load(path, SPEC, first=3)
    with pytest.raises(UsageError, match="and 0 are asked for: choose fewer, None for all"):
        demos.load(path, SPEC, first=0)
