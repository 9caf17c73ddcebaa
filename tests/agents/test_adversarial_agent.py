"""GAIL, GAIfO, AIRL and IRL-MPC, part by part, with linear networks and known logits.

Observations have three entries, of which demonstrations hold two; actions are in [0, 2].
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.agents import adversarial, ppo
from planil_jax.base import (
    Demonstrations,
    Dynamics,
    EnvSpec,
    EnvState,
    Fit,
    Task,
    Transition,
    UsageError,
)
from planil_jax.nets import heads, mlp, normalise
from planil_jax.planners import mppi

SPEC = EnvSpec("line", ("a", "b", "c"), (0.0,), (2.0,), 5, 0.1)
ENTRIES = (0, 1)
FORMS = list(adversarial.FORMS)
LINEAR = mlp.Config(hidden=())
STD, MEAN = 0.6, 0.3  # of the policy, before squashing
MOMENTS = normalise.Moments(
    count=jnp.float32(100.0),
    mean=jnp.array([1.0, -2.0, 0.5]),
    variance=jnp.array([4.0, 0.25, 1.0]),
)
MOVED = Dynamics(  # by the action, less its middle, along the first entry
    init=lambda key: (),
    start=lambda params, state: state.obs,
    step=lambda params, z, action, key: z.at[0].add(action[0] - 1.0),
    observe=lambda params, z: z,
)
REWARDS = {"gail": "gail_pos", "gaifo": "neg_prob", "airl": "prob"}  # AIRL heeds it not
CONFIGS = {
    form: adversarial.Config(
        form=form,
        learner=ppo.Config(
            policy=heads.Config(network=LINEAR, std=STD),
            value=LINEAR,
            discount=0.9,
            epochs=1,
            minibatches=2,
            learning_rate=0.01,
        ),
        discriminator=LINEAR,
        reward=REWARDS[form],
        gradient_penalty=0.5,
        penalty_norm=0.4,
        steps=1,
        batch=4096,
        learning_rate=0.05,
    )
    for form in FORMS
}
# Of gail and gaifo one row for what they read first, one for what they read second.
WEIGHTS = {"gail": [0.5, -1.0, 2.0], "gaifo": [0.5, -1.0, 0.7, 0.2]}
REWARD, POTENTIAL = [0.5, -1.0], [0.7, 0.2]  # of AIRL's g and h


@functools.cache
def compiled(form: str):
    """`init` and `update`, one environment."""
    agent = adversarial.make(Task.of(SPEC, dynamics=MOVED, observed=ENTRIES), CONFIGS[form])
    return jax.jit(agent.init), jax.jit(agent.update)


def linear(weights, bias: float = 0.0):
    kernel = jnp.asarray(weights, jnp.float32)[:, None]
    layer = {"kernel": kernel, "bias": jnp.full((1,), bias, jnp.float32)}
    return {"params": {"Dense_0": layer}}


def judge_by_hand(form: str):
    if form == "airl":
        return {"reward": linear(REWARD, 0.3), "potential": linear(POTENTIAL, -0.1)}
    return linear(WEIGHTS[form], 0.3)


def begin(form: str) -> adversarial.State:
    """A state whose moments, policy and discriminator are known."""
    state = compiled(form)[0](jax.random.key(0))
    policy = jax.tree.map(jnp.zeros_like, state.learner.params.policy)
    policy["params"]["Dense_0"]["bias"] = jnp.full((1,), MEAN, jnp.float32)
    acting = ppo.InferenceParams(policy=policy, moments=MOMENTS)
    params = state.learner.learner.params | {"policy": policy}
    learner = dataclasses.replace(
        state.learner, params=acting, learner=Fit(params, state.learner.learner.opt_state)
    )
    judge = judge_by_hand(form)
    return adversarial.State(
        params=dataclasses.replace(state.params, policy=acting, discriminator=judge),
        learner=learner,
        discriminator=Fit(judge, state.discriminator.opt_state),
    )


def drive(seed: int = 0) -> Transition:
    """A rollout `[6, 1]`, each step an episode; the third and the last end for good."""
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.normal(size=(2, 6, 1, 3)) * 2.0
    terminal = np.isin(np.arange(6), (2, 5))[:, None]
    return Transition(
        obs=jnp.asarray(obs, jnp.float32),
        action=jnp.asarray(rng.uniform(0.1, 1.9, (6, 1, 1)), jnp.float32),
        next_obs=jnp.asarray(next_obs, jnp.float32),
        reward=jnp.asarray(rng.normal(size=(6, 1)), jnp.float32),
        terminal=jnp.asarray(terminal),
        truncated=jnp.asarray(~terminal),
    )


def demonstrate(terminal: bool = True) -> Demonstrations:
    """One transition; the entry that it lacks is 0."""
    return Demonstrations(
        obs=jnp.array([[[0.4, -1.0, 0.0], [1.5, -2.2, 0.0]]]),
        actions=jnp.array([[[1.4]]]),
        length=jnp.array([1], jnp.int32),
        terminal=jnp.array([terminal]),
        observed=ENTRIES,
    )


def update(form: str, state, rollout, demos, key: int = 5):
    return compiled(form)[1](state, rollout, demos, jax.random.key(key), jnp.int32(0))


def equal(left, right) -> bool:
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array(a).tobytes() == np.array(b).tobytes() for a, b in pairs)


def weights_and_bias(layer) -> tuple[np.ndarray, float]:
    dense = layer["params"]["Dense_0"]
    return np.float64(dense["kernel"])[:, 0], float(dense["bias"][0])


def logits_by_hand(form, judge, obs, actions, next_obs, terminal) -> np.ndarray:
    """`[B]`; a step is read normalised by the moments, an action in [-1, 1]."""
    deviation = np.sqrt(np.float64(MOMENTS.variance))
    before, after = (
        ((np.float64(x) - np.float64(MOMENTS.mean)) / deviation)[:, ENTRIES]
        for x in (obs, next_obs)
    )
    unit = np.float64(actions) - 1.0
    if form != "airl":
        weights, bias = weights_and_bias(judge)
        second = unit if form == "gail" else after
        return np.concatenate([before, second], axis=1) @ weights + bias
    reward, reward_bias = weights_and_bias(judge["reward"])
    potential, potential_bias = weights_and_bias(judge["potential"])
    u = np.arctanh(unit[:, 0])
    normal = -0.5 * ((u - MEAN) / STD) ** 2 - math.log(STD * math.sqrt(2 * math.pi))
    log_probs = normal - np.log(1 - unit[:, 0] ** 2)
    following = np.where(terminal, 0.0, after @ potential + potential_bias)
    shaping = 0.9 * following - (before @ potential + potential_bias)
    return before @ reward + reward_bias + shaping - log_probs


def rollout_by_hand(form, judge, rollout) -> np.ndarray:
    obs, actions, next_obs, terminal = (
        np.array(x)[:, 0]
        for x in (rollout.obs, rollout.action, rollout.next_obs, rollout.terminal)
    )
    return logits_by_hand(form, judge, obs, actions, next_obs, terminal)


def demos_by_hand(form, judge, demos) -> np.ndarray:
    obs = np.array(demos.obs)
    return logits_by_hand(
        form, judge, obs[0, :1], np.array(demos.actions)[0], obs[0, 1:], demos.terminal
    )


# ------------------------------------------------------------------------------- logits


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("terminal", [True, False])
def test_logits_are_those_of_the_form_by_hand(form, terminal):
    """The learner's within 0.15 of their mean: 4096 of the 6 steps are drawn."""
    rollout, demos = drive(), demonstrate(terminal)
    _, metrics = update(form, begin(form), rollout, demos)
    judge = judge_by_hand(form)
    expert, learner = (
        demos_by_hand(form, judge, demos),
        rollout_by_hand(form, judge, rollout),
    )
    found = metrics["discriminator/expert_logit"]
    np.testing.assert_allclose(found, expert[0], rtol=1e-3, atol=1e-3)
    found = metrics["discriminator/learner_logit"]
    np.testing.assert_allclose(found, learner.mean(), atol=0.15)
    loss = np.logaddexp(0, -expert).mean() + np.logaddexp(0, learner).mean()
    np.testing.assert_allclose(metrics["discriminator/loss"], loss, atol=0.15)


