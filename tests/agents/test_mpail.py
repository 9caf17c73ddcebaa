"""MPAIL, part by part: its losses and updates on a chain of six states.

Observations are one-hot and networks linear. So every weight belongs to one state, and
expected values are computed by hand. Demonstrations lack the last entry.
"""

import dataclasses
import functools
import typing
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import config as configs
from planil_jax.agents import mpail
from planil_jax.base import (
    Demonstrations,
    Dynamics,
    EnvSpec,
    Fit,
    Plan,
    Task,
    Transition,
    UsageError,
)
from planil_jax.data import replay
from planil_jax.envs import point_mass
from planil_jax.losses import adversarial as rewards
from planil_jax.models import ensemble, simulator
from planil_jax.nets import forward as networks
from planil_jax.nets import mlp
from planil_jax.planners import mppi
from planil_jax.training import loop

SPEC = EnvSpec("chain", tuple("abcdef"), (-1.0,), (1.0,), 5, 0.1)
STILL = Dynamics(
    init=lambda key: (),
    start=lambda params, state: state.obs,
    step=lambda params, z, action, key: z,
    observe=lambda params, z: z,
)
RECOVERS = STILL._replace(recover=lambda params, obs: obs)  # so steps can be imagined
ENTRIES = (0, 1, 2, 3, 4)
CHAIN_TASK = Task.of(SPEC, dynamics=STILL, observed=ENTRIES)
LINEAR = mlp.Config(hidden=())
CHAIN = mpail.Config(
    planner=mppi.Config(samples=4, horizon=2),
    discriminator=LINEAR,
    value=LINEAR,
    spectral_norm=False,
    discount=0.9,
    td_lambda=0.5,
    temperature=1.0,
    final_temperature=0.01,
    temperature_rounds=2,
    discriminator_steps=4,
    value_steps=4,
    batch=64,
    target_rate=0.5,
    ema_rate=0.25,
    replay=mpail.ReplayOptions(capacity=16, discriminator_share=0.5, recency_exponent=1.0),
    optimizer=mpail.OptimizerOptions(
        discriminator_lr=0.1, value_lr=0.1, lr_half_life=None, weight_decay=0.0
    ),
)


def adjust(config: mpail.Config, **settings) -> mpail.Config:
    """The config with other settings; those of a group as a dict."""
    return configs.from_config_dict(settings, config)


ONLY_DISCRIMINATOR = adjust(
    CHAIN,
    replay={"discriminator_share": 0.0},
    optimizer={"value_lr": 0.0, "lr_half_life": 1},
)
# V̄ does not move, so that targets do not move while V is fitted to them.
ONLY_VALUE = adjust(
    CHAIN,
    value_steps=600,
    target_rate=0.0,
    optimizer={"discriminator_lr": 0.0, "value_lr": 0.05, "lr_half_life": 1},
)


@functools.cache
def compiled(config: mpail.Config):
    """`init` and `update` on the chain, one environment."""
    agent = mpail.make(CHAIN_TASK, config)
    return jax.jit(agent.init), jax.jit(agent.update)


def begin(config: mpail.Config = CHAIN, seed: int = 0) -> mpail.State:
    return compiled(config)[0](jax.random.key(seed))


def update(config: mpail.Config, state, rollout, demos, round_: int = 0):
    key = jax.random.key(7)
    return compiled(config)[1](state, rollout, demos, key, jnp.int32(round_))


@functools.cache
def parts_of(config: mpail.Config) -> mpail.Components:
    task = Task.of(SPEC, dynamics=RECOVERS, observed=ENTRIES)
    return mpail.make_components(task, config)


def one_hot(states) -> np.ndarray:
    return np.eye(6, dtype=np.float32)[np.asarray(states)]


def demonstrate(*states: int) -> Demonstrations:
    """One demonstration, of a walk through these states."""
    return Demonstrations(
        obs=jnp.asarray(one_hot(states))[None],
        actions=None,
        length=jnp.array([len(states) - 1], jnp.int32),
        terminal=jnp.zeros((1,), bool),
        observed=ENTRIES,
    )


def walk(states, next_states, terminal=False, truncated=False, seed: int = 0) -> Transition:
    """A rollout `[T, 1]`; the seed draws actions and rewards, which nobody may read."""
    rng = np.random.default_rng(seed)
    count = len(states)

    def column(flag):
        return jnp.asarray(np.broadcast_to(flag, count)[:, None])

    return Transition(
        obs=jnp.asarray(one_hot(states))[:, None],
        action=jnp.asarray(rng.normal(size=(count, 1, 1)), jnp.float32),
        next_obs=jnp.asarray(one_hot(next_states))[:, None],
        reward=jnp.asarray(rng.normal(size=(count, 1)), jnp.float32),
        terminal=column(terminal),
        truncated=column(truncated),
    )


