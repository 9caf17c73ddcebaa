"""CMIL and V-MAIL: imagination, returns, each loss, and which loss moves which network."""

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
TASK = Task.of(SPEC)
SMALL = mlp.Config(hidden=(5,), activation="elu")
HORIZON, LENGTH, BATCH, EXPERTS = 3, 5, 4, 2
CONFIG = cmil.Config(
    model=rssm.Config(
        network=networks.Config(deter=6, stoch=3, hidden=5, heads=3),
        vectors=SMALL,
        pictures=conv.Config(filters=2),
    ),
    policy=heads.Config(network=SMALL, std=0.5, std_of_state=True),
    discriminator=cmil.DiscriminatorConfig(network=SMALL),
    critic=SMALL,
    replay=cmil.ReplayConfig(capacity=30, length=LENGTH, batch=BATCH),
    conservatism=2.0,
    horizon=HORIZON,
    discount=0.9,
    td_lambda=0.8,
    entropy_coef=0.0,
    pretrain_steps=2,
    bc_steps=1,
    updates_per_step=0.1,
)


COMPONENTS = cmil.make_components(TASK, CONFIG)
apply_discriminator = jax.jit(COMPONENTS.discriminator.apply)
apply_critics = jax.jit(COMPONENTS.critics.apply)
HEADLESS = dataclasses.replace(CONFIG.model, network=networks.Config(heads=0))


def options(**changed) -> cmil.Config:
    """CONFIG with other values; a dict changes fields of a group."""
    for name, value in changed.items():
        if isinstance(value, dict):
            changed[name] = dataclasses.replace(getattr(CONFIG, name), **value)
    return dataclasses.replace(CONFIG, **changed)


