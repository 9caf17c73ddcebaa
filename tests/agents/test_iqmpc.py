"""IQ-MPC, part by part: the planner's score, gradients, and warm-up."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.agents import iqmpc
from planil_jax.agents.common import latent_planning
from planil_jax.base import Demonstrations, EnvSpec, EnvState, Task, Transition, UsageError
from planil_jax.nets import latent
from planil_jax.planners import mppi

SPEC = EnvSpec("line", ("a", "b", "c"), (0.0, -2.0), (4.0, 2.0), 100, 0.1)
HORIZON = 4
CORE = latent_planning.Config(
    network=latent.Config(latent=16, encoder=(8,), hidden=(8,), critics=3, dropout=0.2),
    planner=mppi.Config(
        samples=6, horizon=HORIZON, iterations=2, sampling="gaussian", explore="noise"
    ),
    proposals=2,
    entropy_coef=0.1,
    batch=5,
    capacity=40,
    seed_steps=20,
    learning_rate=1e-2,
)
CONFIG = iqmpc.Config(core=CORE)
PARTS = latent_planning.make(SPEC, CORE)
KEY = jax.random.key(0)


def normal(*shape, seed: int = 1) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def params(seed: int = 0) -> latent_planning.InferenceParams:
    """Parameters none of which is zero, critics least of all."""
    keys = jax.random.split(jax.random.key(seed), 3)
    model = PARTS.model.init(keys[0]) | {"critics": PARTS.critics.init(keys[1])}
    acting = latent_planning.InferenceParams(
        model, PARTS.policy.init(keys[2]), jnp.zeros((), bool)
    )
    leaves, tree = jax.tree.flatten(acting.replace(random=None))
    moved = [leaf + 0.3 * normal(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(tree, moved).replace(random=acting.random)


ACTING = params()


def sequences(seed: int, terminal: bool = False) -> latent_planning.Sequences:
    horizon, batch = CORE.horizon, CORE.batch
    ends = jnp.zeros((horizon, batch), bool).at[-1].set(terminal)
    return latent_planning.Sequences(
        obs=normal(horizon + 1, batch, 3, seed=seed),
        actions=jnp.tanh(normal(horizon, batch, 2, seed=seed + 1)),
        terminal=ends,
    )


# ------------------------------------------------------------------------------- the score


def literal(config, acting, z, key, actions):
    """Algorithm 1 of the paper as it stands, all of its H steps, with common noise.

    Σ_t γ^t [Q(z_t, a_t) - γ V(z_{t+1}) - β log π(a_t|z_t)] + γ^H V(z_H)
    """
    pair_key, value_key = jax.random.split(key)
    pair = latent.choose(acting.model["critics"], pair_key)
    keys = jax.random.split(value_key, config.value_samples)
    gamma, beta = PARTS.discount, config.core.entropy_coef

    def value(z):
        policy = PARTS.policy.apply(acting.policy, z)
        each = [
            iqmpc.soft_value(config, PARTS, pair, policy, z, value_key)
            for value_key in keys
        ]
        return sum(each) / len(each)

    total = 0.0
    for t, action in enumerate(actions):
        policy = PARTS.policy.apply(acting.policy, z)
        gain = iqmpc.value(PARTS, pair, z, action)
        gain -= beta * PARTS.policy.log_prob(policy, action)
        z = PARTS.model.step(acting.model, z, action)
        total += gamma**t * (gain - gamma * value(z))
    return total + gamma ** len(actions) * value(z)


@pytest.mark.parametrize("samples", [1, 3])
def test_the_telescoped_score_is_the_paper_s(samples):
    config = dataclasses.replace(CONFIG, value_samples=samples)

    @jax.jit
    def both(z, actions):
        score = iqmpc.plan_score(config, PARTS, ACTING, z, KEY)
        return score(actions), literal(config, ACTING, z, KEY, actions)

    for seed in range(3):
        z = PARTS.model.encode(ACTING.model, normal(3, seed=seed))
        found, wanted = both(z, jnp.tanh(normal(HORIZON, 2, seed=seed)))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_published_score_telescopes_but_for_its_noise():
    """Where all critics are one, the policy is narrow and β is 0, both are the same."""
    network = dataclasses.replace(CORE.network, std=1e-6, std_low=1e-7, std_high=1e-5)
    core = dataclasses.replace(CORE, network=network, entropy_coef=0.0)
    config, parts = iqmpc.Config(core=core), latent_planning.make(SPEC, core)
    critics = ACTING.model["critics"]
    one = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), critics)
    same = ACTING.replace(model=ACTING.model | {"critics": one})

    @jax.jit
    def both(acting, z, actions):
        scores = iqmpc.published_score, iqmpc.plan_score
        return [score(config, parts, acting, z, KEY)(actions) for score in scores]

    z = PARTS.model.encode(ACTING.model, normal(3))
    actions = jnp.tanh(normal(HORIZON, 2))
    np.testing.assert_allclose(*both(same, z, actions), rtol=1e-3, atol=1e-3)
    apart = both(ACTING, z, actions)
    assert abs(apart[0] - apart[1]) > 1e-2
    assert iqmpc.published().score == "published"
    with pytest.raises(UsageError, match="score is one of telescoped, published, not 'x'"):
        iqmpc.make(Task.of(SPEC), dataclasses.replace(CONFIG, score="x"))


def test_noise_on_the_expert_s_actions_reaches_critics_alone():
    @functools.partial(jax.jit, static_argnums=0)
    def told(noise: float):
        config = dataclasses.replace(CONFIG, expert_noise=noise)
        policy, target = ACTING.policy, ACTING.model["critics"]
        batches = sequences(1), sequences(2)
        return iqmpc.model_loss(config, PARTS, ACTING.model, policy, target, *batches, KEY)[
            1
        ][1]

    plain, noisy = told(0.0), told(0.5)
    for name in ("model/consistency", "reward/learner"):
        np.testing.assert_array_equal(plain[name], noisy[name])
    for name in ("critic/loss", "reward/expert"):
        assert abs(plain[name] - noisy[name]) > 1e-4


def test_of_one_step_the_score_is_that_of_critic_and_policy_alone():
    z = PARTS.model.encode(ACTING.model, normal(3))
    action = jnp.array([0.3, -0.6])
    pair = latent.choose(ACTING.model["critics"], jax.random.split(KEY)[0])
    log_prob = PARTS.policy.log_prob(PARTS.policy.apply(ACTING.policy, z), action)
    wanted = iqmpc.value(PARTS, pair, z, action) - CORE.entropy_coef * log_prob
    broken = dict(
        ACTING.model, step=jax.tree.map(lambda x: x * jnp.nan, ACTING.model["step"])
    )
    score = iqmpc.plan_score(CONFIG, PARTS, ACTING.replace(model=broken), z, KEY)
    np.testing.assert_allclose(score(action[None]), wanted, rtol=1e-5)


def test_what_follows_the_last_action_does_not_matter_to_it():
    """The gradient in a_{H-1} is of Q - β log π there; the model's last step is not run."""
    z = PARTS.model.encode(ACTING.model, normal(3))
    actions = jnp.tanh(normal(HORIZON, 2))

    @jax.jit
    def slopes(last):
        def of_score(last):
            score = iqmpc.plan_score(CONFIG, PARTS, ACTING, z, KEY)
            return score(actions.at[-1].set(last))

        def of_step(last):
            pair = latent.choose(ACTING.model["critics"], jax.random.split(KEY)[0])
            here = PARTS.model.rollout(ACTING.model, z, actions[:-1])[-1]
            policy = PARTS.policy.apply(ACTING.policy, here)
            gain = iqmpc.value(PARTS, pair, here, last)
            gain -= CORE.entropy_coef * PARTS.policy.log_prob(policy, last)
            return PARTS.discount ** (HORIZON - 1) * gain

        return jax.grad(of_score)(last), jax.grad(of_step)(last)

    found, wanted = slopes(actions[-1])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_plan_takes_one_step_of_the_model_less_than_it_has_actions():
    steps = []

    def counted(params, z, actions):
        steps.append(len(actions))
        return PARTS.model.rollout(params, z, actions)

    parts = PARTS._replace(model=PARTS.model._replace(rollout=counted, step=None))
    z = PARTS.model.encode(ACTING.model, normal(3))
    iqmpc.plan_score(CONFIG, parts, ACTING, z, KEY)(jnp.zeros((HORIZON, 2)))
    assert steps == [HORIZON - 1]


