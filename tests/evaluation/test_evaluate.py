import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import envs, experiment, registry, runs
from planil_jax.agents import mpail
from planil_jax.base import Agent, Subtasks, Task, TrainState, UsageError, UserError
from planil_jax.data import demos
from planil_jax.envs import pixels, wrappers
from planil_jax.evaluation import collect, evaluate, rewards
from planil_jax.models import simulator
from planil_jax.nets import latent
from planil_jax.training import checkpoint, loop, report, rundir


def driven(environment: str, actions, tmp_path) -> runs.Run:
    """A run of two members; each always acts alike."""
    env = envs.make(environment)
    settings = experiment.Experiment(environment=environment, seeds=len(actions))
    agent = Agent(
        init=lambda key: jnp.zeros(2),
        carry=lambda: (),
        act=lambda params, carry, state, key, explore: (params, carry),
        update=lambda state, *_: (state, {}),
    )
    held = demos.none(env.spec).replace(obs=jnp.array([[[0.0] * 7, [9.0] + [0.0] * 6]]))
    params = jnp.asarray(actions)
    return runs.Run(tmp_path, settings, env, lambda env, own: agent, held, params, {}, 0)


def test_a_run_is_evaluated_elsewhere_with_what_it_learned_here(tmp_path):
    trained = driven("navigation:episode_length=5", [[1.0, 0.0], [0.5, 0.0]], tmp_path)
    there = evaluate.in_env(trained, "navigation:episode_length=9,drive_lag=0")
    assert there.env.spec.episode_length == 9
    paths, _, _ = evaluate._episodes(
        there, there.env, jax.random.split(jax.random.key(0), 3)
    )
    assert paths.shape == (2, 3, 10, 7)
    np.testing.assert_allclose(paths[0, :, -1, 4], 3.0, atol=1e-5)  # full throttle, no lag
    np.testing.assert_allclose(paths[1, :, -1, 4], 1.5, atol=1e-5)


def test_an_environment_that_observes_otherwise_is_refused_by_name(tmp_path):
    trained = driven("navigation", [[1.0, 0.0]], tmp_path)
    with pytest.raises(UsageError, match="--env=pendulum: its observation_names are"):
        evaluate.in_env(trained, "pendulum")


def test_a_run_acts_by_other_settings_than_its_own_if_told_to(tmp_path):
    """An untrained TD-MPC2, planning as its run says, and by its policy alone."""
    name = "pendulum:episode_length=5"
    network = latent.Config(latent=16, encoder=(8,), hidden=(8,), critics=3)
    agent = experiment.for_method("tdmpc2").agent
    planner = dataclasses.replace(agent.planner, horizon=1, iterations=1)
    replay = dataclasses.replace(agent.replay, capacity=5)
    agent = dataclasses.replace(agent, network=network, planner=planner, replay=replay)
    settings = experiment.for_method("tdmpc2", environment=name, agent=agent)
    rundir.open_run(tmp_path, experiment.to_json(settings), False, ())
    env = envs.make(name)
    key = jax.random.key(0)
    state = experiment.make_agent(settings, env, demos.none(env.spec)).init(key)
    one = jax.tree.map(lambda leaf: leaf[None], state)
    whole = TrainState(agent=one, env=(), carry=(), key=key[None])
    checkpoint.save(tmp_path / rundir.CHECKPOINTS, whole, step=5, round_=1)

    own = runs.load(tmp_path)
    alone = runs.load(tmp_path, override="agent.planning.enabled=False")
    assert own.experiment.agent.planning.enabled
    assert not alone.experiment.agent.planning.enabled
    returns = []
    for trained, told in ((own, ""), (alone, "agent.planning.enabled=False")):
        found = evaluate.evaluate(trained, episodes=2, fields=[], starts=1, expert=False)
        assert found["varied"] == told
        assert found == json.loads((tmp_path / evaluate.RESULT).read_text())
        returns.append(found["in_distribution"]["returns"])
    assert returns[0] != returns[1]
    with pytest.raises(UserError, match="does not fit this configuration: agent.params"):
        runs.load(tmp_path, override="agent.network.latent=24")
    with pytest.raises(UsageError, match="no field agent.planing. Did you mean planning"):
        runs.load(tmp_path, override="agent.planing=1")


