"""Object proposals: how many objects are among the masks of everything (SAM section 7.3, D.3).

Average recall as COCO measures it, without classes: proposals, best first, each take the free true
mask that they overlap most, if by the threshold; recall is averaged over ten thresholds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from sam_jax.automatic.runs import Runs

POINTS_PER_SIDE = 64
LIMITS = (10, 100, 1000)
THRESHOLDS = np.linspace(0.5, 0.95, 10)
# COCO's sizes, in pixels of the mask; what is on a border counts for both sides.
AREAS = {
    "all": (0, 1 << 40),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1 << 40),
}


@dataclass(frozen=True, eq=False)
class RecallCounts:
    """Of one image, or of several together.

    Attributes:
      found: objects found, by size (`AREAS`), limit (`LIMITS`) and threshold (`THRESHOLDS`).
      objects: how many there are of each size.
    """

    found: Int64[np.ndarray, "sizes limits thresholds"]
    objects: Int64[np.ndarray, " sizes"]

    def __add__(self, other: "RecallCounts") -> "RecallCounts":
        return RecallCounts(self.found + other.found, self.objects + other.objects)

    def average_recall(self) -> dict[str, float | None]:
        """AR@10, AR@100, AR@1000, and the last of small, medium and large objects.

        None where there is no object of a size.
        """
        found = self.found.mean(axis=2)
        out = {
            f"AR@{limit}": _ratio(found[0, place], self.objects[0])
            for place, limit in enumerate(LIMITS)
        }
        for place, size in enumerate(AREAS):
            if size != "all":
                out[f"AR@{LIMITS[-1]} {size}"] = _ratio(found[place, -1], self.objects[place])
        return out


def generate_proposals(segmenter: Any, embedding: Any) -> list[Runs]:
    """The paper's proposals for an image, best first: 64 by 64 points, no filters, NMS at 0.9.

    Of the rest, the 1,000 with the highest mean of predicted IoU and stability stay. Masks without
    a pixel are dropped.

    Args:
      segmenter: a `Segmenter`; what its checkpoint would have of options counts for nothing.
      embedding: what it makes of the image.
    """
    found = segmenter.generate_masks(
        embedding,
        points_per_side=POINTS_PER_SIDE,
        pred_iou_thresh=0.0,
        stability_score_thresh=0.0,
        stability_score_offset=1.0,
        nms="box",
        box_nms_thresh=0.9,
        crop_n_layers=0,
        tile_size=None,
        min_mask_region_area=0,
        min_mask_area=1,
        max_mask_area_ratio=None,
        max_masks=None,
    ).candidates
    scores = (found.predicted_iou + found.stability_score) / 2
    return [found.runs[place] for place in np.argsort(-scores, kind="stable")[: LIMITS[-1]]]


def proposal_overlaps(
    proposals: Sequence[Runs], truths: Iterable[Bool[np.ndarray, "height width"]]
) -> Float64[np.ndarray, "proposals objects"]:
    """IoU of every proposal with every true mask; these are taken one at a time."""
    intervals = [runs.intervals() for runs in proposals]
    none = np.zeros(0, np.int64)
    starts, ends = (np.concatenate([none, *(pair[side] for pair in intervals)]) for side in (0, 1))
    owners = np.repeat(np.arange(len(proposals)), [len(first) for first, _ in intervals])
    areas = np.array([runs.area for runs in proposals], np.int64)
    overlaps = []
    for truth in truths:
        # Pixels of the mask before each position, column by column: differences count runs.
        before = np.concatenate([[0], np.cumsum(truth.T.reshape(-1), dtype=np.int64)])
        shared = np.bincount(owners, before[ends] - before[starts], minlength=len(proposals))
        overlaps.append(shared / np.maximum(areas + before[-1] - shared, 1))
    return np.stack(overlaps, axis=1) if overlaps else np.zeros((len(proposals), 0))


def count_found(
    overlaps: Float64[np.ndarray, "proposals objects"], areas: Int[np.ndarray, " objects"]
) -> RecallCounts:
    """Which objects of an image are among its proposals.

    Args:
      overlaps: IoU of proposals, best first, with objects; the first 1,000 count.
      areas: pixels of the objects.
    """
    found = np.zeros((len(AREAS), len(LIMITS), len(THRESHOLDS)), np.int64)
    objects = np.zeros(len(AREAS), np.int64)
    for i, (low, high) in enumerate(AREAS.values()):
        of_size = (areas >= low) & (areas <= high)
        objects[i] = np.count_nonzero(of_size)
        for k, threshold in enumerate(THRESHOLDS):
            ranks = _takers(overlaps[: LIMITS[-1], of_size], float(threshold))
            found[i, :, k] = [np.count_nonzero(ranks < limit) for limit in LIMITS]
    return RecallCounts(found, objects)


def _takers(
    overlaps: Float64[np.ndarray, "proposals objects"], threshold: float
) -> Int64[np.ndarray, " takers"]:
    """The ranks of the proposals that take an object, best proposals choosing first."""
    enough = overlaps >= threshold
    free = np.ones(overlaps.shape[1], bool)
    ranks = []
    for rank in np.flatnonzero(enough.any(axis=1)):
        open_to_it = np.flatnonzero(enough[rank] & free)
        if open_to_it.size:
            # Of equal overlaps, COCO's loop ends at the last.
            values = overlaps[rank, open_to_it][::-1]
            free[open_to_it[::-1][np.argmax(values)]] = False
            ranks.append(rank)
    return np.array(ranks, np.int64)


def _ratio(part: float, whole: Any) -> float | None:
    return float(part / whole) if whole else None
