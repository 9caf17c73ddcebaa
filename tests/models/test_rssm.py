"""The recurrent state-space model: its steps, its samples and the disagreement of heads."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.base import UsageError
from planil_jax.models import rssm
from planil_jax.nets import conv, mlp
from planil_jax.nets import rssm as networks

KEY = jax.random.key(0)
HEADS = 4
CONFIG = rssm.Config(
    network=networks.Config(deter=6, stoch=3, hidden=5, heads=HEADS),
    vectors=mlp.Config(hidden=(5,), activation="elu"),
    pictures=conv.Config(filters=2),
)
MODEL = rssm.make(CONFIG, 4, 2)


def normal(*shape, seed: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.cache
def params():
    """Parameters without zeros, with heads that differ."""
    shapes = jax.eval_shape(MODEL.init, KEY)
    leaves, structure = jax.tree.flatten(shapes)
    leaves = [0.5 * normal(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, leaves)


@functools.cache
def program(model=MODEL):
    """`observe` of one sequence or many: (obs, actions, first, key)."""

    def observe(params, obs, actions, first, key):
        inputs = rssm.Inputs(actions, model.encode(params, obs), first)
        return model.observe(params, inputs, key)

    return jax.jit(observe)


def sequence(length: int = 6, batch: int = 2, seed: int = 0):
    """obs `[L, B, 4]`, previous actions `[L, B, 2]`, and first `[L, B]`."""
    first = jnp.zeros((length, batch), bool).at[0].set(True)
    shape = (length, batch)
    return normal(*shape, 4, seed=seed), normal(*shape, 2, seed=seed + 1), first


def assert_close(left, right):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), left, right)


# ---------------------------------------------------------------------------- observing


def gru(params, deter, stoch, action):
    """The memory by its equations, in numpy."""
    layers = jax.tree.map(np.float64, params["memory"]["params"])

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    x = np.concatenate([stoch, action]) @ layers["Dense_0"]["kernel"]
    x = x + layers["Dense_0"]["bias"]
    x = np.where(x > 0, x, np.expm1(x))
    x = np.concatenate([x, deter]) @ layers["Dense_1"]["kernel"]
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-3)
    x = x * layers["LayerNorm_0"]["scale"] + layers["LayerNorm_0"]["bias"]
    reset, candidate, update = np.split(x, 3)
    update = sigmoid(update - 1)
    return update * np.tanh(sigmoid(reset) * candidate) + (1 - update) * deter


def test_the_memory_is_a_normalised_gru_and_the_deviation_is_bounded():
    belief = rssm.Belief(np.tanh(normal(6)), normal(3, seed=2))
    inputs = rssm.Inputs(normal(2, seed=3), normal(5, seed=4), jnp.zeros((), bool))
    step = jax.jit(MODEL.observe_step)
    head = jnp.int32(2)
    found = step(params(), belief, inputs, head, KEY)
    wanted = gru(params(), belief.deter, belief.stoch, inputs.action)
    np.testing.assert_allclose(found.belief.deter, wanted, atol=1e-5)
    layers = jax.tree.map(lambda leaf: np.asarray(leaf[2]), params()["priors"]["params"])
    x = wanted @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"]
    x = np.where(x > 0, x, np.expm1(x)) @ layers["Dense_1"]["kernel"]
    mean, raw = np.split(x + layers["Dense_1"]["bias"], 2)
    np.testing.assert_allclose(found.prior.mean, mean, atol=1e-5)
    wanted = 2 / (1 + np.exp(-raw / 2)) + 0.1
    np.testing.assert_allclose(found.prior.std, wanted, atol=1e-5)
    without_key = step(params(), belief, inputs, head, None)
    np.testing.assert_array_equal(without_key.belief.stoch, without_key.posterior.mean)
    assert (found.belief.stoch != without_key.belief.stoch).all()


def test_observe_is_a_loop_of_observe_step():
    obs, actions, first = sequence()
    first = first.at[3, 1].set(True)
    found = program()(params(), obs, actions, first, KEY)
    head_key, key = jax.random.split(KEY)
    heads = jax.random.randint(head_key, (6,), 0, HEADS)
    keys, step = jax.random.split(key, 6), jax.jit(MODEL.observe_step)
    encoded = jax.jit(MODEL.encode)(params(), obs)
    belief = rssm.Belief(normal(2, 6, seed=8), normal(2, 3, seed=9))  # first resets it
    for t in range(6):
        inputs = rssm.Inputs(actions[t], encoded[t], first[t])
        one = step(params(), belief, inputs, heads[t], keys[t])
        assert_close(jax.tree.map(lambda leaf, t=t: leaf[t], found), one)
        belief = one.belief


def test_steps_of_an_episode_do_not_depend_on_the_episode_before():
    """Nor on its last action. Steps of the same episode do depend on the earlier ones."""
    obs, actions, first = sequence()
    first = first.at[3, 1].set(True)
    other = obs.at[:3].add(1.0), actions.at[:4].add(1.0)
    found = program()(params(), obs, actions, first, KEY)
    changed = program()(params(), *other, first, KEY)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(changed), strict=True):
        np.testing.assert_array_equal(one[3:, 1], two[3:, 1])
    change = np.abs(found.belief.deter - changed.belief.deter)
    assert change[3:, 0].min() > 0
    assert change[:3].max() > 0


def test_an_episode_that_begins_within_a_sequence_begins_as_one_at_its_front():
    obs, actions, first = sequence()
    within = program()(params(), obs, actions, first.at[2].set(True), KEY)
    # Memory and posterior of a first step do not depend on samples.
    front = program()(params(), obs[2:], actions[2:], first[:4], KEY)
    np.testing.assert_allclose(within.belief.deter[2], front.belief.deter[0], atol=1e-6)
    np.testing.assert_allclose(within.posterior.mean[2], front.posterior.mean[0], atol=1e-6)


def test_a_filter_reads_the_observed_steps_and_predicts_the_others_from_actions():
    obs, actions, first = sequence()
    run = jax.jit(MODEL.filter, static_argnums=2)

    def beliefs(obs, observed_steps):
        encoded = MODEL.encode(params(), obs[:, 0])
        inputs = rssm.Inputs(actions[:, 0], encoded, first[:, 0])
        return run(params(), inputs, observed_steps)

    found, step = beliefs(obs, 4), jax.jit(MODEL.observe_step)
    belief, encoded = MODEL.start(), MODEL.encode(params(), obs[:, 0])
    for t in range(6):
        inputs = rssm.Inputs(actions[t, 0], encoded[t], first[t, 0])
        observed = step(params(), belief, inputs, jnp.int32(0), None)
        mean = observed.posterior.mean if t < 4 else observed.prior.mean
        belief = rssm.Belief(observed.belief.deter, mean)
        assert_close(jax.tree.map(lambda leaf, t=t: leaf[t], found), belief)
    assert_close(beliefs(obs.at[4:].add(1.0), 4), found)
    every = beliefs(obs, 6)
    assert (beliefs(obs.at[4:].add(1.0), 6).stoch[4:] != every.stoch[4:]).all()


# ---------------------------------------------------------------------------- imagining


def policy(features, key):
    action = jnp.tanh(features[..., :2]) + 0.1 * jax.random.normal(key, (2,))
    return action, jnp.sum(features, axis=-1)


@functools.cache
def imagined(batch: int = 2):
    belief = rssm.Belief(np.tanh(normal(batch, 6)), normal(batch, 3, seed=2))
    run = jax.jit(functools.partial(MODEL.imagine, policy=policy, horizon=5))
    return belief, run(params(), belief, key=KEY)


def test_imagined_steps_follow_the_memory_and_the_policy_from_their_start():
    belief, found = imagined()
    assert_close(jax.tree.map(lambda leaf: leaf[0], found.belief), belief)
    aux = jnp.sum(MODEL.features(found.belief), axis=-1)
    np.testing.assert_allclose(found.aux, aux, atol=1e-5)
    for t in range(5):
        for i in range(2):
            h, z = found.belief.deter[t, i], found.belief.stoch[t, i]
            wanted = gru(params(), h, z, found.action[t, i])
            np.testing.assert_allclose(found.belief.deter[t + 1, i], wanted, atol=1e-5)
    assert found.action.shape == (6, 2, 2)


def test_each_step_uses_one_head_for_the_whole_batch_and_all_heads_are_used():
    """The means are far apart and deviations 0.1, so that a latent shows its head."""
    apart = jax.tree.map(jnp.zeros_like, params())
    bias = jnp.zeros((HEADS, 6)).at[:, :3].set(10.0 * jnp.arange(HEADS)[:, None])
    bias = bias.at[:, 3:].set(-100.0)
    apart["priors"]["params"]["Dense_1"]["bias"] = bias
    belief = rssm.Belief(jnp.zeros((5, 6)), jnp.zeros((5, 3)))
    run = jax.jit(functools.partial(MODEL.imagine, policy=policy, horizon=40))
    latents = np.asarray(run(apart, belief, key=KEY).belief.stoch)[1:]  # [H, B, Z]
    heads = np.round(latents / 10)
    assert (heads == heads[:, :1, :1]).all()
    assert set(heads[:, 0, 0]) == set(range(HEADS))
    assert np.abs(latents - 10 * heads).std() > 0.05


# -------------------------------------------------------------------------- disagreement


def test_disagreement_is_the_standard_deviation_of_the_means_of_the_heads():
    belief, action = rssm.Belief(normal(6), normal(3, seed=2)), normal(2, seed=3)
    found = jax.jit(MODEL.disagreement)(params(), belief, action)
    deter = gru(params(), belief.deter, belief.stoch, action)
    means = []
    for k in range(HEADS):
        layers = jax.tree.map(lambda leaf, k=k: leaf[k], params()["priors"]["params"])
        x = deter @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"]
        x = np.where(x > 0, x, np.expm1(x)) @ layers["Dense_1"]["kernel"]
        means.append((x + layers["Dense_1"]["bias"])[:3])
    np.testing.assert_allclose(found, np.std(means, axis=0).mean(), rtol=1e-4)


def test_equal_heads_have_a_disagreement_of_exactly_0_and_a_finite_gradient():
    alike = dict(params())
    alike["priors"] = jax.tree.map(
        lambda leaf: jnp.repeat(leaf[:1], HEADS, axis=0), alike["priors"]
    )
    deter = normal(50, 6)

    def total(deter):
        return jnp.sum(MODEL.disagreement_at(alike, deter))

    value, gradient = jax.jit(jax.value_and_grad(total))(deter)
    assert value == 0.0
    assert not np.asarray(gradient).any()


# ------------------------------------------------------------------------------ pictures


def test_a_model_of_frames_decodes_frames():
    model = rssm.make(CONFIG, (64, 64, 3), 2)
    shapes = jax.eval_shape(model.init, KEY)
    frames = jax.ShapeDtypeStruct((3, 2, 64, 64, 3), jnp.uint8)
    encoded = jax.eval_shape(model.encode, shapes, frames)
    assert encoded.shape == (3, 2, 32)
    decoded = jax.eval_shape(model.decode, shapes, jnp.zeros((3, 2, 9)))
    assert decoded.shape == frames.shape and decoded.dtype == jnp.float32


@pytest.mark.parametrize("patch_size", [None, 8])
def test_an_error_is_half_the_squared_distance_from_the_decoded_observation(patch_size):
    pictures = conv.Config(filters=2, patch_size=patch_size)
    model = rssm.make(dataclasses.replace(CONFIG, pictures=pictures), (64, 64, 3), 2)
    shapes = jax.eval_shape(model.init, KEY)
    weights = jax.tree.map(lambda leaf: 0.3 * normal(*leaf.shape), shapes)
    features = normal(2, 3, 9)
    obs = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64, 3), dtype=np.uint8)
    distance = jax.jit(model.decode)(weights, features) - (obs / 255 - 0.5)
    found = jax.jit(model.error)(weights, features, obs)
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found, 0.5 * (distance**2).sum((2, 3, 4)), rtol=1e-4)


def test_frames_of_another_size_are_refused():
    with pytest.raises(UsageError, match="64 × 64 pixels, not 48 × 64: .* pixels=64"):
        rssm.make(CONFIG, (48, 64, 3), 2)


def test_a_model_of_vectors_decodes_vectors_and_has_a_prior_for_each_head():
    shapes = jax.eval_shape(MODEL.init, KEY)
    assert jax.eval_shape(MODEL.decode, shapes, jnp.zeros((3, 9))).shape == (3, 4)
    counts = {leaf.shape[0] for leaf in jax.tree.leaves(shapes["priors"])}
    assert counts == {HEADS}
