import re

import numpy as np
import pytest

import planil_jax as pj
from planil_jax import base, envs
from planil_jax.data import demos as demonstrations
from planil_jax.evaluation import blind_replay
from planil_jax.reporting import demo_page

pytestmark = pytest.mark.fast


def made(rows, actions=None, **options):
    spec = envs.make("point_mass").spec
    return pj.Demos.from_arrays(rows, actions=actions, **options).completed(spec)


def visible(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_the_page_tells_what_a_reader_would_doubt(tmp_path):
    ramp = np.linspace(0, 1, 21)
    rows = np.stack([ramp, 0 * ramp, 1 - ramp, ramp**2], 1)
    jump = rows.copy()
    jump[-1, 0] = 0.0  # as where the row after a reset was recorded
    actions = np.full((20, 2), [1.0, 0.2])
    demos = made([rows, jump], [actions, actions], rewards=[np.ones(20)] * 2)
    written = demo_page.write(demos, tmp_path / "new" / "d.html", "mine", "replayed: 3")
    page = written.read_text(encoding="utf-8")
    words = visible(page)
    assert "2 episodes of point_mass" in words and "returns 20 to 20" in words
    assert "These entries never change: y [m]." in words
    assert "episode 1, step 19, its last x [m] by 0.95 of its range" in words
    assert "action 0 100% of the steps at a bound" in words
    assert "action 1 0% of the steps at a bound" in words
    assert "replayed: 3" in words
    assert page.count("<img") == 4 and "http://" not in page.replace(
        "http://www.w3.org", ""
    )


def test_episodes_without_actions_and_pictures_have_a_page_too():
    alone = made([np.random.default_rng(0).normal(size=(5, 4))])
    words = visible(demo_page.render(alone, "one"))
    assert "How alike" not in words and "Actions" not in words
    frames = np.random.default_rng(0).integers(0, 255, (2, 5, 8, 8, 3), np.uint8)
    pictures = pj.Demos.from_arrays(frames)
    assert "How alike the episodes are" in visible(demo_page.render(pictures, "pictures"))


def test_likeness_is_a_distance_in_deviations_whatever_the_lengths():
    ramp = np.linspace(0, 1, 101)[:, None]
    whole, coarse = made_episode(ramp), made_episode(ramp[::2])
    rng = np.random.default_rng(0)
    noise = [made_episode(rng.normal(size=(2001, 1))) for _ in range(2)]
    near = demo_page.distances([whole, coarse])
    assert near.shape == (2, 2) and near[0, 1] < 0.04 and np.all(np.diag(near) == 0)
    assert 1.0 < demo_page.distances(noise)[0, 1] < 1.8  # sqrt(2), of draws of 50
    moved = demo_page.distances([whole, made_episode(1000 * ramp)])
    scaled = demo_page.distances([made_episode(7 * ramp), made_episode(7000 * ramp)])
    np.testing.assert_allclose(moved, scaled, rtol=1e-6)


def made_episode(rows):
    return demonstrations.Episode(obs=rows)


def test_blind_replay_repeats_the_actions_until_they_or_the_task_end():
    """The toy task pays the action; one episode is shorter, and the task ends after 4."""
    spec = base.EnvSpec("toy", ("x",), (-1.0,), (1.0,), 4, 0.1)

    def reset(key):
        return base.EnvState(sim=(), obs=np.zeros(1, np.float32), time=np.int32(0))

    def step(state, action):
        now = base.EnvState(sim=(), obs=state.obs, time=state.time + 1)
        ended = now.time >= 4
        return now, base.Transition(
            state.obs, action, state.obs, action[0], np.array(False), ended
        )

    env = base.Environment(spec, reset, step)
    actions = [np.full((6, 1), 0.5), np.full((3, 1), 0.25)]
    demos = pj.Demos.from_arrays(
        [np.zeros((7, 1)), np.zeros((4, 1))], actions, [np.ones(6), np.ones(3)]
    ).completed(spec)
    loaded = base.Demonstrations(
        obs=np.zeros((2, 7, 1), np.float32),
        actions=np.stack([actions[0], np.concatenate([actions[1], np.zeros((3, 1))])]),
        length=np.array([6, 3]),
        terminal=np.zeros(2, bool),
        observed=(0,),
    )
    found = blind_replay.blind_replay(demos, env, loaded)
    np.testing.assert_allclose(found.returns[0], 2.0)
    np.testing.assert_allclose(found.returns[1], 0.75)
    assert found.returns.shape == (2, blind_replay.STARTS)
    assert str(found) == (
        "blind replay of 2 demonstrations from 8 starts each of toy: return 1.375 ± 0.625; "
        "recorded 4.5 ± 1.5"
    )
    with pytest.raises(pj.UsageError, match="observations only: leave out replay"):
        blind_replay.blind_replay(demos, env, loaded.replace(actions=None))
