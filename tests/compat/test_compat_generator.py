"""`SamAutomaticMaskGenerator`: its options, and its records in the libraries that take them."""

import inspect

import numpy as np
import pytest
import supervision
from pycocotools import mask as coco
from same_results import assert_same_records

from sam_jax.automatic.records import GeneratedMasks
from sam_jax.errors import InputError

FEW_POINTS = {"points_per_side": 6, "box_nms_thresh": 0.9}
# As many points as that, and crops of like sizes below, so that little more is compiled.
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


def test_a_models_own_values_count_where_the_caller_gives_none(ours):
    tiny = ours.sam_model_registry["tiny"]()
    known = tiny.segmenter.generate_defaults
    assert known["pred_iou_thresh"] < 0.88
    found = vars(ours.SamAutomaticMaskGenerator(tiny, 16, stability_score_thresh=0.95))
    assert found["stability_score_thresh"] == 0.95 and len(found["point_grids"][0]) == 16**2
    for name in known.keys() - {"stability_score_thresh"}:
        assert found[name] == known[name], name
    # What is given counts, also where it is the original's default, and by its place.
    given = vars(ours.SamAutomaticMaskGenerator(tiny, 4, 64, 0.88, min_mask_region_area=0))
    assert (given["pred_iou_thresh"], given["min_mask_region_area"]) == (0.88, 0)


def test_a_warning_says_which_filter_dropped_all(generators, small_chelsea):
    generator, _ = generators(**FEW_POINTS, pred_iou_thresh=1.01)
    with pytest.warns(UserWarning, match="no mask is left of 108 .*108 below pred_iou_thresh"):
        assert generator.generate(small_chelsea) == []


