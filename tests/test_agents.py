"""Contracts that every agent keeps. An agent is tested by being registered.

All that it takes are tiny settings in `tiny.CONFIGS`. A variant of another method stands in
`tiny.KIN` and keeps the contracts in tests/slow.
"""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import registry
from planil_jax.base import EnvState, UserError
from planil_jax.deploy.policy import NoSimulator
from planil_jax.training import loop
from tests import tiny

METHODS = registry.methods()
LEARNERS = [name for name in METHODS if name in tiny.CONFIGS and name not in tiny.KIN]
FIRST = [*LEARNERS, "scripted"]  # it has nothing to learn
IMITATORS = [name for name in LEARNERS if tiny.needs(name).demonstrations]
ENGINES = [name for name in LEARNERS if name not in IMITATORS]  # they learn from rewards
PLANNERS = ["mpail", "irl_mpc", "scripted", "iqmpc"]


_kept: list[str] = []  # the agent whose programs are in memory


def each(names: list[str]):
    """Tries a contract on agents. The scope lets all tests of one agent run together."""
    return pytest.mark.parametrize("name", names, scope="module")


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
    made, demos = tiny.bench(name), tiny.demonstrations(0, actions)
    before = jax.eval_shape(made.init, jax.random.key(0))
    reward = (jnp.float32(1.0), jnp.float32(0.0))
    return before, jax.eval_shape(made.epoch, demos, jnp.int32(0), reward, before)[0]


@pytest.fixture(autouse=True)
def programs_of_one_agent(request) -> None:
    """Drops the programs of the agent before."""
    case = getattr(request.node, "callspec", None)
    name = case and case.params.get("name")
    if name and _kept != [name]:
        tiny.drop_programs()
        for cached in (shapes, rollout, learner):
            cached.cache_clear()
        _kept[:] = [name]


def cases(name: str, like: str) -> list:
    """Every contract that is tried on the method `like`, to be tried on another."""
    found = []
    for title, contract in globals().items():
        marks = {mark.args[0]: mark.args[1] for mark in getattr(contract, "pytestmark", [])}
        if like not in marks.pop("name", []):
            continue
        fields = [x for key in marks for x in ([key] if type(key) is str else key)]
        for values in itertools.product(*marks.values()):
            flat = [
                x for value in values for x in (value if type(value) is tuple else [value])
            ]
            case = {"name": name} | dict(zip(fields, flat, strict=True))
            words = "-".join([title, *map(str, case.values())])
            found.append(pytest.param(contract, case, id=words))
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_registered_method_has_tiny_settings(method):
    assert method in tiny.CONFIGS, (
        f"the method {method!r} has no tiny settings; add them to CONFIGS in tests/tiny.py."
    )


# ------------------------------------------------------------------------------- programs


@each(FIRST)
def test_an_epoch_gives_back_the_shapes_and_types_that_init_gave(name):
    before, after = shapes(name, tiny.needs(name).actions)
    assert kinds(after) == kinds(before)
    assert not any(weak for _, _, weak in kinds(before).values())


@each(FIRST)
def test_an_epoch_is_traced_once_whatever_the_round_the_seed_and_the_demonstrations(name):
    made = tiny.bench(name)
    tiny.train(name, count=1)
    traced = len(made.traces)
    tiny.train(
        name, seed=1, demos=tiny.demonstrations(1, tiny.needs(name).actions), count=3
    )
    assert traced > 0 and len(made.traces) == traced


@each(FIRST)
def test_actions_are_demanded_of_demonstrations_only_where_they_are_needed(name):
    """What an agent asks for suffices, and what it does not ask for changes nothing."""
    needed = tiny.needs(name).actions
    before, after = shapes(name, needed)
    assert kinds(after) == kinds(before)
    assert (tiny.bench(name).demos.actions is not None) == needed
    assert kinds(shapes(name, True)[1]) == kinds(after)


@each(FIRST)
def test_a_seed_in_a_sweep_equals_that_seed_alone(name):
    """Within 1e-4 over one epoch: a batched product may round otherwise."""
    made = tiny.bench(name)
    keys = jnp.stack([jax.random.key(seed) for seed in (5, 6)])
    states = [made.init(key) for key in keys]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    reward = (jnp.float32(1.0), jnp.float32(0.0))
    over_seeds = jax.vmap(made.epoch.__wrapped__, (None, None, None, 0))
    epoch = jax.jit(over_seeds)
    sweep, told = epoch(made.demos, jnp.int32(0), reward, states)
    for i, seed in enumerate((5, 6)):
        alone, metrics = tiny.train(name, seed, count=1)
        for many, one in zip(raw((sweep, told)), raw((alone, metrics)), strict=True):
            np.testing.assert_allclose(many[i], one, rtol=1e-4, atol=1e-4)


