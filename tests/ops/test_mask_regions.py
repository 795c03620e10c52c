"""Holes and islands against SciPy's labelling, which sees every pixel."""

import numpy as np
import pytest
from scipy import ndimage

from sam_jax.ops import mask_regions
from sam_jax.ops.mask_regions import clean_mask

EIGHT = np.ones((3, 3))


def plain_clean_up(mask, min_area):
    """The rule, pixel by pixel: small background filled, then small islands but the largest."""
    if not mask.any():
        return mask
    labels, count = ndimage.label(~mask, EIGHT)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    filled = mask | ((sizes < min_area) & (np.arange(count + 1) > 0))[labels]
    labels, count = ndimage.label(filled, EIGHT)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    keep = sizes >= min_area
    if count and not keep.any():
        keep[np.argmax(sizes)] = True
    return np.concatenate([[False], keep])[labels]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("min_area", [0, 1, 2, 9, 60, 10_000])
def test_equals_the_rule_pixel_by_pixel(seed, min_area, monkeypatch):
    monkeypatch.setattr(mask_regions, "_BLOCK_PIXELS", 200)  # rows in many blocks
    rng = np.random.default_rng(seed)
    size_hw = tuple(rng.integers(1, 60, 2))
    smooth = ndimage.gaussian_filter(rng.normal(size=size_hw), rng.choice([0.0, 0.7, 2.0]))
    mask = smooth > np.quantile(smooth, rng.uniform(0, 1))
    before = mask.copy()
    np.testing.assert_array_equal(clean_mask(mask, min_area), plain_clean_up(mask, min_area))
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("size_hw", [(0, 0), (0, 5), (1, 1), (7, 5)])
def test_masks_of_one_kind_stay(value, size_hw):
    mask = np.full(size_hw, value)
    np.testing.assert_array_equal(clean_mask(mask, 3), mask)


def test_a_mask_that_is_small_throughout_keeps_its_largest_part():
    mask = np.zeros((40, 40), bool)
    mask[3, 3] = mask[20:23, 20:23] = True
    expected = np.zeros_like(mask)
    expected[20:23, 20:23] = True
    np.testing.assert_array_equal(clean_mask(mask, 100), expected)


def test_pixels_that_touch_at_a_corner_are_one_part():
    mask = np.eye(9, dtype=bool)
    assert clean_mask(mask, 9) is mask
    mask[4, 4] = False  # two diagonals of four
    assert clean_mask(mask, 5).sum() == 4


def test_memory_follows_the_outline_and_not_the_pixels():
    import tracemalloc

    mask = np.zeros((4000, 4000), bool)
    mask[100:-100, 100:-100] = True
    mask[2000:2010, 2000:2010] = False
    tracemalloc.start()
    cleaned = clean_mask(mask, 101)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cleaned[2005, 2005]
    # Labels of 32 bits a pixel alone would be four times the mask.
    assert peak < 3.5 * mask.nbytes