def test_a_biased_reward_is_told_of_where_episodes_can_end():
    env = envs.make("probe/countdown")
    settings = experiment.for_method("gaifo", environment="probe/countdown")
    assert experiment.config_warnings(settings, env) == []  # the logit is neutral
    agent = dataclasses.replace(settings.agent, reward="gail_pos")
    (told,) = experiment.config_warnings(dataclasses.replace(settings, agent=agent), env)
    assert "agent.reward=gail_pos" in told and "staying alive" in told
    endless = envs.make("navigation")
    assert (
        experiment.config_warnings(dataclasses.replace(settings, agent=agent), endless)
        == []
    )


def test_a_model_can_be_another_one_or_several():
    env = envs.make("navigation")
    one = experiment.for_method("mpail", model=("navigation:steering_gain=0.3",))
    many = dataclasses.replace(one, model=("navigation", "navigation:slip=0.3"))
    for settings, shape in ((one, (7,)), (many, (2, 7))):
        model = experiment.make_model(settings, env)
        state = env.reset(jax.random.key(0))
        assert model.observe((), model.start((), state)).shape == shape


def test_a_method_that_reads_vectors_refuses_pictures():
    settings = experiment.for_method("gaifo", environment="pendulum:pixels=64")
    env = envs.make(settings.environment)
    with pytest.raises(UsageError, match="^gaifo reads vectors, but pendulum:pixels=64 sh"):
        experiment.make_agent(settings, env, demos.none(env.spec))


@pytest.mark.parametrize("method", registry.methods())
def test_a_method_that_acts_continuously_refuses_choices(method):
    """All but those that are told of."""
    settings = experiment.for_method(method, environment="pendulum:choices=5")
    env = envs.make(settings.environment)
    if method in ("mail", "bc"):
        assert registry.method(method).needs(registry.method(method).config).discrete
        return
    with pytest.raises(UsageError) as caught:
        experiment.make_agent(settings, env, demos.none(env.spec))
    assert str(caught.value) == (
        f"{method} acts continuously, but pendulum:choices=5 takes one of 5 choices: leave "
        "its option choices out, or choose one of mail, bc."
    )


def test_a_continuous_expert_demonstrates_choices_by_the_nearest(tmp_path):
    """A torque of 1.2 is the fourth of -2, -1, 0, 1 and 2."""
    trained = driven("pendulum:episode_length=5", [[1.2]], tmp_path)
    path = str(tmp_path / "chosen.npz")
    name = "pendulum:choices=5,episode_length=5"
    args = (trained, path, 2, 1, True)
    collect.from_run(*args, environment=name, unlearned=True)
    held = demos.load(path, envs.make(name).spec)
    np.testing.assert_array_equal(held.actions, np.tile(np.eye(5)[3], (2, 5, 1)))
    with pytest.raises(UsageError, match="has other observation names than pendulum, wh"):
        collect.from_run(*args, environment="pendulum:choices=5,observe=0+1")


def test_a_model_that_takes_other_actions_is_refused():
    env = envs.make("pendulum:choices=5")
    settings = experiment.for_method(
        "mail", environment="pendulum:choices=5", model=("pendulum",)
    )
    told = (
        "^model pendulum takes 1 continuous number, but pendulum:choices=5 takes one of 5"
    )
    with pytest.raises(UsageError, match=told):
        experiment.make_model(settings, env)


