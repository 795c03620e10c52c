"""Samples into the frame: image and masks stay on each other, whatever is done to both."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from small_datasets import SIZES, random_masks, rectangle

from sam_jax.data.samples import NO_MASK, RecordError, Sample
from sam_jax.data.transforms import (
    FrameOptions,
    MaskPlacer,
    Placement,
    batch_of,
    draw_placement,
    framed,
    place_image,
)
from sam_jax.errors import InputError
from sam_jax.formats.rle import encode_rle, mask_to_counts
from sam_jax.models.input_frame import resized_hw
from sam_jax.preprocess import resize_image

RED, GREY = np.array([250, 10, 10]), 128


def sample_of(masks, image=None):
    size_hw = masks[0].shape
    image = np.zeros((*size_hw, 3), np.uint8) if image is None else image
    return Sample("a picture", image, size_hw, [encode_rle(mask) for mask in masks])


def made_of(sample, options, rng):
    """One image's part of a batch."""
    batch = batch_of([framed(sample, options, rng)], options)
    names = ("images", "sizes_hw", "masks", "weights")
    return {name: getattr(batch, name)[0] for name in names}


def unpacked(made):
    return np.unpackbits(made["masks"], axis=-1).astype(bool)


def nearest(mask, placement, side):
    """The mask in the frame, pixel by pixel with exact fractions."""
    frame = np.zeros((side, side), bool)
    mask = mask[:, ::-1] if placement.mirrored else mask
    (height, width), (scaled_height, scaled_width) = mask.shape, placement.scaled_hw
    half = Fraction(1, 2)
    for y in range(placement.size_hw[0]):
        for x in range(placement.size_hw[1]):
            source_y = int((y + placement.offset_yx[0] + half) * height / scaled_height)
            source_x = int((x + placement.offset_yx[1] + half) * width / scaled_width)
            frame[y, x] = mask[source_y, source_x]
    return frame


@st.composite
def placed_masks(draw):
    size_hw = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    scaled = draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    kept = tuple(draw(st.integers(1, min(side, 16))) for side in scaled)
    offset = tuple(
        draw(st.integers(0, side - part)) for side, part in zip(scaled, kept, strict=True)
    )
    mask = draw(hnp.arrays(bool, size_hw))
    return mask, Placement(scaled, offset, kept, draw(st.booleans()))


@given(placed_masks())
@settings(deadline=None, max_examples=300)
def test_a_mask_has_the_pixels_under_the_frames_pixel_centres(case):
    mask, placement = case
    expected = nearest(mask, placement, 16)
    placer = MaskPlacer(mask.shape, placement)
    ends = placer.resampled(mask_to_counts(mask))
    assert np.diff(ends)[::2].any() == expected.any()
    if expected.any():
        packed = np.zeros((16, 2), np.uint8)
        begin, part = placer.draw(ends)
        packed[: len(part), begin : begin + part.shape[1]] = part
        np.testing.assert_array_equal(packed, np.packbits(expected, axis=-1))


@pytest.mark.parametrize("size_hw", [*SIZES, (64, 64), (7, 300), (5, 9)])
def test_the_image_is_resized_as_for_inference_and_padded_with_zeros(size_hw):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    sample = sample_of([rectangle(size_hw, 0, 0, 3, 3), rectangle(size_hw, 2, 3, 7, 9)], image)
    made = made_of(sample, FrameOptions(64, max_area=1.0), rng)
    expected = resize_image(image, 64)
    height, width = made["sizes_hw"]
    assert (height, width) == expected.shape[:2]
    np.testing.assert_array_equal(made["images"][:height, :width], expected)
    assert not made["images"][height:].any() and not made["images"][:, width:].any()
    assert not unpacked(made)[:, height:].any() and not unpacked(made)[:, :, width:].any()


def test_x_and_y_are_not_exchanged():
    # Wide and low, in a picture that is twice as wide as the frame.
    mask = rectangle((60, 128), 10, 20, 20, 100)
    made = made_of(sample_of([mask]), FrameOptions(64), np.random.default_rng(0))
    assert made["sizes_hw"].tolist() == [30, 64]
    np.testing.assert_array_equal(unpacked(made)[0], rectangle((64, 64), 5, 10, 10, 50))


def test_fewer_masks_than_places_leave_these_empty():
    masks = random_masks(np.random.default_rng(0), (30, 50), 3)
    made = made_of(sample_of(masks), FrameOptions(64, max_masks=5), np.random.default_rng(0))
    assert made["weights"].tolist() == [1, 1, 1, 0, 0]
    assert unpacked(made)[:3].any(axis=(1, 2)).all() and not made["masks"][3:].any()


def test_masks_are_drawn_without_replacement_and_all_alike():
    # Each of another column, so that it is known again.
    masks = [rectangle((64, 64), 0, 4 * i, 64, 4 * i + 4) for i in range(12)]
    drawn = np.zeros(12, int)
    for seed in range(300):
        made = made_of(sample_of(masks), FrameOptions(64, 5), np.random.default_rng(seed))
        columns = unpacked(made)[:, 0].argmax(axis=1) // 4
        assert len(set(columns.tolist())) == 5
        drawn[columns] += 1
    # 125 on average; the standard deviation of a binomial with 300 draws is 8.5.
    assert (abs(drawn - 125) < 5 * 8.5).all()


