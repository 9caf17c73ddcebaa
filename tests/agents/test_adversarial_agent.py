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

from planil_jax.agents import adversarial
from planil_jax.agents.common import learning, ppo
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
REWARDS = {"gail": "gail_pos", "gaifo": "neg_prob", "airl": "prob"}  # AIRL ignores it
TASK = Task.of(SPEC, dynamics=MOVED, observed=ENTRIES)
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
        gradient_steps=1,
        batch=4096,
        learning_rate=0.05,
    )
    for form in FORMS
}
# Of gail and gaifo: two weights of obs, and then those of the action or of next_obs.
WEIGHTS = {"gail": [0.5, -1.0, 2.0], "gaifo": [0.5, -1.0, 0.7, 0.2]}
REWARD, POTENTIAL = [0.5, -1.0], [0.7, 0.2]  # of AIRL's g and h


@functools.cache
def compiled(form: str):
    """`init` and `update`, one environment."""
    agent = adversarial.make(TASK, CONFIGS[form])
    return jax.jit(agent.init), jax.jit(agent.update)


def linear(weights, bias: float = 0.0):
    kernel = jnp.asarray(weights, jnp.float32)[:, None]
    layer = {"kernel": kernel, "bias": jnp.full((1,), bias, jnp.float32)}
    return {"params": {"Dense_0": layer}}


def params_by_hand(form: str):
    if form == "airl":
        return {"reward": linear(REWARD, 0.3), "potential": linear(POTENTIAL, -0.1)}
    return linear(WEIGHTS[form], 0.3)


def initial(form: str) -> adversarial.State:
    """A state whose moments, policy and discriminator are known."""
    state = compiled(form)[0](jax.random.key(0))
    policy = jax.tree.map(jnp.zeros_like, state.learner.params.policy)
    policy["params"]["Dense_0"]["bias"] = jnp.full((1,), MEAN, jnp.float32)
    acting = ppo.InferenceParams(policy=policy, moments=MOMENTS)
    params = state.learner.networks.params | {"policy": policy}
    learner = dataclasses.replace(
        state.learner, params=acting, networks=Fit(params, state.learner.networks.opt_state)
    )
    params = params_by_hand(form)
    return adversarial.State(
        params=dataclasses.replace(state.params, policy=acting, discriminator=params),
        learner=learner,
        discriminator=Fit(params, state.discriminator.opt_state),
    )


def rollout_of(seed: int = 0) -> Transition:
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


def demos_of(terminal: bool = True) -> Demonstrations:
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


def logits_by_hand(form, params, obs, actions, next_obs, terminal) -> np.ndarray:
    """l `[B]` of normalised observations and of actions in [-1, 1]."""
    deviation = np.sqrt(np.float64(MOMENTS.variance))
    before, after = (
        ((np.float64(x) - np.float64(MOMENTS.mean)) / deviation)[:, ENTRIES]
        for x in (obs, next_obs)
    )
    scaled = np.float64(actions) - 1.0
    if form != "airl":
        weights, bias = weights_and_bias(params)
        second = scaled if form == "gail" else after
        return np.concatenate([before, second], axis=1) @ weights + bias
    reward, reward_bias = weights_and_bias(params["reward"])
    potential, potential_bias = weights_and_bias(params["potential"])
    u = np.arctanh(scaled[:, 0])
    normal = -0.5 * ((u - MEAN) / STD) ** 2 - math.log(STD * math.sqrt(2 * math.pi))
    log_probs = normal - np.log(1 - scaled[:, 0] ** 2)
    next_potential = np.where(terminal, 0.0, after @ potential + potential_bias)
    shaping = 0.9 * next_potential - (before @ potential + potential_bias)
    return before @ reward + reward_bias + shaping - log_probs


def rollout_by_hand(form, params, rollout) -> np.ndarray:
    obs, actions, next_obs, terminal = (
        np.array(x)[:, 0]
        for x in (rollout.obs, rollout.action, rollout.next_obs, rollout.terminal)
    )
    return logits_by_hand(form, params, obs, actions, next_obs, terminal)


