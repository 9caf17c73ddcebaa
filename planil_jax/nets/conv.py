"""Features of pictures, by the convolutions of TD-MPC2; and pictures of features.

    x = image / 255 - 1/2
    32 filters of 7 × 7, stride 2 → ReLU → 5 × 5, stride 2 → ReLU → 3 × 3, stride 2 → ReLU
    → 3 × 3, stride 1 → flattened: of 64 × 64 pixels 4 · 4 · 32 = 512 features

Nothing is padded. Random shifts are augmentation, of what is learned from and not of what
is acted on: a picture is moved by up to 3 pixels each way, and the pixels of its edge are
repeated where it has gone.

With `tile` both are those of nets/tiles.py. Else the decoder draws a picture of 64 × 64
pixels, as x above:

    features → 32 d units → 1 × 1 × 32 d → transposed convolutions with stride 2, unpadded:
    5 × 5, 4 d filters → ReLU → 5 × 5, 2 d → ReLU → 6 × 6, d → ReLU → 6 × 6, one a channel

Source: Hansen, Su and Wang 2024, TD-MPC2, arXiv 2310.16828, and its code; the shift is that
of Yarats et al. 2021, DrQ-v2, arXiv 2107.09645, by whole pixels; the decoder that of Hafner
et al. 2020, Dreamer, arXiv 1912.01603.
Departures: biases begin at 0. The encoder's weights are drawn as PyTorch draws them, which
is what TD-MPC2's code does.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from planil_jax.base import Network, Params, UsageError
from planil_jax.nets import tiles
from planil_jax.nets.heads import Policy

_KERNELS, _STRIDES = (7, 5, 3, 3), (2, 2, 2, 1)
_DRAWN = (5, 5, 6, 6)  # kernels of the decoder: 1, 5, 13, 30, 64 pixels


@dataclass(frozen=True, kw_only=True)
class Config:
    filters: int = 32  # of every layer of the encoder; of the decoder, its d
    tile: int = 0  # pixels of a side, where pictures are read and drawn by nets/tiles.py


class _Convolutions(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = unit(images)
        # Uniform within ± 1 / sqrt(inputs), which has a third of their variance.
        initial = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        for layer, (kernel, stride) in enumerate(zip(_KERNELS, _STRIDES, strict=True)):
            x = nn.relu(x) if layer else x
            x = nn.Conv(
                self.config.filters,
                (kernel, kernel),
                (stride, stride),
                padding="VALID",
                kernel_init=initial,
            )(x)
        return x.reshape(*x.shape[:-3], -1)


def make(config: Config, image: tuple[int, int, int]) -> Network:
    """An encoder: `apply(params, images [.., H, W, C])` of 0 to 255 -> features `[.., F]`.

    Args:
      image: H, W and C, as `EnvSpec.image` tells them.

    Raises:
      UsageError: the picture is too small for four convolutions, or tiles do not fill it.
    """
    features(config, image)
    if config.tile:
        reader = tiles.make_encoder(config.tile, config.filters, image)
        return Network(
            reader.init, lambda params, images: reader.apply(params, unit(images))
        )
    module = _Convolutions(config)
    dummy = jnp.zeros(image, jnp.float32)

    def apply(params: Params, images: jax.Array) -> jax.Array:
        return module.apply(params, images)  # type: ignore[return-value]

    return Network(init=lambda key: module.init(key, dummy), apply=apply)


def chain(config: Config, image: tuple[int, int, int], rest: Network | Policy) -> Network:
    """A network of pictures: the encoder, ReLU, and then `rest`, of its features."""
    eye = make(config, image)

    def init(key: jax.Array) -> Params:
        eye_key, rest_key = jax.random.split(key)
        return {"eye": eye.init(eye_key), "rest": rest.init(rest_key)}

    def apply(params: Params, images: jax.Array):
        return rest.apply(params["rest"], nn.relu(eye.apply(params["eye"], images)))

    return Network(init, apply)


def features(config: Config, image: tuple[int, int, int]) -> int:
    """How many features the encoder makes of a picture of H × W pixels."""
    if config.tile:
        return tiles.features(config.tile, config.filters, image)
    sides = list(image[:2])
    for kernel, stride in zip(_KERNELS, _STRIDES, strict=True):
        sides = [(side - kernel) // stride + 1 for side in sides]
        if min(sides) < 1:
            raise UsageError(
                "the encoder needs pictures of 39 × 39 pixels or more, not "
                f"{image[0]} × {image[1]}: make them larger by pixels=64."
            )
    return sides[0] * sides[1] * config.filters


def unit(images: jax.Array) -> jax.Array:
    """0 to 255 as -1/2 to 1/2."""
    return images.astype(jnp.float32) / 255.0 - 0.5


class _Transposed(nn.Module):
    """y_{2 i + u} = b + Σ_i x_i W_u, each way; from h × w to (2 h + k - 2) × (2 w + k - 2).

    As one product of matrices, whose pieces are then laid over each other: on a CPU five
    times as fast as XLA's own, gradients included.
    """

    kernel: int  # k
    filters: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        *lead, height, width, channels = x.shape
        side, odd = self.kernel, self.kernel % 2
        shape = (side, side, channels, self.filters)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.filters,))
        kernel = jnp.pad(kernel, ((0, odd), (0, odd), (0, 0), (0, 0)))
        kernel = jnp.moveaxis(kernel, 2, 0).reshape(channels, -1)
        half = (side + odd) // 2
        pieces = (x.reshape(-1, channels) @ kernel).reshape(
            -1, height, width, half, 2, half, 2, self.filters
        )
        rows, columns, total = height + half - 1, width + half - 1, jnp.float32(0.0)
        for p in range(half):
            for q in range(half):
                place = ((0, 0), (p, half - 1 - p), (q, half - 1 - q), *[(0, 0)] * 3)
                total = total + jnp.pad(pieces[:, :, :, p, :, q], place)
        y = jnp.swapaxes(total, 2, 3)  # [.., rows, 2, columns, 2, filters]
        y = y.reshape(*lead, 2 * rows, 2 * columns, self.filters)
        return y[..., : 2 * rows - odd, : 2 * columns - odd, :] + bias


class _Drawing(nn.Module):
    config: Config
    channels: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        depth = self.config.filters
        x = nn.Dense(32 * depth)(features)
        x = x.reshape(*x.shape[:-1], 1, 1, 32 * depth)
        filters = (4 * depth, 2 * depth, depth, self.channels)
        for layer, (kernel, count) in enumerate(zip(_DRAWN, filters, strict=True)):
            x = nn.relu(x) if layer else x
            x = _Transposed(kernel, count)(x)
        return x


def make_decoder(config: Config, image: tuple[int, int, int], features: int) -> Network:
    """A decoder: `apply(params, features [.., F]) -> [.., H, W, C]` of -1/2 to 1/2.

    Args:
      image: H, W and C of what is drawn.
      features: F.

    Raises:
      UsageError: the picture is not one of 64 × 64 pixels, or tiles do not fill it.
    """
    if config.tile:
        return tiles.make_decoder(config.tile, config.filters, image, features)
    if image[:2] != (64, 64):
        raise UsageError(
            f"the decoder draws pictures of 64 × 64 pixels, not {image[0]} × {image[1]}: "
            "make them so by pixels=64."
        )
    module = _Drawing(config, image[2])
    dummy = jnp.zeros((features,), jnp.float32)

    def apply(params: Params, features: jax.Array) -> jax.Array:
        return module.apply(params, features)  # type: ignore[return-value]

    return Network(init=lambda key: module.init(key, dummy), apply=apply)


def random_shift(key: jax.Array, image: jax.Array, pad: int = 3) -> jax.Array:
    """A picture, or a stack of frames, moved by whole pixels, `[H, W, C]`; edges repeat.

    Written for one: `jax.vmap` over keys and images moves each by its own offset.

    Args:
      pad: the furthest, in pixels, in each of both directions.
    """
    offset = jax.random.randint(key, (2,), -pad, pad + 1)
    rows, columns = (
        jnp.clip(jnp.arange(size) + offset[axis], 0, size - 1)
        for axis, size in enumerate(image.shape[:2])
    )
    return image[rows][:, columns]
