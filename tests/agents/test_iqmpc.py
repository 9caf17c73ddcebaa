"""IQ-MPC, part by part: the planner's score, losses and their gradients, seed steps."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax import config as configs
from planil_jax.agents import iqmpc
from planil_jax.agents.common import latent_planning, sequences
from planil_jax.base import Demonstrations, EnvSpec, EnvState, Task, Transition, UsageError
from planil_jax.nets import latent
from planil_jax.planners import mppi
from tests.draws import normal, random_params

SPEC = EnvSpec("line", ("a", "b", "c"), (0.0, -2.0), (4.0, 2.0), 100, 0.1)
HORIZON, BATCH = 4, 5
CONFIG = iqmpc.Config(
    network=latent.Config(latent=16, encoder=(8,), hidden=(8,), critics=3, dropout=0.2),
    planner=mppi.Config(
        samples=6, horizon=HORIZON, iterations=2, sampling="gaussian", explore="noise"
    ),
    planning=latent_planning.Planning(proposals=2),
    replay=sequences.Config(batch=BATCH, capacity=40),
    optimizer=latent_planning.Optimizer(learning_rate=1e-2),
    entropy_coef=0.1,
    seed_steps=20,
)
COMPONENTS = iqmpc.make_components(SPEC, CONFIG)
KEY = jax.random.key(0)


def with_config(**fields) -> iqmpc.Components:
    """The components with other settings, which networks do not depend on."""
    return COMPONENTS._replace(config=dataclasses.replace(CONFIG, **fields))


def some_params(seed: int) -> latent_planning.InferenceParams:
    shapes = jax.eval_shape(
        lambda: latent_planning.InferenceParams(
            COMPONENTS.model.init(KEY) | {"critics": COMPONENTS.critics.init(KEY)},
            COMPONENTS.policy.init(KEY),
            random=None,
        )
    )
    return random_params(shapes, seed).replace(random=jnp.zeros((), bool))


PARAMS, OTHER = some_params(0), some_params(1)
TARGET = OTHER.model["critics"]
FIXED = iqmpc.Fixed(policy=PARAMS.policy, target=TARGET)


def some_sequences(seed: int, terminal: bool = False) -> sequences.Sequences:
    horizon = CONFIG.horizon
    return sequences.Sequences(
        obs=normal(horizon + 1, BATCH, 3, seed=seed),
        actions=jnp.tanh(normal(horizon, BATCH, 2, seed=seed + 1)),
        terminal=jnp.zeros((horizon, BATCH), bool).at[-1].set(terminal),
    )


def some_batch(terminal: bool = False) -> iqmpc.Batch:
    return iqmpc.Batch(some_sequences(3, terminal), some_sequences(7, terminal))


def moves(gradients) -> bool:
    return any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(gradients))


# ------------------------------------------------------------------------------- the score


def algorithm_1(components, params, z, key, actions):
    """Algorithm 1 of the paper as it is printed, with common random numbers.

    Σ_t γ^t [Q(z_t, a_t) - γ V(z_{t+1}) - β log π(a_t|z_t)] + γ^H V(z_H)
    """
    subset_key, value_key = jax.random.split(key)
    subset = latent.random_subset(params.model["critics"], subset_key)
    keys = jax.random.split(value_key, components.config.value_samples)
    gamma, beta = components.discount, components.config.entropy_coef
    policy = components.policy

    def value(z):
        distribution = policy.apply(params.policy, z)
        samples = [
            iqmpc.soft_value(components, subset, distribution, z, key) for key in keys
        ]
        return sum(samples) / len(samples)

    total = 0.0
    for t, action in enumerate(actions):
        gain = iqmpc.min_q(components, subset, z, action)
        gain -= beta * policy.log_prob(policy.apply(params.policy, z), action)
        z = components.model.step(params.model, z, action)
        total += gamma**t * (gain - gamma * value(z))
    return total + gamma ** len(actions) * value(z)


@pytest.mark.parametrize("samples", [1, 3])
def test_the_telescoped_score_equals_algorithm_1_of_the_paper(samples):
    components = with_config(value_samples=samples)

    @jax.jit
    def both(z, actions):
        score = iqmpc.plan_score(components, PARAMS, z, KEY)
        return score(actions), algorithm_1(components, PARAMS, z, KEY, actions)

    for seed in range(3):
        z = COMPONENTS.model.encode(PARAMS.model, normal(3, seed=seed))
        found, wanted = both(z, jnp.tanh(normal(HORIZON, 2, seed=seed)))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_published_score_is_the_telescoped_one_plus_noise():
    """With one critic, a narrow policy and β = 0 there is no noise: both are equal."""
    network = dataclasses.replace(CONFIG.network, std=1e-6, std_low=1e-7, std_high=1e-5)
    config = dataclasses.replace(CONFIG, network=network, entropy_coef=0.0)
    components = iqmpc.make_components(SPEC, config)
    critics = PARAMS.model["critics"]
    one = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), critics)
    same = PARAMS.replace(model=PARAMS.model | {"critics": one})

    @jax.jit
    def both(params, z, actions):
        scores = iqmpc.published_score, iqmpc.plan_score
        return [score(components, params, z, KEY)(actions) for score in scores]

    z = COMPONENTS.model.encode(PARAMS.model, normal(3))
    actions = jnp.tanh(normal(HORIZON, 2))
    np.testing.assert_allclose(*both(same, z, actions), rtol=1e-3, atol=1e-3)
    found, other = both(PARAMS, z, actions)
    assert abs(found - other) > 1e-2


def test_an_unknown_score_is_refused():
    assert iqmpc.published().published.score == "published"
    unknown = iqmpc.Published(score="x")  # type: ignore[arg-type]
    message = "^agent.published.score is one of 'telescoped', 'published', not 'x'"
    with pytest.raises(UsageError, match=message):
        configs.check(dataclasses.replace(CONFIG, published=unknown), "agent.")
    with pytest.raises(UsageError, match="'telescoped', 'published', not 'x'"):
        configs.from_config_dict({"published": {"score": "x"}}, CONFIG)


def test_the_score_of_one_step_is_q_minus_log_pi_and_needs_no_model():
    z = COMPONENTS.model.encode(PARAMS.model, normal(3))
    action = jnp.array([0.3, -0.6])
    critics, policy = PARAMS.model["critics"], COMPONENTS.policy
    subset = latent.random_subset(critics, jax.random.split(KEY)[0])
    log_prob = policy.log_prob(policy.apply(PARAMS.policy, z), action)
    wanted = iqmpc.min_q(COMPONENTS, subset, z, action) - CONFIG.entropy_coef * log_prob
    nan_step = jax.tree.map(lambda x: x * jnp.nan, PARAMS.model["step"])
    params = PARAMS.replace(model=PARAMS.model | {"step": nan_step})
    score = iqmpc.plan_score(COMPONENTS, params, z, KEY)
    np.testing.assert_allclose(score(action[None]), wanted, rtol=1e-5)


def test_the_score_s_gradient_in_the_last_action_is_that_of_q_minus_log_pi_there():
    """The model's last step is not run."""
    z = COMPONENTS.model.encode(PARAMS.model, normal(3))
    actions = jnp.tanh(normal(HORIZON, 2))

    @jax.jit
    def gradients(last):
        def of_score(last):
            score = iqmpc.plan_score(COMPONENTS, PARAMS, z, KEY)
            return score(actions.at[-1].set(last))

        def of_last_step(last):
            critics, policy = PARAMS.model["critics"], COMPONENTS.policy
            subset = latent.random_subset(critics, jax.random.split(KEY)[0])
            last_z = COMPONENTS.model.rollout(PARAMS.model, z, actions[:-1])[-1]
            log_prob = policy.log_prob(policy.apply(PARAMS.policy, last_z), last)
            gain = iqmpc.min_q(COMPONENTS, subset, last_z, last)
            gain -= CONFIG.entropy_coef * log_prob
            return COMPONENTS.discount ** (HORIZON - 1) * gain

        return jax.grad(of_score)(last), jax.grad(of_last_step)(last)

    found, wanted = gradients(actions[-1])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_score_runs_the_model_one_step_less_than_the_plan_has_actions():
    steps = []

    def counted(params, z, actions):
        steps.append(len(actions))
        return COMPONENTS.model.rollout(params, z, actions)

    model = COMPONENTS.model._replace(rollout=counted, step=None)
    z = COMPONENTS.model.encode(PARAMS.model, normal(3))
    score = iqmpc.plan_score(COMPONENTS._replace(model=model), PARAMS, z, KEY)
    jax.eval_shape(score, jnp.zeros((HORIZON, 2)))
    assert steps == [HORIZON - 1]