def normal(*shape, seed: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def random_params(tree, scale: float = 0.4, seed: int = 0):
    """Parameters of these shapes, none of which is 0."""
    leaves, structure = jax.tree.flatten(tree)
    leaves = [scale * normal(*leaf.shape, seed=seed + i) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, leaves)


def same(left, right) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(bool(jnp.all(a == b)) for a, b in pairs)


class Setting(NamedTuple):
    """Components, parameters, a batch, and the beliefs of its steps."""

    components: cmil.Components
    model: dict
    policy: dict
    discriminator: dict
    critics: dict
    batch: cmil.Sequences
    beliefs: rssm.Belief

    def recorded(self) -> cmil.Pairs:
        """The steps of the batch, `[L, B]`."""
        return cmil.Pairs(self.components.model.features(self.beliefs), self.batch.action)

    def expert(self) -> cmil.Pairs:
        """Those of the expert, `[L, N]`."""
        return jax.tree.map(lambda leaf: leaf[:, :EXPERTS], self.recorded())

    def policy_batch(self, cloning: bool = False) -> cmil.PolicyBatch:
        critique = cmil.Critique(self.model, self.discriminator, self.critics)
        return cmil.PolicyBatch(self.beliefs, critique, self.expert(), jnp.array(cloning))


def batch() -> cmil.Sequences:
    """An episode begins within the third sequence."""
    first = jnp.zeros((LENGTH, BATCH), bool).at[0].set(True).at[3, 2].set(True)
    action = jnp.tanh(normal(LENGTH, BATCH, 2, seed=5))
    return cmil.Sequences(normal(LENGTH, BATCH, 3), action, first)


@functools.cache
def setting(config: cmil.Config = CONFIG) -> Setting:
    components = cmil.make_components(TASK, config)
    parts = (
        components.model,
        components.policy,
        components.discriminator,
        components.critics,
    )
    params = [
        random_params(jax.eval_shape(part.init, KEY), seed=10 * i)
        for i, part in enumerate(parts)
    ]
    shape = LENGTH, BATCH
    beliefs = rssm.Belief(np.tanh(normal(*shape, 6)), normal(*shape, 3, seed=2))
    return Setting(components, *params, batch(), beliefs)


@functools.cache
def compiled(function, config: cmil.Config = CONFIG):
    """A loss, or another function whose first argument is the components."""
    return jax.jit(functools.partial(function, setting(config).components))


def imagine(made: Setting, cloning: bool = False):
    """The loss of the policy, the imagined steps and metrics."""
    loss, (imagined, metrics) = compiled(cmil.policy_loss, made.components.config)(
        made.policy, made.policy_batch(cloning), KEY
    )
    return loss, imagined, metrics


def before_last(pairs: cmil.Pairs) -> cmil.Pairs:
    return jax.tree.map(lambda leaf: leaf[:-1], pairs)


# ----------------------------------------------------------------------------- presets


def test_v_mail_is_cmil_with_one_prior_and_no_conservatism():
    found = cmil.vmail(CONFIG)
    assert found.model.network.heads == 1 and found.conservatism == 0.0
    network = dataclasses.replace(CONFIG.model.network, heads=1)
    model = dataclasses.replace(CONFIG.model, network=network)
    assert found == options(model=model, conservatism=0.0)
    assert cmil.vmail() == cmil.vmail(cmil.Config())


# -------------------------------------------------------------------- rewards and returns

FORMS = {
    "logit": lambda logit: logit,
    "prob": lambda logit: 1 / (1 + np.exp(-logit)),
    "gail_neg": lambda logit: -np.log1p(np.exp(-logit)),
}


def disagreement(made: Setting, steps: cmil.Pairs) -> np.ndarray:
    """Of the steps before the last, `[H, L, B]`, from their beliefs and actions."""
    features, action = steps.features[:-1], steps.action[:-1]
    beliefs = rssm.Belief(features[..., :6], features[..., 6:])
    return jax.jit(made.components.model.disagreement)(made.model, beliefs, action)


def logits_of(made: Setting, pairs: cmil.Pairs) -> jax.Array:
    return apply_discriminator(made.discriminator, pairs.features, pairs.action)


@pytest.mark.parametrize("form", FORMS)
def test_a_reward_is_its_form_of_the_logit(form):
    made, pairs = setting(options(reward=form)), cmil.Pairs(normal(6, 9), normal(6, 2))
    logits = np.asarray(logits_of(made, pairs))
    reward_of = compiled(cmil.reward_of, made.components.config)
    found = reward_of(made.discriminator, pairs)
    np.testing.assert_allclose(found, FORMS[form](logits), rtol=1e-5)


def test_conservative_rewards_are_logits_less_the_weighted_disagreement():
    made = setting()
    _, imagined, metrics = imagine(made)
    logits = logits_of(made, before_last(imagined.steps))
    uncertainty = disagreement(made, imagined.steps)
    assert uncertainty.min() > 1e-3
    wanted = logits - 2.0 * uncertainty
    np.testing.assert_allclose(imagined.reward, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["imagined/reward"], np.mean(wanted), rtol=1e-4)


def test_the_rewards_of_v_mail_are_logits_alone():
    made = setting(cmil.vmail(CONFIG))
    _, imagined, metrics = imagine(made)
    logits = logits_of(made, before_last(imagined.steps))
    np.testing.assert_allclose(imagined.reward, logits, rtol=1e-5, atol=1e-6)
    assert metrics["imagined/disagreement"] == 0.0


def mixtures(rewards, values, discount: float, td_lambda: float) -> np.ndarray:
    """CMIL, eq. 5: Σ_n (1 - λ) λ^(n - 1) V_n, the last with the weight that is left,
    `[H, ..]`."""
    horizon, returns = len(rewards), []
    for t in range(horizon):
        total, paid = 0.0, 0.0
        for n in range(1, horizon - t + 1):
            paid = paid + discount ** (n - 1) * rewards[t + n - 1]
            share = td_lambda ** (n - 1) * (1.0 if n == horizon - t else 1 - td_lambda)
            total = total + share * (paid + discount**n * values[t + n])
        returns.append(total)
    return np.stack(returns)


def smaller_value(params, pairs: cmil.Pairs) -> np.ndarray:
    return np.min(apply_critics(params, pairs.features, pairs.action), axis=0)


def test_returns_are_the_mixture_of_n_step_returns():
    rewards, values = normal(4, 2, 3), normal(5, 2, 3, seed=2)
    wanted = mixtures(np.asarray(rewards), np.asarray(values), 0.9, 0.8)
    found = cmil.lambda_returns(CONFIG, rewards, values)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(AssertionError):
        cmil.lambda_returns(CONFIG, rewards, values[1:])


# ------------------------------------------------------------------------------- policy


def test_the_policy_s_loss_is_the_negative_mean_of_discounted_mixtures():
    made = setting()
    loss, imagined, _ = imagine(made)
    values = smaller_value(made.critics, imagined.steps)
    returns = mixtures(np.asarray(imagined.reward), values, 0.9, 0.8)
    gains = 0.8 * returns + 0.2 * values[:-1]
    wanted = -np.mean([0.9**t * gains[t] for t in range(HORIZON)])
    np.testing.assert_allclose(loss, wanted, rtol=1e-4)


def test_the_cloning_loss_is_the_negative_log_likelihood_of_a_tanh_normal():
    """a = tanh(u), u ~ N(m, s²): log π(a) = log N(u; m, s²) - log(1 - a²), summed."""
    made, mean, std = setting(), np.array([0.3, -0.2]), np.array([0.5, 2.0])
    policy = made.components.policy._replace(
        apply=lambda params, x: heads.TanhNormal(
            jnp.broadcast_to(params, (*x.shape[:-1], 2)),
            jnp.broadcast_to(jnp.float32(std), (*x.shape[:-1], 2)),
        )
    )
    components, expert = made.components._replace(policy=policy), made.expert()
    action = np.asarray(expert.action, np.float64)
    u = np.arctanh(action)
    log_prob = -0.5 * ((u - mean) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))
    log_prob = (log_prob - np.log(1 - action**2)).sum(-1)
    loss = functools.partial(cmil.bc_loss, components, expert=expert)
    found, gradient = jax.jit(jax.value_and_grad(loss))(jnp.float32(mean))
    np.testing.assert_allclose(found, -log_prob.mean(), rtol=1e-3)
    wanted = -((u - mean) / std**2).mean((0, 1))
    np.testing.assert_allclose(gradient, wanted, rtol=1e-3, atol=1e-4)