@pytest.mark.parametrize("form", FORMS)
def test_rewards_are_made_of_the_new_logits(form):
    """PPO keeps moments of rewards of these one-step episodes; AIRL's are its logits."""
    rollout = drive()
    after, _ = update(form, begin(form), rollout, demonstrate())
    logits = rollout_by_hand(form, after.discriminator.params, rollout)
    rewards = {
        "gail": np.logaddexp(0, logits),
        "gaifo": -1 / (1 + np.exp(logits)),
        "airl": logits,
    }[form]
    np.testing.assert_allclose(after.learner.sums.mean, [rewards.mean()], rtol=1e-3)
    np.testing.assert_allclose(after.learner.sums.variance, [rewards.var()], rtol=2e-3)
    old = rollout_by_hand(form, judge_by_hand(form), rollout)
    assert np.abs(logits - old).max() > 0.02  # so that it could tell them apart


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("part", ["obs", "action", "next_obs"])
def test_a_discriminator_reads_what_its_form_says_and_nothing_else(form, part):
    reads = {
        "gail": ("obs", "action"),
        "gaifo": ("obs", "next_obs"),
        "airl": ("obs", "action", "next_obs"),
    }[form]
    rollout, other = drive(), drive(seed=1)
    changed = dataclasses.replace(rollout, **{part: getattr(other, part)})
    one, two = (
        update(form, begin(form), r, demonstrate())[0].discriminator
        for r in (rollout, changed)
    )
    assert equal(one, two) == (part not in reads)