def table(weights, bias: float = 0.0):
    """Parameters of a linear network."""
    kernel = jnp.asarray(np.asarray(weights)[:, None], jnp.float32)
    bias = jnp.full((1,), bias, jnp.float32)
    return {"params": {"Dense_0": {"kernel": kernel, "bias": bias}}}


def weight_of(params, row: int) -> float:
    return float(params["params"]["Dense_0"]["kernel"][row, 0])


def with_discriminator(state: mpail.State, params) -> mpail.State:
    """The state with other parameters of the discriminator."""
    return state.replace(discriminator=Fit(params, state.discriminator.opt_state))


def with_value(state: mpail.State, params, target=None) -> mpail.State:
    """The state with other parameters of V, and of V̄ if given."""
    value = Fit(params, state.value.opt_state)
    return state.replace(value=value, target=state.target if target is None else target)


def logit_and_value(task: Task, config: mpail.Config):
    """d(params, obs, next_obs) and V(params, obs) of the parameters that act."""
    shows = mpail.shows(task, config)
    return lambda params, *pair: shows.reward(params, pair[0], None, pair[1]), shows.value


def equal(left, right) -> bool:
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array(a).tobytes() == np.array(b).tobytes() for a, b in pairs)


ROUND = walk([0, 1, 2, 3, 4, 0, 1, 2], [1, 2, 3, 4, 5, 1, 2, 3])
OTHER_ROUND = walk([4, 4, 3, 3, 2, 2, 1, 1], [4, 3, 3, 2, 2, 1, 1, 0])
DEMOS = demonstrate(0, 1, 3, 4)
OTHER_DEMOS = demonstrate(4, 2, 2, 0)
DEMOS_01 = demonstrate(0, 1)

# ------------------------------------------------------------------------------ isolation


def test_the_value_does_not_move_the_discriminator():
    state = begin()
    other = with_value(state, table(range(6), 3.0), table(range(6), -2.0))
    after, changed = (update(CHAIN, s, ROUND, DEMOS)[0] for s in (state, other))
    assert equal(after.discriminator, changed.discriminator)
    assert not equal(after.discriminator, state.discriminator)
    assert not equal(after.value.params, changed.value.params)


def test_a_frozen_value_does_not_change_while_the_discriminator_moves():
    state = begin(ONLY_DISCRIMINATOR)
    after, _ = update(ONLY_DISCRIMINATOR, state, ROUND, DEMOS)
    assert equal(after.value.params, state.value.params)
    assert equal(after.target, state.target)
    assert not equal(after.discriminator.params, state.discriminator.params)


def test_a_frozen_discriminator_does_not_change_while_the_value_moves():
    state = begin(ONLY_VALUE)
    after, _ = update(ONLY_VALUE, state, ROUND, DEMOS)
    assert equal(after.discriminator.params, state.discriminator.params)
    assert not equal(after.value.params, state.value.params)


def test_demonstrations_reach_the_value_through_the_discriminator_alone():
    state = begin(ONLY_VALUE)
    after, _ = update(ONLY_VALUE, state, ROUND, DEMOS)
    changed, _ = update(ONLY_VALUE, state, ROUND, OTHER_DEMOS)
    assert equal(after.value, changed.value)
    free, _ = update(CHAIN, begin(), ROUND, DEMOS)
    moved, _ = update(CHAIN, begin(), ROUND, OTHER_DEMOS)
    assert not equal(free.value, moved.value)


def test_rewards_and_actions_are_never_read():
    other = walk([0, 1, 2, 3, 4, 0, 1, 2], [1, 2, 3, 4, 5, 1, 2, 3], seed=1)
    assert not equal(other, ROUND)
    assert equal(update(CHAIN, begin(), ROUND, DEMOS), update(CHAIN, begin(), other, DEMOS))


def test_an_entry_that_demonstrations_lack_never_reaches_the_discriminator():
    """Neither its value in the demonstrations nor its value in the learner's steps."""
    after, _ = update(CHAIN, begin(), ROUND, DEMOS)
    filled = DEMOS.replace(obs=DEMOS.obs.at[..., 5].set(9.0))
    assert equal(after, update(CHAIN, begin(), ROUND, filled)[0])
    other = ROUND.replace(
        obs=ROUND.obs.at[..., 5].set(9.0), next_obs=ROUND.next_obs.at[..., 5].set(-9.0)
    )
    changed, _ = update(CHAIN, begin(), other, DEMOS)
    assert equal(after.discriminator, changed.discriminator)
    assert not equal(after.value.params, changed.value.params)