# ---------------------------------------------------------------------------------- losses


@functools.cache
def model_gradients(objective: str, terminal: bool = False):
    """Of the model's loss: in its parameters, the policy's and the target's."""
    components = with_config(objective=objective, gradient_penalty=1.0)

    @jax.jit
    def in_all(batch):
        def loss(params, fixed):
            return iqmpc.model_loss(components, params, fixed, batch, KEY)

        return jax.grad(loss, (0, 1), has_aux=True)(PARAMS.model, FIXED)

    return in_all(some_batch(terminal))


@pytest.mark.parametrize("objective", ["start", "value"])
def test_the_model_s_loss_moves_the_model_and_neither_policy_nor_target(objective):
    (model, fixed), _ = model_gradients(objective)
    assert all(moves(model[part]) for part in ("encoder", "step", "critics"))
    assert not moves(fixed.policy) and not moves(fixed.target)


def test_the_model_s_loss_is_the_weighted_sum_of_its_parts():
    weights = {"consistency_coef": 2.0, "critic_coef": 3.0, "gradient_penalty": 5.0}
    components = with_config(**weights)
    loss, (_, metrics) = jax.jit(functools.partial(iqmpc.model_loss, components))(
        PARAMS.model, FIXED, some_batch(), KEY
    )
    parts = "model/consistency", "critic/loss", "critic/penalty"
    wanted = sum(w * metrics[part] for w, part in zip((2, 3, 5), parts, strict=True))
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    assert all(metrics[part] != 0 for part in parts)


