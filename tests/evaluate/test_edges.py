"""Edges from masks: their strength, where they are, and which of them stay."""

import numpy as np
from small_vit import SMALL_VIT_CHECKPOINT

from sam_jax.configs import TEST
from sam_jax.evaluate import edges
from sam_jax.evaluate.boundaries import boundary_pixels
from sam_jax.evaluate.edge_scores import count_edges, edge_scores
from sam_jax.evaluate.edges import edge_map, edge_nms, mask_edge
from sam_jax.evaluate.thinning import thin
from sam_jax.ops.nms import nms_reference
from sam_jax.postprocess import MaskPrediction, mask_matrices, upscale_logits
from sam_jax.segmenter import Segmenter


def test_a_masks_edge_is_strong_just_outside_it_and_zero_elsewhere():
    y, x = np.mgrid[:40, :60]
    logits = (12 - np.hypot(x - 38, y - 17)) * 2.0
    strength, across, down = mask_edge(logits)
    places = np.argwhere(strength > 0)
    radii = np.hypot(places[:, 1] - 38, places[:, 0] - 17)
    assert radii.min() >= 12 and radii.max() < 12 + 2**0.5
    # The probability falls to the right of the disc's right side, and rises before its left.
    assert across[17, 50] < 0 < across[17, 26]
    assert down[29, 38] < 0 < down[5, 38]


def test_a_sharp_edge_is_stronger_than_a_vague_one():
    x = np.tile(np.arange(60.0) - 30, (20, 1))
    assert mask_edge(4 * x)[0].max() > 2 * mask_edge(0.2 * x)[0].max()


def test_suppression_leaves_the_crest_across_the_gradient():
    profile = np.array([0, 0.2, 0.6, 1.0, 0.7, 0.1, 0], np.float32)
    strength = np.tile(profile, (5, 1))
    across, down = np.ones_like(strength), np.zeros_like(strength)
    assert np.argwhere(edge_nms(strength, across, down)[2]).ravel().tolist() == [3]
    turned = edge_nms(strength.T.copy(), down.T.copy(), across.T.copy())
    assert np.argwhere(turned[:, 2]).ravel().tolist() == [3]


def test_of_a_ridge_two_pixels_wide_one_stays():
    strength = np.tile(np.array([0, 0.5, 0.5, 0], np.float32), (5, 1))
    across, down = np.ones_like(strength), np.zeros_like(strength)
    assert np.argwhere(edge_nms(strength, across, down)[2]).ravel().tolist() == [2]


def test_an_edge_map_is_the_strongest_of_all_masks_that_are_left(monkeypatch):
    assert edges.POINTS_PER_SIDE == 16
    monkeypatch.setattr(edges, "POINTS_PER_SIDE", 5)
    y, x = np.mgrid[:90, :140]
    disc = np.hypot(x - 100, y - 40) < 25
    image = np.where(disc[..., None], (230, 190, 60), (40, 60, 50)).astype(np.uint8)
    segmenter = Segmenter.load(SMALL_VIT_CHECKPOINT)
    embedding = segmenter.encode(image)
    ours = edge_map(segmenter, embedding, (90, 140))
    assert ours.shape == (90, 140) and ours.dtype == np.float32
    assert ours.min() == 0 and ours.max() == 1

    # The same by hand, of whole masks one by one.
    x, y = (np.arange(5) + 0.5) * 140 / 5, (np.arange(5) + 0.5) * 90 / 5
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 1, 2).astype(np.float32)
    found = segmenter.predict(embedding, points=points)
    masks, scores = found.masks.reshape(-1, 90, 140), found.scores.reshape(-1)
    some = np.flatnonzero(masks.any(axis=(1, 2)))
    places = [np.argwhere(mask) for mask in masks[some]]
    boxes = np.array([[*p.min(0)[::-1], *p.max(0)[::-1]] for p in places], np.float32)
    kept = some[nms_reference(boxes, scores[some], 0.7)]
    assert 1 < len(kept) < len(some)
    low = found.logits.reshape(-1, *found.logits.shape[-2:])
    logits = upscale_logits(low[kept], *mask_matrices((90, 140), found.frame, low.shape[-1]))
    all_edges = np.stack([mask_edge(each) for each in logits])
    strongest = all_edges[:, 0].argmax(axis=0)
    strength, across, down = np.take_along_axis(all_edges, strongest[None, None], axis=0)[0]
    expected = edge_nms(strength / strength.max(), across, down)
    # Where two pixels or two masks are equally strong but for rounding, either can be first.
    same = np.isclose(ours, expected, rtol=1e-4, atol=1e-5)
    assert same.mean() > 0.999


class RightPredictor:
    """Answers a point with the disc that it is in, else with a vague mask of everything."""

    size_hw, image_size, discs = (180, 280), 512, [(70, 60, 40.0), (200, 110, 55.0)]

    def predict(self, embedding, *, points, multimask=True, **others):
        # Low-resolution logits: pixel i is the image's (i + 0.5) * 280 / 128 - 0.5.
        line = (np.arange(128) + 0.5) * 280 / 128 - 0.5
        x, y = np.meshgrid(line, line)
        answers = [np.full_like(x, 0.1)]
        answers += [4 * (radius - np.hypot(x - cx, y - cy)) for cx, cy, radius in self.discs]
        inside = [
            sum(k * (np.hypot(px - x0, py - y0) < r) for k, (x0, y0, r) in enumerate(self.discs, 1))
            for px, py in points[:, 0]
        ]
        logits = np.stack([[answers[k]] * 3 for k in inside]).astype(np.float32)
        scores = np.tile(np.array([[0.9, 0.8, 0.7]], np.float32), (len(inside), 1))
        return MaskPrediction(
            scores, logits, self.size_hw, TEST.frame.with_side(self.image_size), 0.0
        )


def test_masks_that_are_right_give_the_objects_boundaries():
    predictor = RightPredictor()
    y, x = np.indices(predictor.size_hw)
    truth = np.zeros(predictor.size_hw, bool)
    for cx, cy, radius in predictor.discs:
        truth |= boundary_pixels(np.hypot(x - cx, y - cy) < radius)
    ours = edge_map(predictor, "an embedding", predictor.size_hw)
    counts = count_edges(ours, thin(truth))
    # All of the boundaries is found, and little else: where a digital circle steps, thinning leaves
    # the two lines of slightly different numbers of pixels.
    assert counts.recall()[0] == 1 and counts.precision()[0] > 0.97
    assert edge_scores([counts])["ODS"] > 0.98
