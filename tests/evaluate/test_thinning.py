"""Thinning against scikit-image's, which follows the same paper."""

import numpy as np
import pytest

from sam_jax.evaluate.thinning import thin


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_it_is_what_scikit_image_does(seed, share):
    morphology = pytest.importorskip("skimage.morphology")
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.random((7, 11)) < share, np.ones((4, 5), bool))
    speckled = blocks ^ (rng.random(blocks.shape) < 0.05)
    for pixels in (blocks, speckled, rng.random((31, 47)) < share):
        before = pixels.copy()
        np.testing.assert_array_equal(thin(pixels), morphology.thin(pixels))
        np.testing.assert_array_equal(pixels, before)


def test_lines_stay_and_bars_become_lines():
    line = np.zeros((20, 30), bool)
    line[4, 3:25] = True
    line[np.arange(8, 18), np.arange(5, 15)] = True
    np.testing.assert_array_equal(thin(line), line)
    bar = np.zeros((20, 30), bool)
    bar[6:9, 3:25] = True
    assert thin(bar).sum(axis=0).max() == 1 and thin(bar)[7, 5:23].all()
    assert not thin(np.zeros((3, 4), bool)).any()
