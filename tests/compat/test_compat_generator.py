"""`SamAutomaticMaskGenerator`: its options, and its records in the libraries that take them."""

import inspect

import numpy as np
import pytest
import supervision
from pycocotools import mask as coco
from same_results import assert_same_records

from sam_jax.errors import InputError

FEW_POINTS = {"points_per_side": 6, "box_nms_thresh": 0.9}
# As many points as that, so that nothing more is compiled.
GRID = np.random.default_rng(0).uniform(size=(36, 2))


@pytest.fixture(scope="module")
def models(theirs, ours, sparse_pth):
    return [api.sam_model_registry["small"](checkpoint=sparse_pth) for api in (ours, theirs)]


@pytest.fixture(scope="module")
def generators(theirs, ours, models):
    """Both packages' generators with the same options, ours first."""

    def build(**options):
        apis = zip((ours, theirs), models, strict=True)
        return [api.SamAutomaticMaskGenerator(model, **options) for api, model in apis]

    return build


def test_the_constructor_takes_what_the_originals_takes(theirs, ours):
    mine, their = (
        inspect.signature(api.SamAutomaticMaskGenerator).parameters for api in (ours, theirs)
    )
    assert [(name, p.default, p.kind) for name, p in mine.items()] == [
        (name, p.default, p.kind) for name, p in their.items()
    ]


def test_attributes_are_the_originals(generators):
    mine, their = (vars(g) for g in generators(crop_n_layers=2, crop_n_points_downscale_factor=3))
    assert mine.keys() == their.keys()
    for name in their.keys() - {"predictor", "point_grids"}:
        assert mine[name] == their[name], name
    for grid, other in zip(mine["point_grids"], their["point_grids"], strict=True):
        np.testing.assert_allclose(grid, other, rtol=1e-15)


OPTIONS = {
    "points_per_batch": {"points_per_batch": 10},
    "pred_iou_thresh": {"pred_iou_thresh": 0.98},
    "stability_score_thresh": {"stability_score_thresh": 0.99},
    "stability_score_offset": {"stability_score_offset": 4.0},
    "box_nms_thresh": {"box_nms_thresh": 0.3},
    "crops": {"crop_n_layers": 1, "crop_overlap_ratio": 0.1, "crop_nms_thresh": 0.2},
    "point_grids": {"points_per_side": None, "point_grids": [GRID]},
    "min_mask_region_area": {"min_mask_region_area": 12},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_does_what_the_originals_does(generators, small_chelsea, name):
    mine, their = (g.generate(small_chelsea) for g in generators(**{**FEW_POINTS, **OPTIONS[name]}))
    assert_same_records(mine, their)


def test_attributes_can_be_changed_between_images(generators, small_chelsea):
    results = []
    for generator in generators(**FEW_POINTS):
        before = generator.generate(small_chelsea)
        generator.pred_iou_thresh = 0.93
        generator.point_grids = [GRID]
        results.append([before, generator.generate(small_chelsea)])
    assert len(results[0][0]) != len(results[0][1])
    for mine, their in zip(*results, strict=True):
        assert_same_records(mine, their)


@pytest.mark.parametrize("output_mode", ["binary_mask", "uncompressed_rle", "coco_rle"])
def test_every_output_mode_is_the_originals(generators, small_chelsea, output_mode):
    options = {**FEW_POINTS, "output_mode": output_mode}
    mine, their = (g.generate(small_chelsea) for g in generators(**options))
    assert len(their) > 3
    assert_same_records(mine, their)


def test_supervision_takes_the_records_as_they_are(generators, small_chelsea):
    mine, their = (
        supervision.Detections.from_sam(g.generate(small_chelsea)) for g in generators(**FEW_POINTS)
    )
    assert len(mine) > 3
    np.testing.assert_array_equal(mine.xyxy, their.xyxy)
    np.testing.assert_array_equal(mine.mask, their.mask)
    np.testing.assert_array_equal(mine.area, their.area)


def test_pycocotools_takes_the_records_as_they_are(generators, small_chelsea):
    by_mode = {
        mode: generators(**FEW_POINTS, output_mode=mode)[0].generate(small_chelsea)
        for mode in ("binary_mask", "uncompressed_rle", "coco_rle")
    }
    masks = [record["segmentation"] for record in by_mode["binary_mask"]]
    assert len(masks) > 3
    rles = [record["segmentation"] for record in by_mode["coco_rle"]]
    np.testing.assert_array_equal(np.moveaxis(coco.decode(rles), -1, 0), masks)
    assert coco.area(rles).tolist() == [record["area"] for record in by_mode["coco_rle"]]
    plain = [record["segmentation"] for record in by_mode["uncompressed_rle"]]
    height, width = small_chelsea.shape[:2]
    np.testing.assert_array_equal(
        np.moveaxis(coco.decode(coco.frPyObjects(plain, height, width)), -1, 0), masks
    )


def test_misuse_is_an_assertion_error_and_an_input_error(ours, models):
    for options in (
        {"points_per_side": None},
        {"point_grids": [np.zeros((1, 2))]},
        {"output_mode": "polygons"},
    ):
        with pytest.raises(AssertionError) as caught:
            ours.SamAutomaticMaskGenerator(models[0], **options)
        assert isinstance(caught.value, InputError)
        assert next(iter(options)) in str(caught.value)


def test_what_cannot_be_used_is_refused(ours, models, small_chelsea):
    with pytest.raises(InputError, match="stability_score_thresh"):
        ours.SamAutomaticMaskGenerator(models[0], stability_score_thresh=1.5)
    with pytest.raises(InputError, match="sam_model_registry"):
        ours.SamAutomaticMaskGenerator(models[1])
    generator = ours.SamAutomaticMaskGenerator(models[0], **FEW_POINTS)
    for image in (small_chelsea[..., 0], small_chelsea / 255):
        with pytest.raises(InputError, match="uint8"):
            generator.generate(image)


def test_a_threshold_that_generating_does_not_follow_is_refused(ours, pth, small_chelsea):
    model = ours.load_sam(pth)
    model.mask_threshold = 0.5
    with pytest.raises(InputError, match="mask_threshold"):
        ours.SamAutomaticMaskGenerator(model, **FEW_POINTS).generate(small_chelsea)
