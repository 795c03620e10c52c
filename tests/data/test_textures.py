import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.data.scenes.textures import TILES, sampled, smooth_fields, texture_atlas

SIDE = 32


@pytest.fixture(scope="module")
def atlas():
    return jax.jit(texture_atlas, static_argnums=1)(jax.random.key(3), SIDE)


def test_tiles_have_zero_mean_and_unit_deviation(atlas):
    assert atlas.shape == (TILES, SIDE, SIDE)
    np.testing.assert_allclose(atlas.mean(axis=(1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(atlas.std(axis=(1, 2)), 1, atol=1e-3)


def test_sampling_meets_the_texels_and_repeats(atlas):
    rng = np.random.default_rng(0)
    row, column, tile = rng.integers(0, SIDE, 50), rng.integers(0, SIDE, 50), np.arange(50) % TILES
    for period in (-2, 0, 3):
        u, v = jnp.asarray(column / SIDE + period), jnp.asarray(row / SIDE - period)
        values = sampled(atlas, jnp.asarray(tile), u, v)
        # Coordinates are float32: 3 periods of 32 texels are exact to 1e-5 of a texel.
        np.testing.assert_allclose(values, atlas[tile, row, column], atol=1e-4)


def test_between_texels_sampling_is_bilinear_over_the_seam_too(atlas):
    zero, half = jnp.zeros(1, jnp.int32), jnp.full(1, -0.5 / SIDE)
    corners = atlas[0][np.ix_([-1, 0], [-1, 0])]
    np.testing.assert_allclose(sampled(atlas, zero, half, half)[0], corners.mean(), atol=1e-5)


def test_tiles_continue_over_their_seams(atlas):
    # The step over the seam is no larger than steps inside; the regular ones may jump anywhere.
    noise = np.asarray(atlas[:-2])
    inside = np.abs(np.diff(noise, axis=1)).max(axis=(1, 2))
    seam = np.abs(noise[:, 0] - noise[:, -1]).max(axis=1)
    assert (seam <= 1.5 * inside).all()


def test_smooth_fields_are_finer_where_asked():
    fields = smooth_fields(jax.random.key(0), (2, 12), 1, 64)[:, 0]
    steps = jnp.abs(jnp.diff(fields, axis=1)).mean(axis=(1, 2))
    assert steps[1] > 3 * steps[0]
    # No step of a field of 2 cells over 64 pixels is anywhere near the field's own size.
    assert jnp.abs(jnp.diff(fields[0], axis=1)).max() < 0.3
