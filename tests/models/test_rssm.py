"""The recurrent state-space model: what it forgets, what it draws, and who disagrees."""

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
    """With no parameter at 0, and with heads that differ."""
    shapes = jax.eval_shape(MODEL.init, KEY)
    leaves, structure = jax.tree.flatten(shapes)
    leaves = [0.5 * normal(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, leaves)


@functools.cache
def program(model=MODEL):
    """`observe` of one sequence or many: (obs, actions, first, key)."""

    def observe(params, obs, actions, first, key):
        return model.observe(params, actions, model.encode(params, obs), first, key)

    return jax.jit(observe)


def sequence(length: int = 6, batch: int = 2, seed: int = 0):
    """obs `[L, B, 4]`, actions `[L, B, 2]` that led there, and the beginning of each."""
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


def test_the_memory_is_a_normalised_gru_and_the_deviation_has_bounds():
    belief = rssm.Belief(np.tanh(normal(6)), normal(3, seed=2))
    action, encoded, no = normal(2, seed=3), normal(5, seed=4), jnp.zeros((), bool)
    step = jax.jit(MODEL.observe_step)
    head = jnp.int32(2)
    found = step(params(), belief, action, encoded, no, head, KEY)
    wanted = gru(params(), belief.deter, belief.stoch, action)
    np.testing.assert_allclose(found.belief.deter, wanted, atol=1e-5)
    layers = jax.tree.map(lambda leaf: np.asarray(leaf[2]), params()["priors"]["params"])
    x = wanted @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"]
    x = np.where(x > 0, x, np.expm1(x)) @ layers["Dense_1"]["kernel"]
    mean, raw = np.split(x + layers["Dense_1"]["bias"], 2)
    np.testing.assert_allclose(found.prior.mean, mean, atol=1e-5)
    wanted = 2 / (1 + np.exp(-raw / 2)) + 0.1
    np.testing.assert_allclose(found.prior.std, wanted, atol=1e-5)
    middle = step(params(), belief, action, encoded, no, head, None)
    np.testing.assert_array_equal(middle.belief.stoch, middle.posterior.mean)
    assert (found.belief.stoch != middle.belief.stoch).all()


def test_observe_is_a_loop_of_observe_step():
    obs, actions, first = sequence()
    first = first.at[3, 1].set(True)
    found = program()(params(), obs, actions, first, KEY)
    head_key, key = jax.random.split(KEY)
    heads = jax.random.randint(head_key, (6,), 0, HEADS)
    keys, step = jax.random.split(key, 6), jax.jit(MODEL.observe_step)
    encoded = jax.jit(MODEL.encode)(params(), obs)
    belief = rssm.Belief(normal(2, 6, seed=8), normal(2, 3, seed=9))  # which is forgotten
    for t in range(6):
        steps = actions[t], encoded[t], first[t], heads[t], keys[t]
        one = step(params(), belief, *steps)
        assert_close(jax.tree.map(lambda leaf, t=t: leaf[t], found), one)
        belief = one.belief


def test_what_comes_after_a_beginning_does_not_know_what_came_before():
    """Not even the action that led from there; what did not begin anew does know it."""
    obs, actions, first = sequence()
    first = first.at[3, 1].set(True)
    other = obs.at[:3].add(1.0), actions.at[:4].add(1.0)
    found = program()(params(), obs, actions, first, KEY)
    changed = program()(params(), *other, first, KEY)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(changed), strict=True):
        np.testing.assert_array_equal(one[3:, 1], two[3:, 1])
    moved = np.abs(found.belief.deter - changed.belief.deter)
    assert moved[3:, 0].min() > 0
    assert moved[:3].max() > 0


def test_a_beginning_within_a_sequence_is_like_that_of_another():
    obs, actions, first = sequence()
    anew = program()(params(), obs, actions, first.at[2].set(True), KEY)
    # Beginnings ask the same of the memory, whatever is drawn of it later.
    cut = program()(params(), obs[2:], actions[2:], first[:4], KEY)
    np.testing.assert_allclose(anew.belief.deter[2], cut.belief.deter[0], atol=1e-6)
    np.testing.assert_allclose(anew.posterior.mean[2], cut.posterior.mean[0], atol=1e-6)


