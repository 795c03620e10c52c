"""Which masks are the same: suppression by boxes, as the original does, or by the masks."""

import numpy as np
from jaxtyping import Bool, Float, Int, Int64

from sam_jax.automatic.candidates import Candidates
from sam_jax.automatic.runs import Runs
from sam_jax.ops.nms import float32_below, nms


def distinct(
    candidates: Candidates, scores: Float[np.ndarray, " n"], threshold: float, by: str
) -> Int[np.ndarray, " kept"]:
    """Indices of the masks that stay, best first; equal scores keep their order.

    Args:
      candidates: the masks.
      scores: which of two is better.
      threshold: overlap (intersection over union) above which the worse one goes.
      by: "box" or "mask", whose overlap counts.
    """
    if by == "box":
        return nms(candidates.boxes.astype(np.float32), scores.astype(np.float32), threshold)
    return _distinct_masks(candidates, scores, threshold)


def _distinct_masks(
    candidates: Candidates, scores: Float[np.ndarray, " n"], threshold: float
) -> Int[np.ndarray, " kept"]:
    """Exact overlaps on the host: pixels are counted for one kept mask against all that are left.

    Two masks overlap at most by the ratio of their areas, and not at all where their boxes do not:
    few pairs are left to count.
    """
    limit = float32_below(threshold)
    boxes = candidates.boxes
    areas = np.array([runs.area for runs in candidates.runs], np.int64)
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while order.size:
        best, rest = int(order[0]), order[1:]
        kept.append(best)
        near = _boxes_meet(boxes[best], boxes[rest])
        smaller, larger = np.minimum(areas[best], areas[rest]), np.maximum(areas[best], areas[rest])
        near &= smaller > limit * larger
        if near.any():
            others = [candidates.runs[i] for i in rest[near]]
            shared = _shared_pixels(candidates.runs[best], boxes[best], others)
            same = shared > limit * (areas[best] + areas[rest[near]] - shared)
            near[near] = same
        order = rest[~near]
    return np.array(kept, np.int64)


def _boxes_meet(
    box: Int64[np.ndarray, " 4"], boxes: Int64[np.ndarray, "n 4"]
) -> Bool[np.ndarray, " n"]:
    return np.all((box[:2] <= boxes[:, 2:]) & (boxes[:, :2] <= box[2:]), axis=1)


def _shared_pixels(
    runs: Runs, box: Int64[np.ndarray, " 4"], others: list[Runs]
) -> Int64[np.ndarray, " n"]:
    """Pixels that each of the others shares with a mask, by sums along its columns."""
    height = runs.size_hw[0]
    x0, x1 = int(box[0]), int(box[2]) + 1
    columns = runs.mask((x0, 0, x1, height)).T.reshape(-1)
    before = np.concatenate([[0], np.cumsum(columns, dtype=np.int64)])
    intervals = [other.intervals() for other in others]
    counts = [len(starts) for starts, _ in intervals]
    starts, ends = (
        np.clip(np.concatenate(positions) - x0 * height, 0, columns.size)
        for positions in zip(*intervals, strict=True)
    )
    inside = before[ends] - before[starts]
    owner = np.repeat(np.arange(len(others)), counts)
    return np.bincount(owner, inside, minlength=len(others)).astype(np.int64)
