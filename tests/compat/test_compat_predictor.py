"""`SamPredictor`: the original's and ours on one photo, with the same file of weights."""

import numpy as np
import pytest
import torch
from same_results import assert_same

POINT = np.array([[225, 120]])
POINTS = np.array([[225.5, 120.25], [45.0, 285.5], [280.0, 99.0]])
BOX = np.array([94.7, 45.0, 347.3, 270.0])
PROMPTS = {
    "point": {"point_coords": POINT, "point_labels": np.array([1])},
    "points": {"point_coords": POINTS, "point_labels": np.array([1, 0, 1])},
    "not a point": {"point_coords": POINTS, "point_labels": np.array([1, -1, 0])},
    "points outside": {
        "point_coords": np.array([[-20.0, 310.0], [460.0, 7.0]]),
        "point_labels": np.array([1, 0]),
    },
    "box": {"box": BOX},
    "box with a prompt axis": {"box": BOX[None]},
    "box outside": {"box": np.array([-8, -3, 470, 305])},
    "box and points": {"box": BOX, "point_coords": POINTS[:2], "point_labels": np.array([1, 0])},
    "nothing": {},
}


@pytest.fixture(scope="module")
def predictors(theirs, ours, pth, chelsea):
    pair = []
    for api in (ours, theirs):
        predictor = api.SamPredictor(api.sam_model_registry["small"](checkpoint=pth))
        predictor.set_image(chelsea)
        pair.append(predictor)
    return pair


@pytest.fixture(scope="module")
def earlier_logits(predictors):
    _, _, low_res = predictors[1].predict(point_coords=POINT, point_labels=np.array([1]))
    return low_res


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("multimask_output", [True, False])
@pytest.mark.parametrize("return_logits", [False, True])
def test_prompts_give_the_originals_masks(predictors, name, multimask_output, return_logits):
    kept = {key: value.copy() for key, value in PROMPTS[name].items()}
    ours, theirs = (
        p.predict(**PROMPTS[name], multimask_output=multimask_output, return_logits=return_logits)
        for p in predictors
    )
    assert_same(ours, theirs)
    for key, value in kept.items():
        np.testing.assert_array_equal(PROMPTS[name][key], value)


@pytest.mark.parametrize("name", ["points", "box", "nothing"])
def test_an_earlier_mask_is_a_prompt(predictors, earlier_logits, name):
    mask_input = earlier_logits[1:2]
    ours, theirs = (
        p.predict(**PROMPTS[name], mask_input=mask_input, multimask_output=False)
        for p in predictors
    )
    assert_same(ours, theirs)
    without = predictors[0].predict(**PROMPTS[name], multimask_output=False)
    assert np.abs(ours[2] - without[2]).max() > 0.1  # the mask was looked at


def test_masks_are_worth_comparing(predictors):
    masks, _, _ = predictors[0].predict(**PROMPTS["points"])
    shares = masks.mean(axis=(1, 2))
    assert np.all((0.02 < shares) & (shares < 0.98))


def test_channels_may_be_in_either_order(theirs, ours, pth, chelsea):
    results = []
    for api in (ours, theirs):
        predictor = api.SamPredictor(api.sam_model_registry["small"](checkpoint=pth))
        predictor.set_image(chelsea)
        rgb = predictor.predict(**PROMPTS["box"])
        predictor.set_image(chelsea, image_format="BGR")
        swapped = predictor.predict(**PROMPTS["box"])
        predictor.set_image(chelsea[..., ::-1], "BGR")
        back = predictor.predict(**PROMPTS["box"])
        np.testing.assert_array_equal(back[2], rgb[2])
        assert np.abs(swapped[2] - rgb[2]).max() > 0.1
        results.append([rgb, swapped])
    assert_same(*results)


def prompts_in_model_frame(predictor):
    size_hw = predictor.original_size
    boxes = np.array([[20, 30, 200, 250], [100, 5, 430, 290], [-3.0, 0, 460, 300]])
    points = np.array([[[60.0, 70.0], [300, 20]], [[200, 200], [440, 100]], [[9, 9], [8, 250]]])
    return (
        predictor.transform.apply_coords(points, size_hw),
        np.array([[1, 0], [1, 1], [0, -1]]),
        predictor.transform.apply_boxes(boxes, size_hw),
    )


@pytest.mark.parametrize("coords_type", [torch.float32, torch.float64])
@pytest.mark.parametrize("labels_type", [torch.int32, torch.int64, torch.float32])
def test_tensors_give_tensors(predictors, coords_type, labels_type):
    points, labels, boxes = prompts_in_model_frame(predictors[1])
    points = torch.tensor(points, dtype=coords_type, requires_grad=True)
    labels = torch.tensor(labels, dtype=labels_type)
    # The original cannot join float64 points to anything.
    boxes = torch.tensor(boxes, dtype=torch.float32) if coords_type == torch.float32 else None
    ours, theirs = (p.predict_torch(points, labels, boxes) for p in predictors)
    assert_same(ours, theirs)


