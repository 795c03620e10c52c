"""The two-way transformer and the mask decoder against the original."""

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
import original
import pytest
import torch
from closeness import IOU_BOUND, assert_close
from prompt_cases import MIXES, case
from quick_compile import quick_jit

from sam_jax.configs import TEST
from sam_jax.models.features import ImageFeatures
from sam_jax.models.sam.sam import Sam
from sam_jax.models.two_way_transformer import TwoWayTransformer
from sam_jax.types import Prompts


def features(grid_hw, batch=2, seed=5):
    shape = (batch, *grid_hw, TEST.embed_dim)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def original_decode(model, embedding, prompts, multimask):
    """One image: the original's decoder takes no more. `prompts` as its prompt encoder does."""
    grid_hw = embedding.shape[:2]
    with original.at_grid(model, grid_hw):
        sparse, dense = model.prompt_encoder(**prompts)
        logits, iou = model.mask_decoder(
            image_embeddings=torch.from_numpy(embedding).permute(2, 0, 1)[None],
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
    return logits.numpy(), iou.numpy()


def our_decode(config, variables, embeddings, prompts, multimask=True):
    """All images at once; compiled whole, which takes less time than one operation at a time."""
    decode = partial(Sam(config).apply, multimask=multimask, method="decode")
    return quick_jit(decode)(variables, ImageFeatures(jnp.asarray(embeddings)), prompts)


def assert_same_masks(ours, expected):
    assert_close(ours[0], expected[0], what="logits")
    np.testing.assert_allclose(ours[1], expected[1], rtol=0, atol=IOU_BOUND / 10)


@pytest.mark.parametrize("grid_hw", [(8, 8), (5, 9)])
def test_the_two_way_transformer_equals_the_original(small, grid_hw):
    model, variables = small
    rng = np.random.default_rng(3)
    count = grid_hw[0] * grid_hw[1]
    image, tokens = rng.normal(size=(3, count, 32)), rng.normal(size=(3, 7, 32))
    positions = rng.normal(size=(count, 32))
    image, tokens, positions = (x.astype(np.float32) for x in (image, tokens, positions))
    ours_tokens, ours_image = quick_jit(TwoWayTransformer(TEST).apply)(
        {"params": variables["params"]["mask_decoder"]["transformer"]},
        jnp.asarray(image)[None],
        jnp.asarray(positions),
        jnp.asarray(tokens)[None],
        jnp.ones((1, 3, 7), bool),
    )

    def channels_first(x):
        return torch.from_numpy(x).transpose(-1, -2).reshape(-1, 32, *grid_hw)

    expected_tokens, expected_image = model.mask_decoder.transformer(
        channels_first(image), channels_first(positions), torch.from_numpy(tokens)
    )
    assert_close(ours_tokens[0], expected_tokens, what="tokens")
    assert_close(ours_image[0], expected_image, what="image")


@pytest.mark.parametrize("multimask", [True, False], ids=["multi", "single"])
@pytest.mark.parametrize("mix", MIXES)
def test_masks_equal_the_originals(small, mix, multimask):
    model, variables = small
    grid_hw = (7, 10)
    embedding, prompts = features(grid_hw), case(mix, grid_hw)
    logits, iou = our_decode(TEST, variables, embedding, prompts.ours(), multimask)
    assert logits.shape == (2, 3, 3 if multimask else 1, 28, 40)
    for image in range(2):
        expected = original_decode(model, embedding[image], prompts.originals(image), multimask)
        assert_same_masks((logits[image], iou[image]), expected)


def test_other_shapes_of_decoder_equal_the_original():
    config = replace(
        TEST,
        decoder_depth=3,
        decoder_num_heads=4,
        decoder_mlp_dim=48,
        attention_downsample_rate=1,
        num_multimask_outputs=4,
        iou_head_depth=2,
        iou_head_hidden_dim=24,
        mask_in_channels=8,
    )
    model = original.build(config, seed=3)
    embedding, prompts = features((8, 8), batch=1), case("mask and points", (8, 8), batch=1)
    logits, iou = our_decode(config, original.variables(model, config), embedding, prompts.ours())
    assert logits.shape[2] == 4
    expected = original_decode(model, embedding[0], prompts.originals(0), True)
    assert_same_masks((logits[0], iou[0]), expected)


def test_ragged_prompts_in_one_batch_equal_the_original_one_by_one(small):
    """Prompts of every kind side by side: absent points, boxes as corners, some with masks."""
    model, variables = small
    grid_hw = (7, 10)
    rng = np.random.default_rng(4)
    embedding = features(grid_hw, batch=1)
    points = rng.uniform(0, 110, (6, 4, 2)).astype(np.float32)
    masks = rng.normal(scale=5, size=(6, 28, 40)).astype(np.float32)
    labels = np.array(
        [
            [1, -2, -2, -2],
            [1, 0, 1, 0],
            [2, 3, -2, -2],
            [1, 2, 3, -2],
            [-2, -2, -2, -2],
            [-2, 0, -1, -2],
        ],
        np.int32,
    )
    with_mask = np.array([False, True, False, True, True, False])
    fields = points, labels, None, masks, with_mask
    prompts = Prompts(*(None if x is None else jnp.asarray(x)[None] for x in fields))
    ours = our_decode(TEST, variables, embedding, prompts)
    for i in range(6):
        point, corner = (labels[i] < 2) & (labels[i] != -2), labels[i] > 1
        one = {"points": None, "boxes": None, "masks": None}
        if point.any():
            one["points"] = tuple(torch.from_numpy(x[i, point])[None] for x in (points, labels))
        if corner.any():
            one["boxes"] = torch.from_numpy(points[i, corner].reshape(1, 4))
        if with_mask[i]:
            one["masks"] = torch.from_numpy(masks[i])[None, None]
        expected = original_decode(model, embedding[0], one, True)
        assert_same_masks((ours[0][0, i : i + 1], ours[1][0, i : i + 1]), expected)
