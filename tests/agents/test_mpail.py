"""MPAIL, part by part: its updates on a chain of states that are entries of a table.

Observations are one-hot and networks linear, so that every weight belongs to one state and
every answer can be had by hand. The last entry is missing from the demonstrations.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
from planil_jax.envs import point_mass
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
ENTRIES = (0, 1, 2, 3, 4)
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
    history=16,
    history_share=0.5,
    recency_exponent=1.0,
    discriminator_lr=0.1,
    value_lr=0.1,
    lr_half_life=0,
    weight_decay=0.0,
    target_rate=0.5,
    ema_rate=0.25,
)
BOTH = CHAIN
ONLY_DISCRIMINATOR = dataclasses.replace(
    CHAIN, value_lr=0.0, history_share=0.0, lr_half_life=1
)
# V̄ stays where it is put, so that targets do not move while V is fitted to them.
ONLY_VALUE = dataclasses.replace(
    CHAIN,
    discriminator_lr=0.0,
    value_lr=0.05,
    value_steps=600,
    lr_half_life=1,
    target_rate=0.0,
)


@functools.cache
def compiled(config: mpail.Config):
    """`init` and `update` on the chain, one environment."""
    agent = mpail.make(Task.of(SPEC, dynamics=STILL, observed=ENTRIES), config)
    return jax.jit(agent.init), jax.jit(agent.update)


def begin(config: mpail.Config = BOTH, seed: int = 0) -> mpail.State:
    return compiled(config)[0](jax.random.key(seed))


def update(config: mpail.Config, state, steps, demos, round_: int = 0, key: int = 7):
    keys = jax.random.key(key)
    return compiled(config)[1](state, steps, demos, keys, jnp.int32(round_))


def one_hot(states) -> np.ndarray:
    return np.eye(6, dtype=np.float32)[np.asarray(states)]


def demonstrate(*states: int) -> Demonstrations:
    """One demonstration of a walk."""
    return Demonstrations(
        obs=jnp.asarray(one_hot(states))[None],
        actions=None,
        length=jnp.array([len(states) - 1], jnp.int32),
        terminal=jnp.zeros((1,), bool),
        observed=ENTRIES,
    )


def drive(states, following, terminal=False, truncated=False, seed: int = 0) -> Transition:
    """A rollout `[T, 1]`; the seed draws actions and rewards, which nobody may read."""
    rng = np.random.default_rng(seed)
    count = len(states)

    def column(flag):
        return jnp.asarray(np.broadcast_to(flag, count)[:, None])

    return Transition(
        obs=jnp.asarray(one_hot(states))[:, None],
        action=jnp.asarray(rng.normal(size=(count, 1, 1)), jnp.float32),
        next_obs=jnp.asarray(one_hot(following))[:, None],
        reward=jnp.asarray(rng.normal(size=(count, 1)), jnp.float32),
        terminal=column(terminal),
        truncated=column(truncated),
    )


def table(weights, bias: float = 0.0):
    """Parameters of a linear network."""
    kernel = jnp.asarray(np.asarray(weights)[:, None], jnp.float32)
    bias = jnp.full((1,), bias, jnp.float32)
    return {"params": {"Dense_0": {"kernel": kernel, "bias": bias}}}


def entry(params, row: int) -> float:
    return float(params["params"]["Dense_0"]["kernel"][row, 0])


def judged(state: mpail.State, params) -> mpail.State:
    """The state with another discriminator."""
    return state.replace(discriminator=Fit(params, state.discriminator.opt_state))


def valued(state: mpail.State, params, target=None) -> mpail.State:
    """The state with another value, and another V̄ if given."""
    value = Fit(params, state.value.opt_state)
    return state.replace(value=value, target=state.target if target is None else target)


def equal(left, right) -> bool:
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array(a).tobytes() == np.array(b).tobytes() for a, b in pairs)


ROUND = drive([0, 1, 2, 3, 4, 0, 1, 2], [1, 2, 3, 4, 5, 1, 2, 3])
OTHER_ROUND = drive([4, 4, 3, 3, 2, 2, 1, 1], [4, 3, 3, 2, 2, 1, 1, 0])
DEMOS = demonstrate(0, 1, 3, 4)
OTHER_DEMOS = demonstrate(4, 2, 2, 0)
DEMOS_01 = demonstrate(0, 1)

# ------------------------------------------------------------------------------ isolation


def test_the_value_does_not_move_the_discriminator():
    state = begin()
    other = valued(state, table(range(6), 3.0), table(range(6), -2.0))
    after, changed = (update(BOTH, s, ROUND, DEMOS)[0] for s in (state, other))
    assert equal(after.discriminator, changed.discriminator)
    assert not equal(after.discriminator, state.discriminator)
    assert not equal(after.value.params, changed.value.params)


def test_a_frozen_value_stays_exactly_while_the_discriminator_moves():
    state = begin(ONLY_DISCRIMINATOR)
    after, _ = update(ONLY_DISCRIMINATOR, state, ROUND, DEMOS)
    assert equal(after.value.params, state.value.params)
    assert equal(after.target, state.target)
    assert not equal(after.discriminator.params, state.discriminator.params)


def test_a_frozen_discriminator_stays_exactly_while_the_value_moves():
    state = begin(ONLY_VALUE)
    after, _ = update(ONLY_VALUE, state, ROUND, DEMOS)
    assert equal(after.discriminator.params, state.discriminator.params)
    assert not equal(after.value.params, state.value.params)


def test_demonstrations_reach_the_value_through_the_discriminator_alone():
    state = begin(ONLY_VALUE)
    after, _ = update(ONLY_VALUE, state, ROUND, DEMOS)
    changed, _ = update(ONLY_VALUE, state, ROUND, OTHER_DEMOS)
    assert equal(after.value, changed.value)
    free, _ = update(BOTH, begin(), ROUND, DEMOS)
    moved, _ = update(BOTH, begin(), ROUND, OTHER_DEMOS)
    assert not equal(free.value, moved.value)


def test_rewards_and_actions_are_never_read():
    other = drive([0, 1, 2, 3, 4, 0, 1, 2], [1, 2, 3, 4, 5, 1, 2, 3], seed=1)
    assert not equal(other, ROUND)
    assert equal(update(BOTH, begin(), ROUND, DEMOS), update(BOTH, begin(), other, DEMOS))


def test_an_entry_that_demonstrations_lack_never_reaches_the_discriminator():
    """Neither what stands there in the demonstrations nor what the learner sees there."""
    after, _ = update(BOTH, begin(), ROUND, DEMOS)
    filled = DEMOS.replace(obs=DEMOS.obs.at[..., 5].set(9.0))
    assert equal(after, update(BOTH, begin(), ROUND, filled)[0])
    seen = ROUND.replace(
        obs=ROUND.obs.at[..., 5].set(9.0), next_obs=ROUND.next_obs.at[..., 5].set(-9.0)
    )
    changed, _ = update(BOTH, begin(), seen, DEMOS)
    assert equal(after.discriminator, changed.discriminator)
    assert not equal(after.value.params, changed.value.params)


# -------------------------------------------------------------------------- discriminator


def test_the_discriminator_rises_for_the_expert_and_falls_for_the_learner():
    """Twenty rounds of pairs that differ in their successor: (0, 1) against (0, 0)."""
    state, metrics = begin(), {}
    logit, _ = mpail.reward_and_value(SPEC, BOTH, ENTRIES)
    for round_ in range(20):
        state, metrics = update(BOTH, state, drive([0] * 8, [0] * 8), DEMOS_01, round_)
    expert = logit(state.params, one_hot(0), one_hot(1))
    learner = logit(state.params, one_hot(0), one_hot(0))
    assert learner < -1.0 < 1.0 < expert
    assert metrics["discriminator/accuracy"] == 1.0
    assert metrics["discriminator/learner_logit"] < -1.0 < 1.0
    assert metrics["discriminator/expert_logit"] > 1.0


def test_history_is_learnt_from_by_its_share():
    for config, ignored in ((ONLY_DISCRIMINATOR, True), (BOTH, False)):
        state = begin(config)
        past = dataclasses.replace(
            state.history,
            steps={
                "obs": jnp.asarray(one_hot(np.arange(16)[:, None] % 5)),
                "next_obs": jnp.asarray(one_hot(np.arange(16)[:, None] % 4)),
                "terminal": jnp.zeros((16, 1), bool),
            },
            size=jnp.int32(16),
        )
        after, _ = update(config, state, ROUND, DEMOS)
        changed, _ = update(config, state.replace(history=past), ROUND, DEMOS)
        assert equal(after.discriminator, changed.discriminator) == ignored


# Of a gradient that does not change, Adam makes steps of exactly the learning rate.
HALVING = sum(0.1 * 0.5 ** (j / 4) for j in range(4))


@pytest.mark.parametrize(
    ("config", "rounds"),
    [
        (BOTH, [0.4, 0.4]),
        (ONLY_DISCRIMINATOR, [HALVING, HALVING / 2]),
    ],
)
def test_the_discriminators_rate_halves_by_its_half_life(config, rounds):
    """Far on the wrong side the logits' gradients are -1 and 1, whatever is drawn."""
    weights = np.zeros(10)
    weights[[0, 5 + 1]] = -50.0  # of the expert's pair (0, 1)
    weights[[2, 5 + 3]] = 50.0  # of the learner's pair (2, 3)
    state = judged(begin(config), table(weights))
    for round_, moved in enumerate(rounds):
        before = state.discriminator.params
        state, _ = update(config, state, drive([2] * 8, [3] * 8), DEMOS_01, round_)
        after = state.discriminator.params
        for row, sign in ((0, 1), (6, 1), (2, -1), (8, -1), (4, 0)):
            found = entry(after, row) - entry(before, row)
            np.testing.assert_allclose(found, sign * moved, atol=1e-4)


