"""MAIL, part by part: the paper's recursion, corrections, losses, and what moves what."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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
    horizon=4,
    discount=0.9,
    expert_noise=0.3,
    batch=6,
    policy_batch=4,
    updates_per_step=0.2,
    capacity=30,
    model_lr=1e-2,
    discriminator_lr=1e-2,
    policy_lr=1e-2,
)
KEY = jax.random.key(0)


def options(**changed) -> mail.Config:
    return dataclasses.replace(CONFIG, **changed)


def normal(*shape, seed: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def shifted(tree, by: float = 0.3):
    """With no parameter at 0."""
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

SIZES = (3, 2)
GAMMA = 0.9


def toy(seed: int, obs: int = 3, actions: int = 2):
    """θ `[U, O]`, F `[O, O + U]`, c `[O + U]`, s_0 and noise `[H, U]`."""
    rng = np.random.default_rng(seed)
    shapes = ((actions, obs), (obs, obs + actions), (obs + actions,), (obs,), (5, actions))
    return [rng.normal(size=shape) for shape in shapes]


def total(theta, model, cost, start, noise, dynamics=None):
    """J, by the library's unrolling."""

    def recover(params, obs):
        return ensemble.ModelState(obs, jnp.zeros(()))

    def step(params, z, action, key):
        following = z.obs + jnp.tanh(model @ jnp.concatenate([z.obs, action]))
        return ensemble.ModelState(following, z.memory)

    own = Dynamics(lambda key: (), None, step, lambda params, z: z.obs, recover)
    params = ()
    if dynamics is not None:
        own, params = unroll.straight_through(own, dynamics), ((), ())
    keys = jax.random.split(KEY, len(noise))

    def act(seen, drawn):
        return jnp.tanh(theta @ seen) + drawn

    seen, acted = unroll.path(act, own, params, start, noise, keys)
    costs = jax.nn.sigmoid(jnp.concatenate([seen, acted], axis=1) @ cost)
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


def visited(theta, model, start, noise, real=None):
    states, actions, state = [], [], start
    for drawn in noise:
        action = np.tanh(theta @ state) + drawn
        states.append(state)
        actions.append(action)
        foreseen = state + np.tanh(model @ np.concatenate([state, action]))
        state = foreseen if real is None else real(state, action)
    return states, actions


@pytest.mark.parametrize("seed", [0, 1])
def test_the_gradient_of_the_unrolled_cost_is_the_paper_s_recursion(seed):
    with jax.enable_x64(True):
        theta, model, cost, start, noise = toy(seed)
        found = jax.jit(jax.grad(total))(theta, model, cost, start, noise)
        wanted = recursion(theta, model, cost, *visited(theta, model, start, noise))
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_it_is_that_of_central_finite_differences():
    with jax.enable_x64(True):
        theta, *rest = toy(2)
        value, step = jax.jit(total), 1e-5
        wanted = np.zeros_like(theta)
        for place in np.ndindex(theta.shape):
            nudge = np.zeros_like(theta)
            nudge[place] = step
            gain = value(theta + nudge, *rest) - value(theta - nudge, *rest)
            wanted[place] = gain / (2 * step)
        found = jax.jit(jax.grad(total))(theta, *rest)
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)


def test_as_algorithm_1_prints_it_the_recursion_is_another():
    """With one number each for state, action and θ the typo has a value: a wrong one."""
    with jax.enable_x64(True):
        theta, model, cost, start, noise = toy(3, obs=1, actions=1)
        found = jax.jit(jax.grad(total))(theta, model, cost, start, noise)
        path = visited(theta, model, start, noise)
        np.testing.assert_allclose(found, recursion(theta, model, cost, *path), rtol=1e-9)
        printed = recursion(theta, model, cost, *path, typo=True)
        assert abs(printed - found) > 0.01 * abs(found)


def test_corrected_costs_are_the_real_ones_with_the_model_s_slopes_there():
    """I5b: real states are those of s' = s / 2 + a, of which nothing is differentiated."""
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
        both = jax.jit(jax.value_and_grad(functools.partial(total, dynamics=dynamics)))
        value, found = both(theta, model, cost, start, noise)
        states, actions = visited(theta, model, start, noise, real)
        costs = [
            1 / (1 + np.exp(-cost @ np.concatenate(pair)))
            for pair in zip(states, actions, strict=True)
        ]
        np.testing.assert_allclose(value, GAMMA ** np.arange(5) @ costs, rtol=1e-12)
        wanted = recursion(theta, model, cost, states, actions)
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


