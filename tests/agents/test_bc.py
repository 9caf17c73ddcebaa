"""Cloning of experts whose actions are a known function of their observations."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import experiment
from planil_jax.agents import bc
from planil_jax.base import Demonstrations, EnvSpec, EnvState, Task, UsageError
from planil_jax.data import demos as demonstrations
from planil_jax.envs import point_mass
from planil_jax.nets import conv, heads, mlp

SPEC = EnvSpec("plane", ("a", "b", "c"), (0.0, -4.0), (2.0, 4.0), 5, 0.1)
ENTRIES = (0, 2)
SMALL = bc.Config(
    policy=heads.Config(network=mlp.Config(hidden=(32,), activation="tanh")),
    gradient_steps=400,
    batch=64,
    learning_rate=1e-2,
    weight_decay=0.0,
)
LIKELIHOOD = dataclasses.replace(SMALL, loss="likelihood", learning_rate=3e-3)


@functools.cache
def compiled(config: bc.Config):
    """`init`, `update` and `act`; the last with `explore` static."""
    agent = bc.make(Task.of(SPEC, observed=ENTRIES), config)
    return jax.jit(agent.init), jax.jit(agent.update), jax.jit(agent.act, static_argnums=4)


def expert(obs: np.ndarray) -> np.ndarray:
    """Actions `[..., 2]`, well within bounds, by the observed entries alone."""
    first = 1.0 + 0.05 * obs[..., 0] - 0.02 * (obs[..., 2] - 20.0)
    return np.stack([first, 0.5 * obs[..., 0]], axis=-1)


def demos_of(noise: float = 0.0, seed: int = 0) -> Demonstrations:
    """Four episodes of random states, the last one shorter and padded with nonsense."""
    rng = np.random.default_rng(seed)
    obs = rng.normal((0.0, 0.0, 20.0), (2.0, 0.0, 5.0), (4, 61, 3))
    actions = expert(obs[:, :-1]) + noise * rng.normal(size=(4, 60, 2))
    obs[3, 31:], actions[3, 30:] = 500.0, 2.0
    return Demonstrations(
        obs=jnp.asarray(obs, jnp.float32),
        actions=jnp.asarray(actions, jnp.float32),
        length=jnp.array([60, 60, 60, 30], jnp.int32),
        terminal=jnp.zeros((4,), bool),
        observed=ENTRIES,
    )


def train(config: bc.Config, demos: Demonstrations, rounds: int = 3, rollout=None):
    init, update, _ = compiled(config)
    state, metrics = init(jax.random.key(0)), {}
    for round_ in range(rounds):
        key = jax.random.key(round_)
        state, metrics = update(state, rollout, demos, key, jnp.int32(round_))
    return state, metrics


def act(config: bc.Config, params, obs, key: int = 0, explore: bool = False):
    """Actions of observations `[B, 3]`."""

    def one(row):
        start = EnvState((), jnp.asarray(row, jnp.float32), jnp.zeros((), jnp.int32))
        return compiled(config)[2](params, (), start, jax.random.key(key), explore)[0]

    return np.array([one(row) for row in obs])


def unseen(count: int = 8) -> np.ndarray:
    """States of the same distribution that no demonstration holds."""
    rng = np.random.default_rng(9)
    return rng.normal((0.0, 0.0, 20.0), (1.5, 0.0, 4.0), (count, 3))


@pytest.mark.parametrize("config", [SMALL, LIKELIHOOD], ids=["mse", "likelihood"])
def test_a_noiseless_expert_is_cloned_where_it_was_demonstrated(config):
    """Root mean square error below 3% of half the bounds, which are 1 and 4."""
    state, metrics = train(config, demos_of())
    obs = unseen()
    errors = (act(config, state.params, obs) - expert(obs)) / np.array([1.0, 4.0])
    assert np.sqrt(np.mean(errors**2)) < 0.03
    assert metrics["policy/error"] < 2e-3
    untrained = act(config, train(config, demos_of(), rounds=0)[0].params, obs)
    assert np.sqrt(np.mean(((untrained - expert(obs)) / np.array([1.0, 4.0])) ** 2)) > 0.1


def test_padding_is_neither_cloned_nor_counted():
    """Moments by hand, of the 210 observations that the expert acted on."""
    demos = demos_of()
    state, _ = train(SMALL, demos, rounds=1)
    obs = np.float64(demos.obs)
    rows = np.concatenate([obs[n, : demos.length[n]] for n in range(4)])[:, ENTRIES]
    assert state.params.moments.count == len(rows) == 210
    np.testing.assert_allclose(state.params.moments.mean, rows.mean(0), atol=1e-4)
    np.testing.assert_allclose(state.params.moments.variance, rows.var(0), rtol=1e-3)
    other = demos.replace(
        obs=demos.obs.at[3, 31:].set(-7.0), actions=demos.actions.at[3, 30:].set(0.0)
    )
    assert equal(state, train(SMALL, other, rounds=1)[0])


def test_unobserved_entries_are_not_read():
    state, _ = train(SMALL, demos_of(), rounds=1)
    filled = demos_of()
    filled = filled.replace(obs=filled.obs.at[..., 1].set(9.0))
    assert equal(state, train(SMALL, filled, rounds=1)[0])
    obs = unseen(2)
    unobserved, observed = obs + np.array([0, 3.0, 0]), obs + np.array([1.0, 0, 0])
    actions, same, other = (
        act(SMALL, state.params, o) for o in (obs, unobserved, observed)
    )
    np.testing.assert_array_equal(actions, same)
    assert np.abs(actions - other).max() > 0.01


def test_the_rollout_changes_nothing():
    demos = demos_of()
    alone, _ = train(SMALL, demos, rounds=1)
    assert equal(alone, train(SMALL, demos, rounds=1, rollout={"obs": jnp.ones((5, 3))})[0])


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_likelihood_finds_the_deviation_of_actions_down_to_its_floor(noise):
    """Of the first action, which squashing hardly bends: 0.2, or the floor of 0.1.

    Within 30%, by 200 samples.
    """
    policy = dataclasses.replace(SMALL.policy, std_low=0.1)
    config = dataclasses.replace(LIKELIHOOD, policy=policy)
    state, _ = train(config, demos_of(noise))
    middle = np.array([[0.0, 0.0, 20.0]])
    samples = [
        act(config, state.params, middle, key, explore=True)[0] for key in range(200)
    ]
    deviation = np.std(samples, axis=0)[0]
    np.testing.assert_allclose(deviation, max(noise, 0.1), rtol=0.3)


def test_choices_are_cloned_by_likelihood_whichever_loss_is_named():
    """The expert chooses by the sign of an entry; a wrong choice is an error of 1."""
    choices = SPEC._replace(action_low=(0.0,) * 2, action_high=(1.0,) * 2, discrete=True)
    agent = bc.make(Task.of(choices, observed=ENTRIES), SMALL)
    demos = demos_of()
    right = jax.nn.one_hot((demos.obs[:, :-1, 0] > 0).astype(int), 2)
    state, metrics = jax.jit(agent.update)(
        jax.jit(agent.init)(jax.random.key(0)),
        None,
        demos.replace(actions=right),
        jax.random.key(1),
        jnp.int32(0),
    )
    obs = unseen(40)

    def one(row):
        start = EnvState((), row, jnp.zeros((), jnp.int32))
        return agent.act(state.params, (), start, jax.random.key(0), False)[0]

    actions = jax.jit(jax.vmap(one))(jnp.asarray(obs, jnp.float32))
    clear = np.abs(obs[:, 0]) > 0.3
    np.testing.assert_array_equal(actions[clear], np.eye(2)[(obs[clear, 0] > 0) * 1])
    assert metrics["policy/error"] < 0.1 and metrics["policy/likelihood"] < 0.2


@pytest.mark.parametrize("name", ["mse", "likelihood"])
def test_the_loss_is_the_one_that_is_named_computed_by_hand(name):
    """A policy of mode (1, 0) and deviation 0.5, before squashing, whatever it observes."""
    policy = heads.Config(network=mlp.Config(hidden=()), std=0.5)
    config = dataclasses.replace(SMALL, policy=policy, loss=name)
    components = bc.build(Task.of(SPEC, observed=ENTRIES), config)
    params = jax.tree.map(jnp.zeros_like, components.policy.init(jax.random.key(0)))
    actions = np.array([[1.5, -2.0], [0.4, 1.0]])
    batch = bc.Batch(jnp.ones((2, 2)), jnp.asarray(actions, jnp.float32))
    scaled = (actions - np.array([1.0, 0.0])) / np.array([1.0, 4.0])
    error = np.mean(np.sum(scaled**2, axis=1))
    u = np.arctanh(scaled)
    normal = -0.5 * (u / 0.5) ** 2 - np.log(0.5 * np.sqrt(2 * np.pi))
    log_prob = np.sum(normal - np.log(np.array([1.0, 4.0]) * (1 - scaled**2)), axis=1)
    expected = {"mse": error, "likelihood": -np.mean(log_prob)}
    loss_fn = functools.partial(bc.loss, components)
    (loss, metrics), slope = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(
        params, batch
    )
    np.testing.assert_allclose(loss, expected[name], rtol=1e-4)
    np.testing.assert_allclose(metrics["policy/error"], error, rtol=1e-4)
    np.testing.assert_allclose(metrics["policy/likelihood"], -np.mean(log_prob), rtol=1e-4)
    widens = np.abs(slope["params"]["raw_std"]).max() > 0.01
    assert widens == (name == "likelihood")  # the squared error ignores the deviation


def test_an_unknown_loss_is_refused_in_one_sentence():
    with pytest.raises(
        UsageError, match="^agent.loss is 'mse' or 'likelihood', not 'l1'.$"
    ):
        bc.make(Task.of(SPEC, observed=ENTRIES), bc.Config(loss="l1"))


# ------------------------------------------------------------------- held-out episodes

# Wide and fast on few noisy actions, so that it soon clones the noise.
HOLDOUT = dataclasses.replace(
    SMALL, gradient_steps=20, batch=32, learning_rate=3e-2, holdout=0.5
)
NOISE, ROUNDS = 1.0, 8


def held_out(demos: Demonstrations, seed: int = 0, config=HOLDOUT):
    """What trains and what is held out where the agent's first key is of this seed."""
    state = compiled(config)[0](jax.random.key(seed))
    return bc.split(demos, config.holdout, state.holdout.key)


