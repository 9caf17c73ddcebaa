"""SAC, part by part, with linear critics and one transition, so targets are known."""

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
    gradient_steps=1,
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
MEAN = 0.4  # of the policy, before squashing, whatever it observes


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


def initial(critics=CRITICS, target=TARGETS, mean=MEAN, raw_std=0.0, config=ONE_STEP):
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


def rollout_of(terminal=False, truncated=False, reward=REWARD) -> Transition:
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


def q_by_hand(weights, obs, scaled) -> np.ndarray:
    """`[2, B]` of actions `[B]`, scaled to [-1, 1]."""
    weights = np.asarray(weights)
    fixed = weights[:, :2] @ np.array(obs) + np.array([0.1, 0.2])
    return fixed[:, None] + weights[:, 2:] * scaled[None]


@pytest.mark.parametrize("ending", ["none", "terminal", "truncated"])
def test_the_critic_loss_is_the_error_of_soft_targets_that_end_with_the_task_alone(ending):
    """Σ_i E[(Q_i - y)²] over 400,000 samples of the policy; within 3%."""
    u = MEAN + STD * np.random.default_rng(0).normal(size=400_000)
    normal = -0.5 * ((u - MEAN) / STD) ** 2 - math.log(STD * math.sqrt(2 * math.pi))
    log_probs = normal - np.log(2 * (1 - np.tanh(u) ** 2))
    next_q = q_by_hand(TARGETS, NEXT_OBS, np.tanh(u))
    assert 0.05 < np.mean(next_q[0] < next_q[1]) < 0.95  # either is the lesser
    soft_values = next_q.min(axis=0) - TEMPERATURE * log_probs
    targets = REWARD + 0.9 * (ending != "terminal") * soft_values
    values = q_by_hand(CRITICS, OBS, np.array([(ACTION - 2) / 2]))
    expected = np.mean(np.sum((values - targets[None]) ** 2, axis=0))
    kind = {} if ending == "none" else {ending: True}
    _, metrics = update(initial(), rollout_of(**kind))
    np.testing.assert_allclose(metrics["critic/loss"], expected, rtol=0.03)
    np.testing.assert_allclose(metrics["critic/mean"], values.mean(), rtol=1e-5)


def test_critics_move_towards_their_targets():
    """Targets above both critics, and then below; a step of Adam is as long as its rate."""
    for reward, sign in ((50.0, 1), (-50.0, -1)):
        state = initial()
        after, _ = update(state, rollout_of(terminal=True, reward=reward))
        moved = jax.tree.map(jnp.subtract, after.critics.params, state.critics.params)
        found = moved["params"]["Dense_0"]["bias"][:, 0]
        np.testing.assert_allclose(found, sign * 0.01, rtol=1e-3)


def test_on_terminal_steps_neither_the_policy_nor_the_target_moves_the_critics():
    """So the policy's loss does not move them either."""
    states = initial(), initial(mean=-1.0, raw_std=1.0), initial(target=-TARGETS)
    ended = [update(state, rollout_of(terminal=True))[0].critics for state in states]
    assert equal(ended[0], ended[1]) and equal(ended[0], ended[2])
    one, other = (update(s, rollout_of(reward=3.0))[1]["critic/loss"] for s in states[:2])
    assert abs(one - other) > 0.1  # on other steps they do


def test_the_target_moves_towards_the_critics_by_its_rate():
    after, _ = update(initial(), rollout_of())
    for target, old, online in zip(
        jax.tree.leaves(after.target),
        jax.tree.leaves(linear(TARGETS)),
        jax.tree.leaves(after.critics.params),
        strict=True,
    ):
        np.testing.assert_allclose(target, 0.75 * old + 0.25 * online, rtol=1e-5)


# --------------------------------------------------------------------------------- policy


def test_the_target_critics_do_not_move_the_policy():
    states = initial(), initial(target=-TARGETS)
    one, other = (update(state, rollout_of(terminal=True))[0] for state in states)
    assert equal(one.policy, other.policy)
    assert not equal(one.target, other.target)
    assert not equal(one.params, states[0].params)


@pytest.mark.parametrize(("lesser", "sign"), [(0, 1), (1, -1)])
def test_the_policy_climbs_the_lesser_of_its_critics(lesser, sign):
    """One rises with the action and one falls; the entropy hardly counts."""
    critics = np.array([[0.0, 0.0, 20.0], [0.0, 0.0, -20.0]])
    critics[1 - lesser, 0] = 200.0  # at an observation of 0.5: 100 more
    after, _ = update(initial(critics=critics), rollout_of(terminal=True))
    np.testing.assert_allclose(bias(after) - MEAN, sign * 0.01, rtol=1e-2)


def test_with_critics_of_zero_the_policy_widens():
    state = initial(critics=np.zeros((2, 3)), raw_std=-2.0)
    after, _ = update(state, rollout_of(terminal=True, reward=0.15))
    widened = after.params["params"]["raw_std"]["bias"][0] - (-2.0)
    np.testing.assert_allclose(widened, 0.01, rtol=1e-2)


@pytest.mark.parametrize(("raw_std", "sign"), [(-4.0, 1), (0.0, -1)])
def test_the_temperature_rises_while_the_entropy_is_below_minus_the_action_size(
    raw_std, sign
):
    state = initial(raw_std=raw_std)
    after, metrics = update(state, rollout_of())
    assert (metrics["policy/entropy"] < -1.0) == (sign > 0)
    moved = after.temperature.params - state.temperature.params
    np.testing.assert_allclose(moved, sign * 0.01, rtol=1e-3)
    np.testing.assert_allclose(metrics["policy/temperature"], TEMPERATURE, rtol=1e-5)


