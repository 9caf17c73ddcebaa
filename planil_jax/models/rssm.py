"""A recurrent state-space model: what was seen becomes a belief, and beliefs are foreseen.

    belief     b = (h, z), a memory and a latent;   features [h, z]
    memory     h_t = f(h_{t-1}, z_{t-1}, a_{t-1})
    imagining  z_t ~ p_k(z | h_t)          k of K priors, drawn for each step
    observing  z_t ~ q(z | h_t, e(o_t))
    decoding   o_t ~ N(d(h_t, z_t), 1)

Where an episode begins, belief and action are zero, whatever came before. At each step one
prior is drawn for the whole batch. How far their means are from each other says how little
the model knows of a step:

    u(b, a) = mean_i std_k μ_{k,i}(f(b, a))

Observations are vectors, already normalised, or frames of 0 to 255, which are read and
drawn as x / 255 - 1/2. Of 64 × 64 pixels the encoder that TD-MPC2 reads pictures with makes
512 features, so it serves here too, where Dreamer has one of its own.

Source: Hafner et al. 2019, PlaNet, arXiv 1811.04551; 2021, DreamerV2, arXiv 2010.02193;
K priors, Kolev et al. 2024, arXiv 2405.13193.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.base import Params
from planil_jax.nets import conv, mlp, rssm, tiles
from planil_jax.nets.rssm import Gaussian


@dataclass(frozen=True, kw_only=True)
class Config:
    network: rssm.Config = field(default_factory=rssm.Config)
    vectors: mlp.Config = field(  # encoder and decoder of what is no picture
        default_factory=lambda: mlp.Config(hidden=(200, 200), activation="elu")
    )
    pictures: conv.Config = field(default_factory=conv.Config)  # and of what is one


@struct.dataclass
class Belief:
    """Where the model believes the environment to be."""

    deter: jax.Array  # [.., D] h
    stoch: jax.Array  # [.., Z] z


@struct.dataclass
class Observed:
    """A step that was seen, or many of them."""

    belief: Belief  # of the posterior
    posterior: Gaussian
    prior: Gaussian  # before it was seen, of one head


@struct.dataclass
class Imagined:
    """Steps under a policy."""

    belief: Belief  # [H + 1, ..], the first is where it started
    action: jax.Array  # [H + 1, .., U] in each of them
    told: Any  # [H + 1, ..] what else the policy said


# (features [.., D + Z], key) -> action [.., U], and whatever it tells beside
Policy = Callable[[jax.Array, jax.Array], tuple[jax.Array, Any]]


class Rssm(NamedTuple):
    """The model; its parameters are {"encoder", "memory", "priors", "posterior",
    "decoder"}. All of it takes one or many alike; actions are in [-1, 1]."""

    init: Callable[[jax.Array], dict[str, Params]]
    start: Callable[[], Belief]  # () -> where nothing was seen, of one
    features: Callable[[Belief], jax.Array]  # (belief) -> [.., D + Z]
    encode: Callable[[Params, jax.Array], jax.Array]  # (params, obs) -> [.., F]
    decode: Callable[[Params, jax.Array], jax.Array]  # (params, features) -> mean of obs
    # (params, features [..], obs) -> [..], half of the squared error of decoding
    error: Callable[[Params, jax.Array, jax.Array], jax.Array]
    # (params, belief, action [.., U] that led here, encoded [.., F], first [..] bool,
    # head [] int, key or None: the mean) -> observed
    observe_step: Callable[..., Observed]
    # (params, actions [L, .., U] that led there, encoded [L, .., F], first [L, ..], key)
    # -> observed [L, ..], from a belief of zeros
    observe: Callable[..., Observed]
    # (params, belief, policy, H, key) -> imagined
    imagine: Callable[[Params, Belief, Policy, int, jax.Array], Imagined]
    # (params, belief, action) -> [..], u
    disagreement: Callable[[Params, Belief, jax.Array], jax.Array]
    # (params, deter [.., D] after the action) -> [..], u of a step that was imagined
    spread: Callable[[Params, jax.Array], jax.Array]


def make(config: Config, observation: int | tuple[int, int, int], action_size: int) -> Rssm:
    """A model of observations and actions of these sizes.

    Args:
      observation: O of vectors, or H, W and C of frames.

    Raises:
      UsageError: frames are not of 64 × 64 pixels.
    """
    sizes = config.network
    encoder, encoded, decoder = _eyes(config, observation)
    memory = rssm.make_memory(sizes, action_size)
    priors = rssm.make_priors(sizes)
    posterior = rssm.make_posterior(sizes, encoded)

    def init(key: jax.Array) -> dict[str, Params]:
        parts = {
            "encoder": encoder,
            "memory": memory,
            "priors": priors,
            "posterior": posterior,
            "decoder": decoder,
        }
        keys = jax.random.split(key, len(parts))
        return {
            name: part.init(key)
            for (name, part), key in zip(parts.items(), keys, strict=True)
        }

    def start() -> Belief:
        return Belief(
            jnp.zeros((sizes.deter,), jnp.float32), jnp.zeros((sizes.stoch,), jnp.float32)
        )

    def advance(params: Params, belief: Belief, action: jax.Array) -> jax.Array:
        return memory.apply(params["memory"], belief.deter, belief.stoch, action)

    def observe_step(
        params: Params,
        belief: Belief,
        action: jax.Array,
        encoded: jax.Array,
        first: jax.Array,
        head: jax.Array,
        key: jax.Array | None,
    ) -> Observed:
        belief, action = jax.tree.map(
            lambda leaf: jnp.where(first[..., None], 0.0, leaf), (belief, action)
        )
        deter = advance(params, belief, action)
        found: Any = posterior.apply(params["posterior"], deter, encoded)
        prior = priors.one(params["priors"], head, deter)
        stoch = found.mean if key is None else _draw(found, key)
        return Observed(Belief(deter, stoch), found, prior)

    def observe(
        params: Params,
        actions: jax.Array,
        encoded: jax.Array,
        first: jax.Array,
        key: jax.Array,
    ) -> Observed:
        chex.assert_equal_shape_prefix([actions, encoded, first], first.ndim)

        def one(belief: Belief, step):
            observed = observe_step(params, belief, *step)
            return observed.belief, observed

        shape = first.shape[1:]
        begin = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (*shape, *leaf.shape)), start()
        )
        heads, keys = _chances(key, first.shape[0])
        return jax.lax.scan(one, begin, (actions, encoded, first, heads, keys))[1]

    def imagine(
        params: Params, belief: Belief, policy: Policy, horizon: int, key: jax.Array
    ) -> Imagined:
        def one(belief: Belief, chance):
            head, key = chance
            act_key, key = jax.random.split(key)
            action, told = policy(features(belief), act_key)
            deter = advance(params, belief, action)
            prior = priors.one(params["priors"], head, deter)
            return Belief(deter, _draw(prior, key)), Imagined(belief, action, told)

        # The belief after the last step is not looked at, only what is done in it.
        return jax.lax.scan(one, belief, _chances(key, horizon + 1))[1]

    def _chances(key: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
        """For each step a head and a key, `[length]`."""
        head_key, key = jax.random.split(key)
        heads = jax.random.randint(head_key, (length,), 0, sizes.heads)
        return heads, jax.random.split(key, length)

    def error(params: Params, features: jax.Array, obs: jax.Array) -> jax.Array:
        decoded = decoder.apply(params["decoder"], features)
        if not isinstance(observation, int):
            # Tile by tile, so that the compiler leaves out laying them.
            side = config.pictures.patch_size or 1
            obs = tiles.patchify(conv.centre_pixels(obs), side)
            decoded = tiles.patchify(decoded, side)
        return 0.5 * jnp.sum((decoded - obs) ** 2, range(features.ndim - 1, obs.ndim))

    def spread(params: Params, deter: jax.Array) -> jax.Array:
        means = priors.each(params["priors"], deter).mean  # [K, .., Z]
        apart = means - means[:1]  # so that heads that agree do so to the last bit
        variance = jnp.mean((apart - jnp.mean(apart, axis=0)) ** 2, axis=0)  # [.., Z]
        some = variance > 0  # the root's slope at 0 is infinite
        root = jnp.where(some, jnp.sqrt(jnp.where(some, variance, 1.0)), 0.0)
        return jnp.mean(root, axis=-1)

    return Rssm(
        init=init,
        start=start,
        features=features,
        encode=lambda params, obs: encoder.apply(params["encoder"], obs),
        decode=lambda params, seen: decoder.apply(params["decoder"], seen),
        error=error,
        observe_step=observe_step,
        observe=observe,
        imagine=imagine,
        disagreement=lambda params, belief, action: spread(
            params, advance(params, belief, action)
        ),
        spread=spread,
    )


def features(belief: Belief) -> jax.Array:
    """[h, z], `[.., D + Z]`."""
    return jnp.concatenate([belief.deter, belief.stoch], axis=-1)


def _draw(gaussian: Gaussian, key: jax.Array) -> jax.Array:
    noise = jax.random.normal(key, gaussian.mean.shape)
    return gaussian.mean + gaussian.std * noise


def _eyes(config: Config, observation: int | tuple[int, int, int]):
    """The encoder, how many features it makes, and the decoder."""
    believed = config.network.deter + config.network.stoch
    if isinstance(observation, int):
        count = config.network.hidden
        return (
            mlp.make(config.vectors, (observation,), count),
            count,
            mlp.make(config.vectors, (believed,), observation),
        )
    return (
        conv.make(config.pictures, observation),
        conv.features(config.pictures, observation),
        conv.make_decoder(config.pictures, observation, believed),
    )
