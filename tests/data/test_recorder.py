import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import planil_jax as pj
from planil_jax import envs

pytestmark = pytest.mark.fast


class Toy(gymnasium.Env):
    """Counts; it hands out one array that it writes into, as some environments do."""

    metadata = {"render_fps": 20}

    def __init__(self, observations=None, actions=None, ends_after=3):
        self.observation_space = observations or spaces.Box(-9, 9, (2,))
        self.action_space = actions or spaces.Box(-1.0, 1.0, (1,))
        self.ends_after = ends_after
        self.buffer = np.zeros(2, np.float32)

    def reset(self, *, seed=None, options=None):
        self.buffer[:] = 0
        return self.observe(), {}

    def step(self, action):
        self.buffer += 1
        ended = self.buffer[0] == self.ends_after
        return self.observe(), 2.0, bool(ended), False, {}

    def observe(self):
        if isinstance(self.observation_space, spaces.Dict):
            return {"b": self.buffer[:1], "a": self.buffer}
        return self.buffer


def test_what_is_driven_is_recorded_with_its_card(tmp_path):
    env = gymnasium.make("Pendulum-v1", max_episode_steps=5)
    out = tmp_path / "mine.npz"
    recorder = pj.Recorder(
        env,
        out=out,
        observation_names=envs.make("pendulum").spec.observation_names,
        expert="a hand",
    )
    obs, _ = recorder.reset(seed=3)
    rows, returned = [obs], 0.0
    for k in range(5):
        obs, reward, _, truncated, _ = recorder.step(np.array([0.1 * k], np.float32))
        rows.append(obs)
        returned += reward
    assert truncated
    demos = pj.load_demos(out)
    (episode,) = demos
    np.testing.assert_array_equal(episode.obs, np.stack(rows))
    np.testing.assert_allclose(episode.actions[:, 0], 0.1 * np.arange(5), rtol=1e-6)
    assert not episode.terminal
    assert demos.returns[0] == pytest.approx(returned, rel=1e-5)
    card = demos.card
    assert card.environment == "gymnasium/Pendulum-v1" and card.expert == "a hand"
    assert card.control_period == 0.05
    assert (card.action_low, card.action_high) == ((-2.0,), (2.0,))
    demos.completed(envs.make("pendulum").spec)


def test_each_row_is_a_copy_and_an_end_for_good_is_told():
    recorder = pj.Recorder(Toy())
    recorder.reset()
    for _ in range(3):
        recorder.step(np.zeros(1))
    with pytest.raises(pj.UsageError, match="call reset"):
        recorder.step(np.zeros(1))
    recorder.reset()
    recorder.step(np.zeros(1))
    recorder.reset()  # by time
    recorder.step(np.zeros(1))
    recorder.discard()
    demos = recorder.demos()
    assert [episode.terminal for episode in demos] == [True, False]
    np.testing.assert_array_equal(demos.episodes[0].obs[:, 1], [0, 1, 2, 3])
    assert demos.card.observation_names == ("observation[0]", "observation[1]")
    assert demos.card.control_period == 0.05 and list(demos.returns) == [6.0, 2.0]


def test_dictionaries_are_flattened_and_choices_are_one_hot():
    space = spaces.Dict({"b": spaces.Box(-9, 9, (1,)), "a": spaces.Box(-9, 9, (2,))})
    recorder = pj.Recorder(Toy(space, spaces.Discrete(3, start=1)))
    recorder.reset()
    recorder.step(1)
    recorder.step(3)
    recorder.reset()
    (episode,) = recorder.demos()
    assert recorder.demos().card.observation_names == ("a[0]", "a[1]", "b")
    np.testing.assert_array_equal(episode.obs, [[0, 0, 0], [1, 1, 1], [2, 2, 2]])
    np.testing.assert_array_equal(episode.actions, [[1, 0, 0], [0, 0, 1]])


def test_an_action_beyond_its_bounds_is_refused_and_named():
    recorder = pj.Recorder(Toy())
    recorder.reset()
    for value in (0.5, -3.0, 4.0):
        recorder.step(np.array([value]))
    message = r"action 0 of episode 0, step 1, was -3, outside .* as were 2 of 3 numbers"
    with pytest.raises(pj.UsageError, match=message):
        recorder.demos()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"actions": spaces.MultiBinary(2)}, "actions in MultiBinary"),
        ({"actions": spaces.Box(-np.inf, np.inf, (1,))}, "have no finite bounds"),
        ({"observations": spaces.Discrete(3)}, "observations in Discrete"),
    ],
)
def test_other_spaces_are_refused_when_it_is_made(arguments, message):
    with pytest.raises(pj.UsageError, match=message):
        pj.Recorder(Toy(**arguments))


def test_what_is_not_known_is_asked_for():
    env = Toy()
    env.metadata = {}
    with pytest.raises(pj.UsageError, match="give control_period, in seconds"):
        pj.Recorder(env)
    with pytest.raises(pj.UsageError, match="observation_names are 1, and Toy observes 2"):
        pj.Recorder(Toy(), observation_names=("x",))
    with pytest.raises(pj.UsageError, match="nothing is recorded yet"):
        pj.Recorder(Toy()).demos()
