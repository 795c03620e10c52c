"""Clicks and boxes on models whose answers are known."""

import numpy as np
import pytest
from fake_predictors import FakePredictor

from sam_jax.evaluate.boundaries import boundary_f
from sam_jax.evaluate.interactive import (
    SegmenterClicks,
    box_scores,
    click_scores,
    mask_iou,
    tight_box,
)

SIZE = (40, 70)


def rectangle(top, left, bottom, right):
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


# Apart from each other, so that the fake knows them by any pixel inside.
TRUTHS = [rectangle(2, 3, 12, 33), rectangle(20, 40, 38, 48), rectangle(15, 5, 16, 6)]
NOTHING = np.zeros(SIZE, bool)


def right(one, call):
    return [NOTHING, TRUTHS[one], NOTHING]


def score_clicks(predictor, **options):
    return click_scores(SegmenterClicks(predictor, "an embedding"), TRUTHS, **options)


def test_a_model_that_is_right_has_iou_1_and_gets_one_click():
    predictor = FakePredictor(TRUTHS, right)
    scores = score_clicks(predictor)
    assert scores.clicks == (1, 2, 3, 5, 9)
    np.testing.assert_array_equal(scores.iou, np.ones((3, 5)))
    np.testing.assert_array_equal(scores.oracle, np.ones(3))
    np.testing.assert_array_equal(scores.boundary_f, np.ones((3, 5)))
    assert len(predictor.calls) == 1
    call = predictor.calls[0]
    assert call["multimask"] and call["masks"] is None and call["embedding"] == "an embedding"
    np.testing.assert_array_equal(call["labels"], [[1], [1], [1]])
    assert call["points"][1, 0].tolist() == [43, 23]  # (x, y): nearest both long sides


def test_the_most_confident_mask_counts_and_the_oracle_takes_the_best():
    half = [rectangle(2, 3, 12, 18), rectangle(20, 40, 29, 48), NOTHING]
    predictor = FakePredictor(TRUTHS, lambda one, call: [TRUTHS[one], half[one], NOTHING])
    scores = score_clicks(predictor, clicks=(1,))
    np.testing.assert_array_equal(scores.iou[:, 0], [0.5, 0.5, 0])
    np.testing.assert_array_equal(scores.oracle, np.ones(3))


def test_a_surplus_part_is_clicked_as_background():
    more = TRUTHS[0] | rectangle(25, 10, 30, 15)

    def masks_of(one, call):
        return [more if (one, call) == (0, 0) else TRUTHS[one]] * 3

    predictor = FakePredictor(TRUTHS, masks_of)
    scores = score_clicks(predictor, clicks=(1, 2, 3))
    first, second = predictor.calls  # after the second all are right
    np.testing.assert_array_equal(second["points"], [[first["points"][0, 0], (12, 27)]])
    np.testing.assert_array_equal(second["labels"], [[1, 0]])
    np.testing.assert_allclose(scores.iou, [[300 / 325, 1, 1], [1, 1, 1], [1, 1, 1]])
    outline = boundary_f(more, TRUTHS[0])
    assert 0 < outline < 1
    np.testing.assert_allclose(scores.boundary_f, [[outline, 1, 1], [1, 1, 1], [1, 1, 1]])


def test_a_missing_part_is_clicked_as_foreground():
    part = TRUTHS[1] & ~rectangle(30, 40, 40, 48)
    predictor = FakePredictor(TRUTHS, lambda one, call: [part if one == 1 else TRUTHS[one]] * 3)
    score_clicks(predictor, clicks=(2,))
    np.testing.assert_array_equal(predictor.calls[1]["labels"], [[1, 1]])
    x, y = predictor.calls[1]["points"][0, 1]
    assert 40 <= x < 48 and 30 <= y < 38