def test_entropy_and_cloning_are_added_with_their_weights():
    made = setting()
    _, _, metrics = imagine(made)
    likelihood = float(metrics["policy/likelihood"])
    policy, expert = made.components.policy, made.expert()
    distribution = policy.apply(made.policy, expert.features)
    log_probs = policy.log_prob(distribution, expert.action)
    np.testing.assert_allclose(likelihood, np.mean(log_probs), rtol=1e-5)
    cloning_only, _, _ = imagine(made, cloning=True)
    np.testing.assert_allclose(cloning_only, -likelihood, rtol=1e-5)
    weighted = setting(options(entropy_coef=10.0, bc_coef=0.5, horizon=1))
    loss, imagined, metrics = imagine(weighted)
    values = smaller_value(made.critics, imagined.steps)
    gain = 0.8 * (imagined.reward[0] + 0.9 * values[1]) + 0.2 * values[0]
    wanted = np.mean(gain) + 10 * metrics["policy/entropy"] + 0.5 * likelihood
    np.testing.assert_allclose(loss, -wanted, rtol=1e-4)


def test_no_gradient_reaches_the_policy_through_the_features_that_it_reads():
    """x' = a and a = θ x from x = 1 with reward a: d(a + γ a')/dθ is 1 + γ θ, and not
    1 + 2 γ θ. With a reward of x, which passes through the model, it is
    d(1 + γ θ)/dθ = γ."""
    made = setting(options(horizon=2, td_lambda=1.0))
    theta, shape = 0.7, (LENGTH, BATCH)
    model = made.components.model

    def imagine(params, belief, act, horizon, key):
        beliefs, actions, log_probs = [], [], []
        for _ in range(horizon + 1):
            action, log_prob = act(model.features(belief), key)
            beliefs.append(belief)
            actions.append(action)
            log_probs.append(log_prob)
            belief = rssm.Belief(belief.deter, jnp.repeat(action[..., :1], 3, -1))
        stack = functools.partial(jax.tree.map, lambda *leaves: jnp.stack(leaves))
        return rssm.Imagined(stack(*beliefs), stack(*actions), stack(*log_probs))

    def sample(action, key):
        return action, jnp.zeros(action.shape[:-1])

    def gradient(reward):
        components = made.components._replace(
            model=model._replace(
                imagine=imagine,
                disagreement_at=lambda params, deter: jnp.zeros(deter.shape[:-1]),
            ),
            policy=made.components.policy._replace(
                apply=lambda params, x: params * x[..., -2:],
                sample=sample,
                log_prob=lambda distribution, action: jnp.zeros(action.shape[:-1]),
            ),
            discriminator=Network(None, lambda params, x, a: reward(x, a)),
            critics=Network(None, lambda params, x, a: jnp.zeros((2, *x.shape[:-1]))),
        )
        start = rssm.Belief(jnp.zeros((*shape, 6)), jnp.ones((*shape, 3)))
        expert = cmil.Pairs(model.features(start), jnp.zeros((*shape, 2)))
        batch = cmil.PolicyBatch(start, cmil.Critique((), (), ()), expert, jnp.array(False))

        def loss(theta):
            return cmil.policy_loss(components, theta, batch, KEY)[0]

        # The loss is a mean over two steps, and the second has the weight γ.
        return -2 * jax.jit(jax.grad(loss))(jnp.float32(theta))

    # mean_t γ^t G_t: G_0 = r_0 + γ r_1, G_1 = r_1.
    np.testing.assert_allclose(gradient(lambda x, a: a[..., 0]), 1 + 1.8 * theta, rtol=1e-5)
    np.testing.assert_allclose(gradient(lambda x, a: x[..., -1]), 1.8, rtol=1e-5)


