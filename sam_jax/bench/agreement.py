"""Whether two packages found the same masks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# From this overlap, two masks count as the same.
SAME_IOU = 0.99


def same_masks(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> int:
    """How many of our records have one of theirs for the same point, with the same mask.

    Args:
      ours: records of `generate`, masks as bool [height, width].
      theirs: likewise; each is matched once.
    """
    waiting: dict[tuple[float, ...], list[np.ndarray]] = {}
    for record in theirs:
        waiting.setdefault(_point(record), []).append(record["segmentation"])
    same = 0
    for record in ours:
        candidates = waiting.get(_point(record), [])
        for i, mask in enumerate(candidates):
            if _overlap(record["segmentation"], mask) >= SAME_IOU:
                same += 1
                del candidates[i]
                break
    return same


def _point(record: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(round(value, 3) for value in record["point_coords"][0])


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    either = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / either if either else 1.0
