"""How well the outlines of masks agree: the boundary F-measure of the DAVIS benchmark."""

import math

import numpy as np
from jaxtyping import Bool, Int64
from scipy.spatial import cKDTree

# DAVIS's tolerance, as a part of the image's diagonal.
TOLERANCE = 0.008


def boundary_pixels(mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Pixels that differ from their neighbor to the right, below, or right below.

    Masks that touch share the boundary between them, and it is one pixel wide. The image's own
    edge is none.
    """
    out = np.zeros_like(mask)
    out[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    out[:-1] |= mask[:-1] != mask[1:]
    out[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return out


def boundary_f(
    predicted: Bool[np.ndarray, "height width"],
    truth: Bool[np.ndarray, "height width"],
    tolerance: float = TOLERANCE,
) -> float:
    """F-measure of a mask's boundary: 2PR / (P + R).

    P is the part of the predicted boundary within the tolerance of the true one, R the part of the
    true one within the tolerance of the predicted one; no boundary at all agrees with none, and
    with nothing else. As DAVIS 2016 measures it.

    Args:
      predicted: the mask.
      truth: the true mask.
      tolerance: as a part of the image's diagonal; rounded up to whole pixels.
    """
    radius = math.ceil(tolerance * math.hypot(*truth.shape))
    found, true = np.argwhere(boundary_pixels(predicted)), np.argwhere(boundary_pixels(truth))
    if not len(found) or not len(true):
        return float(len(found) == len(true))
    precision, recall = _part_near(found, true, radius), _part_near(true, found, radius)
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def _part_near(
    pixels: Int64[np.ndarray, "n 2"], others: Int64[np.ndarray, "m 2"], radius: int
) -> float:
    """The part of some pixels with one of the others no farther away than the radius."""
    # Distances of pixels are roots of whole numbers: none lies just beyond the radius. What the
    # search finds is nearer than its bound, or infinitely far.
    distances, _ = cKDTree(others).query(pixels, distance_upper_bound=radius + 1e-6)
    return float(np.mean(np.isfinite(distances)))