# ------------------------------------------------------------------------------ critics


def critic_losses(made: Setting, target_critics, batch: cmil.CriticBatch):
    targets = compiled(cmil.critic_targets)(target_critics, batch)
    return compiled(cmil.critic_loss)(made.critics, batch, targets)


def test_critics_learn_from_imagined_and_from_recorded_steps_by_hand():
    made = setting()
    _, imagined, _ = imagine(made)
    target_critics = random_params(made.critics, seed=77)
    recorded, rewards = made.recorded(), normal(LENGTH, BATCH, seed=8)
    batch = cmil.CriticBatch(imagined, recorded, rewards, made.batch.first)
    found, metrics = critic_losses(made, target_critics, batch)
    values = smaller_value(target_critics, imagined.steps)
    returns = mixtures(np.asarray(imagined.reward), values, 0.9, 0.8)
    steps = before_last(imagined.steps)
    predicted = apply_critics(made.critics, steps.features, steps.action)
    wanted = sum(np.mean((one - returns) ** 2) for one in predicted)
    np.testing.assert_allclose(metrics["critic/imagined_loss"], wanted, rtol=1e-4)
    predicted = apply_critics(made.critics, recorded.features, recorded.action)
    errors = []
    for t in range(LENGTH - 1):
        for i in range(BATCH):
            if made.batch.first[t + 1, i]:
                continue
            next_value = 0.2 * values[0, t + 1, i] + 0.8 * returns[0, t + 1, i]
            target = rewards[t, i] + 0.9 * next_value
            errors.append(sum((one[t, i] - target) ** 2 for one in predicted))
    assert len(errors) == (LENGTH - 1) * BATCH - 1
    np.testing.assert_allclose(metrics["critic/recorded_loss"], np.mean(errors), rtol=1e-4)
    np.testing.assert_allclose(found, wanted + np.mean(errors), rtol=1e-4)


def test_critics_do_not_bootstrap_across_the_end_of_an_episode():
    made = setting()
    _, imagined, _ = imagine(made)
    rewards = normal(LENGTH, BATCH, seed=8)

    def recorded_loss(imagined, rewards):
        batch = cmil.CriticBatch(imagined, made.recorded(), rewards, made.batch.first)
        return critic_losses(made, made.critics, batch)[1]["critic/recorded_loss"]

    before = recorded_loss(imagined, rewards)
    other = dataclasses.replace(imagined, reward=imagined.reward.at[:, 3, 2].add(9.0))
    assert recorded_loss(other, rewards) == before
    assert recorded_loss(imagined, rewards.at[2, 2].add(9.0)) == before
    # The last step has no next one.
    assert recorded_loss(imagined, rewards.at[-1].add(9.0)) == before
    other = dataclasses.replace(imagined, reward=imagined.reward.at[:, 2, 2].add(9.0))
    assert recorded_loss(other, rewards) != before