def test_a_learned_reward_is_compared_with_the_task_s(tmp_path):
    """MPAIL's untrained logit: correlations of each seed and sort of steps; a picture."""
    environment = "navigation:episode_length=5"
    env = envs.make(environment)
    settings = experiment.for_method("mpail", environment=environment, seeds=2)
    own = dataclasses.replace(settings.agent, replay=mpail.ReplayOptions(capacity=1))
    observed = tuple(range(env.spec.observation_size))
    agent = mpail.make(
        Task.of(env.spec, dynamics=simulator.prior_or_physics(env), observed=observed), own
    )
    keys = jax.random.split(jax.random.key(0), 2)
    params = jax.vmap(lambda key: agent.init(key).params)(keys)
    held = demos.none(env.spec)
    still = agent._replace(
        carry=lambda: (),
        act=lambda params, carry, state, key, explore: (jnp.array([1.0, 0.1]), carry),
    )
    trained = runs.Run(tmp_path, settings, env, lambda env, own: still, held, params, {}, 0)
    found = rewards.compare(trained, 3)
    assert all(len(found[sort]) == 2 for sort in rewards.SORTS)
    assert all(-1.0 <= value <= 1.0 for value in found["both"] + found["sums"])
    assert (tmp_path / rewards.PICTURE).stat().st_size > 1000
    assert "both" in rewards.table(found)


def test_hands_are_the_agent_s_own_in_so_many_steps_and_random_in_the_rest():
    """A hand of 0 drives as an evaluation does; one of 1 at no step as the agent would."""
    env = envs.make("navigation")
    own = jnp.array([0.25, -0.5])
    agent = Agent(
        init=lambda key: (),
        carry=lambda: jnp.zeros(()),
        act=lambda params, carry, state, key, explore: (params, carry + 1),
        update=lambda state, *_: (state, {}),
    )
    keys = jax.random.split(jax.random.key(0), 16)

    @jax.jit
    def driven_by(share):
        return loop.evaluate(rewards._shaky(agent, env, share), env, own, keys)[0]

    plain, _ = jax.jit(lambda: loop.evaluate(agent, env, own, keys))()
    np.testing.assert_allclose(driven_by(0.0).obs, plain.obs, atol=1e-5)
    kept = {
        share: np.mean(np.all(driven_by(share).action == own, -1))
        for share in rewards.HANDS
    }
    assert kept[0.0] == 1.0 and kept[1.0] == 0.0
    assert kept == pytest.approx({share: 1 - share for share in kept}, abs=0.03)
    low, high = np.array(env.spec.action_low), np.array(env.spec.action_high)
    random = np.asarray(driven_by(1.0).action).reshape(-1, 2)
    np.testing.assert_allclose(random.min(0), low, atol=0.02)
    np.testing.assert_allclose(random.max(0), high, atol=0.02)


def test_a_method_without_a_reward_is_refused(tmp_path):
    trained = driven("navigation", [[1.0, 0.0]], tmp_path)
    settings = dataclasses.replace(trained.experiment, method="bc")
    with pytest.raises(
        UsageError, match="^bc learns no reward to compare; --rewards is for"
    ):
        rewards.compare(trained._replace(experiment=settings), 2)


def test_a_run_that_was_never_evaluated_on_the_way_has_an_empty_curve(tmp_path):
    trained = driven("navigation", [[1.0, 0.0]], tmp_path)
    line = {"step": 5, "seconds": 2.0, "metrics": {"train/reward": [1.0]}}
    (tmp_path / report.METRICS_FILE).write_text(json.dumps(line) + "\n")
    for name in ("config.json", "versions.json"):
        (tmp_path / name).write_text("{}")
    found = runs.record(trained)
    assert found["steps"] == found["returns"] == [] and found["seconds"] == 2.0


def test_subtasks_are_told_of_however_the_task_is_wrapped(tmp_path):
    """The first is done in one state alone, before the episode is over; the last never."""
    trained = driven("navigation", [[1.0, 0.0], [0.0, 0.0]], tmp_path)
    plain = evaluate.in_distribution(trained, 3, expert=False)
    assert "subtasks" not in plain

    def done(state):
        inner = wrappers.innermost(state)
        return jnp.array([inner.time == 7, inner.obs[4] > 0.5, False])

    env = trained.env._replace(subtasks=Subtasks(("once", "moves", "never"), done))
    assert pixels.wrap(env, 16).subtasks is env.subtasks
    masked = trained._replace(env=wrappers.mask(env, (0, 1)))
    found = evaluate.in_distribution(masked, 3, expert=False)
    assert found["returns"] == plain["returns"]
    assert found["subtasks"] == {"once": [1, 1], "moves": [1, 0], "never": [0, 0]}
