"""Whole clips through both video predictors: the same weights, frames and prompts."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

from sam_jax.models.sam2.config import SAM2_TEST  # noqa: E402
from sam_jax.video.tracker import Tracker  # noqa: E402
from tests.parity import original_sam2, original_video  # noqa: E402

TEST_2_0 = replace(SAM2_TEST, name="2.0", occlusion_embedding=False, pointer_times=False)
# Errors do not grow from frame to frame: the same bound holds for the last as for the first.
BOUND = 2e-4
# The original keeps memories as bfloat16. What differs by float32's rounding may be rounded to
# neighboring values, which differ by 2^-8, and all later frames look at them.
BFLOAT16_BOUND = 5e-2


def agree(ours, theirs, bound):
    """One frame's masks: logits within the bound, overlap of at least 0.99."""
    full = ours.full_logits()
    assert full.shape == theirs.shape
    for one, other in zip(full, theirs, strict=True):
        # Absent objects are a constant in both.
        scale = max(float(other.std()), 1.0)
        assert np.abs(one - other).max() / scale < bound, ours.frame_index
        a, b = one > 0, other > 0
        union = (a | b).sum()
        assert union == 0 or (a & b).sum() / union >= 0.99, ours.frame_index


def float32_memories(monkeypatch):
    """The original without its rounding of memories, which hides whether errors grow."""
    monkeypatch.setattr(torch, "bfloat16", torch.float32)


@pytest.fixture
def pair(monkeypatch):
    def make(config, frames, recent, memory_dtype=jnp.float32, presence=PRESENCE, **options):
        if memory_dtype == jnp.float32:
            float32_memories(monkeypatch)
        model = original_sam2.build(
            config,
            seed=1,
            add_all_frames_to_correct_as_cond=True,
            **original_sam2.POSTPROCESSING,
            **options,
        )
        # So that objects are there at one time and not at another.
        model.sam_mask_decoder.pred_obj_score_head.layers[2].bias += presence
        variables = original_sam2.variables(model, config)
        tracker = Tracker(
            config,
            variables,
            memory_dtype=memory_dtype,
            recent_frames=recent,
            fill_hole_area=options.get("fill_hole_area", 0),
        )
        theirs = original_video.original_state(model, frames, config, monkeypatch)
        ours = tracker.start(frames[0].shape[:2], num_frames=len(frames))
        return model, theirs, tracker, ours

    with jax.default_matmul_precision("highest"):
        yield make


PRESENCE = -0.345


def whole_clip(pair, config, count, bound, **options):
    frames = original_video.clip(count, 70, 94)
    height, width = frames[0].shape[:2]
    late, corrected = count // 4, count // 2
    model, theirs, tracker, ours = pair(config, frames, recent=count, **options)

    def compare(start, steps, backward=False):
        nonlocal ours
        expected = original_video.original_masks(model, theirs, start, steps, backward)
        seen = []
        for index, logits in expected.items():
            ours, found = tracker.step(ours, frames[index], backward=backward, frame_index=index)
            agree(found, logits, bound)
            seen.append(found.object_scores)
        return seen

    point = np.array([[0.2 * width, 0.3 * height]], np.float32)
    model.add_new_points_or_box(theirs, 0, "disc", points=point, labels=[1])
    ours = tracker.prompt(ours, frames[0], "disc", points=point)
    box = np.array([0.55 * width, 0.45 * height, 0.85 * width, 0.75 * height], np.float32)
    model.add_new_points_or_box(theirs, 0, "box", box=box)
    ours = tracker.prompt(ours, frames[0], "box", box=box)
    scores = compare(0, late - 1)

    mask = np.zeros((height, width), bool)
    mask[height // 2 :, width // 3 : 2 * width // 3] = True
    model.add_new_mask(theirs, late, "late", mask)
    ours = tracker.prompt(ours, frames[late], "late", mask=mask)
    scores += compare(late, corrected - late)

    clicks = np.array([[0.4 * width, 0.35 * height], [0.9 * width, 0.1 * height]], np.float32)
    model.add_new_points_or_box(theirs, corrected, "disc", points=clicks, labels=[1, 0])
    ours = tracker.prompt(
        ours, frames[corrected], "disc", points=clicks, labels=[1, 0], frame_index=corrected
    )
    scores += compare(corrected, count)
    scores += compare(corrected, count, backward=True)
    everything = np.concatenate(scores)
    # Objects are there in some frames and not in others, or this would test half of it.
    assert 0 < (everything > 0).mean() < 1


def test_a_clip_is_as_the_original_follows_it(pair):
    whole_clip(pair, SAM2_TEST, 6, BOUND)


@pytest.mark.slow
@pytest.mark.parametrize("config", [SAM2_TEST, TEST_2_0], ids=["2.1", "2.0"])
def test_a_long_clip_is_as_the_original_follows_it(pair, config):
    whole_clip(pair, config, 60, BOUND)


@pytest.mark.slow
def test_so_is_one_with_rounded_memories(pair):
    # Whether an object is there is asked of scores; here none is so near 0 that rounding decides.
    options = {"memory_dtype": jnp.bfloat16, "presence": -0.25}
    whole_clip(pair, SAM2_TEST, 60, BFLOAT16_BOUND, **options)


@pytest.mark.slow
def test_so_is_one_with_filled_holes(pair, monkeypatch):
    # The original labels components by a CUDA program; this stands in for it.
    def components(masks):
        labels, areas = np.zeros((2, *masks.shape), np.int64)
        for i, mask in enumerate(masks.numpy()[:, 0]):
            labels[i, 0], count = ndimage.label(mask, np.ones((3, 3)))
            sizes = np.bincount(labels[i, 0].ravel(), minlength=count + 1)
            areas[i, 0] = sizes[labels[i, 0]]
        return torch.from_numpy(labels), torch.from_numpy(areas)

    monkeypatch.setattr("sam2.utils.misc.get_connected_components", components)
    whole_clip(pair, SAM2_TEST, 16, BOUND, fill_hole_area=8)
