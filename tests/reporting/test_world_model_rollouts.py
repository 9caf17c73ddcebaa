"""Rollouts of an untrained world model."""

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax import envs, experiment, runs
from planil_jax.agents import cmil
from planil_jax.base import Task
from planil_jax.data import demos
from planil_jax.models import rssm
from planil_jax.nets import heads, mlp
from planil_jax.nets import rssm as networks
from planil_jax.reporting import figures, world_model_rollouts

SMALL = mlp.Config(hidden=(8,), activation="elu")
CONFIG = cmil.Config(
    model=rssm.Config(
        network=networks.Config(deter=8, stoch=4, hidden=8, heads=2), vectors=SMALL
    ),
    policy=heads.Config(network=SMALL, std_of_state=True),
    discriminator=cmil.DiscriminatorConfig(network=SMALL),
    critic=SMALL,
)
OBSERVED = world_model_rollouts.OBSERVED
STEPS = OBSERVED + 4


def test_open_loop_and_imagination_read_the_first_observations_alone():
    task = Task.of(envs.make("pendulum").spec)
    agent, world_model = cmil.make(task, CONFIG), cmil.shows(task, CONFIG).world_model

    @jax.jit
    def predict(key, later):
        params_key, obs_key = jax.random.split(key)
        params = agent.init(params_key).params
        obs = jax.random.normal(obs_key, (STEPS, 3)).at[OBSERVED:].add(later)
        actions = jnp.linspace(-1, 1, STEPS)[:, None]
        return world_model(params, obs, actions, OBSERVED, key)

    read, again, ahead, alone = predict(jax.random.key(0), 0.0)
    assert read.shape == again.shape == ahead.shape == alone.shape == (STEPS, 3)
    for other in (ahead, alone):
        np.testing.assert_allclose(other[:OBSERVED], again[:OBSERVED], rtol=1e-5, atol=1e-6)
        assert np.abs(other[OBSERVED:] - again[OBSERVED:]).max() > 1e-4
    changed = predict(jax.random.key(0), 1.0)
    assert np.abs(changed[1] - again).max() > 1e-4
    np.testing.assert_array_equal(changed[2], ahead)  # these do not read later observations
    np.testing.assert_array_equal(changed[3], alone)


def test_the_rollouts_of_a_run_are_of_its_first_evaluation_episode(tmp_path):
    env = envs.make("pendulum:episode_length=8")
    settings = experiment.for_method("cmil", agent=CONFIG)
    agent = cmil.make(Task.of(env.spec), CONFIG)
    params = jax.vmap(lambda key: agent.init(key).params)(
        jax.random.split(jax.random.key(0), 1)
    )
    none = demos.none(env.spec)
    run = runs.Run(tmp_path, settings, env, lambda *_: agent, none, params, {}, 0)
    found = world_model_rollouts.of(run)
    assert found.names == env.spec.observation_names
    assert found.period == env.spec.control_period
    for values in found[:4]:
        assert values.shape == (8, 3)
    without = run._replace(experiment=experiment.for_method("bc"))
    assert world_model_rollouts.of(without) is None


def test_a_figure_of_rollouts_is_drawn():
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    seconds = np.arange(3.0)
    rows = {"observed": frames, "open loop": frames}
    lines = {"observed": np.zeros((5, 2)), "open loop": np.ones((5, 2))}
    for layout in (figures.WIDE, figures.NARROW):
        assert len(figures.world_model_frames(rows, seconds, layout).axes) == 6
        drawn = figures.world_model_lines(["x", "y"], lines, 0.1, 2, layout)
        assert len(drawn.axes) == 2
        strips = figures.frame_strips(np.stack([frames] * 2), seconds, ["seed 4"], layout)
        assert len(strips.axes) == 6


def test_the_verdict_is_of_the_numbers_that_are_drawn():
    observed = np.where(np.arange(STEPS + 11) % 2, 1.0, -1.0)[:, None]  # deviates by 1
    ahead = observed.copy()
    ahead[OBSERVED:] += 0.4
    ahead[OBSERVED + 6 :] += 0.2
    found = world_model_rollouts.Rollouts(
        observed, observed + 0.1, ahead, observed, 0.05, ("x",)
    )
    expected = np.abs(ahead - observed)[:, 0]
    np.testing.assert_allclose(world_model_rollouts.errors(found, ahead), expected)
    assert world_model_rollouts.departure(found) == 7
    words = world_model_rollouts.verdict(found)
    assert "0.10" in words and "7 steps (0.35 s)" in words
    near = found._replace(open_loop=observed + 0.4)
    assert world_model_rollouts.departure(near) is None
    assert f"{STEPS + 11 - OBSERVED} steps" in world_model_rollouts.verdict(near)
    never = found._replace(open_loop=np.full_like(observed, np.nan))
    assert world_model_rollouts.departure(never) == 1


def test_the_verdict_is_one_sentence_where_there_is_nothing_to_measure():
    still, short = np.ones((STEPS, 2)), np.random.default_rng(0).normal(size=(OBSERVED, 2))
    for values in (still, short):
        found = world_model_rollouts.Rollouts(*[values] * 4, 0.05, ("x", "y"))
        assert world_model_rollouts.departure(found) is None
        assert world_model_rollouts.verdict(found).count(".") == 1
