"""Misuse: errors of the types that the original's users may catch, each saying what to do."""

import numpy as np
import pytest
import torch

from sam_jax.errors import InputError


@pytest.fixture(scope="module")
def predictor(ours, pth, chelsea):
    predictor = ours.SamPredictor(ours.load_sam(pth))
    predictor.set_image(chelsea)
    return predictor


def test_nothing_is_predicted_before_an_image_is_set(theirs, ours, pth):
    for api in (ours, theirs):
        predictor = api.SamPredictor(api.sam_model_registry["small"](checkpoint=pth))
        calls = (
            lambda p=predictor: p.predict(box=np.array([1, 2, 3, 4])),
            lambda p=predictor: p.predict_torch(None, None, torch.zeros(1, 4)),
            predictor.get_image_embedding,
        )
        for call in calls:
            with pytest.raises(RuntimeError, match="set_image") as caught:
                call()
            assert api is theirs or isinstance(caught.value, InputError)


def test_a_reset_predictor_has_no_image(ours, pth, chelsea):
    predictor = ours.SamPredictor(ours.load_sam(pth))
    predictor.set_image(chelsea)
    predictor.reset_image()
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.predict(box=np.array([1, 2, 3, 4]))


def misuses(predictor, image):
    return {
        "image_format": lambda: predictor.set_image(image, image_format="HSV"),
        "four channels": lambda: predictor.set_image(np.dstack([image, image[..., 0]])),
        "not scaled": lambda: predictor.set_torch_image(torch.zeros(1, 3, 300, 451), (300, 451)),
        "channels last": lambda: predictor.set_torch_image(torch.zeros(1, 85, 128, 3), (300, 451)),
        "no labels": lambda: predictor.predict(point_coords=np.array([[4, 5]])),
    }


@pytest.mark.parametrize(
    "name", ["image_format", "four channels", "not scaled", "channels last", "no labels"]
)
def test_what_the_original_asserts_is_an_assertion_error(theirs, ours, pth, chelsea, name):
    for api in (theirs, ours):
        predictor = api.SamPredictor(api.sam_model_registry["small"](checkpoint=pth))
        predictor.set_image(chelsea)
        with pytest.raises(AssertionError) as caught:
            misuses(predictor, chelsea)[name]()
    assert isinstance(caught.value, InputError) and "\n" not in str(caught.value)
    # Nothing of what was there is lost.
    assert predictor.predict(box=np.array([1, 2, 90, 80]))[0].shape == (3, 300, 451)


@pytest.mark.parametrize(
    "prompt, message",
    [
        ({"box": np.zeros((2, 4))}, "predict_torch"),
        ({"box": np.array([1, 2, np.nan, 4])}, "boxes holds NaN"),
        ({"box": "here"}, "box cannot be read"),
        ({"point_coords": [[1, 2], [3]], "point_labels": [1, 1]}, "point_coords cannot be read"),
        ({"point_coords": np.array([1, 2]), "point_labels": [1]}, r"\[N, 2\]"),
        ({"point_coords": np.array([[1, 2]]), "point_labels": [1, 0]}, "one label a point"),
        ({"point_coords": np.array([[1, 2]]), "point_labels": [2]}, "1 .foreground., 0"),
        ({"point_coords": np.zeros((0, 2)), "point_labels": np.zeros(0)}, "empty"),
        ({"mask_input": np.zeros((3, 32, 32))}, r"\[1, 32, 32\] each"),
        ({"mask_input": np.zeros((32, 32))}, r"\[1, 32, 32\] each"),
        ({"mask_input": np.full((1, 32, 32), np.inf)}, "NaN or infinite"),
    ],
)
def test_prompts_that_mean_nothing_are_refused(predictor, prompt, message):
    with pytest.raises(InputError, match=message):
        predictor.predict(**prompt)


def test_messages_show_the_shapes_that_were_given(predictor):
    with pytest.raises(InputError, match=r"each, not \(32, 32\)"):
        predictor.predict(mask_input=np.zeros((32, 32)))
    with pytest.raises(InputError, match=r"must be \[1\], one label a point, not \(2,\)"):
        predictor.predict(np.array([[1, 2]]), np.array([1, 0]))


def test_no_boxes_give_no_masks(predictor):
    for more in ({}, {"mask_input": torch.zeros(1, 1, 32, 32)}):
        masks, iou, low_res = predictor.predict_torch(None, None, torch.zeros(0, 4), **more)
        assert masks.shape == (0, 3, 300, 451) and masks.dtype == torch.bool
        assert iou.shape == (0, 3) and low_res.shape == (0, 3, 32, 32)


def test_batches_that_do_not_match_are_refused(predictor):
    points, labels, boxes = torch.zeros(2, 1, 2), torch.ones(2, 1), torch.zeros(3, 4)
    with pytest.raises(InputError, match="different numbers of prompts: 2, 3"):
        predictor.predict_torch(points, labels, boxes)
    with pytest.raises(InputError, match="different numbers of prompts: 3, 2"):
        predictor.predict_torch(None, None, boxes, torch.zeros(2, 1, 32, 32))
    with pytest.raises(InputError, match="point_labels must be given"):
        predictor.predict_torch(points, None)
    with pytest.raises(InputError, match=r"boxes must be \[B, 4\]"):
        predictor.predict_torch(None, None, boxes[0])
    with pytest.raises(InputError, match=r"point_coords must be \[B, N, 2\]"):
        predictor.predict_torch(points[0], labels)


def test_no_points_beside_a_box_are_no_points(predictor):
    box = np.array([20, 10, 300, 200])
    alone = predictor.predict(box=box)
    empty = predictor.predict(np.zeros((0, 2)), np.zeros(0), box)
    np.testing.assert_array_equal(alone[0], empty[0])


def test_an_embedding_of_another_shape_is_refused(predictor):
    with pytest.raises(InputError, match=r"\[1, 32, 8, 8\], not \(1, 8, 8, 32\)"):
        predictor.features = np.zeros((1, 8, 8, 32))


def test_another_packages_model_is_refused(ours, theirs, pth):
    with pytest.raises(InputError, match="sam_jax.compat.sam_model_registry"):
        ours.SamPredictor(theirs.sam_model_registry["small"](checkpoint=pth))