# ----------------------------------------------------------------------- the policy's loss


@functools.cache
def setting(config: mail.Config = CONFIG):
    """Parts, and parameters of policy, discriminator and model, none of which is 0."""
    parts = mail.make_parts(SPEC, config)
    model = shifted(jax.jit(parts.model.ensemble.dynamics.init)(KEY))
    model = model.replace(
        obs=normalise.Moments(
            jnp.float32(5), jnp.array([0.3, -0.2, 1.0]), jnp.full(3, 2.0)
        ),
        change=normalise.Moments(jnp.float32(5), jnp.full(3, 0.1), jnp.full(3, 0.25)),
    )
    policy, judge = jax.jit(parts.policy.init)(KEY), jax.jit(parts.judge.init)(KEY)
    return parts, shifted(policy), shifted(judge), model


def records(batch: int = 4, length: int = 4):
    """obs `[length + 1, B, 3]` and actions `[length, B, 2]`."""
    low, high = jnp.array(SPEC.action_low), jnp.array(SPEC.action_high)
    share = jax.nn.sigmoid(normal(length, batch, 2, seed=5))
    return normal(length + 1, batch, 3), low + (high - low) * share


COSTS = {  # of a logit that is high where it is the expert's
    "gail_neg": lambda logit: jnp.log1p(jnp.exp(-logit)),
    "neg_prob": lambda logit: 1 / (1 + jnp.exp(logit)),
}


