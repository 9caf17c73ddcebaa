"""A recurrent state-space model: beliefs that follow observations, or are imagined.

    belief     b = (h, z), a memory and a latent;   features [h, z]
    memory     h_t = f(h_{t-1}, z_{t-1}, a_{t-1})
    imagine    z_t ~ p_k(z | h_t)          k is one of K priors, drawn at each step
    observe    z_t ~ q(z | h_t, e(o_t))
    decode     o_t ~ N(d(h_t, z_t), 1)

Belief and action are set to zero where an episode begins. At each step one prior is drawn
for the whole batch. The disagreement of the priors says how uncertain the model is:

    u(b, a) = mean_i std_k μ_{k,i}(f(b, a))

Observations are normalised vectors, or frames of 0 to 255. Frames are read and decoded as
x / 255 - 1/2.

Source: Hafner et al. 2019, PlaNet, arXiv 1811.04551; 2021, DreamerV2, arXiv 2010.02193;
K priors and their disagreement, Kolev et al. 2024, arXiv 2405.13193.
Departure: frames are encoded by TD-MPC2's convolutions (nets/conv.py), which make 512
features of 64 × 64 pixels; Dreamer has another encoder.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import struct

from planil_jax.base import Network, Params
from planil_jax.nets import conv, mlp, rssm, tiles
from planil_jax.nets.rssm import Gaussian


@dataclass(frozen=True, kw_only=True)
class Config:
    network: rssm.Config = field(default_factory=rssm.Config)  # memory and latent
    # encoder and decoder of observations that are vectors
    vectors: mlp.Config = field(
        default_factory=lambda: mlp.Config(hidden=(200, 200), activation="elu")
    )
    pictures: conv.Config = field(default_factory=conv.Config)  # those of frames


@struct.dataclass
class Belief:
    """What the model believes about the state of the environment."""

    deter: jax.Array  # [.., D] the memory h
    stoch: jax.Array  # [.., Z] the latent z


@struct.dataclass
class Inputs:
    """What leads from one belief to the next, of one step or of many."""

    action: jax.Array  # [.., U] the previous action
    encoded: jax.Array  # [.., F] features of the observation
    first: jax.Array  # [..] bool, whether an episode begins here


@struct.dataclass
class Observed:
    """One step with its observation, or many of them."""

    belief: Belief  # with z of the posterior
    posterior: Gaussian
    prior: Gaussian  # of one head, before the observation


@struct.dataclass
class Imagined:
    """Steps under a policy."""

    belief: Belief  # [H + 1, ..], the first is the start
    action: jax.Array  # [H + 1, .., U] taken there
    aux: Any  # [H + 1, ..] what the policy returned with the action


# (features [.., D + Z], key) -> action [.., U], aux
Policy = Callable[[jax.Array, jax.Array], tuple[jax.Array, Any]]


class Rssm(NamedTuple):
    """The model. Its parameters are {"encoder", "memory", "priors", "posterior",
    "decoder"}. All functions take one input or a batch; actions are in [-1, 1]."""

    init: Callable[[jax.Array], dict[str, Params]]  # (key) -> params
    start: Callable[[], Belief]  # () -> one belief before any observation
    features: Callable[[Belief], jax.Array]  # (belief) -> [.., D + Z]
    encode: Callable[[Params, jax.Array], jax.Array]  # (params, obs) -> [.., F]
    decode: Callable[[Params, jax.Array], jax.Array]  # (params, features) -> mean of obs
    # (params, features [..], obs) -> [..], half the squared error of decoding
    error: Callable[[Params, jax.Array, jax.Array], jax.Array]
    # (params, previous belief, inputs, head [] int, key) -> observed; with None for a key
    # z is the mean of the posterior
    observe_step: Callable[[Params, Belief, Inputs, jax.Array, jax.Array | None], Observed]
    # (params, inputs [L, ..], key) -> observed [L, ..], from a belief of zeros
    observe: Callable[[Params, Inputs, jax.Array], Observed]
    # (params, inputs [T], observed_steps) -> beliefs [T] of means: of the posterior for the
    # observed steps, of the first prior after them
    filter: Callable[[Params, Inputs, int], Belief]
    # (params, belief, policy, H, key) -> imagined
    imagine: Callable[[Params, Belief, Policy, int, jax.Array], Imagined]
    # (params, belief, action) -> [..], u
    disagreement: Callable[[Params, Belief, jax.Array], jax.Array]
    # (params, next deter [.., D]) -> [..], u of the step that led to this memory
    disagreement_at: Callable[[Params, jax.Array], jax.Array]


class _Networks(NamedTuple):
    """The networks, and the settings that the functions below read."""

    encoder: Network
    memory: Network
    priors: rssm.Heads
    posterior: Network
    decoder: Network
    sizes: rssm.Config
    tile: int | None  # pixels of a side of the tiles of frames; None: vectors


def make(config: Config, observation: int | tuple[int, int, int], action_size: int) -> Rssm:
    """A model of observations and actions of these sizes.

    Args:
      observation: O of vectors, or H, W and C of frames.

    Raises:
      UsageError: frames are not of 64 × 64 pixels.
    """
    sizes = config.network
    encoder, encoded_size, decoder = _observation_networks(config, observation)
    networks = _Networks(
        encoder=encoder,
        memory=rssm.make_memory(sizes, action_size),
        priors=rssm.make_priors(sizes),
        posterior=rssm.make_posterior(sizes, encoded_size),
        decoder=decoder,
        sizes=sizes,
        tile=None if isinstance(observation, int) else config.pictures.patch_size or 1,
    )
    return Rssm(
        init=functools.partial(_init, networks),
        start=functools.partial(_start, sizes),
        features=features,
        encode=lambda params, obs: encoder.apply(params["encoder"], obs),
        decode=lambda params, features: decoder.apply(params["decoder"], features),
        error=functools.partial(_error, networks),
        observe_step=functools.partial(_observe_step, networks),
        observe=functools.partial(_observe, networks),
        filter=functools.partial(_filter, networks),
        imagine=functools.partial(_imagine, networks),
        disagreement=functools.partial(_disagreement, networks),
        disagreement_at=functools.partial(_disagreement_at, networks),
    )


def features(belief: Belief) -> jax.Array:
    """[h, z], `[.., D + Z]`."""
    return jnp.concatenate([belief.deter, belief.stoch], axis=-1)


def _init(networks: _Networks, key: jax.Array) -> dict[str, Params]:
    names = ("encoder", "memory", "priors", "posterior", "decoder")
    keys = jax.random.split(key, len(names))
    return {
        name: getattr(networks, name).init(key)
        for name, key in zip(names, keys, strict=True)
    }


def _start(sizes: rssm.Config) -> Belief:
    return Belief(
        jnp.zeros((sizes.deter,), jnp.float32), jnp.zeros((sizes.stoch,), jnp.float32)
    )


# ------------------------------------------------------------------------------ observing


def _advance(
    networks: _Networks, params: Params, belief: Belief, action: jax.Array
) -> jax.Array:
    """The next memory h, `[.., D]`."""
    return networks.memory.apply(params["memory"], belief.deter, belief.stoch, action)


def _observe_step(
    networks: _Networks,
    params: Params,
    belief: Belief,
    inputs: Inputs,
    head: jax.Array,
    key: jax.Array | None,
) -> Observed:
    belief, action = jax.tree.map(
        lambda leaf: jnp.where(inputs.first[..., None], 0.0, leaf), (belief, inputs.action)
    )
    deter = _advance(networks, params, belief, action)
    posterior: Any = networks.posterior.apply(params["posterior"], deter, inputs.encoded)
    prior = networks.priors.apply_one(params["priors"], head, deter)
    stoch = posterior.mean if key is None else _sample(posterior, key)
    return Observed(Belief(deter, stoch), posterior, prior)


def _observe(
    networks: _Networks, params: Params, inputs: Inputs, key: jax.Array
) -> Observed:
    first = inputs.first
    chex.assert_equal_shape_prefix([inputs.action, inputs.encoded, first], first.ndim)

    def one(belief: Belief, step):
        observed = _observe_step(networks, params, belief, *step)
        return observed.belief, observed

    start = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (*first.shape[1:], *leaf.shape)),
        _start(networks.sizes),
    )
    heads, keys = _draw_heads(networks.sizes, key, first.shape[0])
    return jax.lax.scan(one, start, (inputs, heads, keys))[1]


def _filter(
    networks: _Networks, params: Params, inputs: Inputs, observed_steps: int
) -> Belief:
    head = jnp.zeros((), jnp.int32)

    def one(belief: Belief, step):
        inputs, is_observed = step
        observed = _observe_step(networks, params, belief, inputs, head, None)
        stoch = jnp.where(is_observed, observed.posterior.mean, observed.prior.mean)
        belief = Belief(observed.belief.deter, stoch)
        return belief, belief

    is_observed = jnp.arange(inputs.first.shape[0]) < observed_steps
    return jax.lax.scan(one, _start(networks.sizes), (inputs, is_observed))[1]


# ------------------------------------------------------------------------------ imagining


def _imagine(
    networks: _Networks,
    params: Params,
    belief: Belief,
    policy: Policy,
    horizon: int,
    key: jax.Array,
) -> Imagined:
    def one(belief: Belief, head_and_key):
        head, key = head_and_key
        act_key, key = jax.random.split(key)
        action, aux = policy(features(belief), act_key)
        deter = _advance(networks, params, belief, action)
        prior = networks.priors.apply_one(params["priors"], head, deter)
        return Belief(deter, _sample(prior, key)), Imagined(belief, action, aux)

    # One step more than H, for the action in the last belief.
    return jax.lax.scan(one, belief, _draw_heads(networks.sizes, key, horizon + 1))[1]


def _draw_heads(
    sizes: rssm.Config, key: jax.Array, length: int
) -> tuple[jax.Array, jax.Array]:
    """A head and a key for each step, `[length]`."""
    head_key, key = jax.random.split(key)
    heads = jax.random.randint(head_key, (length,), 0, sizes.heads)
    return heads, jax.random.split(key, length)


def _sample(gaussian: Gaussian, key: jax.Array) -> jax.Array:
    noise = jax.random.normal(key, gaussian.mean.shape)
    return gaussian.mean + gaussian.std * noise


def _disagreement(
    networks: _Networks, params: Params, belief: Belief, action: jax.Array
) -> jax.Array:
    return _disagreement_at(networks, params, _advance(networks, params, belief, action))


def _disagreement_at(networks: _Networks, params: Params, deter: jax.Array) -> jax.Array:
    means = networks.priors.apply_all(params["priors"], deter).mean  # [K, .., Z]
    offsets = means - means[:1]  # equal heads then have a variance of exactly 0
    variance = jnp.mean((offsets - jnp.mean(offsets, axis=0)) ** 2, axis=0)  # [.., Z]
    positive = variance > 0  # the slope of the root is infinite at 0
    std = jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0)
    return jnp.mean(std, axis=-1)


# ------------------------------------------------------------------------------- decoding


def _error(
    networks: _Networks, params: Params, features: jax.Array, obs: jax.Array
) -> jax.Array:
    decoded = networks.decoder.apply(params["decoder"], features)
    if networks.tile is not None:
        # Tile by tile: the compiler then need not assemble the picture from its tiles.
        obs = tiles.patchify(conv.centre_pixels(obs), networks.tile)
        decoded = tiles.patchify(decoded, networks.tile)
    return 0.5 * jnp.sum((decoded - obs) ** 2, range(features.ndim - 1, obs.ndim))


def _observation_networks(
    config: Config, observation: int | tuple[int, int, int]
) -> tuple[Network, int, Network]:
    """The encoder, how many features it makes, and the decoder."""
    belief_size = config.network.deter + config.network.stoch
    if isinstance(observation, int):
        encoded_size = config.network.hidden
        return (
            mlp.make(config.vectors, (observation,), encoded_size),
            encoded_size,
            mlp.make(config.vectors, (belief_size,), observation),
        )
    return (
        conv.make(config.pictures, observation),
        conv.features(config.pictures, observation),
        conv.make_decoder(config.pictures, observation, belief_size),
    )
