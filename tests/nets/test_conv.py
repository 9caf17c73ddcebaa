import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planil_jax.base import UsageError
from planil_jax.nets import conv

STRIDES = (2, 2, 2, 1)


def made(image=(41, 43, 2), filters=3):
    """An encoder, and parameters drawn by numpy: initialisers are slow to compile."""
    network = conv.make(conv.Config(filters=filters), image)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    params = jax.tree.map(
        lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(leaf.dtype), shapes
    )
    return network, params


def by_hand(params, image):
    """The same convolutions as sums over windows, in double precision."""
    x = np.float64(image) / 255 - 0.5
    for layer, stride in enumerate(STRIDES):
        kernel, bias = (
            np.float64(params["params"][f"Conv_{layer}"][name])
            for name in ("kernel", "bias")
        )
        if layer:
            x = np.maximum(x, 0)
        side = kernel.shape[0]
        windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(0, 1))
        x = np.einsum("hwcij,ijcf->hwf", windows[::stride, ::stride], kernel) + bias
    return x.ravel()


def test_features_are_those_of_four_convolutions_by_hand():
    network, params = made()
    image = np.random.default_rng(1).integers(0, 256, (41, 43, 2), dtype=np.uint8)
    output = jax.jit(network.apply)(params, image)
    expected = by_hand(params, image)
    assert expected.std() > 0.1  # so that the comparison is not trivial
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)


def test_an_image_of_64_pixels_has_512_features():
    network = conv.make(conv.Config(), (64, 64, 9))
    params = jax.eval_shape(network.init, jax.random.key(0))
    output = jax.eval_shape(network.apply, params, jnp.zeros((64, 64, 9), jnp.uint8))
    assert output.shape == (512,) and output.dtype == jnp.float32
    shapes = [params["params"][f"Conv_{i}"]["kernel"].shape for i in range(4)]
    assert shapes == [(7, 7, 9, 32), (5, 5, 32, 32), (3, 3, 32, 32), (3, 3, 32, 32)]


@pytest.mark.parametrize("image", [(64, 64, 3), (84, 64, 1), (39, 50, 2)])
def test_the_number_of_features_is_known_without_parameters(image):
    config = conv.Config(filters=5)
    network = conv.make(config, image)
    params = jax.eval_shape(network.init, jax.random.key(0))
    output = jax.eval_shape(network.apply, params, jnp.zeros(image))
    assert output.shape == (conv.features(config, image),)


@pytest.mark.parametrize("lead", [(), (6,), (2, 3)])
def test_leading_axes_are_kept(lead):
    network, params = made()
    images = jnp.zeros((*lead, 41, 43, 2), jnp.uint8)
    output = jax.eval_shape(network.apply, params, images)
    assert output.shape == (*lead, conv.features(conv.Config(filters=3), (41, 43, 2)))


def test_an_image_that_is_too_small_is_refused():
    with pytest.raises(UsageError, match="39 × 39 pixels or more, not 38 × 64"):
        conv.make(conv.Config(), (38, 64, 3))


def test_initial_weights_are_within_one_over_the_root_of_their_inputs():
    network = conv.make(conv.Config(), (64, 64, 9))
    layers = jax.jit(network.init)(jax.random.key(0))["params"]
    for layer in layers.values():
        bound = 1 / np.sqrt(np.prod(layer["kernel"].shape[:3]))
        assert 0.98 * bound < np.abs(layer["kernel"]).max() <= bound * (1 + 1e-6)
        assert not layer["bias"].any()


def padded_and_cut(image, down, right, pad):
    edges = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    height, width = image.shape[:2]
    return edges[down : down + height, right : right + width]


