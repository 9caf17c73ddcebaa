"""Pictures by the tile: what convolutions with a stride of their own width read and draw.

Of tiles of p × p pixels, H / p × W / p of them, all by the same weights:

    reading   tile → f units → ReLU;  2 × 2 tiles → 2 f units → flattened
    drawing   features → 2 f units for 2 × 2 tiles → ReLU → f units a tile → ReLU → tile

Nothing overlaps, so that all of it is products of matrices, and a picture of 64 × 64 pixels
at p = 8 takes a fortieth of the operations of overlapping convolutions with as many
features. What moves by less than a tile is told by the weights of the tile alone: enough
for a scene with little in it, and of a size for two cores.

Source: Dosovitskiy et al. 2021, arXiv 2010.11929 (tiles as words); Tolstikhin et al. 2021,
arXiv 2105.01601, uses them without attention.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from planil_jax.base import Network, Params, UsageError


def patchify(images: jax.Array, side: int) -> jax.Array:
    """`[.., H, W, C]` to tiles `[.., H / side, W / side, side² C]`."""
    *lead, height, width, channels = images.shape
    x = images.reshape(*lead, height // side, side, width // side, side, channels)
    x = jnp.swapaxes(x, -4, -3)
    return x.reshape(*x.shape[:-3], side * side * channels)


def unpatchify(tiles: jax.Array, side: int) -> jax.Array:
    """The inverse of `cut`."""
    *lead, rows, columns, size = tiles.shape
    x = tiles.reshape(*lead, rows, columns, side, side, size // (side * side))
    x = jnp.swapaxes(x, -4, -3)
    return x.reshape(*lead, rows * side, columns * side, x.shape[-1])


class _Reading(nn.Module):
    side: int
    filters: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(self.filters)(patchify(images, self.side)))
        x = nn.Dense(2 * self.filters)(patchify(x, 2))
        return x.reshape(*x.shape[:-3], -1)


class _Drawing(nn.Module):
    side: int
    filters: int
    image: tuple[int, int, int]

    @nn.compact
    def __call__(self, told: jax.Array) -> jax.Array:
        height, width, channels = self.image
        rows, columns = height // self.side // 2, width // self.side // 2
        x = nn.relu(nn.Dense(rows * columns * 2 * self.filters)(told))
        x = x.reshape(*x.shape[:-1], rows, columns, 2 * self.filters)
        x = nn.relu(unpatchify(nn.Dense(4 * self.filters)(x), 2))
        return unpatchify(nn.Dense(self.side * self.side * channels)(x), self.side)


def make_encoder(side: int, filters: int, image: tuple[int, int, int]) -> Network:
    """`apply(params, images [.., H, W, C])` of -1/2 to 1/2 -> features `[.., F]`.

    Raises:
      UsageError: tiles, two by two, do not fill the picture.
    """
    features(side, filters, image)
    return _network(_Reading(side, filters), jnp.zeros(image, jnp.float32))


def make_decoder(
    side: int, filters: int, image: tuple[int, int, int], inputs: int
) -> Network:
    """`apply(params, features [.., inputs]) -> [.., H, W, C]`.

    Raises:
      UsageError: tiles, two by two, do not fill the picture.
    """
    features(side, filters, image)
    return _network(_Drawing(side, filters, image), jnp.zeros((inputs,), jnp.float32))


def features(side: int, filters: int, image: tuple[int, int, int]) -> int:
    """F, how many features the encoder makes of a picture."""
    if image[0] % (2 * side) or image[1] % (2 * side):
        raise UsageError(
            f"tiles of {side} × {side} pixels, two by two, do not fill a picture of "
            f"{image[0]} × {image[1]}: choose a side of which twice divides both, or 0 "
            "for convolutions that overlap."
        )
    return image[0] * image[1] // (2 * side) ** 2 * 2 * filters


def _network(module: nn.Module, dummy: jax.Array) -> Network:
    def apply(params: Params, inputs: jax.Array) -> jax.Array:
        return module.apply(params, inputs)  # type: ignore[return-value]

    return Network(init=lambda key: module.init(key, dummy), apply=apply)
