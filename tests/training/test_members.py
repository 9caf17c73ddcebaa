"""Members of a run that become not finite: they stop alone, and stay so on resume."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from planil_jax.agents import bc
from planil_jax.base import Task, UserError
from planil_jax.envs import point_mass
from planil_jax.nets import heads, mlp
from planil_jax.training import checkpoint, files, loop, report, run
from tests import tiny
from tests.training.test_invalid_steps import breaking

RATES = [0.01, 0.02, 1e38, 0.03, 0.04, 3e37, 0.05, 0.06]  # two of them diverge
GOOD = [i for i, rate in enumerate(RATES) if rate < 1]
LAST = 96


class Keeping(report.Report):
    def __init__(self):
        super().__init__(console=False)
        self.said = []

    def say(self, sentence):
        self.said.append(sentence)


def config(**changes) -> run.Config:
    return dataclasses.replace(toy.RUN, **changes)


def sweep(rates, directory=None, **changes):
    """The last state, the metrics of all epochs, and what was said."""
    keeping = Keeping()
    epochs = run.train(
        lambda settings: toy.agent(rate=settings["rate"]),
        toy.environment(),
        toy.LOOP,
        config(**changes),
        toy.demonstrations(),
        (0, 1),
        directory,
        keeping,
        {"rate": np.asarray(rates)},
    )
    state, metrics = None, {}
    for epoch in epochs:
        state, metrics[epoch.step] = jax.tree.map(_raw, epoch.state), epoch.metrics
    return state, metrics, keeping.said


def _raw(leaf) -> np.ndarray:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.array(jax.random.key_data(leaf) if is_key else leaf)


def assert_equal(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("seeds_by", ["map", "vmap"])
def test_members_that_diverge_stop_and_the_others_learn_as_without_them(seeds_by):
    state, metrics, said = sweep(RATES, seeds_by=seeds_by)
    alone, metrics_alone, _ = sweep([RATES[i] for i in GOOD], seeds_by=seeds_by)
    others = jax.tree.map(lambda leaf: leaf[np.array(GOOD)], state)
    for step, values in metrics.items():
        for name, value in values.items():
            expected = metrics_alone[step][name]
            np.testing.assert_allclose(value[np.array(GOOD)], expected, 1e-5, 1e-5)
    if seeds_by == "map":
        assert_equal(others, alone)
    for a, b in zip(jax.tree.leaves(others), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), 1e-5, 1e-5)
    bad = np.array([i for i in range(8) if i not in GOOD])
    for value in metrics[LAST].values():
        assert np.isnan(value[bad]).all() and np.isfinite(value[np.array(GOOD)]).all()
    assert np.isfinite(state.agent.params).all()
    stops = [sentence for sentence in said if "stopped" in sentence]
    assert len(stops) == 2
    assert stops[0].startswith("seed 0 with settings 3 of the sweep became not finite at s")
    assert "and stopped; its parameters of step" in stops[0]


def test_a_sweep_with_members_that_stopped_is_resumed_bit_for_bit(tmp_path):
    whole, metrics, _ = sweep(RATES, tmp_path / "whole")
    sweep(RATES, tmp_path / "halves", total_steps=LAST // 2)
    rest, metrics_of_rest, said = sweep(RATES, tmp_path / "halves")
    assert_equal(rest, whole)
    assert set(metrics_of_rest) == {72, 96}
    for step, values in metrics_of_rest.items():
        assert_equal(values, metrics[step])
    assert sum("stays stopped" in sentence for sentence in said) == 2
    manifests = [
        json.loads((tmp_path / name / f"{LAST:012d}" / "checkpoint.json").read_text())
        for name in ("whole", "halves")
    ]
    assert manifests[0]["stopped"] == manifests[1]["stopped"]
    assert sorted(one["member"] for one in manifests[0]["stopped"]) == [2, 5]
    good = metrics[LAST]["eval/return"][np.array(GOOD)]
    np.testing.assert_allclose(manifests[0]["score"], good.mean(), rtol=1e-6)


def test_the_parameters_that_a_stopped_member_keeps_are_those_before_it_broke():
    state, _, said = sweep(RATES)
    first, _, _ = sweep(RATES, total_steps=24)
    for member in (2, 5):
        one = next(s for s in said if f"settings {member + 1} " in s and "stopped" in s)
        kept = int(one.split("parameters of step ")[1].split()[0])
        assert kept in (0, 24)
        if kept == 24:
            expected = first.agent.params[member]
        else:
            made = loop.init(toy.agent(), toy.environment(), toy.LOOP, jax.random.key(0))
            expected = np.asarray(made.agent.params)
        np.testing.assert_allclose(state.agent.params[member], expected, rtol=1e-6)


def test_a_checkpoint_without_a_list_of_stopped_members_is_read(tmp_path):
    sweep([0.01], tmp_path, total_steps=24)
    place = tmp_path / f"{24:012d}" / "checkpoint.json"
    content = files.parse(place.read_bytes(), {}, sealed=True)
    del content["stopped"]
    place.write_text(files.seal(json.dumps(content)))
    template = jax.eval_shape(lambda: jnp.zeros((1, 2, 2), jnp.float32))
    assert checkpoint.restore_params(tmp_path, template).stopped == ()


def test_when_the_last_member_stops_the_run_does_and_good_checkpoints_stay(tmp_path):
    with pytest.raises(
        UserError, match="became not finite at step .* the last of 2 members"
    ):
        sweep([1e38, 3e37], tmp_path)
    template = jax.eval_shape(lambda: jnp.zeros((2, 2, 2), jnp.float32))
    for step in checkpoint.steps(tmp_path):
        params = checkpoint.restore_params(tmp_path, template, step).state
        assert np.isfinite(params).all()


# -------------------------------------------------------------------------- environments


def in_env(env, directory=None, agent=None, **changes):
    keeping = Keeping()
    args = (agent or toy.agent(), env, toy.LOOP, config(**changes), toy.demonstrations())
    epochs = list(run.train(*args, (0, 2), directory, keeping))
    return epochs, keeping.said


def test_an_observation_that_breaks_in_the_last_step_of_an_epoch_is_never_saved(tmp_path):
    """Episodes of 4 steps, of which the last one breaks; a round has 4 steps as well."""
    env = breaking("obs", at=3)
    _, said = in_env(env, tmp_path, total_steps=48)
    template = jax.eval_shape(
        jax.vmap(lambda key: run._init(lambda _: toy.agent(), env, toy.LOOP, key, {})),
        jnp.stack([jax.random.key(0)] * 2),
    )
    saved = checkpoint.restore_latest(tmp_path, template)
    assert saved is not None and saved.step == 48 and saved.stopped == ()
    for leaf in jax.tree.leaves((saved.state.env, saved.state.carry)):
        assert np.isfinite(leaf).all()
    told = [sentence for sentence in said if "not finite" in sentence]
    assert told == [
        "12 of the steps before step 24 became not finite, 6 of them of seed 0: each ends "
        "its episode and is not learned from; train/invalid_steps goes on counting."
    ]
    epochs, _ = in_env(env, tmp_path)
    assert epochs[-1].step == LAST


def test_a_member_without_a_valid_step_stops_in_its_environment():
    env = breaking("obs", at=0)  # every first step of an episode
    with pytest.raises(UserError, match="seed 0 became not finite at step 24 in env,"):
        in_env(env)


def test_a_reward_that_no_imitator_reads_stops_nothing(tmp_path):
    env = point_mass.make(episode_length=4, action_bound=tiny.BOUND)

    def step(state, action):
        after, transition = env.step(state, action)
        return after, dataclasses.replace(transition, reward=transition.reward + jnp.nan)

    policy = heads.Config(network=mlp.Config(hidden=(8,)))
    settings = bc.Config(policy=policy, gradient_steps=3, batch=16)
    states = []
    for environment in (env, env._replace(step=step)):
        agent = bc.make(Task.of(env.spec, observed=tiny.ENTRIES, num_envs=3), settings)
        demos = tiny.demonstrations(0, True)
        args = (agent, environment, toy.LOOP, toy.RUN, demos)
        *_, last = run.train(*args, (0, 1), tmp_path / str(len(states)))
        states.append(jax.tree.map(_raw, last.state))
    assert_equal(*states)
    assert np.isnan(last.metrics["train/reward"]) and np.isnan(last.metrics["eval/return"])
    assert last.metrics["train/invalid_steps"] == 0
