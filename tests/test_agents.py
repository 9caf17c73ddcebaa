"""Contracts that every agent keeps; a new agent is one line in AGENTS, or also in KIN."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.agents import (
    adversarial,
    bc,
    cmil,
    iqmpc,
    latent,
    mail,
    mpail,
    mpail2,
    ppo,
    sac,
    scripted,
    tdmpc2,
)
from planil_jax.base import Agent, Demonstrations, Environment, TrainState
from planil_jax.envs import point_mass
from planil_jax.models import ensemble, rssm, simulator
from planil_jax.nets import forward, heads, mlp
from planil_jax.nets import latent as latent_nets
from planil_jax.nets import rssm as rssm_nets
from planil_jax.planners import mppi
from planil_jax.training import loop

BOUND = 0.3  # of actions; below the planners' noise, so that it is met
LOOP = loop.Config(environments=3, steps=6, rounds=2, resets=2)
ENTRIES = (0, 1, 2, 3)
_PLANNER = mppi.Config(samples=8, horizon=3, iterations=2)
_NETWORK = mlp.Config(hidden=(8, 8))
_POLICY = heads.Config(network=mlp.Config(hidden=(8,), activation="tanh"))
_LATENT = latent.Config(
    network=latent_nets.Config(latent=8, encoder=(8,), hidden=(8,), critics=2),
    planner=dataclasses.replace(
        _PLANNER,
        horizon=2,
        iterations=1,
        sampling="gaussian",
        noise=(3.0,),
        explore="noise",
    ),
    horizon=2,
    temperature=1e-3,
    proposals=2,
    warm_up=6,
    ratio=0.2,
    batch=8,
    capacity=20,
    rate=1e-2,
)
_PPO = ppo.Config(policy=_POLICY, value=_NETWORK, epochs=2, minibatches=2, rate=1e-2)


def _mpail(env: Environment) -> Agent:
    config = mpail.Config(
        planner=_PLANNER,
        discriminator=dataclasses.replace(_NETWORK, activation="leaky_relu"),
        value=_NETWORK,
        temperature=1e-3,  # so that single plans act, which meet the bounds
        final_temperature=1e-4,
        discriminator_steps=3,
        value_steps=3,
        batch=16,
        imagined_batch=16,
        history=20,
    )

    model = simulator.make(env)  # which can start from an observation, so that it imagines
    return mpail.make(env.spec, model, config, LOOP.environments, ENTRIES)


def _scripted(env: Environment) -> Agent:
    model = simulator.prior_or_physics(env)
    config = scripted.Config(planner=_PLANNER, temperature=1e-3)
    return scripted.make(env, model, config)


def _adversarial(form: str, deploy: str = "policy"):
    config = adversarial.Config(
        form=form,
        learner=_PPO,
        discriminator=_NETWORK,
        steps=3,
        batch=16,
        rate=1e-2,
        deploy=deploy,
        planner=_PLANNER,
        temperature=1e-3,
    )

    def make(env: Environment) -> Agent:
        return adversarial.make(env.spec, config, ENTRIES, simulator.make(env))

    return make


def _bc(env: Environment) -> Agent:
    return bc.make(env.spec, bc.Config(policy=_POLICY, steps=3, batch=16), ENTRIES)


def _ppo(env: Environment) -> Agent:
    return ppo.make(env.spec, _PPO)


def _sac(env: Environment) -> Agent:
    policy = dataclasses.replace(_POLICY, std_of_state=True)
    config = sac.Config(policy=policy, critic=_NETWORK, steps=3, batch=16, capacity=20)
    return sac.make(env.spec, config, LOOP.environments)


def _iqmpc(env: Environment) -> Agent:
    return iqmpc.make(env.spec, iqmpc.Config(core=_LATENT), LOOP.environments)


def _mpail2(env: Environment) -> Agent:
    config = mpail2.Config(core=_LATENT, reward=_NETWORK)
    return mpail2.make(env.spec, config, LOOP.environments)


def _mail(env: Environment) -> Agent:
    config = mail.Config(
        policy=_POLICY,
        discriminator=_NETWORK,
        model=ensemble.Config(network=forward.Config(network=_NETWORK), members=2),
        horizon=3,
        ratio=0.2,
        batch=8,
        policy_batch=4,
        capacity=20,
        policy_rate=1e-2,
    )
    return mail.make(env.spec, config, LOOP.environments)


def _cmil(env: Environment) -> Agent:
    config = cmil.Config(
        model=rssm.Config(
            network=rssm_nets.Config(deter=8, stoch=4, hidden=8, heads=2),
            vectors=_NETWORK,
        ),
        policy=dataclasses.replace(_POLICY, std_of_state=True),
        discriminator=_NETWORK,
        critic=_NETWORK,
        horizon=3,
        pretrain=2,
        clone=1,
        length=4,
        batch=4,
        capacity=20,
        policy_rate=1e-2,
    )
    return cmil.make(env.spec, config, LOOP.environments)


def _tdmpc2(env: Environment) -> Agent:
    return tdmpc2.make(env.spec, tdmpc2.Config(core=_LATENT), LOOP.environments)


AGENTS: dict[str, Callable[[Environment], Agent]] = {
    "mpail": _mpail,
    "bc": _bc,
    "gail": _adversarial("gail"),
    "gaifo": _adversarial("gaifo"),
    "airl": _adversarial("airl"),
    "irl_mpc": _adversarial("gaifo", deploy="planner"),
    "ppo": _ppo,
    "sac": _sac,
    "iqmpc": _iqmpc,
    "mpail2": _mpail2,
    "mail": _mail,
    "cmil": _cmil,
    "tdmpc2": _tdmpc2,
    "scripted": _scripted,
}
# Agents on the parts of another, after whom they take; tests/slow tries them.
KIN = {"mpail2": "mail", "tdmpc2": "sac", "gail": "gaifo"}
FIRST = [name for name in AGENTS if name not in KIN]
ENGINES = ["ppo", "sac"]  # which learn from the task's reward, and from nobody
LEARNERS = [name for name in FIRST if name != "scripted"]  # it has nothing to learn
IMITATORS = [name for name in LEARNERS if name not in ENGINES]
PLANNERS = ["mpail", "irl_mpc", "scripted", "iqmpc"]


class Bench(NamedTuple):
    """An agent and its program, compiled once."""

    agent: Agent
    env: Environment
    demos: Demonstrations
    init: Callable[[jax.Array], TrainState]
    # (demos, first_round, (scale, shift) of the reward, state)
    epoch: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    act: Callable[..., tuple[jax.Array, Any]]  # (params, carry, state, key, explore)
    traces: list[int]  # grows by one whenever `update` is traced


def demonstrations(seed: int, actions: bool) -> Demonstrations:
    """Two random walks; the second is shorter and padded."""
    rng = np.random.default_rng(seed)
    obs = np.cumsum(rng.normal(0, 0.2, (2, 10, len(ENTRIES))), axis=1)
    obs[1, 7:] = obs[1, 6]
    moves = rng.uniform(-BOUND, BOUND, (2, 9, 2))
    return Demonstrations(
        obs=jnp.asarray(obs, jnp.float32),
        actions=jnp.asarray(moves, jnp.float32) if actions else None,
        length=jnp.array([9, 6], jnp.int32),
        terminal=jnp.zeros((2,), bool),
        entries=ENTRIES,
    )


@functools.cache
def bench(name: str) -> Bench:
    env = point_mass.make(episode_length=4, action_bound=BOUND)
    agent, traces = AGENTS[name](env), []

    def update(*args):
        traces.append(1)
        return agent.update(*args)

    def epoch(demos, first_round, reward, state):
        def step(state, action):
            following, transition = env.step(state, action)
            scale, shift = reward
            changed = scale * transition.reward + shift
            return following, transition.replace(reward=changed)

        counted, changed = agent._replace(update=update), env._replace(step=step)
        return loop.epoch(counted, changed, LOOP, demos, first_round, state)

    init = functools.partial(loop.init, agent, env, LOOP)
    demos = demonstrations(0, agent.needs_actions)
    act = jax.jit(agent.act, static_argnums=4)
    return Bench(agent, env, demos, jax.jit(init), jax.jit(epoch), act, traces)


def train(name: str, seed: int = 0, demos=None, scale=1.0, shift=0.0, epochs: int = 2):
    """The TrainState and the metrics after some epochs."""
    made = bench(name)
    demos = made.demos if demos is None else demos
    reward = (jnp.float32(scale), jnp.float32(shift))
    state, metrics = made.init(jax.random.key(seed)), {}
    for number in range(epochs):
        first_round = jnp.int32(number * LOOP.rounds)
        state, metrics = made.epoch(demos, first_round, reward, state)
    return state, metrics


def raw(state) -> list[np.ndarray]:
    """The leaves as numpy, keys as their data."""

    def plain(leaf):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.array(jax.random.key_data(leaf) if is_key else leaf)

    return [plain(leaf) for leaf in jax.tree.leaves(state)]


def equal(left, right) -> bool:
    """Bit for bit."""
    pairs = zip(raw(left), raw(right), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def kinds(tree) -> dict[str, tuple]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path): (leaf.shape, leaf.dtype, leaf.weak_type)
        for path, leaf in leaves
    }


@functools.cache
def shapes(name: str, actions: bool):
    """The shapes of a TrainState before an epoch and after it."""
    made, demos = bench(name), demonstrations(0, actions)
    init = functools.partial(loop.init, made.agent, made.env, LOOP)
    epoch = functools.partial(loop.epoch, made.agent, made.env, LOOP)
    before = jax.eval_shape(init, jax.random.key(0))
    return before, jax.eval_shape(epoch, demos, jnp.int32(0), before)[0]


# ------------------------------------------------------------------------------- programs


@pytest.mark.parametrize("name", FIRST)
def test_an_epoch_gives_back_the_shapes_and_types_that_init_gave(name):
    before, after = shapes(name, bench(name).agent.needs_actions)
    assert kinds(after) == kinds(before)
    assert not any(weak for _, _, weak in kinds(before).values())


@pytest.mark.parametrize("name", FIRST)
def test_an_epoch_is_traced_once_whatever_the_round_the_seed_and_the_demonstrations(name):
    made = bench(name)
    train(name, epochs=1)
    traced = len(made.traces)
    train(name, seed=1, demos=demonstrations(1, made.agent.needs_actions), epochs=3)
    assert traced > 0 and len(made.traces) == traced


@pytest.mark.parametrize("name", FIRST)
def test_actions_are_demanded_of_demonstrations_only_where_they_are_needed(name):
    """What an agent asks for suffices, and what it does not ask for changes nothing."""
    needed = bench(name).agent.needs_actions
    before, after = shapes(name, needed)
    assert kinds(after) == kinds(before)
    assert (bench(name).demos.actions is not None) == needed
    assert kinds(shapes(name, True)[1]) == kinds(after)


@pytest.mark.parametrize("name", FIRST)
def test_a_seed_in_a_sweep_equals_that_seed_alone(name):
    """Within 1e-4 over one epoch: a batched product may round otherwise."""
    made = bench(name)
    keys = jnp.stack([jax.random.key(seed) for seed in (5, 6)])
    states = [made.init(key) for key in keys]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    reward = (jnp.float32(1.0), jnp.float32(0.0))
    over_seeds = jax.vmap(made.epoch.__wrapped__, (None, None, None, 0))
    epoch = jax.jit(over_seeds)
    sweep, told = epoch(made.demos, jnp.int32(0), reward, states)
    for i, seed in enumerate((5, 6)):
        alone, metrics = train(name, seed, epochs=1)
        for many, one in zip(raw((sweep, told)), raw((alone, metrics)), strict=True):
            np.testing.assert_allclose(many[i], one, rtol=1e-4, atol=1e-4)


# -------------------------------------------------------------------------------- results


@pytest.mark.parametrize("name", FIRST)
def test_the_same_seed_gives_the_same_result_bit_for_bit(name):
    assert equal(train(name), train(name))


@pytest.mark.parametrize("name", FIRST)
def test_another_seed_drives_elsewhere(name):
    state, other = train(name, seed=0)[0], train(name, seed=1)[0]
    assert not equal(state.env, other.env)


@pytest.mark.parametrize("name", LEARNERS)
def test_another_seed_learns_otherwise(name):
    state, other = train(name, seed=0)[0], train(name, seed=1)[0]
    assert not equal(state.agent.params, other.agent.params)


@pytest.mark.parametrize("name", LEARNERS)
def test_an_epoch_moves_the_part_that_acts(name):
    before, after = train(name, epochs=0)[0], train(name, epochs=1)[0]
    assert not equal(before.agent.params, after.agent.params)


@pytest.mark.parametrize("name", [*IMITATORS, "scripted"])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 1000.0), (-1.0, 0.0)])
def test_the_reward_is_never_read(name, scale, shift):
    state, metrics = train(name)
    changed, told = train(name, scale=scale, shift=shift)
    assert equal(state, changed)
    wanted = scale * metrics["train/reward"] + shift  # so the change did arrive
    np.testing.assert_allclose(told["train/reward"], wanted, rtol=1e-5)
    rest = [{k: v for k, v in m.items() if k != "train/reward"} for m in (metrics, told)]
    assert equal(*rest)


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_learns_from_the_reward_and_not_from_demonstrations(name):
    state, _ = train(name)
    assert not equal(state.agent.params, train(name, scale=-1.0)[0].agent.params)
    other = demonstrations(1, bench(name).agent.needs_actions)
    assert equal(state, train(name, demos=other)[0])


@pytest.mark.parametrize("name", IMITATORS)
def test_other_demonstrations_teach_something_else(name):
    other = demonstrations(1, bench(name).agent.needs_actions)
    state, changed = train(name)[0], train(name, demos=other)[0]
    assert not equal(state.agent.params, changed.agent.params)


@pytest.mark.parametrize("name", FIRST)
def test_what_pads_a_demonstration_changes_nothing(name):
    demos = bench(name).demos
    padded = demos.replace(obs=demos.obs.at[1, 7:].set(1e3))
    assert equal(train(name), train(name, demos=padded))


@pytest.mark.parametrize("name", FIRST)
def test_metrics_are_finite_scalars_named_part_and_quantity(name):
    state, metrics = train(name)
    for metric, value in metrics.items():
        assert re.fullmatch(r"[a-z]+/[a-z_]+", metric)
        assert value.shape == () and np.isfinite(value), metric
    leaves = [leaf for leaf in raw(state) if leaf.dtype == np.float32]
    assert all(np.isfinite(leaf).all() for leaf in leaves)


# --------------------------------------------------------------------------------- acting


@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize("name", FIRST)
def test_actions_are_within_their_bounds_and_meet_them(name, explore):
    made, state = bench(name), train(name)[0]
    bounds = []
    for i in range(20):
        start = made.env.reset(jax.random.key(i))
        args = (state.agent.params, made.agent.carry(), start, jax.random.key(100 + i))
        action, _ = made.act(*args, explore)
        assert action.shape == (2,) and action.dtype == jnp.float32
        bounds.append(np.abs(action).max())
    assert max(bounds) <= np.float32(BOUND)
    if explore or name in PLANNERS:  # what others know as yet is near the centre
        assert max(bounds) > np.float32(0.5 * BOUND)


@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize("name", FIRST)
def test_the_carry_keeps_its_shapes_and_types(name, explore):
    made, state = bench(name), train(name)[0]
    args = (state.agent.params, made.agent.carry(), made.env.reset(jax.random.key(0)))
    act = functools.partial(made.agent.act, explore=explore)
    _, carry = jax.eval_shape(act, *args, jax.random.key(1))
    assert kinds(carry) == kinds(jax.eval_shape(made.agent.carry))


@pytest.mark.parametrize("name", LEARNERS)
def test_what_acts_is_the_params_alone(name):
    """The same params act alike, whatever else was learned; trained ones act otherwise."""
    made = bench(name)
    before, after = train(name, epochs=0)[0].agent, train(name, epochs=2)[0].agent
    start, key = made.env.reset(jax.random.key(0)), jax.random.key(1)

    def acted(state):
        return made.act(state.params, made.agent.carry(), start, key, False)

    assert equal(acted(after), acted(before.replace(params=after.params)))
    assert not equal(acted(after), acted(before))
