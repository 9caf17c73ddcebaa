"""Networks of latent world models: normalised layers, SimNorm, ensembles of critics.

    layer(x) = Mish(LayerNorm(dropout(W x + b)))
    simnorm(x): every group of 8 entries becomes its softmax, so z is bounded

A layer of several inputs is the sum of a product with each. An input that does not vary
under a `vmap`, such as the state from which many plans start, is then multiplied once.

Source: Hansen, Su & Wang 2024, TD-MPC2, arXiv 2310.16828, section 3 and appendix H.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from planil_jax.base import Network, Params, UsageError
from planil_jax.config import Count, Positive, ShareBelow1
from planil_jax.nets import conv, heads

_EPSILON = 1e-5  # of a variance


@dataclass(frozen=True, kw_only=True)
class Config:
    latent: Count = 512  # Z, entries of a latent state
    group: Count = 8  # entries of a SimNorm group, which add up to 1
    encoder: tuple[Count, ...] = (256,)  # units of the encoder's hidden layers
    # convolutions before the encoder's hidden layers, where observations are pictures
    encoder_conv: conv.Config = field(default_factory=conv.Config)
    hidden: tuple[Count, ...] = (512, 512)  # units of dynamics, policy, critics and rewards
    critics: Count = 5  # M, critics of the ensemble
    dropout: ShareBelow1 = 0.01  # share of units dropped in the first layer of critics
    std: Positive = 0.5  # standard deviation of a new policy, before squashing
    std_low: Positive = 0.1  # least standard deviation of the policy
    std_high: Positive = 2.0  # largest standard deviation of the policy

    def check(self) -> None:
        if self.latent % self.group:
            raise UsageError(
                f"group must divide latent, {self.latent}, and {self.group} does not."
            )


class Ensemble(NamedTuple):
    """M networks of one shape, their parameters stacked `[M]`."""

    init: Callable[[jax.Array], Params]  # (key) -> params [M]
    # (params [M], *inputs, key of dropout or None) -> [M, ...]
    apply: Callable[..., jax.Array]


@jax.checkpoint
def mish(x: jax.Array) -> jax.Array:
    """x tanh(softplus(x)), by one exponential: x n / (n + 2), n = e^x (e^x + 2).

    Only x is stored for its gradient: recomputing the rest is faster than storing it.
    """
    power = jnp.exp(jnp.minimum(x, 20.0))
    ratio = power * (power + 2.0)
    return x * (ratio / (ratio + 2.0))


def simnorm(x: jax.Array, group: int) -> jax.Array:
    """SimNorm: `x` `[..., Z]` with every group of entries replaced by its softmax.

    Hansen, Su & Wang 2024, TD-MPC2, arXiv 2310.16828, section 3.
    """
    grouped = x.reshape(*x.shape[:-1], -1, group)
    powers = jnp.exp(grouped - jax.lax.stop_gradient(_over_group(jnp.maximum, grouped)))
    return (powers / _over_group(jnp.add, powers)).reshape(x.shape)


def absorbing_embedding(config: Config) -> jax.Array:
    """e `[Z]`, a latent state for what follows an end for good.

    In every SimNorm group it is halfway between the centre and the first corner, which is
    a little farther from encoded observations than these are from one another.
    """
    group = (jnp.eye(config.group)[0] + 1 / config.group) / 2
    return jnp.tile(group, config.latent // config.group)


def _over_group(combine: Callable, x: jax.Array) -> jax.Array:
    """A reduction of the last axis, `[..., 1]`.

    By halves, as XLA does not vectorise a reduction of so few entries on a CPU.
    """
    while x.shape[-1] % 2 == 0:
        lower, upper = jnp.split(x, 2, axis=-1)
        x = combine(lower, upper)
    return functools.reduce(combine, jnp.split(x, x.shape[-1], axis=-1))


@jax.custom_jvp
def normalised(kernel: jax.Array, bias: jax.Array, *inputs: jax.Array) -> jax.Array:
    """LayerNorm of Σ_i x_i W_i + b: its entries have mean 0 and variance 1.

    On a CPU, where no gradients are asked for, as in planning, by `_in_one_pass`.

    Args:
      kernel: `[Σ_i I_i, N]`; bias: `[N]`; inputs: `[..., I_i]` each.
    """
    return jax.lax.platform_dependent(
        kernel, bias, *inputs, cpu=_in_one_pass, default=_plainly
    )


@functools.partial(normalised.defjvp, symbolic_zeros=True)
def _normalised_jvp(primals, tangents):
    """The derivative of `_plainly`, in those arguments alone that have a tangent.

    Otherwise the kernel of a fixed network would be multiplied by zeros.
    """
    zero = jax.custom_derivatives.SymbolicZero
    moving = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, zero)]

    def of_moving(*values: jax.Array) -> jax.Array:
        filled = dict(enumerate(primals)) | dict(zip(moving, values, strict=True))
        return _plainly(*filled.values())

    chosen = [primals[i] for i in moving], [tangents[i] for i in moving]
    return jax.jvp(of_moving, *chosen)


def _plainly(kernel: jax.Array, bias: jax.Array, *inputs: jax.Array) -> jax.Array:
    return jax.nn.standardize(_sum(kernel, bias, *inputs), epsilon=_EPSILON)


def _in_one_pass(kernel: jax.Array, bias: jax.Array, *inputs: jax.Array) -> jax.Array:
    """The same as `_plainly`, with as few passes over the sum as possible.

    Such passes cost a layer of a few hundred units more time than its products. With
    centred weights the sum has mean 0. It is p + q: p of large matrix products, and
    q = Σ_j y_j R_j of the bias and of inputs with few entries. Then

        Σ (p + q)² = p·p + Σ_j y_j [2 p·R_j + Σ_k y_k R_j·R_k]

    and p + q is only ever written normalised.
    """
    kernel = kernel - jnp.mean(kernel, axis=1, keepdims=True)
    bias = bias - jnp.mean(bias)
    parts = list(zip(inputs, _rows(kernel, inputs), strict=True))
    few = [(x, rows) for x, rows in parts[1:] if len(rows) <= 8]
    many = parts[:1] + [(x, rows) for x, rows in parts[1:] if len(rows) > 8]
    products = functools.reduce(jnp.add, (_product(x, rows) for x, rows in many))
    one = jnp.ones((*(few or many)[0][0].shape[:-1], 1))
    y = jnp.concatenate([*(x for x, _ in few), one], axis=-1)  # [..., J]
    r = jnp.concatenate([*(rows for _, rows in few), bias[None]])  # [J, N]

    crossed = 2 * _product(products, r.T) + _product(y, r @ r.T)
    squares = jnp.sum(products**2, axis=-1) + jnp.sum(y * crossed, axis=-1)
    variance = jnp.maximum(squares, 0.0)[..., None] / kernel.shape[1]
    sums = products + sum(y[..., j, None] * row for j, row in enumerate(r))
    return sums * jax.lax.rsqrt(variance + _EPSILON)


def _sum(kernel: jax.Array, bias: jax.Array, *inputs: jax.Array) -> jax.Array:
    """Σ_i x_i W_i + b."""
    total = bias
    for x, rows in zip(inputs, _rows(kernel, inputs), strict=True):
        total = total + _product(x, rows)
    return total


def _rows(kernel: jax.Array, inputs: tuple[jax.Array, ...]) -> list[jax.Array]:
    """The rows of the kernel that belong to each of the inputs."""
    ends = list(itertools.accumulate(x.shape[-1] for x in inputs))
    return jnp.split(kernel, ends[:-1])


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x W over one leading axis, so that the kernel's gradient is a plain product too.

    With more leading axes XLA makes transposed copies, one entry after another.
    """
    flat = x.reshape(-1, x.shape[-1]) @ kernel
    return flat.reshape(*x.shape[:-1], kernel.shape[1])