@pytest.mark.parametrize("form", ["gail", "gaifo"])
def test_a_demonstrators_actions_are_read_only_where_they_are_demanded(form):
    demos = demonstrate()
    other = demos.replace(actions=-demos.actions)
    one, two = (update(form, begin(form), drive(), d)[0] for d in (demos, other))
    assert equal(one, two) == (form == "gaifo")
    assert adversarial.FORMS[form].needs_actions == (form == "gail")


@pytest.mark.parametrize("form", FORMS)
def test_an_entry_that_demonstrations_lack_never_reaches_the_discriminator(form):
    """Of AIRL it reaches log π alone, which here does not depend on observations."""
    rollout, demos = drive(), demonstrate()
    filled = demos.replace(obs=demos.obs.at[..., 2].set(9.0))
    seen = dataclasses.replace(
        rollout,
        obs=rollout.obs.at[..., 2].set(9.0),
        next_obs=rollout.next_obs.at[..., 2].set(-9.0),
    )
    cases = (rollout, demos), (rollout, filled), (seen, demos)
    after = [update(form, begin(form), *case)[0] for case in cases]
    assert equal(after[0].discriminator, after[1].discriminator)
    assert equal(after[0].discriminator, after[2].discriminator)
    assert not equal(after[0].learner, after[2].learner)  # the policy does see it


# ------------------------------------------------------------------------------ learning