def demos_by_hand(form, params, demos) -> np.ndarray:
    obs = np.array(demos.obs)
    return logits_by_hand(
        form, params, obs[0, :1], np.array(demos.actions)[0], obs[0, 1:], demos.terminal
    )


# ------------------------------------------------------------------------------- logits


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("terminal", [True, False])
def test_logits_are_those_of_the_form_by_hand(form, terminal):
    """The learner's within 0.15 of their mean: 4096 of the 6 steps are drawn."""
    rollout, demos = rollout_of(), demos_of(terminal)
    _, metrics = update(form, initial(form), rollout, demos)
    params = params_by_hand(form)
    expert, learner = (
        demos_by_hand(form, params, demos),
        rollout_by_hand(form, params, rollout),
    )
    found = metrics["discriminator/expert_logit"]
    np.testing.assert_allclose(found, expert[0], rtol=1e-3, atol=1e-3)
    found = metrics["discriminator/learner_logit"]
    np.testing.assert_allclose(found, learner.mean(), atol=0.15)
    loss = np.logaddexp(0, -expert).mean() + np.logaddexp(0, learner).mean()
    np.testing.assert_allclose(metrics["discriminator/loss"], loss, atol=0.15)


@pytest.mark.parametrize("form", FORMS)
def test_rewards_are_those_of_the_new_logits(form):
    """PPO keeps moments of rewards of these one-step episodes; AIRL's are its logits."""
    rollout = rollout_of()
    after, _ = update(form, initial(form), rollout, demos_of())
    logits = rollout_by_hand(form, after.discriminator.params, rollout)
    rewards = {
        "gail": np.logaddexp(0, logits),
        "gaifo": -1 / (1 + np.exp(logits)),
        "airl": logits,
    }[form]
    np.testing.assert_allclose(after.learner.reward_sums.mean, [rewards.mean()], rtol=1e-3)
    np.testing.assert_allclose(
        after.learner.reward_sums.variance, [rewards.var()], rtol=2e-3
    )
    old = rollout_by_hand(form, params_by_hand(form), rollout)
    assert np.abs(logits - old).max() > 0.02  # the new ones differ


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("part", ["obs", "action", "next_obs"])
def test_a_discriminator_reads_what_its_form_says_and_nothing_else(form, part):
    reads = {
        "gail": ("obs", "action"),
        "gaifo": ("obs", "next_obs"),
        "airl": ("obs", "action", "next_obs"),
    }[form]
    rollout, other = rollout_of(), rollout_of(seed=1)
    changed = dataclasses.replace(rollout, **{part: getattr(other, part)})
    one, two = (
        update(form, initial(form), r, demos_of())[0].discriminator
        for r in (rollout, changed)
    )
    assert equal(one, two) == (part not in reads)


@pytest.mark.parametrize("form", ["gail", "gaifo"])
def test_the_expert_s_actions_are_read_only_where_they_are_needed(form):
    demos = demos_of()
    other = demos.replace(actions=-demos.actions)
    one, two = (update(form, initial(form), rollout_of(), d)[0] for d in (demos, other))
    assert equal(one, two) == (form == "gaifo")
    assert adversarial.FORMS[form].needs_actions == (form == "gail")


@pytest.mark.parametrize("form", FORMS)
def test_the_discriminator_never_reads_an_unobserved_entry(form):
    """AIRL's log π(a|s) does, and here does not depend on observations."""
    rollout, demos = rollout_of(), demos_of()
    filled = demos.replace(obs=demos.obs.at[..., 2].set(9.0))
    other = dataclasses.replace(
        rollout,
        obs=rollout.obs.at[..., 2].set(9.0),
        next_obs=rollout.next_obs.at[..., 2].set(-9.0),
    )
    cases = (rollout, demos), (rollout, filled), (other, demos)
    after = [update(form, initial(form), *case)[0] for case in cases]
    assert equal(after[0].discriminator, after[1].discriminator)
    assert equal(after[0].discriminator, after[2].discriminator)
    assert not equal(after[0].learner, after[2].learner)  # the policy does read it


# --------------------------------------------------------------------------------- loss


