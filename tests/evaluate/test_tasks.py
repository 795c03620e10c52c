"""Tasks on images with more objects than are in memory at once."""

import sys

import numpy as np
import pytest
from fake_predictors import FakePredictor

from sam_jax.automatic.candidates import Candidates
from sam_jax.automatic.records import GeneratedMasks
from sam_jax.automatic.runs import runs_of_mask
from sam_jax.errors import InputError
from sam_jax.evaluate.baselines import FloodFill
from sam_jax.evaluate.selection import EvaluatedImage
from sam_jax.evaluate.tasks import CHUNK, TaskOptions, make_tasks
from sam_jax.formats.rle import mask_to_counts

SIZE = (40, 90)


class FakeSegmenter(FakePredictor):
    def encode(self, pixels):
        return pixels.shape


def tiles():
    """More than a chunk of squares of 4 pixels a side, apart from each other."""
    truths = []
    for top in range(1, SIZE[0] - 4, 7):
        for left in range(2, SIZE[1] - 4, 11):
            mask = np.zeros(SIZE, bool)
            mask[top : top + 4, left : left + 4] = True
            truths.append(mask)
    assert CHUNK < len(truths) < 2 * CHUNK
    return truths


def image_of(truths, segmenter, index=0):
    pixels = np.full((*SIZE, 3), 20, np.uint8)
    for truth in truths:
        pixels[truth] = 200
    counts = [mask_to_counts(truth) for truth in truths]
    return EvaluatedImage("tiles", index, pixels, range(len(truths)), counts, segmenter)


def partly(truths):
    """For object i, i % 5 of its 4 rows: an IoU that tells it."""

    def masks_of(one, call):
        mask = truths[one].copy()
        mask[np.flatnonzero(mask.any(axis=1))[one % 5 :]] = False
        return [mask] * 3

    return masks_of


def test_objects_are_taken_in_chunks_and_stay_in_order():
    truths = tiles()
    segmenter = FakeSegmenter(truths, partly(truths))
    options = TaskOptions(clicks=(1,), baselines=("flood-fill", "filled-box"))
    tasks = make_tasks(("boxes", "points"), options)
    assert list(tasks) == ["points", "boxes"]
    for task in tasks.values():
        task.add(image_of(truths, segmenter))
    counts = [len(c["boxes"] if c["points"] is None else c["points"]) for c in segmenter.calls]
    rest = len(truths) - CHUNK
    assert counts == [CHUNK, rest, CHUNK, CHUNK, rest, rest]

    expected = [one % 5 / 4 for one in range(len(truths))]
    columns = tasks["points"].columns()
    assert columns["sam click_1"] == columns["sam click_1_oracle"] == expected
    assert columns["flood-fill click_1"] == [1.0] * len(truths)
    boxes = tasks["boxes"].columns()
    assert boxes["sam box"] == boxes["sam box_refined"] == expected
    assert tasks["points"].values()["mean_iou"]["sam"]["click_1"] == np.mean(expected)
    # Every measure has a column; what a method does not have stays empty.
    title, _, sam, filled, gap, outlines, *_, filled_outlines = tasks["boxes"].lines()
    assert title == "| mean IoU | box | box oracle | box refined |"
    assert filled == "| filled-box | 1.000 |  |  |"
    assert sam.count(f"{np.mean(expected):.3f}") == 3
    assert (gap, outlines) == ("", "| mean boundary F | box | box refined |")
    assert filled_outlines == "| filled-box | 1.000 |  |"
    # A pixel is tolerated: three rows of four are as good as all, none are nothing.
    found = boxes["sam box boundary_f"]
    assert [found[one] for one in (0, 3, 4)] == [0, 1, 1] and 0 < found[1] < found[2] < 1
    assert tasks["boxes"].values()["mean_boundary_f"]["sam"]["box"] == np.mean(found)
    assert columns["flood-fill click_1 boundary_f"] == [1.0] * len(truths)


def test_all_methods_get_the_same_random_clicks(monkeypatch):
    truths = tiles()
    segmenter = FakeSegmenter(truths, partly(truths))
    clicked = []
    answer = FloodFill.answer

    def remembered(self, objects, points, labels):
        clicked.append(points)
        return answer(self, objects, points, labels)

    monkeypatch.setattr(FloodFill, "answer", remembered)
    options = TaskOptions(clicks=(1,), random_first=True, seed=3, baselines=("flood-fill",))
    (task,) = make_tasks(("points",), options).values()
    task.add(image_of(truths, segmenter))
    task.add(image_of(truths, segmenter, index=1))
    ours = [call["points"] for call in segmenter.calls]
    assert len(ours) == len(clicked) == 4
    for one, other in zip(ours, clicked, strict=True):
        np.testing.assert_array_equal(one, other)
    # Another image, other clicks.
    assert (ours[0] != ours[2]).any()


def test_a_baseline_that_cannot_run_is_refused_before_any_work(monkeypatch):
    with pytest.raises(InputError, match="add --task boxes"):
        make_tasks(("points",), TaskOptions(baselines=("filled-box",)))
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match="pip install opencv-python-headless"):
        make_tasks(("boxes",), TaskOptions(baselines=("grabcut",)))


def candidates_of(masks):
    """What generation returns for some masks, the first of the highest quality."""
    runs = [runs_of_mask(mask, (0, 0, SIZE[1], SIZE[0]), SIZE) for mask in masks]
    quality = np.linspace(1, 0.5, len(masks), dtype=np.float32)
    boxes = np.zeros((len(masks), 4), np.int64)
    return Candidates(quality, quality, boxes, boxes, [np.zeros((1, 2))] * len(masks), runs)


class GeneratingSegmenter:
    """Finds everything but the first `missing` objects."""

    def __init__(self, truths, missing):
        self.masks = truths[missing:]

    def encode(self, pixels):
        return pixels.shape

    def generate_masks(self, embedding, **options):
        assert embedding == (*SIZE, 3)
        return GeneratedMasks(SIZE, candidates_of(self.masks), {})


def test_recall_of_proposals_is_over_all_objects_of_all_images():
    truths = tiles()
    (task,) = make_tasks(("proposals",), TaskOptions()).values()
    task.add(image_of(truths, GeneratingSegmenter(truths, 3)))
    task.add(image_of(truths[:12], GeneratingSegmenter(truths[:12], 6), index=1))
    count = len(truths)
    values = task.values()
    assert values["proposals_per_image"] == (count - 3 + 6) / 2
    recall = values["average_recall"]
    assert recall["AR@10"] == pytest.approx((10 + 6) / (count + 12))
    found = (count - 3 + 6) / (count + 12)
    assert recall["AR@1000"] == recall["AR@1000 small"] == pytest.approx(found)
    assert task.columns() == {
        "sam best_proposal": [0.0] * 3 + [1.0] * (count - 3) + [0.0] * 6 + [1.0] * 6
    }
    title, _, row = task.lines()
    assert title.startswith("| average recall | proposals an image | AR@10 | AR@100 | AR@1000 |")
    # No object is medium or large.
    assert row.endswith(f" {found:.3f} | {found:.3f} |  |  |")