def latents_of(batch: iqmpc.Batch) -> iqmpc.Latents:
    both = sequences.side_by_side(batch.expert, batch.learner)
    z = COMPONENTS.model.encode(PARAMS.model, both.obs)
    return iqmpc.Latents(z, z[1:], both.actions, both.terminal)


def test_the_gradient_penalty_moves_critics_alone():
    subset = latent.random_subset(PARAMS.model["critics"], KEY)
    gradients = jax.jit(
        jax.grad(
            lambda subset, latents: iqmpc.gradient_penalty(
                COMPONENTS, subset, latents, KEY
            ),
            (0, 1),
            allow_int=True,
        )
    )(subset, latents_of(some_batch()))
    assert moves(gradients[0])
    assert not moves((gradients[1].rolled, gradients[1].encoded, gradients[1].actions))


@pytest.mark.parametrize("objective", ["start", "value"])
def test_the_objectives_are_what_their_formulas_say(objective):
    """(1 - γ) E_E[V(z_0)] at all steps, or E_π[V(z_t) - γ (1 - terminal) V̄(ẑ_{t+1})]."""
    gamma, subset = COMPONENTS.discount, latent.random_subset(TARGET, KEY)
    latents = latents_of(some_batch(terminal=True))
    next_values = normal(CONFIG.horizon, 2 * BATCH, seed=20)
    objective_fn = functools.partial(iqmpc.OBJECTIVES[objective], COMPONENTS)
    found = jax.jit(objective_fn)(subset, PARAMS.policy, latents, next_values, KEY)
    expert_half, learner_half = slice(0, BATCH), slice(BATCH, None)
    if objective == "start":
        z = latents.rolled[:1, expert_half]
    else:
        z = latents.rolled[:-1, learner_half]
    distribution = COMPONENTS.policy.apply(PARAMS.policy, z)
    values = np.asarray(iqmpc.soft_value(COMPONENTS, subset, distribution, z, KEY))
    wanted = np.zeros(CONFIG.horizon)
    for t in range(CONFIG.horizon):
        if objective == "start":
            wanted[t] = (1 - gamma) * values[0].mean()
        else:
            last = t == CONFIG.horizon - 1
            after = 0.0 if last else gamma * np.asarray(next_values)[t, learner_half]
            wanted[t] = (values[t] - after).mean()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_noise_on_the_expert_s_actions_reaches_critics_alone():
    @functools.partial(jax.jit, static_argnums=0)
    def metrics_of(noise: float, batch):
        fixed = iqmpc.Fixed(PARAMS.policy, PARAMS.model["critics"])
        components = with_config(expert_noise=noise)
        return iqmpc.model_loss(components, PARAMS.model, fixed, batch, KEY)[1][1]

    batch = iqmpc.Batch(some_sequences(1), some_sequences(2))
    plain, noisy = metrics_of(0.0, batch), metrics_of(0.5, batch)
    for name in ("model/consistency", "reward/learner"):
        np.testing.assert_array_equal(plain[name], noisy[name])
    for name in ("critic/loss", "reward/expert"):
        assert abs(plain[name] - noisy[name]) > 1e-4