def mean_error(params, demos: Demonstrations) -> float:
    """Of all steps, in units of half the bounds, by plain loops; `act` takes the mode."""
    errors = []
    for n, length in enumerate(np.asarray(demos.length)):
        found = act(HOLDOUT, params, np.asarray(demos.obs[n, :length]))
        error = (found - np.asarray(demos.actions[n, :length])) / np.array([1.0, 4.0])
        errors += [float(np.sum(row**2)) for row in error]
    return float(np.mean(errors))


@functools.cache
def history() -> list[bc.State]:
    """The state after each round, with held-out episodes."""
    init, update, _ = compiled(HOLDOUT)
    states, metrics = [init(jax.random.key(0))], {}
    for round_ in range(ROUNDS):
        key = jax.random.key(round_)
        state, metrics = update(states[-1], None, demos_of(NOISE), key, jnp.int32(round_))
        assert metrics["policy/best_gradient_step"] == state.holdout.gradient_steps
        states.append(state)
    return states[1:]


@pytest.mark.parametrize(
    ("count", "share", "held"),
    [(2, 0.01, 1), (2, 0.99, 1), (4, 0.5, 2), (10, 0.3, 3), (5, 0.99, 4)],
)
def test_whole_episodes_are_held_out_and_some_on_either_side(count, share, held):
    demos = Demonstrations(
        obs=jnp.broadcast_to(jnp.arange(count)[:, None, None], (count, 3, 2)),
        actions=jnp.broadcast_to(jnp.arange(count)[:, None, None], (count, 2, 1)),
        length=jnp.arange(count),
        terminal=jnp.zeros((count,), bool),
        observed=(0, 1),
    )
    choices = set()
    for seed in range(8):
        train, out = bc.split(demos, share, jax.random.key(seed))
        assert sorted([*train.length.tolist(), *out.length.tolist()]) == list(range(count))
        assert len(out.length) == held
        for side in (train, out):
            np.testing.assert_array_equal(side.obs[:, -1, 1], side.length)
            np.testing.assert_array_equal(side.actions[:, -1, 0], side.length)
        choices.add(tuple(sorted(out.length.tolist())))
    assert len(choices) > 1


