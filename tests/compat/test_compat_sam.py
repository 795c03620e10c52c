"""The model object: called on batches, and what it does alone."""

import numpy as np
import pytest
import torch
from same_results import assert_same

from sam_jax.errors import InputError


@pytest.fixture(scope="module")
def models(theirs, ours, pth):
    return [api.sam_model_registry["small"](checkpoint=pth) for api in (ours, theirs)]


def records(kind):
    """Three images of different sizes and kinds of prompts, scaled for a side of 128."""
    rng = np.random.default_rng(3)

    def image(height, width):
        return kind(rng.integers(0, 256, (3, height, width), dtype=np.uint8))

    def floats(values):
        return kind(np.array(values, np.float32))

    return [
        {
            "image": image(85, 128),
            "original_size": (400, 600),
            "boxes": floats([[4, 5, 60, 70], [20.5, 9, 127, 85]]),
        },
        {
            "image": image(128, 101),
            "original_size": (333, 263),
            "point_coords": floats([[[30, 30]], [[99, 120]], [[5, 64]]]),
            "point_labels": kind(np.array([[1], [0], [1]])),
        },
        {
            "image": image(128, 3),
            "original_size": (301, 7),
            "boxes": floats([[0, 0, 2, 100]]),
            "point_coords": floats([[[1, 30], [2, 60]]]),
            "point_labels": kind(np.array([[1, 0]])),
            "mask_inputs": floats(rng.normal(size=(1, 1, 32, 32))),
        },
    ]


@pytest.mark.parametrize("multimask_output", [True, False])
def test_a_batch_of_images_gives_the_originals_masks(models, multimask_output):
    ours, theirs = (model(records(torch.tensor), multimask_output) for model in models)
    assert_same(ours, theirs)
    arrays = models[0](records(np.array), multimask_output=multimask_output)
    for array_record, record in zip(arrays, ours, strict=True):
        assert list(array_record) == list(record)
        for key, array in array_record.items():
            assert type(array) is np.ndarray
            np.testing.assert_array_equal(array, record[key].numpy())


def test_before_and_after_the_model(models):
    rng = np.random.default_rng(4)
    image = torch.tensor(rng.uniform(0, 255, (2, 3, 77, 128)), dtype=torch.float32)
    ours, theirs = (model.preprocess(image) for model in models)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(models[0].preprocess(image[0]), theirs[0])
    logits = torch.tensor(rng.normal(size=(2, 3, 32, 32)), dtype=torch.float32)
    ours, theirs = (model.postprocess_masks(logits, (77, 128), (201, 334)) for model in models)
    torch.testing.assert_close(ours, theirs)
    array = models[0].postprocess_masks(logits.numpy(), (77, 128), (201, 334))
    assert type(array) is np.ndarray


def test_calls_that_move_a_model_give_the_model(models):
    model = models[0]
    assert model.to(device="cpu").eval().cpu().requires_grad_(False).to(torch.float32) is model
    assert model.cuda().device == "cuda" and model.cuda(1).device == "cuda:1"
    device = torch.device("cpu")
    assert model.to(device).device is device
    # Whatever it says serves to place the caller's tensors.
    assert torch.zeros(1, device=model.to("cpu").device).device == device


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_another_type_is_refused_and_says_where_it_is_chosen(models, dtype):
    for call in (lambda: models[0].to(dtype), lambda: models[0].to("cpu", dtype)):
        with pytest.raises(InputError, match=r'dtype="bfloat16"'):
            call()


def test_gradients_are_refused(models):
    with pytest.raises(InputError, match="no gradients"):
        models[0].requires_grad_(True)


@pytest.mark.parametrize("shape", [(3, 129, 20), (1, 128, 128), (3, 0, 128), (1, 3, 128, 128)])
def test_an_image_that_is_not_scaled_is_refused(models, shape):
    record = {"image": np.zeros(shape, np.float32), "original_size": (9, 9)}
    with pytest.raises(InputError, match=r"ResizeLongestSide\(128\)"):
        models[0]([record], True)