# -------------------------------------------------------------------------------- learning


@functools.cache
def gradients(objective: str, terminal: bool = False):
    """Of the model's loss: in its own parameters, the policy's and the target's."""
    config = dataclasses.replace(CONFIG, objective=objective, gradient_penalty=1.0)

    @jax.jit
    def all_three(own, expert):
        def loss(params, policy, target):
            arguments = config, PARTS, params, policy, target, own, expert, KEY
            return iqmpc.model_loss(*arguments)

        return jax.grad(loss, (0, 1, 2), has_aux=True)(
            ACTING.model, ACTING.policy, params(1).model["critics"]
        )

    return all_three(sequences(3, terminal), sequences(7, terminal))


def moved(tree) -> bool:
    return any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("objective", ["start", "value"])
def test_the_model_s_loss_moves_the_model_and_neither_policy_nor_target(objective):
    (own, policy, target), _ = gradients(objective)
    assert all(moved(own[part]) for part in ("encoder", "step", "critics"))
    assert not moved(policy) and not moved(target)


def test_the_policy_s_step_moves_the_policy_and_pulls_on_no_latent_state():
    pair = latent.choose(ACTING.model["critics"], KEY)

    def stepped(zs):
        fitted = PARTS.policy_fit.init(ACTING.policy)
        value = functools.partial(iqmpc.value, PARTS, pair)
        fitted, metrics = latent_planning.fit_policy(PARTS, CORE, fitted, value, zs, KEY)
        return metrics["policy/loss"], fitted.params

    slope, after = jax.jit(jax.grad(stepped, has_aux=True))(normal(4, 5, 16))
    assert moved(jax.tree.map(jnp.subtract, after, ACTING.policy))
    assert not moved(slope)