def test_the_same_numbers_make_the_same_sample():
    masks = random_masks(np.random.default_rng(0), (30, 50), 9)
    image = np.random.default_rng(1).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    options = FrameOptions(64, 4, scale_range=(0.1, 2.0), flip=0.5)
    first, second, other = (
        made_of(sample_of(masks, image), options, np.random.default_rng(seed)) for seed in (7, 7, 8)
    )
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert (first["masks"] != other["masks"]).any()


def test_masks_of_nearly_everything_and_of_nothing_are_left_out():
    size_hw = (40, 50)
    nearly_all = rectangle(size_hw, 0, 0, 37, 50)  # 92.5 %
    most = rectangle(size_hw, 0, 0, 36, 50)  # 90 %
    empty = np.zeros(size_hw, bool)
    # Between the pixels that are taken when 50 columns become 16.
    lost = rectangle(size_hw, 0, 0, 40, 1)

    made = made_of(sample_of([nearly_all, most, empty]), FrameOptions(64), np.random.default_rng(0))
    assert made["weights"].sum() == 1
    np.testing.assert_array_equal(made["sizes_hw"], resized_hw(size_hw, 64))
    made = made_of(
        sample_of([nearly_all, most, empty]),
        FrameOptions(64, max_area=1.0),
        np.random.default_rng(0),
    )
    assert made["weights"].sum() == 2
    for useless in ([nearly_all], [empty], [lost], [nearly_all, empty, lost]):
        with pytest.raises(RecordError, match="a picture: no mask") as caught:
            framed(sample_of(useless), FrameOptions(16), np.random.default_rng(0))
        assert caught.value.reason == NO_MASK


def picture_of(mask):
    image = np.full((*mask.shape, 3), GREY, np.uint8)
    image[mask] = RED
    return image


def is_red(image):
    """By its nearer color: at the object's edge the two are mixed."""
    return abs(image.astype(int) - RED).sum(-1) < abs(image.astype(int) - GREY).sum(-1)


@pytest.mark.parametrize("size_hw", [(90, 140), (150, 70)])
@pytest.mark.parametrize("flip", [0.0, 1.0, 0.5])
def test_masks_follow_their_objects_through_jitter_and_flip(size_hw, flip):
    mask = rectangle(size_hw, 10, 20, 61, 52) | rectangle(size_hw, 50, 20, 61, 63)
    sample = sample_of([mask], picture_of(mask))
    options = FrameOptions(64, 1, scale_range=(0.3, 2.0), flip=flip)
    seen = set()
    for seed in range(60):
        try:
            made = made_of(sample, options, np.random.default_rng(seed))
        except RecordError as error:
            assert error.reason == NO_MASK  # the crop is beside it
            continue
        height, width = made["sizes_hw"]
        seen.add((int(height), int(width)))
        red = is_red(made["images"])
        red[height:], red[:, width:] = False, False
        # Only along the outline, by half a pixel to either side.
        assert (red != unpacked(made)[0]).sum() <= np.sqrt(red.sum()) * 2
    assert len(seen) > 10


def test_a_mirrored_sample_is_the_mirror_image():
    rng = np.random.default_rng(0)
    size_hw = (48, 64)  # nothing is resized, so it is exact
    image = rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    mask = random_masks(rng, size_hw, 1)[0]
    plain, mirrored = (
        made_of(sample_of([mask], image), FrameOptions(64, 1, flip=flip), np.random.default_rng(0))
        for flip in (0.0, 1.0)
    )
    np.testing.assert_array_equal(mirrored["images"][:48], plain["images"][:48, ::-1])
    np.testing.assert_array_equal(unpacked(mirrored), unpacked(plain)[:, :, ::-1])


def test_jitter_draws_every_scale_and_every_crop():
    options = FrameOptions(64, scale_range=(0.1, 2.0))
    drawn = [draw_placement((50, 100), options, np.random.default_rng(seed)) for seed in range(400)]
    scales = np.array([max(each.scaled_hw) for each in drawn]) / 64
    assert scales.min() < 0.15 and scales.max() > 1.95
    # Of 400 draws, uniform over 1.9; five standard deviations.
    assert abs(scales.mean() - 1.05) < 5 * 1.9 / np.sqrt(12 * 400)
    assert all(
        each.size_hw == tuple(min(side, 64) for side in each.scaled_hw)
        and all(
            0 <= offset <= scaled - part
            for offset, scaled, part in zip(
                each.offset_yx, each.scaled_hw, each.size_hw, strict=True
            )
        )
        for each in drawn
    )
    largest = [each for each in drawn if each.scaled_hw[1] > 120]
    assert len({each.offset_yx[1] for each in largest}) > 10
    assert {each.offset_yx[0] for each in drawn if each.scaled_hw[0] <= 64} == {0}


def test_a_crop_of_the_image_is_the_same_as_resizing_all_of_it_and_cutting():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8))
    whole = place_image(image, Placement((90, 128), (0, 0), (90, 128), False))
    part = place_image(image, Placement((90, 128), (13, 40), (64, 64), False))
    # Where the filter's center lies is computed from the box: it may be rounded differently.
    assert abs(part.astype(int) - whole[13:77, 40:104]).max() <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 100},
        {"image_size": 0},
        {"max_masks": 0},
        {"max_area": 0.0},
        {"max_area": 1.5},
        {"flip": 2.0},
        {"scale_range": (2.0, 0.1)},
        {"scale_range": (0.0, 1.0)},
        {"scale_range": (1.0, 100.0)},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        FrameOptions(**options)