def test_the_policy_s_loss_moves_the_policy_and_no_latent_states():
    subset = latent.random_subset(PARAMS.model["critics"], KEY)

    def loss(params, zs):
        return iqmpc.policy_loss(COMPONENTS, params, subset, zs, KEY)[0]

    policy, latents = jax.jit(jax.grad(loss, (0, 1)))(PARAMS.policy, normal(4, 5, 16))
    assert moves(policy) and not moves(latents)
    state = COMPONENTS.policy_optimizer.init(PARAMS.policy)
    after = COMPONENTS.policy_optimizer.step(state, policy).params
    assert moves(jax.tree.map(jnp.subtract, after, PARAMS.policy))


def test_the_policy_s_loss_is_what_its_formula_says():
    """Σ_t ρ^t E[β log π(ã|z_t) - min_2 Q(z_t, ã)] / (H + 1), by loops."""
    subset, zs = latent.random_subset(PARAMS.model["critics"], KEY), normal(4, 5, 16)
    loss_fn = functools.partial(iqmpc.policy_loss, COMPONENTS)
    found, _ = jax.jit(loss_fn)(PARAMS.policy, subset, zs, KEY)
    distribution = COMPONENTS.policy.apply(PARAMS.policy, zs)
    actions, log_probs = COMPONENTS.policy.sample(distribution, KEY)
    values = np.asarray(COMPONENTS.critics.apply(subset, zs, actions))[..., 0]
    wanted = 0.0
    for t in range(4):
        losses = [
            CONFIG.entropy_coef * float(log_probs[t, b]) - min(values[:, t, b])
            for b in range(5)
        ]
        wanted += CONFIG.horizon_decay**t * np.mean(losses) / 4
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_predicted_encodings_get_no_gradient():
    """The consistency's target stands still: ẑ has no other way to a gradient."""
    components, batch = with_config(critic_coef=0.0), some_batch()

    @jax.jit
    def gradient(later):
        def loss(later):
            obs = batch.learner.obs.at[1:].set(later)
            changed = batch.replace(learner=batch.learner.replace(obs=obs))
            fixed = iqmpc.Fixed(PARAMS.policy, PARAMS.model["critics"])
            return iqmpc.model_loss(components, PARAMS.model, fixed, changed, KEY)[0]

        return jax.grad(loss)(later)

    assert not moves(gradient(batch.learner.obs[1:]))