# -------------------------------------------------------------------------- discriminator


def test_the_discriminator_rises_for_the_expert_and_falls_for_the_learner():
    """Twenty rounds of pairs that differ in their successor: (0, 1) against (0, 0)."""
    state, metrics = begin(), {}
    logit, _ = logit_and_value(CHAIN_TASK, CHAIN)
    for round_ in range(20):
        state, metrics = update(CHAIN, state, walk([0] * 8, [0] * 8), DEMOS_01, round_)
    expert = logit(state.params, one_hot(0), one_hot(1))
    learner = logit(state.params, one_hot(0), one_hot(0))
    assert learner < -1.0 < 1.0 < expert
    assert metrics["discriminator/accuracy"] == 1.0
    assert metrics["discriminator/learner_logit"] < -1.0 < 1.0
    assert metrics["discriminator/expert_logit"] > 1.0


PAIRS = mpail.DiscriminatorBatch(
    expert_obs=one_hot([0, 1]),
    expert_next_obs=one_hot([1, 2]),
    learner_obs=one_hot([3, 3]),
    learner_next_obs=one_hot([3, 4]),
)


def test_the_discriminator_loss_is_the_cross_entropy_of_its_pairs_by_hand():
    """d = 1 and 2 of the expert's pairs, 1 and -1 of the learner's."""
    weights = np.array([1.0, 2.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.5, -1.5])
    loss, metrics = mpail.discriminator_loss(parts_of(CHAIN), table(weights), PAIRS)
    expert, learner = np.array([1.0, 2.0]), np.array([1.0, -1.0])
    expected = np.mean(np.log1p(np.exp(-expert))) + np.mean(np.log1p(np.exp(learner)))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["discriminator/loss"], expected, rtol=1e-6)
    assert metrics["discriminator/accuracy"] == (1.0 + 0.5) / 2
    np.testing.assert_allclose(metrics["discriminator/expert_logit"], 1.5, rtol=1e-6)
    np.testing.assert_allclose(metrics["discriminator/learner_logit"], 0.0, atol=1e-6)


def test_the_discriminator_loss_raises_expert_logits_and_lowers_learner_logits():
    """At d = 0 each class has a slope of 1/2, shared by its two pairs."""
    gradient = jax.grad(
        lambda params: mpail.discriminator_loss(parts_of(CHAIN), params, PAIRS)[0]
    )(table(np.zeros(10)))
    found = [weight_of(gradient, row) for row in range(10)]
    expected = [-0.25, -0.25, 0, 0.5, 0, 0, -0.25, -0.25, 0.25, 0.25]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_discriminator_loss_reads_kernels_at_spectral_norm_1_if_asked():
    """A kernel of ten threes has the norm √90; every logit is then 6 / √90."""
    params = table(np.full(10, 3.0))
    for spectral_norm, logit in ((True, 6 / np.sqrt(90)), (False, 6.0)):
        components = parts_of(adjust(CHAIN, spectral_norm=spectral_norm))
        _, metrics = mpail.discriminator_loss(components, params, PAIRS)
        np.testing.assert_allclose(metrics["discriminator/expert_logit"], logit, rtol=0.02)


def test_the_discriminator_learns_from_replay_unless_the_share_is_0():
    for config, ignored in ((ONLY_DISCRIMINATOR, True), (CHAIN, False)):
        state = begin(config)
        past = dataclasses.replace(
            state.replay,
            steps=mpail.Steps(
                obs=jnp.asarray(one_hot(np.arange(16)[:, None] % 5)),
                next_obs=jnp.asarray(one_hot(np.arange(16)[:, None] % 4)),
                terminal=jnp.zeros((16, 1), bool),
            ),
            size=jnp.int32(16),
        )
        after, _ = update(config, state, ROUND, DEMOS)
        changed, _ = update(config, state.replace(replay=past), ROUND, DEMOS)
        assert equal(after.discriminator, changed.discriminator) == ignored


# Adam's step is exactly the learning rate while the gradient does not change.
HALVING = sum(0.1 * 0.5 ** (j / 4) for j in range(4))