# -------------------------------------------------------------------------------- results


@each(FIRST)
def test_the_same_seed_gives_the_same_result_bit_for_bit(name):
    assert equal(tiny.train(name), tiny.train(name))


@each(FIRST)
def test_another_seed_drives_elsewhere(name):
    state, other = tiny.train(name, seed=0)[0], tiny.train(name, seed=1)[0]
    assert not equal(state.env, other.env)


@each(LEARNERS)
def test_another_seed_learns_otherwise(name):
    state, other = tiny.train(name, seed=0)[0], tiny.train(name, seed=1)[0]
    assert not equal(state.agent.params, other.agent.params)


@each(LEARNERS)
def test_an_epoch_moves_the_part_that_acts(name):
    before, after = tiny.train(name, count=0)[0], tiny.train(name, count=1)[0]
    assert not equal(before.agent.params, after.agent.params)


@each([*IMITATORS, "scripted"])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 1000.0), (-1.0, 0.0)])
def test_the_reward_is_never_read(name, scale, shift):
    state, metrics = tiny.train(name)
    changed, told = tiny.train(name, scale=scale, shift=shift)
    assert equal(state, changed)
    wanted = scale * metrics["train/reward"] + shift  # so the change did arrive
    np.testing.assert_allclose(told["train/reward"], wanted, rtol=1e-5)
    rest = [{k: v for k, v in m.items() if k != "train/reward"} for m in (metrics, told)]
    assert equal(*rest)


@each(ENGINES)
def test_an_engine_learns_from_the_reward_and_not_from_demonstrations(name):
    state, _ = tiny.train(name)
    assert not equal(state.agent.params, tiny.train(name, scale=-1.0)[0].agent.params)
    other = tiny.demonstrations(1, tiny.needs(name).actions)
    assert equal(state, tiny.train(name, demos=other)[0])


@each(IMITATORS)
def test_other_demonstrations_teach_something_else(name):
    other = tiny.demonstrations(1, tiny.needs(name).actions)
    state, changed = tiny.train(name)[0], tiny.train(name, demos=other)[0]
    assert not equal(state.agent.params, changed.agent.params)


@each(FIRST)
def test_what_pads_a_demonstration_changes_nothing(name):
    demos = tiny.bench(name).demos
    padded = demos.replace(obs=demos.obs.at[1, 7:].set(1e3))
    assert equal(tiny.train(name), tiny.train(name, demos=padded))


@each(FIRST)
def test_metrics_are_finite_scalars_named_part_and_quantity(name):
    state, metrics = tiny.train(name)
    for metric, value in metrics.items():
        assert re.fullmatch(r"[a-z]+/[a-z_]+", metric)
        assert value.shape == () and np.isfinite(value), metric
    leaves = [leaf for leaf in raw(state) if leaf.dtype == np.float32]
    assert all(np.isfinite(leaf).all() for leaf in leaves)


# ---------------------------------------------------------- steps that are not finite


@functools.cache
def rollout(name: str):
    """The state of an agent that has learned, and the next rollout of it, whose first
    steps are in the middle of episodes."""
    made, state = tiny.bench(name), tiny.train(name, count=1)[0]
    collect = jax.jit(functools.partial(loop.collect, made.agent, made.env, tiny.LOOP))
    keys = jax.random.split(jax.random.key(3))
    env, carry, before = collect(state.agent.params, state.env, state.carry, keys[0])
    learned, _ = learner(name)(state.agent, before, before.valid)
    recorded = collect(learned.params, env, carry, keys[1])[2]
    assert not (before.terminal | before.truncated)[-1].any()
    return learned, recorded


@functools.cache
def learner(name: str):
    """(the agent's State, a rollout, which of its steps are valid) -> State and metrics."""
    made = tiny.bench(name)

    def learn(state, rollout, valid):
        usable = loop.usable(rollout.replace(valid=valid))
        return made.agent.update(state, usable, made.demos, jax.random.key(4), 1)

    return jax.jit(learn)


def some_valid() -> np.ndarray:
    """`[T, E]`; the first step of an environment is among those that are not."""
    valid = np.ones((tiny.LOOP.steps, tiny.LOOP.num_envs), bool)
    valid[0, 1] = valid[2, 0] = valid[3, 0] = valid[-1, 2] = False
    return valid


def filled(rollout, valid: np.ndarray, number: float):
    """A rollout in which all that is recorded of steps that are not valid is a number."""

    def fill(leaf):
        mask = valid.reshape(valid.shape + (1,) * (leaf.ndim - 2))
        return jnp.where(mask, leaf, jnp.asarray(number).astype(leaf.dtype))

    return jax.tree.map(fill, rollout)


