"""Images and prompts in the model's frame, against formulas written down here a second time."""

import math
import warnings
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sam_jax.configs import TEST, VIT_B
from sam_jax.errors import InputError
from sam_jax.models.input_frame import resized_hw
from sam_jax.preprocess import (
    ImagePrompts,
    check_prompts,
    mask_to_logits,
    prepare_image,
    resize_image,
    scale_prompts,
)
from sam_jax.types import LABEL_ABSENT

SIZE_HW = (480, 640)
MASK_SIZE = 32

sides = st.integers(1, 10_000)
sizes_hw = st.tuples(sides, sides)


def check(points=None, labels=None, boxes=None, masks=None, size_hw=SIZE_HW):
    return check_prompts(points, labels, boxes, masks, size_hw=size_hw, mask_size=MASK_SIZE)


def refused(**prompts) -> str:
    with pytest.raises(InputError) as caught:
        check(**prompts)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 300
    return message


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


# Images


@pytest.mark.parametrize(
    "size_hw, image_size, expected",
    [
        ((1200, 1800), 1024, (683, 1024)),
        ((1800, 1200), 1024, (1024, 683)),
        ((1024, 1024), 1024, (1024, 1024)),
        ((2, 3), 1024, (683, 1024)),
        ((1, 1), 1024, (1024, 1024)),
        ((10_000, 1), 1024, (1024, 1)),
        ((1, 10_000), 128, (1, 128)),
        ((3, 2048), 1024, (2, 1024)),  # 1.5 rounds up
        ((5, 2048), 1024, (3, 1024)),  # so does 2.5, unlike Python's round
    ],
)
def test_resized_sizes(size_hw, image_size, expected):
    assert resized_hw(size_hw, image_size) == expected


@given(sizes_hw, st.sampled_from([128, 512, 1024]))
def test_the_longest_side_becomes_the_image_size_and_the_aspect_is_kept(size_hw, image_size):
    new = resized_hw(size_hw, image_size)
    assert max(new) == image_size
    exact = [Fraction(side * image_size, max(size_hw)) for side in size_hw]
    assert all(side == 1 or abs(side - want) <= 0.5 for side, want in zip(new, exact, strict=True))
    assert min(new) >= 1


def triangle_resize(rows: np.ndarray, new: int) -> np.ndarray:
    """Antialiased bilinear along axis 0: a triangle as wide as the step between outputs."""
    old = rows.shape[0]
    step = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.maximum(0, 1 - abs(np.arange(old) - centres[:, None]) / step)
    weights /= weights.sum(1, keepdims=True)
    return np.tensordot(weights, rows, axes=1)


@pytest.mark.parametrize("size_hw", [(97, 61), (61, 397), (300, 301), (1, 500), (128, 40)])
def test_resizing_is_antialiased_bilinear(size_hw):
    image = noise(*size_hw)
    height, width = resized_hw(size_hw, 128)
    rows = triangle_resize(image.swapaxes(0, 1).astype(float), width).swapaxes(0, 1)
    rows = np.floor(rows + 0.5)  # Pillow goes through whole levels between the axes
    expected = triangle_resize(rows, height)
    result = resize_image(image, 128)
    assert result.dtype == np.uint8 and result.shape == (height, width, 3)
    # Half a level for the last rounding; a whole one where fixed-point weights tip the first.
    np.testing.assert_allclose(result, expected, atol=1.5)
    assert abs(result - expected).mean() < 0.3


@pytest.mark.parametrize("size_hw", [(90, 128), (128, 77), (128, 128), (1, 128)])
def test_preparing_normalises_bit_for_bit_and_then_pads_with_zeros(size_hw):
    image = noise(*size_hw)  # its longest side is the model's: nothing is resized
    before = image.copy()
    prepared = prepare_image(image, TEST)
    assert prepared.dtype == np.float32 and prepared.shape == (128, 128, 3)
    levels = np.arange(256, dtype=np.float32)
    for channel in range(3):
        mean, std = np.float32(TEST.pixel_mean[channel]), np.float32(TEST.pixel_std[channel])
        table = np.array([(level - mean) / std for level in levels], np.float32)
        expected = np.zeros((128, 128), np.float32)
        expected[: size_hw[0], : size_hw[1]] = table[image[..., channel]]
        np.testing.assert_array_equal(prepared[..., channel], expected)
    np.testing.assert_array_equal(image, before)