def test_logits_of_the_mask_before_are_given_back_and_clicks_gather():
    predictor = FakePredictor(TRUTHS, lambda one, call: [TRUTHS[2] if one < 2 else NOTHING] * 3)
    scores = score_clicks(predictor, clicks=(1, 4))
    assert scores.iou.shape == (3, 2)
    assert [call["multimask"] for call in predictor.calls] == [True, False, False, False]
    assert [call["points"].shape for call in predictor.calls] == [(3, n, 2) for n in (1, 2, 3, 4)]
    for before, call in zip(predictor.calls, predictor.calls[1:], strict=False):
        np.testing.assert_array_equal(call["points"][:, :-1], before["points"])
        np.testing.assert_array_equal(call["labels"][:, :-1], before["labels"])
    # Of the first answer the most confident, number 1; then the only one.
    given_back = [call["masks"][:, 0, 0].tolist() for call in predictor.calls[1:]]
    assert given_back == [[1, 101, 201], [10, 110, 210], [20, 120, 220]]


def test_objects_that_are_done_keep_their_iou_and_the_others_their_own_logits():
    done_after = [2, 4, 1]

    def masks_of(one, call):
        return [TRUTHS[one] if call + 1 >= done_after[one] else NOTHING] * 3

    predictor = FakePredictor(TRUTHS, masks_of)
    scores = score_clicks(predictor, clicks=(1, 2, 3, 4, 5))
    assert [len(call["points"]) for call in predictor.calls] == [3, 2, 1, 1]
    assert predictor.calls[2]["masks"][:, 0, 0].tolist() == [110]
    expected = [[float(n >= done) for n in (1, 2, 3, 4, 5)] for done in done_after]
    np.testing.assert_array_equal(scores.iou, expected)


def test_random_first_clicks_are_inside_and_repeat_with_the_seed():
    seen = []
    for seed in (0, 0, 1):
        predictor = FakePredictor(TRUTHS, right)
        score_clicks(predictor, rng=np.random.default_rng(seed))
        seen.append(predictor.calls[0]["points"][:, 0])
    for points in seen:
        assert all(t[int(y), int(x)] for t, (x, y) in zip(TRUTHS, points, strict=True))
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (seen[0] != seen[2]).any()


def test_boxes_are_refined_with_box_and_most_confident_mask():
    half = [rectangle(2, 3, 12, 18), rectangle(20, 40, 29, 48), NOTHING]

    def masks_of(one, call):
        return [TRUTHS[one], half[one], NOTHING] if call == 0 else [TRUTHS[one] | TRUTHS[2]]

    predictor = FakePredictor(TRUTHS, masks_of)
    scores = box_scores(predictor, "an embedding", TRUTHS)
    np.testing.assert_array_equal(scores.iou, [0.5, 0.5, 0])
    np.testing.assert_array_equal(scores.oracle, np.ones(3))
    np.testing.assert_allclose(scores.refined, [300 / 301, 144 / 145, 1])
    by_hand = [boundary_f(mask, truth) for mask, truth in zip(half, TRUTHS, strict=True)]
    np.testing.assert_array_equal(scores.boundary_f, by_hand)
    by_hand = [boundary_f(truth | TRUTHS[2], truth) for truth in TRUTHS]
    np.testing.assert_array_equal(scores.refined_boundary_f, by_hand)
    assert (scores.boundary_f < scores.refined_boundary_f).all()
    first, second = predictor.calls
    assert first["multimask"] and first["masks"] is None and first["points"] is None
    assert not second["multimask"] and second["masks"][:, 0, 0].tolist() == [1, 101, 201]
    np.testing.assert_array_equal(second["boxes"], first["boxes"])
    assert first["boxes"].tolist() == [[3, 2, 32, 11], [40, 20, 47, 37], [5, 15, 6, 16]]


@pytest.mark.parametrize("corner", [(0, 0), (39, 69)])
def test_a_box_of_one_pixel_has_an_area_within_the_borders(corner):
    mask = np.zeros(SIZE, bool)
    mask[corner] = True
    x0, y0, x1, y1 = tight_box(mask)
    assert (y0, x0) == corner and x1 == x0 + 1 <= 70 and y1 == y0 + 1 <= 40


def test_iou_counts_pixels():
    assert mask_iou(rectangle(0, 0, 2, 6), rectangle(0, 3, 2, 9)) == 6 / 18
    assert mask_iou(NOTHING, TRUTHS[0]) == 0
    assert mask_iou(NOTHING, NOTHING) == 1