def test_nothing_is_bootstrapped_from_a_terminal_step():
    """After it the target critics do not count; in the middle of an episode they do."""

    @functools.partial(jax.jit, static_argnums=1)
    def reward(target, ended: bool):
        batch = some_batch(ended)
        if ended:
            ends = jnp.ones_like(batch.learner.terminal)
            batch = iqmpc.Batch(
                batch.learner.replace(terminal=ends), batch.expert.replace(terminal=ends)
            )
        fixed = iqmpc.Fixed(PARAMS.policy, target)
        _, (_, metrics) = iqmpc.model_loss(COMPONENTS, PARAMS.model, fixed, batch, KEY)
        return metrics["reward/expert"]

    other = jax.tree.map(lambda leaf: leaf + 1.0, TARGET)
    assert reward(TARGET, True) == reward(other, True)
    assert reward(TARGET, False) != reward(other, False)


def test_decoded_rewards_are_q_minus_the_discounted_target_value():
    """By hand, with Q̄ = 3 everywhere and β = 0."""
    network = dataclasses.replace(CONFIG.network, dropout=0.0)
    config = dataclasses.replace(CONFIG, network=network, entropy_coef=0.0)
    components = iqmpc.make_components(SPEC, config)
    target = jax.tree.map(jnp.zeros_like, PARAMS.model["critics"])
    last = target["params"]["_Dense_1"]
    target["params"]["_Dense_1"] = dict(last, bias=last["bias"] + 3.0)  # Q̄ = 3
    fixed, batch = iqmpc.Fixed(PARAMS.policy, target), some_batch()
    arguments = components, PARAMS.model, fixed, batch, KEY
    _, (zs, metrics) = jax.jit(functools.partial(iqmpc.model_loss, *arguments))()
    both = sequences.side_by_side(batch.expert, batch.learner)
    critics = PARAMS.model["critics"]
    values = components.critics.apply(critics, zs[:-1], both.actions)
    wanted = jnp.mean(values[:, :, :BATCH]) - 3.0 * components.discount
    np.testing.assert_allclose(metrics["reward/expert"], wanted, rtol=1e-4)


