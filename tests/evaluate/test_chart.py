"""The chart: where its lines and markers are."""

import numpy as np

from sam_jax.evaluate.chart import SIZE, clicks_chart
from sam_jax.formats.overlay import mask_color


def places(chart, number):
    """(x, y) of pixels in the color of a series, left of the legend."""
    pixels = np.asarray(chart)[:, : SIZE[0] - 230].astype(int)
    # Edges are soft: thin lines nowhere have it exactly.
    near = np.abs(pixels - mask_color(number)).max(axis=-1) < 50
    ys, xs = np.nonzero(near)
    return xs, ys


def test_more_clicks_are_to_the_right_and_greater_iou_is_higher():
    chart = clicks_chart({"falling": {1: 1.0, 9: 0.0}, "one": {1: 0.5}}, (1, 9))
    assert chart.size == SIZE and chart.mode == "RGB"
    xs, ys = places(chart, 0)
    assert ys[xs.argmin()] < 40 and ys[xs.argmax()] > SIZE[1] - 80
    # A line: it is everywhere between.
    assert len(np.unique(xs)) > 0.9 * (xs.max() - xs.min())
    marker_xs, marker_ys = places(chart, 1)
    assert np.ptp(marker_xs) < 12 and np.ptp(marker_ys) < 12
    middle = (ys.min() + ys.max()) / 2
    assert abs(marker_ys.mean() - middle) < 3


def test_one_number_of_clicks_is_a_marker():
    xs, _ = places(clicks_chart({"one": {1: 0.5}}, (1,)), 0)
    assert 0 < np.ptp(xs) < 12