def test_rewards_of_another_shape_than_the_batch_are_refused():
    made = setting()
    _, imagined, _ = imagine(made)
    rewards = jnp.zeros((LENGTH - 1, BATCH))
    batch = cmil.CriticBatch(imagined, made.recorded(), rewards, made.batch.first)
    with pytest.raises(AssertionError):
        cmil.critic_targets(made.components, made.critics, batch)


# ------------------------------------------------------------------------ discriminator


def test_the_discriminator_s_loss_is_the_cross_entropy_of_expert_and_imagined_steps():
    made = setting()
    _, imagined, _ = imagine(made)
    batch = cmil.DiscriminatorBatch(made.expert(), before_last(imagined.steps))
    config = options(discriminator={"gradient_penalty": 0.0})
    loss = compiled(cmil.discriminator_loss, config)
    found, metrics = loss(made.discriminator, batch, KEY)
    imagined_logits = logits_of(made, batch.imagined)
    expert_logits = logits_of(made, batch.expert)
    wanted = np.mean(np.log1p(np.exp(-expert_logits)))
    wanted = wanted + np.mean(np.log1p(np.exp(imagined_logits)))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    found = metrics["discriminator/expert_logit"]
    np.testing.assert_allclose(found, np.mean(expert_logits))


def discriminator_program(config: cmil.Config, logit):
    """`discriminator_loss` of another logit, (params, features, action) -> [..]."""
    components = setting(config).components._replace(discriminator=Network(None, logit))
    return jax.jit(functools.partial(cmil.discriminator_loss, components))


def test_a_logit_of_slope_three_has_a_penalty_of_four():
    _, imagined, _ = imagine(setting())
    expert = jax.tree.map(lambda leaf: leaf[0], imagined.steps)
    batch = cmil.DiscriminatorBatch(expert, before_last(imagined.steps))
    direction = np.zeros(9, np.float32)
    direction[0] = 3.0
    config = options(discriminator={"gradient_penalty": 2.0})
    loss = discriminator_program(config, lambda params, x, a: x @ direction)
    found, metrics = loss((), batch, KEY)
    np.testing.assert_allclose(metrics["discriminator/penalty"], 4.0, rtol=1e-4)
    np.testing.assert_allclose(found, metrics["discriminator/loss"] + 8.0, rtol=1e-4)


def test_instance_noise_is_added_to_features_and_not_to_actions():
    _, imagined, _ = imagine(setting())
    expert = jax.tree.map(lambda leaf: leaf[0], imagined.steps)
    batch = cmil.DiscriminatorBatch(expert, before_last(imagined.steps))

    def logit(params, x, a):
        return params[0] * x[..., 0] + params[1] * a[..., 0]

    losses = [
        discriminator_program(options(discriminator=changed), logit)
        for changed in ({}, {"instance_noise": 2.5})
    ]
    for weights, changes in (((1.0, 0.0), True), ((0.0, 1.0), False)):
        found = [
            loss(jnp.array(weights), batch, KEY)[1]["discriminator/loss"] for loss in losses
        ]
        assert (abs(found[0] - found[1]) > 1e-3) == changes


# ------------------------------------------------------- which loss moves which network


@functools.cache
def learning():
    made = setting(
        options(bc_coef=0.1, entropy_coef=0.1, discriminator={"instance_noise": 0.1})
    )
    optimizers = made.components.optimizers
    state = cmil.State(
        params=cmil.InferenceParams(made.model, made.policy, normalise.init(3)),
        model=optimizers.model.init(made.model),
        discriminator=optimizers.discriminator.init(made.discriminator),
        critics=optimizers.critics.init(made.critics),
        target_critics=random_params(made.critics, seed=77),
        policy=optimizers.policy.init(made.policy),
        ended=jnp.ones((1,), bool),
        replay=None,
    )
    step = jax.jit(functools.partial(cmil.learn, made.components))

    def learn(state, cloning=False):
        return step(state, made.batch, jnp.array(cloning), KEY)[0]

    return state, learn


# Of each network: those whose parameters its gradient step does not depend on.
INDEPENDENT = {
    "model": ("policy", "discriminator", "critics", "target_critics"),
    "discriminator": ("critics", "target_critics"),
    "policy": ("target_critics",),
    "critics": (),
}


