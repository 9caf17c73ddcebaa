"""MAIL by parts: the paper's recursion, corrected paths, losses, and what they change."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from planil_jax import config as configs
from planil_jax.agents import mail
from planil_jax.agents.common import forward_model
from planil_jax.base import (
    Demonstrations,
    Dynamics,
    EnvSpec,
    EnvState,
    Network,
    Task,
    Transition,
    UsageError,
)
from planil_jax.envs import pendulum, point_mass, wrappers
from planil_jax.models import ensemble, simulator, unroll
from planil_jax.nets import forward, heads, mlp, normalise

SPEC = EnvSpec("line", ("a", "b", "c"), (0.0, -2.0), (4.0, 2.0), 100, 0.1)
SMALL = mlp.Config(hidden=(8,), activation="tanh")
BARE = mlp.Config(hidden=())
CONFIG = mail.Config(
    policy=heads.Config(network=SMALL, std=0.5),
    discriminator=SMALL,
    model=ensemble.Config(network=forward.Config(network=SMALL), members=2),
    imagination=mail.ImaginationConfig(batch=4),
    optimizer=mail.OptimizerConfig(model_lr=1e-2, discriminator_lr=1e-2, policy_lr=1e-2),
    horizon=4,
    discount=0.9,
    expert_noise=0.3,
    updates_per_step=0.2,
    batch=6,
    capacity=30,
)
KEY = jax.random.key(0)


def options(**changed) -> mail.Config:
    """CONFIG with changed fields; of a group, those fields that a dict names."""
    for group in ("imagination", "optimizer"):
        fields = changed.pop(group, {})
        changed[group] = dataclasses.replace(getattr(CONFIG, group), **fields)
    return dataclasses.replace(CONFIG, **changed)


def make_components(
    config: mail.Config = CONFIG, spec: EnvSpec = SPEC, dynamics: Dynamics | None = None
) -> mail.Components:
    return mail.make_components(Task.of(spec, dynamics=dynamics), config)


def with_logit(components: mail.Components, logit, params=()) -> mail.Components:
    """With `logit(params, obs, action)` for a discriminator."""
    return components._replace(discriminator=Network(lambda key: params, logit))


def normal(*shape, seed: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def shifted(tree, by: float = 0.3):
    """The tree with no parameter at 0."""
    leaves, structure = jax.tree.flatten(tree)
    leaves = [
        leaf + by * np.asarray(normal(*leaf.shape, seed=i)) for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, leaves)


def same(left, right) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(bool(jnp.all(a == b)) for a, b in pairs)


# --------------------------------------------------------------- the paper's recursion (I5)
# A policy tanh(θ s) + ξ, a model s + tanh(F [s, a]) and a cost sigmoid(c [s, a]), with
# their slopes by hand.

GAMMA = 0.9


def toy(seed: int, obs: int = 3, actions: int = 2):
    """θ `[U, O]`, F `[O, O + U]`, c `[O + U]`, s_0 and noise `[H, U]`."""
    rng = np.random.default_rng(seed)
    shapes = ((actions, obs), (obs, obs + actions), (obs + actions,), (obs,), (5, actions))
    return [rng.normal(size=shape) for shape in shapes]


def total(theta, model, cost, start, noise, real=None):
    """J by the library's unrolling; along the states of the dynamics `real`, if given."""

    def recover(params, obs):
        return ensemble.ModelState(obs, jnp.zeros(()))

    def step(params, z, action, key):
        next_obs = z.obs + jnp.tanh(model @ jnp.concatenate([z.obs, action]))
        return ensemble.ModelState(next_obs, z.memory)

    dynamics = Dynamics(lambda key: (), None, step, lambda params, z: z.obs, recover)
    params = ()
    if real is not None:
        dynamics, params = unroll.straight_through(dynamics, real), ((), ())
    keys = jax.random.split(KEY, len(noise))

    def act(obs, noise):
        return jnp.tanh(theta @ obs) + noise

    obs, actions = unroll.path(act, dynamics, params, start, noise, keys)
    costs = jax.nn.sigmoid(jnp.concatenate([obs, actions], axis=1) @ cost)
    return jnp.sum(GAMMA ** jnp.arange(len(noise)) * costs)


def slopes(theta, model, cost, state, action):
    """c_s, c_a, π_s, π_θ, f_s, f_a at a state and an action, with θ flattened."""
    size, both = len(state), np.concatenate([state, action])
    probability = 1 / (1 + np.exp(-cost @ both))
    of_cost = probability * (1 - probability) * cost
    bend = 1 - np.tanh(theta @ state) ** 2
    of_theta = np.kron(np.eye(len(action)), state[None]) * bend[:, None]
    of_model = (1 - np.tanh(model @ both) ** 2)[:, None] * model
    return (
        of_cost[:size],
        of_cost[size:],
        bend[:, None] * theta,
        of_theta,
        np.eye(size) + of_model[:, :size],
        of_model[:, size:],
    )


def recursion(theta, model, cost, states, actions, typo: bool = False):
    """J_θ by equations 10 and 11; with the typo of Algorithm 1, π_θ in place of π_s."""
    of_state, of_theta = np.zeros(len(states[0])), np.zeros(theta.size)
    for state, action in zip(reversed(states), reversed(actions), strict=True):
        c_s, c_a, pi_s, pi_theta, f_s, f_a = slopes(theta, model, cost, state, action)
        of_theta = c_a @ pi_theta + GAMMA * (of_state @ f_a @ pi_theta + of_theta)
        inner = pi_theta if typo else pi_s
        of_state = c_s + c_a @ pi_s + GAMMA * of_state @ (f_s + f_a @ inner)
    return of_theta.reshape(theta.shape)


