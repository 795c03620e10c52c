"""The clean-up of holes and islands against the original's, which uses OpenCV."""

import numpy as np
import pytest
from mask_candidates import blobs, candidates_of

from sam_jax.automatic.regions import without_small_regions


def original_clean_up(mask, min_area):
    """What the original does to one mask, in its order."""
    import cv2

    changed = False
    for holes in (True, False):
        count, labels, stats, _ = cv2.connectedComponentsWithStats(
            (mask ^ holes).astype(np.uint8), connectivity=8
        )
        sizes = stats[1:, cv2.CC_STAT_AREA]
        small = [i + 1 for i, size in enumerate(sizes) if size < min_area]
        if not small:
            continue
        changed = True
        if holes:
            mask = mask | np.isin(labels, small)
        else:
            left = [i for i in range(1, count) if i not in small]
            mask = np.isin(labels, left or [1 + int(np.argmax(sizes))])
    return mask, changed


@pytest.mark.parametrize("min_area", [1, 5, 40, 400, 5000])
@pytest.mark.parametrize("size_hw", [(50, 70), (1, 60), (64, 9)])
def test_equals_the_original(min_area, size_hw):
    rng = np.random.default_rng(min_area)
    masks = [*blobs(rng, 12, size_hw, 1.0), *blobs(rng, 12, size_hw, 4.0)]
    # Parts of an image: masks in a corner, along a side, everywhere and nowhere.
    for y, x in ((slice(0, 20), slice(0, 9)), (slice(5, None), slice(2, 4))):
        mask = np.zeros(size_hw, bool)
        mask[y, x] = masks[0][y, x]
        masks.append(mask)
    masks += [np.ones(size_hw, bool), np.zeros(size_hw, bool)]
    cleaned, changed = without_small_regions(candidates_of(masks), min_area)
    for i, mask in enumerate(masks):
        expected, expected_changed = original_clean_up(mask, min_area)
        np.testing.assert_array_equal(cleaned.runs[i].mask(), expected)
        assert changed[i] == expected_changed
        ys, xs = np.nonzero(expected)
        box = [xs.min(), ys.min(), xs.max(), ys.max()] if len(xs) else [0, 0, 0, 0]
        assert cleaned.boxes[i].tolist() == box


def test_a_strip_of_background_beside_the_mask_is_a_hole_where_it_is_small():
    mask = np.ones((30, 40), bool)
    mask[:, 38:] = False  # 60 pixels at the image's border
    wide, _ = without_small_regions(candidates_of([mask]), 61)
    narrow, _ = without_small_regions(candidates_of([mask]), 60)
    assert wide.runs[0].mask().all()
    np.testing.assert_array_equal(narrow.runs[0].mask(), mask)