@pytest.mark.parametrize(
    ("config", "rounds"),
    [
        (CHAIN, [0.4, 0.4]),
        (ONLY_DISCRIMINATOR, [HALVING, HALVING / 2]),
    ],
)
def test_the_learning_rate_of_the_discriminator_halves_by_its_half_life(config, rounds):
    """Logits far on the wrong side have gradients -1 and 1, whatever is drawn."""
    weights = np.zeros(10)
    weights[[0, 5 + 1]] = -50.0  # of the expert's pair (0, 1)
    weights[[2, 5 + 3]] = 50.0  # of the learner's pair (2, 3)
    state = with_discriminator(begin(config), table(weights))
    for round_, moved in enumerate(rounds):
        before = state.discriminator.params
        state, _ = update(config, state, walk([2] * 8, [3] * 8), DEMOS_01, round_)
        after = state.discriminator.params
        for row, sign in ((0, 1), (6, 1), (2, -1), (8, -1), (4, 0)):
            found = weight_of(after, row) - weight_of(before, row)
            np.testing.assert_allclose(found, sign * moved, atol=1e-4)


# ---------------------------------------------------------------------------------- value


STATES, NEXT_STATES = [0, 1, 2, 3, 4, 0, 1, 2], [1, 2, 3, 4, 5, 1, 2, 3]


class EndedWalk(NamedTuple):
    """A rollout whose fifth step ends the episode, and what V should be at its steps."""

    rollout: Transition
    discriminator: Any  # parameters
    target: Any  # parameters of V̄
    returns: np.ndarray  # [8], λ-returns at γ = 0.9 and λ = 0.5
    one_step: np.ndarray  # [8]


def ended_walk(kind: str) -> EndedWalk:
    """By plain loops; `kind` is "terminal" or "truncated"."""
    rng = np.random.default_rng(0)
    weights, values = rng.normal(size=10), rng.normal(size=6) + 10.0
    ended = np.arange(8) == 4
    goes_on = ~ended if kind == "terminal" else np.ones(8, bool)
    next_weights = np.append(weights[5:], 0.0)  # the discriminator does not see state 5
    rewards = weights[STATES] + next_weights[NEXT_STATES] + 0.5
    one_step = rewards + 0.9 * goes_on * values[NEXT_STATES]
    returns = np.zeros(8)
    for t in reversed(range(8)):
        if t == 7 or ended[t]:
            returns[t] = one_step[t]
        else:
            mixed = 0.5 * values[NEXT_STATES[t]] + 0.5 * returns[t + 1]
            returns[t] = rewards[t] + 0.9 * mixed
    rollout = walk(STATES, NEXT_STATES, **{kind: ended})
    return EndedWalk(rollout, table(weights, 0.5), table(values), returns, one_step)


@pytest.mark.parametrize("kind", ["terminal", "truncated"])
def test_the_value_meets_its_targets_which_end_with_the_task_but_not_with_time(kind):
    """V is the mean of λ-returns and one-step targets, within 0.2.

    The successor of state 4 is worth 9 where time ran out, nothing where the task ended.
    """
    case = ended_walk(kind)
    state = with_discriminator(begin(ONLY_VALUE), case.discriminator)
    state = with_value(state, table(np.zeros(6), 8.0), case.target)
    after, _ = update(ONLY_VALUE, state, case.rollout, DEMOS)
    _, value = logit_and_value(CHAIN_TASK, ONLY_VALUE)
    found = value(after.params.replace(value=after.value.params), one_hot(range(5)))
    for s in range(5):
        at = [t for t in range(8) if STATES[t] == s]
        expected = (case.returns[at].mean() + case.one_step[at].mean()) / 2
        np.testing.assert_allclose(found[s], expected, atol=0.2)


@pytest.mark.parametrize("kind", ["terminal", "truncated"])
def test_targets_of_the_value_are_those_of_a_loop_over_the_steps(kind):
    case, components = ended_walk(kind), parts_of(CHAIN)
    found = mpail.value_returns(components, case.discriminator, case.target, case.rollout)
    np.testing.assert_allclose(found[:, 0], case.returns, rtol=1e-5)
    steps = mpail.steps_of(components, case.rollout)
    steps = jax.tree.map(lambda leaf: leaf[:, 0], steps)
    teachers = case.discriminator, case.target
    found = mpail.one_step_targets(components, teachers, steps, 0.9)
    np.testing.assert_allclose(found.target, case.one_step, rtol=1e-5)
    np.testing.assert_array_equal(found.obs, steps.obs)


