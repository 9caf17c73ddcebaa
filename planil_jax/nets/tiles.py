"""Patch encoder and decoder: convolutions whose stride equals their width.

An image has H / p × W / p patches of p × p pixels. All patches share the same weights:

    encoder   patch → f units → ReLU;  2 × 2 patches → 2 f units → flattened
    decoder   features → 2 f units for 2 × 2 patches → ReLU → f units a patch → ReLU → patch

Patches do not overlap, so every layer is one matrix product. An image of 64 × 64 pixels at
p = 8 takes a fortieth of the operations of overlapping convolutions with as many features.
A movement by less than a patch is resolved by the weights of one patch alone. That is
enough for simple scenes, and fast enough for two CPU cores.

Source: patches as in Dosovitskiy et al. 2021, arXiv 2010.11929; without attention as in
Tolstikhin et al. 2021, arXiv 2105.01601.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from planil_jax.base import Network, Params, UsageError


def patchify(images: jax.Array, side: int) -> jax.Array:
    """Images `[..., H, W, C]` as patches `[..., H / side, W / side, side² C]`.

    Args:
      images: H and W are multiples of `side`.
      side: p, pixels.
    """
    *lead, height, width, channels = images.shape
    x = images.reshape(*lead, height // side, side, width // side, side, channels)
    x = jnp.swapaxes(x, -4, -3)
    return x.reshape(*x.shape[:-3], side * side * channels)


def unpatchify(patches: jax.Array, side: int) -> jax.Array:
    """The inverse of `patchify`."""
    *lead, rows, columns, size = patches.shape
    x = patches.reshape(*lead, rows, columns, side, side, size // (side * side))
    x = jnp.swapaxes(x, -4, -3)
    return x.reshape(*lead, rows * side, columns * side, x.shape[-1])


class _PatchEncoder(nn.Module):
    side: int
    filters: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(self.filters)(patchify(images, self.side)))
        x = nn.Dense(2 * self.filters)(patchify(x, 2))
        return x.reshape(*x.shape[:-3], -1)


class _PatchDecoder(nn.Module):
    side: int
    filters: int
    image: tuple[int, int, int]

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        height, width, channels = self.image
        rows, columns = height // self.side // 2, width // self.side // 2
        x = nn.relu(nn.Dense(rows * columns * 2 * self.filters)(features))
        x = x.reshape(*x.shape[:-1], rows, columns, 2 * self.filters)
        x = nn.relu(unpatchify(nn.Dense(4 * self.filters)(x), 2))
        return unpatchify(nn.Dense(self.side * self.side * channels)(x), self.side)


def make_encoder(side: int, filters: int, image: tuple[int, int, int]) -> Network:
    """An encoder: `apply(params, images [..., H, W, C]) -> features [..., F]`.

    Args:
      side: p, pixels of a patch's side.
      filters: f, units of a patch.
      image: H, W and C; pixel values are in [-1/2, 1/2].

    Raises:
      UsageError: blocks of 2 × 2 patches do not fill the image.
    """
    features(side, filters, image)
    return _network(_PatchEncoder(side, filters), jnp.zeros(image, jnp.float32))


def make_decoder(
    side: int, filters: int, image: tuple[int, int, int], inputs: int
) -> Network:
    """A decoder: `apply(params, features [..., inputs]) -> images [..., H, W, C]`.

    Args:
      side: p, pixels of a patch's side.
      filters: f, units of a patch.
      image: H, W and C; pixel values are meant to be in [-1/2, 1/2].
      inputs: the number of features.

    Raises:
      UsageError: blocks of 2 × 2 patches do not fill the image.
    """
    features(side, filters, image)
    return _network(_PatchDecoder(side, filters, image), jnp.zeros((inputs,), jnp.float32))


def features(side: int, filters: int, image: tuple[int, int, int]) -> int:
    """F, the number of features that the encoder makes of an image of H × W pixels.

    Raises:
      UsageError: blocks of 2 × 2 patches do not fill the image.
    """
    if image[0] % (2 * side) or image[1] % (2 * side):
        raise UsageError(
            f"blocks of 2 × 2 patches of {side} × {side} pixels do not fill an image of "
            f"{image[0]} × {image[1]}: choose a patch_size of which twice divides both, or "
            "None for overlapping convolutions."
        )
    return image[0] * image[1] // (2 * side) ** 2 * 2 * filters


def _network(module: nn.Module, example: jax.Array) -> Network:
    def apply(params: Params, inputs: jax.Array) -> jax.Array:
        return module.apply(params, inputs)  # type: ignore[return-value]

    return Network(init=lambda key: module.init(key, example), apply=apply)
