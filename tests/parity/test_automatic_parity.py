"""The original's mask generator and ours: same weights, same options, the same records.

The small trained model gives masks as they are on photos; random weights give what no trained model
does, empty masks and masks of the whole image among it.
"""

import numpy as np
import original
import photos
import pytest
import torch
from closeness import IOU_BOUND
from pycocotools import mask as coco_mask
from small_vit import SMALL_VIT, SMALL_VIT_CHECKPOINT

from convert.conversion import to_state_dict
from convert.sam.reference import build_original
from sam_jax import Segmenter, load_checkpoint
from sam_jax.configs import TEST, VIT_B

pytestmark = pytest.mark.optimised

# The judge's bound on each pair of masks.
MASK_IOU = 0.99
# A pixel or two may fall on the other side of a threshold that its logit equals up to float32
# rounding, of the few thousand pixels that the stability score divides by.
STABILITY_BOUND = 1e-3

TRAINED = {"points_per_side": 8, "pred_iou_thresh": 0.3, "stability_score_thresh": 0.6}
CASES = {
    "whole image": {},
    "one layer of crops": {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
    "two layers, cleaned": {
        "crop_n_layers": 2,
        "crop_n_points_downscale_factor": 2,
        "min_mask_region_area": 150,
    },
    "cleaned": {"min_mask_region_area": 300},
    "other thresholds": {
        "box_nms_thresh": 0.4,
        "crop_nms_thresh": 0.2,
        "stability_score_offset": 2.0,
        "stability_score_thresh": 0.3,
        "crop_n_layers": 1,
        "crop_overlap_ratio": 0.5,
    },
    "own points": {
        "points_per_side": None,
        "point_grids": [np.random.default_rng(0).random((40, 2))],
    },
    "a partial batch": {"points_per_side": 7, "points_per_batch": 32},
    "no filter": {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 6},
}


@pytest.fixture(scope="module")
def trained():
    """A small trained model, in the original's code and in ours."""
    checkpoint = load_checkpoint(SMALL_VIT_CHECKPOINT)
    assert checkpoint.config == SMALL_VIT
    model = build_original(checkpoint.config).eval().requires_grad_(False)
    state = to_state_dict(checkpoint.config, checkpoint.params)
    model.load_state_dict({name: torch.from_numpy(np.array(v)) for name, v in state.items()})
    return model, Segmenter(checkpoint.config, checkpoint.params)


def both(pair, image, **options):
    model, segmenter = pair
    generator = original.segment_anything().SamAutomaticMaskGenerator
    theirs = generator(model, output_mode="coco_rle", **options).generate(image)
    return theirs, segmenter.generate(image, output_mode="coco_rle", **options)


def assert_same_records(theirs, ours):
    assert len(ours) == len(theirs)
    for their, our in zip(theirs, ours, strict=True):
        assert list(our) == list(their)
        assert [type(value) for value in our.values()] == [type(v) for v in their.values()]
        if their["area"]:
            overlap = coco_mask.iou([our["segmentation"]], [their["segmentation"]], [False])
            assert overlap[0, 0] > MASK_IOU
        assert our["segmentation"]["size"] == their["segmentation"]["size"]
        assert abs(our["area"] - their["area"]) <= max(2, 1e-3 * their["area"])
        assert our["crop_box"] == their["crop_box"]
        np.testing.assert_allclose(our["bbox"], their["bbox"], atol=1)
        np.testing.assert_allclose(our["point_coords"], their["point_coords"], rtol=1e-12)
        assert abs(our["predicted_iou"] - their["predicted_iou"]) <= IOU_BOUND
        np.testing.assert_allclose(
            our["stability_score"], their["stability_score"], atol=STABILITY_BOUND
        )


PHOTOS = ("rocket, 333x501", "coffee", "astronaut, 501x333")


def marks_of(case):
    """Of its photos: one in each suite, but two layers of crops take longest and begin as slow."""
    later = pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.exhaustive
    return later if case == "two layers, cleaned" else ((), *later[:2])


COMBINATIONS = [
    pytest.param(case, PHOTOS[(i + j) % 2 + 1] if j else PHOTOS[0], marks=marks)
    for i, case in enumerate(CASES)
    for j, marks in enumerate(marks_of(case))
]


@pytest.mark.parametrize("case, photo", COMBINATIONS)
def test_a_trained_model_gives_the_same_records(trained, case, photo):
    theirs, ours = both(trained, photos.photo(photo), **{**TRAINED, **CASES[case]})
    assert_same_records(theirs, ours)
    assert theirs


def test_a_sliver_gives_the_same_records(trained):
    options = {**TRAINED, "crop_n_layers": 1, "stability_score_thresh": 0.0}
    theirs, ours = both(trained, photos.photo("coffee, 400x37"), **options)
    assert theirs
    assert_same_records(theirs, ours)


def test_one_surviving_mask(trained):
    image = photos.photo("coffee")
    best = max(record["predicted_iou"] for record in both(trained, image, **TRAINED)[1])
    theirs, ours = both(trained, image, **{**TRAINED, "pred_iou_thresh": best - 1e-3})
    assert len(theirs) == 1
    assert_same_records(theirs, ours)


def test_no_surviving_mask(trained):
    theirs, ours = both(trained, photos.photo("coffee"), **{**TRAINED, "pred_iou_thresh": 2.0})
    assert theirs == ours == []


def test_no_surviving_mask_in_any_crop(trained):
    # The original fails here: it asks for areas of a list of no crop boxes.
    options = {**TRAINED, "pred_iou_thresh": 2.0, "crop_n_layers": 1, "min_mask_region_area": 9}
    assert trained[1].generate(photos.photo("coffee"), **options) == []


@pytest.mark.parametrize("layers", [0, 1])
def test_random_weights_give_the_same_records(layers):
    model = original.build(TEST, seed=3)
    pair = model, Segmenter(TEST, original.variables(model, TEST))
    image = photos.photo("rocket, 333x501")
    theirs, ours = both(
        pair,
        image,
        points_per_side=5,
        pred_iou_thresh=0.0,
        stability_score_thresh=0.0,
        # Every box is the whole image: nothing is suppressed.
        box_nms_thresh=1.0,
        crop_nms_thresh=1.0,
        crop_n_layers=layers,
    )
    assert len(theirs) > 10
    assert_same_records(theirs, ours)


@pytest.mark.exhaustive
def test_full_size_gives_the_same_records():
    model = original.build(VIT_B, seed=0)
    pair = model, Segmenter(VIT_B, original.variables(model, VIT_B))
    image = photos.photo("rocket, 333x501")
    thresholds = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    suppression = {"box_nms_thresh": 1.0, "crop_nms_thresh": 1.0}
    theirs, ours = both(
        pair, image, points_per_side=4, crop_n_layers=1, **thresholds, **suppression
    )
    assert len(theirs) > 10
    assert_same_records(theirs, ours)
