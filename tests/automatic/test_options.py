"""Options of automatic generation: their ranges, their presets, their errors."""

from dataclasses import fields

import numpy as np
import pytest

from sam_jax.automatic.grids import layer_points
from sam_jax.automatic.options import PRESETS, GenerateOptions, generate_options
from sam_jax.errors import InputError


@pytest.mark.parametrize(
    "change",
    [
        {"points_per_side": 0},
        {"points_per_side": 2.5},
        {"points_per_side": True},
        {"points_per_side": None},
        {"points_per_batch": 0},
        {"pred_iou_thresh": float("nan")},
        {"pred_iou_thresh": float("inf")},
        {"pred_iou_thresh": "0.5"},
        {"stability_score_thresh": 1.5},
        {"stability_score_offset": -1.0},
        {"box_nms_thresh": -0.1},
        {"crop_nms_thresh": 1.1},
        {"crop_n_layers": -1},
        {"crop_n_layers": 7},
        {"crop_overlap_ratio": 2.0},
        {"crop_n_points_downscale_factor": 0},
        {"min_mask_region_area": -1},
        {"min_mask_area": -1},
        {"max_mask_area_ratio": 1.5},
        {"max_masks": -1},
        {"nms": "iou"},
        {"tile_size": 10},
        {"tile_overlap": 0.9},
    ],
)
def test_a_value_out_of_its_range_is_named(change):
    with pytest.raises(InputError, match=next(iter(change))):
        generate_options(**change)


def test_what_contradicts_itself_is_refused():
    with pytest.raises(InputError, match="exactly one"):
        GenerateOptions(points_per_side=8, point_grids=[np.zeros((1, 2))])
    with pytest.raises(InputError, match="cannot be combined"):
        generate_options(tile_size=512, crop_n_layers=1)
    with pytest.raises(InputError, match="crop layer 2 would have no point"):
        generate_options(points_per_side=4, crop_n_layers=2, crop_n_points_downscale_factor=4)


@pytest.mark.parametrize(
    "grids", [[], 5, [np.zeros((0, 2))], [np.zeros((3, 3))], [[[0.5, 1.5]]], [[["a", "b"]]]]
)
def test_grids_that_are_none_are_refused(grids):
    with pytest.raises(InputError, match="grid"):
        generate_options(point_grids=grids)


def test_own_grids_take_the_place_of_points_per_side():
    options = generate_options("dense", point_grids=[[[0.25, 0.5]], [[0.5, 0.5], [1.0, 0.0]]])
    np.testing.assert_array_equal(layer_points(options, 1), [[0.5, 0.5], [1.0, 0.0]])


def test_unknown_names_are_refused_with_what_there_is():
    with pytest.raises(InputError, match="unknown preset 'huge'; there are default, fast"):
        generate_options("huge")
    with pytest.raises(InputError, match="unknown option 'points'"):
        generate_options(points=3)


def test_the_default_preset_has_the_originals_defaults():
    import inspect

    import sam_jax.compat

    theirs = inspect.signature(sam_jax.compat.SamAutomaticMaskGenerator).parameters
    ours = PRESETS["default"]
    shared = {field.name for field in fields(ours)} & set(theirs)
    assert len(shared) == 12
    for name in shared:
        assert getattr(ours, name) == theirs[name].default, name


def test_the_paper_preset_asks_the_papers_points():
    paper = PRESETS["paper"]
    counts = [len(layer_points(paper, layer)) * 4**layer for layer in range(3)]
    assert counts == [32 * 32, 4 * 16 * 16, 16 * 8 * 8]
    assert (paper.pred_iou_thresh, paper.stability_score_thresh) == (0.88, 0.95)
    assert (paper.max_mask_area_ratio, paper.min_mask_region_area) == (0.95, 100)


def test_every_option_is_documented():
    for field in fields(GenerateOptions):
        assert f"      {field.name}: " in GenerateOptions.__doc__, field.name
