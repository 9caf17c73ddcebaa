import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.base import UsageError
from planil_jax.nets import conv, tiles

SIDE, FILTERS, IMAGE = 4, 3, (16, 24, 2)  # 4 × 6 patches, 2 × 3 when merged
CONFIG = conv.Config(filters=FILTERS, patch_size=SIDE)


def random_params(network, seed=0):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return jax.tree.map(
        lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(leaf.dtype), shapes
    )


def layer(params, index):
    dense = params["params"][f"Dense_{index}"]
    return np.float64(dense["kernel"]), np.float64(dense["bias"])


def test_patches_are_pieces_of_the_image_and_can_be_put_back_together():
    image = np.random.default_rng(0).normal(size=(2, *IMAGE))
    patches = np.asarray(tiles.patchify(jnp.asarray(image), SIDE))
    for row, column in np.ndindex(4, 6):
        piece = image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        np.testing.assert_allclose(patches[:, row, column], piece.reshape(2, -1), rtol=1e-6)
    restored = tiles.unpatchify(patches, SIDE)
    np.testing.assert_array_equal(restored, image.astype(np.float32))


def test_an_image_is_encoded_by_two_convolutions_that_do_not_overlap():
    network = conv.make(CONFIG, IMAGE)
    params = random_params(network)
    images = np.random.default_rng(1).integers(0, 256, (5, *IMAGE), dtype=np.uint8)
    x = np.float64(images) / 255 - 0.5
    for index, side in enumerate((SIDE, 2)):
        kernel, bias = layer(params, index)
        kernel = kernel.reshape(side, side, x.shape[-1], -1)
        windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(1, 2))
        x = np.einsum("bhwcij,ijcf->bhwf", windows[:, ::side, ::side], kernel) + bias
        x = x if index else np.maximum(x, 0)
    features = jax.jit(network.apply)(params, images)
    assert features.shape == (5, conv.features(CONFIG, IMAGE)) and x.std() > 0.1
    np.testing.assert_allclose(features, x.reshape(5, -1), rtol=1e-4, atol=1e-4)


def test_an_image_is_decoded_by_two_transposed_convolutions():
    network = conv.make_decoder(CONFIG, IMAGE, 7)
    params = random_params(network)
    features = np.random.default_rng(1).normal(size=(5, 7)).astype(np.float32)
    kernel, bias = layer(params, 0)
    x = np.maximum(np.float64(features) @ kernel + bias, 0).reshape(5, 2, 3, 2 * FILTERS)
    for index, side in ((1, 2), (2, SIDE)):
        kernel, bias = layer(params, index)
        pieces = (x @ kernel + bias).reshape(*x.shape[:3], side, side, -1)
        rows = [
            np.concatenate(list(np.moveaxis(row, 1, 0)), 2) for row in pieces.swapaxes(0, 1)
        ]
        x = np.concatenate(rows, 1)
        x = np.maximum(x, 0) if index == 1 else x
    images = jax.jit(network.apply)(params, features)
    assert images.shape == (5, *IMAGE) and x.std() > 0.1
    np.testing.assert_allclose(images, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("image", [(64, 60, 3), (20, 64, 3)])
def test_images_that_patches_do_not_fill_are_refused(image):
    with pytest.raises(UsageError, match="2 × 2 patches of 4 × 4 pixels"):
        conv.make(CONFIG, image)
    with pytest.raises(UsageError, match="choose a patch_size"):
        conv.make_decoder(CONFIG, image, 7)