def test_encodings_that_are_predicted_pull_on_nothing():
    """The consistency's target stands still: h(s') gets its gradient from nowhere else."""
    config = dataclasses.replace(CONFIG, critic=0.0)
    own, expert = sequences(3), sequences(7)

    @jax.jit
    def slope(later):
        def moved_by(later):
            changed = own.replace(obs=own.obs.at[1:].set(later))
            arguments = ACTING.model, ACTING.policy, ACTING.model["critics"]
            return iqmpc.model_loss(config, PARTS, *arguments, changed, expert, KEY)[0]

        return jax.grad(moved_by)(later)

    assert not moved(slope(own.obs[1:]))


def test_nothing_is_bootstrapped_from_an_end_for_good():
    """After an end the target is not read; in the middle of an episode it is."""
    target = params(1).model["critics"]

    @functools.partial(jax.jit, static_argnums=1)
    def rewards(target, ended: bool):
        arguments = CONFIG, PARTS, ACTING.model, ACTING.policy, target
        own, expert = sequences(3, ended), sequences(7, ended)
        if ended:
            ends = jnp.ones_like(own.terminal)
            own, expert = own.replace(terminal=ends), expert.replace(terminal=ends)
        return iqmpc.model_loss(*arguments, own, expert, KEY)[1][1]["reward/expert"]

    other = jax.tree.map(lambda leaf: leaf + 1.0, target)
    assert rewards(target, True) == rewards(other, True)
    assert rewards(target, False) != rewards(other, False)


def test_decoded_rewards_are_those_of_the_critics_and_the_target():
    """By hand, with a constant target and a policy whose entropy counts nothing."""
    config = dataclasses.replace(CONFIG, core=dataclasses.replace(CORE, entropy_coef=0.0))
    network = dataclasses.replace(CORE.network, dropout=0.0)
    parts = latent_planning.make(SPEC, dataclasses.replace(CORE, network=network))
    target = jax.tree.map(jnp.zeros_like, ACTING.model["critics"])
    last = target["params"]["_Dense_1"]
    target["params"]["_Dense_1"] = dict(last, bias=last["bias"] + 3.0)  # Q̄ = 3
    own, expert = sequences(3), sequences(7)
    arguments = config, parts, ACTING.model, ACTING.policy, target, own, expert, KEY
    _, (zs, metrics) = jax.jit(functools.partial(iqmpc.model_loss, *arguments))()
    values = parts.critics.apply(
        ACTING.model["critics"], zs[:-1], jnp.concatenate([expert.actions, own.actions], 1)
    )
    wanted = jnp.mean(values[:, :, : CORE.batch]) - 3.0 * parts.discount
    np.testing.assert_allclose(metrics["reward/expert"], wanted, rtol=1e-4)


# ---------------------------------------------------------------------------------- warm-up


def rollout(seed: int) -> Transition:
    """`[10, 1]`."""
    obs = normal(11, 1, 3, seed=seed)
    no = jnp.zeros((10, 1), bool)
    return Transition(
        obs=obs[:-1],
        action=1.0 + 0.5 * jnp.tanh(normal(10, 1, 2, seed=seed)),
        next_obs=obs[1:],
        reward=jnp.zeros((10, 1)),
        terminal=no,
        truncated=no,
    )


DEMOS = Demonstrations(
    obs=normal(2, 13, 3, seed=9),
    actions=1.0 + jnp.tanh(normal(2, 12, 2, seed=10)),
    length=jnp.array([12, 8], jnp.int32),
    terminal=jnp.zeros((2,), bool),
    observed=(0, 1, 2),
)


@functools.cache
def agent():
    made = iqmpc.make(Task.of(SPEC), CONFIG)
    return jax.jit(made.init), jax.jit(made.update), made


def steps_taken(state) -> int:
    return int(state.policy.opt_state[1][0].count)


