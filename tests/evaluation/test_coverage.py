"""How far learners went: exact numbers on small arrays, and read from a checkpoint."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import envs, experiment, registry, runs
from planil_jax.agents import cmil
from planil_jax.base import Demonstrations, Task, TrainState, UsageError
from planil_jax.data import demos, replay
from planil_jax.evaluation import coverage
from planil_jax.models import rssm
from planil_jax.nets import heads, mlp
from planil_jax.nets import rssm as networks
from planil_jax.training import checkpoint, loop, report, rundir

SMALL = mlp.Config(hidden=(4,), activation="elu")
AGENT = cmil.Config(
    model=rssm.Config(
        network=networks.Config(deter=4, stoch=2, hidden=4, heads=2), vectors=SMALL
    ),
    policy=heads.Config(network=SMALL, std_of_state=True),
    discriminator=cmil.DiscriminatorConfig(network=SMALL),
    critic=SMALL,
    replay=cmil.ReplayConfig(capacity=6, length=2),
)
SPEED = "speed [rad/s]"
NAMES = ("a", "b")


def demonstrations(*episodes, observed=(0, 1)) -> Demonstrations:
    """Demonstrations of these observations, padded as they are when loaded."""
    longest = max(map(len, episodes))
    obs = [rows + [rows[-1]] * (longest - len(rows)) for rows in episodes]
    return Demonstrations(
        obs=jnp.asarray(obs, jnp.float32),
        actions=None,
        length=jnp.array([len(rows) - 1 for rows in episodes], jnp.int32),
        terminal=jnp.zeros((len(episodes),), bool),
        observed=observed,
    )


def ring(rounds: int) -> replay.Replay:
    """Capacity 6, 2 environments: round t observes [t, t, t] and [t, t, t] + 0.25."""
    step = {"obs": jnp.zeros((3,)), "action": jnp.zeros((1,)), "first": jnp.zeros((), bool)}
    filled = replay.init(step, 6, 2)
    for t in range(rounds):
        obs = jnp.full((1, 2, 3), t, jnp.float32) + 0.25 * jnp.arange(2.0)[:, None]
        new = {"obs": obs, "action": jnp.zeros((1, 2, 1)), "first": jnp.zeros((1, 2), bool)}
        filled = replay.insert(filled, new)
    return filled


def test_the_nearest_distances_are_the_same_when_found_chunk_by_chunk(monkeypatch):
    monkeypatch.setattr(coverage, "_CHUNK", 3)
    rng = np.random.default_rng(0)
    points, others = rng.normal(size=(10, 4)), rng.normal(size=(7, 4))
    points[4] = others[2]
    expected = [min(math.dist(point, other) for other in others) for point in points]
    np.testing.assert_allclose(coverage.nearest(points, others), expected, atol=1e-7)


@pytest.mark.parametrize(("rounds", "expected"), [(4, [0, 1, 2, 3]), (9, range(3, 9))])
def test_a_ring_is_read_from_its_oldest_step(rounds, expected):
    replays = jax.tree.map(lambda leaf: leaf[None], ring(rounds))
    obs = coverage.in_order(replays)
    assert obs.shape == (1, len(expected), 2, 3)
    np.testing.assert_array_equal(obs[0, :, 0, 0], expected)
    np.testing.assert_array_equal(obs[0, :, 1, 2], np.array(expected) + 0.25)


def test_the_threshold_is_a_percentile_of_the_distances_between_episodes():
    """By hand: a is 0, 2, 0, 2, 8; b never varies, so its scale is 1."""
    support = coverage.support_of(
        demonstrations([[0, 5], [2, 5]], [[0, 5], [2, 5], [8, 5]])
    )
    values = np.array([0.0, 2, 0, 2, 8])
    np.testing.assert_allclose(support.scale, [values.std(), 1.0])
    distances = np.array([0, 0, 0, 0, 6]) / values.std()
    assert support.threshold == pytest.approx(np.percentile(distances, 99))
    alone = coverage.support_of(demonstrations([[0, 5], [2, 5]]))
    assert math.isnan(alone.threshold) and len(alone.points) == 2


def test_parts_are_consecutive_steps_in_order():
    support = coverage.support_of(demonstrations([[0, 0], [2, 0]], [[0, 0], [2, 0]]))
    assert support.scale[0] == 1.0 and support.threshold == 0.0
    obs = np.array([[0, 9], [0, 0], [3, 0], [5, 0]], np.float64)[:, None]  # [K, 1, O]
    parts = np.array_split(np.arange(4), 2)
    limits = {"a": (-math.inf, 4.0), "b": (0.0, 8.0)}
    by_part, whole = coverage._of_member(obs, parts, NAMES, support, limits)
    assert by_part["distance"] == [4.5, 2.0] and whole["distance"] == 3.25
    expected = [np.percentile([0, 9], 95), np.percentile([1, 3], 95)]
    assert by_part["distance, 95th percentile"] == pytest.approx(expected)
    assert by_part["out_of_support"] == [0.5, 1.0] and whole["out_of_support"] == 0.75
    assert by_part["constraint_violations: a"] == [0.0, 0.5] and by_part[
        "constraint_violations: b"
    ] == [0.5, 0.0]


def test_unobserved_entries_do_not_count_in_distances():
    support = coverage.support_of(demonstrations([[0, 7], [2, 7]], observed=(0,)))
    obs = np.array([[3.0, 100.0]])
    near = coverage.nearest(coverage.scaled(obs, support), support.points)
    np.testing.assert_allclose(near, [1.0])


def test_limits_are_read_and_wrong_ones_are_refused():
    wanted = {"a": (-1.5, 2.0), "b": (-math.inf, 0.0)}
    assert coverage.parse_limits(["a=-1.5:2", "b=:0"], NAMES) == wanted
    names = ("cos angle", SPEED)
    with pytest.raises(UsageError, match=r"Did you mean speed \[rad/s\]\? There are: cos"):
        coverage.parse_limits(["sped [rad/s]=-6:6"], names)
    for wrong in ("cos angle", "cos angle=1", "cos angle=2:1", "cos angle=a:b"):
        with pytest.raises(UsageError, match="write NAME=LOW:HIGH"):
            coverage.parse_limits([wrong], names)


# ------------------------------------------------------------------------ from a checkpoint


@pytest.fixture
def run_directory(tmp_path) -> Path:
    """The directory of a trained run: two seeds, 9 rounds of 2 environments."""
    env = envs.make("pendulum")
    settings = experiment.for_method(
        "cmil",
        environment="pendulum",
        agent=AGENT,
        seeds=2,
        loop=loop.Config(num_envs=2, steps=1, rounds=9),
    )
    directory = tmp_path / "run"
    rundir.open_run(directory, experiment.to_json(settings), False, ())
    card = demos.Card(
        environment="pendulum",
        control_period=env.spec.control_period,
        observation_names=env.spec.observation_names,
        action_low=env.spec.action_low,
        action_high=env.spec.action_high,
    )
    obs = np.array([[0, 0, 0], [2, 2, 2]], np.float32)
    episode = demos.Episode(obs.repeat(2, 0), np.zeros((3, 1), np.float32), None, False)
    demos.save(directory / runs.DEMONSTRATIONS, [episode] * 2, card)
    agent = cmil.make(Task.of(env.spec, num_envs=2), AGENT)
    keys = jax.random.split(jax.random.key(0), 2)
    state = jax.jit(jax.vmap(agent.init))(keys)
    replays = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), ring(9))
    state = dataclasses.replace(state, replay=replays)
    whole = TrainState(agent=state, env=(), carry=(), key=keys)
    checkpoint.save(directory / rundir.CHECKPOINTS, whole, step=18, round_=9)
    line = {"step": 18, "seconds": 2.0, "metrics": {"train/reward": [1.0, 1.0]}}
    (directory / report.METRICS_FILE).write_text(json.dumps(line) + "\n")
    return directory


def test_the_command_prints_writes_and_draws(run_directory, tmp_path):
    """Observations [t, t, t] and [t + ¼, …] at t = 3 … 8; demonstrations at 0 and 2."""
    out, picture = tmp_path / "out.json", tmp_path / "coverage.png"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.coverage", f"--runs={run_directory}"),
            *(f"--limits={SPEED}=:6", f"--out={out}", f"--picture={picture}"),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "the last 12 of 18 steps" in done.stdout and picture.stat().st_size > 1000
    content = json.loads(out.read_text())
    (case,), (found,) = content["cases"], content["outcomes"]
    assert (content["kind"], case["name"]) == ("campaign", str(run_directory))
    assert found == json.loads((run_directory / coverage.RESULT).read_text())
    assert found["steps"] == [8, 10, 12, 14, 16, 18] and found["replay_steps"] == 12
    expected = math.sqrt(3) * (np.arange(3, 9) + 0.125 - 2)  # a deviation is 1
    np.testing.assert_allclose(found["parts"]["distance"], [expected] * 2, rtol=1e-5)
    violations = found["parts"][f"constraint_violations: {SPEED}"]
    assert violations == [[0, 0, 0, 0.5, 1, 1]] * 2
    assert found["all"]["out_of_support"] == [1.0, 1.0]


def test_runs_without_a_distance_are_refused(run_directory):
    trained = runs.load(run_directory)
    of_pictures = trained._replace(env=envs.make("pendulum:pixels=8"))
    with pytest.raises(UsageError, match="learned from pictures"):
        coverage.load_visits(of_pictures)
    for method, sentence in (("sac", "sac has no demonstrations"), ("bc", "bc keeps no")):
        settings = dataclasses.replace(
            trained.experiment, method=method, agent=registry.method(method).config
        )
        other = trained._replace(
            experiment=settings,
            make_agent=lambda env, model, settings=settings: experiment.make_agent(
                settings, env, trained.demos
            ),
        )
        with pytest.raises(UsageError, match=sentence):
            coverage.load_visits(other)