OPTIONS = {
    "points_per_batch": {"points_per_batch": 10},
    "pred_iou_thresh": {"pred_iou_thresh": 0.98},
    "stability_score_thresh": {"stability_score_thresh": 0.99},
    "stability_score_offset": {"stability_score_offset": 4.0},
    "box_nms_thresh": {"box_nms_thresh": 0.3},
    "crops": {"crop_n_layers": 1, "crop_overlap_ratio": 0.05, "crop_nms_thresh": 0.2},
    "point_grids": {"points_per_side": None, "point_grids": [GRID]},
    "min_mask_region_area": {"min_mask_region_area": 12},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_does_what_the_originals_does(generators, small_chelsea, name):
    mine, their = (g.generate(small_chelsea) for g in generators(**{**FEW_POINTS, **OPTIONS[name]}))
    assert_same_records(mine, their)


# What `Segmenter.generate` takes for a mistake.
UNUSUAL = {
    "no lowest quality, no duplicate": {"pred_iou_thresh": -1, "box_nms_thresh": 1.5},
    "no lowest stability": {
        "stability_score_thresh": float("nan"),
        "pred_iou_thresh": np.float32(0.93),
        "box_nms_thresh": 1.5,
    },
    "logits in the wrong order": {
        "stability_score_offset": -0.1,
        "stability_score_thresh": 1.01,
        "box_nms_thresh": 1.5,
    },
    "the best alone": {"box_nms_thresh": -0.5},
    "half pixels": {"min_mask_region_area": 12.5},
    "no area is large": {"min_mask_region_area": float("inf")},
    "no area is small": {"min_mask_region_area": -3},
    "half points": {"points_per_side": 6.9, "points_per_batch": 1 << 20},
    "what counts in crops alone": {
        "crop_n_points_downscale_factor": 0,
        "crop_overlap_ratio": 9,
        "crop_nms_thresh": 7,
    },
    "gaps between crops": {
        "crop_n_layers": True,
        "crop_overlap_ratio": -0.03,
        "crop_n_points_downscale_factor": 0.85,
        "crop_nms_thresh": 2,
    },
    "points outside": {"points_per_side": None, "point_grids": [GRID * 1.8 - 0.4]},
    "a grid for the image": {
        "points_per_side": None,
        "point_grids": {0: GRID.tolist()},
        "crop_n_layers": -1,
    },
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_any_value_that_the_original_takes_gives_its_records(generators, small_chelsea, name):
    options = {**FEW_POINTS, **UNUSUAL[name]}
    mine, their = (g.generate(small_chelsea) for g in generators(**options))
    assert_same_records(mine, their)


@pytest.mark.parametrize("option", ["pred_iou_thresh", "stability_score_thresh"])
def test_no_mask_passes_a_threshold_above_every_score(generators, small_chelsea, option):
    for generator in generators(**FEW_POINTS, **{option: 1.01}):
        assert generator.generate(small_chelsea) == []


NOTHING = {
    "points_per_side": [0, -2, "six"],
    "points_per_batch": [64.0, 0, -3],
    "pred_iou_thresh": ["high"],
    "crop_n_layers": [1.0],
    "crop_n_points_downscale_factor": [9, -2],
    "crop_overlap_ratio": [1.2, float("nan")],
    "min_mask_region_area": ["small"],
}


@pytest.mark.parametrize("name, value", [(name, v) for name in NOTHING for v in NOTHING[name]])
def test_values_with_which_the_original_fails_are_refused_by_name(
    theirs, ours, models, small_chelsea, name, value
):
    layers = {"crop_n_layers": 1} if name.startswith("crop") else {}
    options = {**FEW_POINTS, **layers, name: value}
    with pytest.raises(InputError, match=name) as caught:
        ours.SamAutomaticMaskGenerator(models[0], **options)
    assert "\n" not in str(caught.value)
    with pytest.raises((ArithmeticError, LookupError, TypeError, ValueError)):
        theirs.SamAutomaticMaskGenerator(models[1], **options).generate(small_chelsea)


@pytest.mark.parametrize(
    "grids",
    [[], 5, [np.zeros((0, 2))], [np.zeros((3, 3))], [[["a", "b"]]], [np.full((1, 2), np.nan)]],
)
def test_grids_without_points_are_refused(ours, models, grids):
    with pytest.raises(InputError, match="layer 0"):
        ours.SamAutomaticMaskGenerator(models[0], None, point_grids=grids)


def test_the_callers_grids_are_kept(generators):
    grids = [GRID, GRID, GRID]
    for generator in generators(points_per_side=None, point_grids=grids, crop_n_layers=1):
        assert generator.point_grids is grids


def test_masks_as_arrays_have_no_limit(generators, small_chelsea, monkeypatch):
    records = GeneratedMasks.records

    def limited(self, output_mode="binary_mask", *, max_mask_bytes=1):
        return records(self, output_mode, max_mask_bytes=max_mask_bytes)

    monkeypatch.setattr(GeneratedMasks, "records", limited)
    assert len(generators(**FEW_POINTS)[0].generate(small_chelsea)) > 1


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
    with pytest.raises(InputError, match="sam_model_registry"):
        ours.SamAutomaticMaskGenerator(models[1])
    generator = ours.SamAutomaticMaskGenerator(models[0], **FEW_POINTS)
    for image in (small_chelsea[..., 0], small_chelsea / 255):
        with pytest.raises(InputError, match="uint8"):
            generator.generate(image)


def test_what_is_set_on_the_model_counts(generators, models, small_chelsea, monkeypatch):
    before = generators(**FEW_POINTS)[0].generate(small_chelsea)
    for model in models:
        monkeypatch.setattr(model, "mask_threshold", 0.5)
        monkeypatch.setattr(model, "pixel_mean", model.pixel_mean + 20)
    mine, their = (g.generate(small_chelsea) for g in generators(**FEW_POINTS))
    assert_same_records(mine, their)
    assert [record["area"] for record in mine] != [record["area"] for record in before]


def test_the_predictors_image_stays(generators, small_chelsea):
    generator, _ = generators(**FEW_POINTS)
    generator.predictor.set_image(small_chelsea[:100])
    generator.generate(small_chelsea)
    assert generator.predictor.original_size == (100, 180)


def test_the_originals_inner_steps_are_said_to_be_missing(ours, models):
    generator = ours.SamAutomaticMaskGenerator(models[0], **FEW_POINTS)
    assert not hasattr(generator, "postprocess_small_regions")
    with pytest.raises(AttributeError, match="postprocess_small_regions.*min_mask_region_area"):
        generator.postprocess_small_regions({}, 3, 0.7)
    with pytest.raises(AttributeError, match="_process_crop"):
        generator._process_crop()
