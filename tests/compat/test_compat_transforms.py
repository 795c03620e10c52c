"""`ResizeLongestSide`: to the last bit where the original computes in whole numbers."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from sam_jax.errors import InputError

SIZES_HW = [(300, 451), (451, 300), (1024, 1024), (1, 7), (683, 1025), (2, 1999), (1365, 2048)]


@pytest.fixture(params=[1024, 128])
def transforms(theirs, ours, request):
    return ours.ResizeLongestSide(request.param), theirs.ResizeLongestSide(request.param)


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_images_are_scaled_bit_for_bit(transforms, size_hw):
    rng = np.random.default_rng(size_hw)
    image = rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    side = transforms[1].target_length
    shape = transforms[1].get_preprocess_shape(*size_hw, side)
    assert transforms[0].get_preprocess_shape(*size_hw, side) == tuple(max(1, n) for n in shape)
    if min(shape):  # the original cannot make an image without rows
        ours, theirs = (transform.apply_image(image) for transform in transforms)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_grey_images_and_views_are_scaled_too(transforms):
    image = np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    for view in (image[..., 0], image[..., ::-1], image[::2, 1:]):
        ours, theirs = (transform.apply_image(view) for transform in transforms)
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("size_hw", SIZES_HW[:4])
def test_points_and_boxes_are_scaled_bit_for_bit(transforms, size_hw):
    rng = np.random.default_rng(2)
    points, boxes = rng.uniform(0, 500, (3, 5, 2)), rng.integers(0, 500, (6, 4))
    kept = points.copy(), boxes.copy()
    for name, values in (("apply_coords", points), ("apply_boxes", boxes)):
        ours, theirs = (getattr(transform, name)(values, size_hw) for transform in transforms)
        assert ours.dtype == theirs.dtype == np.float64
        np.testing.assert_array_equal(ours, theirs)
    for values, type_ in ((points, torch.float64), (boxes, torch.int64), (boxes[:0], torch.int64)):
        tensor = torch.tensor(values, dtype=type_)
        name = "apply_coords_torch" if values is points else "apply_boxes_torch"
        ours, theirs = (getattr(transform, name)(tensor, size_hw) for transform in transforms)
        assert ours.dtype == theirs.dtype == torch.float32
        assert torch.equal(ours, theirs)
        array = getattr(transforms[0], name)(values, size_hw)
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, theirs.numpy())
        np.testing.assert_array_equal(tensor.numpy(), values)
    np.testing.assert_array_equal(points, kept[0])
    np.testing.assert_array_equal(boxes, kept[1])


@pytest.mark.parametrize("size_hw", [(30, 41), (300, 177)])
def test_float_images_are_interpolated_as_pytorch_does(ours, size_hw):
    images = torch.rand(2, 3, *size_hw, generator=torch.manual_seed(0)) * 255
    transform = ours.ResizeLongestSide(128)
    new_hw = transform.get_preprocess_shape(*size_hw, 128)
    theirs = functional.interpolate(
        images, new_hw, mode="bilinear", align_corners=False, antialias=True
    )
    # Of 255, what float32 leaves; PyTorch weighs in float32, Pillow in float64.
    torch.testing.assert_close(transform.apply_image_torch(images), theirs, atol=2e-3, rtol=0)
    array = transform.apply_image_torch(images.numpy())
    np.testing.assert_array_equal(array, transform.apply_image_torch(images).numpy())


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 5, 3)), np.zeros((4, 5, 3), int), np.zeros((4, 0, 3), np.uint8), np.uint8(3)],
    ids=lambda image: f"{image.dtype}, {image.shape}",
)
def test_what_is_no_image_is_refused(ours, image):
    with pytest.raises(InputError, match="not uint8"):
        ours.ResizeLongestSide(128).apply_image(image)


def test_images_of_other_channels_and_axes_are_refused(ours):
    with pytest.raises(InputError, match="3 channels"):
        ours.ResizeLongestSide(128).apply_image(np.zeros((4, 5, 7), np.uint8))
    with pytest.raises(InputError, match="B, C, height, width"):
        ours.ResizeLongestSide(128).apply_image_torch(np.zeros((3, 4, 5), np.float32))
