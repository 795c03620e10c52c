"""A clip in training: which frames have prompts, what is minimized, and through what it learns."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.data.scenes.clips import ClipBatch, ClipOptions, clip_batch
from sam_jax.models.sam2.config import SAM2_TEST
from sam_jax.models.sam2.sam2 import Sam2
from sam_jax.train.clips.interaction import ClipInteractionOptions, plan_clip
from sam_jax.train.clips.runs import clip_loss
from tests.small_sam2 import small_variables

CLIPS = ClipOptions(image_size=128, frames=3, objects=2, passers=0, leaving=0.0)
FEW = {"correction_points": 1}


@pytest.fixture(scope="module")
def batch():
    return jax.device_get(clip_batch(jnp.uint32(0), jnp.arange(2), CLIPS))


def plans(frames, options, count=200):
    keys = jax.random.split(jax.random.key(0), count)
    draw = jax.jit(jax.vmap(lambda key: plan_clip(key, frames, options)))
    return jax.device_get(draw(keys))


def test_frames_have_the_prompts_that_sam_2_draws():
    plan = plans(8, ClipInteractionOptions())
    assert plan.starts[:, 0].all() and set(plan.starts.sum(axis=1)) == {1, 2}
    assert 0.4 < plan.from_mask.mean() < 0.6 and 0.4 < plan.from_box.mean() < 0.6
    # True masks are not corrected; elsewhere those frames are, and now and then another.
    masks, points = plan.corrected[plan.from_mask], plan.corrected[~plan.from_mask]
    assert not masks.any()
    assert (points >= plan.starts[~plan.from_mask]).all()
    assert set(points.sum(axis=1)) == {1, 2}
    for order, starts in zip(plan.order, plan.starts, strict=True):
        assert sorted(order) == list(range(8))
        first = starts.sum()
        assert starts[order[:first]].all()
        assert (np.diff(order[first:]) > 0).all()
    # The second one may be anywhere.
    second = plan.starts[plan.starts.sum(axis=1) == 2][:, 1:].sum(axis=0)
    assert (second > 0).all()


def test_a_picture_alone_never_starts_from_its_mask():
    plan = plans(1, ClipInteractionOptions(mask_probability=1.0))
    assert not plan.from_mask.any() and plan.starts.all() and plan.corrected.all()


def loss_of(options, batch, seed=0):
    model = Sam2(SAM2_TEST, differentiable=True)
    variables = small_variables()
    constants = {"constants": variables["constants"]}
    keys = jax.random.split(jax.random.key(seed), len(batch.weights))
    found = partial(clip_loss(model, options), constants=constants, batch=batch, keys=keys)
    return found, variables["params"]


@pytest.fixture(scope="module")
def from_masks(batch):
    """Gradients of clips that start from true masks: frame 0 itself teaches nothing."""
    options = ClipInteractionOptions(mask_probability=1.0, max_conditioning=1, **FEW)
    found, params = loss_of(options, batch)

    def value(params):
        summed = found(params)
        return summed.loss, summed

    (_, summed), grads = jax.jit(jax.value_and_grad(value, has_aux=True))(params)
    return jax.device_get((summed, grads))


@pytest.mark.slow
def test_gradients_reach_memories_and_pointers_through_later_frames(from_masks):
    summed, grads = from_masks
    assert np.isfinite(summed.loss) and summed.loss > 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
    for part in ("memory_encoder", "memory_attention", "image_encoder", "mask_decoder"):
        leaves = jax.tree.leaves(grads[part])
        assert np.mean([np.abs(x).max() > 0 for x in leaves]) > 0.9, part
    # What a mask goes through on its way to a pointer.
    for part in ("mask_downsample", "object_pointer_projection", "pointer_time_projection"):
        assert any(np.abs(x).max() > 0 for x in jax.tree.leaves(grads[part])), part
    assert np.abs(grads["memory_times"][[0, 1, 6]]).max() > 0
    # The first frame's answer is the true mask.
    assert summed.metrics["iou"][0] > 0.9 * summed.weight


@pytest.mark.slow
def test_objects_without_weight_change_nothing(batch, from_masks):
    options = ClipInteractionOptions(mask_probability=0.0, max_conditioning=1, **FEW)
    one = ClipBatch(batch.images[:1], batch.masks[:1], np.array([[1.0, 0.0]], np.float32))
    other = one.replace(masks=one.masks.copy())
    other.masks[:, :, 1] = 0
    model = Sam2(SAM2_TEST, differentiable=True)
    variables = small_variables()
    constants = {"constants": variables["constants"]}
    keys = jax.random.split(jax.random.key(3), 1)
    run = jax.jit(
        lambda batch: clip_loss(model, options)(variables["params"], constants, batch, keys)
    )
    first, second = jax.device_get((run(one), run(other)))
    np.testing.assert_allclose(first.loss, second.loss, rtol=1e-6)
    assert first.weight == 1
    # And an object that is nowhere has nothing but its presence to learn.
    nowhere = one.replace(masks=np.zeros_like(one.masks))
    found = jax.device_get(run(nowhere))
    assert found.metrics["focal"] == found.metrics["dice"] == found.metrics["iou_error"] == 0
    assert found.metrics["presence"] > 0