def path_by_loop(theta, model, start, noise, real=None):
    """The states and actions of the toy policy, by plain loops."""
    states, actions, state = [], [], start
    for drawn in noise:
        action = np.tanh(theta @ state) + drawn
        states.append(state)
        actions.append(action)
        predicted = state + np.tanh(model @ np.concatenate([state, action]))
        state = predicted if real is None else real(state, action)
    return states, actions


@pytest.mark.parametrize("seed", [0, 1])
def test_the_gradient_of_the_unrolled_cost_is_the_paper_s_recursion(seed):
    with jax.enable_x64(True):
        theta, model, cost, start, noise = toy(seed)
        found = jax.jit(jax.grad(total))(theta, model, cost, start, noise)
        expected = recursion(theta, model, cost, *path_by_loop(theta, model, start, noise))
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_the_gradient_of_the_unrolled_cost_is_that_of_central_finite_differences():
    with jax.enable_x64(True):
        theta, *rest = toy(2)
        value, step = jax.jit(total), 1e-5
        expected = np.zeros_like(theta)
        for index in np.ndindex(theta.shape):
            nudge = np.zeros_like(theta)
            nudge[index] = step
            gain = value(theta + nudge, *rest) - value(theta - nudge, *rest)
            expected[index] = gain / (2 * step)
        found = jax.jit(jax.grad(total))(theta, *rest)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_the_recursion_as_algorithm_1_prints_it_gives_another_gradient():
    """With one number each for state, action and θ the typo has a value: a wrong one."""
    with jax.enable_x64(True):
        theta, model, cost, start, noise = toy(3, obs=1, actions=1)
        found = jax.jit(jax.grad(total))(theta, model, cost, start, noise)
        path = path_by_loop(theta, model, start, noise)
        np.testing.assert_allclose(found, recursion(theta, model, cost, *path), rtol=1e-9)
        printed = recursion(theta, model, cost, *path, typo=True)
        assert abs(printed - found) > 0.01 * abs(found)


def test_corrected_costs_are_the_real_ones_with_the_model_s_slopes_there():
    """I5b: real states are those of s' = s / 2 + a, through which nothing is
    differentiated."""
    with jax.enable_x64(True):
        theta, model, cost, start, noise = toy(4, obs=2)

        def real(state, action):
            return state / 2 + action

        dynamics = Dynamics(
            init=lambda key: (),
            start=lambda params, state: state.obs,
            step=lambda params, obs, action, key: real(obs, action),
            observe=lambda params, obs: obs,
            recover=lambda params, obs: obs,
        )
        value_and_grad = jax.value_and_grad(functools.partial(total, real=dynamics))
        value, found = jax.jit(value_and_grad)(theta, model, cost, start, noise)
        states, actions = path_by_loop(theta, model, start, noise, real)
        costs = [
            1 / (1 + np.exp(-cost @ np.concatenate(pair)))
            for pair in zip(states, actions, strict=True)
        ]
        np.testing.assert_allclose(value, GAMMA ** np.arange(5) @ costs, rtol=1e-12)
        expected = recursion(theta, model, cost, states, actions)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


# ----------------------------------------------------------------------- the policy's loss


@functools.cache
def setting(config: mail.Config = CONFIG):
    """Components, and params of policy and of what its loss holds fixed; none is 0."""
    components = make_components(config)
    model = shifted(jax.jit(components.model.ensemble.dynamics.init)(KEY))
    model = model.replace(
        obs=normalise.Moments(
            jnp.float32(5), jnp.array([0.3, -0.2, 1.0]), jnp.full(3, 2.0)
        ),
        change=normalise.Moments(jnp.float32(5), jnp.full(3, 0.1), jnp.full(3, 0.25)),
    )
    policy = jax.jit(components.policy.init)(KEY)
    discriminator = jax.jit(components.discriminator.init)(KEY)
    return components, shifted(policy), mail.Frozen(shifted(discriminator), model)


def recorded_steps(batch: int = 4, length: int = 4) -> mail.Steps:
    """obs `[length + 1, B, 3]` and actions `[length, B, 2]`."""
    low, high = jnp.array(SPEC.action_low), jnp.array(SPEC.action_high)
    share = jax.nn.sigmoid(normal(length, batch, 2, seed=5))
    return mail.Steps(normal(length + 1, batch, 3), low + (high - low) * share)


def starts(obs: jax.Array, action_size: int) -> mail.Steps:
    """A batch of start states obs `[1, B, O]`; its actions are not read."""
    return mail.Steps(obs, jnp.zeros((1, obs.shape[1], action_size)))


def policy_loss(components: mail.Components, frozen: mail.Frozen, batch: mail.Steps):
    """The loss as a function of the policy's params alone."""
    return lambda params: mail.policy_loss(components, params, frozen, batch, KEY)[0]


COSTS = {  # of a logit that is high where it is the expert's
    "gail_neg": lambda logit: jnp.log1p(jnp.exp(-logit)),
    "neg_prob": lambda logit: 1 / (1 + jnp.exp(logit)),
}


