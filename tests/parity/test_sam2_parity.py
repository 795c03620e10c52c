"""SAM 2's parts equal the original's, stage by stage, with the same weights."""

from dataclasses import replace

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

import jax.numpy as jnp  # noqa: E402

from sam_jax.models.sam2.config import (  # noqa: E402
    SAM2_1_BASE_PLUS,
    SAM2_1_LARGE,
    SAM2_1_SMALL,
    SAM2_1_TINY,
    SAM2_TEST,
    SAM2_TINY,
)
from sam_jax.models.sam2.mask_selection import select  # noqa: E402
from sam_jax.models.sam2.sam2 import Sam2  # noqa: E402
from sam_jax.models.sam2.values import Memories  # noqa: E402
from sam_jax.ops.dense_attention import memory_attention  # noqa: E402
from sam_jax.types import Prompts  # noqa: E402
from tests.parity import original_sam2  # noqa: E402

# DESIGN's bound: the largest error over the reference's standard deviation, in float32.
BOUND = 2e-4
TEST_2_0 = replace(SAM2_TEST, occlusion_embedding=False, pointer_times=False)


class Pair:
    """The original and ours with one set of weights."""

    def __init__(self, config, seed=0, absent_below=0.0):
        self.config = config
        self.original = original_sam2.build(config, seed)
        self.original.sam_mask_decoder.pred_obj_score_head.layers[2].bias -= absent_below
        self.variables = original_sam2.variables(self.original, config)
        self.model = Sam2(config)

    def ours(self, method, *args):
        """One of our methods, compiled, in full precision."""
        run = jax.jit(lambda v, *a: self.model.apply(v, *a, method=method))
        with jax.default_matmul_precision("highest"):
            return jax.device_get(run(self.variables, *args))

    def image(self, size_hw=None):
        """A picture with structure at all scales."""
        size_hw = size_hw or (self.config.image_size,) * 2
        rng = np.random.default_rng(3)
        coarse = rng.standard_normal((1, 8, 8, 3)).astype(np.float32)
        image = jax.image.resize(coarse, (1, *size_hw, 3), "linear")
        return np.asarray(image + 0.2 * rng.standard_normal((1, *size_hw, 3)), np.float32)


@pytest.fixture(scope="module")
def pair():
    return Pair(SAM2_TEST)


def to_torch(x):
    return torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2)


def from_torch(x):
    return x.permute(0, 2, 3, 1).numpy()


def compare_encoders(pair, image):
    features = pair.ours("encode_image", image)
    fine = pair.original.forward_image(to_torch(image))["backbone_fpn"]
    ours = (*reversed(features.finer), features.embedding)
    for stride, one, theirs in zip((4, 8, 16), ours, fine, strict=True):
        error = original_sam2.relative_error(one, from_torch(theirs))
        assert error < BOUND, (stride, error)
    return features, fine


# The original takes sizes that its first window divides.
@pytest.mark.parametrize("size_hw", [(128, 128), (96, 160), (224, 64)])
def test_image_encoder_equals_the_original(pair, size_hw):
    compare_encoders(pair, pair.image(size_hw))


def prompts_for(config, count):
    rng = np.random.default_rng(5)
    size = config.image_size
    points = rng.uniform(0, size, (count, 3, 2)).astype(np.float32)
    labels = rng.integers(0, 2, (count, 3)).astype(np.int32)
    corners = np.sort(rng.uniform(0, size, (count, 2, 2)).astype(np.float32), axis=1)
    side = config.mask_input_size
    masks = 8 * rng.standard_normal((count, side, side)).astype(np.float32)
    return points, labels, corners, masks


def original_decoder(pair, fine, points, labels, masks):
    """All masks, as the original's decoder has them before it chooses."""
    original = pair.original
    count = len(points)
    sparse, dense = original.sam_prompt_encoder(
        points=(torch.from_numpy(points), torch.from_numpy(labels)),
        boxes=None,
        masks=None if masks is None else torch.from_numpy(masks)[:, None],
    )
    embedding = fine[2] + original.no_mem_embed.reshape(1, -1, 1, 1)
    return original.sam_mask_decoder.predict_masks(
        image_embeddings=embedding.repeat(count, 1, 1, 1),
        image_pe=original.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=[x.repeat(count, 1, 1, 1) for x in fine[:2]],
    )