# ---------------------------------------------------------------------------------- value


@pytest.mark.parametrize("kind", ["terminal", "truncated"])
def test_the_value_meets_its_targets_which_end_with_the_task_but_not_with_time(kind):
    """Between λ-returns and one-step targets, which weigh alike, within 0.2.

    The successor of state 4 is worth 9 where time ran out, nothing where the task ended.
    """
    rng = np.random.default_rng(0)
    judge, target = rng.normal(size=10), rng.normal(size=6) + 10.0
    states, following = [0, 1, 2, 3, 4, 0, 1, 2], [1, 2, 3, 4, 5, 1, 2, 3]
    ended = np.arange(8) == 4
    steps = drive(states, following, **{kind: ended})
    state = judged(begin(ONLY_VALUE), table(judge, 0.5))
    state = valued(state, table(np.zeros(6), 8.0), table(target))
    after, _ = update(ONLY_VALUE, state, steps, DEMOS)
    _, value = mpail.reward_and_value(SPEC, ONLY_VALUE, ENTRIES)
    found = value(after.params.replace(value=after.value.params), one_hot(range(5)))

    goes_on = ~ended if kind == "terminal" else np.ones(8, bool)
    after_judge = np.append(judge[5:], 0.0)  # it does not see state 5
    rewards = judge[states] + after_judge[following] + 0.5
    one_step = [rewards[t] + 0.9 * goes_on[t] * target[following[t]] for t in range(8)]
    returns = np.zeros(8)
    for t in reversed(range(8)):
        if t == 7 or ended[t]:
            returns[t] = one_step[t]
        else:
            mixed = 0.5 * target[following[t]] + 0.5 * returns[t + 1]
            returns[t] = rewards[t] + 0.9 * mixed
    for s in range(5):
        at = [t for t in range(8) if states[t] == s]
        expected = (returns[at].mean() + np.mean([one_step[t] for t in at])) / 2
        np.testing.assert_allclose(found[s], expected, atol=0.2)