def test_the_value_loss_is_two_squared_errors_and_a_huber_loss_by_hand():
    """V(s) = s, so errors are 2 and -1 (fresh), 3 (replayed), 0.5 and 4 (imagined)."""
    config = adjust(CHAIN, imagination={"huber_delta": 1.0})
    batch = mpail.ValueBatch(
        fresh=mpail.Regression(one_hot([2, 0]), jnp.array([0.0, 1.0])),
        replayed=mpail.Regression(one_hot([3]), jnp.array([0.0])),
        imagined=mpail.Regression(one_hot([1, 4]), jnp.array([0.5, 0.0])),
    )
    loss, metrics = mpail.value_loss(parts_of(config), table(range(6)), batch)
    fresh, replayed = (4 + 1) / 2, 9
    imagined = (0.5 * 0.5**2 + (4 - 0.5)) / 2  # linear above an error of 1
    np.testing.assert_allclose(loss, fresh + replayed + imagined, rtol=1e-6)
    np.testing.assert_allclose(metrics["value/loss"], fresh, rtol=1e-6)
    np.testing.assert_allclose(metrics["value/replay_loss"], replayed, rtol=1e-6)
    np.testing.assert_allclose(metrics["value/imagined_loss"], imagined, rtol=1e-6)
    np.testing.assert_allclose(metrics["value/mean"], 1.0, rtol=1e-6)
    awake = batch.replace(imagined=None)
    loss, metrics = mpail.value_loss(parts_of(config), table(range(6)), awake)
    np.testing.assert_allclose(loss, fresh + replayed, rtol=1e-6)
    assert "value/imagined_loss" not in metrics


def test_the_value_loss_pulls_the_values_of_its_states_alone_towards_their_targets():
    """The slope of a squared error is 2 (V - G) / B, and of a far Huber error ±δ / B."""
    config = adjust(CHAIN, imagination={"huber_delta": 1.0})
    batch = mpail.ValueBatch(
        fresh=mpail.Regression(one_hot([0, 0]), jnp.array([1.0, 3.0])),
        replayed=mpail.Regression(one_hot([1]), jnp.array([-2.0])),
        imagined=mpail.Regression(one_hot([2]), jnp.array([9.0])),
    )
    gradient = jax.grad(
        lambda params: mpail.value_loss(parts_of(config), params, batch)[0]
    )(table(np.zeros(6)))
    found = [weight_of(gradient, row) for row in range(6)]
    np.testing.assert_allclose(found, [-4.0, 4.0, -1.0, 0.0, 0.0, 0.0], rtol=1e-6)


def test_the_learning_rate_of_the_value_halves_by_its_half_life():
    """Towards a target out of reach, the clipped gradient does not change."""
    state = with_discriminator(begin(ONLY_VALUE), table(np.zeros(10), 1e5))
    for start in (0, 600):
        before = state.value.params
        state, _ = update(ONLY_VALUE, state, walk([3] * 8, [3] * 8), DEMOS)
        moved = sum(0.05 * 0.5 ** (j / 600) for j in range(start, start + 600))
        found = weight_of(state.value.params, 3) - weight_of(before, 3)
        np.testing.assert_allclose(found, moved, rtol=1e-3)


# -------------------------------------------------------- departures of published code

NO_IMAGINATION = {"discriminator_share": 0.0, "value_batch": None}


def update_published(**published) -> mpail.State:
    """An update without imagination by these choices of the published code."""
    return update_imagining(imagination=NO_IMAGINATION, published=published)[0]


def test_the_published_reward_is_that_of_standing_still_and_moves_the_value_alone():
    sound, published = update_published(), update_published(reward_pairs="same")
    assert equal(published.discriminator.params, sound.discriminator.params)
    assert not equal(published.value.params, sound.value.params)


def test_pairs_across_resets_enter_the_replay_only_if_asked():
    sound, published = update_published(), update_published(pairs_across_resets=True)
    count = ROUND.obs.shape[0]
    np.testing.assert_array_equal(sound.replay.steps.next_obs[:count], ROUND.next_obs)
    np.testing.assert_array_equal(
        published.replay.steps.next_obs[: count - 1], ROUND.obs[1:]
    )


def test_an_unknown_choice_of_pairs_is_refused():
    with pytest.raises(UsageError, match="reward_pairs"):
        update_published(reward_pairs="both")
    published = mpail.Published(reward_pairs="both")
    with pytest.raises(UsageError, match="agent.published.reward_pairs"):
        mpail.make(CHAIN_TASK, dataclasses.replace(CHAIN, published=published))


def test_the_choices_of_the_reward_are_those_that_there_are():
    choices = typing.get_type_hints(mpail.Config)["reward"]
    assert set(typing.get_args(choices)) == set(rewards.REWARDS)


# ------------------------------------------------------------------------- imagination


@functools.cache
def imagining(config: mpail.Config):
    """`update` with a model by which steps can be imagined."""
    agent = mpail.make(Task.of(SPEC, dynamics=RECOVERS, observed=ENTRIES), config)
    return jax.jit(agent.update)


