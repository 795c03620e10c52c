"""Edge maps against true boundaries: how pixels are matched, and BSDS's scores."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from sam_jax.evaluate.edge_scores import THRESHOLDS, count_edges, edge_scores
from sam_jax.evaluate.thinning import thin

SHAPE = (60, 80)  # the diagonal is 100 pixels


def lines(**values):
    """Columns of one value each: lines(c30=1.0)."""
    edges = np.zeros(SHAPE, np.float32)
    for column, value in values.items():
        edges[:, int(column[1:])] = value
    return edges


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("distance", [1.0, 2.3, 5.0])
def test_as_many_pixels_are_paired_as_an_assignment_pairs(seed, distance):
    rng = np.random.default_rng(seed)
    shape = (14, 23)
    edges = rng.random(shape) * (rng.random(shape) < 0.3)
    true = rng.random(shape) < 0.15
    counts = count_edges(edges, true, distance / np.hypot(*shape))
    for place in (0, 30, 70):
        found = thin(edges >= THRESHOLDS[place])
        apart = np.argwhere(found)[:, None] - np.argwhere(true)[None]
        near = np.hypot(*apart.T).T <= distance
        rows, columns = linear_sum_assignment(near, maximize=True)
        assert counts.matched[place] == near[rows, columns].sum() > 0
        assert counts.found[place] == found.sum()
    assert set(counts.true.tolist()) == {true.sum()}


def test_no_pixel_is_in_two_pairs():
    edges, true = np.zeros((9, 12)), np.zeros((9, 12), bool)
    edges[4, 5] = 1
    true[4, 4] = true[4, 6] = True
    assert count_edges(edges, true, 0.2).matched[0] == 1
    assert count_edges(true.astype(float), edges > 0, 0.2).matched[0] == 1


def test_nothing_matches_nothing():
    nothing, line = np.zeros(SHAPE, np.float32), lines(c30=1)
    assert not count_edges(nothing, line > 0).matched.any()
    assert not count_edges(line, nothing > 0).matched.any()
    none = count_edges(nothing, line > 0)
    assert edge_scores([none]) == {"ODS": 0, "OIS": 0, "AP": 0, "R50": 0}


def test_the_true_edges_score_one():
    counts = count_edges(lines(c30=1), lines(c30=1) > 0)
    scores = edge_scores([counts, counts])
    assert scores["ODS"] == scores["OIS"] == scores["R50"] == 1
    # The curve is one point, at recall 1: one of the 101 places that are added up.
    assert scores["AP"] == pytest.approx(0.01)


def test_the_tolerance_is_a_part_of_the_diagonal():
    true = lines(c30=1) > 0
    assert edge_scores([count_edges(lines(c32=1), true, 0.02)])["ODS"] == 1
    assert edge_scores([count_edges(lines(c33=1), true, 0.02)])["ODS"] == 0
    # As BSDS's: three quarters of a pixel here.
    assert edge_scores([count_edges(lines(c31=1), true)])["ODS"] == 0


def test_strong_right_edges_and_weaker_wrong_ones_make_a_curve():
    edges = lines(c10=0.9, c35=0.6, c60=0.3)
    scores = edge_scores([count_edges(edges, (lines(c10=1, c60=1)) > 0)])
    # All: P 2/3, R 1, F 0.8. The strongest: P 1, R 1/2, F 2/3. The two strongest: 1/2, 1/2.
    assert scores["ODS"] == pytest.approx(0.8)
    assert scores["R50"] == 1
    # From P 1 at R 1/2 down to P 2/3 at R 1, in 51 steps; below R 1/2 there is no curve.
    assert scores["AP"] == pytest.approx(51 * (1 + 2 / 3) / 2 / 100)


def test_recall_at_a_precision_of_one_half_lies_between_two_points():
    # P 1, R 1/4; then eleven wrong lines more and one right: P 2/13, R 1/2.
    wrong = {f"c{column}": 0.4 for column in range(40, 62, 2)}
    edges = lines(c10=0.9, c20=0.4, **wrong)
    true = lines(c10=1, c20=1, c25=1, c30=1) > 0
    scores = edge_scores([count_edges(edges, true)])
    part = 0.5 / (1 - 2 / 13)
    assert scores["R50"] == pytest.approx(0.25 + part * 0.25)


def test_ois_takes_the_threshold_that_is_best_for_each_image():
    # Right edges are strong in one image and weak in the other, beside stronger wrong ones.
    one = count_edges(lines(c10=0.9, c40=0.4), lines(c10=1) > 0)
    other = count_edges(lines(c10=0.35), lines(c10=1) > 0)
    scores = edge_scores([one, other])
    # For all images: both right lines and the wrong one.
    assert scores["OIS"] == 1 and scores["ODS"] == pytest.approx(0.8)