def test_the_values_rate_halves_by_its_half_life():
    """A target out of reach, clipped: the gradient keeps its size and its direction."""
    state = judged(begin(ONLY_VALUE), table(np.zeros(10), 1e5))
    for start in (0, 600):
        before = state.value.params
        state, _ = update(ONLY_VALUE, state, drive([3] * 8, [3] * 8), DEMOS)
        moved = sum(0.05 * 0.5 ** (j / 600) for j in range(start, start + 600))
        found = entry(state.value.params, 3) - entry(before, 3)
        np.testing.assert_allclose(found, moved, rtol=1e-3)


# -------------------------------------------------------- departures of published code

WAKING = {"imagined_share": 0.0, "imagined_batch": 0}


def test_the_published_reward_is_that_of_staying_and_moves_the_value_alone():
    sound, _ = updated(**WAKING)
    published, _ = updated(**WAKING, reward_pairs="same")
    assert equal(published.discriminator.params, sound.discriminator.params)
    assert not equal(published.value.params, sound.value.params)


def test_pairs_across_resets_enter_the_history_only_if_asked():
    sound, _ = updated(**WAKING)
    published, _ = updated(**WAKING, pairs_across_resets=True)
    count = ROUND.obs.shape[0]
    np.testing.assert_array_equal(sound.history.steps["next_obs"][:count], ROUND.next_obs)
    np.testing.assert_array_equal(
        published.history.steps["next_obs"][: count - 1], ROUND.obs[1:]
    )