@pytest.mark.parametrize("kind", ["point", "points", "box", "box and points", "mask", "all"])
def test_decoder_equals_the_original(pair, kind):
    features, fine = compare_encoders(pair, pair.image())
    points, labels, corners, masks = prompts_for(pair.config, 2)
    if kind == "point":
        points, labels = points[:, :1], labels[:, :1]
    given = Prompts(points=points[None], labels=labels[None])
    theirs = points, labels
    if kind == "mask":
        theirs = np.zeros((2, 1, 2), np.float32), -np.ones((2, 1), np.int32)
        given = Prompts(points=theirs[0][None], labels=theirs[1][None])
    if "box" in kind or kind == "all":
        box_labels = np.tile(np.array([2, 3], np.int32), (2, 1))
        if kind == "box":
            points, labels = points[:, :0], labels[:, :0]
        given = Prompts(
            points=points[None] if kind != "box" else None,
            labels=labels[None] if kind != "box" else None,
            boxes=corners.reshape(1, 2, 4),
        )
        theirs = np.concatenate([corners, points], 1), np.concatenate([box_labels, labels], 1)
    if kind in ("mask", "all"):
        given = given.replace(masks=masks[None])
    embedding = pair.ours("without_memory", features.embedding)
    ours = pair.ours("decode_all", embedding, features, given)
    mask = masks if kind in ("mask", "all") else None
    logits, iou, tokens, score = original_decoder(pair, fine, *theirs, mask)
    assert original_sam2.relative_error(ours.logits[0], logits) < BOUND
    assert original_sam2.relative_error(ours.tokens[0], tokens) < BOUND
    np.testing.assert_allclose(ours.iou[0], iou, atol=1e-4)
    np.testing.assert_allclose(ours.object_score[0], score[:, 0], atol=2e-4)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("multimask", [False, True])
def test_selection_equals_the_original(dynamic, multimask):
    pair = Pair(SAM2_TEST, absent_below=0.84)
    features, fine = compare_encoders(pair, pair.image())
    points, labels, *_ = prompts_for(pair.config, 16)
    embedding = pair.ours("without_memory", features.embedding)
    decoded = pair.ours("decode_all", embedding, features, Prompts(points[None], labels[None]))
    decoded = jax.tree.map(jnp.asarray, decoded)
    decoder = pair.original.sam_mask_decoder
    decoder.dynamic_multimask_via_stability = dynamic
    inputs = {"point_coords": torch.from_numpy(points), "point_labels": torch.from_numpy(labels)}
    theirs = pair.original._forward_sam_heads(
        backbone_features=(fine[2] + pair.original.no_mem_embed.reshape(1, -1, 1, 1)).repeat(
            16, 1, 1, 1
        ),
        point_inputs=inputs,
        high_res_features=[x.repeat(16, 1, 1, 1) for x in fine[:2]],
        multimask_output=multimask,
    )
    decoder.dynamic_multimask_via_stability = False
    chosen = select(decoded, jnp.full((1, 16), multimask), dynamic)
    # Some objects are there and some are not, or this would test half of it.
    assert 0 < (np.asarray(chosen.object_score) > 0).sum() < 16
    np.testing.assert_allclose(chosen.logits[0], theirs[3][:, 0], atol=5e-3, rtol=1e-4)
    pointer = pair.ours("object_pointer", chosen.token, chosen.object_score > 0)
    assert original_sam2.relative_error(pointer[0], theirs[5]) < BOUND


@pytest.mark.parametrize("config", [SAM2_TEST, TEST_2_0], ids=["2.1", "2.0"])
def test_memory_encoder_equals_the_original(config):
    pair = Pair(config)
    features, fine = compare_encoders(pair, pair.image())
    rng = np.random.default_rng(1)
    logits = 5 * rng.standard_normal((2, config.image_size, config.image_size)).astype(np.float32)
    score = np.array([[1.5], [-2.0]], np.float32)
    theirs, positions = pair.original._encode_new_memory(
        current_vision_feats=[fine[2].repeat(2, 1, 1, 1).flatten(2).permute(2, 0, 1)],
        feat_sizes=[fine[2].shape[-2:]],
        pred_masks_high_res=torch.from_numpy(logits)[:, None],
        object_score_logits=torch.from_numpy(score),
        is_mask_from_pts=False,
    )
    ours = pair.ours("encode_memory", features.embedding, jax.nn.sigmoid(logits), score[:, 0] > 0)
    assert original_sam2.relative_error(ours, from_torch(theirs)) < BOUND
    from sam_jax.models.sam2.positions import grid_positions

    grid = (config.grid_size,) * 2
    np.testing.assert_allclose(
        grid_positions(grid, config.memory_dim), from_torch(positions[0])[0], atol=2e-6
    )