@pytest.mark.parametrize("return_logits", [False, True])
@pytest.mark.parametrize("masks", [3, 1])
def test_several_boxes_with_masks_of_their_own_or_one_for_all(
    predictors, earlier_logits, masks, return_logits
):
    _, _, boxes = prompts_in_model_frame(predictors[1])
    given = torch.tensor(boxes, dtype=torch.float32), torch.tensor(earlier_logits[:masks, None])
    ours, theirs = (
        p.predict_torch(None, None, *given, multimask_output=False, return_logits=return_logits)
        for p in predictors
    )
    assert_same(ours, theirs)


def test_arrays_give_arrays_equal_to_the_tensors(predictors):
    points, labels, boxes = prompts_in_model_frame(predictors[1])
    arrays = predictors[0].predict_torch(points, labels, boxes)
    tensors = predictors[0].predict_torch(*map(torch.tensor, (points, labels, boxes)))
    assert all(type(array) is np.ndarray for array in arrays)
    for array, tensor in zip(arrays, tensors, strict=True):
        np.testing.assert_array_equal(array, tensor.numpy())


def test_more_prompts_than_are_decoded_at_once(predictors, ours, pth, chelsea):
    predictor = ours.SamPredictor(ours.load_sam(pth, prompt_batch=4))
    predictor.set_image(chelsea)
    corners = np.sort(np.random.default_rng(0).uniform(0, 120, (5, 2, 2)), axis=1)
    boxes = torch.tensor(corners.reshape(-1, 4), dtype=torch.float32)
    assert_same(*(p.predict_torch(None, None, boxes) for p in (predictor, predictors[1])))


def test_no_boxes_give_no_masks(predictors):
    masks, iou, low_res = predictors[0].predict_torch(None, None, torch.zeros(0, 4))
    assert masks.shape == (0, 3, 300, 451) and masks.dtype == torch.bool
    assert iou.shape == (0, 3) and low_res.shape == (0, 3, 32, 32)


def test_a_scaled_image_may_be_set_as_tensor_or_array(theirs, ours, pth, coffee):
    rng = np.random.default_rng(1)
    height, width = 85, 128
    image = rng.uniform(0, 255, (1, 3, height, width)).astype(np.float32)
    results = []
    for api, given in ((ours, torch.tensor(image)), (theirs, torch.tensor(image)), (ours, image)):
        predictor = api.SamPredictor(api.sam_model_registry["small"](checkpoint=pth))
        predictor.set_torch_image(given, coffee.shape[:2])
        assert (predictor.original_size, predictor.input_size) == ((400, 600), (85, 128))
        results.append(predictor.predict(point_coords=POINT, point_labels=np.array([1])))
    assert_same(results[0], results[1])
    assert_same(results[2], results[1])


def test_the_embedding_is_the_originals(predictors):
    ours, theirs = (p.get_image_embedding() for p in predictors)
    assert type(ours) is np.ndarray
    assert_same(ours, theirs.numpy())
    assert_same(predictors[0].features, predictors[1].features.numpy())


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_an_embedding_kept_from_earlier_serves_again(predictors, ours, pth, kind):
    before = predictors[0]
    after = ours.SamPredictor(ours.sam_model_registry["small"](pth))
    after.features = kind(before.features)
    after.original_size, after.input_size = before.original_size, before.input_size
    after.is_image_set = True
    for mine, kept in zip(
        after.predict(**PROMPTS["box"]), before.predict(**PROMPTS["box"]), strict=True
    ):
        np.testing.assert_array_equal(mine, kept)


def test_attributes_are_the_originals(theirs, ours, pth, coffee):
    states = []
    for api in (ours, theirs):
        predictor = api.SamPredictor(api.sam_model_registry["small"](checkpoint=pth))
        names = ("is_image_set", "orig_h", "orig_w", "input_h", "input_w", "features")
        fresh = {name: getattr(predictor, name) for name in names}
        predictor.set_image(coffee)
        sizes = (predictor.is_image_set, predictor.original_size, predictor.input_size)
        model = predictor.model
        constants = (
            model.mask_threshold,
            model.image_format,
            model.image_encoder.img_size,
            predictor.transform.target_length,
            str(predictor.device),
            str(model.device),
        )
        predictor.reset_image()
        again = {name: getattr(predictor, name) for name in names}
        states.append([fresh, sizes, constants, again])
    assert states[0] == states[1]


def test_a_threshold_set_on_the_model_counts(theirs, ours, pth, chelsea):
    results = []
    for api in (ours, theirs):
        model = api.sam_model_registry["small"](checkpoint=pth)
        model.mask_threshold = 0.4
        predictor = api.SamPredictor(model)
        predictor.set_image(chelsea)
        results.append(predictor.predict(**PROMPTS["box"]))
    assert_same(*results)


def test_results_belong_to_the_caller(predictors):
    first = predictors[0].predict(**PROMPTS["points"])
    kept = [array.copy() for array in first]
    for array in first:
        array[...] = 0
    for again, before in zip(predictors[0].predict(**PROMPTS["points"]), kept, strict=True):
        np.testing.assert_array_equal(again, before)
