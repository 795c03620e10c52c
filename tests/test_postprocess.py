import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from sam_jax import postprocess
from sam_jax.errors import InputError
from sam_jax.postprocess import MaskPrediction, mask_matrices, upscale_logits
from sam_jax.preprocess import resized_hw

# (image size, side of the model's input)
SIZES = [
    ((1200, 1800), 1024),
    ((1800, 1200), 1024),
    ((333, 501), 1024),
    ((97, 61), 128),
    ((1, 1), 128),
    ((3, 700), 128),
    ((2000, 3), 128),
    ((128, 128), 128),
    ((64, 1024), 1024),
]


def original_postprocess(logits, size_hw, image_size):
    """The two steps as the original takes them, in PyTorch."""
    valid_h, valid_w = resized_hw(size_hw, image_size)
    masks = functional.interpolate(
        torch.from_numpy(logits), (image_size, image_size), mode="bilinear", align_corners=False
    )
    masks = masks[..., :valid_h, :valid_w]
    return functional.interpolate(masks, size_hw, mode="bilinear", align_corners=False).numpy()


def random_logits(side, shape=(1, 2)):
    return np.random.default_rng(0).normal(size=(*shape, side, side)).astype(np.float32)


@pytest.mark.parametrize("size_hw, image_size", SIZES)
def test_one_matrix_an_axis_equals_the_originals_two_steps(size_hw, image_size):
    logits = random_logits(image_size // 4)
    rows, columns = mask_matrices(size_hw, image_size, image_size // 4)
    ours = upscale_logits(logits, rows, columns)
    # float32 weights of at most four taps, accumulated in another order, plus PyTorch's float32
    # sampling positions, which are off by 1e-7 of an axis of up to 2,000 pixels.
    np.testing.assert_allclose(ours, original_postprocess(logits, size_hw, image_size), atol=2e-3)
    assert np.mean((ours > 0) != (original_postprocess(logits, size_hw, image_size) > 0)) <= 1e-4


def test_the_same_function_serves_jax_arrays():
    rows, columns = mask_matrices((40, 70), 128, 32)
    logits = random_logits(32)
    ours = upscale_logits(jnp.asarray(logits), jnp.asarray(rows), jnp.asarray(columns))
    np.testing.assert_allclose(ours, upscale_logits(logits, rows, columns), atol=1e-5)


def prediction(size_hw=(97, 61), threshold=0.0, shape=(3, 2)):
    scores = np.random.default_rng(1).uniform(size=shape).astype(np.float32)
    return MaskPrediction(scores, random_logits(32, shape), size_hw, 128, threshold)


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_masks_are_full_size_logits_above_the_threshold(threshold):
    result = prediction(threshold=threshold)
    expected = original_postprocess(result.logits, (97, 61), 128) > threshold
    assert result.masks.shape == (3, 2, 97, 61) and result.masks.dtype == bool
    assert np.mean(result.masks != expected) <= 1e-4


def test_blocks_of_rows_change_no_mask(monkeypatch):
    whole = prediction().masks
    monkeypatch.setattr(postprocess, "BLOCK_PIXELS", 61 * 7)
    np.testing.assert_array_equal(prediction().masks, whole)
    monkeypatch.setattr(postprocess, "BLOCK_PIXELS", 1)
    np.testing.assert_array_equal(prediction().masks, whole)


def test_one_mask_alone_equals_its_place_among_all():
    result = prediction()
    np.testing.assert_array_equal(result.mask(2, 1), result.masks[2, 1])


def test_best_names_the_highest_score_of_every_prompt():
    result = prediction()
    assert list(result.best()) == [(p, int(np.argmax(result.scores[p]))) for p in range(3)]


def test_masks_that_would_fill_the_memory_are_refused_with_another_way(monkeypatch):
    monkeypatch.setattr(postprocess, "MAX_MASK_BYTES", 97 * 61)
    result = prediction()
    with pytest.raises(InputError, match=r"\.mask\(prompt, index\)"):
        _ = result.masks
    assert result.mask(0, 0).shape == (97, 61)
