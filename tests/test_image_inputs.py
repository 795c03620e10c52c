"""The encoders' input: one image in NumPy, its twin for batches in JAX, what encoders refuse."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

import sam_jax
from sam_jax import InputError, prepare_image, prepare_images
from sam_jax.configs import TEST, MaeConfig
from sam_jax.models.mae.mae import MaskedAutoencoder
from sam_jax.models.sam.sam import variable_shapes
from sam_jax.models.sam2.config import SAM2_TEST
from sam_jax.models.sam2.sam2 import variable_shapes as sam2_shapes

SAM = replace(TEST, image_size=64)
SIZES = [(61, 90), (90, 61), (64, 64), (64, 33), (7, 100), (20, 15), (1, 3), (200, 128)]


def batch(size_hw, count=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size_hw, 3), np.uint8)


def levels(prepared, config):
    return np.asarray(prepared) * np.array(config.pixel_std, np.float32)


@pytest.mark.parametrize("size_hw", SIZES)
def test_a_batch_is_what_each_image_is_for_sam(size_hw):
    images = batch(size_hw)
    made = jax.jit(prepare_images, static_argnums=1)(images, SAM)
    assert made.shape == (2, 64, 64, 3) and made.dtype == jnp.float32
    expected = np.stack([prepare_image(image, SAM) for image in images])
    # Pillow rounds to bytes after each step, and sums in fixed point: a tie may fall otherwise.
    np.testing.assert_allclose(levels(made, SAM), levels(expected, SAM), atol=1.001)
    np.testing.assert_array_equal(np.asarray(made)[expected == 0], 0)
    floats = prepare_images(images / np.float32(255), SAM)
    np.testing.assert_allclose(levels(floats, SAM), levels(expected, SAM), atol=1.001)


@pytest.mark.parametrize("size_hw", SIZES)
def test_a_batch_is_what_each_image_is_for_sam_2(size_hw):
    images = batch(size_hw)
    expected = np.stack([prepare_image(image, SAM2_TEST) for image in images])
    for given in (images, jnp.asarray(images), images / np.float32(255)):
        made = jax.jit(prepare_images, static_argnums=1)(given, SAM2_TEST)
        # Sums of 200 products in float32, of values up to 255.
        np.testing.assert_allclose(made, expected, atol=1e-4)


@pytest.mark.parametrize("config", [SAM, SAM2_TEST], ids=["sam", "sam2"])
def test_gradients_and_vmap_go_through(config):
    images = jnp.asarray(batch((30, 41), 3) / np.float32(255))

    def total(images):
        return prepare_images(images, config).sum()

    slope = jax.grad(total)(images)
    assert float(jnp.abs(slope).min()) > 0
    step = 1e-2 * jax.random.normal(jax.random.key(0), images.shape)
    inner = jnp.clip(images, 0.05, 0.95)
    change = total(inner + step) - total(inner)
    # Linear, so that only rounding of sums of 10,000 numbers is left.
    np.testing.assert_allclose(change, (slope * step).sum(), rtol=0.02, atol=1)
    one_by_one = jax.vmap(lambda image: prepare_images(image[None], config)[0])(images)
    np.testing.assert_allclose(one_by_one, prepare_images(images, config), atol=1e-4)


@pytest.mark.parametrize(
    "images, reason",
    [
        (np.zeros((5, 6, 3), np.uint8), "(5, 6, 3)"),
        (np.zeros((1, 5, 6, 4), np.uint8), "(1, 5, 6, 4)"),
        (np.zeros((1, 5, 6, 3), np.int32), "int32"),
        (np.zeros((1, 5, 6, 3), bool), "bool"),
        (np.full((1, 5, 6, 3), 200, np.float32), "200"),
        (np.full((1, 5, 6, 3), np.nan, np.float32), "nan"),
    ],
)
def test_other_batches_are_refused(images, reason):
    with pytest.raises((InputError, TypeCheckError)) as caught:
        prepare_images(images, SAM)
    # The tests check shapes in signatures, before the function does.
    if images.ndim == 4 and images.shape[-1] == 3:
        assert isinstance(caught.value, InputError) and reason in str(caught.value)


def encoders():
    sam = sam_jax.Sam(TEST)
    yield pytest.param(lambda x: sam.apply({}, x, method="encode_image"), id="Sam")
    sam2 = sam_jax.Sam2(SAM2_TEST)
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), sam2_shapes(SAM2_TEST))
    yield pytest.param(lambda x: sam2.apply(variables, x, method="encode_image"), id="Sam2")
    mae = MaskedAutoencoder(MaeConfig("mae", image_size=64))
    yield pytest.param(lambda x: mae.apply({}, x, jnp.zeros((1, 16))), id="Mae")


@pytest.mark.parametrize("encode", list(encoders()))
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, bool])
def test_encoders_refuse_pixels_under_jit_too(encode, dtype):
    images = jnp.zeros((1, 64, 64, 3), dtype)
    for run in (encode, jax.jit(encode)):
        with pytest.raises(InputError, match="normalized floats.*sam_jax.prepare_image"):
            run(images)


def test_the_pure_functions_give_what_the_segmenter_gives():
    shapes = variable_shapes(TEST)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(0, 0.05, s.shape).astype(np.float32), shapes)
    images = batch((61, 90))
    encode = jax.jit(
        lambda params, images: sam_jax.Sam(TEST).apply(
            params, prepare_images(images, TEST), method="encode_image"
        )
    )
    expected = [sam_jax.Segmenter(TEST, params).encode(image).features for image in images]
    found = encode(params, images).embedding
    # One level of 255 in a pixel, where rounding falls otherwise.
    np.testing.assert_allclose(found, np.stack(expected), atol=0.02 * np.abs(expected).max())
