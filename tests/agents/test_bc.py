"""Cloning of experts whose actions are a known function of what they see."""

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
    steps=400,
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
    """Actions `[..., 2]`, well within bounds, of the entries that are demonstrated."""
    first = 1.0 + 0.05 * obs[..., 0] - 0.02 * (obs[..., 2] - 20.0)
    return np.stack([first, 0.5 * obs[..., 0]], axis=-1)


def demonstrate(noise: float = 0.0, seed: int = 0) -> Demonstrations:
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


def learn(config: bc.Config, demos: Demonstrations, rounds: int = 3, rollout=None):
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


def fresh(count: int = 8) -> np.ndarray:
    """States that no demonstration holds, from where the demonstrations are."""
    rng = np.random.default_rng(9)
    return rng.normal((0.0, 0.0, 20.0), (1.5, 0.0, 4.0), (count, 3))


@pytest.mark.parametrize("config", [SMALL, LIKELIHOOD], ids=["mse", "likelihood"])
def test_a_noiseless_expert_is_cloned_where_it_was_seen(config):
    """Root mean square error below 3% of half the bounds, which are 1 and 4."""
    state, metrics = learn(config, demonstrate())
    obs = fresh()
    errors = (act(config, state.params, obs) - expert(obs)) / np.array([1.0, 4.0])
    assert np.sqrt(np.mean(errors**2)) < 0.03
    assert metrics["policy/error"] < 2e-3
    untrained = act(config, learn(config, demonstrate(), rounds=0)[0].params, obs)
    assert np.sqrt(np.mean(((untrained - expert(obs)) / np.array([1.0, 4.0])) ** 2)) > 0.1


def test_what_pads_a_demonstration_is_neither_cloned_nor_counted():
    """Moments by hand, of the 210 observations that were acted on."""
    demos = demonstrate()
    state, _ = learn(SMALL, demos, rounds=1)
    obs = np.float64(demos.obs)
    rows = np.concatenate([obs[n, : demos.length[n]] for n in range(4)])[:, ENTRIES]
    assert state.params.moments.count == len(rows) == 210
    np.testing.assert_allclose(state.params.moments.mean, rows.mean(0), atol=1e-4)
    np.testing.assert_allclose(state.params.moments.variance, rows.var(0), rtol=1e-3)
    other = demos.replace(
        obs=demos.obs.at[3, 31:].set(-7.0), actions=demos.actions.at[3, 30:].set(0.0)
    )
    assert equal(state, learn(SMALL, other, rounds=1)[0])


def test_entries_that_were_not_demonstrated_are_not_looked_at():
    state, _ = learn(SMALL, demonstrate(), rounds=1)
    filled = demonstrate()
    filled = filled.replace(obs=filled.obs.at[..., 1].set(9.0))
    assert equal(state, learn(SMALL, filled, rounds=1)[0])
    obs = fresh(2)
    moved, seen = obs + np.array([0.0, 3.0, 0.0]), obs + np.array([1.0, 0.0, 0.0])
    actions, same, other = (act(SMALL, state.params, o) for o in (obs, moved, seen))
    np.testing.assert_array_equal(actions, same)
    assert np.abs(actions - other).max() > 0.01


def test_what_the_loop_collects_moves_nothing():
    demos = demonstrate()
    alone, _ = learn(SMALL, demos, rounds=1)
    assert equal(alone, learn(SMALL, demos, rounds=1, rollout={"obs": jnp.ones((5, 3))})[0])


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_likelihood_finds_the_spread_of_actions_but_none_below_its_floor(noise):
    """Of the entry of half-width 1, where squashing hardly bends: 0.2, or a floor of 0.1.

    Within 30%, by 200 draws.
    """
    policy = dataclasses.replace(SMALL.policy, std_low=0.1)
    config = dataclasses.replace(LIKELIHOOD, policy=policy)
    state, _ = learn(config, demonstrate(noise))
    middle = np.array([[0.0, 0.0, 20.0]])
    drawn = [act(config, state.params, middle, key, explore=True)[0] for key in range(200)]
    spread = np.std(drawn, axis=0)[0]
    np.testing.assert_allclose(spread, max(noise, 0.1), rtol=0.3)


def test_an_expert_s_choices_are_cloned_whichever_loss_is_asked_for():
    """By the sign of an entry; a wrong choice is an error of 1."""
    choices = SPEC._replace(action_low=(0.0,) * 2, action_high=(1.0,) * 2, discrete=True)
    agent = bc.make(Task.of(choices, observed=ENTRIES), SMALL)
    demos = demonstrate()
    right = jax.nn.one_hot((demos.obs[:, :-1, 0] > 0).astype(int), 2)
    state, told = jax.jit(agent.update)(
        jax.jit(agent.init)(jax.random.key(0)),
        None,
        demos.replace(actions=right),
        jax.random.key(1),
        jnp.int32(0),
    )
    obs = fresh(40)

    def one(row):
        start = EnvState((), row, jnp.zeros((), jnp.int32))
        return agent.act(state.params, (), start, jax.random.key(0), False)[0]

    actions = jax.jit(jax.vmap(one))(jnp.asarray(obs, jnp.float32))
    clear = np.abs(obs[:, 0]) > 0.3
    np.testing.assert_array_equal(actions[clear], np.eye(2)[(obs[clear, 0] > 0) * 1])
    assert told["policy/error"] < 0.1 and told["policy/likelihood"] < 0.2


def test_an_unknown_loss_is_refused_in_one_sentence():
    with pytest.raises(
        UsageError, match="^agent.loss is 'mse' or 'likelihood', not 'l1'.$"
    ):
        bc.make(Task.of(SPEC, observed=ENTRIES), bc.Config(loss="l1"))


def equal(left, right) -> bool:
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array(a).tobytes() == np.array(b).tobytes() for a, b in pairs)
