"""Average recall of proposals: as COCO's own code counts it."""

import contextlib
import io

import numpy as np
import pytest
from small_vit import SMALL_VIT_CHECKPOINT

from sam_jax.automatic.candidates import Candidates
from sam_jax.automatic.records import GeneratedMasks
from sam_jax.automatic.runs import Runs, runs_of_mask
from sam_jax.evaluate.proposals import (
    AREAS,
    LIMITS,
    count_found,
    generate_proposals,
    proposal_overlaps,
)
from sam_jax.formats.rle import counts_to_rle, encode_rle, mask_area, mask_box
from sam_jax.segmenter import Segmenter

SHAPE = (150, 230)


def runs_of(mask):
    return runs_of_mask(mask, (0, 0, mask.shape[1], mask.shape[0]), mask.shape)


def counts_of(found, masks):
    overlaps = proposal_overlaps([runs_of(mask) for mask in found], masks)
    return count_found(overlaps, np.array([np.count_nonzero(mask) for mask in masks], int))


def rectangle(rng, largest):
    height, width = rng.integers(4, largest, 2)
    y, x = rng.integers(0, SHAPE[0] - height), rng.integers(0, SHAPE[1] - width)
    mask = np.zeros(SHAPE, bool)
    mask[y : y + height, x : x + width] = True
    return mask


def scene(rng, objects, proposals):
    """True masks of all sizes, and proposals that are moved ones of them or nothing of the kind."""
    masks = [rectangle(rng, largest) for largest in rng.choice([20, 60, 140], objects)]
    found = []
    for _ in range(proposals):
        if rng.random() < 0.8:
            move = rng.integers(-4, 5, 2)
            found.append(np.roll(masks[rng.integers(objects)], move, axis=(0, 1)))
        else:
            found.append(rectangle(rng, 100))
    return masks, found


