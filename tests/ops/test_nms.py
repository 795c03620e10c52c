"""The compiled suppression against the plain one, and against what torchvision defines."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_jax.ops.nms import float32_below, nms, nms_reference


def random_boxes(rng, count, side=40):
    corners = np.sort(rng.integers(0, side, (count, 2, 2)), axis=1)
    return corners.reshape(count, 4).astype(np.float32)


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 500])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_compiled_equals_reference(count, threshold):
    rng = np.random.default_rng(count)
    boxes = random_boxes(rng, count)
    # Few different scores: ties are where an order shows.
    scores = rng.integers(0, 8, count).astype(np.float32)
    np.testing.assert_array_equal(
        nms(boxes, scores, threshold), nms_reference(boxes, scores, threshold)
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0, 1))
def test_what_stays_is_apart_and_what_goes_is_near_a_better_one(seed, count, threshold):
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, count, 12), rng.random(count).astype(np.float32)
    kept = nms_reference(boxes, scores, threshold)
    overlaps = np.array([[overlap(a, b) for b in boxes] for a in boxes])
    assert (np.diff(scores[kept]) <= 0).all()
    # Overlaps are rounded to float32: a third of an area is more than a third there.
    rounded = 1e-6
    apart = overlaps[np.ix_(kept, kept)] <= threshold + rounded
    np.fill_diagonal(apart, True)
    assert apart.all()
    for gone in set(range(count)) - set(kept.tolist()):
        better = [k for k in kept if scores[k] >= scores[gone]]
        assert any(overlaps[gone, k] > threshold - rounded for k in better)


def overlap(a, b):
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    shared = np.prod(sides)
    either = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared
    return np.float32(shared) / np.float32(either) if either else 0.0


def test_equal_scores_keep_their_order():
    boxes = np.array([[0, 0, 9, 9], [20, 20, 29, 29], [0, 0, 9, 9], [40, 0, 49, 9]], np.float32)
    np.testing.assert_array_equal(nms(boxes, np.ones(4, np.float32), 0.5), [0, 1, 3])


def test_boxes_without_area_overlap_nothing():
    boxes = np.array([[5, 5, 5, 9], [5, 5, 5, 9], [0, 0, 0, 0], [0, 0, 0, 0]], np.float32)
    assert len(nms(boxes, np.ones(4, np.float32), 0.0)) == 4


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_an_overlap_of_exactly_the_threshold_is_judged_in_float64(threshold):
    # One box holds the other: their overlap is a whole number of tenths, in float32.
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, round(10 * threshold)]], np.float32)
    goes = float(np.float32(round(10 * threshold) / 10)) > threshold
    assert len(nms(boxes, np.array([2, 1], np.float32), threshold)) == (1 if goes else 2)
    assert float(float32_below(threshold)) <= threshold
