"""Features of pictures: the convolutions of TD-MPC2, and the random shift beside them.

    x = image / 255 - 1/2
    32 filters of 7 × 7, stride 2 → ReLU → 5 × 5, stride 2 → ReLU → 3 × 3, stride 2 → ReLU
    → 3 × 3, stride 1 → flattened: of 64 × 64 pixels 4 · 4 · 32 = 512 features

Nothing is padded. Random shifts are augmentation, of what is learned from and not of what
is acted on: a picture is moved by up to 3 pixels each way, and the pixels of its edge are
repeated where it has gone.

Source: Hansen, Su and Wang 2024, TD-MPC2, arXiv 2310.16828, and its code; the shift is that
of Yarats et al. 2021, DrQ-v2, arXiv 2107.09645, by whole pixels.
Departures: biases begin at 0. Weights are drawn as PyTorch draws them, which is what their
code does.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from planil_jax.base import Network, Params, UsageError

_KERNELS, _STRIDES = (7, 5, 3, 3), (2, 2, 2, 1)


@dataclass(frozen=True, kw_only=True)
class Config:
    filters: int = 32  # of every layer


class _Convolutions(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.astype(jnp.float32) / 255.0 - 0.5
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
      UsageError: the picture is too small for four convolutions.
    """
    features(config, image)
    module = _Convolutions(config)
    dummy = jnp.zeros(image, jnp.float32)

    def apply(params: Params, images: jax.Array) -> jax.Array:
        return module.apply(params, images)  # type: ignore[return-value]

    return Network(init=lambda key: module.init(key, dummy), apply=apply)


def features(config: Config, image: tuple[int, int, int]) -> int:
    """How many features the encoder makes of a picture of H × W pixels."""
    sides = list(image[:2])
    for kernel, stride in zip(_KERNELS, _STRIDES, strict=True):
        sides = [(side - kernel) // stride + 1 for side in sides]
        if min(sides) < 1:
            raise UsageError(
                "the encoder needs pictures of 39 × 39 pixels or more, not "
                f"{image[0]} × {image[1]}: make them larger by pixels=64."
            )
    return sides[0] * sides[1] * config.filters


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