def test_preparing_resizes_first():
    image = noise(75, 200)
    resized = resize_image(image, 128)
    expected = np.array(Image.fromarray(image).resize((128, 48), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resized, expected)
    np.testing.assert_array_equal(prepare_image(image, TEST), prepare_image(resized, TEST))


@pytest.mark.parametrize("size_hw", [(1, 1), (10_000, 1), (1, 10_000), (2, 3)])
def test_extreme_sizes_are_prepared(size_hw):
    prepared = prepare_image(np.full((*size_hw, 3), 255, np.uint8), TEST)
    height, width = resized_hw(size_hw, 128)
    assert (prepared[:height, :width] > 2).all()
    assert not prepared[height:].any() and not prepared[:, width:].any()


# Prompts that are accepted


@pytest.mark.parametrize(
    "points, labels",
    [
        ([[1, 2], [3.5, 4]], [1, 0]),
        ([(1, 2), (3.5, 4)], (1, 0)),
        ([[[1, 2], [3.5, 4]]], [[1, 0]]),
        (np.array([[1, 2], [3.5, 4]], np.float32), np.array([True, False])),
        (np.array([[[1, 2], [3.5, 4]]], np.float16), np.array([[1.0, 0.0]])),
        (jnp.array([[1, 2], [3.5, 4]]), jnp.array([1, 0])),
        (jnp.array([[1, 2], [3.5, 4]], jnp.bfloat16), jnp.array([1, 0], jnp.int8)),
        ([jnp.array([1, 2]), np.array([3.5, 4])], [np.int64(1), 0]),
    ],
)
def test_points_are_accepted_in_every_form(points, labels):
    prompts = check(points=points, labels=labels)
    assert prompts.num_prompts == 1
    assert prompts.points.dtype == np.float64 and prompts.labels.dtype == np.int32
    np.testing.assert_array_equal(prompts.points, [[[1, 2], [3.5, 4]]])
    np.testing.assert_array_equal(prompts.labels, [[1, 0]])
    assert prompts.boxes is None and prompts.masks is None


def test_points_without_labels_are_foreground():
    np.testing.assert_array_equal(check(points=[[[1, 2]], [[3, 4]]]).labels, [[1], [1]])


@pytest.mark.parametrize("as_array", [list, np.array, jnp.array])
def test_ragged_points_are_filled_with_absent_ones(as_array):
    points = [as_array([[1, 2]]), as_array([[3, 4], [5, 6], [7, 8]]), as_array([[9, 1], [2, 3]])]
    labels = [as_array([0]), as_array([1, 0, 1]), as_array([1, 1])]
    prompts = check(points=points, labels=labels)
    absent = LABEL_ABSENT
    np.testing.assert_array_equal(prompts.labels, [[0, absent, absent], [1, 0, 1], [1, 1, absent]])
    np.testing.assert_array_equal(prompts.points[0], [[1, 2], [0, 0], [0, 0]])
    np.testing.assert_array_equal(prompts.points[2], [[9, 1], [2, 3], [0, 0]])
    np.testing.assert_array_equal(
        check(points=points).labels, np.where(prompts.labels == absent, absent, 1)
    )


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
def test_ragged_prompts_keep_every_point_and_label(lengths, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    points = [rng.uniform(0, 480, (length, 2)).tolist() for length in lengths]
    labels = [rng.integers(0, 2, length).tolist() for length in lengths]
    prompts = check(points=points, labels=labels)
    assert prompts.points.shape == (len(lengths), max(lengths), 2)
    for index, length in enumerate(lengths):
        assert prompts.points[index, :length].tolist() == points[index]
        assert prompts.labels[index].tolist() == labels[index] + [LABEL_ABSENT] * (
            max(lengths) - length
        )


def test_beside_boxes_a_prompt_may_have_no_points():
    prompts = check(points=[[], [[1, 2]]], labels=[[], [0]], boxes=[[0, 0, 5, 5], [1, 1, 9, 9]])
    np.testing.assert_array_equal(prompts.labels, [[LABEL_ABSENT], [0]])
    assert "points[0]" in refused(points=[[], [[1, 2]]])


@pytest.mark.parametrize("boxes", [[1, 2, 30, 40], [[1, 2, 30, 40]], jnp.array([1, 2, 30, 40])])
def test_boxes_are_accepted_with_and_without_the_prompt_axis(boxes):
    prompts = check(boxes=boxes)
    assert prompts.num_prompts == 1 and prompts.points is None
    np.testing.assert_array_equal(prompts.boxes, [[1, 2, 30, 40]])


def test_the_borders_belong_to_the_image():
    check(points=[[0, 0], [640, 480]], boxes=[0, 0, 640, 480])


def test_masks_are_accepted_with_and_without_the_prompt_axis():
    logits = np.random.default_rng(0).normal(size=(MASK_SIZE, MASK_SIZE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for masks in (logits, logits[None], jnp.asarray(logits), logits.tolist()):
            prompts = check(masks=masks)
            assert prompts.masks.dtype == np.float32
            np.testing.assert_allclose(prompts.masks, logits[None].astype(np.float32), rtol=1e-6)


def test_all_kinds_together_share_the_prompt_axis():
    masks = np.random.default_rng(0).normal(size=(2, MASK_SIZE, MASK_SIZE))
    boxes = [[0, 0, 5, 5], [1, 1, 9, 9]]
    prompts = check(points=[[[1, 2]], [[3, 4]]], labels=[[1], [0]], boxes=boxes, masks=masks)
    assert prompts.num_prompts == 2
    with pytest.raises(FrozenInstanceError):
        prompts.points = None


def test_what_is_given_is_not_changed_or_shared():
    masks = np.random.default_rng(0).normal(size=(1, MASK_SIZE, MASK_SIZE)).astype(np.float32)
    given_arrays = {
        "points": np.array([[[1.0, 2.0]]]),
        "labels": np.array([[1]], np.int32),
        "boxes": np.array([[0.0, 0.0, 5.0, 5.0]]),
        "masks": masks,
    }
    before = {name: array.copy() for name, array in given_arrays.items()}
    prompts = check(**given_arrays)
    for name, array in given_arrays.items():
        getattr(prompts, name)[...] = -7
        np.testing.assert_array_equal(array, before[name])


# Prompts that are refused


@pytest.mark.parametrize(
    "prompts, reason",
    [
        ({}, "give points, boxes or masks"),
        ({"labels": [1]}, "without points"),
        ({"labels": [1], "boxes": [0, 0, 5, 5]}, "without points"),
        # points
        ({"points": []}, "empty"),
        ({"points": [[]]}, "empty"),
        ({"points": np.zeros((0, 2))}, "empty"),
        ({"points": np.zeros((2, 0, 2))}, "empty"),
        ({"points": np.zeros((0, 2, 2))}, "empty"),
        ({"points": [5, 6]}, "(2,)"),
        ({"points": 5}, "shape ()"),
        ({"points": [[1, 2, 3]]}, "(1, 3)"),
        ({"points": np.ones((1, 1, 1, 2))}, "(1, 1, 1, 2)"),
        ({"points": [[[1, 2]], [[1, 2, 3], [4, 5, 6]]]}, "points[1]"),
        ({"points": [[[1, 2]], [3, [4]]]}, "points[1]"),
        ({"points": [[1, 2], [3]]}, "[N, 2]"),
        ({"points": [[-1, 2]]}, "(-1, 2)"),
        ({"points": [[1, 2], [640.5, 2]]}, "points[1] is (x, y) = (640.5, 2)"),
        ({"points": [[[1, 2]], [[1, 480.001]]]}, "points[1][0] is (x, y) = (1, 480.001)"),
        ({"points": [[500, 600]]}, "width 640 and height 480"),
        ({"points": [[1, math.nan]]}, "finite"),
        ({"points": [[-math.inf, 1]]}, "finite"),
        ({"points": [["1", "2"]]}, "numbers"),
        ({"points": "12"}, "numbers"),
        ({"points": [[None, 2]]}, "numbers"),
        ({"points": {"x": 1}}, "dict"),
        ({"points": object()}, "object"),
        ({"points": [[1j, 2]]}, "complex"),
        ({"points": [[10**400, 2]]}, "numbers"),
        ({"points": np.array([["2020-01-01"] * 2], "datetime64[D]")}, "datetime64"),
        # labels
        ({"points": [[1, 2]], "labels": [2]}, "labels[0] is 2"),
        ({"points": [[1, 2], [3, 4]], "labels": [1, -1]}, "labels[1] is -1"),
        ({"points": [[[1, 2]], [[3, 4]]], "labels": [[1], [LABEL_ABSENT]]}, "labels[1][0] is -2"),
        ({"points": [[1, 2]], "labels": [0.5]}, "0.5"),
        ({"points": [[1, 2]], "labels": jnp.full(1, 3, jnp.bfloat16)}, "labels[0] is 3"),
        ({"points": [[1, 2]], "labels": [math.nan]}, "nan"),
        ({"points": [[1, 2]], "labels": [1, 1]}, "2 labels for 1 points"),
        ({"points": [[1, 2]], "labels": []}, "0 labels for 1 points"),
        ({"points": [[1, 2]], "labels": 1}, "[N]"),
        ({"points": [[1, 2]], "labels": [[1]]}, "prompt axis"),
        ({"points": [[[1, 2]]], "labels": [1]}, "[N]"),
        ({"points": [[[1, 2]], [[3, 4]]], "labels": [[1]]}, "2 prompts"),
        ({"points": [[[1, 2]], [[3, 4], [5, 6]]], "labels": [[1], [1]]}, "labels[1]"),
        ({"points": [[1, 2]], "labels": ["foreground"]}, "numbers"),
        ({"points": [[1, 2]], "labels": [[[1]]]}, "labels must be"),
        # boxes
        ({"boxes": []}, "(0,)"),
        ({"boxes": np.zeros((0, 4))}, "empty"),
        ({"boxes": [1, 2, 3]}, "(3,)"),
        ({"boxes": [[[1, 2, 3, 4]]]}, "(1, 1, 4)"),
        ({"boxes": [[1, 2, 3, 4], [1, 2]]}, "unequal"),
        ({"boxes": [30, 2, 3, 40]}, "boxes is (30, 2, 3, 40), reversed"),
        ({"boxes": [[1, 2, 30, 40], [3, 40, 30, 2]]}, "boxes[1] is (3, 40, 30, 2), reversed"),
        ({"boxes": [3, 4, 3, 40]}, "empty"),
        ({"boxes": [-1, 2, 30, 40]}, "outside"),
        ({"boxes": [[1, 2, 30, 40], [600, 400, 641, 470]]}, "boxes[1] is (x, y) = (641, 470)"),
        ({"boxes": [700, 2, 800, 40]}, "outside"),
        ({"boxes": [0, 0, math.nan, 40]}, "finite"),
        ({"boxes": [0, 0, 5, "x"]}, "numbers"),
        # masks
        ({"masks": np.zeros((4, 4))}, "[32, 32] or [P, 32, 32] logits, not shape (4, 4)"),
        ({"masks": np.zeros(SIZE_HW, bool)}, "mask_to_logits"),
        ({"masks": np.zeros((1, 3, MASK_SIZE, MASK_SIZE))}, "choose one"),
        ({"masks": np.zeros((0, MASK_SIZE, MASK_SIZE))}, "empty"),
        ({"masks": np.full((2, MASK_SIZE, MASK_SIZE), [[[0.5]], [[np.nan]]])}, "masks[1]"),
        ({"masks": np.full((MASK_SIZE, MASK_SIZE), 1e300)}, "infinite"),
        ({"masks": [["x"] * MASK_SIZE] * MASK_SIZE}, "numbers"),
        # numbers of prompts
        ({"points": [[1, 2]], "boxes": [[0, 0, 5, 5]] * 2}, "points for 1 but boxes for 2"),
        ({"boxes": [[0, 0, 5, 5]] * 3, "masks": np.eye(MASK_SIZE) - 0.5}, "boxes for 3 but masks"),
    ],
)
def test_bad_prompts_are_refused_with_the_reason(prompts, reason):
    assert reason in refused(**prompts)


def test_lists_without_end_are_refused():
    endless: list = []
    endless.append(endless)
    twice: list = []
    twice += [twice, twice]
    deep: list = [1, 2]
    for _ in range(5000):
        deep = [deep]
    for value in (endless, twice, deep, [deep, [[1, 2]]]):
        refused(points=value)
        refused(points=[[1, 2]], labels=value)
        refused(boxes=value)
        refused(masks=value)


def test_lists_that_repeat_themselves_into_billions_of_values_are_refused():
    for width, depth in ((10, 9), (2, 40), (100_000, 2)):
        bomb: list = [1] * width
        for _ in range(depth - 1):
            bomb = [bomb] * width
        for name in ("points", "boxes", "masks"):
            assert "NumPy array" in refused(**{name: bomb})


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
@pytest.mark.parametrize("inside", [1, 255])
def test_a_picture_of_a_mask_given_as_logits_warns_once(dtype, inside):
    masks = np.zeros((2, MASK_SIZE, MASK_SIZE), dtype)
    masks[:, :5] = dtype(inside)
    with pytest.warns(UserWarning, match=r"masks\[0\].*mask_to_logits") as caught:
        prompts = check(masks=masks)
    assert len(caught) == 1
    np.testing.assert_array_equal(prompts.masks, masks.astype(np.float32))


# Scaling


@settings(max_examples=200)
@given(sizes_hw, st.integers(0, 2**32 - 1), st.sampled_from([128, 1024]))
def test_scaling_equals_the_originals_formula_bit_for_bit(size_hw, seed, image_size):
    height, width = size_hw
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1, (2, 3, 2)) * (width, height)
    corner = rng.uniform(0, 0.5, (2, 2)) * (width, height)
    boxes = np.concatenate([corner, corner + rng.uniform(0.01, 0.5, (2, 2)) * (width, height)], 1)
    scaled = scale_prompts(
        check(points=points.copy(), boxes=boxes.copy(), size_hw=size_hw),
        size_hw,
        TEST.frame.with_side(image_size),
    )
    longest = max(height, width)
    new_height = max(1, math.floor(height * (image_size * 1.0 / longest) + 0.5))
    new_width = max(1, math.floor(width * (image_size * 1.0 / longest) + 0.5))

    def x(value):
        return np.float32(value * (new_width / width))

    def y(value):
        return np.float32(value * (new_height / height))

    expected_points = [[[x(p[0]), y(p[1])] for p in prompt] for prompt in points]
    expected_boxes = [[x(b[0]), y(b[1]), x(b[2]), y(b[3])] for b in boxes]
    assert scaled.points.dtype == scaled.boxes.dtype == np.float32
    np.testing.assert_array_equal(scaled.points, np.array(expected_points, np.float32))
    np.testing.assert_array_equal(scaled.boxes, np.array(expected_boxes, np.float32))


def test_scaling_leaves_labels_masks_and_the_given_prompts_alone():
    masks = np.random.default_rng(0).normal(size=(1, MASK_SIZE, MASK_SIZE))
    prompts = check(points=[[100, 200]], boxes=[1, 2, 30, 40], masks=masks)
    before = prompts.points.copy()
    scaled = scale_prompts(prompts, SIZE_HW, TEST.frame)
    np.testing.assert_allclose(scaled.points, [[[20, 40]]])
    np.testing.assert_array_equal(prompts.points, before)
    np.testing.assert_array_equal(scaled.labels, prompts.labels)
    np.testing.assert_array_equal(scaled.masks, prompts.masks)
    only_masks = scale_prompts(check(masks=masks), SIZE_HW, TEST.frame)
    assert only_masks.points is None and only_masks.boxes is None and only_masks.num_prompts == 1
    assert ImagePrompts().num_prompts == 0


# Masks as prompts


def back_to_image(logits: np.ndarray, size_hw: tuple[int, int], image_size: int) -> np.ndarray:
    """The mask that the logits stand for: up to the model's frame, cropped, up to the image."""
    height, width = resized_hw(size_hw, image_size)
    full = Image.fromarray(logits).resize((image_size, image_size), Image.Resampling.BILINEAR)
    valid = full.crop((0, 0, width, height))
    return np.asarray(valid.resize(size_hw[::-1], Image.Resampling.BILINEAR)) > 0


def ellipse(size_hw: tuple[int, int]) -> np.ndarray:
    height, width = size_hw
    y, x = np.mgrid[:height, :width]
    offset_x, offset_y = x - 0.6 * width, y - 0.4 * height
    return (offset_x / (0.3 * width)) ** 2 + (offset_y / (0.25 * height)) ** 2 < 1


@pytest.mark.parametrize("size_hw", [(300, 500), (500, 300), (1024, 1024), (3000, 1999), (90, 61)])
def test_a_mask_survives_the_way_into_the_models_frame_and_back(size_hw):
    mask = ellipse(size_hw)
    logits = mask_to_logits(mask, VIT_B)
    assert logits.shape == (256, 256) and logits.dtype == np.float32
    assert -10 == logits.min() and logits.max() == pytest.approx(10)
    again = back_to_image(logits, size_hw, 1024)
    assert (mask & again).sum() / (mask | again).sum() > 0.985


@pytest.mark.parametrize("size_hw", [(300, 500), (500, 300), (40, 999)])
def test_padding_is_outside_the_mask(size_hw):
    logits = mask_to_logits(np.ones(size_hw, bool), VIT_B)
    height, width = resized_hw(size_hw, 1024)
    np.testing.assert_allclose(logits[: height // 4, : width // 4], 10, atol=1e-4)
    assert (logits[math.ceil(height / 4) :] == -10).all()
    assert (logits[:, math.ceil(width / 4) :] == -10).all()


def test_an_edge_between_low_resolution_pixels_is_kept_as_a_fraction():
    mask = np.zeros((1024, 1024), bool)
    mask[:, :401] = True  # 100 pixels of 4, and a quarter of the next
    row = mask_to_logits(mask, VIT_B)[7]
    np.testing.assert_allclose(row[:100], 10, atol=1e-4)
    np.testing.assert_allclose(row[100], 10 * (2 * 0.25 - 1), atol=1e-4)
    np.testing.assert_allclose(row[101:], -10, atol=1e-4)


@pytest.mark.parametrize("size_hw", [(2000, 3000), (37, 41), (4000, 60), (90_000, 99)])
def test_an_object_of_one_pixel_is_not_lost(size_hw):
    mask = np.zeros(size_hw, bool)
    y, x = size_hw[0] // 3, size_hw[1] // 2
    mask[y, x] = True
    logits = mask_to_logits(mask, VIT_B)
    assert logits.max() > 5
    scale = 256 / max(size_hw)
    row, column = np.unravel_index(logits.argmax(), logits.shape)
    assert abs(row + 0.5 - (y + 0.5) * scale) <= max(1, scale)
    assert abs(column + 0.5 - (x + 0.5) * scale) <= max(1, scale)


def test_masks_are_accepted_as_booleans_0_and_1_and_0_and_255():
    mask = ellipse((60, 90))
    expected = mask_to_logits(mask, TEST)
    assert expected.shape == (MASK_SIZE, MASK_SIZE)
    forms = (mask.astype(int), mask.astype(np.uint8) * np.uint8(255), jnp.asarray(mask))
    for form in (*forms, mask.astype(np.float32), mask.tolist()):
        np.testing.assert_array_equal(mask_to_logits(form, TEST), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(masks=expected)


def test_other_patch_sizes_have_other_mask_sizes():
    encoder = replace(TEST.image_encoder, patch_size=32)
    logits = mask_to_logits(ellipse((60, 90)), replace(TEST, image_encoder=encoder))
    assert logits.shape == (16, 16)


@pytest.mark.parametrize(
    "mask, reason",
    [
        (np.zeros((5, 6), bool), "empty"),
        (np.zeros((5, 0), bool), "shape (5, 0)"),
        (np.ones((1, 5, 6), bool), "shape (1, 5, 6)"),
        (np.full((5, 6), 0.5), "0 and 1"),
        (np.array([[0, 1, 2]]), "from 0 to 2"),
        (np.array([[-1, 1]]), "from -1"),
        (np.array([[0, np.nan]]), "nan"),
        ([[1, 0], [1]], "unequal"),
        ("mask.png", "numbers"),
        (None, "numbers"),
    ],
)
def test_other_masks_are_refused_with_the_reason(mask, reason):
    with pytest.raises(InputError) as caught:
        mask_to_logits(mask, TEST)
    assert reason in str(caught.value) and str(caught.value).isprintable()