def test_an_unknown_choice_of_pairs_is_refused():
    with pytest.raises(UsageError, match="reward_pairs"):
        updated(**WAKING, reward_pairs="both")


# ------------------------------------------------------------------------- imagination

RECOVERS = STILL._replace(recover=lambda params, obs: obs)


def updated(**changes) -> tuple[mpail.State, dict[str, jax.Array]]:
    """The same update with a model that recovers, and so may imagine."""
    config = dataclasses.replace(BOTH, **changes)
    agent = mpail.make(Task.of(SPEC, dynamics=RECOVERS, observed=ENTRIES), config)
    jitted = jax.jit(agent.update)
    return jitted(begin(), ROUND, DEMOS, jax.random.key(7), jnp.int32(0))


def test_a_model_that_cannot_start_from_an_observation_imagines_nothing():
    state, metrics = update(BOTH, begin(), ROUND, DEMOS)
    plain, _ = updated(imagined_share=0.0, imagined_batch=0)
    assert "value/imagined_loss" not in metrics
    assert equal(state, plain)


def test_imagined_steps_teach_the_discriminator_and_the_value_apart():
    plain, _ = update(BOTH, begin(), ROUND, DEMOS)
    judged, _ = updated(imagined_share=0.25, imagined_batch=0)
    assert not equal(judged.discriminator.params, plain.discriminator.params)
    valued, metrics = updated(imagined_share=0.0, imagined_batch=8)
    assert equal(valued.discriminator.params, plain.discriminator.params)
    assert not equal(valued.value.params, plain.value.params)
    assert metrics["value/imagined_loss"] > 0


def test_imagined_values_come_to_the_discounted_sum_of_the_logit():
    """A world that stands still, d = 1 everywhere, γ = 0.5: V = 1 / (1 - 0.5) = 2."""
    config = dataclasses.replace(
        ONLY_VALUE, imagined_batch=32, imagined_discount=0.5, discount=0.5, target_rate=0.1
    )
    agent = mpail.make(Task.of(SPEC, dynamics=RECOVERS, observed=ENTRIES), config)
    state = agent.init(jax.random.key(0))
    judge = dataclasses.replace(state.discriminator, params=table(np.zeros(10), 1.0))
    state = dataclasses.replace(state, discriminator=judge)
    jitted = jax.jit(agent.update)
    rollout = drive([0, 1, 2], [1, 2, 3])
    for round_ in range(3):
        state, _ = jitted(state, rollout, DEMOS, jax.random.key(round_), jnp.int32(0))
    _, value = mpail.reward_and_value(SPEC, config, ENTRIES)
    acts = dataclasses.replace(state.params, value=state.target)
    np.testing.assert_allclose(value(acts, one_hot([0, 1, 2, 3])), 2.0, atol=0.2)


