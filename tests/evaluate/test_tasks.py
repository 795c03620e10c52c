"""Tasks on images with more objects than are in memory at once."""

import sys

import numpy as np
import pytest
from fake_predictors import FakePredictor

from sam_jax.automatic.runs import runs_of_mask
from sam_jax.errors import InputError
from sam_jax.evaluate import whole_images
from sam_jax.evaluate.baselines import FloodFill
from sam_jax.evaluate.boundaries import boundary_f, boundary_pixels
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
    title, _, sam, filled = tasks["boxes"].lines()
    assert title == "| mean IoU | box | box oracle | box refined |"
    assert filled == "| filled-box | 1.000 |  |  |"
    assert sam.count(f"{np.mean(expected):.3f}") == 3


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


def test_boundaries_are_of_the_most_confident_masks():
    truths = tiles()
    segmenter = FakeSegmenter(truths, partly(truths))
    task = make_tasks(("boundaries",), TaskOptions())["boundaries"]
    task.add(image_of(truths, segmenter))
    columns = task.columns()
    assert list(columns) == ["sam click_1_boundary", "sam box_boundary"]
    # Of object i only i % 5 of 4 rows were found; none at all where that is 0.
    expected = [boundary_f(partly(truths)(one, 0)[1], truth) for one, truth in enumerate(truths)]
    assert {0.0} < set(expected)
    for found in columns.values():
        np.testing.assert_allclose(found, expected)
    assert task.lines()[0] == "| mean boundary F | click 1 boundary | box boundary |"
    assert set(task.values()) == {"mean_boundary_f"}
    first, second = segmenter.calls[0], segmenter.calls[2]
    assert first["points"].shape == (CHUNK, 1, 2) and (first["labels"] == 1).all()
    assert second["points"].shape == (len(truths) - CHUNK, 1, 2)


def test_perfect_masks_of_everything_have_all_edges_and_proposals(monkeypatch):
    truths = tiles()[::6]
    image = image_of(truths, FakeSegmenter(truths, None))
    outline = np.zeros(SIZE, bool)
    for truth in truths:
        outline |= boundary_pixels(truth)
    monkeypatch.setattr(whole_images, "edge_map", lambda *_: outline.astype(np.float32))
    runs = [runs_of_mask(truth, (0, 0, SIZE[1], SIZE[0]), SIZE) for truth in truths]
    monkeypatch.setattr(whole_images, "generate_proposals", lambda *_: runs[:-1])
    tasks = make_tasks(("edges", "proposals"), TaskOptions())
    for _ in range(2):
        for task in tasks.values():
            task.add(image)
    edges, proposals = tasks["edges"], tasks["proposals"]
    assert edges.values()["ODS"] == edges.values()["R50"] == 1 and edges.values()["images"] == 2
    found = (len(truths) - 1) / len(truths)
    assert proposals.values()["AR@1000"] == pytest.approx(found)
    assert proposals.values()["masks"] == 2 * len(truths)
    assert proposals.lines()[0].startswith("| average recall | masks | proposals | AR@10 |")
    pictures = edges.pictures()
    assert list(pictures) == ["edges_0.png", "edges_1.png"]
    shown = np.asarray(pictures["edges_0.png"])
    assert shown.shape == (SIZE[0], 2 * SIZE[1])
    np.testing.assert_array_equal(shown[:, : SIZE[1]] == 0, outline)
    np.testing.assert_array_equal(shown[:, SIZE[1] :] == 0, outline)
