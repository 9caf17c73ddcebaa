"""MPAIL2, part by part: plans, losses and their gradients, absorbing states."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from planil_jax.agents import mpail2
from planil_jax.agents.common import latent_planning, sequences
from planil_jax.base import Demonstrations, EnvSpec, EnvState, Task, Transition, UsageError
from planil_jax.nets import latent, mlp
from planil_jax.planners import mppi

SPEC = EnvSpec("line", ("a", "b", "c"), (0.0, -2.0), (4.0, 2.0), 100, 0.1)
HORIZON, BATCH = 3, 5
CONFIG = mpail2.Config(
    network=latent.Config(latent=16, encoder=(8,), hidden=(8,), critics=3, dropout=0.0),
    reward=mlp.Config(hidden=(8,), activation="silu"),
    planner=mppi.Config(
        samples=6, horizon=HORIZON, iterations=2, sampling="gaussian", explore="noise"
    ),
    planning=latent_planning.Planning(proposals=2),
    replay=sequences.Config(batch=BATCH),
    horizon=HORIZON,
    horizon_decay=0.5,
)
COMPONENTS = mpail2.make_components(SPEC, CONFIG)
SCALING = COMPONENTS.schedule.sampler.scaling
KEY = jax.random.key(0)


def normal(*shape, seed: int = 1) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def with_config(**fields) -> mpail2.Components:
    """The components with other settings, which networks do not depend on."""
    return COMPONENTS._replace(config=dataclasses.replace(CONFIG, **fields))


def make_agent(**fields):
    return mpail2.make(Task.of(SPEC), dataclasses.replace(CONFIG, **fields))


@jax.jit
def with_noise(params):
    """Parameters none of which is zero."""
    leaves, tree = jax.tree.flatten(params)
    moved = [leaf + 0.3 * normal(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(tree, moved)


@jax.jit
def some_params():
    """Of the model and of the policy."""
    critics, reward = COMPONENTS.critics.init(KEY), COMPONENTS.reward.init(KEY)
    model = COMPONENTS.model.init(KEY) | {"critics": critics, "reward": reward}
    return with_noise(model), with_noise(COMPONENTS.policy.init(KEY))


MODEL, POLICY = some_params()
PARAMS = latent_planning.InferenceParams(MODEL, POLICY, jnp.zeros((), bool))
TARGET = with_noise(MODEL["critics"])
LEARNER = sequences.Sequences(
    obs=normal(HORIZON + 1, BATCH, 3, seed=3),
    actions=jnp.tanh(normal(HORIZON, BATCH, 2, seed=4)),
    terminal=jnp.zeros((HORIZON, BATCH), bool),
)
ENCODED = jax.jit(COMPONENTS.model.encode)(MODEL, LEARNER.obs)  # [H + 1, B, Z]
END = latent.absorbing_embedding(CONFIG.network)
EXPERT = jax.jit(COMPONENTS.model.encode)(MODEL, normal(2, BATCH, 3, seed=5))
PAIRS = mpail2.Pairs(learner=ENCODED[:2], expert=EXPERT)
FIXED = mpail2.Fixed(reward=MODEL["reward"], policy=POLICY, target=TARGET)
LATENTS = mpail2.Latents(ENCODED, LEARNER.actions, LEARNER.terminal)


def moves(gradients) -> bool:
    return any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(gradients))


def start(obs: jax.Array) -> EnvState:
    return EnvState((), obs, jnp.zeros(obs.shape[:-1], jnp.int32))


# ---------------------------------------------------------------------------------- acting


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_a_plan_s_score_mixes_its_return_with_the_critics_value_of_its_first_action(weight):
    actions, gamma = jnp.tanh(normal(HORIZON, 2)), COMPONENTS.discount
    components = with_config(q_weight=weight, value_scale=3.0)

    @jax.jit
    def both(z):
        found = mpail2.plan_score(components, PARAMS, z, KEY)(actions)
        subset_key, last_key = jax.random.split(KEY)
        zs = components.model.rollout(MODEL, z, actions)
        rewards = components.reward.apply(MODEL["reward"], zs[:-1], zs[1:])
        subset = latent.random_subset(MODEL["critics"], subset_key)
        last = mpail2.first_action(components, POLICY, zs[-1], last_key)
        end = 3 * jnp.mean(components.critics.apply(subset, zs[-1], last))
        first = 3 * jnp.mean(components.critics.apply(subset, z, actions[0]))
        return_ = rewards @ gamma ** jnp.arange(HORIZON) + gamma**HORIZON * end
        return found, weight * first + (1 - weight) * return_

    np.testing.assert_allclose(*both(ENCODED[0, 0]), rtol=1e-5)


def test_the_policy_gives_several_actions_at_once_and_acts_by_the_first():
    distribution = COMPONENTS.policy.apply(POLICY, ENCODED[0])
    plan, log_probs = COMPONENTS.policy.sample(distribution, KEY)
    assert plan.shape == (BATCH, HORIZON, 2) and log_probs.shape == (BATCH, HORIZON)
    agent, obs = make_agent(planning=latent_planning.Planning(enabled=False)), normal(3)
    assert agent.carry() == ()
    action, _ = agent.act(PARAMS, (), start(obs), KEY, False)
    z = COMPONENTS.model.encode(MODEL, obs)
    wanted = COMPONENTS.policy.mode(COMPONENTS.policy.apply(POLICY, z))[0]
    found = SCALING.to_unit_interval(action)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_plan_can_reach_the_bounds():
    """The published code squashes squashed actions again, and never gets there."""
    config = dataclasses.replace(CONFIG.planner, samples=64, noise=(2.0,))
    planning = latent_planning.Planning(proposals=2, temperature=1e-3)
    actor = latent_planning.Actor(
        planning=planning,
        planner=latent_planning.make_planner(SPEC, config, planning),
        horizon=HORIZON,
        model=COMPONENTS.model,
        policy=COMPONENTS.policy,
        scaling=SCALING,
        score=lambda params, z, key: lambda actions: jnp.sum(actions),
        multi_step=True,
    )
    state, plan = start(normal(3)), latent_planning.initial_carry(actor)
    act = jax.jit(functools.partial(latent_planning.act, actor, explore=False))
    for seed in range(12):
        action, plan = act(PARAMS, plan, state, jax.random.key(seed))
    assert (np.asarray(action) > np.array([3.9, 1.9])).all()


def test_a_plan_acts_where_every_critic_prefers_it_and_else_the_policy():
    """Without exploration; and whoever acts, the next plan starts from this one."""

    def acting(enabled=True, **fields):
        planning = latent_planning.Planning(enabled=enabled, proposals=2, temperature=1e-3)
        agent = make_agent(planning=planning, q_weight=1.0, **fields)
        act = jax.vmap(agent.act, (None, None, 0, 0, None))
        return lambda explore: jax.jit(act, static_argnums=4)(
            PARAMS, agent.carry(), states, keys, explore
        )

    count = 64
    states, keys = start(normal(count, 3)), jax.random.split(KEY, count)
    planned, next_plan = acting()(False)
    by_policy, _ = acting(enabled=False)(False)
    careful = acting(accept_if_all_critics_prefer=True)
    found, found_plan = careful(False)

    z = COMPONENTS.model.encode(MODEL, states.obs)
    values = [
        COMPONENTS.critics.apply(MODEL["critics"], z, SCALING.to_unit_interval(actions))
        for actions in (planned, by_policy)
    ]
    gains = (values[0] - values[1])[..., 0]  # [M, states]
    accepted = np.asarray(jnp.min(gains, axis=0) > 0)
    assert 5 < accepted.sum() < 59 and accepted.sum() < (gains[0] > 0).sum()
    np.testing.assert_allclose(found[accepted], planned[accepted], rtol=1e-5)
    np.testing.assert_allclose(found[~accepted], by_policy[~accepted], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found_plan.mean, next_plan.mean, atol=1e-6)
    for one, other in zip(careful(True), acting()(True), strict=True):
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), one, other)


def test_more_proposals_than_plans_are_refused():
    planning = latent_planning.Planning(proposals=7)
    with pytest.raises(UsageError, match=r"proposals is 7, but planner\.samples.* is 6"):
        make_agent(planning=planning)
    make_agent(planning=dataclasses.replace(planning, enabled=False))


# ------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("policy_lambda", [0.0, 0.6, 1.0])
def test_the_policy_climbs_the_mixture_of_all_n_step_returns(policy_lambda):
    """λ = 1: the first value; λ = 0: all rewards and the last value; between: a mixture.

    G_0 = Σ_n w_n R_n with R_n = Σ_{t<n} γ^t r_t + γ^n q_n, w_n = λ (1 - λ)^n and
    w_H = (1 - λ)^H, less the entropy's term.
    """
    components, gamma = with_config(policy_lambda=policy_lambda), COMPONENTS.discount
    subset_key, plan_key, last_key = jax.random.split(KEY, 3)
    z, temperature = ENCODED[0], jnp.array(0.3)

    @jax.jit
    def both():
        batch = mpail2.PolicyBatch(z, MODEL, temperature)
        loss, (log_probs, _) = mpail2.policy_loss(components, POLICY, batch, KEY)
        policy = components.policy
        plans, _ = policy.sample(policy.apply(POLICY, z), plan_key)
        actions = jnp.moveaxis(plans, 1, 0)
        zs = components.model.rollout(MODEL, z, actions)
        rewards = components.reward.apply(MODEL["reward"], zs[:-1], zs[1:])
        last = mpail2.first_action(components, POLICY, zs[-1], last_key)
        subset = latent.random_subset(MODEL["critics"], subset_key)
        all_actions = jnp.concatenate([actions, last[None]])
        values = mpail2.mean_q(components, subset, zs, all_actions)
        total, rest = 0.0, 1 - policy_lambda
        for n in range(HORIZON + 1):
            weight = rest**n * (policy_lambda if n < HORIZON else 1.0)
            along = sum(gamma**t * rewards[t] for t in range(n))
            total += weight * (along + gamma**n * values[n])
        for t in range(HORIZON):
            total -= (gamma * rest) ** t * temperature * log_probs[:, t]
        return -loss, jnp.mean(total)

    np.testing.assert_allclose(*both(), rtol=1e-5)


def test_a_step_of_the_policy_changes_policy_and_temperature_alone():
    state = mpail2.init(COMPONENTS, 1, KEY)
    after, _ = jax.jit(functools.partial(mpail2.learn_policy, COMPONENTS))(
        state, ENCODED[0], KEY
    )
    changed = {
        name
        for name in ("model", "reward", "critics", "policy", "temperature", "target")
        if moves(
            jax.tree.map(lambda a, b: a != b, *(getattr(s, name) for s in (state, after)))
        )
    }
    assert changed == {"policy", "temperature"}


def test_the_encoder_learns_from_predictions_of_targets_without_a_gradient():
    def loss(params, obs):
        learner = LEARNER.replace(obs=LEARNER.obs.at[1:].set(obs))
        return mpail2.model_loss(COMPONENTS, params, learner)[0]

    gradients, later = jax.jit(jax.grad(loss, (0, 1)))(MODEL, LEARNER.obs[1:])
    assert moves(gradients["encoder"]) and moves(gradients["step"]) and not moves(later)
    assert not moves(gradients["critics"]) and not moves(gradients["reward"])


def test_no_loss_but_the_model_s_reaches_the_encoder():
    """The encodings that it returns for the other losses have no gradient."""

    def encoded(params):
        return mpail2.model_loss(COMPONENTS, params, LEARNER)[1][0].sum()

    assert not moves(jax.jit(jax.grad(encoded))(MODEL))


def test_the_critics_loss_moves_critics_and_neither_policy_nor_target_nor_reward():
    def loss(critics, fixed):
        return mpail2.critic_loss(COMPONENTS, critics, fixed, LATENTS, KEY)[0]

    critics, fixed = jax.jit(jax.grad(loss, (0, 1)))(MODEL["critics"], FIXED)
    assert moves(critics) and not moves(fixed)


@pytest.mark.parametrize("absorbing", [False, True])
def test_a_terminal_step_is_worth_staying_there_for_ever_or_nothing(absorbing):
    """Σ_k γ^k r(ẑ', ẑ') with an absorbing state, or else 0; nothing is bootstrapped."""
    components = with_config(td_lambda=0.7)._replace(absorbing=absorbing)
    some = jnp.arange(BATCH) == jnp.arange(HORIZON)[:, None]

    @jax.jit
    def losses(target):
        fixed = FIXED.replace(target=target)

        def loss(terminal):
            latents = LATENTS.replace(terminal=terminal)
            arguments = components, MODEL["critics"], fixed, latents, KEY
            return mpail2.critic_loss(*arguments)[0]

        no = LEARNER.terminal
        return jnp.stack([loss(no), loss(some), loss(~no)])

    found, other = losses(TARGET), losses(with_noise(TARGET))
    np.testing.assert_array_equal(found == other, [False, False, True])

    z, next_z = ENCODED[:-1], ENCODED[1:]
    reward = functools.partial(components.reward.apply, MODEL["reward"])
    for_ever = components.discount ** jnp.arange(1000) * reward(next_z, next_z)[..., None]
    after = jnp.sum(for_ever, axis=-1) * absorbing
    wanted = reward(z, next_z) + components.discount * after
    values = components.critics.apply(MODEL["critics"], z, LEARNER.actions)[..., 0]
    np.testing.assert_allclose(found[2], jnp.mean((values - wanted) ** 2), rtol=1e-4)


@pytest.mark.parametrize("mu", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("value_scale", [1.0, 10.0])
def test_the_critics_targets_mix_taken_actions_with_the_policy_s(mu, value_scale):
    """y_t = Σ_n w_n R_n of n steps as they were taken,
    R_n = Σ_{k<n} γ^k r_{t+k} + γ^n v_{t+n}, w_n = (1 - μ) μ^(n - 1), the last μ^(n - 1);
    at a terminal step, where the last one is, v is what staying there is worth.
    """
    components = with_config(td_lambda=mu, value_scale=value_scale)
    components = components._replace(absorbing=True)
    ends = jnp.array([HORIZON, 0, 1, HORIZON, 2])  # the step that ends for good, [B]
    terminal = jnp.arange(HORIZON)[:, None] >= ends
    latents = LATENTS.replace(terminal=terminal)
    gamma, (subset_key, action_key, _) = components.discount, jax.random.split(KEY, 3)
    arguments = components, MODEL["critics"], FIXED, latents, KEY
    found = mpail2.critic_loss(*arguments)[0]

    z, next_z = ENCODED[:-1], ENCODED[1:]
    rewards = components.reward.apply(MODEL["reward"], z, next_z)
    for_ever = components.reward.apply(MODEL["reward"], next_z, next_z) / (1 - gamma)
    actions = mpail2.first_action(components, POLICY, next_z, action_key)
    subset = latent.random_subset(TARGET, subset_key)
    v = components.critics.apply(subset, next_z, actions)[..., 0]
    v = value_scale * jnp.min(v, axis=0)
    rewards, for_ever, v = map(np.asarray, (rewards, for_ever, v))
    wanted = np.zeros((HORIZON, BATCH))
    for t in range(HORIZON):
        for b in range(BATCH):
            # Steps up to the end at most; past it all returns are that one.
            most = min(HORIZON, max(int(ends[b]), t) + 1) - t
            for n in range(1, most + 1):
                weight = mu ** (n - 1) * (1 - mu if n < most else 1)
                last = t + n - 1
                value = for_ever[last, b] if terminal[last, b] else v[last, b]
                along = sum(gamma**k * rewards[t + k, b] for k in range(n))
                wanted[t, b] += weight * (along + gamma**n * value)
    values = components.critics.apply(MODEL["critics"], z, LEARNER.actions)[..., 0]
    errors = (values - wanted / value_scale) ** 2
    np.testing.assert_allclose(found, jnp.mean(errors), rtol=1e-4)


def test_values_are_in_units_of_the_reward_whatever_the_scale_of_critics():
    subset = latent.random_subset(MODEL["critics"], KEY)
    z, actions = ENCODED[0, :HORIZON], jnp.tanh(normal(HORIZON, 2))
    once, tenfold = (
        mpail2.mean_q(components, subset, z, actions)
        for components in (COMPONENTS, with_config(value_scale=10.0))
    )
    np.testing.assert_allclose(tenfold, 10 * once, rtol=1e-6)


def test_the_reward_is_higher_for_the_expert_after_descent_and_its_bias_has_no_gradient():
    pairs = PAIRS

    def loss(params):
        return mpail2.reward_loss(COMPONENTS, params, pairs, KEY)[0]

    gradients = jax.jit(jax.grad(loss))(MODEL["reward"])
    last = gradients["params"][f"Dense_{len(CONFIG.reward.hidden)}"]
    np.testing.assert_allclose(last["bias"], 0.0, atol=1e-6)

    def step(params, _):
        return jax.tree.map(lambda p, g: p - 0.03 * g, params, jax.grad(loss)(params)), None

    descend = jax.jit(lambda params: jax.lax.scan(step, params, None, length=200)[0])
    params = descend(MODEL["reward"])
    metrics = mpail2.reward_loss(COMPONENTS, params, pairs, KEY)[1]
    assert metrics["reward/expert"] > metrics["reward/learner"]


def test_the_reward_s_loss_is_the_distance_of_means_and_the_weighted_penalty():
    components = with_config(gradient_penalty=2.0)
    loss_fn = functools.partial(mpail2.reward_loss, components)
    loss, metrics = jax.jit(loss_fn)(MODEL["reward"], PAIRS, KEY)
    reward = functools.partial(components.reward.apply, MODEL["reward"])
    distance = reward(*PAIRS.learner).mean() - reward(*PAIRS.expert).mean()
    np.testing.assert_allclose(loss, distance + 2 * metrics["reward/penalty"], rtol=1e-5)


# ------------------------------------------------------------------------ absorbing states

ENDS = jnp.array([HORIZON, 0, 1, HORIZON, 2])  # the step that ends each sequence, if any
ENDED = jnp.arange(HORIZON)[:, None] >= ENDS  # [H, B]


def test_all_steps_from_an_end_for_good_on_are_terminal():
    """Sequences without an end stay as they are."""
    terminal = jnp.arange(HORIZON)[:, None] == ENDS
    terminal = terminal.at[2, 1].set(True)  # of the episode that came next
    found = jax.jit(sequences.absorbing_from_terminal)(LEARNER.replace(terminal=terminal))
    np.testing.assert_array_equal(found.obs, LEARNER.obs)
    np.testing.assert_array_equal(found.actions, LEARNER.actions)
    np.testing.assert_array_equal(found.terminal, ENDED)


def test_an_absorbing_state_is_one_state_whatever_is_observed_in_it():
    learner = LEARNER.replace(terminal=ENDED)
    hidden = jnp.concatenate([jnp.zeros((1, BATCH), bool), ENDED])[..., None]
    components = COMPONENTS._replace(absorbing=True)

    @jax.jit
    def loss_and_encoded(obs):
        changed = learner.replace(obs=obs)
        loss, (encoded, _) = mpail2.model_loss(components, MODEL, changed)
        return loss, encoded

    loss, encoded = loss_and_encoded(LEARNER.obs)
    other = loss_and_encoded(jnp.where(hidden, 7.0, LEARNER.obs))
    np.testing.assert_array_equal(loss, other[0])
    np.testing.assert_array_equal(encoded, other[1])
    np.testing.assert_allclose(encoded, jnp.where(hidden, END, ENCODED), atol=1e-6)
    zs = COMPONENTS.model.rollout(MODEL, encoded[0], learner.actions)[1:]
    errors = jnp.mean((zs - encoded[1:]) ** 2, axis=(1, 2))
    wanted = jnp.mean(CONFIG.horizon_decay ** jnp.arange(HORIZON) * errors)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_the_absorbing_state_is_a_little_farther_from_encodings_than_they_are_apart():
    groups = END.reshape(-1, CONFIG.network.group)
    assert END.shape == ENCODED.shape[-1:]
    np.testing.assert_allclose(groups.sum(-1), 1.0)
    assert (groups == groups[0]).all() and groups[0].argmax() == 0
    config = latent.Config()
    some, other = (
        latent.simnorm(normal(100, config.latent, seed=seed), config.group)
        for seed in (1, 2)
    )
    from_end = jnp.linalg.norm(some - latent.absorbing_embedding(config), axis=-1)
    between = jnp.linalg.norm(some - other, axis=-1)
    assert between.max() < from_end.min()
    assert from_end.max() < 2 * between.min()


def test_a_last_step_is_sampled_as_often_as_another():
    """Of an episode of 4 steps, which ended for good, and one that goes on; H = 3."""
    sampler = sequences.make(SPEC, sequences.Config(batch=BATCH, capacity=20), HORIZON)
    steps, no = jnp.arange(9), jnp.zeros((9, 1), bool)
    rollout = Transition(
        obs=jnp.broadcast_to(steps[:, None, None], (9, 1, 3)).astype(jnp.float32),
        action=jnp.ones((9, 1, 2)),
        next_obs=jnp.broadcast_to(steps[:, None, None], (9, 1, 3)) + 0.5,
        reward=jnp.zeros((9, 1)),
        terminal=no.at[3].set(True),
        truncated=no,
    )
    replay = sequences.insert(sampler, sequences.empty_replay(sampler, 1), rollout)

    def drawn(past_terminal: bool) -> tuple[set[int], set[int]]:
        """Where sequences start, and where those start that end for good."""
        valid = sequences.valid_starts(sampler, replay, past_terminal)
        sample = jax.vmap(
            lambda key: sequences.absorbing_from_terminal(
                sequences.sample_replay(sampler, replay, valid, key)
            )
        )
        found = sample(jax.random.split(KEY, 40))
        first, ended = found.obs[:, 0, :, 0], found.terminal[:, -1]
        return set(first.ravel().tolist()), set(first[ended].tolist())

    assert drawn(past_terminal=True) == ({0, 1, 2, 3, 4, 5, 6}, {1, 2, 3})  # H of them
    assert drawn(past_terminal=False) == ({0, 1, 4, 5, 6}, {1})


def test_an_end_counts_for_the_reward_as_long_as_is_spent_in_it():
    """Of 5 pairs two lead to an end, for 100 steps each: 200 of 205 are there."""
    ends, steps_there = jnp.array([False, True, False, True, False]), 100

    def matches(occupancy, seed: int) -> jax.Array:
        """Which pair, or the end, every draw is: `[draws, B, B + 1]` bool."""
        keys = jax.random.split(jax.random.key(seed), 400)
        draw = jax.vmap(mpail2.reweight_absorbing, (None, None, None, 0))
        drawn = jax.jit(draw)(ENCODED[:2], occupancy, END, keys)  # [draws, 2, B, Z]
        end_pair = jnp.broadcast_to(END, (2, 1, len(END)))
        known = jnp.concatenate([ENCODED[:2], end_pair], axis=1)  # [2, B + 1, Z]
        same = drawn[:, :, :, None] == known[:, None]  # [draws, 2, B, B + 1, Z]
        found = same.all((1, 4))
        np.testing.assert_array_equal(found.sum(-1), 1)
        return found

    shares = jnp.mean(matches(steps_there * ends, 1), axis=(0, 1))
    np.testing.assert_allclose(shares, [1 / 205] * 5 + [200 / 205], atol=0.01)
    assert not matches(0 * ends, 2)[..., -1].any()


@pytest.mark.parametrize("occupancy", [0, 92])
def test_falling_at_once_is_worth_less_than_the_beginning_if_ends_are_counted(occupancy):
    """All begin in one state. The expert goes on to another and stays for the rest of 100
    steps; the learner has fallen after 8. If only its 8 steps count (0), the reward is
    lowest at the beginning instead."""
    begin, expert, fallen = jnp.eye(3, 16)
    falls = jnp.arange(64) % 8 == 7
    after = jnp.where(falls[:, None], fallen, begin)  # [B, Z]
    learner_pairs = jnp.stack([jnp.broadcast_to(begin, (64, 16)), after])
    expert_pairs = jnp.stack([jnp.broadcast_to(expert, (64, 16))] * 2)
    expert_pairs = expert_pairs.at[:, 0].set(begin)

    def step(params, key):
        learner = mpail2.reweight_absorbing(learner_pairs, occupancy * falls, fallen, key)
        pairs = mpail2.Pairs(learner, expert_pairs)
        loss = functools.partial(mpail2.reward_loss, COMPONENTS)
        gradients = jax.grad(loss, has_aux=True)(params, pairs, key)[0]
        return jax.tree.map(lambda p, g: p - 0.03 * g, params, gradients), None

    keys = jax.random.split(KEY, 300)
    params = jax.jit(lambda params: jax.lax.scan(step, params, keys)[0])(MODEL["reward"])
    at = [COMPONENTS.reward.apply(params, z, z) for z in (fallen, begin, expert)]
    assert (at[0] < at[1]) == (occupancy > 0)
    assert max(at[:2]) < at[2]


@pytest.mark.parametrize(("terminates", "absorbing"), [(1, 1), (1, 0), (0, 1)])
def test_ends_are_counted_where_they_are_absorbing(terminates, absorbing, monkeypatch):
    """The learner's, each of which is in H sequences, and the expert's. All steps end."""
    spec = SPEC._replace(terminates=bool(terminates))
    config = dataclasses.replace(
        CONFIG,
        replay=sequences.Config(batch=BATCH, capacity=20),
        seed_steps=20,
        updates_per_step=0.05,
        absorbing=bool(absorbing),
    )
    agent, counted = mpail2.make(Task.of(spec), config), []

    def reweight_absorbing(pairs, occupancy, end, key):
        counted.append((occupancy, jnp.all(pairs[1] == END, axis=-1)))
        return pairs

    monkeypatch.setattr(mpail2, "reweight_absorbing", reweight_absorbing)
    monkeypatch.setattr(
        latent_planning, "fori_mean", lambda improve, state, key, _: improve(state, key)
    )
    ends = jnp.ones((20, 1), bool)
    rollout = Transition(
        obs=normal(20, 1, 3),
        action=normal(20, 1, 2),
        next_obs=normal(20, 1, 3, seed=2),
        reward=jnp.zeros((20, 1)),
        terminal=ends,
        truncated=~ends,
    )
    demos = Demonstrations(normal(4, 2, 3), None, jnp.ones(4, int), ends[:4, 0], (0, 1, 2))

    @jax.jit
    def found():
        agent.update(agent.init(KEY), rollout, demos, KEY, jnp.zeros((), int))
        return counted

    calls = found()
    assert len(calls) == 2 * terminates * absorbing
    for (occupancy, at_end), times in zip(calls, (1, HORIZON), strict=False):
        wanted = 1 / (1 - COMPONENTS.discount)
        np.testing.assert_allclose(times * occupancy, wanted, rtol=1e-5)
        assert at_end.all()


# -------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("half_life", [None, 100])
def test_the_learning_rates_of_all_parts_halve_if_asked_to(half_life):
    state = make_agent(
        optimizer=mpail2.Optimizer(lr_half_life=half_life),
        replay=sequences.Config(batch=BATCH, capacity=20),
    ).init(KEY)
    scheduled = optax.ScaleByScheduleState

    def has_schedule(fitted) -> bool:
        parts = jax.tree.leaves(
            fitted.opt_state, is_leaf=lambda part: isinstance(part, scheduled)
        )
        return any(isinstance(part, scheduled) for part in parts)

    fits = state.model, state.reward, state.critics, state.policy, state.temperature
    assert [has_schedule(fitted) for fitted in fits] == [half_life is not None] * 5


def test_the_recovered_reward_is_that_of_the_encoded_pair():
    obs, next_obs = normal(6, 3), normal(6, 3, seed=2)
    reward = mpail2.recovered_reward(SPEC, CONFIG)
    z, next_z = (COMPONENTS.model.encode(MODEL, x) for x in (obs, next_obs))
    wanted = COMPONENTS.reward.apply(MODEL["reward"], z, next_z)
    found = jax.jit(reward)(PARAMS, obs, None, next_obs)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