# ---------------------------------------------------------------------------- imagining


def policy(features, key):
    action = jnp.tanh(features[..., :2]) + 0.1 * jax.random.normal(key, (2,))
    return action, jnp.sum(features, axis=-1)


@functools.cache
def imagined(batch: int = 2):
    belief = rssm.Belief(np.tanh(normal(batch, 6)), normal(batch, 3, seed=2))
    run = jax.jit(functools.partial(MODEL.imagine, policy=policy, horizon=5))
    return belief, run(params(), belief, key=KEY)


def test_imagined_steps_follow_the_memory_and_the_policy_from_where_they_start():
    belief, found = imagined()
    assert_close(jax.tree.map(lambda leaf: leaf[0], found.belief), belief)
    told = jnp.sum(MODEL.features(found.belief), axis=-1)
    np.testing.assert_allclose(found.told, told, atol=1e-5)
    for t in range(5):
        for i in range(2):
            h, z = found.belief.deter[t, i], found.belief.stoch[t, i]
            wanted = gru(params(), h, z, found.action[t, i])
            np.testing.assert_allclose(found.belief.deter[t + 1, i], wanted, atol=1e-5)
    assert found.action.shape == (6, 2, 2)


def test_one_head_draws_for_the_whole_batch_and_another_at_other_steps():
    """With deviations of 0.1 and means far apart, a latent tells whose it is."""
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


def test_disagreement_is_the_deviation_of_the_heads_means():
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


def test_heads_that_are_one_agree_to_the_last_bit_and_with_a_finite_slope():
    alike = dict(params())
    alike["priors"] = jax.tree.map(
        lambda leaf: jnp.repeat(leaf[:1], HEADS, axis=0), alike["priors"]
    )
    deter = normal(50, 6)
    both = jax.jit(jax.value_and_grad(lambda deter: jnp.sum(MODEL.spread(alike, deter))))
    value, slope = both(deter)
    assert value == 0.0
    assert not np.asarray(slope).any()


# ------------------------------------------------------------------------------ pictures


def test_a_model_of_frames_draws_frames():
    model = rssm.make(CONFIG, (64, 64, 3), 2)
    shapes = jax.eval_shape(model.init, KEY)
    frames = jax.ShapeDtypeStruct((3, 2, 64, 64, 3), jnp.uint8)
    encoded = jax.eval_shape(model.encode, shapes, frames)
    assert encoded.shape == (3, 2, 32)
    drawn = jax.eval_shape(model.decode, shapes, jnp.zeros((3, 2, 9)))
    assert drawn.shape == frames.shape and drawn.dtype == jnp.float32


@pytest.mark.parametrize("patch_size", [None, 8])
def test_an_error_is_half_the_squared_distance_of_what_is_decoded(patch_size):
    pictures = conv.Config(filters=2, patch_size=patch_size)
    model = rssm.make(dataclasses.replace(CONFIG, pictures=pictures), (64, 64, 3), 2)
    shapes = jax.eval_shape(model.init, KEY)
    weights = jax.tree.map(lambda leaf: 0.3 * normal(*leaf.shape), shapes)
    features = normal(2, 3, 9)
    seen = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64, 3), dtype=np.uint8)
    distance = jax.jit(model.decode)(weights, features) - (seen / 255 - 0.5)
    found = jax.jit(model.error)(weights, features, seen)
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found, 0.5 * (distance**2).sum((2, 3, 4)), rtol=1e-4)


def test_frames_of_another_size_are_refused():
    with pytest.raises(UsageError, match="64 × 64 pixels, not 48 × 64: .* pixels=64"):
        rssm.make(CONFIG, (48, 64, 3), 2)


def test_a_model_of_vectors_gives_back_their_sizes():
    shapes = jax.eval_shape(MODEL.init, KEY)
    assert jax.eval_shape(MODEL.decode, shapes, jnp.zeros((3, 9))).shape == (3, 4)
    counts = {leaf.shape[0] for leaf in jax.tree.leaves(shapes["priors"])}
    assert counts == {HEADS}