def test_the_recovered_reward_is_q_minus_the_discounted_value_of_the_mode():
    reward = iqmpc.recovered_reward(SPEC, CONFIG)
    obs, next_obs = normal(6, 3), normal(6, 3, seed=2)
    actions = jnp.array([2.0, 0.0]) + jnp.tanh(normal(6, 2, seed=3))
    critics, policy = PARAMS.model["critics"], COMPONENTS.policy
    z, next_z = (COMPONENTS.model.encode(PARAMS.model, x) for x in (obs, next_obs))
    mode = policy.mode(policy.apply(PARAMS.policy, next_z))
    scaled = (actions - jnp.array([2.0, 0.0])) / 2  # SPEC's actions, to [-1, 1]
    q = COMPONENTS.critics.apply(critics, z, scaled)[..., 0].mean(0)
    v = COMPONENTS.critics.apply(critics, next_z, mode)[..., 0].mean(0)
    found = jax.jit(reward)(PARAMS, obs, actions, next_obs)
    np.testing.assert_allclose(found, q - COMPONENTS.discount * v, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------ seed steps


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


def test_gradient_steps_wait_for_the_seed_steps_and_then_come_all_at_once():
    """20 seed steps, 10 environment steps a round: 0 at first, then 20, then 10 a round."""
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


def test_in_seed_steps_exploring_actions_are_uniform_and_others_are_not():
    init, _, made = agent()
    params = init(KEY).params
    start = EnvState((), normal(3), jnp.zeros((), jnp.int32))
    carry, keys = made.carry(), jax.random.split(KEY, 400)

    @functools.partial(jax.jit, static_argnums=1)
    def drawn(params, explore):
        return jax.vmap(lambda key: made.act(params, carry, start, key, explore)[0])(keys)

    actions = np.asarray(drawn(params, True))
    low, high = np.array(SPEC.action_low), np.array(SPEC.action_high)
    shares = (actions - low) / (high - low)
    np.testing.assert_allclose(shares.mean(0), 0.5, atol=0.05)
    np.testing.assert_allclose(shares.std(0), 12**-0.5, atol=0.03)
    planning = params.replace(random=jnp.zeros((), bool))
    np.testing.assert_array_equal(drawn(params, False), drawn(planning, False))
    assert np.abs(drawn(planning, True) - actions).max() > 0.1


def test_an_unknown_objective_is_refused():
    config = dataclasses.replace(CONFIG, objective="v0")
    with pytest.raises(UsageError, match="^agent.objective is one of 'start', 'value', no"):
        configs.check(config, "agent.")
    with pytest.raises(UsageError, match="objective is one of 'start', 'value', not 'v0'"):
        configs.from_config_dict({"objective": "v0"}, CONFIG)


def test_the_default_discount_looks_a_fifth_of_an_episode_ahead():
    lengths = {25: 0.95, 200: 0.975, 500: 0.99, 100_000: 0.995}
    for length, gamma in lengths.items():
        np.testing.assert_allclose(latent_planning.default_discount(length), gamma)
    assert COMPONENTS.discount == 0.95  # of 100 steps
    config = dataclasses.replace(CONFIG, discount=0.0)
    assert iqmpc.make_components(SPEC, config).discount == 0.0


def test_planning_one_after_another_equals_planning_side_by_side():
    """Also for an agent made inside the program, as those of a finished run are."""
    planner = dataclasses.replace(CONFIG.planner, horizon=2)

    def plans(sequential_vmap: bool):
        params = PARAMS.replace(random=jnp.zeros((), bool))
        planning = dataclasses.replace(CONFIG.planning, sequential_vmap=sequential_vmap)

        def drive(obs, key):
            config = dataclasses.replace(
                CONFIG, planner=planner, planning=planning, horizon=2
            )
            made = iqmpc.make(Task.of(SPEC), config)
            state = EnvState((), obs, jnp.zeros((), jnp.int32))

            def step(carry, key):
                return made.act(params, carry, state, key, True)[::-1]

            return jax.lax.scan(step, made.carry(), jax.random.split(key, 2))

        return jax.jit(jax.vmap(drive))(normal(3, 3), jax.random.split(KEY, 3))

    both = (jax.tree.leaves(plans(sequential)) for sequential in (False, True))
    for one, other in zip(*both, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_acting_parameters_follow_learned_ones_once_learning_has_begun():
    no, yes = jnp.zeros((), bool), jnp.ones((), bool)
    zero, one = ({"a": jnp.full((2,), value)} for value in (0.0, 1.0))
    for random, share in ((no, 0.25), (yes, 1.0)):
        before = latent_planning.InferenceParams(zero, zero, random)
        learned = latent_planning.InferenceParams(one, one, no)
        after = latent_planning.ema_params(0.25, before, learned)
        np.testing.assert_allclose(after.model["a"], share)
        np.testing.assert_allclose(after.policy["a"], share)
        assert not after.random


HALF = 0.5**0.5


@pytest.mark.parametrize(
    ("half_life", "hold", "expected"),
    [(None, 0, [1, 1, 1]), (2, 0, [1, HALF, 0.5]), (2, 1, [1, 1, HALF])],
)
def test_all_learning_rates_halve_and_the_encoder_s_is_a_multiple(
    half_life, hold, expected
):
    """For a constant gradient, every step of Adam is as long as the learning rate."""
    optimizer = dataclasses.replace(CONFIG.optimizer, lr_half_life=half_life, lr_hold=hold)
    components = iqmpc.make_components(
        SPEC, dataclasses.replace(CONFIG, optimizer=optimizer)
    )
    ones = jnp.ones(3)
    fits = {
        "encoder": (components.model_optimizer, {"encoder": ones, "step": ones}),
        "step": (components.model_optimizer, {"encoder": ones, "step": ones}),
        "policy": (components.policy_optimizer, {"policy": ones}),
    }
    for name, (fitter, weights) in fits.items():
        fitted, lengths = fitter.init(weights), []
        for _ in range(3):
            next_fit = fitter.step(fitted, weights)
            lengths.append(float((fitted.params[name] - next_fit.params[name])[0]))
            fitted = next_fit
        scale = optimizer.encoder_lr_scale if name == "encoder" else 1.0
        wanted = scale * optimizer.learning_rate * np.array(expected)
        np.testing.assert_allclose(lengths, wanted, rtol=1e-3)