@each(LEARNERS)
def test_the_loop_knows_whether_rewards_are_read(name):
    assert tiny.bench(name).agent.reads_rewards == (name in ENGINES)


@each(LEARNERS)
def test_nothing_that_is_recorded_of_a_step_that_is_not_valid_is_learned_from(name):
    state, recorded = rollout(name)
    valid = some_valid()
    zeros = learner(name)(state, filled(recorded, valid, 0.0), valid)
    huge = learner(name)(state, filled(recorded, valid, 1e6), valid)
    assert equal(zeros, huge)
    for leaf in raw(zeros):
        assert leaf.dtype != np.float32 or np.isfinite(leaf).all()
    all_valid = np.ones_like(valid)
    visible = learner(name)(state, filled(recorded, valid, 1e6), all_valid)
    assert equal(visible[0].params, zeros[0].params) == (not tiny.needs(name).interacts)


@each(LEARNERS)
def test_no_sequence_of_a_replay_goes_through_a_step_that_is_not_valid(name):
    """Nor does one go on from the rollout before, where the first step is not valid."""
    state, recorded = rollout(name)
    if getattr(state, "replay", None) is None or not isinstance(state.replay.steps, dict):
        return  # it learns from no sequences
    valid = some_valid()
    after = learner(name)(state, recorded, valid)[0].replay
    count = tiny.LOOP.steps
    rows = (np.arange(-count - 1, 0) + int(after.cursor)) % tiny.CAPACITY
    steps = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], after.steps)
    goes_on = np.concatenate([valid[:1], valid[1:] & valid[:-1]])
    if "first" in steps:
        cut = steps["first"][1:]
    else:
        cut = steps.get("ended", steps.get("truncated"))[:-1]
    assert cut[~goes_on].all()
    ended = np.asarray(recorded.terminal | recorded.truncated)
    assert (cut[1:][goes_on[1:]] == ended[:-1][goes_on[1:]]).all()


# --------------------------------------------------------------------------------- acting


@each(LEARNERS)
def test_the_simulator_s_state_is_read_only_where_the_method_says_so(name):
    """Acting is traced with an observation and nothing behind it."""
    made, params = tiny.bench(name), tiny.train(name, count=0)[0].agent.params
    real = made.env.reset(jax.random.key(0))
    bare = EnvState(sim=NoSimulator("point_mass"), obs=real.obs, time=real.time)

    def act(params, key):
        return made.agent.act(params, made.agent.carry(), bare, key, False)[0]

    if tiny.needs(name).simulator:
        with pytest.raises(UserError, match="need the simulator's state"):
            jax.eval_shape(act, params, jax.random.key(1))
    else:
        assert jax.eval_shape(act, params, jax.random.key(1)).shape == (2,)


@pytest.mark.parametrize("explore", [False, True])
@each(FIRST)
def test_actions_are_within_their_bounds_and_meet_them(name, explore):
    made, state = tiny.bench(name), tiny.train(name)[0]
    bounds = []
    for i in range(20):
        start = made.env.reset(jax.random.key(i))
        args = (state.agent.params, made.agent.carry(), start, jax.random.key(100 + i))
        action, _ = made.act(*args, explore)
        assert action.shape == (2,) and action.dtype == jnp.float32
        bounds.append(np.abs(action).max())
    assert max(bounds) <= np.float32(tiny.BOUND)
    if explore or name in PLANNERS:  # what others know as yet is near the centre
        assert max(bounds) > np.float32(0.5 * tiny.BOUND)


@pytest.mark.parametrize("explore", [False, True])
@each(FIRST)
def test_the_carry_keeps_its_shapes_and_types(name, explore):
    made, state = tiny.bench(name), tiny.train(name)[0]
    args = (state.agent.params, made.agent.carry(), made.env.reset(jax.random.key(0)))
    act = functools.partial(made.agent.act, explore=explore)
    _, carry = jax.eval_shape(act, *args, jax.random.key(1))
    assert kinds(carry) == kinds(jax.eval_shape(made.agent.carry))


@each(LEARNERS)
def test_what_acts_is_the_params_alone(name):
    """The same params act alike, whatever else was learned; trained ones act otherwise."""
    made = tiny.bench(name)
    before, after = tiny.train(name, count=0)[0].agent, tiny.train(name, count=2)[0].agent
    start, key = made.env.reset(jax.random.key(0)), jax.random.key(1)

    def acted(state):
        return made.act(state.params, made.agent.carry(), start, key, False)

    assert equal(acted(after), acted(before.replace(params=after.params)))
    assert not equal(acted(after), acted(before))
