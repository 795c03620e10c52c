"""Average recall of proposals: as COCO's own code counts it."""

import contextlib
import io

import numpy as np
import pytest

from sam_jax import Segmenter
from sam_jax.automatic.runs import runs_of_mask
from sam_jax.evaluate.proposals import AREAS, LIMITS, count_found, generate_proposals
from sam_jax.formats.rle import encode_rle, mask_area, mask_box

SHAPE = (150, 230)


def runs_of(mask):
    return runs_of_mask(mask, (0, 0, mask.shape[1], mask.shape[0]), mask.shape)


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
        if rng.random() < 0.8 and objects:
            move = rng.integers(-4, 5, 2)
            found.append(np.roll(masks[rng.integers(objects)], move, axis=(0, 1)))
        else:
            found.append(rectangle(rng, 100))
    return masks, found


def cocos_recall(scenes):
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
        detections += [
            {
                "image_id": image,
                "category_id": 1,
                "segmentation": encode_rle(mask),
                "score": 1 - rank / 10_000,
            }
            for rank, mask in enumerate(found)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        true = coco.COCO()
        true.dataset = {
            "images": [
                {"id": i + 1, "height": SHAPE[0], "width": SHAPE[1]} for i in range(len(scenes))
            ],
            "annotations": truth,
            "categories": [{"id": 1, "name": "object"}],
        }
        true.createIndex()
        evaluation = cocoeval.COCOeval(true, true.loadRes(detections), "segm")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = list(LIMITS)
        evaluation.evaluate()
        evaluation.accumulate()
    recall = evaluation.eval["recall"]  # thresholds, categories, areas, limits
    return np.where(recall[:, 0] < 0, np.nan, recall[:, 0]).mean(axis=0)


@pytest.mark.parametrize("seed", range(4))
def test_recall_is_what_cocos_own_code_gives(seed):
    rng = np.random.default_rng(seed)
    scenes = [scene(rng, objects, 130) for objects in (12, 5, 30)]
    counts = [count_found([runs_of(mask) for mask in found], masks) for masks, found in scenes]
    summary = (counts[0] + counts[1] + counts[2]).summary()
    expected = cocos_recall(scenes)
    assert summary["masks"] == 47 and summary["proposals"] == 390
    for j, limit in enumerate(LIMITS):
        assert summary[f"AR@{limit}"] == pytest.approx(expected[0, j])
    assert 0.1 < summary["AR@10"] < summary["AR@100"]
    for i, size in enumerate(AREAS):
        if size != "all":
            assert summary[size] == pytest.approx(expected[i, -1]), size


def test_the_masks_themselves_have_a_recall_of_one_and_no_proposals_of_zero():
    masks, _ = scene(np.random.default_rng(0), 8, 0)
    assert count_found([runs_of(mask) for mask in masks], masks).summary()["AR@10"] == 1.0
    assert count_found([], masks).summary()["AR@1000"] == 0.0


def test_one_proposal_finds_one_object():
    mask = rectangle(np.random.default_rng(0), 60)
    assert count_found([runs_of(mask)], [mask, mask]).summary()["AR@1000"] == 0.5


def test_sizes_without_an_object_have_no_recall():
    mask = np.zeros(SHAPE, bool)
    mask[3:9, 4:20] = True
    summary = count_found([runs_of(mask)], [mask]).summary()
    assert (summary["small"], summary["medium"], summary["large"]) == (1.0, None, None)
    assert count_found([runs_of(mask)], []).summary()["AR@1000"] is None


@pytest.mark.slow
def test_the_small_models_proposals_are_not_filtered_and_come_best_first():
    segmenter = Segmenter.load("tiny")
    y, x = np.mgrid[:90, :140]
    disk = (x - 100) ** 2 + (y - 40) ** 2 < 25**2
    image = np.where(disk[..., None], (230, 190, 60), (40, 60, 50)).astype(np.uint8)
    embedding = segmenter.encode(image)
    proposals = generate_proposals(segmenter, embedding)
    assert 0 < len(proposals) <= 1000
    assert all(runs.area for runs in proposals)
    kept = {runs.rle["counts"] for runs in proposals}
    filtered = segmenter.generate_masks(embedding, min_mask_region_area=0, points_per_side=64)
    # All that default filters leave at the stricter suppression is found without them, too.
    assert len(filtered) < len(proposals)
    assert filtered.candidates.runs[0].rle["counts"] in kept
    assert count_found(proposals, [disk]).summary()["AR@1000"] > 0.5
