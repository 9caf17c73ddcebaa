"""Experts as small files: written of a run, read back, refused where they do not fit."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import planil_jax as pj
from planil_jax import envs, experiment, launch, runs
from planil_jax.agents import sac
from planil_jax.agents.common import ppo
from planil_jax.base import UsageError
from planil_jax.data import demos, expert_file
from planil_jax.evaluation import collect, expert_policies, saved_experts
from planil_jax.nets import heads, mlp
from planil_jax.training import loop
from planil_jax.training import run as training
from tests.evaluation.fixed_run import fixed_run

NET = mlp.Config(hidden=(8,))
POLICY = heads.Config(network=NET, std=1.0, std_of_state=True)
AGENTS = {
    "sac": sac.Config(policy=POLICY, critic=NET, gradient_steps=2, batch=8, capacity=50),
    "ppo": ppo.Config(policy=POLICY, value=NET, epochs=1, minibatches=2),
}
ENVIRONMENT = "pendulum:episode_length=10"


@pytest.fixture(scope="module", params=AGENTS)
def trained(request, tmp_path_factory) -> runs.Run:
    """Two seeds, each with two learning rates, after a few steps of training."""
    directory = tmp_path_factory.mktemp(request.param) / "run"
    settings = experiment.for_method(
        request.param,
        agent=AGENTS[request.param],
        environment=ENVIRONMENT,
        seed=3,
        seeds=2,
        sweep=("agent.learning_rate=1e-3,1e-2",),
        loop=loop.Config(num_envs=2, steps=10, rounds=1, resets=2),
        run=training.Config(total_steps=40, evaluation_episodes=0),
    )
    launch.launch(settings, logdir=directory)
    return runs.load(directory)


@pytest.fixture
def path(trained, tmp_path):
    """A file of the first member."""
    file = tmp_path / "expert.npz"
    saved_experts.save(trained, file, command="planil expert --weights=expert.npz")
    return file


def rewrite(path, **changes) -> None:
    """Changes arrays of a file; None removes one."""
    with np.load(path) as archive:
        arrays = dict(archive) | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def change(path, part: str, **changes) -> None:
    """Changes fields of the file's card or settings; None removes one."""
    with np.load(path) as archive:
        fields = json.loads(archive[part].item()) | changes
    kept = {name: value for name, value in fields.items() if value is not None}
    rewrite(path, **{part: np.array(json.dumps(kept))})


def refusal(path) -> str:
    with pytest.raises(UsageError) as caught:
        saved_experts.load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


# -------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("member", [0, 3])
def test_a_member_acts_from_its_file_as_from_its_run_bit_for_bit(trained, tmp_path, member):
    file = tmp_path / "deep" / "expert.npz"
    saved_experts.save(trained, file, member)
    loaded = saved_experts.load(file)
    before = jax.tree.map(lambda leaf: leaf[member], trained.params)
    after = jax.tree.map(lambda leaf: leaf[0], loaded.params)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)
    keys = jax.random.split(jax.random.key(7), 3)
    values = {name: column[member] for name, column in trained.settings.items()}
    (steps, _), (again, _) = (
        expert_policies.rollout(
            expert_policies.ExpertPolicy(run.env, run.make_agent(run.env, own), params, ""),
            keys,
        )
        for run, own, params in ((trained, values, before), (loaded, {}, after))
    )
    np.testing.assert_array_equal(steps.action, again.action)
    np.testing.assert_array_equal(steps.obs, again.obs)
    other = jax.tree.map(lambda leaf: leaf[1], trained.params)
    assert not np.array_equal(jax.tree.leaves(other)[0], jax.tree.leaves(after)[0])


def test_demonstrations_of_a_file_are_those_of_its_run(trained, path, tmp_path):
    files = [str(tmp_path / "of_run.npz"), str(tmp_path / "of_file.npz")]
    collect.from_run(trained, files[0], 2, 1, True, unlearned=True)
    collect.from_run(saved_experts.load(path), files[1], 2, 1, True, unlearned=True)
    (there, card), (here, same_card) = map(demos.read, files)
    assert card == same_card and card.expert.endswith("after 40 steps, seed 1")
    for a, b in zip(there, here, strict=True):
        np.testing.assert_array_equal(a.obs, b.obs)
        np.testing.assert_array_equal(a.actions, b.actions)


