import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from sam_jax.data.scenes.camera import (
    Camera,
    blur_matrix,
    jpeg,
    jpeg_steps,
    moved,
    photograph,
    shrink_matrix,
)

PLAIN = Camera(
    blur=jnp.float32(0.0),
    motion=jnp.zeros(2),
    shrink=jnp.float32(1),
    shot_noise=jnp.float32(0),
    read_noise=jnp.float32(0),
    noise_grain=jnp.float32(0),
    gains=jnp.ones(3),
    gamma=jnp.float32(1),
    contrast=jnp.float32(0),
    sharpening=jnp.float32(0),
    grey=jnp.bool_(False),
    jpeg_quality=jnp.float32(101),
)


def picture(side=64):
    y, x = np.mgrid[:side, :side] / side
    waves = np.stack([np.sin(9 * x), np.cos(7 * y + 3 * x), np.sin(20 * x * y)], axis=-1)
    disc = ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.06)[..., None]
    return np.float32(np.round(128 + 60 * waves * np.where(disc, -1, 1)))


def pillow_jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(file, "jpeg", quality=quality, subsampling=2)
    return Image.open(file)


@pytest.mark.parametrize("quality", [5, 30, 50, 75, 95, 100])
def test_jpeg_steps_are_those_of_the_libraries(quality):
    tables = pillow_jpeg(picture(), quality).quantization
    steps = np.asarray(jpeg_steps(jnp.float32(quality)))
    np.testing.assert_array_equal(steps[0].reshape(64), tables[0])
    np.testing.assert_array_equal(steps[1].reshape(64), tables[1])


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_jpeg_does_to_a_picture_what_a_real_encoder_does(quality):
    image = picture()
    real = np.asarray(pillow_jpeg(image, quality), np.float32)
    ours = np.clip(jpeg(jnp.asarray(image), jnp.float32(quality)), 0, 255)
    # Decoders smooth the halved colors when they enlarge them; ours repeats them. Everything else
    # is the same up to rounding, so that we are far closer to theirs than either to the original.
    grey = np.array([0.299, 0.587, 0.114])
    lost = np.abs((real - image) @ grey).mean()
    assert np.abs((real - ours) @ grey).mean() < 0.35 * lost + 0.5


def test_a_blur_is_the_gaussian_filter():
    rng = np.random.default_rng(0)
    line = rng.random((64, 1)).astype(np.float32)
    ours = np.asarray(blur_matrix(64, jnp.float32(1.7)) @ line)
    theirs = gaussian_filter1d(line, 1.7, axis=0, truncate=8)
    # Away from the ends, where ours weighs what there is.
    np.testing.assert_allclose(ours[12:-12], theirs[12:-12], atol=1e-5)
    np.testing.assert_allclose(blur_matrix(64, jnp.float32(1.7)).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("factor", [0.4, 0.55, 1.0])
def test_shrinking_keeps_slopes_in_place_and_loses_detail(factor):
    matrix = np.asarray(shrink_matrix(64, jnp.float32(factor)))
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5)
    position = np.arange(64)
    # Filters are symmetric: a slope stays, but at the ends and for the sampling of the triangle.
    assert np.abs(matrix @ position - position)[6:-6].max() < 0.25
    finest = matrix @ (-1.0) ** position
    assert np.abs(finest).max() < 0.5 if factor < 1 else (np.abs(finest) == 1).all()


def test_motion_spreads_a_point_along_its_way_around_its_place():
    image = jnp.zeros((32, 32, 3)).at[16, 10].set(1.0)
    spread = np.asarray(moved(image, jnp.array([12.0, 0.0]))[..., 0])
    rows, columns = np.nonzero(spread)
    assert set(rows) == {16}
    assert columns.min() == 4 and columns.max() == 16
    np.testing.assert_allclose(spread.sum(), 1, atol=1e-5)


def test_a_plain_camera_keeps_order_and_place():
    light = jnp.linspace(0, 1, 32)[None, :, None] * jnp.ones((32, 32, 3))
    image = np.asarray(photograph(jax.random.key(0), light, PLAIN))
    assert image.min() >= 0 and image.max() <= 255
    assert (np.diff(image[:, :, 0], axis=1) > 0).all()
    dot = jnp.zeros((32, 32, 3)).at[20, 7].set(0.5)
    image = np.asarray(photograph(jax.random.key(0), dot, PLAIN))
    assert np.unravel_index(image[..., 0].argmax(), (32, 32)) == (20, 7)


def test_noise_grows_with_light_and_grey_has_no_colour():
    half = jnp.where(jnp.arange(32)[None, :, None] < 16, 0.02, 0.3) * jnp.ones((32, 32, 3))
    camera = PLAIN._replace(shot_noise=jnp.float32(0.05), grey=jnp.bool_(True))
    image = np.asarray(photograph(jax.random.key(1), half, camera))
    assert (image[..., :1] == image).all()
    linear = (image / 255) ** 2
    assert linear[:, 18:].std() > 2 * linear[:, :14].std() > 0
