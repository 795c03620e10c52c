"""The model object: called on batches, and what it does alone."""

from operator import attrgetter

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


def test_a_batch_of_images_gives_the_originals_masks(models):
    ours, theirs = (model(records(torch.tensor), True) for model in models)
    assert_same(ours, theirs)
    arrays = models[0](records(np.array), multimask_output=True)
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


def test_pixel_statistics_are_the_originals_and_count(models):
    image = np.random.default_rng(5).uniform(0, 255, (3, 77, 128)).astype(np.float32)
    for name in ("pixel_mean", "pixel_std"):
        ours, theirs = (getattr(model, name) for model in models)
        assert type(ours) is np.ndarray and ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs.numpy(), strict=True)
    ours = models[0]
    before = ours.preprocess(image)
    kept = ours.pixel_mean
    for kind in (np.array, torch.tensor):
        ours.pixel_mean = kind(kept + 50)
        np.testing.assert_allclose(ours.preprocess(image + 50), before, atol=1e-5)
    ours.pixel_mean = kept


def test_forward_is_what_a_call_does(models):
    given = records(torch.tensor)
    assert_same(models[0].forward(given, multimask_output=True), models[0](given, True))


def test_the_image_encoder_can_be_called(models):
    images = torch.rand(2, 3, 128, 128, generator=torch.manual_seed(0))
    ours, theirs = (model.image_encoder(images) for model in models)
    assert_same(ours, theirs.detach())
    array = models[0].image_encoder(images.numpy())
    assert type(array) is np.ndarray
    np.testing.assert_array_equal(array, ours.numpy())
    for wrong in (images[0], images[:, :2], images[..., :64], images[:0]):
        with pytest.raises(InputError, match="128, 128"):
            models[0].image_encoder(wrong)


@pytest.mark.parametrize(
    "name",
    [
        "image_encoder.img_size",
        "prompt_encoder.embed_dim",
        "prompt_encoder.image_embedding_size",
        "prompt_encoder.input_image_size",
        "prompt_encoder.mask_input_size",
        "mask_decoder.transformer_dim",
        "mask_decoder.num_multimask_outputs",
        "mask_decoder.num_mask_tokens",
        "training",
    ],
)
def test_sizes_are_the_originals(models, name):
    ours, theirs = (attrgetter(name)(model) for model in models)
    assert ours == theirs


@pytest.mark.parametrize("part", ["prompt_encoder", "mask_decoder"])
def test_parts_that_cannot_be_called_say_what_can(models, part):
    with pytest.raises(InputError, match="predict_torch"):
        getattr(models[0], part)(points=None, boxes=torch.zeros(1, 4), masks=None)


def test_parameters_are_as_many_as_the_originals(models):
    ours, theirs = (list(model.parameters()) for model in models)
    assert all(type(p) is np.ndarray for p in ours)
    assert sum(p.size for p in ours) == sum(p.numel() for p in theirs)
    assert torch.zeros(1).to(next(models[0].parameters()).device).device.type == "cpu"


def test_the_state_dict_is_the_originals(models, theirs, pth):
    ours, expected = (model.state_dict() for model in models)
    assert ours.keys() == expected.keys()
    for name, array in ours.items():
        assert type(array) is np.ndarray and array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[name].numpy(), err_msg=name)
    tensors = {name: torch.tensor(array) for name, array in ours.items()}
    theirs.sam_model_registry["small"](checkpoint=pth).load_state_dict(tensors)


def test_calls_that_move_a_model_give_the_model(models):
    model = models[0]
    moved = model.to(device="cpu", non_blocking=True).eval().train(False).cpu().float()
    assert moved.requires_grad_(False).to(torch.float32) is model
    assert model.cuda().device == "cuda" and model.cuda(1).device == model.to(1).device == "cuda:1"
    assert model.cuda(torch.device("cuda:1")).device == torch.device("cuda:1")
    device = torch.device("cpu")
    assert model.to(device).device is device


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1", "mps", "xla:3"])
def test_a_device_is_a_string_with_a_torch_devices_parts(models, name):
    device, expected = models[0].to(name).device, torch.device(name)
    assert device == name and str(device) == str(expected)
    assert (device.type, device.index) == (expected.type, expected.index)
    assert torch.device(device) == expected
    models[0].to("cpu")


def test_a_device_places_the_callers_tensors(models):
    device = models[0].to("cpu").device
    assert not isinstance(device, torch.device)
    cpu = torch.device("cpu")
    assert torch.as_tensor(np.zeros(1), device=device).device == cpu
    assert torch.zeros(1).to(device).to(device=device).device == cpu
    assert torch.nn.Linear(1, 1).to(device).weight.device == cpu
    with torch.autocast(device.type):
        assert torch.zeros(1, device=device).device == cpu


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_another_type_is_refused_and_says_where_it_is_chosen(models, dtype):
    for call in (lambda: models[0].to(dtype), lambda: models[0].to("cpu", dtype)):
        with pytest.raises(InputError, match=r'dtype="bfloat16"'):
            call()


@pytest.mark.parametrize("name", ["half", "bfloat16", "double"])
def test_a_method_for_another_type_is_refused_likewise(models, name):
    with pytest.raises(InputError, match=r'dtype="bfloat16"'):
        getattr(models[0], name)()


def test_the_type_that_a_model_was_built_with_is_no_change(ours, pth):
    model = ours.load_sam(pth, dtype="bfloat16")
    assert model.bfloat16() is model.to(torch.bfloat16) is model.float() is model
    with pytest.raises(InputError, match="float16"):
        model.half()


def test_training_is_refused(models):
    for call in (models[0].train, models[0].requires_grad_, lambda: models[0].requires_grad_(True)):
        with pytest.raises(InputError, match="sam_jax.Sam with jax.grad"):
            call()


def test_what_else_a_module_has_is_said_to_be_missing(models):
    assert not hasattr(models[0], "load_state_dict")
    with pytest.raises(AttributeError, match="'named_parameters'.*sam.segmenter.params"):
        models[0].named_parameters()


@pytest.mark.parametrize("shape", [(3, 129, 20), (1, 128, 128), (3, 0, 128), (1, 3, 128, 128)])
def test_an_image_that_is_not_scaled_is_refused(models, shape):
    record = {"image": np.zeros(shape, np.float32), "original_size": (9, 9)}
    with pytest.raises(InputError, match=r"ResizeLongestSide\(128\)"):
        models[0]([record], True)