@functools.cache
def loss_and_slope(form: str):
    """The loss, its metrics and its gradient. The batch is the one demonstrated step, six
    times, and the six steps of a rollout."""
    components = adversarial.build(TASK, CONFIGS[form])
    rollout, demos, policy = rollout_of(), demos_of(), initial(form).learner.params
    read = jax.jit(functools.partial(adversarial.read, components))
    learner = read(policy, rollout)
    raw = adversarial.Steps(
        demos.obs[0, :1], demos.actions[0], demos.obs[0, 1:], demos.terminal
    )
    expert = read(policy, raw)
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, 6, axis=0), expert)
    batch = adversarial.Batch(expert=repeated, learner=learning.flatten(learner))
    loss_fn = functools.partial(adversarial.discriminator_loss, components)
    value_and_grad = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (loss, metrics), slope = value_and_grad(params_by_hand(form), batch, jax.random.key(0))
    return loss, metrics, slope


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_is_the_cross_entropy_and_the_weighed_penalty_by_hand(form):
    (loss, metrics, _), params = loss_and_slope(form), params_by_hand(form)
    expert = demos_by_hand(form, params, demos_of())
    learner = rollout_by_hand(form, params, rollout_of())
    expected = np.logaddexp(0, -expert).mean() + np.logaddexp(0, learner).mean()
    np.testing.assert_allclose(metrics["discriminator/loss"], expected, rtol=1e-4)
    expected += 0.5 * float(metrics["discriminator/penalty"])
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_s_gradient_of_a_bias_is_the_mean_error_of_both_classes(form):
    """-E_expert[σ(-l)] + E_learner[σ(l)]: descent raises the expert's logits."""
    (_, _, slope), params = loss_and_slope(form), params_by_hand(form)
    slope = slope["reward"] if form == "airl" else slope
    expert = demos_by_hand(form, params, demos_of())
    learner = rollout_by_hand(form, params, rollout_of())
    expected = -np.mean(1 / (1 + np.exp(expert))) + np.mean(1 / (1 + np.exp(-learner)))
    np.testing.assert_allclose(weights_and_bias(slope)[1], expected, rtol=1e-3)


# ------------------------------------------------------------------------------ learning