@pytest.mark.parametrize("form", FORMS)
def test_the_penalty_is_that_of_the_slope_of_what_is_read(form):
    """‖∇‖ of the linear logits by hand; AIRL's: (g - h, γ h) in (obs, next_obs)."""
    _, metrics = update(form, begin(form), drive(), demonstrate())
    slope = np.array(WEIGHTS.get(form, []))
    if form == "airl":
        reward, potential = np.array(REWARD), np.array(POTENTIAL)
        slope = np.concatenate([reward - potential, 0.9 * potential])
    expected = (np.linalg.norm(slope) - 0.4) ** 2
    np.testing.assert_allclose(metrics["discriminator/penalty"], expected, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_the_expert_s_logit_rises_above_the_learner_s(form):
    """From a discriminator of zeros; the penalty keeps the slope near 0.4."""
    state, rollout, demos = begin(form), drive(), demonstrate()
    zeros = jax.tree.map(jnp.zeros_like, state.discriminator.params)
    state = state.replace(discriminator=Fit(zeros, state.discriminator.opt_state))
    gaps = []
    for key in range(30):
        judge = state.discriminator.params
        expert = demos_by_hand(form, judge, demos).mean()
        gaps.append(expert - rollout_by_hand(form, judge, rollout).mean())
        fitted = update(form, state, rollout, demos, key)[0].discriminator
        state = state.replace(discriminator=fitted)  # the policy stays as it was
    assert gaps[-1] > gaps[0] + 0.3


@pytest.mark.parametrize("form", FORMS)
def test_the_value_never_moves_the_discriminator(form):
    state = begin(form)
    params = state.learner.learner.params
    params = params | {"value": jax.tree.map(lambda leaf: leaf + 3.0, params["value"])}
    learner = Fit(params, state.learner.learner.opt_state)
    other = state.replace(learner=dataclasses.replace(state.learner, learner=learner))
    one, two = (update(form, s, drive(), demonstrate())[0] for s in (state, other))
    assert equal(one.discriminator, two.discriminator)
    assert not equal(
        one.learner.learner.params["value"], two.learner.learner.params["value"]
    )


@pytest.mark.parametrize("form", FORMS)
def test_the_policy_moves_by_rewards_alone_and_only_airl_s_discriminator_knows_it(form):
    state = begin(form)
    policy = jax.tree.map(lambda leaf: leaf + 0.2, state.learner.params.policy)
    learner = dataclasses.replace(
        state.learner, params=dataclasses.replace(state.learner.params, policy=policy)
    )
    other = state.replace(learner=learner)
    one, two = (update(form, s, drive(), demonstrate())[0] for s in (state, other))
    assert equal(one.discriminator, two.discriminator) == (form != "airl")


def test_what_acts_is_what_was_learnt():
    after, _ = update("gail", begin("gail"), drive(), demonstrate())
    assert equal(after.params.policy, after.learner.params)
    assert equal(after.params.value, after.learner.learner.params["value"])
    assert equal(after.params.discriminator, after.discriminator.params)
    deviation = math.sqrt(after.learner.sums.variance[0])
    np.testing.assert_allclose(after.params.unit, deviation, rtol=1e-5)


@pytest.mark.parametrize("normed", [False, True])
def test_the_discriminator_is_spectrally_normalised_where_it_is_said(normed):
    config = dataclasses.replace(CONFIGS["gail"], spectral_norm=normed)
    agent = adversarial.make(Task.of(SPEC, dynamics=MOVED, observed=ENTRIES), config)
    state = jax.jit(agent.init)(jax.random.key(0))
    raw, acting = (
        np.linalg.norm(weights_and_bias(params)[0])
        for params in (state.discriminator.params, state.params.discriminator)
    )
    assert abs(raw - 1.0) > 0.1
    np.testing.assert_allclose(acting, 1.0 if normed else raw, rtol=0.02)


# -------------------------------------------------------------------------------- acting

PLANNED = dataclasses.replace(
    CONFIGS["gaifo"],
    reward="logit",
    deploy="planner",
    planner=mppi.Config(samples=64, horizon=4, iterations=4),
    temperature=0.01,
)


@functools.cache
def acting(config: adversarial.Config):
    agent = adversarial.make(Task.of(SPEC, dynamics=MOVED, observed=ENTRIES), config)
    return agent, jax.jit(agent.act, static_argnums=4)


def start() -> EnvState:
    obs = jnp.array([1.0, -2.0, 0.5])
    return EnvState(sim=(), obs=obs, time=jnp.zeros((), jnp.int32))


def planned(reward: float, value: float, unit: float = 1.0) -> float:
    """The first action planned for slopes of reward and value along the first entry."""
    agent, act = acting(PLANNED)
    params = begin("gaifo").params.replace(
        discriminator=linear([0.0, 0.0, reward, 0.0]),
        value=linear([value, 0.0, 0.0]),
        unit=jnp.float32(unit),
    )
    action, carry = act(params, agent.carry(), start(), jax.random.key(1), False)
    assert carry.mean.shape == (4, 1)
    return float(action[0])


def test_a_planner_climbs_the_learnt_reward_whatever_the_policy_does():
    """It moves by the action less 1; the policy's mode is 1 + tanh(0.3) either way."""
    assert planned(reward=2.0, value=0.0) > 1.6
    assert planned(reward=-2.0, value=0.0) < 0.4


def test_a_planner_looks_past_its_horizon_by_the_value_in_units_of_reward():
    """Four rewards slope down as the first action does, by γ^t; γ⁴ V slopes up.

    Together the rewards weigh 3.4 and the value 0.66 units: 5.2 units outweigh them.
    """
    assert planned(reward=0.0, value=2.0) > 1.6
    assert planned(reward=0.0, value=-2.0) < 0.4
    assert planned(reward=-1.0, value=1.0, unit=3.0) < 0.7
    assert planned(reward=-1.0, value=1.0, unit=9.0) > 1.3


def test_experience_is_gathered_by_the_policy_also_where_a_planner_is_deployed():
    params = begin("gaifo").params
    (planner, plan), (policy, act) = acting(PLANNED), acting(CONFIGS["gaifo"])
    key = jax.random.key(4)
    one, carry = plan(params, planner.carry(), start(), key, True)
    other, _ = act(params, policy.carry(), start(), key, True)
    np.testing.assert_array_equal(one, other)
    assert equal(carry, planner.carry())
    mode, _ = act(params, policy.carry(), start(), key, False)
    np.testing.assert_allclose(mode, [1 + math.tanh(MEAN)], rtol=1e-5)


# ------------------------------------------------------------------- rewards and refusals


def test_the_recovered_reward_is_airl_s_g_without_its_shaping():
    reward = adversarial.recovered_reward(SPEC, CONFIGS["airl"], ENTRIES)
    obs = np.float32(np.random.default_rng(0).normal(size=(5, 3)))
    seen = (obs - np.array(MOMENTS.mean)) / np.sqrt(np.array(MOMENTS.variance))
    expected = seen[:, :2] @ np.array(REWARD) + 0.3
    found = reward(begin("airl").params, jnp.asarray(obs))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["gail", "gaifo"])
def test_other_forms_recover_no_reward(form):
    with pytest.raises(UsageError, match=f"^{form} recovers no reward of states; airl .*$"):
        adversarial.recovered_reward(SPEC, CONFIGS[form], ENTRIES)


@pytest.mark.parametrize(
    ("field", "known"),
    [
        ("form", "one of gail, gaifo, airl"),
        ("deploy", "'policy' or 'planner'"),
        ("reward", "one of logit, gail_pos, gail_neg, prob, neg_prob"),
    ],
)
def test_an_unknown_choice_is_refused_in_one_sentence(field, known):
    config = dataclasses.replace(CONFIGS["gail"], **{field: "magic"})
    with pytest.raises(UsageError, match=f"^agent.{field} is {known}, not 'magic'.$"):
        adversarial.make(Task.of(SPEC, dynamics=MOVED, observed=ENTRIES), config)