# -------------------------------------------------------------------------- what acts


def test_the_temperature_falls_geometrically_and_then_stays():
    state = begin()
    assert state.params.temperature == 1.0
    for round_, expected in enumerate([0.1, 0.01, 0.01]):
        after, metrics = update(BOTH, state, ROUND, DEMOS, round_)
        np.testing.assert_allclose(after.params.temperature, expected, rtol=1e-5)
        np.testing.assert_allclose(metrics["planner/temperature"], expected, rtol=1e-5)


def test_what_acts_follows_what_learns_by_its_rate():
    state = begin()
    after, _ = update(BOTH, state, ROUND, DEMOS)
    old, found = state.params, after.params
    for trees in (
        (old.discriminator, found.discriminator, after.discriminator.params),
        (old.value, found.value, after.target),
    ):
        for before, acting, learnt in zip(*map(jax.tree.leaves, trees), strict=True):
            np.testing.assert_allclose(acting, 0.75 * before + 0.25 * learnt, atol=1e-6)
    assert not equal(after.target, after.value.params)  # V̄ comes after V


# ------------------------------------------------------------------- planning and looking

ENV = point_mass.make()
SEEN = (0, 1, 3)  # the velocity along x is missing
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
    pair = np.concatenate([obs[..., SEEN], next_obs[..., SEEN]], axis=-1)
    return forward(params.discriminator, pair, 0.2), forward(params.value, obs, 0.0)