def test_the_card_says_where_the_expert_comes_from_and_what_it_returns(trained, path):
    weights, settings, card = expert_file.read(path)
    spec = trained.env.spec
    assert card.observation_names == spec.observation_names
    assert (card.action_low, card.action_high) == (spec.action_low, spec.action_high)
    assert (card.seed, card.step, card.control_period) == (3, 40, spec.control_period)
    assert card.command == "planil expert --weights=expert.npz"
    versions = json.loads((trained.directory / "versions.json").read_text())
    assert card.commit == versions["commit"]
    assert card.digest == expert_file.digest(weights)
    assert settings["agent"]["learning_rate"] == 1e-3  # the member's of the sweep
    assert card.starts == "jax.random.split(jax.random.key(24301), 64)"
    first = jax.tree.map(lambda leaf: leaf[0], trained.params)
    agent = trained.make_agent(trained.env, {"agent.learning_rate": 1e-3})
    keys = jax.random.split(jax.random.key(24301), 64)
    steps, alive = jax.jit(lambda: loop.evaluate(agent, trained.env, first, keys))()
    returns = np.sum(np.asarray(steps.reward * alive), axis=1)
    np.testing.assert_allclose(card.returns, returns, rtol=1e-4)
    page = expert_file.describe(path)
    for fact in (
        card.digest,
        card.command,
        f"{returns.mean():.1f} ± ",
        ENVIRONMENT,
        *weights,
    ):
        assert fact in page
    assert "after 40 steps" in expert_file.summary(path)
    assert expert_file.is_one(path)


def test_another_seed_s_card_names_it(trained, tmp_path):
    saved_experts.save(trained, tmp_path / "second.npz", 3)
    card = expert_file.read(tmp_path / "second.npz").card
    assert card.seed == 4
    with pytest.raises(UsageError, match="the run has members 0 to 3, no 4"):
        saved_experts.save(trained, tmp_path / "none.npz", 4)
    assert not (tmp_path / "none.npz").exists()


def test_the_library_writes_a_file_and_collects_from_it(
    trained, path, tmp_path, monkeypatch
):
    monkeypatch.setattr(collect, "_refuse_unlearned", lambda *args: None)
    here = pj.collect(expert=path, episodes=2)
    assert here.card.environment == "pendulum" and len(here.episodes[0].obs) == 11
    there = pj.collect("pendulum:episode_length=4", expert=str(path), episodes=1)
    assert len(there.episodes[0].obs) == 5
    run = pj.load(trained.directory)
    run.save_expert(tmp_path / "again.npz")
    digests = [
        expert_file.read(tmp_path / name).card.digest
        for name in ("expert.npz", "again.npz")
    ]
    assert digests[0] == digests[1]
    run.save_expert(tmp_path / "again.npz", seed=1)
    assert expert_file.read(tmp_path / "again.npz").card.digest != digests[0]
    with pytest.raises(UsageError, match="^run and expert each name who demonstrates"):
        pj.collect(run=run, expert=path)
    with pytest.raises(UsageError, match="other observation names than 'pendulum'"):
        pj.collect("pendulum:observe=0+1", expert=path)


# ------------------------------------------------------------------------------ bad input


def test_what_is_no_expert_s_file_is_refused(path, tmp_path):
    assert "no expert's file" in refusal(tmp_path / "absent.npz")
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, card=np.array([{}], object))
    assert "pickled objects are never loaded" in refusal(pickled)
    text = tmp_path / "text.npz"
    text.write_text("nothing")
    assert "is not an .npz archive" in refusal(text)
    cut = tmp_path / "cut.npz"
    cut.write_bytes(path.read_bytes()[:-100])
    assert "damaged or cut short" in refusal(cut)
    single = tmp_path / "single.npy"
    np.save(single, np.zeros(3))
    assert "is not an .npz archive" in refusal(single)
    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, obs=np.zeros(3))
    assert "is no expert's file" in refusal(foreign)
    recorded = tmp_path / "demos.npz"
    collect.collect("point_mass", str(recorded), 1, seed=1, actions=False)
    assert "holds demonstrations, and no expert" in refusal(recorded)
    for other in (tmp_path / "absent.npz", pickled, text, cut, single, foreign, recorded):
        assert not expert_file.is_one(other)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("card", {"version": 2}, "has format version 2, but this planil_jax reads up to 1"),
        ("card", {"digest": "0" * 16}, "its weights are not those that its card names"),
        (
            "card",
            {"colour": "red"},
            "its card is unsound: the configuration has no field colour",
        ),
        (
            "card",
            {"observation_names": ["x [m]"]},
            "was trained in pendulum with the observation names ('x [m]',), and here",
        ),
        ("card", {"action_high": [3.0]}, "with the action high (3.0,), and here they are"),
        ("card", {"version": 0}, "is no expert's file (its card does not say"),
        ("card", {"action_low": []}, "its card gives an action one bound of two"),
        ("card", {"control_period": 0}, "has a control period that is not above 0 s"),
        ("card", {"step": -1}, "its card has a seed or a number of steps below 0"),
        ("card", {"returns": []}, "its card names no returns"),
        ("settings", {"method": ["sac"]}, "the expert's method is no text"),
        ("settings", {"environment": 3}, "the expert's environment is no text"),
        ("settings", {"version": 3}, "cannot be read (configuration 3, not 2); use the"),
        ("settings", {"agent": None}, "the expert's settings lack 'agent'"),
        ("settings", {"imports": ["os"]}, "the expert's settings hold 'imports'"),
        ("settings", {"method": "bc", "agent": {}}, "bc imitates, and an expert's file"),
        ("settings", {"method": "sca"}, "no method 'sca'. Did you mean sac"),
        ("settings", {"environment": "pendulm"}, "Did you mean pendulum"),
        ("settings", {"agent": {"learning_rate": -1}}, "agent.learning_rate must"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_what_is_wrong(path, part, changes, message):
    change(path, part, **changes)
    assert message in refusal(path)


def test_weights_of_other_shapes_than_the_agent_s_are_refused(path):
    weights, settings, card = expert_file.read(path)
    name = next(name for name, array in weights.items() if array.ndim == 2)
    for other, words in [
        ({name: weights[name].T.copy()}, f"{name} is float32 ["),
        ({name: weights[name].astype(np.float64)}, f"{name} is float64 ["),
        ({"weights.more": np.zeros(2)}, "weights.more is float64 [2] in the file, and abs"),
    ]:
        expert_file.save(path, expert_file.Expert(weights | other, settings, card))
        assert words in refusal(path)
    weights.pop(name)
    expert_file.save(path, expert_file.Expert(weights, settings, card))
    assert f"{name} is absent in the file, and float32 [" in refusal(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, "x"])
