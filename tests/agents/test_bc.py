"""Cloning of experts whose actions are a known function of their observations."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.agents import bc
from planil_jax.base import Demonstrations, EnvSpec, EnvState, Task, UsageError
from planil_jax.nets import heads, mlp

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


def equal(left, right) -> bool:
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array(a).tobytes() == np.array(b).tobytes() for a, b in pairs)