def test_what_acts_erred_least_on_the_held_out_episodes_so_far():
    """Replayed round by round with the other episodes alone; the last round is not best."""
    demos = demos_of(NOISE)
    train_demos, out = held_out(demos)
    plain = dataclasses.replace(HOLDOUT, holdout=None)
    losses = []
    for round_, state in enumerate(history()):
        alone, _ = train(plain, train_demos, rounds=round_ + 1)
        assert equal(state.policy, alone.policy)
        assert equal(state.params.moments, alone.params.moments)
        losses.append(mean_error(alone.params, out))
        best = int(np.argmin(losses))
        assert equal(state.params.policy, history()[best].policy.params)
        assert state.holdout.gradient_steps == 20 * (best + 1)
        np.testing.assert_allclose(state.holdout.loss, losses[best], rtol=1e-4)
    assert 0 < best < ROUNDS - 2
    assert losses[-1] > 1.05 * losses[best]


def test_held_out_actions_choose_among_parameters_and_teach_nothing():
    """Held-out actions that the last round's policy takes make it the best."""
    demos, last = demos_of(NOISE), history()[-1]
    out = held_out(demos)[1].actions
    newest = last.params.replace(policy=last.policy.params)
    taken = [act(HOLDOUT, newest, obs) for obs in np.asarray(demos.obs[:, :-1])]
    is_out = [any(np.array_equal(row, other) for other in out) for row in demos.actions]
    assert is_out.count(True) == 2
    chosen = jnp.array(is_out)[:, None, None]
    other = demos.replace(actions=jnp.where(chosen, jnp.asarray(taken), demos.actions))
    state, _ = train(HOLDOUT, other, rounds=ROUNDS)
    assert equal(state.policy, last.policy)
    assert equal(state.params, newest) and not equal(state.params, last.params)