def test_gradient_steps_wait_for_the_warm_up_and_then_come_all_at_once():
    """20 steps of warm-up, 10 a round: none, then 20, then 10 each."""
    init, update, _ = agent()
    state, taken, random = init(KEY), [], []
    assert state.params.random
    for number in range(4):
        args = rollout(number), DEMOS, jax.random.key(number), jnp.int32(number)
        state, _ = update(state, *args)
        taken.append(steps_taken(state))
        random.append(bool(state.params.random))
    assert taken == [0, 20, 30, 40]
    assert random == [True, False, False, False]


def test_while_warming_up_exploring_actions_are_uniform_and_others_are_not():
    init, _, made = agent()
    state = init(KEY).params
    start = EnvState((), normal(3), jnp.zeros((), jnp.int32))

    def drawn(state, explore):
        keys = jax.random.split(KEY, 400)
        carry = made.carry()
        act = jax.vmap(lambda key: made.act(state, carry, start, key, explore)[0])
        return np.asarray(jax.jit(act)(keys))

    actions = drawn(state, True)
    low, high = np.array(SPEC.action_low), np.array(SPEC.action_high)
    unit = (actions - low) / (high - low)
    np.testing.assert_allclose(unit.mean(0), 0.5, atol=0.05)
    np.testing.assert_allclose(unit.std(0), 12**-0.5, atol=0.03)
    deciding = state.replace(random=jnp.zeros((), bool))
    np.testing.assert_array_equal(drawn(state, False), drawn(deciding, False))
    assert np.abs(drawn(deciding, True) - actions).max() > 0.1


def test_an_unknown_objective_is_refused():
    with pytest.raises(UsageError, match="^agent.objective is 'start' or 'value'"):
        iqmpc.make(Task.of(SPEC), dataclasses.replace(CONFIG, objective="v0"))


def test_the_discount_looks_a_fifth_of_an_episode_ahead():
    lengths = {25: 0.95, 200: 0.975, 500: 0.99, 100_000: 0.995}
    for length, gamma in lengths.items():
        np.testing.assert_allclose(latent_planning.discount(length), gamma)


def test_planning_in_turn_is_planning_side_by_side():
    """Also of an agent that is made in the program, as those of a finished run are."""

    def plans(core: latent_planning.Config):
        params = ACTING.replace(random=jnp.zeros((), bool))

        def driven(obs, key):
            made = iqmpc.make(Task.of(SPEC), dataclasses.replace(CONFIG, core=core))
            state = EnvState((), obs, jnp.zeros((), jnp.int32))

            def step(carry, key):
                return made.act(params, carry, state, key, True)[::-1]

            return jax.lax.scan(step, made.carry(), jax.random.split(key, 2))

        return jax.jit(jax.vmap(driven))(normal(3, 3), jax.random.split(KEY, 3))

    beside, sequential_vmap = (
        plans(CORE),
        plans(dataclasses.replace(CORE, sequential_vmap=True)),
    )
    for one, other in zip(
        jax.tree.leaves(beside), jax.tree.leaves(sequential_vmap), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_what_acts_follows_what_was_learned_once_something_was():
    core = dataclasses.replace(CORE, ema_rate=0.25)
    no, yes = jnp.zeros((), bool), jnp.ones((), bool)
    zero, one = ({"a": jnp.full((2,), value)} for value in (0.0, 1.0))
    for random, share in ((no, 0.25), (yes, 1.0)):
        before = latent_planning.InferenceParams(zero, zero, random)
        after = latent_planning.ema_params(core, before, one, one, no)
        np.testing.assert_allclose(after.model["a"], share)
        np.testing.assert_allclose(after.policy["a"], share)
        assert not after.random


HALF = 0.5**0.5


@pytest.mark.parametrize(
    ("half_life", "hold", "expected"),
    [(0, 0, [1, 1, 1]), (2, 0, [1, HALF, 0.5]), (2, 1, [1, 1, HALF])],
)
def test_all_rates_halve_and_the_encoder_s_is_a_share(half_life, hold, expected):
    """Of a gradient that stays, each of Adam's steps is as long as the rate is."""
    core = dataclasses.replace(CORE, lr_half_life=half_life, lr_hold=hold)
    parts = latent_planning.make(SPEC, core)
    ones = jnp.ones(3)
    fits = {
        "encoder": (parts.model_fit, {"encoder": ones, "step": ones}),
        "step": (parts.model_fit, {"encoder": ones, "step": ones}),
        "policy": (parts.policy_fit, {"policy": ones}),
    }
    for name, (fitter, weights) in fits.items():
        fitted, lengths = fitter.init(weights), []
        for _ in range(3):
            following = fitter.step(fitted, weights)
            lengths.append(float((fitted.params[name] - following.params[name])[0]))
            fitted = following
        rate = CORE.learning_rate * (CORE.encoder_share if name == "encoder" else 1.0)
        np.testing.assert_allclose(lengths, rate * np.array(expected), rtol=1e-3)
