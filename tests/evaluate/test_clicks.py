"""Simulated clicks against distances that are computed pixel by pixel."""

import numpy as np
import pytest

from sam_jax.evaluate.clicks import centre_point, error_click, random_point

SIZES = [(17, 40), (40, 17), (1, 9), (9, 1), (1, 1), (23, 23)]


def distances(region):
    """Of each pixel to the nearest one outside, squared; a frame of outside all around."""
    padded = np.pad(region, 1)
    outside = np.argwhere(~padded)
    away = np.zeros(padded.shape, np.int64)
    for place in np.argwhere(padded):
        away[tuple(place)] = ((outside - place) ** 2).sum(axis=1).min()
    return away[1:-1, 1:-1]


def random_region(rng, size_hw, density):
    """Blots rather than noise, so that distances differ."""
    region = rng.random(size_hw) < density
    for _ in range(3):
        height, width = size_hw
        y, x = rng.integers(0, size_hw)
        region[y : y + height // 2 + 1, x : x + width // 3 + 1] = True
    return region


@pytest.mark.parametrize("size_hw", SIZES)
def test_the_centre_is_as_far_from_the_boundary_as_any_pixel(size_hw):
    rng = np.random.default_rng(0)
    for _ in range(10):
        region = random_region(rng, size_hw, 0.3)
        x, y = centre_point(region)
        away = distances(region)
        assert region[y, x]
        assert away[y, x] == away.max()


def test_the_border_of_the_image_is_a_boundary():
    # Were it none, any pixel would do.
    assert centre_point(np.ones((5, 9), bool)) == (2, 2)
    assert centre_point(np.ones((9, 5), bool)) == (2, 2)


def test_a_ring_is_clicked_on_the_ring():
    y, x = np.indices((41, 61))
    radius = np.hypot(y - 20, x - 40)
    ring = (radius < 15) & (radius > 8)
    x, y = centre_point(ring)
    assert ring[y, x]


def test_an_empty_region_has_no_centre():
    empty = np.zeros((4, 6), bool)
    with pytest.raises(ValueError, match="empty"):
        centre_point(empty)


def test_random_points_reach_every_pixel_alike():
    region = np.zeros((4, 7), bool)
    region[1, 2:6] = region[3, 6] = True
    rng = np.random.default_rng(1)
    hits = np.zeros(region.shape, int)
    for _ in range(5000):
        x, y = random_point(region, rng)
        hits[y, x] += 1
    assert not hits[~region].any()
    # 1000 each are expected; the standard deviation is 28.
    assert np.abs(hits[region] - 1000).max() < 150


def test_the_click_is_in_the_deeper_error_with_its_sign():
    truth = np.zeros((30, 60), bool)
    truth[5:25, 10:30] = True
    predicted = truth.copy()
    predicted[5:25, 21:30] = False  # 9 wide: missing
    predicted[5:10, 40:55] = True  # 5 high: too much
    (x, y), label = error_click(predicted, truth)
    assert (x, label) == (25, 1) and 5 <= y < 25

    predicted[5:25, 21:26] = True
    predicted[5:18, 40:55] = True
    (x, y), label = error_click(predicted, truth)
    assert (y, label) == (11, 0) and 40 <= x < 55


def test_of_errors_equally_deep_too_much_is_clicked():
    truth = np.zeros((20, 30), bool)
    truth[2:7, 2:7] = True
    predicted = np.zeros((20, 30), bool)
    predicted[10:15, 20:25] = True
    assert error_click(predicted, truth) == ((22, 12), 0)


def test_the_click_is_the_deepest_of_all_wrong_pixels():
    rng = np.random.default_rng(2)
    for size_hw in [*SIZES, *SIZES]:
        truth, predicted = (random_region(rng, size_hw, 0.4) for _ in range(2))
        missing, surplus = distances(truth & ~predicted), distances(predicted & ~truth)
        click = error_click(predicted, truth)
        if (truth == predicted).all():
            assert click is None
            continue
        (x, y), label = click
        assert label == (missing.max() > surplus.max())
        assert (missing if label else surplus)[y, x] == max(missing.max(), surplus.max())


def test_where_all_is_right_there_is_no_click():
    truth = np.eye(5, 8, dtype=bool)
    assert error_click(truth, truth) is None