def test_seeds_side_by_side_hold_out_as_they_do_alone_in_one_program():
    demos, seeds, traces = demos_of(NOISE), jnp.arange(3), []
    agent = bc.make(Task.of(SPEC, observed=ENTRIES), HOLDOUT)

    @jax.jit
    def update(states, keys, round_):
        traces.append(1)
        return jax.vmap(agent.update, (0, None, None, 0, None))(
            states, None, demos, keys, round_
        )

    first = jax.eval_shape(agent.init, jax.random.key(0))
    after, _ = jax.eval_shape(
        agent.update, first, None, demos, jax.random.key(0), jnp.int32(0)
    )
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(after), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
    states = jax.jit(jax.vmap(lambda seed: agent.init(jax.random.key(seed))))(seeds)
    for round_ in range(ROUNDS):
        keys = jnp.broadcast_to(jax.random.key(round_), (3,))
        states, metrics = update(states, keys, jnp.int32(round_))
    assert len(traces) == 1 and metrics["policy/holdout_loss"].shape == (3,)
    assert states.holdout.gradient_steps[0] == history()[-1].holdout.gradient_steps
    np.testing.assert_allclose(
        states.holdout.loss[0], history()[-1].holdout.loss, rtol=1e-3
    )
    sides = [held_out(demos, int(seed))[1].actions for seed in seeds]
    assert not all(np.array_equal(sides[0], side) for side in sides)


def test_held_out_pictures_are_judged_as_they_are_and_stacked_as_they_act():
    """Two frames a stack; at the first step of an episode the first frame twice."""
    spec = SPEC._replace(observation_names=(), image=(16, 16, 6))
    rng = np.random.default_rng(0)
    demos = Demonstrations(
        obs=jnp.asarray(rng.integers(0, 256, (2, 4, 16, 16, 3)), jnp.uint8),
        actions=jnp.asarray(rng.uniform(0.0, 2.0, (2, 3, 2)), jnp.float32),
        length=jnp.array([3, 2], jnp.int32),
        terminal=jnp.zeros((2,), bool),
        observed=(),
    )
    config = dataclasses.replace(HOLDOUT, encoder_conv=conv.Config(filters=4, patch_size=8))
    components = bc.build(Task.of(spec, observed=()), config)
    state = bc.init(components, jax.random.key(0))
    moments, params = state.params.moments, state.params.policy
    losses = []
    for n, length in enumerate((3, 2)):
        for step in range(length):
            frames = demos.obs[n, max(step - 1, 0)], demos.obs[n, step]
            stack = jnp.concatenate(frames, axis=-1)[None]
            batch = bc.Batch(stack, demos.actions[n, step][None])
            losses.append(float(bc.loss(components, params, batch)[0]))
    found = bc.holdout_loss(components, params, moments, demos)
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-4)


@pytest.mark.parametrize(
    ("holdout", "message"),
    [
        (0.0, "^agent: holdout must be above 0 and below 1, or None, not 0.0.$"),
        (1, "^agent: holdout must be above 0 and below 1, or None, not 1.0.$"),
        (1.5, "^agent.holdout must be from 0 to 1, or None, not 1.5.$"),
    ],
)
def test_a_share_that_leaves_one_side_empty_is_refused(holdout, message):
    settings = experiment.for_method("bc")
    with pytest.raises(UsageError, match=message):
        experiment.with_value(settings, "holdout", holdout)


def test_one_episode_is_too_few_to_hold_any_out():
    env = point_mass.make()
    one = demonstrations.none(env.spec).replace(actions=jnp.zeros((1, 1, 2)))
    settings = experiment.for_method("bc", agent=HOLDOUT)
    with pytest.raises(
        UsageError,
        match="^bc with these settings needs at least 2 episodes, but the demonstrations "
        "hold 1: record more.$",
    ):
        experiment.make_agent(settings, env, one)
    two = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), one)
    experiment.make_agent(settings, env, two)


def equal(left, right) -> bool:
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array(a).tobytes() == np.array(b).tobytes() for a, b in pairs)