class _Weights(nn.Module):
    """The kernel `[I, N]` and the bias `[N]` of a layer."""

    shape: tuple[int, int]
    zero: bool = False  # starts at 0

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        start = nn.initializers.truncated_normal(0.02)
        start = nn.initializers.zeros_init() if self.zero else start
        kernel = self.param("kernel", start, self.shape, jnp.float32)
        return kernel, self.param("bias", nn.initializers.zeros_init(), self.shape[1:])


class _Affine(nn.Module):
    """A scale and a shift of every entry."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones_init(), size)
        return x * scale + self.param("bias", nn.initializers.zeros_init(), size)


class _Normed(nn.Module):
    """Normalised hidden layers, and a last layer that is linear or has SimNorm."""

    hidden: tuple[int, ...]
    output: int
    group: int | None = None  # of SimNorm; None: a linear last layer
    zero: bool = False  # whether a linear last layer starts at 0
    dropout: float = 0.0

    @nn.compact
    def __call__(self, *inputs: jax.Array, train: bool = False) -> jax.Array:
        xs = inputs
        for i, size in enumerate((*self.hidden, self.output)):
            last = i == len(self.hidden)
            shape = (sum(x.shape[-1] for x in xs), size)
            weights = _Weights(shape, self.zero and last, name=f"_Dense_{i}")()
            if last and not self.group:
                return _sum(*weights, *xs)
            if i == 0 and self.dropout and train:
                x = nn.Dropout(self.dropout, deterministic=False)(_sum(*weights, *xs))
                x = jax.nn.standardize(x, epsilon=_EPSILON)
            else:
                x = normalised(*weights, *xs)
            x = _Affine(name=f"LayerNorm_{i}")(x)
            xs = (simnorm(x, self.group) if last and self.group else mish(x),)
        return xs[0]


def make_encoder(
    config: Config, observation_size: int, image: tuple[int, int, int] | None = None
) -> Network:
    """h: `(params, obs [.., O]) -> z [.., Z]`.

    Args:
      image: `[H, W, C]` of pictures, obs `[.., H, W, C]` uint8, which convolutions read
        first; None: observations are no pictures.
    """
    module = _Normed(config.encoder, config.latent, group=config.group)
    if image is None:
        return _network(module, (observation_size,))
    return conv.chain(
        config.encoder_conv,
        image,
        _network(module, (conv.features(config.encoder_conv, image),)),
    )


def make_step(config: Config, action_size: int) -> Network:
    """d: `(params, z [.., Z], action [.., U]) -> z [.., Z]`."""
    module = _Normed(config.hidden, config.latent, group=config.group)
    return _network(module, (config.latent, action_size))


def make_head(config: Config, sizes: tuple[int, ...], outputs: int) -> Network:
    """`(params, *inputs [.., I]) -> [.., outputs]`, 0 at first."""
    return _network(_Normed(config.hidden, outputs, zero=True), sizes)


def make_critics(config: Config, action_size: int, outputs: int = 1) -> Ensemble:
    """Q: `(params [M], z [.., Z], action [.., U], key) -> [M, .., outputs]`, 0 at first.

    With a key, units drop out.
    """
    module = _Normed(config.hidden, outputs, zero=True, dropout=config.dropout)
    sizes = (config.latent, action_size)
    network = _network(module, sizes)

    def init(key: jax.Array) -> Params:
        return jax.vmap(network.init)(jax.random.split(key, config.critics))

    def apply(params: Params, *inputs: jax.Array, key: jax.Array | None = None):
        count = jax.tree.leaves(params)[0].shape[0]
        keys = [None] * count if key is None else list(jax.random.split(key, count))
        # One after another: faster than one batched product of all.
        return jnp.stack(
            [
                network.apply(_member(params, i), *inputs, key=key)
                for i, key in enumerate(keys)
            ]
        )

    return Ensemble(init, apply)


def _member(params: Params, i: int) -> Params:
    return jax.tree.map(lambda leaf: leaf[i], params)


def random_subset(params: Params, key: jax.Array, count: int = 2) -> Params:
    """The parameters of `count` different members of an ensemble, at random, `[count]`."""
    members = jax.tree.leaves(params)[0].shape[0]
    chosen = jax.random.permutation(key, members)[:count]
    return jax.tree.map(lambda leaf: leaf[chosen], params)


def make_policy(
    config: Config, action_size: int, plan_steps: int | None = None
) -> heads.Policy:
    """π of latent states `[.., Z]`, for actions in [-1, 1].

    Args:
      plan_steps: number of actions at once: actions are `[.., plan_steps, U]`, log π is
        `[.., plan_steps]`; None: one action, `[.., U]`.
    """
    outputs = 2 * action_size * (plan_steps or 1)
    network = _network(_Normed(config.hidden, outputs), (config.latent,))
    std_config = heads.Config(
        std=config.std, std_low=config.std_low, std_high=config.std_high
    )

    def apply(params: Params, z: jax.Array) -> heads.TanhNormal:
        raw = network.apply(params, z)
        if plan_steps:
            raw = raw.reshape(*raw.shape[:-1], plan_steps, 2 * action_size)
        mean, raw_std = jnp.split(raw, 2, axis=-1)
        return heads.TanhNormal(mean, heads.bounded_std(std_config, raw_std))

    bounds = (-1.0,) * action_size, (1.0,) * action_size
    return heads.tanh_normal(network.init, apply, *bounds)


def _network(module: _Normed, sizes: tuple[int, ...]) -> Network:
    dummies = [jnp.zeros((size,), jnp.float32) for size in sizes]

    def apply(params: Params, *inputs: jax.Array, key: jax.Array | None = None):
        rngs = None if key is None else {"dropout": key}
        return module.apply(params, *inputs, train=key is not None, rngs=rngs)

    return Network(init=lambda key: module.init(key, *dummies), apply=apply)
