"""SAC, part by part, with linear critics and one transition, so that targets are known."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.agents import sac
from planil_jax.base import EnvSpec, EnvState, Fit, Task, Transition
from planil_jax.nets import heads, mlp

SPEC = EnvSpec("line", ("a", "b"), (0.0,), (4.0,), 5, 0.1)
LINEAR = mlp.Config(hidden=())
STD, TEMPERATURE = 0.5, 0.3
ONE_STEP = sac.Config(
    policy=heads.Config(network=LINEAR, std=STD, std_of_state=True),
    critic=LINEAR,
    discount=0.9,
    steps=1,
    batch=8192,
    capacity=2,
    learning_rate=0.01,
    target_rate=0.25,
    temperature=TEMPERATURE,
)
OBS, ACTION, NEXT_OBS, REWARD = (0.5, -1.0), 3.0, (-0.5, 2.0), 0.7
# Rows are critics; columns weigh the two observation entries and the action in [-1, 1].
CRITICS = np.array([[0.3, -0.2, 1.0], [1.0, 0.5, -0.5]])
TARGETS = np.array([[-0.4, 0.6, 2.0], [0.2, 0.9, -1.5]])
MEAN = 0.4  # of the policy, before squashing, whatever it sees


@functools.cache
def compiled(config: sac.Config):
    """`init` and `update`, one environment."""
    agent = sac.make(Task.of(SPEC), config)
    return jax.jit(agent.init), jax.jit(agent.update)


def linear(weights):
    """Critics by hand, `[2]` each, with biases of 0.1 and 0.2."""
    kernel = jnp.asarray(weights, jnp.float32)[:, :, None]
    bias = jnp.array([[0.1], [0.2]], jnp.float32)
    return {"params": {"Dense_0": {"kernel": kernel, "bias": bias}}}


def begin(critics=CRITICS, target=TARGETS, mean=MEAN, raw_std=0.0, config=ONE_STEP):
    """A state with critics, targets and a policy by hand."""
    state = compiled(config)[0](jax.random.key(0))
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    zeros["params"]["Dense_0"]["bias"] = jnp.full((1,), mean, jnp.float32)
    zeros["params"]["raw_std"]["bias"] = jnp.full((1,), raw_std, jnp.float32)
    return state.replace(
        params=zeros,
        policy=Fit(zeros, state.policy.opt_state),
        critics=Fit(linear(critics), state.critics.opt_state),
        target=linear(target),
    )


def drive(terminal=False, truncated=False, reward=REWARD) -> Transition:
    """A rollout `[1, 1]`."""
    return Transition(
        obs=jnp.array(OBS, jnp.float32)[None, None],
        action=jnp.full((1, 1, 1), ACTION, jnp.float32),
        next_obs=jnp.array(NEXT_OBS, jnp.float32)[None, None],
        reward=jnp.full((1, 1), reward, jnp.float32),
        terminal=jnp.full((1, 1), terminal),
        truncated=jnp.full((1, 1), truncated),
    )


def update(state, rollout, config=ONE_STEP, key: int = 3):
    return compiled(config)[1](state, rollout, None, jax.random.key(key), jnp.int32(0))


def equal(left, right) -> bool:
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array(a).tobytes() == np.array(b).tobytes() for a, b in pairs)


def bias(state) -> float:
    return float(state.params["params"]["Dense_0"]["bias"][0])


# --------------------------------------------------------------------------------- critic


def q_by_hand(weights, obs, unit) -> np.ndarray:
    """`[2, B]` of actions `[B]` in [-1, 1]."""
    weights = np.asarray(weights)
    fixed = weights[:, :2] @ np.array(obs) + np.array([0.1, 0.2])
    return fixed[:, None] + weights[:, 2:] * unit[None]


@pytest.mark.parametrize("ending", ["none", "terminal", "truncated"])
def test_critics_regress_on_the_soft_target_which_ends_with_the_task_alone(ending):
    """Σ_i E[(Q_i - y)²] over the policy's own draws, by 400,000 of them; within 3%."""
    u = MEAN + STD * np.random.default_rng(0).normal(size=400_000)
    normal = -0.5 * ((u - MEAN) / STD) ** 2 - math.log(STD * math.sqrt(2 * math.pi))
    log_probs = normal - np.log(2 * (1 - np.tanh(u) ** 2))
    following = q_by_hand(TARGETS, NEXT_OBS, np.tanh(u))
    assert 0.05 < np.mean(following[0] < following[1]) < 0.95  # either is the lesser
    soft_values = following.min(axis=0) - TEMPERATURE * log_probs
    targets = REWARD + 0.9 * (ending != "terminal") * soft_values
    values = q_by_hand(CRITICS, OBS, np.array([(ACTION - 2) / 2]))
    expected = np.mean(np.sum((values - targets[None]) ** 2, axis=0))
    kind = {} if ending == "none" else {ending: True}
    _, metrics = update(begin(), drive(**kind))
    np.testing.assert_allclose(metrics["critic/loss"], expected, rtol=0.03)
    np.testing.assert_allclose(metrics["critic/mean"], values.mean(), rtol=1e-5)


def test_critics_move_towards_their_targets():
    """Above both critics, and then below them; a step of Adam is as long as its rate."""
    for reward, sign in ((50.0, 1), (-50.0, -1)):
        state = begin()
        after, _ = update(state, drive(terminal=True, reward=reward))
        moved = jax.tree.map(jnp.subtract, after.critics.params, state.critics.params)
        found = moved["params"]["Dense_0"]["bias"][:, 0]
        np.testing.assert_allclose(found, sign * 0.01, rtol=1e-3)


