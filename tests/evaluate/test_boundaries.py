"""Boundary F against a count of every pair of pixels."""

import math

import numpy as np
import pytest

from sam_jax.evaluate.boundaries import boundary_f, boundary_pixels


def brute_force_boundary(mask):
    height, width = mask.shape
    out = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (1, 1)):
                other = mask[min(y + dy, height - 1), min(x + dx, width - 1)]
                out[y, x] |= mask[y, x] != other
    return out


def brute_force_f(predicted, truth, radius):
    found, true = (np.argwhere(brute_force_boundary(mask)) for mask in (predicted, truth))
    if not len(found) or not len(true):
        return float(len(found) == len(true))
    squared = ((found[:, None] - true[None]) ** 2).sum(axis=-1)
    precision = np.mean(squared.min(axis=1) <= radius**2)
    recall = np.mean(squared.min(axis=0) <= radius**2)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def blobs(rng, shape):
    return np.kron(rng.random((shape[0] // 5, shape[1] // 5)) < 0.3, np.ones((5, 5), bool))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("tolerance", [0.008, 0.05])
def test_it_equals_a_count_of_all_pairs(seed, tolerance):
    rng = np.random.default_rng(seed)
    predicted, truth = blobs(rng, (30, 50)), blobs(rng, (30, 50))
    np.testing.assert_array_equal(boundary_pixels(truth), brute_force_boundary(truth))
    radius = math.ceil(tolerance * math.hypot(30, 50))
    expected = brute_force_f(predicted, truth, radius)
    assert boundary_f(predicted, truth, tolerance) == pytest.approx(expected)


def test_small_shifts_within_the_tolerance_cost_nothing():
    mask = np.zeros((300, 400), bool)
    mask[100:200, 120:300] = True
    # The diagonal is 500 pixels: 4 are allowed, 5 are not.
    assert boundary_f(np.roll(mask, 4, axis=1), mask) == 1.0
    assert boundary_f(np.roll(mask, 5, axis=1), mask) < 0.9


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
