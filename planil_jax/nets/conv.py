"""Image encoder of TD-MPC2, image decoder of Dreamer, and random shifts.

The encoder makes 4 · 4 · 32 = 512 features of an image of 64 × 64 pixels, without padding:

    x = image / 255 - 1/2
    32 filters of 7 × 7, stride 2 → ReLU → 5 × 5, stride 2 → ReLU → 3 × 3, stride 2 → ReLU
    → 3 × 3, stride 1 → flattened

The decoder makes an image x of 64 × 64 pixels, by transposed convolutions of stride 2:

    features → 32 d units → 1 × 1 × 32 d → 5 × 5, 4 d filters → ReLU → 5 × 5, 2 d → ReLU
    → 6 × 6, d → ReLU → 6 × 6, one filter a channel

With `patch_size` encoder and decoder are those of nets/tiles.py. Random shifts augment the
images of training, not those of acting.

Source: the encoder is that of Hansen, Su & Wang 2024, TD-MPC2, arXiv 2310.16828; the shift
that of Yarats et al. 2021, DrQ-v2, arXiv 2107.09645, by whole pixels; the decoder that of
Hafner et al. 2020, Dreamer, arXiv 1912.01603.
Departures: biases start at 0. The weights of the encoder have the distribution of PyTorch's
default, as in the code of TD-MPC2.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from planil_jax.base import Network, Params, UsageError
from planil_jax.config import Count
from planil_jax.nets import tiles
from planil_jax.nets.heads import Policy

_KERNELS, _STRIDES = (7, 5, 3, 3), (2, 2, 2, 1)
_DECODER_KERNELS = (5, 5, 6, 6)  # sides grow from 1 to 5, 13, 30, 64 pixels


@dataclass(frozen=True, kw_only=True)
class Config:
    """An image encoder and decoder."""

    filters: Count = (
        32  # filters of every encoder layer, and of the last decoder layer but one
    )
    # side of the patches, in pixels, that encoder and decoder work on (see nets/tiles.py);
    # None: overlapping convolutions
    patch_size: Count | None = None


class _Convolutions(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = centre_pixels(images)
        # Uniform within ± 1 / sqrt(inputs), which has variance 1 / (3 inputs).
        uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        for layer, (kernel, stride) in enumerate(zip(_KERNELS, _STRIDES, strict=True)):
            x = nn.relu(x) if layer else x
            x = nn.Conv(
                self.config.filters,
                (kernel, kernel),
                (stride, stride),
                padding="VALID",
                kernel_init=uniform,
            )(x)
        return x.reshape(*x.shape[:-3], -1)


def make(config: Config, image: tuple[int, int, int]) -> Network:
    """An encoder: `apply(params, images [..., H, W, C]) -> features [..., F]`.

    Args:
      config: filters and patches.
      image: H, W and C, as in `EnvSpec.image`; pixel values are 0 to 255.

    Raises:
      UsageError: the image is too small for four convolutions, or patches do not fill it.
    """
    features(config, image)
    if config.patch_size:
        patches = tiles.make_encoder(config.patch_size, config.filters, image)
        return Network(
            patches.init,
            lambda params, images: patches.apply(params, centre_pixels(images)),
        )
    module = _Convolutions(config)
    example = jnp.zeros(image, jnp.float32)

    def apply(params: Params, images: jax.Array) -> jax.Array:
        return module.apply(params, images)  # type: ignore[return-value]

    return Network(init=lambda key: module.init(key, example), apply=apply)


def chain(config: Config, image: tuple[int, int, int], rest: Network | Policy) -> Network:
    """A network of images: the encoder, ReLU, and then `rest`.

    Args:
      config: of the encoder.
      image: H, W and C, as in `EnvSpec.image`.
      rest: a network of one input, the features `[..., F]`.

    Raises:
      UsageError: as for `make`.
    """
    encoder = make(config, image)

    def init(key: jax.Array) -> Params:
        encoder_key, rest_key = jax.random.split(key)
        return {"encoder": encoder.init(encoder_key), "rest": rest.init(rest_key)}

    def apply(params: Params, images: jax.Array):
        return rest.apply(params["rest"], nn.relu(encoder.apply(params["encoder"], images)))

    return Network(init, apply)


def features(config: Config, image: tuple[int, int, int]) -> int:
    """F, the number of features that the encoder makes of an image of H × W pixels.

    Raises:
      UsageError: as for `make`.
    """
    if config.patch_size:
        return tiles.features(config.patch_size, config.filters, image)
    sides = list(image[:2])
    for kernel, stride in zip(_KERNELS, _STRIDES, strict=True):
        sides = [(side - kernel) // stride + 1 for side in sides]
        if min(sides) < 1:
            raise UsageError(
                "the encoder needs images of 39 × 39 pixels or more, not "
                f"{image[0]} × {image[1]}: make them larger by pixels=64."
            )
    return sides[0] * sides[1] * config.filters


def centre_pixels(images: jax.Array) -> jax.Array:
    """Pixel values of 0 to 255 scaled to [-1/2, 1/2], float32, of any shape."""
    return images.astype(jnp.float32) / 255.0 - 0.5


class _Transposed(nn.Module):
    """A transposed convolution of stride 2, from h × w to (2 h + k - 2) × (2 w + k - 2).

        y_{2 i + u} = b + Σ_i x_i W_u   in both directions

    It is one matrix product whose blocks are added where they overlap. On a CPU that is
    five times as fast as XLA's transposed convolution, gradients included.
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
        blocks = (x.reshape(-1, channels) @ kernel).reshape(
            -1, height, width, half, 2, half, 2, self.filters
        )
        rows, columns, total = height + half - 1, width + half - 1, jnp.float32(0.0)
        for p in range(half):
            for q in range(half):
                padding = ((0, 0), (p, half - 1 - p), (q, half - 1 - q), *[(0, 0)] * 3)
                total = total + jnp.pad(blocks[:, :, :, p, :, q], padding)
        y = jnp.swapaxes(total, 2, 3)  # [..., rows, 2, columns, 2, filters]
        y = y.reshape(*lead, 2 * rows, 2 * columns, self.filters)
        return y[..., : 2 * rows - odd, : 2 * columns - odd, :] + bias


