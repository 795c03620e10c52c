"""J and F of objects in videos: worked out by hand, and against loops and distance transforms."""

import math
from dataclasses import astuple

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from sam_jax.errors import InputError
from sam_jax.evaluate.video_metrics import (
    ObjectFrames,
    ObjectScore,
    boundary_f,
    region_similarity,
    score_object,
)

SIZE = (10, 10)
NOTHING = np.zeros(SIZE, bool)


def square(x=2, y=2, side=3):
    mask = np.zeros(SIZE, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_j_of_shifted_squares():
    # Of 9 pixels each: two columns in common, one, none.
    assert region_similarity(square(), square()) == 1.0
    assert region_similarity(square(3), square()) == 6 / 12
    assert region_similarity(square(4), square()) == 3 / 15
    assert region_similarity(square(5), square()) == 0.0


def test_f_of_shifted_squares():
    # A diagonal of 14.1 pixels allows 1. The boundary of a square of 3x3 at (2, 2) are the 12 outer
    # pixels of the 4x4 pixels from (1, 1) on: what differs from a neighbor right, below or both.
    # Shifted by 1, each is 1 from one of the other's.
    assert boundary_f(square(3), square()) == 1.0
    # Shifted by 2: of the upper row at columns 1 to 4, only column 1 is farther than 1 from columns
    # 3 to 6; so is that of the lower row; of the left column both others are, of the right column
    # none. That is 8 of 12, and as many the other way round.
    assert boundary_f(square(4), square()) == pytest.approx(8 / 12)
    # Shifted by 3: only the right column of four pixels lies on the other's left one. Of the rows,
    # column 3 is 1 from column 4: 6 of 12.
    assert boundary_f(square(5), square()) == pytest.approx(6 / 12)


def test_f_of_a_part_of_the_boundary():
    # One pixel at (3, 3): the boundary are the 4 pixels from (2, 2) to (3, 3), each 1 from the ring
    # of the square of 3x3. From the ring's 12 pixels, the corners are farther: 8 of 12.
    assert boundary_f(square(3, 3, 1), square()) == pytest.approx(2 * 1 * (8 / 12) / (1 + 8 / 12))


def test_masks_of_nothing():
    assert region_similarity(NOTHING, NOTHING) == boundary_f(NOTHING, NOTHING) == 1.0
    for predicted, true in ((NOTHING, square()), (square(), NOTHING)):
        assert region_similarity(predicted, true) == boundary_f(predicted, true) == 0.0


@pytest.mark.parametrize(
    "size_hw, radius", [((75, 100), 1), ((76, 100), 2), ((150, 200), 2), ((480, 854), 8)]
)
def test_the_tolerance_is_a_part_of_the_diagonal_rounded_up(size_hw, radius):
    line, farther, too_far = np.zeros((3, *size_hw), bool)
    line[:, 30:] = True
    farther[:, 30 + radius :] = True
    too_far[:, 31 + radius :] = True
    assert boundary_f(farther, line) == 1.0
    assert boundary_f(too_far, line) == 0.0


def test_the_tolerance_is_a_disk():
    # The boundary of a pixel are 2x2 pixels, of which it is the lower right one. 5 are allowed.
    true, on_the_circle, in_the_square = np.zeros((3, 40, 40), bool)
    true[10, 10] = on_the_circle[13 + 1, 14 + 1] = in_the_square[14 + 1, 14 + 1] = True
    tolerance = 5 / math.hypot(40, 40) - 1e-9
    # The nearest of both are (10, 10) and (13, 14): 3 and 4 apart, so 5. All others are farther: 1
    # of 4 either way.
    assert boundary_f(on_the_circle, true, tolerance=tolerance) == pytest.approx(1 / 4)
    # (10, 10) and (14, 14), 5.7 apart though neither 5 up nor across.
    assert boundary_f(in_the_square, true, tolerance=tolerance) == 0.0


def stacked(*masks):
    return np.stack(masks)


def near(j, f, frames):
    return pytest.approx((j, f, frames))


def test_means_over_the_frames_between_the_first_and_the_last():
    true = stacked(*[square()] * 5)
    predicted = stacked(NOTHING, square(), square(4), square(3), NOTHING)
    # J 1, 1/5 and 1/2; F 1, 2/3 and 1.
    score = score_object(predicted, true)
    assert score.frames == 3
    assert score.j == pytest.approx((1 + 0.2 + 0.5) / 3)
    assert score.f == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert score.j_and_f == pytest.approx((score.j + score.f) / 2)
    # The two empty ones score 0.
    every = score_object(predicted, true, skip_first_and_last=False)
    assert every.frames == 5
    assert every.j == pytest.approx((1 + 0.2 + 0.5) / 5)


def test_frames_count_from_where_the_object_appears():
    true = stacked(NOTHING, NOTHING, NOTHING, square(), square(), NOTHING)
    predicted = stacked(NOTHING, NOTHING, NOTHING, square(4), square(), NOTHING)
    assert astuple(score_object(predicted, true)) == near(0.6, 5 / 6, 2)
    # Seen too early, frame 2 counts, too: J and F 0.
    predicted[2] = square()
    early = score_object(predicted, true)
    assert astuple(early) == near(1.2 / 3, (2 / 3 + 1) / 3, 3)
    # The skipped first frame does not show the object to the count.
    true[0] = predicted[0] = square()
    assert score_object(predicted, true) == early


def test_an_object_that_leaves_and_comes_again():
    true = stacked(square(), square(), NOTHING, NOTHING, square(), square())
    # Gone in frame 2, as it should be; not in frame 3; lost in frame 4.
    predicted = stacked(square(), square(), NOTHING, square(), NOTHING, square())
    assert score_object(predicted, true) == ObjectScore(0.5, 0.5, 4)


def test_an_object_of_no_scored_frame_has_no_score():
    true = stacked(square(), NOTHING, NOTHING, square())
    for predicted in (np.zeros_like(true), np.ones_like(true)):
        with pytest.raises(InputError, match="no frame that is scored"):
            score_object(predicted, true)
    assert score_object(true, true, skip_first_and_last=False) == ObjectScore(1.0, 1.0, 4)
    with pytest.raises(InputError, match="no frame that is scored"):
        score_object(true[:2], true[:2])


@pytest.mark.parametrize(
    "predicted, message",
    [
        (np.zeros((3, 10, 11), bool), r"\(3, 10, 11\), true ones \(3, 10, 10\)"),
        (np.zeros((4, 10, 10), bool), r"\(4, 10, 10\)"),
        (np.zeros((3, 10, 10), np.uint8), "predicted masks are uint8"),
        (np.zeros((10, 10), bool), r"shape \(10, 10\); give bool"),
    ],
)
def test_masks_that_do_not_fit(predicted, message):
    with pytest.raises(InputError, match=message):
        score_object(predicted, np.zeros((3, 10, 10), bool))


def f_by_distances(predicted, true):
    def boundary(mask):
        return np.array(
            [
                [len(set(mask[y : y + 2, x : x + 2].ravel())) > 1 for x in range(mask.shape[1])]
                for y in range(mask.shape[0])
            ]
        )

    found, wanted = boundary(predicted), boundary(true)
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    radius = math.ceil(0.008 * math.hypot(*true.shape))
    precision = np.mean(distance_transform_edt(~wanted)[found] <= radius)
    recall = np.mean(distance_transform_edt(~found)[wanted] <= radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(8))
def test_it_equals_the_rules_in_loops(seed):
    rng = np.random.default_rng(seed)
    size_hw = (int(rng.integers(20, 60)), int(rng.integers(100, 150)))

    def video():
        blocks = rng.random((7, size_hw[0] // 5 + 1, size_hw[1] // 5 + 1)) < 0.2
        masks = np.kron(blocks, np.ones((1, 5, 5), bool))[:, : size_hw[0], : size_hw[1]]
        masks[rng.random(7) < 0.4] = False
        return masks

    predicted, true = video(), video()
    true[3] = predicted[3] | (rng.random(size_hw) < 0.01)
    first = next(frame for frame in range(1, 6) if (predicted[frame] | true[frame]).any())
    j, f = [], []
    for frame in range(first, 6):
        union = (predicted[frame] | true[frame]).sum()
        j.append((predicted[frame] & true[frame]).sum() / union if union else 1)
        f.append(f_by_distances(predicted[frame], true[frame]))
    score = score_object(predicted, true)
    assert astuple(score) == near(np.mean(j), np.mean(f), len(j))
    assert 0 < score.j < 1 and 0 < score.f < 1


def test_frames_are_taken_one_by_one():
    true = stacked(square(), square(), square())
    predicted = stacked(NOTHING, square(3), NOTHING)
    frames = ObjectFrames()
    assert frames.score() is None
    for one, other in zip(predicted, true, strict=True):
        frames.add(one, other)
    assert frames.score() == score_object(predicted, true, skip_first_and_last=False)