def test_a_shift_is_a_crop_of_the_padded_image_and_every_crop_occurs():
    image = np.random.default_rng(0).integers(0, 256, (7, 6, 2), dtype=np.uint8)
    pieces = {
        (down, right): padded_and_cut(image, down, right, 2)
        for down in range(5)
        for right in range(5)
    }
    keys = jax.random.split(jax.random.key(0), 400)
    shifted = jax.vmap(conv.random_shift, (0, None, None))(keys, jnp.asarray(image), 2)
    assert shifted.dtype == jnp.uint8
    offsets = [
        [offset for offset, piece in pieces.items() if np.array_equal(piece, one)]
        for one in np.asarray(shifted)
    ]
    assert all(len(matches) == 1 for matches in offsets)
    assert {matches[0] for matches in offsets} == set(pieces)  # misses one with 2e-6


def test_a_shift_is_by_up_to_three_pixels_by_default():
    image = jnp.arange(20)[:, None, None] * jnp.ones((20, 20, 1), jnp.int32)
    keys = jax.random.split(jax.random.key(1), 200)
    rows = jax.vmap(conv.random_shift, (0, None))(keys, image)[:, 10, 10, 0] - 10
    assert set(np.asarray(rows).tolist()) == set(range(-3, 4))


def test_images_of_a_batch_shift_differently_and_their_frames_shift_alike():
    frame = np.random.default_rng(0).integers(0, 256, (9, 9, 1), dtype=np.uint8)
    images = jnp.asarray(np.tile(frame, (8, 1, 1, 3)))
    shifted = np.asarray(
        jax.vmap(conv.random_shift)(jax.random.split(jax.random.key(2), 8), images)
    )
    assert len({one.tobytes() for one in shifted}) > 4
    np.testing.assert_array_equal(shifted[..., 0], shifted[..., 1])
    np.testing.assert_array_equal(shifted[..., 0], shifted[..., 2])


# ------------------------------------------------------------------------------- decoder


def decoded_by_hand(params, features):
    """Transposed convolutions as sums of shifted kernels, in double precision."""
    layers = jax.tree.map(np.float64, params["params"])
    x = np.float64(features) @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"]
    x = x.reshape(1, 1, -1)
    for layer in range(4):
        kernel, bias = (layers[f"_Transposed_{layer}"][name] for name in ("kernel", "bias"))
        x = np.maximum(x, 0) if layer else x
        side, (height, width, _) = kernel.shape[0], x.shape
        y = np.zeros((2 * height + side - 2, 2 * width + side - 2, kernel.shape[-1])) + bias
        for i, j in np.ndindex(height, width):
            piece = np.einsum("c,uvcf->uvf", x[i, j], kernel)
            y[2 * i : 2 * i + side, 2 * j : 2 * j + side] += piece
        x = y
    return x


def test_an_image_is_decoded_by_four_transposed_convolutions_by_hand():
    network = conv.make_decoder(conv.Config(filters=1), (64, 64, 3), 7)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(leaf.dtype),
        jax.eval_shape(network.init, jax.random.key(0)),
    )
    features = rng.normal(size=(2, 7)).astype(np.float32)
    output = jax.jit(network.apply)(params, features)
    expected = np.stack([decoded_by_hand(params, row) for row in features])
    assert expected.shape == (2, 64, 64, 3) and expected.std() > 0.1
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)


def test_the_decoder_has_dreamer_s_filters_and_keeps_leading_axes():
    network = conv.make_decoder(conv.Config(filters=4), (64, 64, 1), 7)
    params = jax.eval_shape(network.init, jax.random.key(0))
    shapes = [params["params"][f"_Transposed_{i}"]["kernel"].shape for i in range(4)]
    assert shapes == [(5, 5, 128, 16), (5, 5, 16, 8), (6, 6, 8, 4), (6, 6, 4, 1)]
    output = jax.eval_shape(network.apply, params, jnp.zeros((2, 3, 7)))
    assert output.shape == (2, 3, 64, 64, 1)


def test_images_of_another_size_cannot_be_decoded():
    with pytest.raises(UsageError, match="64 × 64 pixels, not 84 × 84: .* pixels=64"):
        conv.make_decoder(conv.Config(), (84, 84, 3), 7)
