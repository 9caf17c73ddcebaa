"""CMIL and V-MAIL by parts: what is imagined, what it is worth, and what moves what."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.agents import cmil
from planil_jax.base import (
    Demonstrations,
    EnvSpec,
    EnvState,
    Network,
    Task,
    Transition,
    UsageError,
)
from planil_jax.data import replay
from planil_jax.models import rssm
from planil_jax.nets import conv, heads, mlp, normalise
from planil_jax.nets import rssm as networks

KEY = jax.random.key(0)
SPEC = EnvSpec("line", ("a", "b", "c"), (0.0, -2.0), (4.0, 2.0), 100, 0.1)
SMALL = mlp.Config(hidden=(5,), activation="elu")
HORIZON, LENGTH, BATCH, EXPERTS = 3, 5, 4, 2
CONFIG = cmil.Config(
    model=rssm.Config(
        network=networks.Config(deter=6, stoch=3, hidden=5, heads=3),
        vectors=SMALL,
        pictures=conv.Config(filters=2),
    ),
    policy=heads.Config(network=SMALL, std=0.5, std_of_state=True),
    discriminator=SMALL,
    critic=SMALL,
    conservatism=2.0,
    horizon=HORIZON,
    discount=0.9,
    td_lambda=0.8,
    entropy_coef=0.0,
    length=LENGTH,
    batch=BATCH,
    pretrain_steps=2,
    bc_steps=1,
    updates_per_step=0.1,
    capacity=30,
)


PARTS = cmil.make_parts(SPEC, CONFIG)
judged, valued = jax.jit(PARTS.judge.apply), jax.jit(PARTS.critics.apply)
HEADLESS = dataclasses.replace(CONFIG.model, network=networks.Config(heads=0))


def options(**changed) -> cmil.Config:
    return dataclasses.replace(CONFIG, **changed)


def normal(*shape, seed: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def drawn(tree, scale: float = 0.4, seed: int = 0):
    """Parameters of these shapes, none of which is 0."""
    leaves, structure = jax.tree.flatten(tree)
    leaves = [scale * normal(*leaf.shape, seed=seed + i) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, leaves)


def same(left, right) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(bool(jnp.all(a == b)) for a, b in pairs)


class Setting(NamedTuple):
    """Parts, parameters, a batch, and where its steps are believed to be."""

    config: cmil.Config
    parts: cmil.Components
    model: dict
    policy: dict
    judge: dict
    critics: dict
    batch: cmil.Sequences
    beliefs: rssm.Belief


def batch() -> cmil.Sequences:
    """With a beginning within the third sequence."""
    first = jnp.zeros((LENGTH, BATCH), bool).at[0].set(True).at[3, 2].set(True)
    action = jnp.tanh(normal(LENGTH, BATCH, 2, seed=5))
    return cmil.Sequences(normal(LENGTH, BATCH, 3), action, first)


@functools.cache
def setting(config: cmil.Config = CONFIG) -> Setting:
    parts = cmil.make_parts(SPEC, config)
    inits = parts.model, parts.policy, parts.judge, parts.critics
    params = [
        drawn(jax.eval_shape(part.init, KEY), seed=10 * i) for i, part in enumerate(inits)
    ]
    shape = LENGTH, BATCH
    beliefs = rssm.Belief(np.tanh(normal(*shape, 6)), normal(*shape, 3, seed=2))
    return Setting(config, parts, *params, batch(), beliefs)


@functools.cache
def compiled(function, config: cmil.Config = CONFIG):
    """A loss, or what else takes config and parts first."""
    return jax.jit(functools.partial(function, config, setting(config).parts))


def imagined(made: Setting, cloning: bool = False):
    """The loss of the policy, the rollout and metrics."""
    loss, (rollout, metrics) = compiled(cmil.policy_loss, made.config)(
        made.policy,
        made.model,
        made.judge,
        made.critics,
        made.beliefs,
        made.batch.action,
        jnp.array(cloning),
        KEY,
    )
    return loss, rollout, metrics


# ----------------------------------------------------------------------------- presets


def test_v_mail_is_cmil_with_one_prior_and_no_conservatism():
    found = cmil.vmail(CONFIG)
    assert found.model.network.heads == 1 and found.conservatism == 0.0
    one = dataclasses.replace(CONFIG.model.network, heads=1)
    model = dataclasses.replace(CONFIG.model, network=one)
    assert found == options(model=model, conservatism=0.0)
    assert cmil.vmail() == cmil.vmail(cmil.Config())


# -------------------------------------------------------------------- what is imagined

FORMS = {
    "logit": lambda logit: logit,
    "prob": lambda logit: 1 / (1 + np.exp(-logit)),
    "gail_neg": lambda logit: -np.log1p(np.exp(-logit)),
}


def disagreement(made: Setting, rollout: cmil.Rollout) -> np.ndarray:
    """Of the steps before the last, `[H, L, B]`, asked step by step."""
    features = rollout.features[:-1]
    beliefs = rssm.Belief(features[..., :6], features[..., 6:])
    return jax.jit(made.parts.model.disagreement)(made.model, beliefs, rollout.action[:-1])


@pytest.mark.parametrize("form", FORMS)
def test_a_reward_is_made_of_the_logit_in_its_form(form):
    made = setting(options(reward=form))
    features, action = normal(6, 9), normal(6, 2)
    logits = judged(made.judge, features, action)
    found = compiled(cmil.reward_of, made.config)(made.judge, features, action)
    np.testing.assert_allclose(found, FORMS[form](np.asarray(logits)), rtol=1e-5)


def test_conservative_rewards_are_those_of_logits_less_disagreement():
    made = setting()
    _, rollout, metrics = imagined(made)
    logits = made.parts.judge.apply(made.judge, rollout.features[:-1], rollout.action[:-1])
    apart = disagreement(made, rollout)
    assert apart.min() > 1e-3
    wanted = logits - 2.0 * apart
    np.testing.assert_allclose(rollout.reward, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["imagined/reward"], np.mean(wanted), rtol=1e-4)


def test_v_mail_s_rewards_are_those_of_logits_alone():
    made = setting(cmil.vmail(CONFIG))
    _, rollout, metrics = imagined(made)
    logits = made.parts.judge.apply(made.judge, rollout.features[:-1], rollout.action[:-1])
    np.testing.assert_allclose(rollout.reward, logits, rtol=1e-5, atol=1e-6)
    assert metrics["imagined/disagreement"] == 0.0


def mixtures(rewards, values, discount: float, trace: float) -> np.ndarray:
    """Σ_n (1 - λ) λ^(n - 1) V_n, of which the last has what weight is left, `[H, ..]`."""
    horizon, told = len(rewards), []
    for t in range(horizon):
        total, paid = 0.0, 0.0
        for n in range(1, horizon - t + 1):
            paid = paid + discount ** (n - 1) * rewards[t + n - 1]
            share = trace ** (n - 1) * (1.0 if n == horizon - t else 1 - trace)
            total = total + share * (paid + discount**n * values[t + n])
        told.append(total)
    return np.stack(told)


def smaller(params, features, action) -> np.ndarray:
    return np.min(valued(params, features, action), axis=0)


def test_the_policy_s_loss_is_the_mean_of_discounted_mixtures():
    made = setting()
    loss, rollout, _ = imagined(made)
    values = smaller(made.critics, rollout.features, rollout.action)
    worth = mixtures(np.asarray(rollout.reward), values, 0.9, 0.8)
    gains = 0.8 * worth + 0.2 * values[:-1]
    wanted = -np.mean([0.9**t * gains[t] for t in range(HORIZON)])
    np.testing.assert_allclose(loss, wanted, rtol=1e-4)


def test_entropy_and_cloning_are_added_with_their_weights():
    made = setting()
    _, _, metrics = imagined(made)
    likelihood = float(metrics["policy/likelihood"])
    seen = made.parts.model.features(made.beliefs)[:, :EXPERTS]
    chosen = made.parts.policy.apply(made.policy, seen)
    log_probs = made.parts.policy.log_prob(chosen, made.batch.action[:, :EXPERTS])
    np.testing.assert_allclose(likelihood, np.mean(log_probs), rtol=1e-5)
    alone, _, _ = imagined(made, cloning=True)
    np.testing.assert_allclose(alone, -likelihood, rtol=1e-5)
    both = made._replace(config=options(entropy_coef=10.0, cloning=0.5, horizon=1))
    loss, rollout, metrics = imagined(both)
    values = smaller(made.critics, rollout.features, rollout.action)
    worth = 0.8 * (rollout.reward[0] + 0.9 * values[1]) + 0.2 * values[0]
    wanted = np.mean(worth) + 10 * metrics["policy/entropy"] + 0.5 * likelihood
    np.testing.assert_allclose(loss, -wanted, rtol=1e-4)


def test_the_policy_does_not_learn_from_what_its_actions_will_make_it_see():
    """x' = a and a = θ x from x = 1, paid a: d(a + γ a')/dθ is 1 + γ θ, and not 1 + 2 γ θ;
    a reward of x instead, which the model foresees, is d(1 + γ θ)/dθ = γ."""
    made = setting(options(horizon=2, td_lambda=1.0))
    theta, shape = 0.7, (LENGTH, BATCH)

    def imagine(params, belief, act, horizon, key):
        beliefs, actions, told = [], [], []
        for _ in range(horizon + 1):
            action, log_prob = act(made.parts.model.features(belief), key)
            beliefs.append(belief)
            actions.append(action)
            told.append(log_prob)
            belief = rssm.Belief(belief.deter, jnp.repeat(action[..., :1], 3, -1))
        stack = functools.partial(jax.tree.map, lambda *leaves: jnp.stack(leaves))
        return rssm.Imagined(stack(*beliefs), stack(*actions), stack(*told))

    def sample(action, key):
        return action, jnp.zeros(action.shape[:-1])

    def slope(reward):
        parts = made.parts._replace(
            model=made.parts.model._replace(
                imagine=imagine, spread=lambda params, deter: jnp.zeros(deter.shape[:-1])
            ),
            policy=made.parts.policy._replace(
                apply=lambda params, x: params * x[..., -2:],
                sample=sample,
                log_prob=lambda chosen, action: jnp.zeros(action.shape[:-1]),
            ),
            judge=Network(None, lambda params, x, a: reward(x, a)),
            critics=Network(None, lambda params, x, a: jnp.zeros((2, *x.shape[:-1]))),
        )
        start = rssm.Belief(jnp.zeros((*shape, 6)), jnp.ones((*shape, 3)))

        def loss(theta):
            arguments = (), (), (), start, jnp.zeros((*shape, 2)), jnp.array(False), KEY
            return cmil.policy_loss(made.config, parts, theta, *arguments)[0]

        # The mean over two steps, of which the second counts γ once more.
        return -2 * jax.grad(loss)(jnp.float32(theta))

    # mean_t γ^t G_t: G_0 = r_0 + γ r_1, G_1 = r_1.
    np.testing.assert_allclose(slope(lambda x, a: a[..., 0]), 1 + 1.8 * theta, rtol=1e-5)
    np.testing.assert_allclose(slope(lambda x, a: x[..., -1]), 1.8, rtol=1e-5)


# ------------------------------------------------------------------------------ critics


def test_critics_learn_from_imagined_and_from_recorded_steps_by_hand():
    made = setting()
    _, rollout, _ = imagined(made)
    slow = drawn(made.critics, seed=77)
    features = np.asarray(made.parts.model.features(made.beliefs))
    rewards = normal(LENGTH, BATCH, seed=8)
    loss = compiled(cmil.critic_loss)
    arguments = made.critics, slow, rollout, features, made.batch, rewards
    found, metrics = loss(*arguments)
    values = smaller(slow, rollout.features, rollout.action)
    targets = mixtures(np.asarray(rollout.reward), values, 0.9, 0.8)
    told = valued(made.critics, rollout.features[:-1], rollout.action[:-1])
    wanted = sum(np.mean((one - targets) ** 2) for one in told)
    np.testing.assert_allclose(metrics["critic/imagined_loss"], wanted, rtol=1e-4)
    told, errors = valued(made.critics, features, made.batch.action), []
    for t in range(LENGTH - 1):
        for i in range(BATCH):
            if made.batch.first[t + 1, i]:
                continue
            follows = 0.2 * values[0, t + 1, i] + 0.8 * targets[0, t + 1, i]
            target = rewards[t, i] + 0.9 * follows
            errors.append(sum((one[t, i] - target) ** 2 for one in told))
    assert len(errors) == (LENGTH - 1) * BATCH - 1
    np.testing.assert_allclose(metrics["critic/recorded_loss"], np.mean(errors), rtol=1e-4)
    np.testing.assert_allclose(found, wanted + np.mean(errors), rtol=1e-4)


def test_what_followed_an_end_is_no_target():
    made = setting()
    _, rollout, _ = imagined(made)
    rewards = normal(LENGTH, BATCH, seed=8)
    features = made.parts.model.features(made.beliefs)
    loss = compiled(cmil.critic_loss)

    def recorded(rollout, rewards):
        arguments = made.critics, made.critics, rollout, features, made.batch, rewards
        return loss(*arguments)[1]["critic/recorded_loss"]

    before = recorded(rollout, rewards)
    other = dataclasses.replace(rollout, reward=rollout.reward.at[:, 3, 2].add(9.0))
    assert recorded(other, rewards) == before
    assert recorded(rollout, rewards.at[2, 2].add(9.0)) == before
    assert recorded(rollout, rewards.at[-1].add(9.0)) == before  # nothing followed
    other = dataclasses.replace(rollout, reward=rollout.reward.at[:, 2, 2].add(9.0))
    assert recorded(other, rewards) != before


# ------------------------------------------------------------------------ discriminator


def test_the_discriminator_tells_the_expert_s_steps_from_imagined_ones():
    made = setting()
    _, rollout, _ = imagined(made)
    expert = made.parts.model.features(made.beliefs)[:, :EXPERTS], made.batch.action
    expert = expert[0], expert[1][:, :EXPERTS]
    loss = compiled(cmil.discriminator_loss, options(gradient_penalty=0.0))
    found, metrics = loss(made.judge, expert, rollout, KEY)
    own = judged(made.judge, rollout.features[:-1], rollout.action[:-1])
    theirs = judged(made.judge, *expert)
    wanted = np.mean(np.log1p(np.exp(-theirs))) + np.mean(np.log1p(np.exp(own)))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(metrics["discriminator/expert_logit"], np.mean(theirs))


def test_a_logit_of_slope_three_pays_a_penalty_of_four_and_noise_spares_actions():
    made, config = setting(), options(gradient_penalty=2.0)
    _, rollout, _ = imagined(made)
    expert = rollout.features[0], rollout.action[0]
    direction = np.zeros(9, np.float32)
    direction[0] = 3.0
    parts = made.parts._replace(judge=Network(None, lambda params, x, a: x @ direction))
    loss = jax.jit(functools.partial(cmil.discriminator_loss, config, parts))
    found, metrics = loss((), expert, rollout, KEY)
    np.testing.assert_allclose(metrics["discriminator/penalty"], 4.0, rtol=1e-4)
    np.testing.assert_allclose(found, metrics["discriminator/loss"] + 8.0, rtol=1e-4)

    # Of a logit that is a share of the features and one of the actions.
    def shared(params, x, a):
        return params[0] * x[..., 0] + params[1] * a[..., 0]

    parts = made.parts._replace(judge=Network(None, shared))
    quiet, noisy = (
        jax.jit(functools.partial(cmil.discriminator_loss, config, parts))
        for config in (CONFIG, options(instance_noise=2.5))
    )
    for shares, moves in (((1.0, 0.0), True), ((0.0, 1.0), False)):
        told = [
            loss(jnp.array(shares), expert, rollout, KEY)[1]["discriminator/loss"]
            for loss in (quiet, noisy)
        ]
        assert (abs(told[0] - told[1]) > 1e-3) == moves


# ---------------------------------------------------------------------- what moves what


@functools.cache
def learned():
    made = setting(options(cloning=0.1, entropy_coef=0.1, instance_noise=0.1))
    config, parts = made.config, made.parts
    state = cmil.State(
        params=cmil.InferenceParams(made.model, made.policy, normalise.init(3)),
        model=parts.model_fit.init(made.model),
        discriminator=parts.discriminator_fit.init(made.judge),
        critics=parts.critic_fit.init(made.critics),
        slow=drawn(made.critics, seed=77),
        policy=parts.policy_fit.init(made.policy),
        ended=jnp.ones((1,), bool),
        replay=None,
    )
    step = jax.jit(functools.partial(cmil.learn, config, parts))

    def learn(state, cloning=False):
        return step(state, made.batch, jnp.array(cloning), KEY)[0]

    return state, learn


# Of each part: those whose parameters its step does not depend on.
APART = {
    "model": ("policy", "discriminator", "critics", "slow"),
    "discriminator": ("critics", "slow"),
    "policy": ("slow",),
    "critics": (),
}


@pytest.mark.parametrize("part", APART)
def test_a_step_moves_each_part_by_its_own_loss(part):
    state, learn = learned()
    after = learn(state)
    assert not same(getattr(after, part).params, getattr(state, part).params)
    for other in APART[part]:
        fitted = getattr(state, other)
        params = fitted if other == "slow" else fitted.params
        changed = jax.tree.map(lambda leaf: 0.5 * leaf, params)
        if other != "slow":
            changed = dataclasses.replace(fitted, params=changed)
        found = learn(dataclasses.replace(state, **{other: changed}))
        assert same(getattr(found, part), getattr(after, part)), other


def test_a_step_that_clones_moves_the_policy_whatever_the_rest_says():
    state, learn = learned()
    before = learn(state, cloning=True)
    for other in ("discriminator", "critics"):
        fitted = getattr(state, other)
        changed = jax.tree.map(lambda leaf: 0.5 * leaf, fitted.params)
        changed = dataclasses.replace(fitted, params=changed)
        found = learn(dataclasses.replace(state, **{other: changed}), cloning=True)
        assert same(found.policy, before.policy)
    assert not same(before.policy, learn(state).policy)


def test_what_was_imagined_carries_no_gradient_to_what_imagined_it():
    """Of the discriminator's and the critics' losses, to model and policy."""
    made = setting()
    features = made.parts.model.features(made.beliefs)

    def losses(model, policy):
        arguments = made.judge, made.critics, made.beliefs, made.batch.action
        _, (rollout, _) = cmil.policy_loss(
            CONFIG, made.parts, policy, model, *arguments, jnp.array(False), KEY
        )
        expert = features[:, :EXPERTS], made.batch.action[:, :EXPERTS]
        told = cmil.discriminator_loss(
            CONFIG, made.parts, made.judge, expert, rollout, KEY
        )[0]
        rewards = jnp.zeros((LENGTH, BATCH))
        arguments = made.critics, made.critics, rollout, features, made.batch, rewards
        return told + cmil.critic_loss(CONFIG, made.parts, *arguments)[0]

    for leaf in jax.tree.leaves(jax.jit(jax.grad(losses, (0, 1)))(made.model, made.policy)):
        assert not np.asarray(leaf).any()


def test_slow_critics_follow_by_their_share():
    state, learn = learned()
    after = learn(state)
    for slow, fast, found in zip(
        *map(jax.tree.leaves, (state.slow, after.critics.params, after.slow)), strict=True
    ):
        np.testing.assert_allclose(found, 0.98 * slow + 0.02 * fast, atol=1e-6)


# -------------------------------------------------------------------------------- model


def test_the_model_s_loss_is_an_error_and_a_divergence():
    made = setting(options(free_nats=0.0, kl_weight=0.5))
    moments = normalise.Moments(jnp.float32(5), jnp.full(3, 0.2), jnp.full(3, 4.0))
    loss = compiled(cmil.model_loss, made.config)
    found, (beliefs, metrics) = loss(made.model, moments, made.batch, KEY)
    drawn = made.parts.model.decode(made.model, made.parts.model.features(beliefs))
    seen = (made.batch.obs - 0.2) / 2.0
    wanted = np.mean(np.sum(0.5 * (drawn - seen) ** 2, axis=-1))
    np.testing.assert_allclose(metrics["model/error"], wanted, rtol=1e-4)
    told = wanted + 0.5 * metrics["model/divergence"]
    np.testing.assert_allclose(found, told, rtol=1e-4)
    # An action leads from its own observation to the next: the last one leads nowhere.
    other = dataclasses.replace(made.batch, action=made.batch.action.at[-1].add(1.0))
    assert same(loss(made.model, moments, other, KEY)[1][0], beliefs)
    other = dataclasses.replace(made.batch, action=made.batch.action.at[0].add(1.0))
    changed = loss(made.model, moments, other, KEY)[1][0]
    assert same(changed.deter[0], beliefs.deter[0])
    assert not same(changed.deter[1], beliefs.deter[1])


def test_a_batch_is_learned_by_heart():
    """Its loss falls below a third of what it was, within 300 steps."""
    made = setting(options(model_lr=1e-2, free_nats=0.0, kl_weight=0.01))
    moments = normalise.init(3)
    losses = functools.partial(cmil.model_loss, made.config, made.parts)

    @jax.jit
    def fitted(key):
        def step(fit, key):
            (loss, _), slope = jax.value_and_grad(losses, has_aux=True)(
                fit.params, moments, made.batch, key
            )
            return made.parts.model_fit.step(fit, slope), loss

        start = made.parts.model_fit.init(made.model)
        return jax.lax.scan(step, start, jax.random.split(key, 300))[1]

    told = fitted(KEY)
    assert np.mean(told[-20:]) < np.mean(told[:5]) / 3


# ------------------------------------------------------------------- what is remembered


def rollout_of(steps: int = 6, seed: int = 3) -> Transition:
    """Of one environment; an episode ends with the third step and with the last."""
    ends = jnp.arange(steps)[:, None] % 3 == 2
    action = jnp.array([2.0, 0.0]) + 2 * jnp.tanh(normal(steps, 1, 2, seed=seed))
    obs = normal(steps, 1, 3, seed=seed + 1)
    return Transition(obs, action, obs, jnp.zeros((steps, 1)), ends & False, ends)


def demos_of(longest: int = 8) -> Demonstrations:
    """Far from what the learner does, to be told from it."""
    return Demonstrations(
        obs=100 + normal(2, longest + 1, 3, seed=6),
        actions=jnp.zeros((2, longest, 2)),
        length=jnp.array([longest, longest - 1], jnp.int32),
        terminal=jnp.zeros((2,), bool),
        observed=(0, 1, 2),
    )


def test_steps_are_remembered_with_where_episodes_began():
    parts, told = setting().parts, rollout_of()
    kept = cmil.remembered(parts, jnp.array([True]), told)
    assert kept["first"][:, 0].tolist() == [True, False, False, True, False, False]
    kept = cmil.remembered(parts, jnp.array([False]), told)
    assert kept["first"][:, 0].tolist() == [False, False, False, True, False, False]
    units = (np.asarray(told.action) - [2.0, 0.0]) / 2.0
    np.testing.assert_allclose(kept["action"], units, atol=1e-6)
    np.testing.assert_array_equal(kept["obs"], told.obs)


@pytest.mark.parametrize(
    ("steps", "demos_only", "own"), [(12, False, 2), (12, True, 0), (3, False, 0)]
)
def test_the_expert_is_at_the_front_and_everywhere_until_there_is_more(
    steps, demos_only, own
):
    made = setting()
    one = {"obs": jnp.zeros(3), "action": jnp.zeros(2), "first": jnp.zeros((), bool)}
    kept = cmil.remembered(made.parts, jnp.array([True]), rollout_of(steps))
    held = replay.insert(replay.init(one, 30, 1), kept)
    found = cmil.sequences(CONFIG, made.parts, held, demos_of(), KEY, jnp.array(demos_only))
    far = np.asarray(found.obs)[..., 0] > 50
    assert (far[:, : BATCH - own]).all() and not far[:, BATCH - own :].any()
    assert found.first[0].all() and not found.first[1:, : BATCH - own].any()
    # Actions of 0 are at the lower bound of one entry and in the middle of the other.
    np.testing.assert_allclose(found.action[0, 0], [-1.0, 0.0])
    assert found.obs.shape == (LENGTH, BATCH, 3)
    if own:
        assert found.first[1:, EXPERTS:].any()


# ------------------------------------------------------------------------------- acting


def states(obs) -> EnvState:
    return EnvState(sim=(), obs=obs, time=jnp.zeros((), jnp.int32))


def test_acting_follows_the_posterior_s_mean_and_samples_when_it_explores():
    made = setting()
    agent = cmil.make(Task.of(SPEC), CONFIG)
    moments = normalise.Moments(jnp.float32(5), jnp.full(3, 0.2), jnp.full(3, 4.0))
    params = cmil.InferenceParams(made.model, made.policy, moments)
    act, model = jax.jit(agent.act, static_argnums=4), made.parts.model
    seen, carry = normal(3, 3, seed=4), agent.carry()
    belief, led, step = model.start(), jnp.zeros(2), jax.jit(model.observe_step)
    for obs in seen:
        action, carry = act(params, carry, states(obs), KEY, False)
        encoded = model.encode(params.model, (obs - 0.2) / 2.0)
        no, head = jnp.zeros((), bool), jnp.int32(0)
        belief = step(params.model, belief, led, encoded, no, head, None).belief
        chosen = made.parts.policy.apply(params.policy, model.features(belief))
        led = made.parts.policy.mode(chosen)
        np.testing.assert_allclose(carry.action, led, atol=1e-5)
        np.testing.assert_allclose(carry.belief.deter, belief.deter, atol=1e-5)
        np.testing.assert_allclose(action, 2 * led + jnp.array([2.0, 0.0]), atol=1e-5)
    again, other = (
        act(params, agent.carry(), states(seen[0]), jax.random.key(i), True)
        for i in range(2)
    )
    assert (again[0] != other[0]).all()
    assert (again[1].belief.stoch != other[1].belief.stoch).all()


def test_of_a_stack_of_frames_the_newest_is_seen_and_held():
    spec = SPEC._replace(observation_names=(), image=(64, 64, 9))
    agent, parts = cmil.make(Task.of(spec), CONFIG), cmil.make_parts(spec, CONFIG)
    params = drawn(jax.eval_shape(agent.init, KEY).params, 0.1)
    frames = jnp.asarray(
        np.random.default_rng(0).integers(0, 256, (64, 64, 9), dtype=np.uint8)
    )
    act = jax.jit(agent.act, static_argnums=4)

    def acted(frames):
        return act(params, agent.carry(), states(frames), KEY, False)[0]

    other = frames.at[..., :6].set(0)
    np.testing.assert_array_equal(acted(frames), acted(other))
    assert (acted(frames) != acted(frames.at[..., 6:].set(0))).any()
    held = jax.eval_shape(agent.init, KEY).replay.steps["obs"]
    assert held.shape == (30, 1, 64, 64, 3) and held.dtype == jnp.uint8
    np.testing.assert_array_equal(parts.frame(frames), frames[..., 6:])


# ------------------------------------------------------------------------- bad settings


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ((48, 64, 3), "64 × 64 pixels, not 48 × 64: make them so"),
        ((84, 84, 9), "64 × 64 pixels, not 84 × 84: make them so"),
        ((64, 64, 4), "line shows 4 channels, .*: show three for each"),
    ],
)
def test_pictures_that_it_cannot_draw_are_refused(image, message):
    spec = SPEC._replace(observation_names=(), image=image)
    with pytest.raises(UsageError, match=message):
        cmil.make(Task.of(spec), CONFIG)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reward": "gold"}, "agent.reward is one of logit"),
        ({"capacity": 4}, "agent.capacity, 4, is less than agent.length, 5"),
        ({"model": HEADLESS}, "heads is 0, .*: choose 1 or more"),
        ({"length": 1}, "agent.length is 1, .*: choose 2 or more"),
        ({"expert_share": 0.01}, "agent.expert_share, 0.01, .* from 0.25 to 1"),
        ({"expert_share": 1.5}, "agent.expert_share, 1.5, .* from 0.25 to 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changed, message):
    with pytest.raises(UsageError, match=message):
        cmil.make(Task.of(SPEC), options(**changed))


def test_demonstrations_that_are_shorter_than_a_sequence_are_refused():
    agent = cmil.make(Task.of(SPEC), CONFIG)
    state = jax.eval_shape(agent.init, KEY)
    update = functools.partial(agent.update, state, rollout_of())
    with pytest.raises(UsageError, match="length is 5 steps, but the longest .* has 4"):
        jax.eval_shape(update, demos_of(4), KEY, jnp.int32(0))
