"""MPAIL2, part by part: plans, returns, and which loss moves what."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from planil_jax.agents import mpail2
from planil_jax.agents.common import latent_planning
from planil_jax.base import Demonstrations, EnvSpec, EnvState, Task, Transition, UsageError
from planil_jax.nets import latent, mlp
from planil_jax.planners import mppi

SPEC = EnvSpec("line", ("a", "b", "c"), (0.0, -2.0), (4.0, 2.0), 100, 0.1)
HORIZON, BATCH = 3, 5
CORE = latent_planning.Config(
    network=latent.Config(latent=16, encoder=(8,), hidden=(8,), critics=3, dropout=0.0),
    planner=mppi.Config(
        samples=6, horizon=HORIZON, iterations=2, sampling="gaussian", explore="noise"
    ),
    proposals=2,
    horizon=HORIZON,
    batch=BATCH,
)
CONFIG = mpail2.Config(core=CORE, reward=mlp.Config(hidden=(8,), activation="silu"))
PARTS = latent_planning.make(SPEC, CORE, steps=HORIZON)
REWARD = mlp.make_scalar(CONFIG.reward, (16, 16))
KEY = jax.random.key(0)


def normal(*shape, seed: int = 1) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def shaken(params):
    """Parameters none of which is zero."""
    leaves, tree = jax.tree.flatten(params)
    moved = [leaf + 0.3 * normal(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(tree, moved)


MODEL = shaken(
    PARTS.model.init(KEY) | {"critics": PARTS.critics.init(KEY), "reward": REWARD.init(KEY)}
)
POLICY = shaken(PARTS.policy.init(KEY))
ACTING = latent_planning.InferenceParams(MODEL, POLICY, jnp.zeros((), bool))
OWN = latent_planning.Sequences(
    obs=normal(HORIZON + 1, BATCH, 3, seed=3),
    actions=jnp.tanh(normal(HORIZON, BATCH, 2, seed=4)),
    terminal=jnp.zeros((HORIZON, BATCH), bool),
)
ENCODED = PARTS.model.encode(MODEL, OWN.obs)  # [H + 1, B, Z]
END = latent.absorbing_embedding(CORE.network)
EXPERT = PARTS.model.encode(MODEL, normal(2, BATCH, 3, seed=5))


def moved(tree) -> bool:
    return any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(tree))


# ---------------------------------------------------------------------------------- acting


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_score_of_a_plan_is_its_return_and_what_critics_tell_of_its_start(share):
    actions, gamma = jnp.tanh(normal(HORIZON, 2)), PARTS.discount
    config = dataclasses.replace(CONFIG, q_weight=share, value_scale=3.0)

    @jax.jit
    def both(z):
        found = mpail2.plan_score(config, PARTS, REWARD, ACTING, z, KEY)(actions)
        pair_key, last_key = jax.random.split(KEY)
        zs = PARTS.model.rollout(MODEL, z, actions)
        rewards = REWARD.apply(MODEL["reward"], zs[:-1], zs[1:])
        pair = latent.choose(MODEL["critics"], pair_key)
        last = mpail2.first_action(PARTS, POLICY, zs[-1], last_key)
        end = 3 * jnp.mean(PARTS.critics.apply(pair, zs[-1], last))
        start = 3 * jnp.mean(PARTS.critics.apply(pair, z, actions[0]))
        along = rewards @ gamma ** jnp.arange(HORIZON) + gamma**HORIZON * end
        return found, share * start + (1 - share) * along

    np.testing.assert_allclose(*both(ENCODED[0, 0]), rtol=1e-5)


def test_the_policy_tells_several_actions_at_once_and_is_followed_from_the_first():
    plan, log_probs = PARTS.policy.sample(PARTS.policy.apply(POLICY, ENCODED[0]), KEY)
    assert plan.shape == (BATCH, HORIZON, 2) and log_probs.shape == (BATCH, HORIZON)
    score = functools.partial(mpail2.plan_score, CONFIG, PARTS, REWARD)
    core = dataclasses.replace(CORE, plan=False)
    _, act = latent_planning.acting(SPEC, core, PARTS, score)
    state = EnvState((), normal(3), jnp.zeros((), jnp.int32))
    action, _ = act(ACTING, (), state, KEY, False)
    z = PARTS.model.encode(MODEL, state.obs)
    wanted = PARTS.policy.mode(PARTS.policy.apply(POLICY, z))[0]
    np.testing.assert_allclose(PARTS.unit(action), wanted, rtol=1e-5, atol=1e-6)


def test_a_plan_can_reach_the_bounds():
    """Published code squashes what was squashed, and never gets there."""
    planner = dataclasses.replace(CORE.planner, samples=64, noise=(2.0,))
    core = dataclasses.replace(CORE, planner=planner, temperature=1e-3)
    carry, act = latent_planning.acting(
        SPEC, core, PARTS, lambda params, z, key: lambda actions: jnp.sum(actions)
    )
    state, plan = EnvState((), normal(3), jnp.zeros((), jnp.int32)), carry()
    decide = jax.jit(functools.partial(act, explore=False))
    for seed in range(12):
        action, plan = decide(ACTING, plan, state, jax.random.key(seed))
    assert (np.asarray(action) > np.array([3.9, 1.9])).all()


def test_a_plan_acts_where_every_critic_prefers_it_or_else_the_policy():
    """When it does not explore; and whoever acts, the next plan begins where this ended."""

    def made(plan=True, **told):
        core = dataclasses.replace(CORE, plan=plan, temperature=1e-3)
        config = dataclasses.replace(CONFIG, core=core, q_weight=1.0, **told)
        agent = mpail2.make(Task.of(SPEC), config)
        deciding = jax.vmap(agent.act, (None, None, 0, 0, None))
        return lambda explore: jax.jit(deciding, static_argnums=4)(
            ACTING, agent.carry(), states, keys, explore
        )

    count = 64
    states = EnvState((), normal(count, 3), jnp.zeros(count, jnp.int32))
    keys = jax.random.split(KEY, count)
    planned, after = made()(False)
    own, _ = made(plan=False)(False)
    found, found_after = made(accept_if_all_critics_prefer=True)(False)

    z = PARTS.model.encode(MODEL, states.obs)
    gains = jnp.subtract(
        *(PARTS.critics.apply(MODEL["critics"], z, PARTS.unit(a)) for a in (planned, own))
    )[..., 0]  # [critics, states]
    all_critics_prefer = np.asarray(jnp.min(gains, axis=0) > 0)
    assert (
        5 < all_critics_prefer.sum() < 59
        and all_critics_prefer.sum() < (gains[0] > 0).sum()
    )
    np.testing.assert_allclose(
        found[all_critics_prefer], planned[all_critics_prefer], rtol=1e-5
    )
    np.testing.assert_allclose(
        found[~all_critics_prefer], own[~all_critics_prefer], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(found_after.mean, after.mean, atol=1e-6)
    for one, other in zip(
        made(accept_if_all_critics_prefer=True)(True), made()(True), strict=True
    ):
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), one, other)


def test_more_plans_that_follow_the_policy_than_plans_are_refused():
    score = functools.partial(mpail2.plan_score, CONFIG, PARTS, REWARD)
    core = dataclasses.replace(CORE, proposals=7)
    with pytest.raises(UsageError, match=r"7 plans .* planner\.samples is 6"):
        latent_planning.acting(SPEC, core, PARTS, score)
    latent_planning.acting(SPEC, dataclasses.replace(core, plan=False), PARTS, score)


# ------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("trace", [0.0, 0.6, 1.0])
def test_the_policy_climbs_the_mixture_of_all_foreseen_returns(trace):
    """λ = 1: the first value; λ = 0: all rewards and the last value; between: a mixture.

    G_0 = Σ_n w_n R_n with R_n = Σ_{t<n} γ^t r_t + γ^n q_n, w_n = λ (1 - λ)^n and
    w_H = (1 - λ)^H, less the entropy's term.
    """
    config, gamma = dataclasses.replace(CONFIG, policy_lambda=trace), PARTS.discount
    pair_key, plan_key, last_key = jax.random.split(KEY, 3)
    z, temperature = ENCODED[0], 0.3

    @jax.jit
    def both():
        loss, (log_probs, _) = mpail2.policy_loss(
            config, PARTS, REWARD, POLICY, MODEL, temperature, z, KEY
        )
        plans, _ = PARTS.policy.sample(PARTS.policy.apply(POLICY, z), plan_key)
        actions = jnp.moveaxis(plans, 1, 0)
        zs = PARTS.model.rollout(MODEL, z, actions)
        rewards = REWARD.apply(MODEL["reward"], zs[:-1], zs[1:])
        last = mpail2.first_action(PARTS, POLICY, zs[-1], last_key)
        pair = latent.choose(MODEL["critics"], pair_key)
        values = mpail2.value(
            config, PARTS, pair, zs, jnp.concatenate([actions, last[None]])
        )
        total = 0.0
        for n in range(HORIZON + 1):
            weight = (1 - trace) ** n * (trace if n < HORIZON else 1.0)
            foreseen = sum(gamma**t * rewards[t] for t in range(n))
            total += weight * (foreseen + gamma**n * values[n])
        for t in range(HORIZON):
            total -= (gamma * (1 - trace)) ** t * temperature * log_probs[:, t]
        return -loss, jnp.mean(total)

    np.testing.assert_allclose(*both(), rtol=1e-5)


def test_the_encoder_learns_from_its_own_prediction_which_stands_still():
    def loss(params, obs):
        own = OWN.replace(obs=OWN.obs.at[1:].set(obs))
        return mpail2.model_loss(CORE, PARTS, None, params, own)[0]

    slopes, later = jax.jit(jax.grad(loss, (0, 1)))(MODEL, OWN.obs[1:])
    assert moved(slopes["encoder"]) and moved(slopes["step"]) and not moved(later)
    assert not moved(slopes["critics"]) and not moved(slopes["reward"])


def test_no_loss_but_the_model_s_reaches_an_encoding_that_it_gives_on():
    def encoded(params):
        return mpail2.model_loss(CORE, PARTS, None, params, OWN)[1][0].sum()

    assert not moved(jax.jit(jax.grad(encoded))(MODEL))


def test_the_critics_are_moved_and_neither_policy_nor_target_nor_reward():
    target = shaken(MODEL["critics"])

    def loss(critics, target, reward, policy):
        arguments = True, critics, target, reward, policy, OWN, ENCODED, KEY
        return mpail2.critic_loss(CONFIG, PARTS, REWARD, *arguments)[0]

    slopes = jax.jit(jax.grad(loss, (0, 1, 2, 3)))(
        MODEL["critics"], target, MODEL["reward"], POLICY
    )
    assert [moved(slope) for slope in slopes] == [True, False, False, False]


@pytest.mark.parametrize("lasting", [False, True])
def test_an_end_for_good_is_worth_what_staying_there_is(absorbing):
    """Σ_k γ^k r(ẑ', ẑ') where it lasts, or else 0; nothing is bootstrapped from it."""
    config = dataclasses.replace(CONFIG, td_lambda=0.7)
    some = jnp.arange(BATCH) == jnp.arange(HORIZON)[:, None]

    @jax.jit
    def losses(target):
        def loss(terminal):
            own, arguments = OWN.replace(terminal=terminal), (MODEL["reward"], POLICY)
            return mpail2.critic_loss(
                *(config, PARTS, REWARD, absorbing, MODEL["critics"], target),
                *(*arguments, own, ENCODED, KEY),
            )[0]

        return jnp.stack([loss(OWN.terminal), loss(some), loss(~OWN.terminal)])

    target = shaken(MODEL["critics"])
    found, other = losses(target), losses(shaken(target))
    np.testing.assert_array_equal(found == other, [False, False, True])

    z, following = ENCODED[:-1], ENCODED[1:]
    occupancy = REWARD.apply(MODEL["reward"], following, following)[..., None]
    after = jnp.sum(PARTS.discount ** jnp.arange(1000) * occupancy, axis=-1) * absorbing
    wanted = REWARD.apply(MODEL["reward"], z, following) + PARTS.discount * after
    values = PARTS.critics.apply(MODEL["critics"], z, OWN.actions)[..., 0]
    np.testing.assert_allclose(found[2], jnp.mean((values - wanted) ** 2), rtol=1e-4)


@pytest.mark.parametrize("mu", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("unit", [1.0, 10.0])
def test_critics_foresee_what_was_done_next_and_what_the_policy_would_do(mu, unit):
    """y_t = Σ_n w_n R_n of n steps as they were taken,
    R_n = Σ_{k<n} γ^k r_{t+k} + γ^n v_{t+n}, w_n = (1 - μ) μ^(n - 1), the last μ^(n - 1);
    at an end, where the last one is, v is what staying is worth.
    """
    config = dataclasses.replace(CONFIG, td_lambda=mu, value_scale=unit)
    ends = jnp.array([HORIZON, 0, 1, HORIZON, 2])  # the step that ends for good, [B]
    own = OWN.replace(terminal=jnp.arange(HORIZON)[:, None] >= ends)
    gamma, (pair_key, action_key, _) = PARTS.discount, jax.random.split(KEY, 3)
    target = shaken(MODEL["critics"])
    found = mpail2.critic_loss(
        *(config, PARTS, REWARD, True, MODEL["critics"], target),
        *(MODEL["reward"], POLICY, own, ENCODED, KEY),
    )[0]

    z, following = ENCODED[:-1], ENCODED[1:]
    rewards = REWARD.apply(MODEL["reward"], z, following)
    occupancy = REWARD.apply(MODEL["reward"], following, following) / (1 - gamma)
    actions = mpail2.first_action(PARTS, POLICY, following, action_key)
    pair = latent.choose(target, pair_key)
    v = unit * jnp.min(PARTS.critics.apply(pair, following, actions)[..., 0], axis=0)
    wanted = np.zeros((HORIZON, BATCH))
    for t in range(HORIZON):
        for b in range(BATCH):
            # Steps that count, at most up to the end; past it all returns are that one.
            most = min(HORIZON, max(int(ends[b]), t) + 1) - t
            for n in range(1, most + 1):
                weight = mu ** (n - 1) * (1 - mu if n < most else 1)
                last = t + n - 1
                worth = occupancy[last, b] if own.terminal[last, b] else v[last, b]
                gained = sum(gamma**k * rewards[t + k, b] for k in range(n))
                wanted[t, b] += weight * (gained + gamma**n * worth)
    values = PARTS.critics.apply(MODEL["critics"], z, OWN.actions)[..., 0]
    np.testing.assert_allclose(found, jnp.mean((values - wanted / unit) ** 2), rtol=1e-4)


def test_a_plan_is_scored_in_the_units_of_its_rewards():
    """However large the unit in which critics tell values."""
    actions, pair = jnp.tanh(normal(HORIZON, 2)), latent.choose(MODEL["critics"], KEY)
    large = dataclasses.replace(CONFIG, value_scale=10.0)
    once, tenfold = (
        mpail2.value(config, PARTS, pair, ENCODED[0, :HORIZON], actions)
        for config in (CONFIG, large)
    )
    np.testing.assert_allclose(tenfold, 10 * once, rtol=1e-6)


def test_the_reward_learns_to_tell_the_expert_and_forgets_what_is_added_to_it():
    def loss(params):
        return mpail2.reward_loss(CONFIG, REWARD, params, ENCODED, EXPERT, KEY)[0]

    slope = jax.jit(jax.grad(loss))(MODEL["reward"])
    last = slope["params"][f"Dense_{len(CONFIG.reward.hidden)}"]
    np.testing.assert_allclose(last["bias"], 0.0, atol=1e-6)

    def stepped(params, _):
        return jax.tree.map(lambda p, g: p - 0.03 * g, params, jax.grad(loss)(params)), None

    descend = jax.jit(lambda params: jax.lax.scan(stepped, params, None, length=200)[0])
    params = descend(MODEL["reward"])
    metrics = mpail2.reward_loss(CONFIG, REWARD, params, ENCODED, EXPERT, KEY)[1]
    assert metrics["reward/expert"] > metrics["reward/learner"]


ENDS = jnp.array([HORIZON, 0, 1, HORIZON, 2])  # the step that ends each sequence, if any
OVER = jnp.arange(HORIZON)[:, None] >= ENDS  # [H, B]


def test_all_steps_from_an_end_for_good_on_are_terminal():
    """Sequences that go on are left alone."""
    terminal = jnp.arange(HORIZON)[:, None] == ENDS
    terminal = terminal.at[2, 1].set(True)  # of the episode that came next
    staying = jax.jit(latent_planning.absorbing_from_terminal)(
        OWN.replace(terminal=terminal)
    )
    np.testing.assert_array_equal(staying.obs, OWN.obs)
    np.testing.assert_array_equal(staying.actions, OWN.actions)
    np.testing.assert_array_equal(staying.terminal, OVER)


def test_an_end_for_good_is_one_state_whatever_was_seen_in_it_or_after():
    own = OWN.replace(terminal=OVER)
    unseen = jnp.concatenate([jnp.zeros((1, BATCH), bool), OVER])[..., None]

    @jax.jit
    def told(obs):
        found = mpail2.model_loss(CORE, PARTS, END, MODEL, own.replace(obs=obs))
        return found[0], found[1][0]

    loss, encoded = told(OWN.obs)
    other = told(jnp.where(unseen, 7.0, OWN.obs))
    np.testing.assert_array_equal(loss, other[0])
    np.testing.assert_array_equal(encoded, other[1])
    np.testing.assert_allclose(encoded, jnp.where(unseen, END, ENCODED), atol=1e-6)
    zs = PARTS.model.rollout(MODEL, encoded[0], own.actions)[1:]
    errors = jnp.mean((zs - encoded[1:]) ** 2, axis=(1, 2))
    wanted = jnp.mean(CORE.horizon_decay ** jnp.arange(HORIZON) * errors)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_the_state_of_an_end_is_a_little_farther_from_others_than_they_are_apart():
    groups = END.reshape(-1, CORE.network.group)
    assert END.shape == ENCODED.shape[-1:]
    np.testing.assert_allclose(groups.sum(-1), 1.0)
    assert (groups == groups[0]).all() and groups[0].argmax() == 0
    size = latent.Config().latent
    seen = latent.simnorm(normal(100, size), latent.Config().group)
    other = latent.simnorm(normal(100, size, seed=2), latent.Config().group)
    absorbing_embedding = jnp.linalg.norm(
        seen - latent.absorbing_embedding(latent.Config()), axis=-1
    )
    between = jnp.linalg.norm(seen - other, axis=-1)
    assert (
        between.max()
        < absorbing_embedding.min()
        < absorbing_embedding.max()
        < 2 * between.min()
    )


def test_a_last_step_is_learned_from_as_often_as_another():
    """Of an episode of 4 steps, which ended for good, and one that goes on; H = 3."""
    core = dataclasses.replace(CORE, capacity=20)
    steps, none = jnp.arange(9), jnp.zeros((9, 1), bool)
    rollout = Transition(
        obs=jnp.broadcast_to(steps[:, None, None], (9, 1, 3)).astype(jnp.float32),
        action=jnp.ones((9, 1, 2)),
        next_obs=jnp.broadcast_to(steps[:, None, None], (9, 1, 3)) + 0.5,
        reward=jnp.zeros((9, 1)),
        terminal=none.at[3].set(True),
        truncated=none,
    )
    held = latent_planning.insert(
        latent_planning.empty_replay(SPEC, core, 1), PARTS, rollout
    )

    def drawn(past_ends: bool) -> tuple[set[int], set[int]]:
        """Where sequences start, and where those do that end for good."""
        places = latent_planning.valid_starts(held, PARTS, core, past_ends)
        own = jax.vmap(
            lambda key: latent_planning.sample_replay(held, places, PARTS, core, key)
        )
        found = jax.vmap(latent_planning.absorbing_from_terminal)(
            own(jax.random.split(KEY, 40))
        )
        first, ended = found.obs[:, 0, :, 0], found.terminal[:, -1]
        return set(first.ravel().tolist()), set(first[ended].tolist())

    assert drawn(past_ends=True) == ({0, 1, 2, 3, 4, 5, 6}, {1, 2, 3})  # H of them
    assert drawn(past_ends=False) == ({0, 1, 4, 5, 6}, {1})


def test_an_end_counts_for_the_reward_as_long_as_is_spent_in_it():
    """Of 5 pairs two lead to an end, for 100 steps each: 200 of 205 are there."""
    ends, stay = jnp.array([False, True, False, True, False]), 100

    def places(occupancy, seed: int) -> jax.Array:
        """Which of the pairs each is that was drawn, or the end `[draws, B, B + 1]`."""
        keys = jax.random.split(jax.random.key(seed), 400)
        draw = jax.vmap(mpail2.reweight_absorbing, (None, None, None, 0))
        drawn = jax.jit(draw)(ENCODED[:2], occupancy, END, keys)  # [draws, 2, B, Z]
        of_end = jnp.broadcast_to(END, (2, 1, len(END)))
        known = jnp.concatenate([ENCODED[:2], of_end], axis=1)  # [2, B + 1, Z]
        same = drawn[:, :, :, None] == known[:, None]  # [draws, 2, B, B + 1, Z]
        found = same.all((1, 4))
        np.testing.assert_array_equal(found.sum(-1), 1)
        return found

    shares = jnp.mean(places(stay * ends, 1), axis=(0, 1))
    np.testing.assert_allclose(shares, [1 / 205] * 5 + [200 / 205], atol=0.01)
    assert not places(0 * ends, 2)[..., -1].any()


@pytest.mark.parametrize("stay", [0, 92])
def test_to_fall_at_once_is_not_worth_more_than_to_begin(stay):
    """All begin at one place. The expert goes on to another, and stays for the rest of 100
    steps; the learner has fallen after 8. By count of steps alone (0) it is the beginning
    that it is told to shun."""
    begin, expert, fallen = jnp.eye(3, 16)
    of_learner = jnp.where(jnp.arange(64)[:, None] % 8 == 7, fallen, begin)  # after [B, Z]
    pairs = jnp.stack([jnp.broadcast_to(begin, (64, 16)), of_learner])
    shown = jnp.stack([jnp.broadcast_to(expert, (64, 16))] * 2)
    shown = shown.at[:, 0].set(begin)
    occupancy = stay * (jnp.arange(64) % 8 == 7)

    def step(params, key):
        learner = mpail2.reweight_absorbing(pairs, occupancy, fallen, key)
        slope = jax.grad(mpail2.reward_loss, argnums=2, has_aux=True)(
            CONFIG, REWARD, params, learner, shown, key
        )[0]
        return jax.tree.map(lambda p, g: p - 0.03 * g, params, slope), None

    keys = jax.random.split(KEY, 300)
    params = jax.jit(lambda params: jax.lax.scan(step, params, keys)[0])(MODEL["reward"])
    at = [REWARD.apply(params, z, z) for z in (fallen, begin, expert)]
    assert (at[0] < at[1]) == (stay > 0)
    assert max(at[:2]) < at[2]


@pytest.mark.parametrize(("terminates", "absorbing"), [(1, 1), (1, 0), (0, 1)])
def test_ends_are_counted_where_they_last(terminates, absorbing, monkeypatch):
    """The learner's, each of which is in H sequences, and the expert's. All steps end."""
    spec = SPEC._replace(terminates=bool(terminates))
    core = dataclasses.replace(CORE, capacity=20, seed_steps=20, updates_per_step=0.05)
    config = dataclasses.replace(CONFIG, core=core, absorbing=bool(absorbing))
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
    def told():
        agent.update(agent.init(KEY), rollout, demos, KEY, jnp.zeros((), int))
        return counted

    found = told()
    assert len(found) == 2 * terminates * absorbing
    for (occupancy, at_end), times in zip(found, (1, HORIZON), strict=False):
        np.testing.assert_allclose(times * occupancy, 1 / (1 - PARTS.discount), rtol=1e-5)
        assert at_end.all()


@pytest.mark.parametrize("half_life", [0, 100])
def test_the_rates_of_all_parts_halve_if_told_to(half_life):
    core = dataclasses.replace(CORE, lr_half_life=half_life, capacity=20)
    state = mpail2.make(Task.of(SPEC), dataclasses.replace(CONFIG, core=core)).init(KEY)
    scheduled = optax.ScaleByScheduleState

    def follows(fitted) -> bool:
        parts = jax.tree.leaves(
            fitted.opt_state, is_leaf=lambda part: isinstance(part, scheduled)
        )
        return any(isinstance(part, scheduled) for part in parts)

    fits = state.model, state.reward, state.critics, state.policy, state.temperature
    assert [follows(fitted) for fitted in fits] == [half_life > 0] * 5