def update_imagining(**settings) -> tuple[mpail.State, dict[str, jax.Array]]:
    """An update with other settings, which imagines steps."""
    update = imagining(adjust(CHAIN, **settings))
    return update(begin(), ROUND, DEMOS, jax.random.key(7), jnp.int32(0))


def test_a_model_that_cannot_start_from_an_observation_imagines_nothing():
    state, metrics = update(CHAIN, begin(), ROUND, DEMOS)
    plain, _ = update_imagining(imagination=NO_IMAGINATION)
    assert "value/imagined_loss" not in metrics
    assert equal(state, plain)


def test_imagined_steps_teach_the_discriminator_and_the_value_apart():
    plain, _ = update(CHAIN, begin(), ROUND, DEMOS)
    of_discriminator = {"discriminator_share": 0.25, "value_batch": None}
    taught, _ = update_imagining(imagination=of_discriminator)
    assert not equal(taught.discriminator.params, plain.discriminator.params)
    of_value = {"discriminator_share": 0.0, "value_batch": 8}
    taught, metrics = update_imagining(imagination=of_value)
    assert equal(taught.discriminator.params, plain.discriminator.params)
    assert not equal(taught.value.params, plain.value.params)
    assert metrics["value/imagined_loss"] > 0


def test_imagined_values_come_to_the_discounted_sum_of_the_logit():
    """A world that stands still, d = 1 everywhere, γ = 0.5: V = 1 / (1 - 0.5) = 2."""
    config = adjust(
        ONLY_VALUE,
        imagination={"value_batch": 32, "discount": 0.5},
        discount=0.5,
        target_rate=0.1,
    )
    agent = mpail.make(Task.of(SPEC, dynamics=RECOVERS, observed=ENTRIES), config)
    state = agent.init(jax.random.key(0))
    state = with_discriminator(state, table(np.zeros(10), 1.0))
    jitted = jax.jit(agent.update)
    rollout = walk([0, 1, 2], [1, 2, 3])
    for round_ in range(3):
        state, _ = jitted(state, rollout, DEMOS, jax.random.key(round_), jnp.int32(0))
    _, value = logit_and_value(CHAIN_TASK, config)
    acts = dataclasses.replace(state.params, value=state.target)
    np.testing.assert_allclose(value(acts, one_hot([0, 1, 2, 3])), 2.0, atol=0.2)


@pytest.mark.parametrize("spread", [0.0, 8.0])
def test_imagined_steps_start_as_far_around_the_demonstrations_as_asked(spread):
    """In deviations of 6,000 drawn starts, within 5%; entry 5 comes from the replay."""
    components = parts_of(adjust(CHAIN, imagination={"spread": spread}))
    state = mpail.init(components, jax.random.key(0))
    steps = mpail.steps_of(components, walk([5] * 8, [5] * 8))
    buffer = replay.insert(state.replay, steps)
    data = mpail.Data(DEMOS, steps, buffer, state.params.model)
    found = jax.jit(mpail.imagine, static_argnums=(0, 3))(
        components, data, jax.random.key(1), 6_000
    )
    np.testing.assert_array_equal(found.next_obs, found.obs)  # the model stands still
    assert not np.any(found.terminal)
    # Demonstrated pairs start at states 0, 1 and 3 equally often.
    mean, deviation = np.array([1, 1, 0, 1, 0, 3]) / 3, np.sqrt(2) / 3 * one_hot([0, 1, 3])
    deviation = deviation.sum(axis=0) * np.sqrt(1 + spread**2)
    np.testing.assert_allclose(np.mean(found.obs, axis=0), mean, atol=0.05 * (1 + spread))
    np.testing.assert_allclose(np.std(found.obs, axis=0), deviation, rtol=0.05, atol=1e-4)


# -------------------------------------------------------------------------- what acts


def test_the_temperature_falls_geometrically_and_is_then_constant():
    state = begin()
    assert state.params.temperature == 1.0
    for round_, expected in enumerate([0.1, 0.01, 0.01]):
        after, metrics = update(CHAIN, state, ROUND, DEMOS, round_)
        np.testing.assert_allclose(after.params.temperature, expected, rtol=1e-5)
        np.testing.assert_allclose(metrics["planner/temperature"], expected, rtol=1e-5)


def test_the_parameters_that_act_follow_the_learned_ones_by_the_ema_rate():
    state = begin()
    after, _ = update(CHAIN, state, ROUND, DEMOS)
    old, found = state.params, after.params
    for trees in (
        (old.discriminator, found.discriminator, after.discriminator.params),
        (old.value, found.value, after.target),
    ):
        for before, acting, learned in zip(*map(jax.tree.leaves, trees), strict=True):
            np.testing.assert_allclose(acting, 0.75 * before + 0.25 * learned, atol=1e-6)
    assert not equal(after.target, after.value.params)  # V̄ is behind V