def test_of_ended_steps_critics_are_the_same_whatever_the_policy_and_the_target():
    """So nothing of the policy's loss moves them."""
    states = begin(), begin(mean=-1.0, raw_std=1.0), begin(target=-TARGETS)
    ended = [update(state, drive(terminal=True))[0].critics for state in states]
    assert equal(ended[0], ended[1]) and equal(ended[0], ended[2])
    one, other = (update(s, drive(reward=3.0))[1]["critic/loss"] for s in states[:2])
    assert abs(one - other) > 0.1  # of steps that go on they are not


def test_the_target_follows_the_critics_by_its_rate():
    after, _ = update(begin(), drive())
    for target, old, online in zip(
        jax.tree.leaves(after.target),
        jax.tree.leaves(linear(TARGETS)),
        jax.tree.leaves(after.critics.params),
        strict=True,
    ):
        np.testing.assert_allclose(target, 0.75 * old + 0.25 * online, rtol=1e-5)


# --------------------------------------------------------------------------------- policy


def test_the_policy_never_looks_at_the_target_critics():
    states = begin(), begin(target=-TARGETS)
    one, other = (update(state, drive(terminal=True))[0] for state in states)
    assert equal(one.policy, other.policy)
    assert not equal(one.target, other.target)
    assert not equal(one.params, states[0].params)


@pytest.mark.parametrize(("lesser", "sign"), [(0, 1), (1, -1)])
def test_the_policy_climbs_the_lesser_of_its_critics(lesser, sign):
    """One rises with the action and one falls; the entropy hardly counts beside them."""
    critics = np.array([[0.0, 0.0, 20.0], [0.0, 0.0, -20.0]])
    critics[1 - lesser, 0] = 200.0  # at an observation of 0.5: 100 more
    after, _ = update(begin(critics=critics), drive(terminal=True))
    np.testing.assert_allclose(bias(after) - MEAN, sign * 0.01, rtol=1e-2)


def test_without_any_preference_the_policy_grows_wider():
    state = begin(critics=np.zeros((2, 3)), raw_std=-2.0)
    after, _ = update(state, drive(terminal=True, reward=0.15))
    widened = after.params["params"]["raw_std"]["bias"][0] - (-2.0)
    np.testing.assert_allclose(widened, 0.01, rtol=1e-2)


@pytest.mark.parametrize(("raw_std", "sign"), [(-4.0, 1), (0.0, -1)])
def test_the_temperature_rises_while_the_entropy_is_below_minus_the_action_size(
    raw_std, sign
):
    state = begin(raw_std=raw_std)
    after, metrics = update(state, drive())
    assert (metrics["policy/entropy"] < -1.0) == (sign > 0)
    moved = after.temperature.params - state.temperature.params
    np.testing.assert_allclose(moved, sign * 0.01, rtol=1e-3)
    np.testing.assert_allclose(metrics["policy/temperature"], TEMPERATURE, rtol=1e-5)


def test_a_fixed_temperature_stays():
    config = dataclasses.replace(ONE_STEP, learn_temperature=False, batch=16)
    state = compiled(config)[0](jax.random.key(0))
    after, _ = update(state, drive(), config)
    assert equal(after.temperature, state.temperature)
    assert not equal(after.params, state.params)


def test_it_finds_the_best_action_of_a_bandit_from_actions_drawn_at_random():
    """Reward -(a - 3)², a in [0, 4]; 600 gradient steps; the mode is 3 ± 0.25."""
    config = sac.Config(
        policy=dataclasses.replace(ONE_STEP.policy, std=1.0),
        critic=mlp.Config(hidden=(32, 32)),
        steps=600,
        batch=64,
        capacity=256,
        learning_rate=0.01,
        target_rate=0.05,
    )
    agent = sac.make(Task.of(SPEC), config)
    actions = jnp.asarray(np.random.default_rng(0).uniform(0, 4, (256, 1, 1)), jnp.float32)
    obs, ended = jnp.zeros((256, 1, 2)), jnp.ones((256, 1), bool)
    rewards = -((actions[..., 0] - 3) ** 2)
    rollout = Transition(obs, actions, obs, rewards, ended, ended)

    def learnt(key):
        state, _ = agent.update(agent.init(key), rollout, None, key, jnp.int32(0))
        start = EnvState((), obs[0, 0], jnp.zeros((), jnp.int32))
        return agent.act(state.params, (), start, key, False)[0]

    found = jax.jit(learnt)(jax.random.key(0))
    np.testing.assert_allclose(found, [3.0], atol=0.25)


# --------------------------------------------------------------------------------- replay


def test_what_is_learnt_from_is_the_replay_and_not_the_last_rollout_alone():
    """Two steps are kept: the mean of rewards of 10 and 0, and the third drives one out."""
    state, means = begin(), []
    for reward in (10.0, 0.0, 0.0):
        after, metrics = update(state, drive(terminal=True, reward=reward))
        means.append(float(metrics["critic/loss"]))
        state = begin().replace(replay=after.replay)
    values = q_by_hand(CRITICS, OBS, np.array([(ACTION - 2) / 2]))[:, 0]
    full, empty = (np.sum((values - reward) ** 2) for reward in (10.0, 0.0))
    np.testing.assert_allclose(means, [full, (full + empty) / 2, empty], rtol=0.05)
    assert state.replay.size == 2