def test_memory_attention_equals_the_original(pair):
    config = pair.config
    rng = np.random.default_rng(2)
    dim, memory_dim, side = config.embed_dim, config.memory_dim, config.grid_size
    embedding = rng.standard_normal((side, side, dim)).astype(np.float32)
    frames, tokens = 3, 8
    features = rng.standard_normal((2, 4, side, side, memory_dim)).astype(np.float32)
    times = 0.3 * rng.standard_normal((2, 4, memory_dim)).astype(np.float32)
    pointers, when = rng.standard_normal((2, 2, 12, memory_dim)).astype(np.float32)
    # What is absent lies between what is there, and holds values that would be noticed.
    present = np.array([True, False, True, True])
    pointer_present = np.arange(12) % 3 > 0
    memories = Memories(
        features,
        times,
        np.tile(present, (2, 1)),
        pointers,
        when,
        np.tile(pointer_present, (2, 1)),
    )
    ours = pair.ours("with_memories", embedding, memories)

    positions = pair.original.image_encoder.neck.position_encoding
    current = torch.from_numpy(embedding).permute(2, 0, 1)[None]
    memory_positions = from_torch(
        pair.original.memory_encoder.position_encoding(torch.zeros(1, memory_dim, side, side))
    )
    memory = features[:, present].reshape(2, -1, memory_dim)
    where = memory_positions + times[:, present][:, :, None, None]
    memory = np.concatenate([memory, pointers[:, pointer_present]], axis=1)
    where = np.concatenate([where.reshape(2, -1, memory_dim), when[:, pointer_present]], axis=1)
    assert memory.shape[1] == frames * side**2 + tokens

    def seq_first(x):
        return torch.from_numpy(np.ascontiguousarray(x)).permute(1, 0, 2)

    theirs = pair.original.memory_attention(
        curr=[current.repeat(2, 1, 1, 1).flatten(2).permute(2, 0, 1)],
        curr_pos=[positions(current).repeat(2, 1, 1, 1).flatten(2).permute(2, 0, 1)],
        memory=seq_first(memory),
        memory_pos=seq_first(where),
        num_obj_ptr_tokens=tokens,
    )
    theirs = theirs.permute(1, 0, 2).reshape(ours.shape)
    assert original_sam2.relative_error(ours, theirs) < BOUND


def test_both_versions_of_memory_attention_are_one_function():
    keys = jax.random.split(jax.random.key(0), 5)
    query, frames, values = (
        jax.random.normal(keys[0], (700, 16)),
        jax.random.normal(keys[1], (5, 90, 16)),
        jax.random.normal(keys[2], (5, 90, 8)),
    )
    extra_key = jax.random.normal(keys[3], (7, 16))
    extra_value = jax.random.normal(keys[4], (7, 8))
    for present in ([1, 0, 1, 1, 0], [0] * 5, [1] * 5):
        for extra in ([1, 0, 0, 1, 1, 1, 0], [1] * 7):
            args = (query, (frames, values), lambda frame: frame, jnp.array(present, bool))
            args += (extra_key, extra_value, jnp.array(extra, bool))
            fast = memory_attention(*args)
            reference = memory_attention(*args, differentiable=True)
            np.testing.assert_allclose(fast, reference, atol=2e-5)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(SAM2_1_TINY, marks=pytest.mark.slow),
        *(
            pytest.param(config, marks=pytest.mark.exhaustive)
            for config in (SAM2_TINY, SAM2_1_SMALL, SAM2_1_BASE_PLUS, SAM2_1_LARGE)
        ),
    ],
    ids=lambda config: config.name,
)
def test_full_size_models_equal_the_original(config):
    pair = Pair(config)
    features, fine = compare_encoders(pair, pair.image())
    points, labels, *_ = prompts_for(config, 1)
    embedding = pair.ours("without_memory", features.embedding)
    ours = pair.ours("decode_all", embedding, features, Prompts(points[None], labels[None]))
    logits, iou, *_ = original_decoder(pair, fine, points, labels, None)
    assert original_sam2.relative_error(ours.logits[0], logits) < BOUND
    np.testing.assert_allclose(ours.iou[0], iou, atol=1e-4)