def test_a_fixed_temperature_does_not_change():
    config = dataclasses.replace(ONE_STEP, learn_temperature=False, batch=16)
    state = compiled(config)[0](jax.random.key(0))
    after, _ = update(state, rollout_of(), config)
    assert equal(after.temperature, state.temperature)
    assert not equal(after.params, state.params)


def test_it_finds_the_best_action_of_a_bandit_from_random_actions():
    """Reward -(a - 3)², a in [0, 4]; 600 gradient steps; the mode is 3 ± 0.25."""
    config = sac.Config(
        policy=dataclasses.replace(ONE_STEP.policy, std=1.0),
        critic=mlp.Config(hidden=(32, 32)),
        gradient_steps=600,
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

    def learned(key):
        state, _ = agent.update(agent.init(key), rollout, None, key, jnp.int32(0))
        start = EnvState((), obs[0, 0], jnp.zeros((), jnp.int32))
        return agent.act(state.params, (), start, key, False)[0]

    found = jax.jit(learned)(jax.random.key(0))
    np.testing.assert_allclose(found, [3.0], atol=0.25)


# --------------------------------------------------------------------------------- losses

BATCH = sac.Batch(
    obs=jnp.array([OBS, NEXT_OBS], jnp.float32),
    action=jnp.array([[ACTION], [1.0]], jnp.float32),
    reward=jnp.array([REWARD, -1.0], jnp.float32),
    next_obs=jnp.array([NEXT_OBS, OBS], jnp.float32),
    terminal=jnp.array([True, True]),
)


def components() -> sac.Components:
    return sac.build(Task.of(SPEC), ONE_STEP)


def test_the_target_of_a_terminal_step_is_its_reward():
    soft_targets = jax.jit(functools.partial(sac.soft_targets, components()))
    found = soft_targets(initial(), BATCH, jax.random.key(0))
    np.testing.assert_array_equal(found, BATCH.reward)


def test_the_critic_loss_and_its_gradient_are_those_computed_by_hand():
    """Σ_i (Q_i - y)², averaged over two steps; of the bias, 2 (Q_i - y) averaged."""
    targets = np.array([0.5, -2.0])
    q = np.stack(
        [
            q_by_hand(CRITICS, OBS, np.array([(ACTION - 2) / 2]))[:, 0],
            q_by_hand(CRITICS, NEXT_OBS, np.array([-0.5]))[:, 0],
        ],
        axis=1,
    )  # [2 critics, 2 steps]
    loss_fn = functools.partial(sac.critic_loss, components())
    critics = initial().critics.params
    (loss, metrics), slope = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(
        critics, BATCH, jnp.asarray(targets, jnp.float32)
    )
    np.testing.assert_allclose(loss, np.mean(np.sum((q - targets) ** 2, 0)), rtol=1e-5)
    np.testing.assert_allclose(metrics["critic/mean"], q.mean(), rtol=1e-5)
    found = slope["params"]["Dense_0"]["bias"][:, 0]
    np.testing.assert_allclose(found, 2 * np.mean(q - targets, axis=1), rtol=1e-4)


def test_the_actor_loss_is_the_temperature_s_entropy_less_the_lesser_critic():
    """Of critics that ignore the action: -α H - mean of the lesser Q, by hand."""
    critics = CRITICS * np.array([1.0, 1.0, 0.0])
    args = BATCH, linear(critics), jnp.float32(TEMPERATURE), jax.random.key(0)
    loss_fn = functools.partial(sac.actor_loss, components())
    loss, metrics = jax.jit(loss_fn)(initial().params, *args)
    lesser = [q_by_hand(critics, obs, np.zeros(1)).min() for obs in (OBS, NEXT_OBS)]
    expected = -TEMPERATURE * float(metrics["policy/entropy"]) - np.mean(lesser)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize(("entropy", "sign"), [(-3.0, -1.0), (0.5, 1.0), (-1.0, 0.0)])
def test_the_temperature_loss_falls_with_alpha_while_the_entropy_is_too_low(entropy, sign):
    """H̄ = -1 nat: descent raises α below it and lowers α above it."""
    loss_fn = functools.partial(sac.temperature_loss, components())
    log_alpha = jnp.log(jnp.float32(0.2))
    loss, _ = loss_fn(log_alpha, jnp.float32(entropy))
    np.testing.assert_allclose(loss, 0.2 * (entropy + 1.0), rtol=1e-5, atol=1e-7)
    slope = jax.grad(loss_fn, has_aux=True)(log_alpha, jnp.float32(entropy))[0]
    assert np.sign(slope) == sign
    assert jax.grad(lambda h: loss_fn(log_alpha, h)[0])(jnp.float32(entropy)) == 0.0


# --------------------------------------------------------------------------------- replay


def test_batches_are_drawn_from_the_replay_and_not_from_the_last_rollout_alone():
    """Two steps are kept, with rewards of 10 and 0; the third replaces the first."""
    state, means = initial(), []
    for reward in (10.0, 0.0, 0.0):
        after, metrics = update(state, rollout_of(terminal=True, reward=reward))
        means.append(float(metrics["critic/loss"]))
        state = initial().replace(replay=after.replay)
    values = q_by_hand(CRITICS, OBS, np.array([(ACTION - 2) / 2]))[:, 0]
    full, empty = (np.sum((values - reward) ** 2) for reward in (10.0, 0.0))
    np.testing.assert_allclose(means, [full, (full + empty) / 2, empty], rtol=0.05)
    assert state.replay.size == 2