@pytest.mark.parametrize("part", INDEPENDENT)
def test_a_gradient_step_moves_each_network_by_its_own_loss(part):
    state, learn = learning()
    after = learn(state)
    assert not same(getattr(after, part).params, getattr(state, part).params)
    for other in INDEPENDENT[part]:
        fitted = getattr(state, other)
        params = fitted if other == "target_critics" else fitted.params
        changed = jax.tree.map(lambda leaf: 0.5 * leaf, params)
        if other != "target_critics":
            changed = dataclasses.replace(fitted, params=changed)
        found = learn(dataclasses.replace(state, **{other: changed}))
        assert same(getattr(found, part), getattr(after, part)), other


def test_a_cloning_step_moves_the_policy_whatever_discriminator_and_critics_say():
    state, learn = learning()
    before = learn(state, cloning=True)
    for other in ("discriminator", "critics"):
        fitted = getattr(state, other)
        changed = jax.tree.map(lambda leaf: 0.5 * leaf, fitted.params)
        changed = dataclasses.replace(fitted, params=changed)
        found = learn(dataclasses.replace(state, **{other: changed}), cloning=True)
        assert same(found.policy, before.policy)
    assert not same(before.policy, learn(state).policy)


def test_imagined_steps_carry_no_gradient_to_the_model_and_the_policy():
    """Of the losses of discriminator and critics."""
    made = setting()
    components, starts = made.components, made.policy_batch()

    def losses(model, policy):
        critique = dataclasses.replace(starts.critique, model=model)
        batch = dataclasses.replace(starts, critique=critique)
        _, (imagined, _) = cmil.policy_loss(components, policy, batch, KEY)
        classes = cmil.DiscriminatorBatch(made.expert(), before_last(imagined.steps))
        loss = cmil.discriminator_loss(components, made.discriminator, classes, KEY)[0]
        rewards = jnp.zeros((LENGTH, BATCH))
        steps = cmil.CriticBatch(imagined, made.recorded(), rewards, made.batch.first)
        targets = cmil.critic_targets(components, made.critics, steps)
        return loss + cmil.critic_loss(components, made.critics, steps, targets)[0]

    for leaf in jax.tree.leaves(jax.jit(jax.grad(losses, (0, 1)))(made.model, made.policy)):
        assert not np.asarray(leaf).any()


def test_slow_critics_move_to_the_critics_by_their_share():
    state, learn = learning()
    after = learn(state)
    trees = state.target_critics, after.critics.params, after.target_critics
    for slow, critic, found in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_allclose(found, 0.98 * slow + 0.02 * critic, atol=1e-6)


# -------------------------------------------------------------------------------- model


def test_the_model_s_loss_is_an_error_and_a_weighted_divergence():
    made = setting(options(kl={"free_nats": 0.0, "weight": 0.5}))
    moments = normalise.Moments(jnp.float32(5), jnp.full(3, 0.2), jnp.full(3, 4.0))
    obs = cmil.preprocess(made.components, moments, made.batch.obs)
    batch = dataclasses.replace(made.batch, obs=obs)
    loss = compiled(cmil.model_loss, made.components.config)
    found, (beliefs, metrics) = loss(made.model, batch, KEY)
    model = made.components.model
    decoded = model.decode(made.model, model.features(beliefs))
    normalised = (made.batch.obs - 0.2) / 2.0
    wanted = np.mean(np.sum(0.5 * (decoded - normalised) ** 2, axis=-1))
    np.testing.assert_allclose(metrics["model/error"], wanted, rtol=1e-4)
    wanted = wanted + 0.5 * metrics["model/divergence"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_the_model_reads_an_action_at_the_step_after_it():
    """The last action of a sequence then leads nowhere."""
    made = setting()
    loss = compiled(cmil.model_loss)

    def beliefs(action) -> rssm.Belief:
        return loss(made.model, dataclasses.replace(made.batch, action=action), KEY)[1][0]

    action = made.batch.action
    before = beliefs(action)
    assert same(beliefs(action.at[-1].add(1.0)), before)
    changed = beliefs(action.at[0].add(1.0))
    assert same(changed.deter[0], before.deter[0])
    assert not same(changed.deter[1], before.deter[1])


def test_the_model_can_overfit_one_batch():
    """Its loss falls below a third of the first one within 300 steps."""
    made = setting(
        options(optimizer={"model_lr": 1e-2}, kl={"free_nats": 0.0, "weight": 0.01})
    )
    obs = cmil.preprocess(made.components, normalise.init(3), made.batch.obs)
    batch = dataclasses.replace(made.batch, obs=obs)
    loss_fn = functools.partial(cmil.model_loss, made.components)
    optimizer = made.components.optimizers.model

    @jax.jit
    def losses(key):
        def step(fit, key):
            (loss, _), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
                fit.params, batch, key
            )
            return optimizer.step(fit, gradients), loss

        start = optimizer.init(made.model)
        return jax.lax.scan(step, start, jax.random.split(key, 300))[1]

    found = losses(KEY)
    assert np.mean(found[-20:]) < np.mean(found[:5]) / 3