def test_the_critic_is_the_two_networks_applied_by_hand():
    logit, value = mpail.reward_and_value(ENV.spec, PLANNING, SEEN)
    obs, next_obs = np.random.default_rng(9).normal(size=(2, 5, 3, 4)).astype(np.float32)
    d, v = by_hand(acting(0), obs, next_obs)
    np.testing.assert_allclose(logit(acting(0), obs, next_obs), d, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(value(acting(0), obs), v, rtol=1e-4, atol=1e-3)


def test_entries_that_demonstrations_lack_do_not_move_the_logit():
    logit, value = mpail.reward_and_value(ENV.spec, PLANNING, SEEN)
    obs, next_obs = np.random.default_rng(9).normal(size=(2, 5, 4)).astype(np.float32)
    hidden = np.array([0.0, 0.0, 7.0, 0.0], np.float32)
    before = logit(acting(0), obs, next_obs)
    assert equal(before, logit(acting(0), obs + hidden, next_obs - hidden))
    assert not np.allclose(value(acting(0), obs), value(acting(0), obs + hidden))


@functools.cache
def watched():
    """`act` without exploring, and `inspect`, compiled."""
    model = simulator.prior_or_physics(ENV)
    act = mpail.make(Task.of(ENV.spec, dynamics=model, observed=SEEN), PLANNING).act
    look = mpail.plan_samples(ENV.spec, model, PLANNING, SEEN)
    return jax.jit(functools.partial(act, explore=False)), jax.jit(look)


def looked(seed: int):
    """From a state under way: it, the action, where that leads, and what was weighed."""
    act, look = watched()
    state = ENV.reset(jax.random.key(seed))
    state, _ = ENV.step(state, jnp.array([0.5, -1.0]))
    mean = np.random.default_rng(seed).uniform(-0.5, 0.5, (4, 2))
    plan = Plan(jnp.asarray(mean, jnp.float32), jnp.full((4, 2), 0.5, jnp.float32))
    args = (acting(seed), plan, state, jax.random.key(seed))
    action, _ = act(*args)
    leads_to = ENV.step(state, action)[0].obs
    found = (state.obs, action, leads_to, *look(*args))
    return tuple(np.array(leaf, np.float64) for leaf in found)


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_shown_is_what_acts(seed):
    """Forces on the point are told by its velocities, which change by 0.1 s of them."""
    obs, action, leads_to, paths, weights, mean_path = looked(seed)
    assert paths.shape == (16, 5, 4) and weights.shape == (16,)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
    assert weights.max() < 0.9  # so that more than one plan counts
    np.testing.assert_array_equal(paths[:, 0], np.tile(obs, (16, 1)))
    np.testing.assert_allclose(mean_path[1], leads_to, atol=1e-6)
    first = (paths[:, 1, 2:] - obs[2:]) / 0.1  # [K, U]
    np.testing.assert_allclose(weights @ first, action, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_plans_weigh_by_marked_up_logits_of_their_steps_and_the_value_of_their_end(seed):
    """log w = (Σ 1.25^t d(s_t, s_{t+1}) + 1.25^4 V(s_4)) / temperature + constant."""
    _, _, _, paths, weights, _ = looked(seed)
    params = acting(seed)
    score = np.zeros(16)
    for t in range(4):
        score += 1.25**t * by_hand(params, paths[:, t], paths[:, t + 1])[0]
    score += 1.25**4 * by_hand(params, paths[:, 4], paths[:, 4])[1]
    assert np.ptp(score) > 1.0
    told = 20.0 * np.log(weights)
    np.testing.assert_allclose(told - told.mean(), score - score.mean(), atol=0.02)


# -------------------------------------------------------------------- whom it learns from


def drives_to(place: float, steps: int = 40, count: int = 4) -> np.ndarray:
    """Demonstrations `[N, L + 1, 4]` of a point that is steered to (place, place)."""
    position = np.random.default_rng(3).uniform(-1, 1, (count, 2))
    velocity = np.zeros((count, 2))
    path = [np.concatenate([position, velocity], axis=1)]
    for _ in range(steps):
        force = np.clip(2.0 * (place - position) - 2.5 * velocity, -1, 1)
        velocity = velocity + 0.1 * force
        position = position + 0.1 * velocity
        path.append(np.concatenate([position, velocity], axis=1))
    return np.stack(path, axis=1).astype(np.float32)


def knowing_nothing(*_):
    raise AssertionError("an online learner asked the environment's own model")


def ends_where_its_own_demonstrators_do(learned_model: bool):
    """Some steer to (0, 0), others to (1, 1), which is 1.4 m off; 6400 steps a seed.

    From the same starts each learner ends within 0.5 m of its own and 1 m off the others,
    with the true model, or with one that it learns and nothing else; tests/slow runs both.
    """
    env = point_mass.make(episode_length=40)
    model = simulator.prior_or_physics(env)
    if learned_model:
        model = Dynamics(*[knowing_nothing] * 5)
    rounds = loop.Config(num_envs=8, steps=40, rounds=20, resets=8)
    config = mpail.Config(
        planner=mppi.Config(samples=32, horizon=8, iterations=1),
        discriminator=mlp.Config(hidden=(32, 32), activation="leaky_relu"),
        value=mlp.Config(hidden=(32, 32)),
        discriminator_lr=3e-3,
        value_lr=3e-3,
        batch=128,
        history=800,
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

    def learnt(obs: jax.Array, key: jax.Array) -> jax.Array:
        demos = Demonstrations(
            obs=obs,
            actions=None,
            length=jnp.full((4,), 40, jnp.int32),
            terminal=jnp.zeros((4,), bool),
            observed=(0, 1, 2, 3),
        )
        state = loop.init(agent, env, rounds, key)
        state, told = loop.epoch(agent, env, rounds, demos, jnp.int32(0), state)
        starts = jax.random.split(jax.random.key(11), 8)
        steps, _ = loop.evaluate(agent, env, state.agent.params, starts)
        return jnp.mean(steps.next_obs[:, -1, :2], axis=0), told

    run = jax.jit(learnt)
    for own, other in ((0.0, 1.0), (1.0, 0.0)):
        end, told = run(drives_to(own), jax.random.key(0))
        if learned_model:  # of steps not seen before, in deviations of a change; all rounds
            assert told["model/fresh_error"] < 0.4
        assert np.linalg.norm(end - own) < 0.5
        assert np.linalg.norm(end - other) > 1.0