# ------------------------------------------------------------------ planning and reports

ENV = point_mass.make()
OBSERVED = (0, 1, 3)  # the velocity along x is missing
POINT_TASK = Task.of(ENV.spec, dynamics=simulator.prior_or_physics(ENV), observed=OBSERVED)
PLANNING = mpail.Config(
    planner=mppi.Config(samples=16, horizon=4, iterations=2),
    discriminator=mlp.Config(hidden=(8, 8), activation="leaky_relu"),
    value=mlp.Config(hidden=(8,), activation="relu"),
    markup=1.25,
)


def network(rng, *sizes: int):
    """Random parameters of a perceptron."""
    layers = {
        f"Dense_{i}": {
            "kernel": jnp.asarray(rng.normal(size=pair), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=pair[1]), jnp.float32),
        }
        for i, pair in enumerate(zip(sizes[:-1], sizes[1:], strict=True))
    }
    return {"params": layers}


def forward(params, x: np.ndarray, slope: float) -> np.ndarray:
    """A perceptron by plain products; negative units are multiplied by `slope`."""
    layers = params["params"]
    for i in range(len(layers)):
        x = x @ np.array(layers[f"Dense_{i}"]["kernel"]) + layers[f"Dense_{i}"]["bias"]
        if i < len(layers) - 1:
            x = np.where(x > 0, x, slope * x)
    return np.array(x)[..., 0]


def acting(seed: int) -> mpail.InferenceParams:
    rng = np.random.default_rng(seed)
    return mpail.InferenceParams(
        discriminator=network(rng, 6, 8, 8, 1),
        value=network(rng, 4, 8, 1),
        model=(),
        temperature=jnp.float32(20.0),
    )


def by_hand(params: mpail.InferenceParams, obs, next_obs) -> tuple[np.ndarray, np.ndarray]:
    """d(obs, next_obs) and V(obs), `[…]`."""
    pair = np.concatenate([obs[..., OBSERVED], next_obs[..., OBSERVED]], axis=-1)
    return forward(params.discriminator, pair, 0.2), forward(params.value, obs, 0.0)