class _Decoder(nn.Module):
    config: Config
    channels: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        depth = self.config.filters
        x = nn.Dense(32 * depth)(features)
        x = x.reshape(*x.shape[:-1], 1, 1, 32 * depth)
        filters = (4 * depth, 2 * depth, depth, self.channels)
        for layer, (kernel, count) in enumerate(
            zip(_DECODER_KERNELS, filters, strict=True)
        ):
            x = nn.relu(x) if layer else x
            x = _Transposed(kernel, count)(x)
        return x


def make_decoder(config: Config, image: tuple[int, int, int], features: int) -> Network:
    """A decoder: `apply(params, features [..., F]) -> images [..., H, W, C]`.

    Args:
      config: filters and patches.
      image: H, W and C of the image; pixel values are meant to be in [-1/2, 1/2].
      features: F.

    Raises:
      UsageError: the image is not of 64 × 64 pixels, or patches do not fill it.
    """
    if config.patch_size:
        return tiles.make_decoder(config.patch_size, config.filters, image, features)
    if image[:2] != (64, 64):
        raise UsageError(
            f"the decoder makes images of 64 × 64 pixels, not {image[0]} × {image[1]}: "
            "make them so by pixels=64."
        )
    module = _Decoder(config, image[2])
    example = jnp.zeros((features,), jnp.float32)

    def apply(params: Params, features: jax.Array) -> jax.Array:
        return module.apply(params, features)  # type: ignore[return-value]

    return Network(init=lambda key: module.init(key, example), apply=apply)


def random_shift(key: jax.Array, image: jax.Array, pad: int = 3) -> jax.Array:
    """An image or stack of frames moved by a random whole number of pixels, `[H, W, C]`.

    The pixels at the edge are repeated. Use `jax.vmap` over keys and images for a batch.

    Args:
      key: consumed.
      image: `[H, W, C]` of any dtype.
      pad: the largest offset in both directions, in pixels.
    """
    offset = jax.random.randint(key, (2,), -pad, pad + 1)
    rows, columns = (
        jnp.clip(jnp.arange(size) + offset[axis], 0, size - 1)
        for axis, size in enumerate(image.shape[:2])
    )
    return image[rows][:, columns]
