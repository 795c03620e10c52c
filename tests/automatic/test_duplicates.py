"""Suppression by the masks' own overlap."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from mask_candidates import candidates_of

from sam_jax.automatic.duplicates import distinct
from sam_jax.ops.nms import float32_below


def by_definition(masks, scores, threshold):
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        overlaps = [(masks[i] & masks[k]).sum() / max(1, (masks[i] | masks[k]).sum()) for k in kept]
        if all(overlap <= float32_below(threshold) for overlap in overlaps):
            kept.append(int(i))
    return kept


@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
def test_masks_are_compared_pixel_by_pixel(seed, count, threshold):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 12, 2)
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        y, x = rng.integers(0, height + 1, 2), rng.integers(0, width + 1, 2)
        mask[min(y) : max(y), min(x) : max(x)] = rng.random() < 0.9
    scores = rng.integers(0, 4, count).astype(np.float32)
    kept = distinct(candidates_of(masks), scores, threshold, "mask")
    assert kept.tolist() == by_definition(masks, scores, threshold)


def test_a_ring_and_what_is_in_it_are_two_masks_but_one_box():
    disc = np.zeros((41, 41), bool)
    disc[5:36, 5:36] = True
    ring = disc.copy()
    ring[8:33, 8:33] = False
    candidates = candidates_of([disc, ring])
    scores = np.array([0.9, 0.8], np.float32)
    assert distinct(candidates, scores, 0.7, "box").tolist() == [0]
    assert distinct(candidates, scores, 0.7, "mask").tolist() == [0, 1]
