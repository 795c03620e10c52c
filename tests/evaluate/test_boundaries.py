"""Boundary F against distances taken another way, and by hand."""

import math

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from sam_jax.evaluate.boundaries import boundary_f, boundary_pixels


def boundary_by_loops(mask):
    height, width = mask.shape
    out = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (1, 1)):
                if y + dy < height and x + dx < width:
                    out[y, x] |= mask[y, x] != mask[y + dy, x + dx]
    return out


def f_by_distance_transform(predicted, truth, radius):
    found, true = boundary_by_loops(predicted), boundary_by_loops(truth)
    precision = np.mean(distance_transform_edt(~true)[found] <= radius)
    recall = np.mean(distance_transform_edt(~found)[true] <= radius)
    return 2 * precision * recall / (precision + recall)


def blocks(rng, shape):
    return np.kron(rng.random((shape[0] // 5, shape[1] // 5)) < 0.3, np.ones((5, 5), bool))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tolerance", [0.008, 0.05])
def test_it_equals_what_a_distance_transform_gives(seed, tolerance):
    rng = np.random.default_rng(seed)
    predicted, truth = blocks(rng, (30, 50)), blocks(rng, (30, 50))
    np.testing.assert_array_equal(boundary_pixels(truth), boundary_by_loops(truth))
    radius = math.ceil(tolerance * math.hypot(30, 50))
    expected = f_by_distance_transform(predicted, truth, radius)
    assert boundary_f(predicted, truth, tolerance) == pytest.approx(expected)
    assert 0 < expected < 1


def test_small_shifts_within_the_tolerance_cost_nothing():
    mask = np.zeros((300, 400), bool)
    mask[100:200, 120:300] = True
    # The diagonal is 500 pixels: 4 are allowed, 5 are not.
    assert boundary_f(np.roll(mask, 4, axis=1), mask) == 1.0
    assert boundary_f(np.roll(mask, 5, axis=1), mask) < 0.9


def test_boundaries_that_are_far_apart_score_zero():
    one, other = np.zeros((2, 40, 60), bool)
    one[2:10, 2:10] = other[25:35, 40:55] = True
    assert boundary_f(one, other) == 0.0


def test_no_boundary_agrees_with_none_only():
    empty, full, part = np.zeros((20, 30), bool), np.ones((20, 30), bool), np.zeros((20, 30), bool)
    part[5:9, 3:20] = True
    assert boundary_f(empty, empty) == boundary_f(full, full) == 1.0
    assert boundary_f(empty, part) == boundary_f(part, empty) == boundary_f(part, full) == 0.0


def test_masks_that_touch_share_their_boundary():
    left = np.zeros((20, 30), bool)
    left[:, :12] = True
    np.testing.assert_array_equal(boundary_pixels(left), boundary_pixels(~left))
    assert boundary_pixels(left).sum() == 20