# ------------------------------------------------------------------------------- replay


def rollout_of(steps: int = 6, seed: int = 3) -> Transition:
    """Of one environment; episodes end with every third step."""
    ends = jnp.arange(steps)[:, None] % 3 == 2
    action = jnp.array([2.0, 0.0]) + 2 * jnp.tanh(normal(steps, 1, 2, seed=seed))
    obs = normal(steps, 1, 3, seed=seed + 1)
    return Transition(obs, action, obs, jnp.zeros((steps, 1)), ends & False, ends)


def demos_of(longest: int = 8) -> Demonstrations:
    """Observations far from those of rollouts, so that a test can tell which is which."""
    return Demonstrations(
        obs=100 + normal(2, longest + 1, 3, seed=6),
        actions=jnp.zeros((2, longest, 2)),
        length=jnp.array([longest, longest - 1], jnp.int32),
        terminal=jnp.zeros((2,), bool),
        observed=(0, 1, 2),
    )


def test_the_replay_keeps_scaled_actions_and_marks_the_first_step_of_an_episode():
    rollout = rollout_of()
    steps = cmil.replay_steps(COMPONENTS, jnp.array([True]), rollout)
    assert steps["first"][:, 0].tolist() == [True, False, False, True, False, False]
    steps = cmil.replay_steps(COMPONENTS, jnp.array([False]), rollout)
    assert steps["first"][:, 0].tolist() == [False, False, False, True, False, False]
    scaled = (np.asarray(rollout.action) - [2.0, 0.0]) / 2.0
    np.testing.assert_allclose(steps["action"], scaled, atol=1e-6)
    np.testing.assert_array_equal(steps["obs"], rollout.obs)


@pytest.mark.parametrize(
    ("steps", "demos_only", "learner_count"),
    [(12, False, 2), (12, True, 0), (3, False, 0)],
)
def test_demonstrations_are_at_the_front_of_a_batch_and_fill_it_until_there_are_steps(
    steps, demos_only, learner_count
):
    step = {"obs": jnp.zeros(3), "action": jnp.zeros(2), "first": jnp.zeros((), bool)}
    new = cmil.replay_steps(COMPONENTS, jnp.array([True]), rollout_of(steps))
    buffer = replay.insert(replay.init(step, 30, 1), new)
    found = cmil.sample_batch(COMPONENTS, buffer, demos_of(), KEY, jnp.array(demos_only))
    of_demos = np.asarray(found.obs)[..., 0] > 50
    expert_count = BATCH - learner_count
    assert of_demos[:, :expert_count].all() and not of_demos[:, expert_count:].any()
    assert found.first[0].all() and not found.first[1:, :expert_count].any()
    # Actions of 0 are at the lower bound of one entry and in the middle of the other.
    np.testing.assert_allclose(found.action[0, 0], [-1.0, 0.0])
    assert found.obs.shape == (LENGTH, BATCH, 3)
    if learner_count:
        assert found.first[1:, EXPERTS:].any()


# ------------------------------------------------------------------------------- acting


def states(obs) -> EnvState:
    return EnvState(sim=(), obs=obs, time=jnp.zeros((), jnp.int32))


