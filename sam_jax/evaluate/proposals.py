"""Object proposals: how many objects are among the masks of everything (SAM section 7.3, D.3).

Average recall as COCO measures it, without classes: proposals, best first, each take the free true
mask that they overlap most, if by the threshold; recall is averaged over ten thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from sam_jax.automatic.runs import Runs
from sam_jax.segmenter import Segmenter

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
      proposals: how many proposals there were.
    """

    found: Int64[np.ndarray, "sizes limits thresholds"]
    objects: Int64[np.ndarray, " sizes"]
    proposals: int

    def __add__(self, other: "RecallCounts") -> "RecallCounts":
        return RecallCounts(
            self.found + other.found,
            self.objects + other.objects,
            self.proposals + other.proposals,
        )

    def summary(self) -> dict[str, int | float | None]:
        """Average recall: "AR@1000" and the like, "small", "medium", "large" at the last limit.

        None where there is no object of a size.
        """
        rows = self.found.mean(axis=2)
        out: dict[str, int | float | None] = {"masks": int(self.objects[0])}
        out["proposals"] = self.proposals
        for j, limit in enumerate(LIMITS):
            out[f"AR@{limit}"] = _ratio(rows[0, j], self.objects[0])
        for i, size in enumerate(AREAS):
            if size != "all":
                out[size] = _ratio(rows[i, -1], self.objects[i])
        return out


def generate_proposals(segmenter: Segmenter, embedding: object) -> list[Runs]:
    """The paper's proposals for an image, best first: 64 by 64 points, no filters, NMS at 0.9.

    Of the rest, the 1,000 with the highest mean of predicted IoU and stability stay. Masks without
    a pixel are dropped.
    """
    found = segmenter.generate_masks(
        embedding,  # type: ignore[arg-type]
        points_per_side=64,
        pred_iou_thresh=0.0,
        stability_score_thresh=0.0,
        box_nms_thresh=0.9,
        crop_n_layers=0,
        min_mask_region_area=0,
        min_mask_area=1,
        nms="box",
    ).candidates
    # An empty lower cut makes a stability of 0 / 0; such a mask is empty too and not here.
    scores = (found.predicted_iou + found.stability_score) / 2
    best = np.argsort(-scores, kind="stable")[: LIMITS[-1]]
    return [found.runs[i] for i in best]


def count_found(
    proposals: Sequence[Runs], masks: Sequence[Bool[np.ndarray, "height width"]]
) -> RecallCounts:
    """Which objects of an image are among its proposals.

    Args:
      proposals: best first.
      masks: the true masks, taken one at a time.
    """
    proposals = proposals[: LIMITS[-1]]
    columns = [_overlaps(proposals, mask) for mask in masks]
    overlaps = np.stack([each for each, _ in columns], axis=1) if columns else np.zeros((0, 0))
    areas = np.array([area for _, area in columns], np.int64)
    found = np.zeros((len(AREAS), len(LIMITS), len(THRESHOLDS)), np.int64)
    objects = np.zeros(len(AREAS), np.int64)
    for i, (low, high) in enumerate(AREAS.values()):
        of_size = (areas >= low) & (areas <= high)
        objects[i] = np.count_nonzero(of_size)
        for k, threshold in enumerate(THRESHOLDS):
            takers = _takers(overlaps[:, of_size], float(threshold))
            found[i, :, k] = [np.count_nonzero(takers < limit) for limit in LIMITS]
    return RecallCounts(found, objects, len(proposals))


def _takers(overlaps: Float[np.ndarray, "proposals objects"], threshold: float) -> np.ndarray:
    """The rank of each proposal that takes an object, best proposals choosing first."""
    # As in COCO's code, what reaches the threshold but for rounding counts.
    enough = overlaps >= min(threshold, 1 - 1e-10)
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


def _overlaps(
    proposals: Sequence[Runs], mask: Bool[np.ndarray, "height width"]
) -> tuple[Float64[np.ndarray, " proposals"], int]:
    """IoU of each proposal with a mask, and the mask's area, by sums along the mask's columns."""
    before = np.concatenate([[0], np.cumsum(mask.T.reshape(-1), dtype=np.int64)])
    area = int(before[-1])
    if not proposals:
        return np.zeros(0), area
    intervals = [runs.intervals() for runs in proposals]
    starts, ends = (np.concatenate(positions) for positions in zip(*intervals, strict=True))
    owner: Int[np.ndarray, " runs"] = np.repeat(
        np.arange(len(proposals)), [len(first) for first, _ in intervals]
    )
    shared = np.bincount(owner, before[ends] - before[starts], minlength=len(proposals))
    areas = np.array([runs.area for runs in proposals])
    return shared / np.maximum(areas + area - shared, 1), area


def _ratio(part: float, whole: int | np.integer) -> float | None:
    return float(part / whole) if whole else None