@pytest.mark.parametrize("reward", COSTS)
def test_the_loss_and_its_gradient_are_those_of_a_loop_over_starts_and_steps(reward):
    """Two starts, of which each goes through a member of its own."""
    config = options(reward=reward, horizon=3, policy_batch=2)
    parts, policy, judge, model = setting(config)
    obs, actions = records(2, 3)
    noise = jax.random.normal(jax.random.split(KEY)[0], (3, 2, 2))

    def by_hand(policy):
        costs = 0.0
        for i in range(2):
            member = model.replace(
                networks=jax.tree.map(lambda x, i=i: x[i], model.networks)
            )
            seen = obs[0, i]
            for t in range(3):
                chosen = parts.policy.apply(policy, normalise.apply(model.obs, seen))
                unit = jnp.tanh(chosen.mean + chosen.std * noise[t, i])
                logit = parts.judge.apply(judge, normalise.apply(model.obs, seen), unit)
                costs += 0.9**t * COSTS[reward](logit) / 2
                z = parts.model.ensemble.member.recover(member, seen)
                action = 2 * unit + jnp.array([2.0, 0.0])
                seen = parts.model.ensemble.member.step(member, z, action, KEY).obs
        return costs

    def loss(policy):
        return mail.policy_loss(config, parts, policy, judge, model, obs, actions, KEY)[0]

    (found, slope), (wanted, steps) = (
        jax.jit(jax.value_and_grad(each))(policy) for each in (loss, by_hand)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(slope), jax.tree.leaves(steps), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_along_records_the_loss_is_the_cost_of_what_was_done():
    """Whatever the policy; and yet it has a gradient."""
    config = options(correct="recorded")
    parts, policy, judge, model = setting(config)
    obs, actions = records()

    @jax.jit
    def both(policy):
        def loss(policy):
            arguments = policy, judge, model, obs, actions, KEY
            return mail.policy_loss(config, parts, *arguments)[0]

        return jax.value_and_grad(loss)(policy)

    logits = parts.judge.apply(
        judge, normalise.apply(model.obs, obs[:-1]), parts.unit(actions)
    )
    wanted = np.mean(0.9 ** np.arange(4) @ np.log1p(np.exp(-np.asarray(logits))))
    for params in (policy, shifted(policy, 0.1)):
        value, slope = both(params)
        np.testing.assert_allclose(value, wanted, rtol=1e-4)
        assert optax.tree.norm(slope) > 1e-3


def line(cost_of: str) -> tuple[mail.Components, mail.Config, ensemble.ModelParams]:
    """A model in which an action of 1 changes the second entry by 1, and the second entry
    the first, a step later each; the logit is the first entry, or the first action."""
    config = options(
        policy=heads.Config(network=mlp.Config(hidden=()), std=0.5),
        reward="logit",
        learn_std=False,
        model=ensemble.Config(),
    )
    parts = mail.make_parts(SPEC, config)

    def step(params, z, action, key):
        a, b, c = z.obs
        return z.replace(obs=jnp.stack([a + b, b + action[1], c]))

    def logit(params, obs, action):
        return obs[..., 0] if cost_of == "state" else action[..., 1]

    judge = Network(lambda key: (), logit)
    member = parts.model.ensemble.member._replace(step=step)
    models = parts.model.ensemble._replace(member=member)
    parts = parts._replace(judge=judge, model=parts.model._replace(ensemble=models))
    model = jax.jit(parts.model.ensemble.dynamics.init)(KEY)
    return parts, config, model


@pytest.mark.parametrize(
    ("horizon", "wanted"), [(1, 0.0), (2, 0.0), (3, 0.81), (4, 0.81 + 3 * 0.729)]
)
def test_what_comes_later_than_the_horizon_teaches_nothing(horizon, wanted):
    """The first action tells in the first entry after two steps: γ²; after three it does
    so twice, and the second one once: 3 γ³. The bound of 2 doubles them all."""
    parts, config, model = line("state")
    config = dataclasses.replace(config, horizon=horizon)
    policy = jax.tree.map(jnp.zeros_like, jax.jit(parts.policy.init)(KEY))
    policy["params"]["raw_std"] = jnp.full(2, -30.0)  # next to no noise

    def loss(bias):
        changed = {**policy["params"], "Dense_0": {**policy["params"]["Dense_0"]}}
        changed["Dense_0"]["bias"] = jnp.stack([0.0, bias])
        arguments = (
            {"params": changed},
            (),
            model,
            normal(1, 4, 3),
            jnp.zeros((1, 4, 2)),
            KEY,
        )
        return mail.policy_loss(config, parts, *arguments)[0]

    found = -jax.jit(jax.grad(loss))(jnp.float32(0.0)) / 2
    np.testing.assert_allclose(found, wanted, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("learn_std", [False, True])
def test_the_deviation_is_learned_only_if_told_to(learn_std):
    config = options(learn_std=learn_std)
    parts, policy, judge, model = setting(config)
    obs, actions = records()

    def loss(policy):
        return mail.policy_loss(config, parts, policy, judge, model, obs, actions, KEY)[0]

    slope = jax.jit(jax.grad(loss))(policy)["params"]["raw_std"]
    assert bool(jnp.any(slope != 0)) == learn_std


# -------------------------------------------------------------------------------- physics


def point_config(**changed) -> mail.Config:
    return options(expert_noise=0.0, horizon=6, **changed)


@functools.cache
def through_physics(**changed):
    """States, by the loss and by the environment, from the same starts and noise."""
    env = point_mass.make()
    config = point_config(**changed)
    parts = mail.make_parts(env.spec, config, simulator.make(env))
    told = []

    def logit(params, obs, action):
        told.append(obs)
        return jnp.sum(obs**2, axis=-1)

    parts = parts._replace(judge=Network(lambda key: (), logit))
    model = shifted(jax.jit(parts.model.ensemble.dynamics.init)(KEY))
    model = model.replace(
        obs=normalise.init(4), change=model.change.replace(variance=jnp.full(4, 0.01))
    )
    policy = shifted(jax.jit(parts.policy.init)(KEY))
    obs = normal(2, 4, 4)

    def loss(policy):
        arguments = policy, (), model, obs, jnp.zeros((1, 4, 2)), KEY
        return mail.policy_loss(config, parts, *arguments)[0], told[-1]

    (_, seen), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(policy)
    noise = jax.random.normal(jax.random.split(KEY)[0], (6, 4, 2))

    @jax.jit
    def drive(start, noise):
        def one(obs, drawn):
            chosen = parts.policy.apply(policy, obs)
            action = jnp.tanh(chosen.mean + chosen.std * drawn)
            state = EnvState(point_mass.Point(*obs), obs, jnp.zeros((), jnp.int32))
            return env.step(state, action)[0].obs, obs

        return jax.lax.scan(one, start, noise)[1]

    real = jax.vmap(drive, (0, 1), 1)(obs[0], noise)
    return np.asarray(seen).reshape(6, 4, 4), np.asarray(real), slope


def test_true_physics_are_rolled_through():
    found, real, slope = through_physics(roll="physics")
    np.testing.assert_allclose(found, real, rtol=1e-5, atol=1e-5)
    assert optax.tree.norm(slope) > 1e-3


def test_corrected_by_physics_the_states_are_real_and_the_slopes_are_the_model_s():
    found, real, slope = through_physics(correct="physics")
    np.testing.assert_allclose(found, real, rtol=1e-5, atol=1e-5)
    of_physics = through_physics(roll="physics")[2]
    gap = optax.tree.norm(jax.tree.map(jnp.subtract, slope, of_physics))
    assert gap > 0.1 * optax.tree.norm(of_physics)
    model_alone = through_physics()[0]
    assert np.abs(model_alone - real).max() > 0.1


def test_physics_that_loop_for_an_unknown_time_are_refused():
    env = point_mass.make()
    physics = simulator.make(env)

    def step(params, z, action, key):
        z = physics.step(params, z, action, key)
        obs = jax.lax.while_loop(lambda x: jnp.any(x > 9.0), lambda x: x / 2, z.obs)
        return z.replace(obs=obs)

    looping = physics._replace(step=step)
    assert unroll.differentiable(physics, env.spec)
    with pytest.raises(UsageError, match="^agent.roll=physics differentiates physics"):
        mail.make(Task.of(env.spec, dynamics=looping), point_config(roll="physics"))
    mail.make(
        Task.of(env.spec, dynamics=looping), point_config(correct="physics")
    )  # only stepped


# ------------------------------------------------------------------------ the discriminator


def test_the_best_logit_is_the_log_ratio_of_the_noisy_expert_s_density_and_the_learner_s():
    """I6, of Gaussians N(1, 1 + noise²) and N(-0.5, 1.5²) in the first entry, by Newton's
    method on quadratic features; everything else is the same for both."""
    noise, count = 0.75, 100_000
    config = options(expert_noise=noise, gradient_penalty=0.0)

    def features(x):
        return jnp.stack([jnp.ones_like(x), x, x**2], axis=-1)

    judge = Network(lambda key: jnp.zeros(3), lambda w, obs, a: features(obs[..., 0]) @ w)
    parts = mail.make_parts(SPEC, config)._replace(judge=judge)
    rest = jnp.zeros((count, 2))
    experts = jnp.concatenate([1.0 + normal(count, 1), rest], axis=1), rest
    own = jnp.concatenate([-0.5 + 1.5 * normal(count, 1, seed=2), rest], axis=1), rest

    def loss(w):
        moments = normalise.init(3)
        return mail.discriminator_loss(config, parts, w, moments, experts, own, KEY)[0]

    @jax.jit
    def newton(w):
        return w - jnp.linalg.solve(jax.hessian(loss)(w), jax.grad(loss)(w))

    found = functools.reduce(lambda w, _: newton(w), range(8), jnp.zeros(3))
    s, t = 1 + noise**2, 1.5**2  # variances
    wanted = [
        0.5 * np.log(t / s) - 0.5 / s + 0.25 * 0.5 / t,
        1 / s + 0.5 / t,
        0.5 / t - 0.5 / s,
    ]
    np.testing.assert_allclose(found, wanted, atol=0.02)


@pytest.mark.parametrize("discrete", [False, True])
def test_numbers_of_the_expert_are_noisy_but_its_choices_are_not(discrete):
    """A logit of actions alone would else tell choices of the expert by their noise."""
    spec = SPEC._replace(action_low=(0.0,) * 2, action_high=(1.0,) * 2, discrete=discrete)
    judge = Network(lambda key: jnp.zeros(()), lambda w, obs, a: a @ jnp.array([1.0, -2.0]))
    pairs = jnp.zeros((8, 3)), jnp.eye(2)[jnp.arange(8) % 2]

    def loss(noise):
        config = options(expert_noise=noise, gradient_penalty=0.0)
        parts = mail.make_parts(spec, config)._replace(judge=judge)
        arguments = jnp.zeros(()), normalise.init(3), pairs, pairs, KEY
        return float(mail.discriminator_loss(config, parts, *arguments)[0])

    assert (loss(0.5) == loss(0.0)) == discrete


def test_the_recovered_reward_is_the_logit_that_the_losses_read():
    parts, _, judge, model = setting()
    obs, actions = records()
    expert, own = (obs[0], actions[0]), (obs[1], actions[1])
    config = options(expert_noise=0.0)
    _, told = mail.discriminator_loss(config, parts, judge, model.obs, expert, own, KEY)
    reward = mail.recovered_reward(SPEC, CONFIG)
    params = mail.InferenceParams({}, judge, model.obs)
    for (obs, actions), name in ((expert, "expert_logit"), (own, "learner_logit")):
        found = reward(params, obs, actions, jnp.zeros_like(obs))
        wanted = told[f"discriminator/{name}"]
        np.testing.assert_allclose(jnp.mean(found), wanted, rtol=1e-5)


def test_the_discriminator_reads_normalised_observations_and_actions_within_1():
    parts, seen = mail.make_parts(SPEC, CONFIG), []

    def logit(params, obs, action):
        seen.append((obs, action))
        return obs[..., 0]

    parts = parts._replace(judge=Network(lambda key: (), logit))
    config = options(expert_noise=0.0)
    moments = normalise.Moments(jnp.float32(9), jnp.full(3, 2.0), jnp.full(3, 4.0))
    obs, action = jnp.array([[4.0, 2.0, 0.0]]), jnp.array([[4.0, 1.0]])
    expert, own = (obs, action), (obs + 2, action - 1)
    mail.discriminator_loss(config, parts, (), moments, expert, own, KEY)
    np.testing.assert_allclose(seen[0][0], [[1.0, 0.0, -1.0]])
    np.testing.assert_allclose(seen[0][1], [[1.0, 0.5]])
    np.testing.assert_allclose(seen[1][0], [[2.0, 1.0, 0.0]])
    np.testing.assert_allclose(seen[1][1], [[0.5, 0.0]])


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


@functools.cache
def program(expert_starts: float):
    """An update of given rates, compiled once."""

    def update(rates, state, seed_obs, seed_actions):
        changed = {f"{part}_rate": rate for part, rate in zip(PARTS, rates, strict=True)}
        config = options(
            expert_starts=expert_starts,
            model_steps=2,
            discriminator_steps=1,
            policy_steps=3,
            **changed,
        )
        demos = demonstrations().replace(obs=seed_obs, actions=seed_actions)
        made = mail.make(Task.of(SPEC), config)
        return made.update(state, rollout(1), demos, KEY, jnp.int32(0))

    return jax.jit(update)


@functools.cache
def updated(moving: tuple[str, ...], seed: int = 9, expert_starts: float = 0.0):
    """The State before and after an update in which only some parts have a rate."""
    before = jax.jit(mail.make(Task.of(SPEC), CONFIG).init)(KEY)
    before = before.replace(  # a discriminator and a model that say something
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


def test_the_expert_teaches_the_discriminator_and_not_the_model():
    for part, told in (("discriminator", True), ("model", False), ("policy", False)):
        after, other = updated((part,))[1], updated((part,), seed=30)[1]
        assert same(getattr(after, part).params, getattr(other, part).params) != told


def test_the_expert_s_states_are_started_from_if_told_to():
    after, other = (updated(("policy",), seed, expert_starts=0.5)[1] for seed in (9, 30))
    assert not same(after.policy.params, other.policy.params)


def test_every_part_takes_its_number_of_steps():
    """Two iterations, for a fifth of ten steps, of 2, 1 and 3."""
    after = updated(PARTS)[1]
    counts = (
        after.model.opt_state[0].count,
        after.discriminator.opt_state[0].count,
        after.policy.opt_state[1][0].count,
    )
    assert tuple(int(count) for count in counts) == (4, 2, 6)


def test_what_acts_is_the_fitted_policy_and_the_moments_of_all_that_was_seen():
    after, seen = updated(PARTS)[1], rollout(1)
    assert same(after.params.policy, after.policy.params)
    assert same(after.params.discriminator, after.discriminator.params)
    np.testing.assert_allclose(after.params.moments.mean, seen.obs.mean((0, 1)), rtol=1e-4)
    change = (seen.next_obs - seen.obs).reshape(-1, 3)
    np.testing.assert_allclose(after.change.variance, change.var(0), rtol=1e-4)


def test_a_descent_of_each_loss_lowers_it():
    config = options(expert_noise=0.0, gradient_penalty=0.0, correct="recorded")
    parts = mail.make_parts(SPEC, config)
    state = jax.jit(mail.make(Task.of(SPEC), config).init)(KEY)
    state = state.replace(change=state.change.replace(variance=jnp.full(3, 0.5)))
    obs, actions = records(8)
    expert, own = (obs[0], actions[0]), (obs[1] - 1.0, actions[1])

    def step(state, _):
        state, of_model = mail.fit_model(parts, state, obs, actions)
        state, told = mail.fit_discriminator(config, parts, state, expert, own, KEY)
        return state, of_model | told

    state, told = jax.jit(lambda state: jax.lax.scan(step, state, None, length=200))(state)
    assert told["model/loss"][-1] < 0.5 * told["model/loss"][0]
    assert told["discriminator/loss"][-1] < 0.3 < told["discriminator/loss"][0]

    free = dataclasses.replace(config, correct="none")

    def better(state, key):
        return mail.fit_policy(free, parts, state, obs, actions, key)

    keys = jax.random.split(KEY, 100)
    told = jax.jit(lambda state: jax.lax.scan(better, state, keys)[1])(state)
    costs = told["policy/cost"]
    assert costs[-10:].mean() < costs[:10].mean() - 0.05


def test_the_gradient_s_norm_is_told_before_it_is_clipped():
    config = options(max_grad_norm=1e-3)
    parts, policy, judge, model = setting(config)
    obs, actions = records()
    state = jax.jit(mail.make(Task.of(SPEC), config).init)(KEY)
    state = state.replace(
        params=state.params.replace(moments=model.obs),
        policy=state.policy.replace(params=policy),
        discriminator=state.discriminator.replace(params=judge),
        model=state.model.replace(params=model.networks),
        change=model.change,
    )
    fit = functools.partial(mail.fit_policy, config, parts)
    _, told = jax.jit(fit)(state, obs, actions, KEY)

    def loss(policy):
        return mail.policy_loss(config, parts, policy, judge, model, obs, actions, KEY)[0]

    wanted = optax.tree.norm(jax.jit(jax.grad(loss))(policy))
    np.testing.assert_allclose(told["policy/gradient_norm"], wanted, rtol=1e-4)
    assert wanted > 1e-2


@pytest.mark.parametrize("half_life", [0, 1])
@pytest.mark.parametrize("part", ["policy", "discriminator"])
def test_a_part_s_rate_halves_if_told_to(part, half_life):
    """Of a gradient that stays, each of Adam's steps is as long as the rate is."""
    parts = mail.make_parts(SPEC, options(**{f"{part}_half_life": half_life}))
    fitter = getattr(parts, f"{part}_fit")
    slope = jnp.full(3, 0.1)
    first = fitter.step(fitter.init(slope), slope)
    second = fitter.step(first, slope)
    lengths = [(slope - first.params)[0], (first.params - second.params)[0]]
    halved = np.array([1.0, 0.5 if half_life else 1.0])
    np.testing.assert_allclose(lengths, 1e-2 * halved, rtol=1e-3)


def test_errors_are_told_of_what_the_model_has_not_learned_yet():
    """A new model foresees the mean change: 0 before anything was seen, in units of 1."""
    parts, init = setting()[0], jax.jit(mail.make(Task.of(SPEC), CONFIG).init)
    model = mail.model_of(init(KEY))
    told = jax.jit(functools.partial(forward_model.fresh_errors, parts.model))(
        model, rollout(1)
    )
    change = np.asarray(rollout(1).next_obs - rollout(1).obs).reshape(-1, 3)
    each = np.sqrt(np.mean(change**2, axis=0))
    np.testing.assert_allclose(told["model/fresh_error"], each.mean(), rtol=1e-4)
    np.testing.assert_allclose(told["model/worst_error"], each.max(), rtol=1e-4)


def test_the_published_choices_go_together():
    """Real states, no penalty, no noise and no learned deviation, 10 steps ahead."""
    made = mail.make(Task.of(SPEC), mail.published())
    arguments = rollout(1), demonstrations(), KEY, jnp.int32(0)
    before = jax.eval_shape(made.init, KEY)
    after, told = jax.eval_shape(made.update, before, *arguments)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert "policy/gradient_norm" in told


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"roll": "mjx"}, "agent.roll is one of model, physics, not 'mjx'."),
        ({"correct": "real"}, "agent.correct is one of none, recorded, physics"),
        ({"reward": "gail"}, "agent.reward is one of"),
        ({"roll": "physics", "correct": "recorded"}, "agent.roll=physics leaves nothing"),
        ({"correct": "recorded", "expert_starts": 0.5}, "agent.correct=recorded starts"),
        ({"policy_batch": 5}, "agent.policy_batch, 5, must be a multiple of"),
        ({"roll": "physics"}, "MAIL starts physics where an observation says"),
        ({"correct": "physics"}, "MAIL starts physics where an observation says"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changed, complaint):
    with pytest.raises(UsageError, match=f"^{complaint}"):
        mail.make(Task.of(SPEC), options(**changed))


def test_records_shorter_than_the_horizon_are_refused():
    made = mail.make(Task.of(SPEC), options(correct="recorded", horizon=11))
    arguments = rollout(1), demonstrations(), KEY, jnp.int32(0)
    with pytest.raises(UsageError, match="^agent.correct=recorded takes 11 steps out of"):
        jax.eval_shape(made.update, made.init(KEY), *arguments)


# --------------------------------------------------------------------------------- choices


CHOICES = wrappers.choices(pendulum.make(), 5)


def of_choices(**changed) -> mail.Config:
    return options(expert_noise=0.0, horizon=3, **changed)


def choices_made(length: int, batch: int) -> jax.Array:
    """`[length, batch, 5]`"""
    chosen = np.random.default_rng(4).integers(5, size=(length, batch))
    return jnp.asarray(np.eye(5)[chosen], jnp.float32)


@functools.cache
def choosing(**changed):
    """The loss of a policy over choices, its parameters, and those that it leaves alone."""
    config = of_choices(**changed)
    parts = mail.make_parts(CHOICES.spec, config, simulator.make(CHOICES))
    model = shifted(jax.jit(parts.model.ensemble.dynamics.init)(KEY))
    model = model.replace(
        obs=normalise.init(3), change=model.change.replace(variance=jnp.full(3, 0.01))
    )
    policy, judge = jax.jit(parts.policy.init)(KEY), jax.jit(parts.judge.init)(KEY)
    obs, actions = normal(4, 4, 3), choices_made(3, 4)

    def loss(policy, judge, model):
        arguments = policy, judge, model, obs, actions, KEY
        return mail.policy_loss(config, parts, *arguments)[0]

    return parts, loss, (shifted(policy), shifted(judge), model), (obs, actions)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_first_choice_moves_the_policy_by_the_slope_of_the_softmax(temperature):
    """One step from each of 4 starts: Σ_s c_a J_softmax ∂logits, by hand, of a line for a
    logit, so that c_a is w e^-l / (1 + e^-l)."""
    config = of_choices(temperature=temperature)
    config = dataclasses.replace(config, horizon=1, policy=heads.Config(network=BARE))
    parts = mail.make_parts(CHOICES.spec, config)
    weights = normal(5, seed=8)
    parts = parts._replace(judge=Network(lambda key: (), lambda _, obs, a: a @ weights))
    model = jax.jit(parts.model.ensemble.dynamics.init)(KEY)
    policy = shifted(jax.jit(parts.policy.init)(KEY))
    obs = normal(1, 4, 3)

    def loss(policy):
        arguments = policy, (), model, obs, choices_made(1, 4), KEY
        return mail.policy_loss(config, parts, *arguments)[0]

    value, slope = jax.jit(jax.value_and_grad(loss))(policy)
    dense, seen = policy["params"]["Dense_0"], np.asarray(obs[0], float)  # no moments yet
    noise = np.asarray(jax.random.gumbel(jax.random.split(KEY)[0], (1, 4, 5))[0], float)
    costs, of_bias = [], np.zeros(5)
    for row, drawn in zip(seen, noise, strict=True):
        scores = row @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"]) + drawn
        logit = (2 * np.eye(5)[np.argmax(scores)] - 1) @ np.asarray(weights)
        costs.append(np.log1p(np.exp(-logit)))
        p = np.exp(scores / temperature) / np.exp(scores / temperature).sum()
        of_action = -2 * np.asarray(weights) / (1 + np.exp(logit))
        of_bias += of_action @ (np.diag(p) - np.outer(p, p)) / temperature / 4
    np.testing.assert_allclose(value, np.mean(costs), rtol=1e-4)
    found = slope["params"]["Dense_0"]["bias"]
    np.testing.assert_allclose(found, of_bias, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("changed", [{}, {"roll": "physics"}, {"correct": "physics"}])
def test_choices_have_a_slope_through_the_model_and_through_physics(changed):
    """Even of a judge that looks at states alone."""
    config = of_choices(**changed)
    parts, _, params, (obs, actions) = choosing(**changed)
    judge = Network(lambda key: (), lambda _, obs, action: jnp.sum(obs**2, axis=-1))
    parts = parts._replace(judge=judge)

    def loss(policy):
        arguments = policy, (), params[2], obs, actions, KEY
        return mail.policy_loss(config, parts, *arguments)[0]

    assert optax.tree.norm(jax.jit(jax.grad(loss))(params[0])) > 1e-3


def test_along_records_the_loss_is_the_cost_of_the_choices_that_were_made():
    parts, loss, (policy, judge, model), (obs, actions) = choosing(correct="recorded")
    value, slope = jax.jit(jax.value_and_grad(loss))(policy, judge, model)
    logits = parts.judge.apply(judge, normalise.apply(model.obs, obs[:-1]), 2 * actions - 1)
    wanted = np.mean(0.9 ** np.arange(3) @ np.log1p(np.exp(-np.asarray(logits))))
    np.testing.assert_allclose(value, wanted, rtol=1e-4)
    assert optax.tree.norm(slope) > 1e-3


@functools.cache
def chosen_update():
    """An update by the rates of each part, compiled once; and where it starts."""
    environment = CHOICES.spec
    start = jax.vmap(CHOICES.reset)(jax.random.split(KEY, 10))
    told = jax.vmap(CHOICES.step)(start, choices_made(10, 1)[:, 0])[1]
    rollout = jax.tree.map(lambda leaf: leaf[:, None], told)
    demos = Demonstrations(
        obs=normal(2, 13, 3),
        actions=choices_made(2, 12),
        length=jnp.array([12, 8], jnp.int32),
        terminal=jnp.zeros((2,), bool),
        observed=(0, 1, 2),
    )

    def update(rates, state):
        changed = {f"{part}_rate": rate for part, rate in zip(PARTS, rates, strict=True)}
        made = mail.make(Task.of(environment), of_choices(**changed))
        return made.update(state, rollout, demos, KEY, jnp.int32(0))

    return jax.jit(update), jax.jit(mail.make(Task.of(environment), of_choices()).init)(KEY)


@pytest.mark.parametrize("part", PARTS)
def test_of_choices_too_a_part_s_loss_moves_that_part_alone(part):
    update, before = chosen_update()
    after, _ = update([0.01 * (name == part) for name in PARTS], before)
    for name in PARTS:
        still = same(getattr(before, name).params, getattr(after, name).params)
        assert still == (name != part), name


@pytest.mark.parametrize("explore", [False, True])
def test_after_an_update_it_acts_by_choices(explore):
    update, before = chosen_update()
    after, told = update([0.01] * 3, before)
    assert all(np.isfinite(value) for value in told.values())
    agent = mail.make(Task.of(CHOICES.spec), of_choices())
    keys = jax.random.split(KEY, 20)

    def one(key):
        return agent.act(after.params, (), CHOICES.reset(key), key, explore)[0]

    actions = np.asarray(jax.jit(jax.vmap(one))(keys))
    assert set(actions.ravel()) == {0.0, 1.0} and (actions.sum(1) == 1).all()