def test_the_agent_acts_by_modes_and_samples_only_when_it_explores():
    made = setting()
    agent = cmil.make(TASK, CONFIG)
    moments = normalise.Moments(jnp.float32(5), jnp.full(3, 0.2), jnp.full(3, 4.0))
    params = cmil.InferenceParams(made.model, made.policy, moments)
    act, model = jax.jit(agent.act, static_argnums=4), made.components.model
    policy, carry = made.components.policy, agent.carry()
    observations = normal(3, 3, seed=4)
    belief, previous, step = model.start(), jnp.zeros(2), jax.jit(model.observe_step)
    for obs in observations:
        action, carry = act(params, carry, states(obs), KEY, False)
        encoded = model.encode(params.model, (obs - 0.2) / 2.0)
        inputs = rssm.Inputs(previous, encoded, jnp.zeros((), bool))
        belief = step(params.model, belief, inputs, jnp.int32(0), None).belief
        distribution = policy.apply(params.policy, model.features(belief))
        previous = policy.mode(distribution)
        np.testing.assert_allclose(carry.action, previous, atol=1e-5)
        np.testing.assert_allclose(carry.belief.deter, belief.deter, atol=1e-5)
        np.testing.assert_allclose(action, 2 * previous + np.array([2.0, 0.0]), atol=1e-5)
    one, other = (
        act(params, agent.carry(), states(observations[0]), jax.random.key(i), True)
        for i in range(2)
    )
    assert (one[0] != other[0]).all()
    assert (one[1].belief.stoch != other[1].belief.stoch).all()


def test_the_newest_of_stacked_frames_is_read_and_kept():
    spec = SPEC._replace(observation_names=(), image=(64, 64, 9))
    agent = cmil.make(Task.of(spec), CONFIG)
    components = cmil.make_components(Task.of(spec), CONFIG)
    params = random_params(jax.eval_shape(agent.init, KEY).params, 0.1)
    frames = jnp.asarray(
        np.random.default_rng(0).integers(0, 256, (64, 64, 9), dtype=np.uint8)
    )
    act = jax.jit(agent.act, static_argnums=4)

    def action_of(frames):
        return act(params, agent.carry(), states(frames), KEY, False)[0]

    other = frames.at[..., :6].set(0)
    np.testing.assert_array_equal(action_of(frames), action_of(other))
    assert (action_of(frames) != action_of(frames.at[..., 6:].set(0))).any()
    kept = jax.eval_shape(agent.init, KEY).replay.steps["obs"]
    assert kept.shape == (30, 1, 64, 64, 3) and kept.dtype == jnp.uint8
    newest = cmil.newest_frame(components, frames)
    np.testing.assert_array_equal(newest, frames[..., 6:])


# ------------------------------------------------------------------------- bad settings


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ((48, 64, 3), "64 × 64 pixels, not 48 × 64: make them so"),
        ((84, 84, 9), "64 × 64 pixels, not 84 × 84: make them so"),
        ((64, 64, 4), "line shows 4 channels, .*: show three for each"),
    ],
)
def test_pictures_that_the_model_cannot_decode_are_refused(image, message):
    spec = SPEC._replace(observation_names=(), image=image)
    with pytest.raises(UsageError, match=message):
        cmil.make(Task.of(spec), CONFIG)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reward": "gold"}, "agent.reward is one of logit"),
        (
            {"replay": {"capacity": 4}},
            "agent.replay.capacity, 4, is less than agent.replay.length, 5",
        ),
        ({"model": HEADLESS}, "heads is 0, .*: choose 1 or more"),
        ({"replay": {"length": 1}}, "agent.replay.length is 1, .*: choose 2 or more"),
        (
            {"replay": {"expert_share": 0.01}},
            "agent.replay.expert_share, 0.01, .* from 0.25 to 1",
        ),
        (
            {"replay": {"expert_share": 1.5}},
            "agent.replay.expert_share, 1.5, .* from 0.25 to 1",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changed, message):
    with pytest.raises(UsageError, match=message):
        cmil.make(TASK, options(**changed))


def test_demonstrations_that_are_shorter_than_a_sequence_are_refused():
    agent = cmil.make(TASK, CONFIG)
    state = jax.eval_shape(agent.init, KEY)
    update = functools.partial(agent.update, state, rollout_of())
    with pytest.raises(UsageError, match="length is 5 steps, but the longest .* has 4"):
        jax.eval_shape(update, demos_of(4), KEY, jnp.int32(0))
