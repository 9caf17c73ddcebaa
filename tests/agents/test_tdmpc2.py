"""TD-MPC2, part by part: the planner's score, losses and their gradients, the scale."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from planil_jax.agents import tdmpc2
from planil_jax.agents.common import latent_planning, sequences
from planil_jax.base import EnvSpec
from planil_jax.losses import two_hot
from planil_jax.nets import latent
from planil_jax.planners import mppi
from tests.draws import normal, random_params

SPEC = EnvSpec("line", ("a", "b", "c"), (0.0, -2.0), (4.0, 2.0), 100, 0.1)
HORIZON, BATCH = 3, 5
CONFIG = tdmpc2.Config(
    network=latent.Config(latent=16, encoder=(8,), hidden=(8,), critics=3, dropout=0.0),
    planner=mppi.Config(samples=6, horizon=HORIZON, sampling="gaussian"),
    replay=sequences.Config(batch=BATCH),
    horizon=HORIZON,
    entropy_coef=0.1,
    scale_rate=0.25,
)
COMPONENTS = tdmpc2.make_components(SPEC, CONFIG)
KEY = jax.random.key(0)


def init():
    critics, reward = COMPONENTS.critics.init(KEY), COMPONENTS.reward.init(KEY)
    model = COMPONENTS.model.init(KEY) | {"critics": critics, "reward": reward}
    return model, COMPONENTS.policy.init(KEY)


MODEL, POLICY = random_params(jax.eval_shape(init))
FIXED = tdmpc2.Fixed(policy=POLICY, target=random_params(MODEL["critics"], seed=1))
SEQUENCES = sequences.Sequences(
    obs=normal(HORIZON + 1, BATCH, 3, seed=3),
    actions=jnp.tanh(normal(HORIZON, BATCH, 2, seed=4)),
    terminal=jnp.zeros((HORIZON, BATCH), bool).at[-1, :2].set(True),
    rewards=normal(HORIZON, BATCH, seed=5),
)
SUBSET = jax.jit(latent.random_subset)(MODEL["critics"], KEY)
POLICY_BATCH = tdmpc2.PolicyBatch(
    zs=jax.jit(COMPONENTS.model.encode)(MODEL, SEQUENCES.obs),
    subset=SUBSET,
    scale=jnp.array(2.0),
)


def moves(gradients) -> bool:
    return any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(gradients))


def test_a_plan_s_score_is_its_discounted_reward_and_the_last_value():
    params = latent_planning.InferenceParams(MODEL, POLICY, jnp.zeros((), bool))
    z, actions = POLICY_BATCH.zs[0, 0], jnp.tanh(normal(HORIZON, 2))
    found = jax.jit(tdmpc2.plan_score(COMPONENTS, params, z, KEY))(actions)

    subset_key, last_key = jax.random.split(KEY)
    zs = COMPONENTS.model.rollout(MODEL, z, actions)
    rewards = two_hot.decode(COMPONENTS.reward.apply(MODEL["reward"], zs[:-1], actions))
    policy = COMPONENTS.policy
    last = policy.sample(policy.apply(POLICY, zs[-1]), last_key)[0]
    subset = latent.random_subset(MODEL["critics"], subset_key)
    value = two_hot.decode(COMPONENTS.critics.apply(subset, zs[-1], last)).mean()
    wanted = COMPONENTS.discount**HORIZON * value
    for t in range(HORIZON):
        wanted += COMPONENTS.discount**t * rewards[t]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_the_model_s_loss_moves_model_reward_and_critics_and_neither_policy_nor_target():
    @jax.jit
    def gradients(params, fixed):
        def loss(params, fixed):
            return tdmpc2.model_loss(COMPONENTS, params, fixed, SEQUENCES, KEY)[0]

        return jax.grad(loss, (0, 1))(params, fixed)

    params, fixed = gradients(MODEL, FIXED)
    assert all(moves(params[part]) for part in ("encoder", "step", "reward", "critics"))
    assert not moves(fixed)


def test_the_model_s_loss_is_the_weighted_sum_of_its_parts():
    arguments = COMPONENTS, MODEL, FIXED, SEQUENCES, KEY
    loss, (zs, metrics) = jax.jit(functools.partial(tdmpc2.model_loss, *arguments))()
    wanted = 20 * metrics["model/consistency"]
    wanted += 0.1 * (metrics["reward/loss"] + metrics["critic/loss"])
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    logits = COMPONENTS.reward.apply(MODEL["reward"], zs[:-1], SEQUENCES.actions)
    errors = np.asarray(two_hot.cross_entropy(logits, SEQUENCES.rewards)).mean(1)
    by_step = sum(CONFIG.horizon_decay**t * errors[t] for t in range(HORIZON)) / HORIZON
    np.testing.assert_allclose(metrics["reward/loss"], by_step, rtol=1e-5)


def test_targets_are_rewards_and_the_least_of_two_target_critics_unless_terminal():
    encoded = POLICY_BATCH.zs[1:]
    subset_key, action_key = jax.random.split(KEY)
    td_targets = jax.jit(functools.partial(tdmpc2.td_targets, COMPONENTS))
    found = td_targets(FIXED, encoded, SEQUENCES, subset_key, action_key)
    policy = COMPONENTS.policy
    actions = policy.sample(policy.apply(POLICY, encoded), action_key)[0]
    subset = latent.random_subset(FIXED.target, subset_key)
    values = two_hot.decode(COMPONENTS.critics.apply(subset, encoded, actions))
    values = np.asarray(values)  # [2, H, B]
    for t in range(HORIZON):
        for b in range(BATCH):
            wanted = float(SEQUENCES.rewards[t, b])
            if not SEQUENCES.terminal[t, b]:
                wanted += COMPONENTS.discount * min(values[:, t, b])
            np.testing.assert_allclose(found[t, b], wanted, rtol=1e-4, atol=1e-5)


def test_the_policy_s_loss_moves_the_policy_and_no_latent_states():
    def loss(params, zs):
        batch = POLICY_BATCH.replace(zs=zs)
        return tdmpc2.policy_loss(COMPONENTS, params, batch, KEY)[0]

    policy, zs = jax.jit(jax.grad(loss, (0, 1)))(POLICY, POLICY_BATCH.zs)
    assert moves(policy) and not moves(zs)


def test_the_policy_s_loss_is_what_its_formula_says():
    """Σ_t ρ^t E[β log π(ã|z_t) - mean_2 Q(z_t, ã) / S] / (H + 1), by loops."""
    loss_fn = functools.partial(tdmpc2.policy_loss, COMPONENTS)
    found, _ = jax.jit(loss_fn)(POLICY, POLICY_BATCH, KEY)
    zs, policy = POLICY_BATCH.zs, COMPONENTS.policy
    actions, log_probs = policy.sample(policy.apply(POLICY, zs), KEY)
    values = np.asarray(two_hot.decode(COMPONENTS.critics.apply(SUBSET, zs, actions)))
    wanted = 0.0
    for t in range(HORIZON + 1):
        losses = [
            CONFIG.entropy_coef * float(log_probs[t, b]) - values[:, t, b].mean() / 2.0
            for b in range(BATCH)
        ]
        wanted += CONFIG.horizon_decay**t * np.mean(losses) / (HORIZON + 1)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_the_scale_follows_the_range_of_values_and_is_never_below_one():
    """By a quarter of the way, to P_95 - P_5, or to 1 where that is less."""
    z, policy = POLICY_BATCH.zs[0], COMPONENTS.policy
    mode = policy.mode(policy.apply(POLICY, z))

    def range_of(subset) -> float:
        values = two_hot.decode(COMPONENTS.critics.apply(subset, z, mode)).mean(0)
        return float(np.subtract(*np.percentile(np.asarray(values), [95, 5])))

    wide = jax.tree.map(lambda leaf: 8 * leaf, SUBSET)
    narrow = jax.tree.map(jnp.zeros_like, SUBSET)
    assert range_of(wide) > 1 > range_of(narrow)
    next_scale = jax.jit(functools.partial(tdmpc2.next_scale, COMPONENTS))
    for subset in (wide, narrow):
        batch = POLICY_BATCH.replace(subset=subset)
        found = next_scale(POLICY, batch)
        wanted = 2.0 + 0.25 * (max(range_of(subset), 1.0) - 2.0)
        np.testing.assert_allclose(found, wanted, rtol=1e-3)