@pytest.mark.parametrize("reward", COSTS)
def test_the_policy_s_loss_and_gradient_are_those_of_a_loop_over_starts_and_steps(reward):
    """Two starts, and every start goes through another member of the model."""
    config = options(reward=reward, horizon=3, imagination={"batch": 2})
    components, policy, frozen = setting(config)
    model, batch = frozen.model, recorded_steps(2, 3)
    noise = jax.random.normal(jax.random.split(KEY)[0], (3, 2, 2))
    member_step = components.model.ensemble.member

    def by_hand(policy):
        costs = 0.0
        for i in range(2):
            member = model.replace(
                networks=jax.tree.map(lambda x, i=i: x[i], model.networks)
            )
            obs = batch.obs[0, i]
            for t in range(3):
                normalised = normalise.apply(model.obs, obs)
                chosen = components.policy.apply(policy, normalised)
                scaled = jnp.tanh(chosen.mean + chosen.std * noise[t, i])
                logit = components.discriminator.apply(
                    frozen.discriminator, normalised, scaled
                )
                costs += 0.9**t * COSTS[reward](logit) / 2
                z = member_step.recover(member, obs)
                action = 2 * scaled + jnp.array([2.0, 0.0])
                obs = member_step.step(member, z, action, KEY).obs
        return costs

    (found, gradient), (expected, gradient_by_hand) = (
        jax.jit(jax.value_and_grad(loss))(policy)
        for loss in (policy_loss(components, frozen, batch), by_hand)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(gradient_by_hand), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_the_policy_s_loss_reports_the_mean_cost_and_the_mean_logit():
    """Of a logit that is the first entry of a single imagined state: its start."""
    components, policy, frozen = setting(options(reward="logit", horizon=1))
    components = with_logit(components, lambda params, obs, action: obs[..., 0])
    batch = starts(normal(1, 4, 3), 2)
    loss_fn = functools.partial(mail.policy_loss, components)
    loss, metrics = jax.jit(loss_fn)(policy, frozen, batch, KEY)
    moments = frozen.model.obs
    logits = (batch.obs[0, :, 0] - moments.mean[0]) / np.sqrt(moments.variance[0])
    np.testing.assert_allclose(metrics["policy/logit"], logits.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["policy/cost"], -logits.mean(), rtol=1e-5)
    np.testing.assert_allclose(loss, -logits.mean(), rtol=1e-5)


def test_along_recorded_states_the_loss_is_the_cost_of_the_recorded_actions():
    """Whatever the policy; and yet it has a gradient."""
    components, policy, frozen = setting(options(imagination={"correction": "recorded"}))
    batch = recorded_steps()
    value_and_grad = jax.jit(jax.value_and_grad(policy_loss(components, frozen, batch)))
    logits = components.discriminator.apply(
        frozen.discriminator,
        normalise.apply(frozen.model.obs, batch.obs[:-1]),
        components.scaling.to_unit_interval(batch.actions),
    )
    expected = np.mean(0.9 ** np.arange(4) @ np.log1p(np.exp(-np.asarray(logits))))
    for params in (policy, shifted(policy, 0.1)):
        value, gradient = value_and_grad(params)
        np.testing.assert_allclose(value, expected, rtol=1e-4)
        assert optax.tree.norm(gradient) > 1e-3


def line(horizon: int) -> tuple[mail.Components, mail.Frozen]:
    """A model in which an action of 1 changes the second entry by 1, and the second entry
    the first, a step later each; the logit is the first entry."""
    config = options(
        policy=heads.Config(network=BARE, std=0.5),
        reward="logit",
        learn_std=False,
        model=ensemble.Config(),
        horizon=horizon,
    )
    components = make_components(config)

    def step(params, z, action, key):
        a, b, c = z.obs
        return z.replace(obs=jnp.stack([a + b, b + action[1], c]))

    model = components.model
    member = model.ensemble.member._replace(step=step)
    model = model._replace(ensemble=model.ensemble._replace(member=member))
    components = with_logit(components, lambda params, obs, action: obs[..., 0])
    params = jax.jit(model.ensemble.dynamics.init)(KEY)
    return components._replace(model=model), mail.Frozen((), params)


@pytest.mark.parametrize(
    ("horizon", "expected"), [(1, 0.0), (2, 0.0), (3, 0.81), (4, 0.81 + 3 * 0.729)]
)
def test_costs_after_the_horizon_have_no_gradient(horizon, expected):
    """The first action changes the first entry after two steps: γ²; after three steps it
    does so twice, and the second action once: 3 γ³. The bound of 2 doubles them all."""
    components, frozen = line(horizon)
    policy = jax.tree.map(jnp.zeros_like, jax.jit(components.policy.init)(KEY))
    policy["params"]["raw_std"] = jnp.full(2, -30.0)  # next to no noise
    loss_of_params = policy_loss(components, frozen, starts(normal(1, 4, 3), 2))

    def loss(bias):
        changed = {**policy["params"], "Dense_0": {**policy["params"]["Dense_0"]}}
        changed["Dense_0"]["bias"] = jnp.stack([0.0, bias])
        return loss_of_params({"params": changed})

    found = -jax.jit(jax.grad(loss))(jnp.float32(0.0)) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("learn_std", [False, True])
def test_the_policy_s_deviation_has_a_gradient_only_if_it_is_learned(learn_std):
    components, policy, frozen = setting(options(learn_std=learn_std))
    gradient = jax.jit(jax.grad(policy_loss(components, frozen, recorded_steps())))(policy)
    assert bool(jnp.any(gradient["params"]["raw_std"] != 0)) == learn_std


# -------------------------------------------------------------------------------- physics


def point_config(**imagination) -> mail.Config:
    return options(expert_noise=0.0, horizon=6, imagination=imagination)


@functools.cache
def through_physics(**imagination):
    """States of the loss and of the environment from the same starts and noise, and the
    gradient of the loss."""
    env = point_mass.make()
    dynamics = simulator.make(env)
    components, logged = (
        make_components(point_config(**imagination), env.spec, dynamics),
        [],
    )

    def logit(params, obs, action):
        logged.append(obs)
        return jnp.sum(obs**2, axis=-1)

    components = with_logit(components, logit)
    model = shifted(jax.jit(components.model.ensemble.dynamics.init)(KEY))
    model = model.replace(
        obs=normalise.init(4), change=model.change.replace(variance=jnp.full(4, 0.01))
    )
    policy = shifted(jax.jit(components.policy.init)(KEY))
    batch = starts(normal(2, 4, 4), 2)
    loss_of_params = policy_loss(components, mail.Frozen((), model), batch)

    def loss(policy):
        return loss_of_params(policy), logged[-1]

    (_, obs), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(policy)
    noise = jax.random.normal(jax.random.split(KEY)[0], (6, 4, 2))

    @jax.jit
    def drive(start, noise):
        def one(obs, noise):
            chosen = components.policy.apply(policy, obs)
            action = jnp.tanh(chosen.mean + chosen.std * noise)
            state = EnvState(point_mass.Point(*obs), obs, jnp.zeros((), jnp.int32))
            return env.step(state, action)[0].obs, obs

        return jax.lax.scan(one, start, noise)[1]

    real = jax.vmap(drive, (0, 1), 1)(batch.obs[0], noise)
    return np.asarray(obs).reshape(6, 4, 4), np.asarray(real), gradient


def test_a_path_through_physics_visits_the_environment_s_states():
    found, real, gradient = through_physics(dynamics="physics")
    np.testing.assert_allclose(found, real, rtol=1e-5, atol=1e-5)
    assert optax.tree.norm(gradient) > 1e-3


def test_a_path_corrected_by_physics_has_real_states_and_the_model_s_slopes():
    found, real, gradient = through_physics(correction="physics")
    np.testing.assert_allclose(found, real, rtol=1e-5, atol=1e-5)
    gradient_of_physics = through_physics(dynamics="physics")[2]
    gap = optax.tree.norm(jax.tree.map(jnp.subtract, gradient, gradient_of_physics))
    assert gap > 0.1 * optax.tree.norm(gradient_of_physics)
    model_alone = through_physics()[0]
    assert np.abs(model_alone - real).max() > 0.1


def test_physics_that_loop_for_an_unknown_time_are_refused():
    env = point_mass.make()
    physics = simulator.make(env)

    def step(params, z, action, key):
        z = physics.step(params, z, action, key)
        obs = jax.lax.while_loop(lambda x: jnp.any(x > 9.0), lambda x: x / 2, z.obs)
        return z.replace(obs=obs)

    task = Task.of(env.spec, dynamics=physics._replace(step=step))
    assert unroll.differentiable(physics, env.spec)
    message = "^agent.imagination.dynamics=physics differentiates physics"
    with pytest.raises(UsageError, match=message):
        mail.make(task, point_config(dynamics="physics"))
    mail.make(task, point_config(correction="physics"))  # which only steps them


# ------------------------------------------------------------------------ the discriminator


def discriminator_loss(components, params, moments, expert, learner):
    """The loss and its metrics of pairs (obs [B, O], actions [B, U])."""
    batch = mail.DiscriminatorBatch(mail.Steps(*expert), mail.Steps(*learner))
    return mail.discriminator_loss(components, params, moments, batch, KEY)


def test_the_discriminator_s_loss_is_cross_entropy_and_penalty_by_hand():
    """A logit w · obs + v · action has the slope ‖(w, v)‖ wherever it is taken."""
    config = options(expert_noise=0.0, gradient_penalty=2.0, penalty_norm=0.5)
    w, v = np.array([1.0, -2.0, 0.5], np.float32), np.array([0.3, 0.4], np.float32)
    components = with_logit(
        make_components(config), lambda params, obs, a: obs @ params[0] + a @ params[1]
    )
    expert, learner = ((normal(5, 3, seed=i), normal(5, 2, seed=i + 9)) for i in (1, 2))
    loss, metrics = discriminator_loss(
        components, (w, v), normalise.init(3), expert, learner
    )
    # Bounds are 0 and 4, -2 and 2; new moments change no observation.
    expert_logit, learner_logit = (
        np.clip(obs, -10, 10) @ w + (np.asarray(a) - [2.0, 0.0]) / 2.0 @ v
        for obs, a in (expert, learner)
    )
    cross_entropy = (
        np.log1p(np.exp(-expert_logit)).mean() + np.log1p(np.exp(learner_logit)).mean()
    )
    penalty = (np.sqrt(w @ w + v @ v) - 0.5) ** 2
    np.testing.assert_allclose(loss, cross_entropy + 2.0 * penalty, rtol=1e-5)
    np.testing.assert_allclose(metrics["discriminator/loss"], cross_entropy, rtol=1e-5)
    np.testing.assert_allclose(metrics["discriminator/penalty"], penalty, rtol=1e-5)


def test_the_best_logit_is_the_log_ratio_of_the_noisy_expert_s_density_and_the_learner_s():
    """I6, of Gaussians N(1, 1 + noise²) and N(-0.5, 1.5²) in the first entry, by Newton's
    method on quadratic features; everything else is the same for both."""
    noise, count = 0.75, 100_000
    config = options(expert_noise=noise, gradient_penalty=0.0)

    def features(x):
        return jnp.stack([jnp.ones_like(x), x, x**2], axis=-1)

    components = with_logit(
        make_components(config), lambda w, obs, action: features(obs[..., 0]) @ w
    )
    rest = jnp.zeros((count, 2))
    expert = jnp.concatenate([1.0 + normal(count, 1), rest], axis=1), rest
    learner = jnp.concatenate([-0.5 + 1.5 * normal(count, 1, seed=2), rest], axis=1), rest

    def loss(w):
        return discriminator_loss(components, w, normalise.init(3), expert, learner)[0]

    @jax.jit
    def newton(w):
        return w - jnp.linalg.solve(jax.hessian(loss)(w), jax.grad(loss)(w))

    found = functools.reduce(lambda w, _: newton(w), range(8), jnp.zeros(3))
    s, t = 1 + noise**2, 1.5**2  # variances
    expected = [
        0.5 * np.log(t / s) - 0.5 / s + 0.25 * 0.5 / t,
        1 / s + 0.5 / t,
        0.5 / t - 0.5 / s,
    ]
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize("discrete", [False, True])
def test_the_expert_s_continuous_actions_get_noise_but_its_choices_do_not(discrete):
    """Else a logit of actions alone would recognise the expert's choices by their noise."""
    spec = SPEC._replace(action_low=(0.0,) * 2, action_high=(1.0,) * 2, discrete=discrete)
    pairs = jnp.zeros((8, 3)), jnp.eye(2)[jnp.arange(8) % 2]

    def loss(noise):
        config = options(expert_noise=noise, gradient_penalty=0.0)
        components = with_logit(
            make_components(config, spec), lambda w, obs, a: a @ jnp.array([1.0, -2.0])
        )
        arguments = jnp.zeros(()), normalise.init(3), pairs, pairs
        return float(discriminator_loss(components, *arguments)[0])

    assert (loss(0.5) == loss(0.0)) == discrete


def test_the_recovered_reward_is_the_logit_that_the_losses_read():
    config = options(expert_noise=0.0)
    components, _, frozen = setting(config)
    steps, moments = recorded_steps(), frozen.model.obs
    expert, learner = ((steps.obs[i], steps.actions[i]) for i in (0, 1))
    arguments = frozen.discriminator, moments, expert, learner
    _, metrics = discriminator_loss(components, *arguments)
    reward = mail.shows(Task.of(SPEC), config).reward
    params = mail.InferenceParams({}, frozen.discriminator, moments)
    for (obs, actions), name in ((expert, "expert_logit"), (learner, "learner_logit")):
        found = reward(params, obs, actions, jnp.zeros_like(obs))
        expected = metrics[f"discriminator/{name}"]
        np.testing.assert_allclose(jnp.mean(found), expected, rtol=1e-5)


def test_the_discriminator_reads_normalised_observations_and_actions_within_1():
    logged = []

    def logit(params, obs, action):
        logged.append((obs, action))
        return obs[..., 0]

    components = with_logit(make_components(options(expert_noise=0.0)), logit)
    moments = normalise.Moments(jnp.float32(9), jnp.full(3, 2.0), jnp.full(3, 4.0))
    obs, action = jnp.array([[4.0, 2.0, 0.0]]), jnp.array([[4.0, 1.0]])
    expert, learner = (obs, action), (obs + 2, action - 1)
    discriminator_loss(components, (), moments, expert, learner)
    np.testing.assert_allclose(logged[0][0], [[1.0, 0.0, -1.0]])
    np.testing.assert_allclose(logged[0][1], [[1.0, 0.5]])
    np.testing.assert_allclose(logged[1][0], [[2.0, 1.0, 0.0]])
    np.testing.assert_allclose(logged[1][1], [[0.5, 0.0]])


# -------------------------------------------------------------------------------- learning


def rollout(seed: int, length: int = 10) -> Transition:
    """`[length, 1]`; an episode ends in the middle."""
    obs = normal(length + 1, 1, 3, seed=seed)
    no = jnp.zeros((length, 1), bool)
    return Transition(
        obs=obs[:-1],
        action=jnp.array([2.0, 0.0]) + jnp.tanh(normal(length, 1, 2, seed=seed)),
        next_obs=obs[1:],
        reward=jnp.zeros((length, 1)),
        terminal=no,
        truncated=no.at[length // 2].set(True),
    )


def demonstrations(seed: int = 9) -> Demonstrations:
    return Demonstrations(
        obs=normal(2, 13, 3, seed=seed),
        actions=jnp.array([2.0, 0.0]) + jnp.tanh(normal(2, 12, 2, seed=seed + 1)),
        length=jnp.array([12, 8], jnp.int32),
        terminal=jnp.zeros((2,), bool),
        observed=(0, 1, 2),
    )


PARTS = ("policy", "discriminator", "model")


def with_rates(rates) -> dict:
    """The optimizer's fields with one learning rate for each of PARTS."""
    return {f"{part}_lr": rate for part, rate in zip(PARTS, rates, strict=True)}


@functools.cache
def program(expert_starts: float):
    """An update by given learning rates, compiled once."""

    def update(rates, state, expert_obs, expert_actions):
        config = options(
            imagination={"expert_starts": expert_starts},
            optimizer=with_rates(rates),
            model_steps=2,
            discriminator_steps=1,
            policy_steps=3,
        )
        demos = demonstrations().replace(obs=expert_obs, actions=expert_actions)
        agent = mail.make(Task.of(SPEC), config)
        return agent.update(state, rollout(1), demos, KEY, jnp.int32(0))

    return jax.jit(update)


@functools.cache
def updated(moving: tuple[str, ...], seed: int = 9, expert_starts: float = 0.0):
    """The State before and after an update in which only some parts have a rate, and its
    metrics."""
    before = jax.jit(mail.make(Task.of(SPEC), CONFIG).init)(KEY)
    before = before.replace(  # a discriminator and a model that are not constant
        discriminator=before.discriminator.replace(
            params=shifted(before.discriminator.params)
        ),
        model=before.model.replace(params=shifted(before.model.params)),
    )
    demos, rates = demonstrations(seed), [0.01 * (part in moving) for part in PARTS]
    return before, *program(expert_starts)(rates, before, demos.obs, demos.actions)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_s_loss_moves_that_part_alone(part):
    before, after, _ = updated((part,))
    for name in PARTS:
        still = same(getattr(before, name).params, getattr(after, name).params)
        assert still == (name != part), name


def test_other_demonstrations_change_the_discriminator_and_not_the_model():
    for part, changes in (("discriminator", True), ("model", False), ("policy", False)):
        after, other = updated((part,))[1], updated((part,), seed=30)[1]
        assert same(getattr(after, part).params, getattr(other, part).params) != changes


def test_imagined_paths_start_from_the_expert_s_states_if_a_share_of_them_should():
    after, other = (updated(("policy",), seed, expert_starts=0.5)[1] for seed in (9, 30))
    assert not same(after.policy.params, other.policy.params)


def test_every_part_takes_its_number_of_gradient_steps():
    """Two iterations, for a fifth of ten steps, of 2, 1 and 3."""
    after = updated(PARTS)[1]
    counts = (
        after.model.opt_state[0].count,
        after.discriminator.opt_state[0].count,
        after.policy.opt_state[1][0].count,
    )
    assert tuple(int(count) for count in counts) == (4, 2, 6)


def test_the_params_that_act_are_those_fitted_and_the_moments_of_all_observations():
    after, steps = updated(PARTS)[1], rollout(1)
    assert same(after.params.policy, after.policy.params)
    assert same(after.params.discriminator, after.discriminator.params)
    np.testing.assert_allclose(after.params.moments.mean, steps.obs.mean((0, 1)), rtol=1e-4)
    change = (steps.next_obs - steps.obs).reshape(-1, 3)
    np.testing.assert_allclose(after.change.variance, change.var(0), rtol=1e-4)


def test_gradient_steps_on_each_loss_lower_it():
    config = options(
        expert_noise=0.0, gradient_penalty=0.0, imagination={"correction": "recorded"}
    )
    components = make_components(config)
    state = jax.jit(mail.make(Task.of(SPEC), config).init)(KEY)
    state = state.replace(change=state.change.replace(variance=jnp.full(3, 0.5)))
    batch = recorded_steps(8)
    pairs = mail.DiscriminatorBatch(
        expert=mail.Steps(batch.obs[0], batch.actions[0]),
        learner=mail.Steps(batch.obs[1] - 1.0, batch.actions[1]),
    )

    def step(state, _):
        state, model_metrics = mail.fit_model(components, state, batch)
        state, metrics = mail.fit_discriminator(components, state, pairs, KEY)
        return state, model_metrics | metrics

    scan = jax.jit(lambda state: jax.lax.scan(step, state, None, length=200))
    state, metrics = scan(state)
    assert metrics["model/loss"][-1] < 0.5 * metrics["model/loss"][0]
    assert metrics["discriminator/loss"][-1] < 0.3 < metrics["discriminator/loss"][0]

    imagination = dataclasses.replace(config.imagination, correction=None)
    components = make_components(dataclasses.replace(config, imagination=imagination))

    def policy_step(state, key):
        return mail.fit_policy(components, state, batch, key)

    keys = jax.random.split(KEY, 100)
    metrics = jax.jit(lambda state: jax.lax.scan(policy_step, state, keys)[1])(state)
    costs = metrics["policy/cost"]
    assert costs[-10:].mean() < costs[:10].mean() - 0.05


def test_the_gradient_s_norm_is_reported_before_it_is_clipped():
    config = options(optimizer={"max_grad_norm": 1e-3})
    components, policy, frozen = setting(config)
    model, batch = frozen.model, recorded_steps()
    state = jax.jit(mail.make(Task.of(SPEC), config).init)(KEY)
    state = state.replace(
        params=state.params.replace(moments=model.obs),
        policy=state.policy.replace(params=policy),
        discriminator=state.discriminator.replace(params=frozen.discriminator),
        model=state.model.replace(params=model.networks),
        change=model.change,
    )
    fit = functools.partial(mail.fit_policy, components)
    _, metrics = jax.jit(fit)(state, batch, KEY)
    gradient = jax.jit(jax.grad(policy_loss(components, frozen, batch)))(policy)
    expected = optax.tree.norm(gradient)
    np.testing.assert_allclose(metrics["policy/gradient_norm"], expected, rtol=1e-4)
    assert expected > 1e-2


@pytest.mark.parametrize("half_life", [None, 1])
@pytest.mark.parametrize("part", ["policy", "discriminator"])
def test_a_part_s_learning_rate_halves_only_if_it_has_a_half_life(part, half_life):
    """Of a constant gradient, every step of Adam is as long as the learning rate."""
    config = options(optimizer={f"{part}_lr_half_life": half_life})
    optimizer = getattr(make_components(config), f"{part}_optimizer")
    gradient = jnp.full(3, 0.1)
    first = optimizer.step(optimizer.init(gradient), gradient)
    second = optimizer.step(first, gradient)
    lengths = [(gradient - first.params)[0], (first.params - second.params)[0]]
    halved = np.array([1.0, 0.5 if half_life else 1.0])
    np.testing.assert_allclose(lengths, 1e-2 * halved, rtol=1e-3)


def test_the_model_s_errors_are_those_on_steps_that_it_has_not_learned_yet():
    """A new model predicts the mean change: 0 before any step, in units of 1."""
    components, init = setting()[0], jax.jit(mail.make(Task.of(SPEC), CONFIG).init)
    model = mail.model_params(init(KEY))
    errors = jax.jit(functools.partial(forward_model.fresh_errors, components.model))
    metrics = errors(model, rollout(1))
    change = np.asarray(rollout(1).next_obs - rollout(1).obs).reshape(-1, 3)
    expected = np.sqrt(np.mean(change**2, axis=0))
    np.testing.assert_allclose(metrics["model/fresh_error"], expected.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["model/worst_error"], expected.max(), rtol=1e-4)


def test_an_update_reports_the_model_s_errors_before_it_learns():
    """The first rollout's, of a new model: see the test above."""
    config = options(model_steps=20, optimizer={"model_lr": 0.1})
    agent = mail.make(Task.of(SPEC), config)
    init, update = jax.jit(agent.init), jax.jit(agent.update)
    _, metrics = update(init(KEY), rollout(1), demonstrations(), KEY, jnp.int32(0))
    change = np.asarray(rollout(1).next_obs - rollout(1).obs).reshape(-1, 3)
    expected = np.sqrt(np.mean(change**2, axis=0))
    np.testing.assert_allclose(metrics["model/fresh_error"], expected.mean(), rtol=1e-4)


def test_the_published_choices_go_together():
    """Real states, no penalty, no noise and no learned deviation, 10 steps ahead."""
    agent = mail.make(Task.of(SPEC), mail.published())
    arguments = rollout(1), demonstrations(), KEY, jnp.int32(0)
    before = jax.eval_shape(agent.init, KEY)
    after, metrics = jax.eval_shape(agent.update, before, *arguments)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert "policy/gradient_norm" in metrics


IMAGINATION = "agent.imagination"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"imagination": {"dynamics": "mjx"}},
            f"{IMAGINATION}.dynamics is one of model, physics, not 'mjx'.",
        ),
        (
            {"imagination": {"correction": "real"}},
            f"{IMAGINATION}.correction is one of None, recorded, physics",
        ),
        ({"reward": "gail"}, "agent.reward is one of"),
        (
            {"imagination": {"dynamics": "physics", "correction": "recorded"}},
            f"{IMAGINATION}.dynamics=physics leaves nothing",
        ),
        (
            {"imagination": {"correction": "recorded", "expert_starts": 0.5}},
            f"{IMAGINATION}.correction=recorded starts",
        ),
        ({"imagination": {"batch": 5}}, f"{IMAGINATION}.batch, 5, must be a multiple of"),
        (
            {"imagination": {"dynamics": "physics"}},
            "MAIL starts physics from an observation",
        ),
        (
            {"imagination": {"correction": "physics"}},
            "MAIL starts physics from an observation",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changed, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        mail.make(Task.of(SPEC), options(**changed))


@pytest.mark.parametrize("field", ["dynamics", "correction"])
def test_an_imagination_s_unknown_choice_is_refused_by_the_configuration_too(field):
    config = options(imagination={field: "real"})
    with pytest.raises(UsageError, match=f"{field} is one of .*'physics'.*, not 'real'."):
        configs.to_config_dict(config)


def test_rounds_shorter_than_the_horizon_cannot_correct_to_recorded_states():
    config = options(imagination={"correction": "recorded"}, horizon=11)
    agent = mail.make(Task.of(SPEC), config)
    arguments = rollout(1), demonstrations(), KEY, jnp.int32(0)
    message = "^agent.imagination.correction=recorded takes 11 steps out of"
    with pytest.raises(UsageError, match=message):
        jax.eval_shape(agent.update, agent.init(KEY), *arguments)


# --------------------------------------------------------------------------------- choices


CHOICES = wrappers.choices(pendulum.make(), 5)


def config_of_choices(**changed) -> mail.Config:
    return options(expert_noise=0.0, horizon=3, **changed)


def random_choices(length: int, batch: int) -> jax.Array:
    """`[length, batch, 5]`"""
    chosen = np.random.default_rng(4).integers(5, size=(length, batch))
    return jnp.asarray(np.eye(5)[chosen], jnp.float32)


@functools.cache
def setting_of_choices(**imagination):
    """Components, a policy over choices, what its loss holds fixed, and a batch."""
    config = config_of_choices(imagination=imagination)
    components = make_components(config, CHOICES.spec, simulator.make(CHOICES))
    model = shifted(jax.jit(components.model.ensemble.dynamics.init)(KEY))
    model = model.replace(
        obs=normalise.init(3), change=model.change.replace(variance=jnp.full(3, 0.01))
    )
    policy = jax.jit(components.policy.init)(KEY)
    discriminator = jax.jit(components.discriminator.init)(KEY)
    frozen = mail.Frozen(shifted(discriminator), model)
    batch = mail.Steps(normal(4, 4, 3), random_choices(3, 4))
    return components, shifted(policy), frozen, batch


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_first_choice_moves_the_policy_by_the_slope_of_the_softmax(temperature):
    """One step from each of 4 starts: Σ_s c_a J_softmax ∂logits, by hand, of a logit w · a,
    so that c_a is w e^-l / (1 + e^-l)."""
    config = config_of_choices(temperature=temperature)
    config = dataclasses.replace(config, horizon=1, policy=heads.Config(network=BARE))
    weights = normal(5, seed=8)
    components = make_components(config, CHOICES.spec)
    components = with_logit(components, lambda params, obs, action: action @ weights)
    model = jax.jit(components.model.ensemble.dynamics.init)(KEY)
    policy = shifted(jax.jit(components.policy.init)(KEY))
    batch = mail.Steps(normal(1, 4, 3), random_choices(1, 4))
    loss = policy_loss(components, mail.Frozen((), model), batch)
    value, gradient = jax.jit(jax.value_and_grad(loss))(policy)
    dense, obs = policy["params"]["Dense_0"], np.asarray(batch.obs[0], float)  # new moments
    noise = np.asarray(jax.random.gumbel(jax.random.split(KEY)[0], (1, 4, 5))[0], float)
    costs, of_bias = [], np.zeros(5)
    for row, drawn in zip(obs, noise, strict=True):
        scores = row @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"]) + drawn
        logit = (2 * np.eye(5)[np.argmax(scores)] - 1) @ np.asarray(weights)
        costs.append(np.log1p(np.exp(-logit)))
        p = np.exp(scores / temperature) / np.exp(scores / temperature).sum()
        of_action = -2 * np.asarray(weights) / (1 + np.exp(logit))
        of_bias += of_action @ (np.diag(p) - np.outer(p, p)) / temperature / 4
    np.testing.assert_allclose(value, np.mean(costs), rtol=1e-4)
    found = gradient["params"]["Dense_0"]["bias"]
    np.testing.assert_allclose(found, of_bias, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "imagination", [{}, {"dynamics": "physics"}, {"correction": "physics"}]
)
def test_choices_have_a_gradient_through_the_model_and_through_physics(imagination):
    """Even of a discriminator that reads states alone."""
    components, policy, frozen, batch = setting_of_choices(**imagination)
    components = with_logit(
        components, lambda params, obs, action: jnp.sum(obs**2, axis=-1)
    )
    gradient = jax.jit(jax.grad(policy_loss(components, frozen, batch)))(policy)
    assert optax.tree.norm(gradient) > 1e-3


def test_along_recorded_states_the_loss_is_the_cost_of_the_recorded_choices():
    components, policy, frozen, batch = setting_of_choices(correction="recorded")
    loss = policy_loss(components, frozen, batch)
    value, gradient = jax.jit(jax.value_and_grad(loss))(policy)
    obs = normalise.apply(frozen.model.obs, batch.obs[:-1])
    logits = components.discriminator.apply(
        frozen.discriminator, obs, 2 * batch.actions - 1
    )
    expected = np.mean(0.9 ** np.arange(3) @ np.log1p(np.exp(-np.asarray(logits))))
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    assert optax.tree.norm(gradient) > 1e-3


@functools.cache
def update_of_choices():
    """An update by the learning rates of the parts, compiled once; and where it starts."""
    spec = CHOICES.spec
    start = jax.vmap(CHOICES.reset)(jax.random.split(KEY, 10))
    steps = jax.vmap(CHOICES.step)(start, random_choices(10, 1)[:, 0])[1]
    rollout = jax.tree.map(lambda leaf: leaf[:, None], steps)
    demos = Demonstrations(
        obs=normal(2, 13, 3),
        actions=random_choices(2, 12),
        length=jnp.array([12, 8], jnp.int32),
        terminal=jnp.zeros((2,), bool),
        observed=(0, 1, 2),
    )

    def update(rates, state):
        config = config_of_choices(optimizer=with_rates(rates))
        agent = mail.make(Task.of(spec), config)
        return agent.update(state, rollout, demos, KEY, jnp.int32(0))

    init = jax.jit(mail.make(Task.of(spec), config_of_choices()).init)
    return jax.jit(update), init(KEY)


@pytest.mark.parametrize("part", PARTS)
def test_where_actions_are_choices_a_part_s_loss_moves_that_part_alone(part):
    update, before = update_of_choices()
    after, _ = update([0.01 * (name == part) for name in PARTS], before)
    for name in PARTS:
        still = same(getattr(before, name).params, getattr(after, name).params)
        assert still == (name != part), name


@pytest.mark.parametrize("explore", [False, True])
def test_after_an_update_the_policy_acts_by_choices(explore):
    update, before = update_of_choices()
    after, metrics = update([0.01] * 3, before)
    assert all(np.isfinite(value) for value in metrics.values())
    agent = mail.make(Task.of(CHOICES.spec), config_of_choices())
    keys = jax.random.split(KEY, 20)

    def one(key):
        return agent.act(after.params, (), CHOICES.reset(key), key, explore)[0]

    actions = np.asarray(jax.jit(jax.vmap(one))(keys))
    assert set(actions.ravel()) == {0.0, 1.0} and (actions.sum(1) == 1).all()
