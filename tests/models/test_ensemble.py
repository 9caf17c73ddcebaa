"""Learned forward models: normalisers, likelihood, members, memory and planning.

The last part is about real states with a model's gradients.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from planil_jax.base import Dynamics, EnvSpec, EnvState
from planil_jax.envs import point_mass
from planil_jax.losses import world_model
from planil_jax.models import ensemble, foresight, unroll
from planil_jax.nets import forward, mlp, normalise
from planil_jax.planners import mppi

SPEC = EnvSpec("line", ("a", "b", "c"), (0.0, -2.0), (4.0, 2.0), 100, 0.1)
NETWORK = forward.Config(network=mlp.Config(hidden=(16,), activation="silu"))
CONFIG = ensemble.Config(network=NETWORK, members=3)
KEY = jax.random.key(0)


def config(members: int = 1, **options) -> ensemble.Config:
    return ensemble.Config(network=dataclasses.replace(NETWORK, **options), members=members)


update_normalizer = jax.jit(ensemble.update_normalizer)


def normal(*shape, seed: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def actions_within(*shape, seed: int = 2) -> jax.Array:
    """Of SPEC, `[*shape, 2]`."""
    drawn = np.random.default_rng(seed).uniform(size=(*shape, 2))
    low, high = np.array(SPEC.action_low), np.array(SPEC.action_high)
    return jnp.asarray(low + (high - low) * drawn, jnp.float32)


def perturbed(params: ensemble.ModelParams) -> ensemble.ModelParams:
    """With no network parameter at 0, and normalisers unlike those of a new model."""
    leaves, tree = jax.tree.flatten(params.networks)
    leaves = [
        leaf + 0.3 * np.asarray(normal(*leaf.shape, seed=i))
        for i, leaf in enumerate(leaves)
    ]
    return ensemble.ModelParams(
        networks=jax.tree.unflatten(tree, leaves),
        obs=normalise.Moments(
            jnp.float32(9), jnp.array([1.0, 0.0, -2.0]), jnp.array([4.0, 1.0, 0.25])
        ),
        change=normalise.Moments(
            jnp.float32(9), jnp.array([0.5, -1.0, 0.0]), jnp.array([0.01, 1.0, 9.0])
        ),
    )


def member_of(params: ensemble.ModelParams, i: int) -> ensemble.ModelParams:
    return params.replace(networks=jax.tree.map(lambda leaf: leaf[i], params.networks))


# -------------------------------------------------------------------------------- one step


def test_a_step_adds_the_network_s_output_in_deviations_of_a_change():
    """In numpy, layer by layer."""
    model = ensemble.make(SPEC, config())
    params = perturbed(jax.jit(model.member.init)(KEY))
    obs, action = normal(3), jnp.array([3.0, -0.5])
    z = model.member.recover(params, obs)
    found = model.member.observe(params, model.member.step(params, z, action, KEY))

    layers = jax.tree.map(np.float64, params.networks["params"])
    normalised = (np.float64(obs) - [1.0, 0.0, -2.0]) / [2.0, 1.0, 0.5]
    x = np.concatenate([normalised, [(3.0 - 2.0) / 2.0, -0.5 / 2.0]])  # actions in [-1, 1]
    x = x @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"]
    x = x / (1 + np.exp(-x))
    y = x @ layers["mean"]["kernel"] + layers["mean"]["bias"]
    wanted = np.float64(obs) + [0.5, -1.0, 0.0] + np.array([0.1, 1.0, 3.0]) * y
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_a_new_model_predicts_the_mean_change_whatever_the_action():
    model = ensemble.make(SPEC, CONFIG)
    obs, next_obs = normal(50, 3), normal(50, 3, seed=5) + 3.0
    params = update_normalizer(jax.jit(model.dynamics.init)(KEY), obs, next_obs)
    z = model.dynamics.recover(params, obs[0])
    found = model.dynamics.observe(
        params, model.dynamics.step(params, z, actions_within(), KEY)
    )
    wanted = np.asarray(obs[0]) + np.mean(np.asarray(next_obs - obs), axis=0)
    np.testing.assert_allclose(found, np.tile(wanted, (3, 1)), rtol=1e-4)


def test_a_predicted_sequence_is_that_of_single_steps():
    model = ensemble.make(SPEC, config(gru_units=5))
    params = perturbed(jax.jit(model.member.init)(KEY))
    obs, actions = normal(5, 3), actions_within(4)
    found, _ = jax.jit(model.predict)(params, obs, actions)
    z = model.member.recover(params, obs[0])
    for action, wanted in zip(actions, found, strict=True):
        z = model.member.step(params, z, action, KEY)
        np.testing.assert_allclose(model.member.observe(params, z), wanted, rtol=1e-5)


@pytest.mark.parametrize("units", [None, 5])
def test_only_a_recurrent_model_remembers(units):
    """With memory, the second of two equal steps from one observation differs."""
    model = ensemble.make(SPEC, config(gru_units=units))
    params = perturbed(jax.jit(model.member.init)(KEY))
    obs, action = normal(3), actions_within()
    first = model.member.step(params, model.member.recover(params, obs), action, KEY)
    again = model.member.step(params, first.replace(obs=obs), action, KEY)
    assert first.memory.shape == (units or 0,)
    assert bool(jnp.all(again.obs == first.obs)) == (units is None)


def test_a_probabilistic_step_is_drawn_with_the_predicted_deviation():
    model = ensemble.make(SPEC, config(probabilistic=True))
    params = perturbed(jax.jit(model.member.init)(KEY))
    obs, action = normal(3), actions_within()
    mean, std = model.predict(params, jnp.stack([obs, obs]), action[None])
    z = model.member.recover(params, obs)
    keys = jax.random.split(KEY, 4000)
    step = jax.vmap(lambda key: model.member.step(params, z, action, key).obs)
    drawn = jax.jit(step)(keys)
    np.testing.assert_allclose((drawn.mean(0) - mean[0]) / std[0], 0.0, atol=0.06)
    np.testing.assert_allclose(drawn.std(0) / std[0], 1.0, atol=0.05)


# ---------------------------------------------------------------------------------- losses


def test_the_likelihood_is_the_normal_distribution_s():
    mean, std, observed = (
        normal(4, 5, 3),
        0.1 + normal(4, 5, 3, seed=2) ** 2,
        normal(4, 5, 3),
    )
    constant = 0.5 * np.log(2 * np.pi)
    for decay in (1.0, 0.5):
        losses = -stats.norm.logpdf(observed, mean, std) - constant
        weights = decay ** np.arange(4)
        wanted = np.mean(weights * losses.mean(axis=(1, 2)))
        found = world_model.gaussian(mean, std, observed, decay)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_at_deviation_1_the_loss_is_half_the_mean_squared_error():
    mean, observed = normal(2, 5, 3), normal(2, 5, 3, seed=4)
    found = world_model.gaussian(mean, jnp.ones_like(mean), observed)
    np.testing.assert_allclose(found, np.mean(np.square(mean - observed)) / 2, rtol=1e-5)


def test_a_likelihood_of_other_shapes_is_refused():
    with pytest.raises(AssertionError):
        world_model.gaussian(normal(2, 5, 3), jnp.ones((3,)), normal(2, 5, 3))


def fitted(model, params, obs, actions, steps: int = 400):
    """The model after `steps` of Adam, all members on all sequences `[H + 1, B, O]`."""
    tx = optax.adam(optax.cosine_decay_schedule(1e-2, steps))
    scale = ensemble.deviation(params.change)

    def of_member(params):
        mean, std = jax.vmap(model.predict, (None, 1, 1), 1)(params, obs, actions)
        return world_model.gaussian(mean / scale, std / scale, obs[1:] / scale)

    def loss(networks):
        return jnp.sum(
            jax.vmap(of_member, (ensemble.EACH,))(params.replace(networks=networks))
        )

    def step(carry, _):
        networks, opt_state = carry
        updates, opt_state = tx.update(jax.grad(loss)(networks), opt_state)
        return (optax.apply_updates(networks, updates), opt_state), None

    @jax.jit
    def run(networks):
        start = (networks, tx.init(networks))
        return jax.lax.scan(step, start, None, length=steps)[0][0]

    return params.replace(networks=run(params.networks))


NOISE = np.float32([0.02, 0.5, 1.0])


def world(obs: jax.Array, action: jax.Array, noise: jax.Array) -> jax.Array:
    """The next observation: entries differ in size; one is nonlinear in an action."""
    a, b, c = obs
    next_obs = jnp.stack(
        [0.9 * a + 0.1 * b, b + jnp.tanh(action[0] - 2), c + 5 * action[1]]
    )
    return next_obs + NOISE * noise


def experience(count: int, length: int, seed: int, noise: float = 1.0):
    """Sequences obs `[length + 1, count, 3]` and actions `[length, count, 2]`."""
    actions = actions_within(length, count, seed=seed)
    noises = noise * normal(length, count, 3, seed=seed + 1)

    def step(obs, inputs):
        next_obs = jax.vmap(world)(obs, *inputs)
        return next_obs, next_obs

    first = normal(count, 3, seed=seed + 2) * jnp.array([1.0, 1.0, 10.0])
    later = jax.lax.scan(step, first, (actions, noises))[1]
    return jnp.concatenate([first[None], later]), actions


@functools.cache
def trained(probabilistic: bool):
    model = ensemble.make(SPEC, config(members=2, probabilistic=probabilistic))
    obs, actions = experience(512, 1, seed=10)
    params = update_normalizer(jax.jit(model.dynamics.init)(KEY), obs[:1], obs[1:])
    return model, fitted(model, params, obs, actions)


@pytest.mark.parametrize("probabilistic", [False, True])
def test_held_out_errors_come_down_to_the_noise_in_every_entry(probabilistic):
    model, params = trained(probabilistic)
    obs, actions = experience(1000, 1, seed=20)
    found = jax.jit(functools.partial(ensemble.errors, model))(params, obs, actions)[0]
    assert np.all(found < 1.25 * NOISE + 0.02 * np.std(obs[1] - obs[0], axis=0))
    assert np.all(found > 0.9 * NOISE)


def test_the_predicted_deviation_is_that_of_the_noise():
    model, params = trained(True)
    obs, actions = experience(200, 1, seed=20)
    predict = jax.vmap(model.predict, (None, 1, 1), 1)
    predict = jax.vmap(predict, (ensemble.EACH, None, None))
    _, std = jax.jit(predict)(params, obs, actions)
    found = np.sqrt(np.mean(np.square(std), axis=(0, 1, 2)))
    np.testing.assert_allclose(found, NOISE, rtol=0.15)


def test_members_agree_where_they_were_trained_and_not_far_from_it():
    model, params = trained(False)

    def gap(obs):
        def disagreement(obs, action):
            z = model.dynamics.recover(params, obs)
            next_obs = model.dynamics.step(params, z, action, KEY).obs  # [2, 3]
            return jnp.abs(next_obs[0] - next_obs[1]) / ensemble.deviation(params.change)

        return jnp.mean(jax.jit(jax.vmap(disagreement))(obs, actions_within(100)))

    near = normal(100, 3) * jnp.array([1.0, 1.0, 10.0])
    assert gap(3 * near) > 3 * gap(near)


def test_errors_are_those_of_the_mean_of_the_members_step_by_step():
    """Members that move by 1 and by 3 a step, where the true state does not change."""
    model = ensemble.make(SPEC, config(members=2))
    params = jax.jit(model.dynamics.init)(KEY)
    networks = jax.tree.map(jnp.zeros_like, params.networks)
    networks["params"]["mean"]["bias"] = jnp.array([[1.0] * 3, [3.0, 1.0, -1.0]])
    params = params.replace(networks=networks)  # changes of 2, 1 and 0 on average
    still = jnp.broadcast_to(normal(4, 3), (4, 4, 3))
    found = ensemble.errors(model, params, still, actions_within(3, 4))
    np.testing.assert_allclose(found, np.outer([1, 2, 3], [2, 1, 0]), atol=1e-5)


def test_a_member_s_loss_moves_that_member_alone():
    model = ensemble.make(SPEC, CONFIG)
    params = jax.jit(model.dynamics.init)(KEY)

    def second(networks):
        one = member_of(params.replace(networks=networks), 1)
        return jnp.sum(model.predict(one, normal(3, 3), actions_within(2))[0])

    for leaf in jax.tree.leaves(jax.jit(jax.grad(second))(params.networks)):
        assert not np.any(leaf[0]) and not np.any(leaf[2])
    members = [jax.tree.leaves(member_of(params, i).networks) for i in (0, 1)]
    assert any(bool(jnp.any(a != b)) for a, b in zip(*members, strict=True))


def test_a_loss_over_many_steps_makes_predictions_of_many_steps_better():
    """The model is too small: it loses accuracy early to gain it in later steps."""
    narrow = dataclasses.replace(
        NETWORK, network=mlp.Config(hidden=(2,), activation="tanh")
    )
    model = ensemble.make(SPEC, ensemble.Config(network=narrow))
    obs, actions = experience(256, 8, seed=30, noise=0.0)
    new = update_normalizer(jax.jit(model.dynamics.init)(KEY), obs[:-1], obs[1:])
    singles = obs[:-1].reshape(1, -1, 3), obs[1:].reshape(1, -1, 3)
    by_single_steps = fitted(
        model, new, jnp.concatenate(singles), actions.reshape(1, -1, 2)
    )
    by_sequences = fitted(model, new, obs, actions)
    held_out = experience(256, 8, seed=40, noise=0.0)
    scale = ensemble.deviation(new.change)
    last = [
        float(jnp.mean(ensemble.errors(model, params, *held_out)[-1] / scale))
        for params in (by_single_steps, by_sequences)
    ]
    assert last[1] < 0.9 * last[0]


# -------------------------------------------------------------------------------- planning


def test_planners_average_their_scores_over_the_members():
    """Members that move the first entry by 1, 2 and 6 a step: scores of 3 and 6."""
    model = ensemble.make(SPEC, CONFIG)
    params = jax.jit(model.dynamics.init)(KEY)
    networks = jax.tree.map(jnp.zeros_like, params.networks)
    bias = jnp.zeros((3, 3)).at[:, 0].set(jnp.array([1.0, 2.0, 6.0]))
    networks["params"]["mean"]["bias"] = bias
    params = params.replace(networks=networks)
    state = EnvState((), jnp.zeros(3), jnp.zeros((), jnp.int32))
    assert model.dynamics.observe(params, model.dynamics.start(params, state)).shape == (
        3,
        3,
    )

    def distance(obs, action, next_obs):
        return next_obs[..., 0]

    score = foresight.score_plan(model.dynamics, params, state, KEY, 2, distance)
    np.testing.assert_allclose(score(actions_within(2)), [3.0, 6.0], rtol=1e-5)


def test_mppi_drives_a_point_to_the_origin_through_a_learned_model():
    env = point_mass.make()
    model = ensemble.make(env.spec, config(members=2))
    obs = 2 * jax.random.uniform(KEY, (256, 4), minval=-1.0)
    actions = jax.random.uniform(jax.random.key(1), (256, 2), minval=-1.0)

    def real(obs, action):
        state = EnvState(point_mass.Point(*obs), obs, jnp.zeros((), jnp.int32))
        return env.step(state, action)[0].obs

    next_obs = jax.jit(jax.vmap(real))(obs, actions)
    params = update_normalizer(jax.jit(model.dynamics.init)(KEY), obs, next_obs)
    params = fitted(model, params, jnp.stack([obs, next_obs]), actions[None])
    planner = mppi.make(
        mppi.Config(samples=64, horizon=15, iterations=2), (-1.0,) * 2, (1.0,) * 2
    )

    def cost(obs, action, next_obs):
        return -jnp.sum(next_obs[..., :2] ** 2, axis=-1)

    @jax.jit
    def drive(state):
        def step(carry, key):
            state, plan = carry
            scores = foresight.score_plan(model.dynamics, params, state, key, 15, cost)
            action, plan = planner.plan(
                lambda actions: jnp.sum(scores(actions)), plan, key, 0.1, False
            )
            return (env.step(state, action)[0], plan), jnp.linalg.norm(state.obs[:2])

        start = (state, planner.init())
        return jax.lax.scan(step, start, jax.random.split(KEY, 50))[1]

    distances = drive(EnvState(point_mass.Point(*obs[0]), obs[0], jnp.int32(0)))
    assert distances[0] > 1.0 and np.all(distances[-5:] < 0.1)


# ------------------------------------------------------------------------ straight through


def test_straight_through_gives_real_states_with_the_model_s_gradients():
    """Gradients after two steps are f_s f_s, f_s f_a and f_a, all at the real states."""
    model = ensemble.make(SPEC, config())
    params = perturbed(jax.jit(model.member.init)(KEY))
    real = Dynamics(
        init=lambda key: (),
        start=lambda params, state: state.obs,
        step=lambda params, obs, action, key: world(obs, action, jnp.zeros(3)),
        observe=lambda params, obs: obs,
        recover=lambda params, obs: obs,
    )
    both = unroll.straight_through(model.member, real)
    start, actions = normal(3), actions_within(2)

    def last(start, actions):
        z = both.recover((params, ()), start)
        for action in actions:
            z = both.step((params, ()), z, action, KEY)
        return both.observe((params, ()), z)

    def predict(obs, action):
        return model.member.step(params, model.member.recover(params, obs), action, KEY).obs

    step, states = jax.jit(world), [start]
    for action in actions:
        states.append(step(states[-1], action, jnp.zeros(3)))
    np.testing.assert_array_equal(jax.jit(last)(start, actions), states[-1])

    of_start, of_actions = jax.jit(jax.jacobian(last, (0, 1)))(start, actions)
    jacobians = jax.vmap(jax.jacobian(predict, (0, 1)))
    f_s, f_a = map(np.asarray, jax.jit(jacobians)(jnp.stack(states[:2]), actions))
    np.testing.assert_allclose(of_start, f_s[1] @ f_s[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(of_actions[:, 0], f_s[1] @ f_a[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(of_actions[:, 1], f_a[1], rtol=1e-4, atol=1e-6)


def test_a_recorded_model_repeats_its_observations_whatever_the_actions():
    tape, obs = unroll.recorded(), normal(4, 3)
    z = tape.recover(obs, jnp.zeros(3))
    for wanted in obs:
        np.testing.assert_array_equal(tape.observe(obs, z), wanted)
        z = tape.step(obs, z, normal(2), KEY)
