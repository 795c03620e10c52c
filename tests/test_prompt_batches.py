import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_jax.inference.prompt_batches import batch_prompts, power_of_two, share
from sam_jax.preprocess import ImagePrompts
from sam_jax.types import LABEL_ABSENT


@given(st.integers(1, 10**6))
def test_powers_of_two_enclose(n):
    up, down = power_of_two(n), power_of_two(n, up=False)
    assert down <= n <= up < 2 * n and up & (up - 1) == 0 and down & (down - 1) == 0


def image_prompts(count, points=0, box=False, mask=False, seed=0):
    rng = np.random.default_rng(seed)
    return ImagePrompts(
        points=rng.uniform(size=(count, points, 2)).astype(np.float32) if points else None,
        labels=rng.integers(0, 2, (count, points)).astype(np.int32) if points else None,
        boxes=rng.uniform(size=(count, 4)).astype(np.float32) if box else None,
        masks=rng.normal(size=(count, 8, 8)).astype(np.float32) if mask else None,
    )


one_images_prompts = st.builds(
    image_prompts,
    count=st.integers(1, 12),
    points=st.integers(1, 6),
    box=st.booleans(),
    mask=st.booleans(),
    seed=st.integers(0, 99),
)


@given(st.integers(1, 99), st.integers(1, 99), st.integers(1, 12))
def test_devices_share_all_images_and_prompts_and_none_does_needlessly_much(images, count, devices):
    each_image, each_prompt = share(images, count, devices)
    by_image = each_image < images
    assert each_prompt == (count if by_image else -(-count // devices))
    assert each_image == (-(-images // devices) if by_image else images)
    assert each_image * each_prompt <= min(
        images * -(-count // devices), -(-images // devices) * count
    )


@given(
    st.lists(one_images_prompts, min_size=1, max_size=6),
    st.one_of(st.integers(1, 9), st.just(64)),
    st.one_of(st.just(1), st.integers(1, 9)),
)
def test_every_prompt_is_in_exactly_one_place_and_nothing_else_is(prompts, limit, devices):
    seen = [0] * len(prompts)
    for batch in batch_prompts(prompts, [(2, 2, 4)] * len(prompts), limit, devices):
        slots, count, length = batch.labels.shape
        assert math.prod(share(slots, count, devices)) <= limit
        assert all(n & (n - 1) == 0 for n in (slots, count, length))
        real = 0
        for slot, (image, used) in enumerate(batch.pieces):
            source, start = prompts[image], seen[image]
            stop = start + used
            n = source.points.shape[1]
            np.testing.assert_array_equal(batch.points[slot, :used, :n], source.points[start:stop])
            np.testing.assert_array_equal(batch.labels[slot, :used, :n], source.labels[start:stop])
            real += used * n
            if source.boxes is not None:
                corners = batch.points[slot, :used, n : n + 2].reshape(used, 4)
                np.testing.assert_array_equal(corners, source.boxes[start:stop])
                assert (batch.labels[slot, :used, n : n + 2] == [2, 3]).all()
                real += 2 * used
            if source.masks is not None:
                np.testing.assert_array_equal(batch.masks[slot, :used], source.masks[start:stop])
                assert batch.mask_present[slot, :used].all()
                assert not batch.mask_present[slot, used:].any()
            elif batch.mask_present is not None:
                assert not batch.mask_present[slot].any()
            seen[image] = stop
        assert (batch.labels != LABEL_ABSENT).sum() == real
    assert seen == [p.num_prompts for p in prompts]


def test_images_of_one_prompt_share_a_batch():
    batches = list(batch_prompts([image_prompts(1, 1)] * 5, [(2, 2, 4)] * 5, 32))
    assert [b.labels.shape for b in batches] == [(8, 1, 4)]


@pytest.mark.parametrize(("limit", "devices"), [(3, 1), (2, 8)])
def test_a_limit_holds_where_no_batch_fills_it(limit, devices):
    """Padding three prompts would make them four, and eight devices cannot divide four by four."""
    batches = batch_prompts([image_prompts(3, 1)] * 4, [(2, 2, 4)] * 4, limit, devices)
    sizes = [b.labels.shape[:2] for b in batches]
    assert sizes == ([(1, 2), (1, 1)] * 4 if devices == 1 else [(2, 4)] * 2)


def test_embeddings_of_different_shapes_never_share_a_batch():
    shapes = [(2, 2, 4), (4, 4, 4), (4, 4, 4)]
    batches = list(batch_prompts([image_prompts(1, 1)] * 3, shapes, 32))
    assert [[image for image, _ in b.pieces] for b in batches] == [[0], [1, 2]]


@pytest.mark.parametrize("kind", [{"box": True}, {"mask": True}])
def test_prompts_without_points_are_laid_out_too(kind):
    (batch,) = batch_prompts([image_prompts(3, **kind)], [(2, 2, 4)], 32)
    expected = 6 if "box" in kind else 0
    assert (batch.labels != LABEL_ABSENT).sum() == expected
