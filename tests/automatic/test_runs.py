"""Runs of masks: as the device tells them, as COCO writes them, cut to a box."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from sam_jax.automatic.runs import runs_of_changes, runs_of_mask
from sam_jax.configs import TEST

sizes = st.tuples(st.integers(1, 20), st.integers(1, 20))


def random_mask(seed, size_hw):
    rng = np.random.default_rng(seed)
    return rng.random(size_hw) < rng.choice([0.0, 0.1, 0.5, 0.9, 1.0])


def box_in(seed, size_hw):
    rng = np.random.default_rng(seed)
    x, y = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in size_hw[::-1])
    return int(x[0]), int(y[0]), int(x[1]), int(y[1])


def packed_changes(mask, rows):
    """What the device gives, by definition."""
    height, width = mask.shape
    padded = np.zeros((-(-width // 8) * 8, rows + 1), bool)
    padded[:width, 1 : height + 1] = mask.T
    changes = padded[:, 1:] ^ padded[:, :-1]
    return np.packbits(changes.reshape(-1, 8, rows), axis=1, bitorder="little")[:, 0]


@given(st.integers(0, 2**32 - 1), sizes)
def test_runs_give_back_the_mask_and_are_cocos(seed, size_hw):
    mask = random_mask(seed, size_hw)
    runs = runs_of_mask(mask, (0, 0, size_hw[1], size_hw[0]), size_hw)
    np.testing.assert_array_equal(runs.mask(), mask)
    assert runs.area == mask.sum()
    theirs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert runs.rle == {"size": list(size_hw), "counts": theirs["counts"].decode()}
    assert runs.counts().sum() == mask.size
    # No run of length 0 but the first.
    assert (runs.counts()[1:] > 0).all()


@given(st.integers(0, 2**32 - 1), sizes, st.integers(1, 12))
def test_changes_of_a_crop_give_its_mask_in_the_image(seed, size_hw, padding):
    box = box_in(seed, size_hw)
    x0, y0, x1, y1 = box
    part = random_mask(seed, (y1 - y0, x1 - x0))
    runs = runs_of_changes(packed_changes(part, part.shape[0] + padding), box, size_hw)
    whole = np.zeros(size_hw, bool)
    whole[y0:y1, x0:x1] = part
    np.testing.assert_array_equal(runs.mask(), whole)
    same = runs_of_mask(part, box, size_hw)
    assert (runs.rle, runs.area) == (same.rle, same.area)


@given(st.integers(0, 2**32 - 1), sizes)
def test_a_box_cuts_the_mask(seed, size_hw):
    mask = random_mask(seed, size_hw)
    runs = runs_of_mask(mask, (0, 0, size_hw[1], size_hw[0]), size_hw)
    x0, y0, x1, y1 = box_in(seed + 1, size_hw)
    np.testing.assert_array_equal(runs.mask((x0, y0, x1, y1)), mask[y0:y1, x0:x1])


@pytest.mark.parametrize("size_hw", [(37, 53), (64, 64), (5, 300)])
def test_the_device_tells_changes_by_that_definition(size_hw):
    from sam_jax.automatic.scoring import crop_frame, measure
    from sam_jax.postprocess import mask_matrices

    rng = np.random.default_rng(0)
    logits = rng.standard_normal((5, 16, 16)).astype(np.float32)
    frame = crop_frame(size_hw, TEST.frame.with_side(64), 16)
    [(_, measured)] = measure(jnp.asarray(logits), np.array([3, 0]), frame, 0.0, 0.5)
    rows, columns = mask_matrices(size_hw, TEST.frame.with_side(64), 16)
    for place, which in enumerate([3, 0]):
        full = rows @ logits[which] @ columns.T
        changes = np.asarray(measured.changes[place])
        expected = packed_changes(full > 0, changes.shape[1])
        np.testing.assert_array_equal(changes[: len(expected)], expected)
        assert not changes[len(expected) :].any()
        assert int(measured.high[place]) == (full > 0.5).sum()
        assert int(measured.low[place]) == (full > -0.5).sum()
        assert int(measured.area[place]) == (full > 0).sum()
        ys, xs = np.nonzero(full > 0)
        np.testing.assert_array_equal(
            measured.boxes[place], [xs.min(), ys.min(), xs.max(), ys.max()]
        )


def test_an_image_in_blocks_of_columns_is_measured_the_same(monkeypatch):
    from sam_jax.automatic import scoring

    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.standard_normal((2, 16, 16)).astype(np.float32))
    size_hw = (90, 70)
    frame = scoring.crop_frame(size_hw, TEST.frame.with_side(64), 16)
    [(_, whole)] = scoring.measure(logits, np.array([1]), frame, 0.0, 1.0)
    monkeypatch.setattr(scoring, "BLOCK_PIXELS", 96 * 20)
    scoring.crop_frame.cache_clear()
    frame = scoring.crop_frame(size_hw, TEST.frame.with_side(64), 16)
    assert frame.columns.shape[0] > 3
    [(_, blocks)] = scoring.measure(logits, np.array([1]), frame, 0.0, 1.0)
    scoring.crop_frame.cache_clear()
    box = (0, 0, size_hw[1], size_hw[0])
    masks = [
        runs_of_changes(np.asarray(m.changes[0]), box, size_hw).mask() for m in (whole, blocks)
    ]
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(whole.boxes[0], blocks.boxes[0])
    assert int(whole.high[0]) == int(blocks.high[0])


def test_an_empty_mask_has_an_empty_box_and_no_runs():
    from sam_jax.automatic.scoring import crop_frame, measure

    frame = crop_frame((20, 30), TEST.frame.with_side(64), 16)
    [(_, measured)] = measure(jnp.full((1, 16, 16), -9.0), np.array([0]), frame, 0.0, 1.0)
    assert measured.boxes[0].tolist() == [0, 0, 0, 0]
    assert int(measured.low[0]) == 0
    runs = runs_of_changes(np.asarray(measured.changes[0]), (0, 0, 30, 20), (20, 30))
    assert runs.area == 0 and runs.counts().tolist() == [600]