def cocos_recall(scenes):
    """Average recall by size and limit, by pycocotools."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    truth, detections = [], []
    for image, (masks, found) in enumerate(scenes, 1):
        for mask in masks:
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": image,
                    "category_id": 1,
                    "iscrowd": 0,
                    "area": int(mask_area(mask)),
                    "bbox": mask_box(mask).tolist(),
                    "segmentation": encode_rle(mask),
                }
            )
        for rank, mask in enumerate(found):
            rle = encode_rle(mask)
            score = 1 - rank / 10_000
            detections.append(
                {"image_id": image, "category_id": 1, "segmentation": rle, "score": score}
            )
    height, width = SHAPE
    with contextlib.redirect_stdout(io.StringIO()):
        true = coco.COCO()
        true.dataset = {
            "images": [
                {"id": image, "height": height, "width": width}
                for image in range(1, len(scenes) + 1)
            ],
            "annotations": truth,
            "categories": [{"id": 1, "name": "object"}],
        }
        true.createIndex()
        evaluation = cocoeval.COCOeval(true, true.loadRes(detections), "segm")
        evaluation.params.maxDets = list(LIMITS)
        evaluation.evaluate()
        evaluation.accumulate()
    recall = evaluation.eval["recall"][:, 0]  # thresholds, areas, limits
    assert (recall >= 0).all()  # there are objects of all sizes
    return recall.mean(axis=0)


@pytest.mark.parametrize("seed", range(4))
def test_recall_is_what_cocos_own_code_gives(seed):
    rng = np.random.default_rng(seed)
    scenes = [scene(rng, objects, 130) for objects in (12, 5, 30)]
    counts = [counts_of(found, masks) for masks, found in scenes]
    ours = (counts[0] + counts[1] + counts[2]).average_recall()
    expected = cocos_recall(scenes)
    for place, limit in enumerate(LIMITS):
        assert ours[f"AR@{limit}"] == pytest.approx(expected[0, place])
    assert 0.1 < ours["AR@10"] < ours["AR@100"]
    for place, size in enumerate(AREAS):
        if size != "all":
            assert ours[f"AR@1000 {size}"] == pytest.approx(expected[place, -1]), size


def test_overlaps_are_intersections_over_unions():
    masks, found = scene(np.random.default_rng(0), 6, 9)
    found.append(np.zeros(SHAPE, bool))
    overlaps = proposal_overlaps([runs_of(mask) for mask in found], iter(masks))
    expected = [[np.sum(one & other) / np.sum(one | other) for other in masks] for one in found]
    np.testing.assert_allclose(overlaps, expected)


def test_the_masks_themselves_have_a_recall_of_one_and_no_proposals_of_zero():
    masks, _ = scene(np.random.default_rng(0), 8, 0)
    assert counts_of(masks, masks).average_recall()["AR@10"] == 1.0
    assert counts_of([], masks).average_recall()["AR@1000"] == 0.0


def test_one_proposal_finds_one_object():
    mask = rectangle(np.random.default_rng(0), 60)
    assert counts_of([mask], [mask, mask]).average_recall()["AR@1000"] == 0.5


def test_sizes_without_an_object_have_no_recall():
    mask = np.zeros(SHAPE, bool)
    mask[3:9, 4:20] = True
    recall = counts_of([mask], [mask]).average_recall()
    sizes = [recall[f"AR@1000 {size}"] for size in ("small", "medium", "large")]
    assert sizes == [1.0, None, None]
    assert counts_of([mask], []).average_recall()["AR@1000"] is None


class FewPoints:
    """Generates from a grid of 12 by 12 points in place of 64 by 64."""

    def __init__(self):
        # Options of its own, each of which would drop or change masks.
        own = {
            "pred_iou_thresh": 0.9, "stability_score_thresh": 0.9, "stability_score_offset": 3.0,
            "nms": "mask", "max_masks": 3, "max_mask_area_ratio": 0.1, "tile_size": 64,
            "min_mask_region_area": 50,
        }  # fmt: skip
        small = Segmenter.load(SMALL_VIT_CHECKPOINT)
        self.segmenter = Segmenter(small.config, small.params, generate_defaults=own)
        self.options = None

    def generate_masks(self, embedding, **options):
        self.options = options
        return self.segmenter.generate_masks(embedding, **{**options, "points_per_side": 12})


def test_a_models_proposals_are_not_filtered_and_come_best_first():
    y, x = np.mgrid[:90, :140]
    disc = (x - 100) ** 2 + (y - 40) ** 2 < 25**2
    image = np.where(disc[..., None], (230, 190, 60), (40, 60, 50)).astype(np.uint8)
    segmenter = FewPoints()
    embedding = segmenter.segmenter.encode(image)
    proposals = generate_proposals(segmenter, embedding)
    assert (segmenter.options["points_per_side"], segmenter.options["box_nms_thresh"]) == (64, 0.9)

    plain = Segmenter(segmenter.segmenter.config, segmenter.segmenter.params)
    everything = plain.generate_masks(
        embedding, points_per_side=12, pred_iou_thresh=0.0, stability_score_thresh=0.0,
        box_nms_thresh=0.9,
    ).candidates  # fmt: skip
    areas = np.array([runs.area for runs in everything.runs])
    quality = (everything.predicted_iou + everything.stability_score)[areas > 0]
    expected = [everything.runs[place] for place in np.flatnonzero(areas)[np.argsort(-quality)]]
    assert len(expected) > 50
    assert [runs.rle for runs in proposals] == [runs.rle for runs in expected]


def test_of_many_proposals_the_best_thousand_stay():
    count = 1100
    counts = [np.array([place, 1, 50 * 60 - place - 1]) for place in range(count)]
    runs = [Runs(counts_to_rle(one, (50, 60)), 1) for one in counts]
    rng = np.random.default_rng(0)
    iou, stability = rng.random((2, count), np.float32)
    boxes = np.zeros((count, 4), np.int64)
    found = Candidates(iou, stability, boxes, boxes, [np.zeros((1, 2))] * count, runs)

    class Many:
        def generate_masks(self, embedding, **options):
            return GeneratedMasks((50, 60), found, {})

    proposals = generate_proposals(Many(), None)
    best = np.argsort(-(iou + stability))[:1000]
    assert [runs.rle for runs in proposals] == [found.runs[place].rle for place in best]