@pytest.mark.parametrize("form", FORMS)
def test_the_penalty_is_that_of_the_slope_by_what_the_form_reads(form):
    """‖∇l‖ of linear logits by hand; of AIRL (g - h, γ h) in (obs, next_obs)."""
    _, metrics = update(form, initial(form), rollout_of(), demos_of())
    slope = np.array(WEIGHTS.get(form, []))
    if form == "airl":
        reward, potential = np.array(REWARD), np.array(POTENTIAL)
        slope = np.concatenate([reward - potential, 0.9 * potential])
    expected = (np.linalg.norm(slope) - 0.4) ** 2
    np.testing.assert_allclose(metrics["discriminator/penalty"], expected, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_training_raises_the_expert_s_logit_above_the_learner_s(form):
    """From a discriminator of zeros; the penalty keeps the slope near 0.4."""
    state, rollout, demos = initial(form), rollout_of(), demos_of()
    zeros = jax.tree.map(jnp.zeros_like, state.discriminator.params)
    state = state.replace(discriminator=Fit(zeros, state.discriminator.opt_state))
    gaps = []
    for key in range(30):
        params = state.discriminator.params
        expert = demos_by_hand(form, params, demos).mean()
        gaps.append(expert - rollout_by_hand(form, params, rollout).mean())
        fitted = update(form, state, rollout, demos, key)[0].discriminator
        state = state.replace(discriminator=fitted)  # the policy does not change
    assert gaps[-1] > gaps[0] + 0.3


@pytest.mark.parametrize("form", FORMS)
def test_the_value_does_not_move_the_discriminator(form):
    state = initial(form)
    params = state.learner.networks.params
    params = params | {"value": jax.tree.map(lambda leaf: leaf + 3.0, params["value"])}
    networks = Fit(params, state.learner.networks.opt_state)
    other = state.replace(learner=dataclasses.replace(state.learner, networks=networks))
    one, two = (update(form, s, rollout_of(), demos_of())[0] for s in (state, other))
    assert equal(one.discriminator, two.discriminator)
    assert not equal(
        one.learner.networks.params["value"], two.learner.networks.params["value"]
    )


@pytest.mark.parametrize("form", FORMS)
def test_of_the_discriminators_only_airl_s_depends_on_the_policy(form):
    state = initial(form)
    policy = jax.tree.map(lambda leaf: leaf + 0.2, state.learner.params.policy)
    learner = dataclasses.replace(
        state.learner, params=dataclasses.replace(state.learner.params, policy=policy)
    )
    other = state.replace(learner=learner)
    one, two = (update(form, s, rollout_of(), demos_of())[0] for s in (state, other))
    assert equal(one.discriminator, two.discriminator) == (form != "airl")


def test_the_acting_parameters_are_the_learned_ones():
    after, _ = update("gail", initial("gail"), rollout_of(), demos_of())
    assert equal(after.params.policy, after.learner.params)
    assert equal(after.params.value, after.learner.networks.params["value"])
    assert equal(after.params.discriminator, after.discriminator.params)
    deviation = math.sqrt(after.learner.reward_sums.variance[0])
    np.testing.assert_allclose(after.params.reward_scale, deviation, rtol=1e-5)


@pytest.mark.parametrize("normed", [False, True])
def test_the_acting_discriminator_is_spectrally_normalised_where_asked(normed):
    config = dataclasses.replace(CONFIGS["gail"], spectral_norm=normed)
    agent = adversarial.make(TASK, config)
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
    agent = adversarial.make(TASK, config)
    return agent, jax.jit(agent.act, static_argnums=4)


def start() -> EnvState:
    obs = jnp.array([1.0, -2.0, 0.5])
    return EnvState(sim=(), obs=obs, time=jnp.zeros((), jnp.int32))


def planned(reward: float, value: float, reward_scale: float = 1.0) -> float:
    """The first action planned for slopes of reward and value along the first entry."""
    agent, act = acting(PLANNED)
    params = initial("gaifo").params.replace(
        discriminator=linear([0.0, 0.0, reward, 0.0]),
        value=linear([value, 0.0, 0.0]),
        reward_scale=jnp.float32(reward_scale),
    )
    action, carry = act(params, agent.carry(), start(), jax.random.key(1), False)
    assert carry.mean.shape == (4, 1)
    return float(action[0])


def test_a_planner_climbs_the_learned_reward_whatever_the_policy_does():
    """It moves by the action less 1; the policy's mode is 1 + tanh(0.3) either way."""
    assert planned(reward=2.0, value=0.0) > 1.6
    assert planned(reward=-2.0, value=0.0) < 0.4


def test_a_planner_values_the_end_of_its_horizon_in_units_of_reward():
    """Four rewards fall with the first action, by γ^t; γ⁴ V rises.

    Together the rewards weigh 3.4, and the value 0.66 of its scale: 5.2 balances them.
    """
    assert planned(reward=0.0, value=2.0) > 1.6
    assert planned(reward=0.0, value=-2.0) < 0.4
    assert planned(reward=-1.0, value=1.0, reward_scale=3.0) < 0.7
    assert planned(reward=-1.0, value=1.0, reward_scale=9.0) > 1.3


def test_the_policy_explores_also_where_a_planner_is_deployed():
    params = initial("gaifo").params
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
    reward = adversarial.recovered_reward(TASK, CONFIGS["airl"])
    obs = np.float32(np.random.default_rng(0).normal(size=(5, 3)))
    normalised = (obs - np.array(MOMENTS.mean)) / np.sqrt(np.array(MOMENTS.variance))
    expected = normalised[:, :2] @ np.array(REWARD) + 0.3
    found = reward(initial("airl").params, jnp.asarray(obs))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["gail", "gaifo"])
def test_other_forms_recover_no_reward(form):
    with pytest.raises(UsageError, match=f"^{form} recovers no reward of states; airl .*$"):
        adversarial.recovered_reward(TASK, CONFIGS[form])


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
        adversarial.make(TASK, config)