def test_the_logit_and_the_value_are_the_two_networks_applied_by_hand():
    logit, value = logit_and_value(POINT_TASK, PLANNING)
    obs, next_obs = np.random.default_rng(9).normal(size=(2, 5, 3, 4)).astype(np.float32)
    d, v = by_hand(acting(0), obs, next_obs)
    np.testing.assert_allclose(logit(acting(0), obs, next_obs), d, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(value(acting(0), obs), v, rtol=1e-4, atol=1e-3)


def test_entries_that_demonstrations_lack_do_not_move_the_logit():
    logit, value = logit_and_value(POINT_TASK, PLANNING)
    obs, next_obs = np.random.default_rng(9).normal(size=(2, 5, 4)).astype(np.float32)
    hidden = np.array([0.0, 0.0, 7.0, 0.0], np.float32)
    before = logit(acting(0), obs, next_obs)
    assert equal(before, logit(acting(0), obs + hidden, next_obs - hidden))
    assert not np.allclose(value(acting(0), obs), value(acting(0), obs + hidden))


@functools.cache
def act_and_plans():
    """`act` without exploring, and the plans that a report shows, compiled."""
    act = mpail.make(POINT_TASK, PLANNING).act
    plans = mpail.shows(POINT_TASK, PLANNING).plans
    return jax.jit(functools.partial(act, explore=False)), jax.jit(plans)


def decide(seed: int):
    """An observation, the action there, the next observation, and `Shows.plans` there."""
    act, plans = act_and_plans()
    state = ENV.reset(jax.random.key(seed))
    state, _ = ENV.step(state, jnp.array([0.5, -1.0]))
    mean = np.random.default_rng(seed).uniform(-0.5, 0.5, (4, 2))
    plan = Plan(jnp.asarray(mean, jnp.float32), jnp.full((4, 2), 0.5, jnp.float32))
    args = (acting(seed), plan, state, jax.random.key(seed))
    action, _ = act(*args)
    next_obs = ENV.step(state, action)[0].obs
    found = (state.obs, action, next_obs, *plans(*args))
    return tuple(np.array(leaf, np.float64) for leaf in found)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_plans_of_a_report_are_those_that_act(seed):
    """A force changes the velocity by 0.1 s of it, so the actions follow from the paths."""
    obs, action, next_obs, paths, weights, mean_path = decide(seed)
    assert paths.shape == (16, 5, 4) and weights.shape == (16,)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
    assert weights.max() < 0.9  # so that more than one plan counts
    np.testing.assert_array_equal(paths[:, 0], np.tile(obs, (16, 1)))
    np.testing.assert_allclose(mean_path[1], next_obs, atol=1e-6)
    first = (paths[:, 1, 2:] - obs[2:]) / 0.1  # [K, U]
    np.testing.assert_allclose(weights @ first, action, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_plans_weigh_by_marked_up_logits_of_their_steps_and_the_value_of_their_end(seed):
    """log w = (Σ 1.25^t d(s_t, s_{t+1}) + 1.25^4 V(s_4)) / temperature + constant."""
    _, _, _, paths, weights, _ = decide(seed)
    params = acting(seed)
    score = np.zeros(16)
    for t in range(4):
        score += 1.25**t * by_hand(params, paths[:, t], paths[:, t + 1])[0]
    score += 1.25**4 * by_hand(params, paths[:, 4], paths[:, 4])[1]
    assert np.ptp(score) > 1.0
    found = 20.0 * np.log(weights)
    np.testing.assert_allclose(found - found.mean(), score - score.mean(), atol=0.02)


# --------------------------------------------------------------------- demonstrator swap


def demonstrate_going_to(goal: float, steps: int = 40, count: int = 4) -> np.ndarray:
    """Demonstrations `[N, L + 1, 4]` of a point that is steered to (goal, goal)."""
    position = np.random.default_rng(3).uniform(-1, 1, (count, 2))
    velocity = np.zeros((count, 2))
    path = [np.concatenate([position, velocity], axis=1)]
    for _ in range(steps):
        force = np.clip(2.0 * (goal - position) - 2.5 * velocity, -1, 1)
        velocity = velocity + 0.1 * force
        position = position + 0.1 * velocity
        path.append(np.concatenate([position, velocity], axis=1))
    return np.stack(path, axis=1).astype(np.float32)


def forbidden(*_):
    raise AssertionError("MPAIL(OM) asked the environment's model")


def ends_where_its_demonstrators_do(learned_model: bool):
    """Some demonstrators steer to (0, 0), others to (1, 1), which is 1.4 m away.

    After 6,400 steps each learner ends within 0.5 m of its demonstrators' goal and more
    than 1 m from the others', from the same starts. It plans through the true model, or
    through one that it learns; tests/slow runs both.
    """
    env = point_mass.make(episode_length=40)
    model = simulator.prior_or_physics(env)
    if learned_model:
        model = Dynamics(*[forbidden] * 5)
    rounds = loop.Config(num_envs=8, steps=40, rounds=20, resets=8)
    config = mpail.Config(
        planner=mppi.Config(samples=32, horizon=8, iterations=1),
        discriminator=mlp.Config(hidden=(32, 32), activation="leaky_relu"),
        value=mlp.Config(hidden=(32, 32)),
        optimizer=mpail.OptimizerOptions(discriminator_lr=3e-3, value_lr=3e-3),
        batch=128,
        replay=mpail.ReplayOptions(capacity=800),
        temperature_rounds=8,
        learned_model=learned_model,
        model=ensemble.Config(
            network=networks.Config(network=mlp.Config(hidden=(32, 32), activation="tanh")),
            members=2,
        ),
    )
    agent = mpail.make(
        Task.of(env.spec, dynamics=model, observed=(0, 1, 2, 3), num_envs=rounds.num_envs),
        config,
    )

    def learn(obs: jax.Array, key: jax.Array):
        """Where it ends on average, and the metrics."""
        demos = Demonstrations(
            obs=obs,
            actions=None,
            length=jnp.full((4,), 40, jnp.int32),
            terminal=jnp.zeros((4,), bool),
            observed=(0, 1, 2, 3),
        )
        state = loop.init(agent, env, rounds, key)
        state, metrics = loop.epoch(agent, env, rounds, demos, jnp.int32(0), state)
        starts = jax.random.split(jax.random.key(11), 8)
        steps, _ = loop.evaluate(agent, env, state.agent.params, starts)
        return jnp.mean(steps.next_obs[:, -1, :2], axis=0), metrics

    run = jax.jit(learn)
    for goal, other_goal in ((0.0, 1.0), (1.0, 0.0)):
        end, metrics = run(demonstrate_going_to(goal), jax.random.key(0))
        if (
            learned_model
        ):  # of steps before they are learned from, in deviations of a change
            assert metrics["model/fresh_error"] < 0.4
        assert np.linalg.norm(end - goal) < 0.5
        assert np.linalg.norm(end - other_goal) > 1.0