def test_weights_that_are_no_finite_numbers_are_neither_written_nor_read(
    path, tmp_path, value, monkeypatch
):
    weights, settings, card = expert_file.read(path)
    name = next(iter(weights))
    broken = expert_file.Expert(
        weights | {name: np.full_like(weights[name], value, np.asarray(value).dtype)},
        settings,
        card,
    )
    with pytest.raises(UsageError, match="holds what is no finite number: train again"):
        expert_file.save(tmp_path / "new.npz", broken)
    assert not (tmp_path / "new.npz").exists()
    with monkeypatch.context() as patch:
        patch.setattr(expert_file, "_check", lambda *args: None)
        expert_file.save(path, broken)
    assert f"{name} holds what is no finite number" in refusal(path)


def test_a_run_that_is_no_expert_is_not_written(tmp_path):
    run = fixed_run("navigation", [[1.0, 0.0]], tmp_path)
    with pytest.raises(UsageError, match="mpail imitates, and an expert's file holds what"):
        saved_experts.save(run, tmp_path / "mpail.npz")
    held = dataclasses.replace(run.experiment, environment=envs.hold(run.env), method="sac")
    with pytest.raises(UsageError, match="was an object, and a file can only name one"):
        saved_experts.save(run._replace(experiment=held), tmp_path / "object.npz")
    mine = dataclasses.replace(run.experiment, module="mine", method="sac")
    with pytest.raises(
        UsageError, match="of the module 'mine', which an expert's file nev"
    ):
        saved_experts.save(run._replace(experiment=mine), tmp_path / "mine.npz")
    assert list(tmp_path.glob("*.npz")) == []


def test_a_path_that_is_no_npz_is_refused(trained, tmp_path):
    with pytest.raises(UsageError, match="are a file that ends in .npz"):
        saved_experts.save(trained, tmp_path / "expert.pjx")


def test_weights_are_read_as_they_were_written_whatever_the_leaf(tmp_path):
    """A bare array, and numbers that are no float32."""
    tree = {"count": jnp.int32(3), "seen": jnp.array([True]), "nested": (jnp.ones(2),)}
    named = {name: np.asarray(leaf) for name, leaf in saved_experts._named(tree).items()}
    assert list(named) == ["weights.count", "weights.nested.0", "weights.seen"]
    settings = {"version": 2, "environment": "", "method": "", "model": [], "agent": {}}
    path = tmp_path / "leaves.npz"
    card = expert_file.Card(control_period=0.1, returns=(1.0,))
    expert_file.save(path, expert_file.Expert(named, settings, card))
    read = expert_file.read(path).weights
    restored = saved_experts._fitted(read, jax.eval_shape(lambda: tree))
    assert jax.tree.map(lambda leaf: leaf.tolist(), restored) == {
        "count": 3,
        "seen": [True],
        "nested": ([1.0, 1.0],),
    }
