"""Edges from masks, their matching, and BSDS's scores."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from sam_jax import Segmenter
from sam_jax.evaluate.edges import (
    THRESHOLDS,
    count_edges,
    edge_map,
    edge_scores,
    mask_edges,
    matched,
    thinned,
)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("distance", [1.0, 2.3, 5.0])
def test_as_many_pixels_are_paired_as_an_assignment_pairs(seed, distance):
    rng = np.random.default_rng(seed)
    found, true = rng.random((2, 14, 23)) < 0.15
    ours, theirs = matched(found, true, distance)
    apart = np.argwhere(found)[:, None] - np.argwhere(true)[None]
    near = np.sqrt((apart**2).sum(axis=-1)) <= distance
    rows, columns = linear_sum_assignment(near, maximize=True)
    assert ours.sum() == theirs.sum() == near[rows, columns].sum() > 0
    assert near.any(axis=1)[ours].all() and near.any(axis=0)[theirs].all()


def test_no_pixel_is_in_two_pairs():
    found, true = np.zeros((2, 9, 12), bool)
    found[4, 5] = true[4, 4] = true[4, 6] = True
    ours, theirs = matched(found, true, 3.0)
    assert ours.tolist() == [True] and theirs.sum() == 1


def test_nothing_matches_nothing():
    nothing, line = np.zeros((9, 12), bool), np.zeros((9, 12), bool)
    line[4] = True
    ours, theirs = matched(nothing, line, 3.0)
    assert ours.shape == (0,) and not theirs.any() and theirs.shape == (12,)
    assert not matched(line, nothing, 3.0)[0].any()


def test_a_masks_edge_is_strong_just_outside_it_and_zero_elsewhere():
    y, x = np.mgrid[:40, :60]
    logits = (12 - np.hypot(x - 38, y - 17)) * 2.0
    strength, across, down = mask_edges(logits)
    places = np.argwhere(strength > 0)
    radii = np.hypot(places[:, 1] - 38, places[:, 0] - 17)
    assert radii.min() >= 12 and radii.max() < 12 + 2**0.5
    # The probability falls to the right of the disk's right side, and rises before its left.
    assert across[17, 50] < 0 < across[17, 26]
    assert down[29, 38] < 0 < down[5, 38]


def test_a_sharp_edge_is_stronger_than_a_vague_one():
    x = np.tile(np.arange(60.0) - 30, (20, 1))
    assert mask_edges(4 * x)[0].max() > 2 * mask_edges(0.2 * x)[0].max()


def test_thinning_leaves_the_crest_across_the_gradient():
    profile = np.array([0, 0.2, 0.6, 1.0, 0.7, 0.1, 0], np.float32)
    strength = np.tile(profile, (5, 1))
    across, down = np.ones_like(strength), np.zeros_like(strength)
    assert np.argwhere(thinned(strength, across, down)[2]).ravel().tolist() == [3]
    turned = thinned(strength.T.copy(), down.T.copy(), across.T.copy())
    assert np.argwhere(turned[:, 2]).ravel().tolist() == [3]


def test_of_a_ridge_two_pixels_wide_one_stays():
    strength = np.tile(np.array([0, 0.5, 0.5, 0], np.float32), (5, 1))
    across, down = np.ones_like(strength), np.zeros_like(strength)
    assert np.argwhere(thinned(strength, across, down)[2]).ravel().tolist() == [2]


def line(column, value=1.0):
    edges = np.zeros((60, 80), np.float32)
    edges[:, column] = value
    return edges


def test_the_true_edges_score_one():
    counts = count_edges(line(30), [line(30) > 0, line(30) > 0])
    scores = edge_scores([counts, counts])
    assert scores["images"] == 2
    assert scores["ODS"] == scores["OIS"] == scores["R50"] == pytest.approx(1.0)
    # Precision at each recall from 0 on; the curve is one point, at recall 1.
    assert scores["AP"] == pytest.approx(1 / 101)


def test_the_tolerance_is_a_part_of_the_diagonal():
    # The diagonal is 100 pixels, 0.02 of it are 2.
    assert edge_scores([count_edges(line(32), [line(30) > 0], 0.02)])["ODS"] == pytest.approx(1)
    assert edge_scores([count_edges(line(33), [line(30) > 0], 0.02)])["ODS"] == 0


def test_a_pixel_of_any_annotator_is_right_and_all_annotators_count_for_recall():
    edges = line(10) + line(60)
    counts = count_edges(edges, [line(10) > 0, line(60) > 0, line(35) > 0])
    assert counts.right.tolist() == counts.found.tolist() == [120] * len(THRESHOLDS)
    assert counts.recalled.tolist() == [120] * len(THRESHOLDS)
    assert counts.true.tolist() == [180] * len(THRESHOLDS)
    # Precision 1, recall 2/3.
    assert edge_scores([counts])["ODS"] == pytest.approx(0.8)


def test_strong_right_edges_and_weak_wrong_ones_make_a_curve():
    edges = line(10, 0.9) + line(60, 0.3) + line(35, 0.6)
    counts = count_edges(edges, [(line(10) + line(60)) > 0])
    assert [counts.found[0], counts.found[-5]] == [180, 60]
    scores = edge_scores([counts])
    # All: P 2/3, R 1, F 0.8. The strongest: P 1, R 1/2, F 2/3. The two strongest: 1/2, 1/2.
    assert scores["ODS"] == pytest.approx(0.8)
    assert scores["R50"] == pytest.approx(1.0)


def test_the_best_threshold_of_each_image_is_no_worse_than_one_for_all():
    # Right edges are strong in one image and weak in the other, beside strong wrong ones.
    one = count_edges(line(10, 0.9) + line(40, 0.4), [line(10) > 0])
    other = count_edges(line(10, 0.35), [line(10) > 0])
    scores = edge_scores([one, other])
    assert scores["OIS"] == pytest.approx(1.0) and scores["ODS"] == pytest.approx(0.8)


def test_without_truth_there_is_no_score():
    counts = count_edges(line(10), [np.zeros((60, 80), bool)])
    assert edge_scores([counts])["ODS"] is None


def test_the_small_model_draws_the_outline_of_a_disk():
    segmenter = Segmenter.load("tiny")
    y, x = np.mgrid[:90, :140]
    distance = np.hypot(x - 100, y - 40)
    disk = (distance < 25)[..., None]
    image = np.where(disk, (230, 190, 60), (40, 60, 50)).astype(np.uint8)
    edges = edge_map(segmenter, segmenter.encode(image), (90, 140))
    assert edges.shape == (90, 140) and edges.dtype == np.float32
    assert edges.min() == 0 and edges.max() <= 1
    near = np.abs(distance - 25.5) < 2.5
    # Faint edges are all over the picture: it is a weak model, and nothing is filtered.
    assert edges[near].mean() > 2 * edges[~near].mean()
    assert np.mean(edges[near] > 0.8) > 10 * np.mean(edges[~near] > 0.8)
